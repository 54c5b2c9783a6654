"""Every command and option: help with an example, one line and exit code 2 for a wrong value, nothing loaded early."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from minilong import __version__
from minilong.cli import COMMANDS, main
from minilong.cli.shared import require_decoder
from minilong.errors import UserError
from minilong.models.config import ModelConfig
from minilong.train.config import COMMAND_OF_TASK, KIND_OF_TASK, RunConfig

# Options whose value a program cannot call wrong before it opens a run: any text is a prompt, and paths are checked
# when they are used (test_cli_train.py).
FREE = {"--prompt", "--out", "--resume", "--json", "--html", "--plot", "--to", "--name", "--system"} | {
    f"trace {option}" for option in ("--target", "--only", "--save", "--against")
}
WRONG = {"--preset": "smal", "--set": "layers", "--config": "missing.toml"}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def command_of(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


def options() -> Iterator[tuple[str, click.Option, str]]:
    for name in COMMANDS:
        for param in command_of(name).params:
            if isinstance(param, click.Option):
                yield from ((name, param, spelling) for spelling in param.opts)


OPTIONS = list(options())
NAMES = [f"{name} {spelling}" for name, _, spelling in OPTIONS]


def assert_one_line(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("minilong: error: ")
    return lines[0]


def required(name: str) -> list[str]:
    """What a command needs before its options are looked at."""
    return {
        "train": [],
        "audit": [],
        "info": ["--preset", "tiny"],
        "fill": ["run", "text"],
        "finetune": ["run", "text"],
        "trace": ["run", "--prompt", "text"],
    }.get(name, ["run"])


@pytest.mark.parametrize(("name", "option", "spelling"), OPTIONS, ids=NAMES)
def test_a_wrong_value_is_one_line(name: str, option: click.Option, spelling: str) -> None:
    assert option.help, f"{spelling} has no help"
    if option.is_flag:
        assert "does not take a value" in assert_one_line(call(name, *required(name), f"{spelling}=1"))
        return
    message = assert_one_line(call(name, *required(name), spelling))
    assert "requires an argument" in message
    assert f"{name} --help`" in message
    if not {spelling, f"{name} {spelling}"} & FREE:
        message = assert_one_line(call(name, *required(name), spelling, WRONG.get(spelling, "nonsense")))
        assert WRONG.get(spelling, "nonsense") in message


@pytest.mark.parametrize(("name", "option", "spelling"), OPTIONS, ids=NAMES)
def test_a_misspelt_option_is_one_line_that_suggests_it(name: str, option: click.Option, spelling: str) -> None:
    # A longer spelling with one wrong letter; a prefix of an option would be one of its abbreviations elsewhere.
    message = assert_one_line(call(name, *required(name), spelling + "x"))
    assert "No such option" in message
    assert spelling in message.replace(spelling + "x", "")
    assert f"see `minilong {name} --help`" in message or f"see `main {name} --help`" in message


NUMBERS = [
    spelling
    for name, option, spelling in OPTIONS
    if name == "train" and option.type in (click.INT, click.FLOAT) and spelling != "--seed"
]


@pytest.mark.parametrize("spelling", NUMBERS)
def test_numbers_of_train_have_a_range(spelling: str) -> None:
    assert "choose" in assert_one_line(call("train", spelling, "-1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "run", "--length", "0"], "0 is not in the range"),
        (["generate", "run", "--temperature", "-1"], "-1.0 is not in the range"),
        (["generate", "run", "--temperature", "nan"], "Invalid value for '--temperature': nan is not a finite number"),
        (["generate", "run", "--temperature", "inf"], "inf is not a finite number"),
        (["generate", "run", "--top-k", "-1"], "-1 is not in the range"),
        (["generate", "run", "--top-p", "0"], "0.0 is not in the range"),
        (["generate", "run", "--top-p", "1.5"], "1.5 is not in the range"),
        (["generate", "run", "--top-p", "nan"], "nan is not a finite number"),
        (["generate"], "Missing argument 'RUN'"),
        (["generate", "run", "extra"], "unexpected extra argument (extra)"),
        (["evaluate", "run", "--stride", "0"], "0 is not in the range"),
        (["evaluate"], "Missing argument 'RUN'"),
        (["translate", "run", "--beam", "0"], "0 is not in the range"),
        (["translate", "run", "--length-penalty", "nan"], "nan is not a finite number"),
        (["translate", "run", "--max-length", "0"], "0 is not in the range"),
        (["translate"], "Missing argument 'RUN'"),
        (["info", "run", "--keys"], "info shows one thing at a time, not RUN and --keys; give one"),
        (["info", "--preset", "tiny", "--keys"], "not --preset and --keys; give one"),
        (["info", "--set", "layers=3"], "--set changes a setting of a preset; give --preset NAME as well"),
        (["info", "--preset", "smal"], "did you mean 'small'"),
        (["train", "--lr", "nan"], "train.lr is nan; choose a finite number"),
        (["train", "--set", "heads=5"], "model.heads is 5, which does not divide model.width 128; choose 4 or 8 heads"),
        (["train", "--set", "heds=5"], "unknown key 'heds' (did you mean 'heads'?); `minilong info --keys` lists"),
        (["train", "--set", "seed=1.5"], "train.seed must be an integer, but is 1.5; write for example train.seed = 1"),
        (["train", "--set", "tied=1"], "model.tied must be true or false, but is 1; write"),
        (["train", "--width", "130"], "does not divide model.width 130"),
        (["train", "--task", "copy", "book.txt"], "leave out the text"),
        (["train", "--budget", "0s"], "'0s' is no time to train in; write for example 5m"),
        (["train", "--budget", "5"], "'5' is not a duration; write for example 90s, 5m or 1h30m"),
        (["train", "--budget", "-5m"], "not a duration"),
        (["train", "--budget", "5m", "--steps", "3"], "leave out one of the two"),
        (["train", "--replace"], "--replace overwrites the run that --out names; give --out RUN"),
        (
            ["train", "--resume", "r", "--lr", "1"],
            "so --lr cannot be given; leave it out, or start anew with --config r/",
        ),
        (["train", "--resume", "r", "--preset", "tiny"], "so --preset cannot be given; leave it out"),
        (["train", "--resume", "r", "book.txt"], "there is no run folder r"),  # one that was opened takes a text
        (["train", "--resume", "r", "--budget", "5m"], "so --budget cannot be given; leave it out"),
        (["trian"], "No such command 'trian' (did you mean 'train'?); see `main --help`"),
        (["--vesrion"], "No such option '--vesrion'"),
        (["-x", "train"], "No such option '-x'"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_with_the_remedy(arguments: list[str], message: str) -> None:
    assert message in assert_one_line(CliRunner().invoke(main, arguments, prog_name="main"))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_parse(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "Examples:" in result.stdout
    assert call(name, "-h").stdout == result.stdout
    examples = [line.split("  ")[0] for line in map(str.strip, result.stdout.splitlines()) if "minilong " in line]
    examples = [line for line in examples if f"minilong {name}" in line]
    assert len(examples) >= 3
    command, parent = command_of(name), click.Context(main, **main.context_settings)
    for example in examples:
        words = shlex.split(example.split("<")[0].split(">")[0].rpartition("| ")[2])
        assert words[:2] == ["minilong", name]
        command.make_context(name, words[2:], parent=parent)  # raises for an unknown option or a value it refuses


def test_the_group_tells_commands_examples_and_exit_codes() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for part in ("Examples:", "Exit codes:", "130  interrupted", *COMMANDS, *COMMANDS.values()):
        assert part in result.stdout
    assert call().exit_code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_the_static_summaries_are_those_of_the_commands(name: str) -> None:
    assert command_of(name).get_short_help_str(200) == COMMANDS[name]


@pytest.mark.parametrize("task", KIND_OF_TASK)
def test_a_run_is_sent_to_a_command_that_there_is(task: str) -> None:
    words = COMMAND_OF_TASK[task].split()
    command = command_of(words[0])
    assert len(words) == 1 or (isinstance(command, click.Group) and words[1] in command.commands)
    config = RunConfig(task, model=ModelConfig(kind=KIND_OF_TASK[task]))
    if KIND_OF_TASK[task] == "decoder":
        require_decoder(Path("run"), config)
    else:
        with pytest.raises(UserError, match=f"learnt the task '{task}', .* `minilong {COMMAND_OF_TASK[task]} run`"):
            require_decoder(Path("run"), config)


def test_version() -> None:
    assert call("--version").stdout == f"minilong {__version__}\n"


def test_help_answers_at_once_and_loads_nothing() -> None:
    code = (
        "import sys; from minilong.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: print(end.code, *sorted({'numpy', 'rich', 'scipy', 'minilong.cli.train'} & "
        "set(sys.modules)))"
    )
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - start)
    assert done.stdout.splitlines()[-1] == "0"
    assert best < 0.4


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "minilong", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "minilong: error: No such command 'trian' (did you mean 'train'?); see `minilong --help`\n"


def test_keys_lists_every_key() -> None:
    from minilong.train.config import RULES

    result = call("info", "--keys")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(RULES)
    assert "use one matrix as input embedding and output layer [true]" in result.stdout
