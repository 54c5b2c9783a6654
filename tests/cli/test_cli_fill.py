"""`train --task mlm|roberta|t5` and `fill`, with plain text, JSON and standard input; and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from calling import call, refused

from minilong.cli.fill import _percent
from minilong.data.batches import IGNORE
from minilong.data.numbering import numbering_of
from minilong.train.fill import fill, spaced_part, span_beam
from minilong.train.loaded import load

SENTENCES = "The cat sat. The dog ran! It is a cat. She saw the dog. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    (path / "book.txt").write_text(SENTENCES * 60)
    return path


BERT = ("norm=post", "position=learned", "input=normed", "output=transform", "activation=gelu", "init=normal")
"""BERT's own layout."""


def trained(folder: Path, task: str, tokenizer: str, steps: int, layout: tuple[str, ...] = ()) -> Path:
    out = folder / f"{task}-{tokenizer}"
    sizes = ["--layers", "1", "--width", "32", "--context", "32", "--batch", "16", "--lr", "1e-2", "--threads", "1"]
    settings = [
        f"tokenizer={tokenizer}",
        "vocabulary=300",
        "heads=2",
        "dropout=0",
        "eval_every=1000",
        "warmup=10",
        *layout,
    ]
    own = [word for setting in settings for word in ("--set", setting)]
    result = call("train", folder / "book.txt", "--task", task, "--out", out, "--steps", str(steps), *sizes, *own)
    assert result.exit_code == 0, result.output
    assert f'next        minilong fill {out} "... ___ ..."' in result.stderr
    assert "by frequency alone" in result.stderr
    return out


@pytest.fixture(scope="module")
def roberta(folder: Path) -> Path:
    pytest.importorskip("tokenizers")
    return trained(folder, "roberta", "bpe", 150, BERT)


@pytest.fixture(scope="module")
def mlm(folder: Path) -> Path:
    return trained(folder, "mlm", "char", 3, BERT)


@pytest.fixture(scope="module")
def t5(folder: Path) -> Path:
    pytest.importorskip("tokenizers")
    return trained(folder, "t5", "bpe", 20)


def test_a_blank_is_filled_by_what_stands_around_it(roberta: Path) -> None:
    facts = json.loads(call("fill", roberta, "The cat sat. The dog ran! It ___ a cat.", "--json").stdout)
    assert facts["blanks"] == 1
    best = facts["candidates"][0][0]
    assert (best["words"], facts["text"]) == ([" is"], "The cat sat. The dog ran! It is a cat.")
    probabilities = [c["probability"] for c in facts["candidates"][0]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.3 < probabilities[0] < sum(probabilities) <= 1
    lines = call("fill", roberta, "The cat sat. The dog ran! It [MASK] a cat.", "--top", "3").stdout.splitlines()
    assert [line.split()[0] for line in lines[:1]] == ["is"]
    assert len([line for line in lines if line.rstrip().endswith("%")]) == 3
    assert lines[-1] == "The cat sat. The dog ran! It is a cat."


def test_each_blank_has_a_table_of_its_own(roberta: Path, mlm: Path) -> None:
    shown = call("fill", roberta, "The ___ sat. It is ___ cat.", "--top", "2").stdout
    assert "blank 1" in shown
    assert "blank 2" in shown
    facts = json.loads(call("fill", mlm, "-", "--json", given="The c___t\n").stdout)
    assert (facts["blanks"], len(facts["candidates"][0]), len(facts["text"])) == (1, 5, len("The cat"))


def test_spans_are_filled_together(t5: Path) -> None:
    facts = json.loads(call("fill", t5, "The dog ran! It ___ cat. She saw the ___", "--json").stdout)
    assert facts["blanks"] == 2
    assert len(facts["candidates"]) == 1
    assert all(len(c["words"]) == 2 and all(c["words"]) for c in facts["candidates"][0])
    first, second = facts["candidates"][0][0]["words"]
    assert facts["text"] == f"The dog ran! It{first} cat. She saw the{second}"
    total = sum(c["probability"] for c in facts["candidates"][0])
    assert 0 < total <= 1
    assert " / " in call("fill", t5, "It ___ cat. She saw the ___").stdout


def test_the_probability_of_spans_is_that_of_the_model(t5: Path) -> None:
    """The best candidate's, against the model asked token by token; and no shorter beam finds a likelier one."""
    loaded = load(t5)
    numbering = numbering_of(loaded.tokenizer, spans=True)
    first = numbering.first
    source = np.array([*loaded.tokenizer.encode(" It"), first, *loaded.tokenizer.encode(" cat.")], np.int32)
    found = span_beam(loaded.model, numbering, source, 1, 16)
    for answer, likelihood in found[:3]:
        logits = loaded.model(source[None], np.array([[1, *answer]], np.int32))[0].astype(np.float64)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        told = [p[i + 1, token] for i, token in enumerate(answer[1:])]
        over = p[len(answer), 2] + p[len(answer), first + 1]
        assert likelihood == pytest.approx(np.log([*told, over]).sum(), abs=1e-4)
    assert found[0][1] >= span_beam(loaded.model, numbering, source, 1, 1)[0][1] - 1e-6
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_the_model_is_read_as_it_was_trained(mlm: Path) -> None:
    """The blank's probabilities are the softmax of the model's logits in a row with its special tokens."""
    loaded = load(mlm)
    found = fill(loaded, "a___b", top=400)
    a, b = loaded.tokenizer.encode("ab")
    row = np.array([[1, a, loaded.tokenizer.size - 1, b, 3]], np.int32)
    logits = loaded.model(row)[0, 2].astype(np.float64)
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    likeliest = int(np.argmax(np.where((np.arange(len(p)) < 4) | (np.arange(len(p)) == len(p) - 1), 0, p)))
    assert found.candidates[0][0].probability == pytest.approx(p[likeliest], rel=1e-5)
    assert len(found.candidates[0]) == loaded.tokenizer.size - 5
    assert sum(c.probability for c in found.candidates[0]) == pytest.approx(p[4:-1].sum(), rel=1e-5)


def test_what_cannot_be_filled_is_refused_in_a_line(mlm: Path, t5: Path, folder: Path) -> None:
    assert "has no blank; write ___ or [MASK]" in refused("fill", mlm, "The cat sat")
    assert "this run reads 30 at once; shorten it" in refused("fill", mlm, "a" * 40 + "___")
    assert "is not among the" in refused("fill", mlm, "猫 ___")
    assert "and the run knows 100 at once" in refused("fill", t5, "___ " * 101)
    assert "there is no run folder" in refused("fill", folder / "nothing", "___")
    assert "use `minilong fill" in refused("generate", mlm, "--prompt", "a")
    assert "use `minilong fill" in refused("generate", t5, "--prompt", "a")
    assert "use `minilong fill" in refused("translate", mlm, "a")
    assert "use `minilong fill" in refused("translate", t5, "a")
    assert "can be measured" in refused("evaluate", mlm)
    result = call(
        "train",
        folder / "book.txt",
        "--preset",
        "tiny",
        "--steps",
        "1",
        "--threads",
        "1",
        "--out",
        folder / "lm",
        "--quiet",
    )
    assert result.exit_code == 0, result.output
    assert "fills no blanks; train one with --task mlm" in refused("fill", folder / "lm", "___")


def test_any_preset_learns_to_fill(folder: Path) -> None:
    """Without segments, pooler or transform the tasks are what is left of them."""
    for task in ("mlm", "roberta", "t5"):
        own = ["--preset", "tiny", "--task", task, "--steps", "1", "--threads", "1", "--quiet"]
        result = call("train", folder / "book.txt", *own, "--out", folder / f"tiny-{task}")
        assert result.exit_code == 0, result.output
        assert call("fill", folder / f"tiny-{task}", "The ___ sat").exit_code == 0


def test_parts_and_percentages() -> None:
    assert [spaced_part(p) for p in ("", " ", "\n a \n b ", "a")] == ["", " ", " a b ", "a"]
    assert [_percent(p) for p in (1.0, 0.123, 0.0345, 0.00058, 1e-9)] == ["100%", "12%", "3.5%", "0.058%", "0%"]
    assert IGNORE < 0
