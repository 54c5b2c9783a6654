"""Laws of searching for a likely answer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.data.vocabulary import BOS, EOS, FIRST
from minilong.train.translate import beam_search, greedy, length_norm

kind("beam", "beam(log_likelihood, length, penalty)", "The score by which finished answers are compared.")
kind(
    "beam-search",
    "search(table, beam, penalty)",
    "table (longest, n, n): logits of the next token by place and last token -> the answer, without its end token.",
)


def our_score(log_likelihood: float, length: int, penalty: float) -> float:
    """Our score."""
    return log_likelihood / length_norm(length, penalty)


class Chain:
    """A model whose next token depends on the place and the last token only."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def encode(self, source: Any, lengths: Any) -> np.ndarray:
        """A memory without content."""
        return np.zeros((len(source), 1, 1))

    def decode(self, memory: Any, target: Any, lengths: Any) -> np.ndarray:
        """Logits (b, t, n)."""
        logits: np.ndarray = np.stack([self.table[t][target[:, t]] for t in range(target.shape[1])], axis=1)
        return logits


def our_search(table: Any, beam: int, penalty: float) -> list[int]:
    """Our beam search on such a model."""
    return [int(i) for i in beam_search(Chain(table), np.array([FIRST]), len(table), beam, penalty)]


subject("beam", "length_norm", code=length_norm, equation="eq:beam")(our_score)
subject("beam-search", "beam_search", code=beam_search, equation="eq:beam")(our_search)


def finished(n: Numbers, *, length: int, penalty: float) -> dict[str, Any]:
    """A finished answer."""
    return {"log_likelihood": -float(n.uniform(0, 20)), "length": length, "penalty": penalty}


FINISHED = cases(finished, length=(1, 2, 7, 50), penalty=(0.0, 0.6, 1.0))


@law("beam", "score", serves="eq:beam", cases=FINISHED)
def score(f: F, c: Case, measure: Measure) -> None:
    """Log-likelihood by ((5 + length) / 6)^penalty: at penalty 0 the likelihood, at length 1 whatever the penalty."""
    plain, length = c["log_likelihood"], c["length"]
    limit = bound(1 + abs(plain), 8)
    measure.close(f(plain, length, 0.0), plain, limit)
    measure.close(f(plain, 1, c["penalty"]), plain, limit)
    expected = plain / np.exp(c["penalty"] * (np.log(5.0 + length) - np.log(6.0)))
    measure.close(f(plain, length, c["penalty"]), expected, limit)


def chain(n: Numbers, *, longest: int, words: int, beam: int, penalty: float) -> dict[str, Any]:
    """Logits of a chain; those of special tokens are high, since no answer may hold them."""
    table = n.uniform(-2, 2, longest, FIRST + words, FIRST + words) + 1e-3 * n.rng.random((FIRST + words,))
    table[..., [i for i in range(FIRST) if i != EOS]] += 5.0
    return {"table": table, "beam": beam, "penalty": penalty}


CHAINS = cases(chain, longest=(1, 2, 3, 4), words=(1, 2, 3), beam=(1, 2, 3), penalty=(0.0, 0.6, 1.0))
SHORT = cases(chain, longest=(1, 2, 3), words=(1, 2), beam=(40,), penalty=(0.0,))


@law("beam-search", "one-is-greedy", serves="eq:beam", cases=CHAINS)
def one_is_greedy(f: F, c: Case, measure: Measure) -> None:
    """With one hypothesis the search takes the likeliest token at each place, whatever the penalty."""
    table, path = c["table"], [BOS]
    for t in range(len(table)):
        row = np.where([EOS <= i != 3 and i not in (0, 1) for i in range(table.shape[-1])], table[t, path[-1]], -np.inf)
        if int(row.argmax()) == EOS:
            break
        path.append(int(row.argmax()))
    found = [int(i) for i in f(table, 1, c["penalty"])]
    measure.holds(found == path[1:], f"the answer is {found}, greedy search's {path[1:]}")


@law("beam-search", "wide-is-exhaustive", serves="eq:beam", cases=SHORT)
def wide_is_exhaustive(f: F, c: Case, measure: Measure) -> None:
    """With room for all hypotheses, and without a penalty, the answer is the likeliest of all answers."""
    table = c["table"]
    allowed = [EOS, *range(FIRST, table.shape[-1])]
    x = table[..., allowed] - table[..., allowed].max(axis=-1, keepdims=True)
    logs = np.full(table.shape, -np.inf)
    logs[..., allowed] = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

    def likelihood(answer: tuple[int, ...]) -> float:
        ended = (*answer, EOS) if len(answer) < len(table) else answer
        return float(sum(logs[t, last, new] for t, (last, new) in enumerate(itertools.pairwise((BOS, *ended)))))

    answers = [a for n in range(len(table) + 1) for a in itertools.product(allowed[1:], repeat=n)]
    best, found = max(map(likelihood, answers)), tuple(int(i) for i in f(table, c["beam"], c["penalty"]))
    measure.holds(found in answers, f"the answer {found} holds special tokens, or is too long")
    measure.close(likelihood(found), best, bound(1 + abs(best), 8), "the answer's log-likelihood")


@mutant(
    "beam",
    "the length itself",
    kills="score",
    met="plausible: log-likelihood / length^penalty, another rule of Wu et al.",
)
def by_length(log_likelihood: float, length: int, penalty: float) -> float:
    """Divided by length^penalty."""
    return float(log_likelihood / length**penalty)


@mutant(
    "beam",
    "long answers punished",
    kills="score",
    met="plausible: multiplied instead of divided, since scores are negative",
)
def multiplied(log_likelihood: float, length: int, penalty: float) -> float:
    """Times the norm."""
    return log_likelihood * length_norm(length, penalty)


@mutant(
    "beam-search",
    "sums forgotten",
    kills="wide-is-exhaustive",
    met="plausible: hypotheses ranked by their last token; with one hypothesis nobody sees it",
)
def last_token_only(table: Any, beam: int, penalty: float) -> list[int]:
    """The likeliest token at each place, whatever the width: what ranking by the last token alone comes to."""
    return our_search(table, 1, penalty)


@mutant(
    "beam-search",
    "special tokens in answers",
    kills=("one-is-greedy", "wide-is-exhaustive"),
    met="plausible: only the end token is treated apart; padding and start tokens are never trained as targets",
)
def unfiltered(table: Any, beam: int, penalty: float) -> list[int]:
    """Greedy over the whole vocabulary."""
    path = [BOS]
    for t in range(len(table)):
        path.append(int(table[t, path[-1]].argmax()))
    return path[1:]


@mutant(
    "beam-search",
    "ended hypotheses go on",
    kills="one-is-greedy",
    met="plausible: the end token taken for a word, and cut out of the text afterwards",
)
def never_ending(table: Any, beam: int, penalty: float) -> list[int]:
    """The end token is skipped."""
    answer = greedy(
        Chain(np.where(np.arange(table.shape[-1]) == EOS, -1e9, table)), np.array([[FIRST]]), np.array([1]), len(table)
    )
    return [int(i) for i in answer[0]]
