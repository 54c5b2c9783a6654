"""Greedy and beam search against brute force; padding, limits and exact matches."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import SMALL, copy, untrained

from minilong.autodiff import log_softmax
from minilong.data.batches import PairBatch, pair_batch
from minilong.data.tokenizers import CharTokenizer
from minilong.data.vocabulary import BOS, EOS, FIRST, PAD
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.train.config import RunConfig
from minilong.train.loaded import LoadedRun
from minilong.train.translate import NEVER, beam_search, exact_match, greedy, length_norm, pad_rows, translate

SOURCES = st.text("abcdefgh", min_size=1, max_size=5)


def model(seed: int = 0, scale: float = 3.0, **changes: Any) -> LoadedRun:
    """Random weights, with an end that is likely enough for answers of all lengths."""
    loaded = untrained(copy(**({"model__tied": False} | changes)), "", seed, scale)
    loaded.model.head.weight[:, EOS] *= 2
    return loaded


def two_letters(seed: int, scale: float = 3.0) -> LoadedRun:
    """A vocabulary of two letters, small enough to enumerate all answers."""
    config = copy(model__tied=False)
    loaded = LoadedRun(config, build(config.model, FIRST + 2, Key.of(seed)), CharTokenizer("ab"), 0)
    loaded.model.decoder.norm.gain[:] *= scale
    return loaded


def next_scores(model: Any, source: np.ndarray, answer: list[int]) -> np.ndarray:
    """Log-probabilities of the token after an answer's beginning, one row at a time."""
    inputs = np.array([[BOS, *answer]], np.int32)
    logits = model(source[None], inputs, lengths=np.array([len(source)], np.int32))[0, -1].astype(np.float64)
    logits[list(NEVER)] = -np.inf
    return np.asarray(log_softmax(logits))


def likelihood(model: Any, source: np.ndarray, answer: list[int], longest: int) -> float:
    """Log-likelihood of an answer with its end, or of its beginning where it is as long as it may be."""
    tokens = [*answer, EOS] if len(answer) < longest else answer
    return float(sum(next_scores(model, source, tokens[:i])[token] for i, token in enumerate(tokens)))


def greedy_by_hand(model: Any, source: np.ndarray, longest: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < longest:
        token = int(next_scores(model, source, answer).argmax())
        if token == EOS:
            break
        answer.append(token)
    return answer


# Greedy search


@given(st.integers(0, 40), st.lists(SOURCES, min_size=1, max_size=5), st.sampled_from(["rotary", "learned"]))
def test_greedy_is_the_likeliest_token_at_each_step(seed: int, sources: list[str], position: str) -> None:
    loaded = model(seed, model__position=position)
    rows = [loaded.tokenizer.encode(source) for source in sources]
    expected = [loaded.tokenizer.decode(greedy_by_hand(loaded.model, row, 5)) for row in rows]
    assert translate(loaded, sources) == expected  # together, padded
    assert [translate(loaded, [source])[0] for source in sources] == expected  # and one by one
    assert translate(loaded, sources[::-1]) == expected[::-1]


def test_answers_of_all_lengths_occur_in_these_tests() -> None:
    answers = [len(translate(model(seed), [source])[0]) for seed in range(40) for source in ("abc", "h", "gfedc")]
    assert set(answers) == set(range(6))
    assert answers.count(5) < 90


def test_no_answer_holds_a_special_token() -> None:
    loaded = model()
    for special in NEVER:
        loaded.model.head.weight[:, special] *= 1000
    for beam in (1, 3):
        for answer in translate(loaded, ["abc", "hgf"], beam=beam):
            assert len(answer) <= 5
    rows, lengths = pad_rows([loaded.tokenizer.encode("abc")])
    assert all(token >= FIRST for token in greedy(loaded.model, rows, lengths, 5)[0])


# Beam search


@given(st.integers(0, 40), SOURCES, st.sampled_from([0.0, 0.6]))
def test_a_beam_of_one_is_greedy(seed: int, source: str, penalty: float) -> None:
    loaded = model(seed)
    row = loaded.tokenizer.encode(source)
    assert beam_search(loaded.model, row, 5, 1, penalty).tolist() == greedy_by_hand(loaded.model, row, 5)


@given(st.integers(0, 40), st.text("ab", min_size=1, max_size=4), st.sampled_from([0.0, 0.6, 1.5]))
def test_a_beam_as_wide_as_everything_finds_the_best_answer(seed: int, source: str, penalty: float) -> None:
    loaded, longest = two_letters(seed), 4
    row = loaded.tokenizer.encode(source)
    letters = (FIRST, FIRST + 1)
    every = [list(answer) for n in range(longest + 1) for answer in product(letters, repeat=n)]
    scores = [
        likelihood(loaded.model, row, answer, longest) / length_norm(min(len(answer) + 1, longest), penalty)
        for answer in every
    ]
    found = beam_search(loaded.model, row, longest, len(every), penalty).tolist()
    assert scores[every.index(found)] == pytest.approx(max(scores), abs=1e-5)


@pytest.mark.parametrize("beam", [2, 3, 5])
def test_a_beam_is_not_worse_than_greedy(beam: int) -> None:
    """No theorem: a beam may drop the beginning of the greedy answer. On these random models it never loses by it."""
    better = 0
    for seed in range(40):
        loaded = model(seed)
        row = loaded.tokenizer.encode("abcdefgh"[seed % 4 : seed % 4 + 1 + seed % 5])
        found = likelihood(loaded.model, row, beam_search(loaded.model, row, 5, beam, 0.0).tolist(), 5)
        single = likelihood(loaded.model, row, greedy_by_hand(loaded.model, row, 5), 5)
        assert found >= single - 1e-6
        better += found > single + 1e-6
    assert better >= 3  # the search is of use


def test_a_length_penalty_favours_longer_answers() -> None:
    def total(penalty: float) -> int:
        return sum(len(translate(model(seed), ["abc"], beam=4, length_penalty=penalty)[0]) for seed in range(20))

    assert total(0.0) < total(3.0)


@given(st.lists(SOURCES, min_size=2, max_size=4))
def test_beam_search_of_many_sentences_is_that_of_each(sources: list[str]) -> None:
    loaded = model(3)
    assert translate(loaded, sources, beam=3) == [translate(loaded, [source], beam=3)[0] for source in sources]


# Limits


@pytest.mark.parametrize("beam", [1, 2])
def test_limits_of_sentences_and_answers(beam: int) -> None:
    loaded = model()
    assert translate(loaded, [], beam=beam) == []
    with pytest.raises(UserError, match=r"sentence 2 has 6 tokens and this run reads 1 to 5 \(data\.max_length\)"):
        translate(loaded, ["abcde", "abcdef"], beam=beam)
    with pytest.raises(UserError, match="sentence 1 has 0 tokens"):
        translate(loaded, [""], beam=beam)
    with pytest.raises(UserError, match="sentence 34: character 'z'"):
        translate(loaded, ["a", "az"], beam=beam, first=33)
    talkative = replace(loaded, model=Talkative())
    lengths = [len(translate(talkative, ["abc"], beam=beam, max_length=n)[0]) for n in (None, 1, 2, 5, 100)]
    assert lengths == [5, 1, 2, 5, 8]  # the run's longest, what is asked for, and at most the context


def test_a_language_model_is_sent_to_generate() -> None:
    loaded = untrained(RunConfig.from_flat(SMALL | {"data.text": ("unread",)}), "abc")
    with pytest.raises(UserError, match="use `minilong generate`"):
        translate(loaded, ["abc"])


# Exact matches


class Echo:
    """Answers with its source, but with a token more, less or other where the source begins with b, c or d."""

    context = 8

    def encode(self, source: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.concatenate([lengths[:, None], source], axis=1)[:, :, None]

    def decode(self, memory: np.ndarray, answers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(answers), answers.shape[1], FIRST + 16), np.float32)
        for row, (length, *source) in enumerate(memory[:, :, 0].tolist()):
            said = source[:length]
            first = said[0] - FIRST
            said = {1: [*said, FIRST], 2: said[:-1], 3: [*said[:-1], FIRST + 15]}.get(first, said)
            at = answers.shape[1] - 1
            logits[row, -1, said[at] if at < len(said) else EOS] = 9
        return logits


class Talkative(Echo):
    """Never ends."""

    def decode(self, memory: np.ndarray, answers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(answers), answers.shape[1], FIRST + 16), np.float32)
        logits[..., EOS] = -1e9
        return logits


def batch(*texts: str) -> PairBatch:
    tokenizer = model().tokenizer
    ids = [(tokenizer.encode(text), tokenizer.encode(text)) for text in texts]
    return pair_batch(ids, pad=PAD, bos=BOS, eos=EOS)


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        (["aaa", "efgh", "h"], 1.0),
        (["baa"], 0.0),  # too long
        (["caa"], 0.0),  # too short
        (["daa"], 0.0),  # another token
        (["aaa", "baa", "caa", "ffffe"], 0.5),
        (["bbbbb", "a"], 0.5),  # the answer that is too long is also the longest
    ],
)
def test_exact_match_counts_answers_that_are_right_to_the_end(texts: list[str], share: float) -> None:
    tokenizer = model().tokenizer
    assert exact_match(Echo(), [batch(*texts)], tokenizer) == share
    assert exact_match(Echo(), [batch(text) for text in texts], tokenizer) == share


def test_translate_uses_the_model_that_it_is_given() -> None:
    loaded = replace(model(), model=Echo())
    assert translate(loaded, ["aef", "gh"]) == ["aef", "gh"]
    assert translate(loaded, ["aef", "gh"], beam=2) == ["aef", "gh"]
    assert translate(loaded, ["cef"]) == ["ce"]
