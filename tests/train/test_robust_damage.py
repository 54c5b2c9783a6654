"""Each byte of a run is guarded: whatever opens a damaged run says which file it is, in one line, with exit code 2."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from run_faults import memory_folder
from tiny_runs import TEXT, cheap, contents, copy, ignore, lm, never

import minilong.train.session as sessions
from minilong.cli import main

FILES = [
    "best.safetensors",
    "config.toml",
    "manifest.json",
    "metrics.jsonl",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "tokenizer.json",
]


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """A language model that was stopped after step 4 of 6."""
    with memory_folder() as folder, cheap():
        (folder / "book.txt").write_text(TEXT)
        session = sessions.start(lm(folder / "book.txt"), folder / "run")
        session.run(ignore, lambda: session.state.step >= 4)
        yield folder / "run"


def commands(run: Path) -> dict[str, list[str]]:
    return {
        "info": ["info", str(run)],
        "generate": ["generate", str(run), "--length", "3"],
        "evaluate": ["evaluate", str(run)],
        "resume": ["train", "--resume", str(run)],
    }


def call(*arguments: str) -> Result:
    with np.errstate(all="warn"):
        return CliRunner().invoke(main, arguments)


def test_all_files_of_a_run_are_tried(run: Path) -> None:
    assert sorted(path.name for path in run.iterdir() if path.name != ".lock") == FILES
    for name, arguments in commands(run).items():
        if name != "resume":
            assert call(*arguments).exit_code == 0


def refused(result: Result, *facts: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("minilong: error: ")
    for fact in facts:
        assert fact in result.stderr


@contextmanager
def kept(path: Path) -> Iterator[bytes]:
    """A file that is put back afterwards."""
    data = path.read_bytes()
    try:
        yield data
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_every_command_names_the_file_with_a_flipped_byte(run: Path, name: str) -> None:
    before = contents(run)
    numbers = random.Random(name)
    with kept(run / name) as data:
        for place in (0, len(data) - 1, numbers.randrange(len(data))):
            changed = bytearray(data)
            changed[place] ^= 1 << numbers.randrange(8)
            (run / name).write_bytes(changed)
            for arguments in commands(run).values():
                refused(call(*arguments), str(run / name))
            assert (run / name).read_bytes() == changed  # looked at, not touched
    assert contents(run) == before


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "folder"])
def test_every_command_names_a_file_that_is_not_whole(run: Path, name: str, damage: str) -> None:
    with kept(run / name) as data:
        if damage in ("missing", "folder"):
            (run / name).unlink()
        if damage == "folder":
            (run / name).mkdir()
        if damage in ("cut", "empty"):
            (run / name).write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
        for arguments in commands(run).values():
            refused(call(*arguments), str(run / name))


def test_every_command_refuses_what_is_no_run(run: Path) -> None:
    book = run.parent / "book.txt"
    for place, fact in (
        (book, "is a file"),
        (run.parent / "rum", f"did you mean '{run}'?"),
        (run.parent / "x", f"there is no run folder {run.parent / 'x'}; "),  # nothing is near
        (run.parent, str(run)),
    ):
        for arguments in commands(place).values():
            refused(call(*arguments), fact)


def test_commands_for_the_other_kind_of_task_are_named(run: Path, tmp_path: Path) -> None:
    sessions.start(copy(train__steps=1), tmp_path / "copy").run(ignore, never)
    refused(call("translate", str(run), "a"), "use `minilong generate")
    refused(call("generate", str(tmp_path / "copy")), "use `minilong translate")
    refused(call("evaluate", str(tmp_path / "copy")), "only a run of task 'lm'")
    refused(call("translate", str(tmp_path / "copy"), "abcdef"), "sentence 1 has 6 tokens")
    refused(call("generate", str(run), "--prompt", "三"), "character '三'")
    refused(call("evaluate", str(run), "--stride", "99"), "the stride is 99 and the context 8")


@pytest.mark.parametrize("arguments", [["--steps", "3"], []])
def test_a_complete_run_is_not_resumed(run: Path, tmp_path: Path, arguments: list[str]) -> None:
    sessions.start(lm(run.parent / "book.txt", train__steps=3), tmp_path / "run").run(ignore, never)
    refused(call("train", "--resume", str(tmp_path / "run"), *arguments), "is complete with 3 steps")
