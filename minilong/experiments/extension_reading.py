"""One reading of the experiment on extension: a text with hidden numbers, losses by position, and questions in forks.

A question is the beginning of the sentence that was hidden, so that a model need not know how to answer: copying is
enough. Each is asked in a fork of the reading, which no other question has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minilong.autodiff import log_softmax
from minilong.backend import to_host
from minilong.data.passkey import NAMES, needle
from minilong.data.vocabulary import Ids, Tokenizer
from minilong.errors import UserError
from minilong.keys import Key
from minilong.memory import Memory
from minilong.nn.models import Stream
from minilong.nn.past import Past
from minilong.positions import Scaling
from minilong.train.loaded import as_row, finite

CURVE = 64
"""Parts of the text whose mean loss is kept."""

CHARACTERS = 16
"""Of a text for each token that is read: no tokenizer has so many on average."""

UNKNOWN = 1 << 30
"""Length of a prompt whose end is not known yet."""


class Shape(Protocol):
    """What of the experiment's sizes concerns a reading."""

    @property
    def slots(self) -> int:
        """Parts of the text with a hidden sentence each."""

    @property
    def questions(self) -> int:
        """Asked at each length, at most."""

    @property
    def digits(self) -> int:
        """Of a hidden number."""

    @property
    def chunk(self) -> int:
        """Tokens that are read at once."""


@dataclass(frozen=True)
class Stepped(Scaling):
    """Dynamic scaling by the length at the end of what is read at once, where `Scaling` takes each query's own: the
    queries then share their frequencies, and are read together (`eq:dynamic-ntk`). context: that length."""

    trained: int = 0

    @staticmethod
    def at(stop: int, trained: int, factor: float) -> Stepped:
        """For queries that end at position `stop`, of a model trained at so many tokens."""
        return Stepped("dynamic", factor, context=max(stop, trained), trained=trained)

    def _growth(self, length: Any) -> np.ndarray:
        return Scaling("dynamic", self.factor, self.trained)._growth(np.maximum(length, self.context))


@dataclass(frozen=True)
class Hidden:
    """A hidden sentence: where its number begins, what asks for it, and the tokens of the number."""

    place: int
    ask: Ids
    answer: Ids


@dataclass(frozen=True)
class HiddenText:
    """tokens (n,); counted (n,): whether a token is one of the text itself; hidden: the sentences in it, in order."""

    tokens: Ids
    counted: np.ndarray
    hidden: tuple[Hidden, ...]


def hidden_text(tokenizer: Tokenizer, text: str, length: int, shape: Shape, sample: int) -> HiddenText:
    """`length` + 1 tokens from a random place of the text, with a sentence hidden in each of `slots` equal parts.

    There are fewer parts where sentences would take more than a quarter. UserError for a text that is too short.
    """
    numbers = Key.of(sample).fold("extension").generator()
    names = [NAMES[i] for i in numbers.permutation(len(NAMES))]
    codes = ["".join(map(str, numbers.integers(0, 10, shape.digits))) for _ in names]
    sentences = [np.asarray(tokenizer.encode(needle(*pair)), np.int32) for pair in zip(names, codes, strict=True)]
    slots = max(1, min(shape.slots, len(names), length // (4 * max(map(len, sentences)))))
    part = length // slots
    begin = int(numbers.integers(max(1, len(text) // 2)))
    around = (text[begin:] + text[:begin])[: CHARACTERS * (length + 1)]
    ids = np.asarray(tokenizer.encode(around), np.int32)
    pieces, counted, hidden, used, done = [], [], [], 0, 0
    for slot in range(slots):
        sentence = sentences[slot]
        before = int(numbers.integers(1, max(2, part - len(sentence))))
        place = slot * part + before
        plain, used = ids[used : used + place - done], used + place - done
        ask, answer = asked(tokenizer, names[slot], codes[slot])
        hidden.append(Hidden(place, ask, answer))
        pieces += [plain, sentence]
        counted += [np.ones(len(plain), bool), np.zeros(len(sentence), bool)]
        done = place + len(sentence)
    rest = ids[used : used + length + 1 - done]
    tokens = np.concatenate([*pieces, rest])[: length + 1]
    if len(tokens) < length + 1:
        raise UserError(
            f"a text has {len(ids)} tokens, and {length + 1} are read; give a longer one, or a lower --factor"
        )
    return HiddenText(tokens, np.concatenate([*counted, np.ones(len(rest), bool)])[: length + 1], tuple(hidden))


def asked(tokenizer: Tokenizer, name: str, code: str) -> tuple[Ids, Ids]:
    """The tokens that ask for a number, and those of the number: what the sentence adds to its beginning."""
    sentence = "\n" + needle(name, code).strip()
    whole = np.asarray(tokenizer.encode(sentence.removesuffix(".")), np.int32)
    start = np.asarray(tokenizer.encode(sentence[: sentence.index(code)].rstrip()), np.int32)
    same = 0
    while same < min(len(start), len(whole) - 1) and start[same] == whole[same]:
        same += 1
    return whole[:same], whole[same:]


def read(
    model_at: Callable[[int], Any],
    memory: Memory,
    text: HiddenText,
    ends: Sequence[int],
    shape: Shape,
    report: Callable[[float], None],
) -> dict[str, Any]:
    """Losses by position and answers by length (see `extension.compute`). model_at: the model that reads to a position.
    ends: the lengths, increasing; the last is that of the text."""
    prompted = memory.prompted(UNKNOWN)
    stream: Stream = model_at(0).start(prompted)
    losses, longest, held = np.zeros(ends[-1]), float(ends[-1]), 0
    answers: dict[str, list[list[int]]] = {}
    for end in ends:
        while stream.seen < end:
            first, stop = stream.seen, min(stream.seen + shape.chunk, end)
            model = model_at(stop)
            hidden = model.extend(as_row(text.tokens[first:stop]), stream)
            likelihoods = to_host(log_softmax(model.logits(hidden)))[0]
            losses[first:stop] = -likelihoods[np.arange(stop - first), text.tokens[first + 1 : stop + 1]]
            share = stop / longest
            report(0.95 * (share + share * share) / 2)  # attention takes time by the square
        finite(losses[:end])
        answers[str(end)], held = [], stream.bytes
        for one in _chosen(text, end, shape.questions):
            answer, held = _answer(model_at, stream, memory, one)
            answers[str(end)].append(answer)
    counted = text.counted[1 : ends[-1] + 1] & text.counted[: ends[-1]]  # what follows a sentence is torn from its text
    starts = [0, *ends[:-1]]
    parts = np.array_split(np.arange(ends[-1]), min(CURVE, ends[-1]))
    return {
        "losses": {
            str(end): _mean(losses, counted, range(start, end)) for start, end in zip(starts, ends, strict=True)
        },
        "curve": [[float(part.mean()), _mean(losses, counted, part)] for part in parts],
        "answers": answers,
        "bytes": held,
    }


def _mean(losses: np.ndarray, counted: np.ndarray, at: Any) -> float | None:
    """The mean of the losses at some positions that count; None where there are none."""
    where = np.asarray(at)[counted[np.asarray(at)]]
    return float(losses[where].mean()) if len(where) else None


def _chosen(text: HiddenText, end: int, most: int) -> list[Hidden]:
    """Sentences that stand whole before a position, evenly chosen."""
    there = [one for one in text.hidden if one.place + len(one.ask) + 2 * len(one.answer) < end]
    count = min(most, len(there))
    return [there[(2 * i + 1) * len(there) // (2 * count)] for i in range(count)]


def _answer(model_at: Callable[[int], Any], stream: Stream, memory: Memory, one: Hidden) -> tuple[list[int], int]:
    """Distance of the sentence, right tokens of the answer, and their number, asked in a fork of the stream; and the
    bytes of the fork's memory."""
    seen = stream.seen
    prompt = memory.prompted(seen + len(one.ask))
    fork = Stream(tuple(_forked(past, prompt) for past in stream.pasts), seen)
    last = seen + len(one.ask) + len(one.answer)
    model = model_at(last)
    hidden = [model.extend(as_row(one.ask), fork)[:, -1:]]
    if len(one.answer) > 1:
        hidden.append(model.extend(as_row(one.answer[:-1]), fork))
    told = [int(t) for h in hidden for t in finite(model.logits(h))[0].argmax(axis=-1)]
    right = sum(a == b for a, b in zip(told, one.answer.tolist(), strict=True))
    return [seen - one.place, right, len(one.answer)], fork.bytes


def _forked(past: Past, memory: Memory) -> Past:
    """The same past in memory of its own, with a prompt whose end is known."""
    fork = Past(memory)
    fork.state = past.state.copy()
    return fork
