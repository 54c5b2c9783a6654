"""The commands on real runs of a few steps: train, stop, resume, generate, evaluate, translate, info, and bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from calling import call
from click.testing import Result

FAST = ["--preset", "tiny", "--steps", "8", "--batch", "4", "--threads", "1", "--quiet"]


def assert_one_line(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("minilong: error: ")
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def book(folder: Path) -> Path:
    path = folder / "book.txt"
    path.write_text("The [bold]cat[/bold] sat on the mat, and the dog sat by the door.\n" * 60)
    return path


@pytest.fixture(scope="module")
def run(folder: Path, book: Path) -> Path:
    result = call("train", book, "--out", folder / "lm", *FAST)
    assert result.exit_code == 0, result.output
    assert (result.stdout, result.stderr) == (f"{folder / 'lm'}\n", "")
    return folder / "lm"


@pytest.fixture(scope="module")
def copier(folder: Path) -> Path:
    result = call("train", "--task", "copy", "--out", folder / "copier", *FAST)
    assert result.exit_code == 0, result.output
    return folder / "copier"


def test_train_leaves_a_run_and_generate_continues_verbatim(run: Path) -> None:
    assert {"config.toml", "model.safetensors", "metrics.jsonl"} <= {path.name for path in run.iterdir()}
    result = call("generate", run, "--prompt", "[bold]", "--length", "12", "--seed", "1")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith("[bold]")
    assert len(result.stdout) == len("[bold]") + 12 + 1
    again = call("generate", run, "--prompt", "-", "--length", "12", "--seed", "1", given="[bold]")
    assert again.stdout == result.stdout
    assert call("generate", run, "--length", "12", "--temperature", "0", "--weights", "last").exit_code == 0


def test_evaluate_measures_the_held_out_part_a_file_a_shipped_text_or_standard_input(run: Path, book: Path) -> None:
    assert "bits per character" in call("evaluate", run).stdout
    from_file = json.loads(call("evaluate", run, book, "--json").stdout)
    from_stdin = json.loads(call("evaluate", run, "-", "--json", given=book.read_text()).stdout)
    assert from_file["text"] == str(book)
    assert from_file["bits_per_character"] == from_stdin["bits_per_character"] > 0
    sliding = json.loads(call("evaluate", run, book, "--stride", "8", "--json").stdout)
    assert sliding["stride"] == 8
    assert sliding["tokens"] == from_file["tokens"]


def test_translate_answers_each_sentence_on_its_line(copier: Path) -> None:
    result = call("translate", copier, "abc", "cab")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    assert call("translate", copier, given="abc\ncab\n").stdout == result.stdout
    lines = call("translate", copier, "--json", "--beam", "2", "abc").stdout.splitlines()
    assert json.loads(lines[0])["source"] == "abc"
    assert call("translate", copier, given="").stdout == ""


def test_an_error_numbers_the_line_of_the_input(copier: Path) -> None:
    result = call("translate", copier, given="abcd\n" * 40 + "ABC\n")
    assert result.exit_code == 2
    assert "sentence 41: character 'A'" in result.stderr
    assert len(result.stdout.splitlines()) == 32  # what was answered before


def test_evaluate_refuses_a_text_that_changed_since_training(book: Path, folder: Path) -> None:
    own = folder / "own.txt"
    own.write_text(book.read_text())
    assert call("train", own, "--out", folder / "own", *FAST).exit_code == 0
    assert call("evaluate", folder / "own").exit_code == 0
    own.write_text(book.read_text() * 2)
    assert "changed since" in assert_one_line(call("evaluate", folder / "own"))
    assert call("evaluate", folder / "own", own).exit_code == 0


def test_info_shows_presets_a_run_and_needs(run: Path) -> None:
    overview = call("info")
    assert overview.exit_code == 0, overview.output
    for part in ("small", "medium", "persuasion", "numpy", "minilong"):
        assert part in overview.stdout
    facts = json.loads(call("info", "--json").stdout)
    assert 700_000 < facts["presets"]["small"]["estimate"]["parameters"] < 1_000_000
    assert 10e6 < facts["presets"]["medium"]["estimate"]["parameters"] < 11.5e6
    shown = call("info", run)
    assert shown.exit_code == 0, shown.output
    assert "step        8 of 8" in shown.stdout
    facts = json.loads(call("info", run, "--json").stdout)
    assert facts["step"] == 8
    assert facts["config"]["model"]["width"] == 32
    assert facts["parameters"] > 0
    needs = call("info", "--preset", "tiny", "--set", "width=64").stdout
    assert "width=64" in needs
    assert "memory      about" in needs
    assert json.loads(call("info", "--preset", "tiny", "--json").stdout)["estimate"]["parameters"] > 0


def test_a_dry_run_writes_nothing(book: Path, folder: Path) -> None:
    result = call("train", book, *FAST[:-1], "--out", folder / "dry", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "parameters  " in result.stderr
    assert not (folder / "dry").exists()


def test_resume_goes_on_to_more_steps(book: Path, folder: Path) -> None:
    path = folder / "resumed"
    assert call("train", book, "--out", path, *FAST).exit_code == 0
    result = call("train", "--resume", path, "--steps", "12", "--quiet")
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    assert json.loads(call("info", path, "--json").stdout)["step"] == 12


BAD: list[tuple[list[str], bytes | None, str]] = [
    (["missing.txt"], None, "missing.txt"),
    (["bok.txt"], None, "book.txt"),
    (["persuasio"], None, "persuasion"),
    (["bad.txt"], b"", "bad.txt"),
    (["bad.txt"], b"  \n\n", "bad.txt"),
    (["bad.txt"], b"caf\xe9 " * 99, "UTF-8"),
    (["bad.txt"], b"a\0b" * 999, "bad.txt"),
    (["bad.txt"], b"too short", "context"),
    (["book.txt", "bad.txt"], b"x", "bad.txt': a text of 1 characters"),
    (["book.txt", "--config", "bad.txt"], b"layers = 0", "bad.txt: model.layers"),
    (["."], None, "."),
    (["book.txt", "--context", "100000"], None, "context"),
    (["book.txt", "--context", "1000000000"], None, "memory"),
    (["book.txt", "--out", "book.txt"], None, "book.txt"),
    (["book.txt", "--out", "lm"], None, "lm"),
    (["book.txt", "--out", "book.txt/x"], None, "book.txt"),
    (["book.txt", "--out", "full", "--replace"], None, "full"),
    (["--resume", "nowhere"], None, "nowhere"),
    (["--resume", "full"], None, "full"),
    (["--resume", "lm", "--steps", "3"], None, "steps"),
    (["--task", "translate", "book.txt", "--set", "tokenizer=char"], None, "book.txt"),
]


@pytest.mark.parametrize(("arguments", "content", "part"), BAD, ids=[" ".join(a)[:40] for a, _, _ in BAD])
def test_bad_input_is_one_line_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, folder: Path, run: Path, arguments: list[str], content: bytes | None, part: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "full").mkdir(exist_ok=True)
    (folder / "full" / "thesis.txt").write_text("precious")
    if content is not None:
        (folder / "bad.txt").write_bytes(content)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    own = [] if "--resume" in arguments else ["--preset", "tiny", "--quiet"]
    assert part in assert_one_line(call("train", *arguments, *own))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_runs_that_cannot_be_used_are_one_line(run: Path, copier: Path, folder: Path) -> None:
    for command in ("generate", "evaluate", "translate", "info"):
        assert "nowhere" in assert_one_line(call(command, folder / "nowhere"))
        assert "book.txt" in assert_one_line(call(command, folder / "book.txt"))
    assert "minilong generate" in assert_one_line(call("translate", run, "a"))
    assert "minilong translate" in assert_one_line(call("generate", copier))
    assert "task 'copy'" in assert_one_line(call("evaluate", copier))
    assert "日" in assert_one_line(call("generate", run, "--prompt", "日"))
    assert "UTF-8" in assert_one_line(call("generate", run, "--prompt", "-", given=b"\xff"))
    assert "nope.txt" in assert_one_line(call("evaluate", run, "nope.txt"))


def test_divergence_is_exit_code_1_and_names_the_step(book: Path, folder: Path) -> None:
    message = assert_one_line(call("train", book, "--out", folder / "nan", *FAST, "--lr", "1e30"), code=1)
    assert re.search(r"step \d+", message)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_within_two_seconds_and_the_run_goes_on(folder: Path, book: Path, number: int) -> None:
    path = folder / f"stopped-{number}"
    command = [sys.executable, "-m", "minilong", "train", str(book), "--preset", "tiny", "--threads", "1"]
    command += ["--steps", "1000000", "--set", "save_every=1000000", "--set", "eval_every=1000000", "--out", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(r" *\d+/1000000 ", line):
            break
    time.sleep(0.2)
    sent = time.monotonic()
    os.kill(process.pid, number)
    rest = process.communicate(timeout=20)[1]
    assert time.monotonic() - sent < 2
    assert process.returncode == 130
    assert f"minilong train --resume {path}" in rest
    step = json.loads(call("info", path, "--json").stdout)["step"]
    assert step > 0
    assert call("train", "--resume", path, "--dry-run").exit_code == 0


def test_generate_with_another_memory_or_several_prompts(run: Path) -> None:
    long = call(
        "generate", run, "--prompt", "the", "--memory", "window", "--window", "5", "--sinks", "1", "--length", "60"
    )
    assert long.exit_code == 0
    assert len(long.stdout) == len("the") + 60 + 1
    together = call("generate", run, "--prompt", "the", "--prompt", "a dog", "--length", "3")
    alone = [call("generate", run, "--prompt", prompt, "--length", "3").stdout for prompt in ("the", "a dog")]
    assert together.stdout == alone[0] + "\n" + alone[1] + "\n"
    scaled = call("generate", run, "--rope-scaling", "yarn", "--rope-factor", "4", "--length", "20")
    assert scaled.exit_code == 0
    assert "belongs to --memory window" in assert_one_line(call("generate", run, "--memory", "full", "--window", "4"))
    assert "give --rope-scaling pi" in assert_one_line(call("generate", run, "--rope-factor", "4"))
