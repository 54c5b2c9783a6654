"""`train --task` and `evaluate` on recall tasks, by position and beyond the trained context; and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calling import call, refused

FAST = ["--steps", "4", "--batch", "4", "--threads", "1", "--layers", "1", "--width", "16", "--set", "heads=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    (path / "book.txt").write_text("The cat sat on the mat, and the dog sat by the door.\n" * 60)
    return path


@pytest.fixture(scope="module")
def mqar(folder: Path) -> Path:
    result = call("train", "--task", "mqar", "--out", folder / "mqar", *FAST)
    assert result.exit_code == 0, result.output
    assert "% exact" in result.stderr
    assert f"minilong evaluate {folder / 'mqar'} --context 32,64" in result.stderr
    return folder / "mqar"


@pytest.fixture(scope="module")
def passkey(folder: Path) -> Path:
    own = ["--task", "passkey", "--context", "96", "--set", "digits=2"]
    result = call("train", folder / "book.txt", *own, "--out", folder / "passkey", *FAST, "--quiet")
    assert result.exit_code == 0, result.output
    return folder / "passkey"


@pytest.fixture(scope="module")
def lm(folder: Path) -> Path:
    result = call("train", folder / "book.txt", "--out", folder / "lm", "--preset", "tiny", *FAST, "--quiet")
    assert result.exit_code == 0, result.output
    return folder / "lm"


def test_a_recall_run_is_asked_in_several_contexts(mqar: Path) -> None:
    table = call("evaluate", mqar, "--context", "32,64", "--samples", "3").stdout
    assert table.split()[:4] == ["context", "32", "context", "64"]
    facts = json.loads(call("evaluate", mqar, "--json", "--samples", "3").stdout)
    assert (facts["task"], facts["contexts"], facts["cells"][0][0]["count"]) == ("mqar", [32], 12)


def test_passkeys_by_depth_and_context(passkey: Path, lm: Path, folder: Path) -> None:
    rows = call("evaluate", passkey, "--context", "96,128", "--depth", "0,50,100", "--samples", "2").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["depth", "0%", "50%", "100%"]
    own = ["--task", "passkey", "--context", "128", "--samples", "2"]
    facts = json.loads(call("evaluate", lm, folder / "book.txt", *own, "--json").stdout)
    assert (facts["task"], facts["depths"], facts["samples"]) == ("passkey", None, 2)
    assert "nats per token" in call("evaluate", passkey, "--task", "lm").stdout


def test_losses_by_position_in_a_longer_context(lm: Path, folder: Path) -> None:
    shown = call("evaluate", lm, folder / "book.txt", "--context", "64", "--per-position").stdout
    assert "position  bits/token" in shown
    picture = folder / "positions.png"
    facts = json.loads(call("evaluate", lm, "--context", "64", "--plot", picture, "--json").stdout)
    assert facts["context"] == len(facts["positions"]) == len(facts["position_tokens"]) == 64
    assert sum(facts["position_tokens"]) == facts["tokens"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "positions" not in json.loads(call("evaluate", lm, "--json").stdout)
    scaled = json.loads(call("evaluate", lm, "--rope-scaling", "pi", "--rope-factor", "2", "--json").stdout)
    assert scaled["context"] == 64


def test_options_that_do_not_fit_are_refused_in_a_line(mqar: Path, passkey: Path, lm: Path, folder: Path) -> None:
    assert "--depth does not belong to task 'lm'; give --task passkey" in refused("evaluate", lm, "--depth", "50")
    assert "--stride does not belong to task 'mqar'" in refused("evaluate", mqar, "--stride", "3")
    assert "task 'mqar' has no depth" in refused("evaluate", mqar, "--depth", "50")
    assert "which has no text; leave out --task lm" in refused("evaluate", mqar, "--task", "lm")
    assert "generates its questions" in refused("evaluate", mqar, folder / "book.txt")
    assert "needs a context of at least 16" in refused("evaluate", mqar, "--context", "8")
    assert "one context at a time" in refused("evaluate", lm, "--context", "8,16")
    assert "the run learnt the task 'lm', not 'mqar'" in refused("evaluate", lm, "--task", "mqar")
    assert "no list of percentages" in refused("evaluate", passkey, "--depth", "101")
    assert "no list of whole numbers" in refused("evaluate", passkey, "--context", "0")
    assert "lower --context or give more text" in refused("evaluate", passkey, "--context", "5000")
    assert "task 'mqar'; use `minilong evaluate" in refused("translate", mqar, "abc")
    assert "cannot write" in refused("evaluate", lm, "--plot", folder)
    assert "needs a token for each digit" in refused(
        "train",
        folder / "book.txt",
        "--task",
        "passkey",
        "--set",
        "tokenizer=bpe",
        "--set",
        "vocabulary=300",
        "--dry-run",
    )


def test_a_passkey_run_continues_a_text(passkey: Path) -> None:
    result = call("generate", passkey, "--prompt", "The cat", "--length", "5", "--temperature", "0")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.rstrip("\n")) >= len("The cat")
