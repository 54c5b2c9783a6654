"""Sampling: which tokens can be drawn and how often, and what a prompt may be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info
from tiny_runs import COPY, SMALL, untrained

from minilong.data.tokenizers import ByteTokenizer
from minilong.data.vocabulary import FIRST
from minilong.errors import UserError
from minilong.memory import Full, Window
from minilong.nn.models import Stream
from minilong.nn.past import Past
from minilong.train.config import RunConfig
from minilong.train.generate import choose, generate, generate_batch
from minilong.train.loaded import LoadedRun

LETTERS = "abcdefghij \n"


def model(text: str = LETTERS, **changes: Any) -> LoadedRun:
    config = RunConfig.from_flat(
        SMALL | {"data.text": ("unread",)} | {k.replace("__", "."): v for k, v in changes.items()}
    )
    return untrained(config, text, scale=3.0)


def written(loaded: LoadedRun, prompt: str = "ab", **options: Any) -> str:
    return "".join(generate(loaded, prompt, **({"length": 20} | options)))


class Speaker:
    """A model that says the next token of its script, whatever it reads, and reports each reading."""

    context = 100

    def __init__(self, script: list[int], report: Any = lambda: None) -> None:
        self.script, self.report = script, report

    def start(self, memory: Any = None) -> Stream:
        return Stream((Past(Full()),))

    def extend(self, tokens: np.ndarray, stream: Stream) -> np.ndarray:
        self.report()
        stream.seen += tokens.shape[1]
        return np.full((1, 1, 1), stream.seen)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        logits = np.zeros((1, 1, 260), np.float32)
        logits[0, 0, self.script[(int(hidden[0, 0, 0]) - 1) % len(self.script)]] = 50
        return logits


class Fixed:
    """Stands in for a generator whose next number is known."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def numbers(value: float) -> Any:
    return Fixed(value)


LAST = math.nextafter(1.0, 0.0)
LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=FIRST + 1, max_size=FIRST + 12).map(
    lambda values: np.array(values, np.float32)
)


# The choice of one token


@given(LOGITS, st.floats(0, LAST), st.floats(0.01, 5), st.integers(0, 20), st.floats(0.01, 1))
def test_a_choice_never_leaves_its_set(
    logits: np.ndarray, number: float, temperature: float, top_k: int, top_p: float
) -> None:
    for draw in (0.0, number, LAST):
        token = choose(logits, numbers(draw), temperature=temperature, top_k=top_k, top_p=top_p)
        assert FIRST <= token < len(logits)
        better = np.flatnonzero(logits[FIRST:] > logits[token]) + FIRST
        if top_k:
            assert len(better) < top_k
        # Those likelier than it reach less than top_p: else it would not have been needed.
        p = np.exp((logits[FIRST:].astype(float) - float(logits[FIRST:].max())) / temperature)
        if top_k:
            p = np.where(logits[FIRST:] >= np.sort(logits[FIRST:])[-min(top_k, len(p))], p, 0.0)
        assert p[better - FIRST].sum() / p.sum() < top_p + 1e-9


@given(LOGITS, st.floats(0, LAST))
def test_the_likeliest_is_what_every_extreme_setting_takes(logits: np.ndarray, number: float) -> None:
    best = FIRST + int(logits[FIRST:].argmax())
    assert choose(logits, numbers(number), temperature=0) == best
    assert choose(logits, numbers(number), top_k=1) == best
    assert choose(logits, numbers(number), top_p=1e-9) == best
    if (logits[FIRST:] < logits[best]).sum() == len(logits) - FIRST - 1:  # no tie
        assert choose(logits, numbers(number), temperature=5e-324) == best


@pytest.mark.parametrize("number", [0.0, 0.3, 0.9999999, LAST])
def test_rounding_never_draws_what_is_impossible(number: float) -> None:
    # The running sum of the probabilities may end below 1, and the number drawn may lie above it.
    logits = np.log(np.linspace(1, 2, 29) / 7).astype(np.float32)
    for special in range(FIRST):
        logits[special] = 50.0  # were they drawn, it would be at once
    for temperature in (0.3, 0.7, 1.0, 1.3):
        for top_p in (1.0, LAST, 0.9):
            assert choose(logits, numbers(number), temperature=temperature, top_p=top_p) >= FIRST


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 3, 1.0), (1.0, 0, 0.7)]
)
def test_frequencies_are_the_softmax_of_the_set(temperature: float, top_k: int, top_p: float) -> None:
    logits = np.array([9, 9, 9, 9, 1.0, 0.2, -0.5, 0.9, -2.0], np.float32)
    p = np.exp(logits[FIRST:].astype(float) / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    kept = order[:top_k] if top_k else order
    reach = np.cumsum(p[kept] / p[kept].sum())
    kept = kept[: int((reach < top_p).sum()) + 1]
    expected = np.zeros_like(p)
    expected[kept] = p[kept] / p[kept].sum()
    draws, n = np.random.default_rng(7), 4000
    counts = np.zeros(len(p))
    for _ in range(n):
        counts[choose(logits, draws, temperature=temperature, top_k=top_k, top_p=top_p) - FIRST] += 1
    assert (counts[expected == 0] == 0).all()
    live = expected > 0
    chi_square = ((counts[live] - n * expected[live]) ** 2 / (n * expected[live])).sum()
    assert chi_square < 25  # four degrees of freedom at most: less than one seed in ten thousand reaches it


def test_a_choice_leaves_the_logits_as_they_are() -> None:
    logits = np.arange(9, dtype=np.float32)
    logits.flags.writeable = False
    assert choose(logits, np.random.default_rng(1)) >= FIRST


# The continuation


def test_greedy_text_is_the_argmax_of_each_step() -> None:
    loaded = model()
    ids = list(loaded.tokenizer.encode("abc"))
    for written_so_far in range(15):  # more than the context of 8: then the text starts afresh from its last 4
        seen = len(ids) if len(ids) <= 8 else 5 + (len(ids) - 9) % 4 if written_so_far else 8
        logits = loaded.model(np.array([ids[-seen:]], np.int32))[0, -1].copy()
        logits[:FIRST] = -np.inf
        ids.append(int(logits.argmax()))
    expected = loaded.tokenizer.decode(ids[3:])
    assert written(loaded, "abc", length=15, temperature=0) == expected
    assert written(loaded, "abc", length=15, top_k=1, temperature=2.0) == expected
    assert written(loaded, "abc", length=15, top_p=1e-9) == expected


def test_the_seed_decides_the_text() -> None:
    loaded = model()
    texts = [written(loaded, seed=seed, temperature=1.5) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 20  # a character a token


def test_only_the_last_context_of_a_long_prompt_counts() -> None:
    loaded = model(model__position="learned")  # which could not read more than its context
    long = "abcdefghij" * 5
    assert written(loaded, long) == written(loaded, "a" * 11 + long[-8:])
    assert written(loaded, long) != written(loaded, long[-8:] + "a")


def test_an_empty_prompt_stands_for_a_line_break() -> None:
    assert written(model(), "") == written(model(), "\n")
    assert len(written(model("abcdef"), "")) == 20  # every vocabulary has a line break


def test_an_unknown_character_is_named_before_anything_is_written() -> None:
    with pytest.raises(UserError, match=r"character 'é' \(U\+00E9, number 3 of the text\)"):
        next(generate(model(), "abé", length=3))


def test_a_run_of_another_task_is_sent_to_translate() -> None:
    loaded = untrained(RunConfig.from_flat(SMALL | COPY), "")
    with pytest.raises(UserError, match="use `minilong translate`"):
        next(generate(loaded, "a", length=3))


def test_special_tokens_are_not_drawn_whatever_the_model_says() -> None:
    loaded = model(model__tied=False)
    loaded.model.head.weight[:, :FIRST] *= 1000
    assert len(written(loaded, length=60, temperature=5.0)) == 60


def test_bytes_come_out_as_whole_characters() -> None:
    chinese = "三国演义"
    script = ByteTokenizer().encode(chinese)

    loaded = replace(model(), model=Speaker([int(i) for i in script]), tokenizer=ByteTokenizer())
    assert list(generate(loaded, "a", length=12)) == list(chinese)
    assert list(generate(loaded, "a", length=10)) == ["三", "国", "演", "\ufffd"]  # cut inside the fourth
    assert "".join(generate(loaded, "a", length=24)) == chinese * 2


def test_one_blas_thread_while_it_writes_and_as_many_as_before_afterwards() -> None:
    seen: list[int] = []
    before = blas_threads()
    watching = Speaker([FIRST], lambda: seen.append(blas_threads()))
    written(replace(model(), model=watching), length=3)
    next(generate(replace(model(), model=watching), "a", length=3))  # given up after a piece
    assert seen == [1] * 4
    assert blas_threads() == before


def blas_threads() -> int:
    return max(int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas")


def test_the_first_piece_comes_before_the_rest_is_computed() -> None:
    calls: list[int] = []
    assert next(generate(replace(model(), model=Speaker([FIRST], lambda: calls.append(1))), "a", length=1000))
    assert len(calls) == 1


# Memories, and several prompts


def test_a_window_goes_on_where_the_context_ends() -> None:
    loaded = model(model__context=16)
    window = Window(5, 2)
    text = written(loaded, "abc", length=40, temperature=0, memory=window)
    ids = list(loaded.tokenizer.encode("abc" + text))
    stream = loaded.model.start(window)
    logits = loaded.model.logits(loaded.model.extend(np.array([ids], np.int32), stream))[0]
    logits[:, :FIRST] = -np.inf
    assert [int(row.argmax()) for row in logits[2:-1]] == ids[3:]
    assert written(loaded, "abc", length=12, temperature=0) == written(
        loaded, "abc", length=12, temperature=0, memory=Window(16)
    )


@pytest.mark.parametrize("memory", [None, Full(), Window(5)])
def test_prompts_together_are_continued_as_each_alone(memory: Any) -> None:
    loaded = model(model__context=32)
    prompts = ["a", "bcd", "abcdefghij", ""]
    together = generate_batch(loaded, prompts, length=20, seed=3, temperature=1.0, memory=memory)
    alone = [written(loaded, prompt, length=20, seed=3, temperature=1.0, memory=memory) for prompt in prompts]
    assert together == alone


def test_prompts_together_are_refused_where_they_do_not_fit() -> None:
    with pytest.raises(UserError, match="longer than the context of 8 tokens; give the prompts one at a time"):
        generate_batch(model(), ["a", "abc"], length=20)
    with pytest.raises(UserError, match="no common first tokens, so there can be no sinks"):
        generate_batch(model(), ["a", "abc"], length=2, memory=Window(4, 2))
    assert len(generate_batch(model(), ["abc", "bcd"], length=20)[0]) == 20  # of one length: they start afresh together
