"""`minilong finetune`, `open` and `save` by their commands: what they say, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calling import call, refused

from minilong.train import checkpoint as ck
from minilong.train.adapters import ADAPTER
from minilong.train.run import RunFolder

TEXT = "The cat sat. The dog ran! It is a cat. She saw the dog. " * 40
SIZES = ("--layers", "1", "--width", "16", "--context", "16", "--batch", "4", "--threads", "1")
LLAMA = ("heads=2", "activation=swiglu", "normalization=rms", "bias=false", "input=plain", "eval_every=1000")
QUICK = ("--steps", "4", "--batch", "4", "--threads", "1", "--set", "eval_every=4", "--set", "save_every=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    (path / "book.txt").write_text(TEXT)
    (path / "other.txt").write_text("A dog saw the cat! The cat ran. " * 60)
    own = [word for setting in LLAMA for word in ("--set", setting)]
    result = call("train", path / "book.txt", "--out", path / "base", "--steps", "5", *SIZES, *own)
    assert result.exit_code == 0, result.output
    return path


def test_finetune_says_what_it_does_and_what_is_next(folder: Path) -> None:
    out = folder / "tuned"
    result = call("finetune", folder / "base", folder / "other.txt", "--out", out, "--rank", "2", *QUICK)
    assert result.exit_code == 0, result.output
    said = result.stderr
    assert "done        4 steps in " in said
    assert "held out    " in said
    assert " nats/token before, " in said
    assert f'next        minilong generate {out} --prompt "..."' in said
    assert call("generate", out, "--prompt", "The", "--length", "3").exit_code == 0
    assert call("evaluate", out, "--json").exit_code == 0
    assert call("info", out).exit_code == 0
    again = call("finetune", "--resume", out, "--steps", "6", "--quiet")
    assert again.stdout.strip() == str(out)
    assert call("train", "--resume", out, "--steps", "7", "--quiet").exit_code == 0


def test_finetune_as_a_whole(folder: Path) -> None:
    out = folder / "whole"
    result = call("finetune", folder / "base", folder / "other.txt", "--full", "--out", out, "--quiet", *QUICK)
    assert result.exit_code == 0, result.output
    with RunFolder.open(out) as run:
        assert ck.MODEL in run.files
        assert ADAPTER not in run.files


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    out = folder / "dry"
    result = call("finetune", folder / "base", folder / "other.txt", "--out", out, "--dry-run", "--rank", "1", *QUICK)
    assert result.exit_code == 0, result.output
    assert "dry run     nothing was trained or written" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("base",), "fine-tuning needs a run and a text"),
        (("base", "other.txt", "--targets", "querry"), "'querry' is no target (did you mean 'query'?)"),
        (("base", "other.txt", "--full", "--rank", "4"), "--rank is for adapters, but --full trains all weights"),
        (("base", "other.txt", "--rank", "99"), "--rank 99 is above the 16 of the layer"),
        (("base", "other.txt", "--set", "model.layers=2"), "model.layers is a setting of the model"),
        (("base", "other.txt", "--steps", "3", "--budget", "1m"), "leave out one of the two"),
        (("base", "other.txt", "--context", "17"), "data.length is 17, but the model sees model.context = 16"),
        (("--resume", "base", "--rank", "3"), "leave out --rank"),
        (("nowhere", "other.txt"), "there is no run folder"),
    ],
)
def test_finetune_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(folder)
    assert message in refused("finetune", *words)


def test_save_and_open_again(folder: Path) -> None:
    pytest.importorskip("tokenizers")
    saved = folder / "saved"
    result = call("save", folder / "base", "--to", saved)
    assert result.exit_code == 0, result.output
    assert f"saved       {saved} (llama)" in result.stderr
    assert "tokenizer   that of the run has no form in transformers" in result.stderr
    assert json.loads((saved / "config.json").read_text())["model_type"] == "llama"
    assert "exists already" in refused("save", folder / "base", "--to", saved)
    assert "tokenizer" in refused("open", saved, "--out", folder / "again")  # it has none
    assert not (folder / "again").exists()


def test_open_makes_one_run_of_adapters_and_their_model(folder: Path) -> None:
    out = folder / "for-one"
    call("finetune", folder / "base", folder / "other.txt", "--out", out, "--rank", "2", "--quiet", *QUICK)
    result = call("open", out, "--out", folder / "one", "--name", "mine")
    assert result.exit_code == 0, result.output
    for line in (
        "model       mine (minilong, decoder): 1 layers, 16 wide, 2 heads",
        "context     16 tokens",
        "licence",
    ):
        assert line in result.stderr
    (folder / "base").rename(folder / "gone")
    try:
        assert "which is gone or has other weights" in refused("generate", out, "--prompt", "The")
        assert call("generate", folder / "one", "--prompt", "The", "--length", "3").exit_code == 0
    finally:
        (folder / "gone").rename(folder / "base")
    assert "holds a run already" in refused("open", out, "--out", folder / "one")
    assert call("open", out, "--out", folder / "one", "--replace", "--quiet").stdout.strip() == str(folder / "one")
