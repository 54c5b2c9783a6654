"""README is true: its examples run as they stand, its paths exist, and what it lists is what there is.

Every line of a `sh` block is run by bash in one folder, in order, and must end with exit code 0. Three kinds of line
are different, as README says:

- a training is cut short by an option at its end, which overrules what comes before it: `--steps 3` (`--budget 1s`
  where the line gives a budget, `--steps 6` where it resumes);
- an audit is cut short by `--examples 2`, and one of everything to the laws of one kind by `--only clip`;
- `make train` and `make test` are run by `.ci/run`; here it is asserted that it does so.

A `console` block holds commands for a machine with a GPU: their options are parsed, and nothing is run.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from fenced import ROOT, blocks, run

from minilong.audit.specs import read_specs
from minilong.cli import COMMANDS, main
from minilong.data.corpora import CORPORA, read_text
from minilong.memory import CARDS
from minilong.train.presets import preset_names

README = (ROOT / "README.md").read_text("utf-8")


def shortened(line: str) -> str:
    """The command of a line, a training or an audit cut short."""
    words = shlex.split(line)
    if words[:2] == ["minilong", "audit"] and not {"--on", "--list"} & set(words):
        return f"{line} --examples 2" + ("" if {"--only", "--show"} & set(words) else " --only clip")
    if words[:2] != ["minilong", "train"] or "--dry-run" in words:
        return line
    if "--budget" in words:
        return f"{line} --budget 1s"
    return f"{line} --steps {6 if '--resume' in words else 3}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader might stand: a text of their own and some sentences."""
    path = tmp_path_factory.mktemp("readme")
    (path / "book.txt").write_text(read_text("persuasion")[:30_000], "utf-8")
    attention = next(b.text for b in blocks("README.md", "python") if "def my_attention" in b.text)
    (path / "model.py").write_text(attention, "utf-8")
    (path / "sentences.txt").write_text("Insert a new column.\nSave the file.\n", "utf-8")
    return path


def test_every_shell_example_runs(folder: Path) -> None:
    ran: set[str] = set()
    for block in blocks("README.md", "sh"):
        for line in block.text.splitlines():
            if line.startswith("make "):
                assert f"\n{line} " in (ROOT / ".ci/run").read_text("utf-8"), f".ci/run does not run {line!r}"
            else:
                run(["bash", "-c", f"set -euo pipefail\n{shortened(line)}"], folder)
                ran |= set(re.findall(r"(?:^|\| )minilong (\w+)", line))
    assert ran == set(COMMANDS)
    assert (folder / "translated.txt").read_text("utf-8").count("\n") == 2
    assert (folder / "runs/book-3/loss.png").stat().st_size > 1000


def parsed(words: list[str]) -> dict[str, object]:
    """The options and arguments of a `minilong` command as click reads them, without running it."""
    command, ctx = main, click.Context(main, **main.context_settings)
    while isinstance(command, click.Group):
        word, *words = words
        command = command.get_command(ctx, word)
        assert command, f"no command {word!r}"
        ctx = click.Context(command, parent=ctx)
    given, left, _ = command.make_parser(ctx).parse_args(words)
    assert not left
    return given


def test_every_example_for_a_gpu_is_one_of_this_version() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    lines = [line for block in blocks("README.md", "console") for line in block.text.splitlines()]
    assert {shlex.split(line)[0] for line in lines} == {"pip", "minilong"}
    for name, *words in map(shlex.split, lines):
        if name == "pip":
            assert set(re.findall(r"\[(.*)\]", words[-1])[0].split(",")) <= set(extras)
        else:
            parsed(words)
    with pytest.raises(click.NoSuchOption):
        parsed(["train", "book.txt", "--devise", "cuda"])


def test_every_python_example_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    examples = blocks("README.md", "python")
    assert len(examples) >= 2
    for block in examples:
        (tmp_path / "example.py").write_text(block.text, "utf-8")
        printed = run(["python", "example.py"], tmp_path).stdout.splitlines()
        said = re.findall(r"^ *print\(.*?\)(?:  # (.*))?$", block.text, re.MULTILINE)
        assert len(printed) == len(said)
        for actual, expected in zip(printed, said, strict=True):
            assert not expected or actual == expected


def test_every_path_in_readme_exists() -> None:
    named = set(re.findall(r"`((?:\.?[\w-]+/)+[\w.-]*|[A-Z]+(?:\.md)?)`", README))
    ours = {n for n in named if n not in ("TEXT", "NAME", "RUN") and not n.startswith(("runs/", ".venv/"))}
    assert {"minilong/autodiff/core.py", "CONTRIBUTING.md", "tests/properties/", ".ci/run"} <= ours
    assert not [name for name in ours if not (ROOT / name).exists()]


def test_readme_names_every_command_preset_and_text() -> None:
    assert not [name for name in COMMANDS if f"**{name}**" not in README]
    assert not [name for name in preset_names() if f"`{name}`" not in README]
    assert not [name for name in CORPORA if f"`{name}`" not in README]


def test_readme_shows_the_card_of_each_memory() -> None:
    for name, card in CARDS.items():
        can = (card.exact, card.beyond_window, card.constant_memory, card.trainable_through)
        assert f"| {name} | {' | '.join('yes' if c else 'no' for c in can)} | {card.about} |" in README


def test_readme_tells_the_exit_codes_of_the_help() -> None:
    told = run(["minilong", "--help"], ROOT).stdout.partition("Exit codes:")[2]
    codes = re.findall(r"^ +(\d+) ", told, re.MULTILINE)
    assert codes == ["0", "1", "2", "130"]
    assert re.findall(r"^\| (\d+) \|", README, re.MULTILINE) == codes


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_trains_a_step(name: str, folder: Path) -> None:
    text = ["book.txt"] if name in ("tiny", "small", "medium", "byte") else []
    size = ["--steps", "1", "--batch", "2", "--set", "validation=0.01"]  # the model as it is, few data
    done = run(["minilong", "train", *text, "--preset", name, *size, "--out", f"one/{name}", "--quiet"], folder)
    assert done.stdout == f"one/{name}\n"
    assert (folder / "one" / name / "model.safetensors").exists()


def test_readme_counts_the_verdicts_on_the_article() -> None:
    specs = read_specs()
    verdicts = ("holds", "corrected", "reading", "unchecked")
    for row, entries in (
        ("statements, examples, numbers, code", list(specs.claims.values())),
        ("formulas", [e for e in specs.equations.values() if e.verdict]),
    ):
        counts = [sum(entry.verdict == verdict for entry in entries) for verdict in verdicts]
        assert f"| {row} | {' | '.join(map(str, counts))} |" in README
