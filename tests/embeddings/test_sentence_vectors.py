"""Vectors of sentences by a run: the states of the rows that training reads, pooled, whatever stands beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from minilong.data.marked import MarkedTokenizer
from minilong.data.tokenizers import CharTokenizer
from minilong.data.vocabulary import BOS, SEPARATOR, Tokenizer
from minilong.embeddings import sentence_vectors
from minilong.embeddings.sentence_vectors import run_vectors
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.train.config import RunConfig
from minilong.train.loaded import LoadedRun

TEXTS = ["a cat", "b", "the cat\nsat on  a mat", " ", "c" * 70, "a cat"]
KINDS = {"roberta": "encoder", "mlm": "encoder", "t5": "encoder-decoder", "lm": "decoder"}


def made(task: str, **keys: Any) -> LoadedRun:
    """A run with fresh weights and a context of 32 characters."""
    plain = CharTokenizer.train(["abcdefghijklmnopqrstuvwxyz \n"])
    tokenizer: Tokenizer = plain if task == "lm" else MarkedTokenizer(plain, 3)
    config = ModelConfig(kind=KINDS[task], layers=2, width=16, heads=2, context=32, **keys)
    model = build(config, tokenizer.size, Key.of(5))
    return LoadedRun(RunConfig(task=task, model=config), model, tokenizer, 0)


@pytest.mark.parametrize("pooling", ["mean", "max", "first"])
@pytest.mark.parametrize("task", KINDS)
def test_a_text_has_the_same_vector_alone_and_among_others(task: str, pooling: str) -> None:
    loaded = made(task)
    if (task, pooling) == ("lm", "first"):
        with pytest.raises(UserError, match="has seen no other token; take --pooling mean"):
            run_vectors(loaded, TEXTS, pooling=pooling)
        return
    seen: list[tuple[int, int]] = []
    found = run_vectors(loaded, TEXTS, pooling=pooling, report=lambda done, of: seen.append((done, of)))
    assert found.shape == (6, 16)
    assert found.dtype == np.float32
    for text, row in zip(TEXTS, found, strict=True):
        assert run_vectors(loaded, [text], pooling=pooling)[0] == pytest.approx(row, abs=2e-6)
    assert run_vectors(loaded, TEXTS, pooling=pooling, tokens=1) == pytest.approx(found, abs=2e-6)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1, 0, 1, 1], abs=1e-6)
    assert np.array_equal(found[0], found[5])
    assert seen[-1] == (6, 6)
    assert run_vectors(loaded, [], pooling=pooling).shape == (0, 16)


def test_the_vector_is_pooled_from_the_row_that_training_reads() -> None:
    loaded = made("roberta")
    ids = loaded.tokenizer.encode("the cat sat on a mat")
    states = loaded.model.hidden(np.array([[BOS, *ids, SEPARATOR]], np.int32))[0]
    for pooling, right in {"mean": states.mean(0), "first": states[0], "max": states.max(0)}.items():
        found = run_vectors(loaded, TEXTS, pooling=pooling)[2]
        assert found == pytest.approx(right / np.linalg.norm(right), abs=2e-6)
    decoder = made("lm")  # the text as it is, for which a line break is a token
    states = decoder.model.hidden(decoder.tokenizer.encode(TEXTS[2])[None])[0].mean(0)
    assert run_vectors(decoder, TEXTS)[2] == pytest.approx(states / np.linalg.norm(states), abs=2e-6)
    t5 = made("t5", position="t5")
    states = t5.model.encode(t5.tokenizer.encode("a cat")[None])[0].mean(0)
    assert run_vectors(t5, TEXTS)[0] == pytest.approx(states / np.linalg.norm(states), abs=2e-6)


def test_a_long_text_is_pooled_over_all_of_its_parts() -> None:
    loaded = made("roberta")
    text = "".join(chr(97 + i * i % 26) for i in range(70))
    ids = loaded.tokenizer.encode(text)
    rows = [np.array([[BOS, *ids[at : at + 30], SEPARATOR]], np.int32) for at in (0, 30, 60)]
    states = np.concatenate([loaded.model.hidden(row)[0] for row in rows])
    assert len(states) == 76
    for pooling, right in {"mean": states.mean(0), "first": states[0], "max": states.max(0)}.items():
        found = run_vectors(loaded, ["a", text, "b"], pooling=pooling)[1]
        assert found == pytest.approx(right / np.linalg.norm(right), abs=2e-6)


def test_earlier_layers() -> None:
    for task in ("mlm", "t5", "lm"):
        loaded = made(task)
        found = [run_vectors(loaded, TEXTS[:2], layer=layer) for layer in (0, 1, 2)]
        assert np.array_equal(found[2], run_vectors(loaded, TEXTS[:2]))
        assert all(np.abs(a - b).max() > 1e-3 for a, b in pairwise(found))
        with pytest.raises(UserError, match="layers 1 to 2 and no layer 3"):
            run_vectors(loaded, TEXTS, layer=3)
    one = replace(loaded.model.stack, layers=loaded.model.stack.layers[:1])
    states = replace(loaded.model, stack=one).hidden(loaded.tokenizer.encode("b")[None])[0, 0]
    assert found[1][1] == pytest.approx(states / np.linalg.norm(states), abs=2e-6)


def test_padding_is_never_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever id fills the rows up, and a planted mistake: lengths that the model is not told."""
    loaded = made("roberta")
    right = run_vectors(loaded, TEXTS)
    pad_rows = sentence_vectors.pad_rows

    def filled(rows: Any) -> Any:
        padded, lengths = pad_rows(rows)
        return np.where(np.arange(padded.shape[1]) < lengths[:, None], padded, 9), lengths

    monkeypatch.setattr(sentence_vectors, "pad_rows", filled)
    assert run_vectors(loaded, TEXTS) == pytest.approx(right, abs=2e-6)

    def whole(rows: Any) -> Any:
        padded, lengths = filled(rows)
        return padded, np.full_like(lengths, padded.shape[1])

    monkeypatch.setattr(sentence_vectors, "pad_rows", whole)
    assert np.abs(run_vectors(loaded, TEXTS) - right).max() > 1e-3


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="sentence 2: "):
        run_vectors(made("lm"), ["a", "猫"])
    broken = made("lm")
    broken.model.stack.norm.gain[:] = np.nan
    with pytest.raises(UserError, match="not finite"):
        run_vectors(broken, ["a"])
