"""The likelihood of a text, against a loop that predicts one token at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_faults import memory_folder
from tiny_runs import SMALL, TEXT, cheap, lm, train, untrained

from minilong.autodiff import log_softmax
from minilong.errors import UserError
from minilong.train.config import RunConfig
from minilong.train.evaluate import Evaluation, evaluate
from minilong.train.loaded import LoadedRun, load

CONTEXT = 8


@pytest.fixture(scope="module", autouse=True)
def cheap_runs() -> Iterator[None]:
    with cheap():
        yield


def model(text: str, **changes: Any) -> LoadedRun:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return untrained(RunConfig.from_flat(SMALL | {"data.text": ("unread",)} | keys), text, scale=2.0)


def by_hand(loaded: LoadedRun, text: str, stride: int) -> tuple[float, int]:
    """Nats and number of predicted tokens: each once, from the first window of the grid of strides that holds it."""
    ids = loaded.tokenizer.encode(text)
    nats = 0.0
    for target in range(1, len(ids)):
        start = 0
        while start + CONTEXT < target:
            start += stride
        logits = loaded.model(ids[None, start:target])[0, -1].astype(np.float64)
        nats -= float(log_softmax(logits)[ids[target]])
    return nats, len(ids) - 1


ALPHABET = "abc é三🙂\n"
TEXTS = st.text(ALPHABET, min_size=2, max_size=40)


@given(TEXTS, st.sampled_from([None, 1, 2, 3, 5, 7, 8]), st.sampled_from(["char", "byte"]))
def test_equals_one_token_at_a_time(text: str, stride: int | None, tokenizer: str) -> None:
    loaded = model(ALPHABET, data__tokenizer=tokenizer)
    nats, tokens = by_hand(loaded, text, stride or CONTEXT)
    result = evaluate(loaded, text, stride=stride)
    assert result.tokens == tokens
    assert result.nats_per_token == pytest.approx(nats / tokens, rel=1e-4)
    assert (result.context, result.stride) == (CONTEXT, stride or CONTEXT)
    consistent(result, text)


def consistent(result: Evaluation, text: str) -> None:
    assert result.perplexity == pytest.approx(math.exp(result.nats_per_token))
    assert result.characters == len(text)
    assert result.bytes == len(text.encode())
    bits = result.nats_per_token / math.log(2)
    per_character = (result.tokens + 1) / result.characters
    per_byte = (result.tokens + 1) / result.bytes
    assert result.bits_per_character == pytest.approx(bits * per_character)
    assert result.bits_per_byte == pytest.approx(bits * per_byte)
    assert result.bits_per_byte * result.bytes == pytest.approx(result.bits_per_character * result.characters)


def silent(loaded: LoadedRun) -> LoadedRun:
    """The same model with the last norm's gain at zero: all logits are zero."""
    loaded.model.stack.norm.gain[:] = 0
    return loaded


@pytest.mark.parametrize("stride", [None, 3])
def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary(stride: int | None) -> None:
    text = "the cat sat on the mat"
    characters = silent(model(text))
    size = characters.tokenizer.size
    result = evaluate(characters, text, stride=stride)
    assert result.bits_per_character == pytest.approx(math.log2(size), rel=1e-6)
    assert result.bits_per_byte == pytest.approx(math.log2(size), rel=1e-6)
    assert result.perplexity == pytest.approx(size, rel=1e-5)
    chinese = "三国演义"
    result = evaluate(silent(model(text, data__tokenizer="byte")), chinese, stride=stride)
    assert result.bits_per_byte == pytest.approx(math.log2(260), rel=1e-6)
    assert result.bits_per_character == pytest.approx(3 * math.log2(260), rel=1e-6)


def test_the_tokenizer_does_not_change_what_bits_per_character_mean() -> None:
    """A uniform byte model and a uniform character model of one text: bits per character are those of the bytes."""
    text = "ab三🙂" * 5
    result = evaluate(silent(model(text, data__tokenizer="byte")), text)
    assert result.bits_per_character == pytest.approx(math.log2(260) * len(text.encode()) / len(text), rel=1e-6)


def test_more_context_is_not_worse_on_a_trained_model() -> None:
    with memory_folder() as folder:
        (folder / "book.txt").write_text(TEXT)
        config = lm(
            folder / "book.txt",
            model__width=32,
            train__steps=60,
            train__batch=16,
            train__eval_every=60,
            train__save_every=60,
        )
        train(config, folder / "run")
        loaded = load(folder / "run")
        rates = [evaluate(loaded, TEXT, stride=stride).bits_per_character for stride in (8, 4, 2, 1)]
        assert rates[0] < 2.0  # it has learnt something
        assert all(longer < shorter + 0.02 for shorter, longer in pairwise(rates))
        assert rates[-1] < 0.9 * rates[0]


@pytest.mark.parametrize(("text", "fact"), [("", "has 0 tokens"), ("a", "has 1 tokens")])
def test_a_text_without_anything_to_predict_is_refused(text: str, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        evaluate(model("abc"), text)


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_leaves_tokens_out_is_refused(stride: int) -> None:
    with pytest.raises(UserError, match=f"the stride is {stride} and the context 8; give 1 to 8"):
        evaluate(model("abc"), "abcabc", stride=stride)


def test_an_unknown_character_is_named() -> None:
    with pytest.raises(UserError, match="character 'é'"):
        evaluate(model("abc"), "abé")


def test_the_held_out_loss_of_training_is_what_evaluate_measures(tmp_path: Path) -> None:
    from minilong.train.source import held_out

    (tmp_path / "book.txt").write_text(TEXT)
    config = lm(tmp_path / "book.txt", model__context=CONTEXT, train__steps=4)
    outcome = train(config, tmp_path / "run")
    loaded = load(tmp_path / "run", "last")
    result = evaluate(loaded, held_out(config, loaded.data))
    assert outcome.validation_loss == pytest.approx(result.nats_per_token, rel=1e-5)
    assert outcome.bits_per_character == pytest.approx(result.bits_per_character, rel=1e-5)


def test_a_book_with_other_ascii_characters_can_be_measured() -> None:
    assert evaluate(model("abc"), "Queer? 7 zebras!\n").tokens == 16
