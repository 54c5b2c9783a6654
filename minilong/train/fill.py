"""Filling blanks with a run that learnt to restore a text: tokens by an encoder, spans by an encoder-decoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from minilong.autodiff import log_softmax, softmax
from minilong.backend import beside
from minilong.data.bpe import BpeTokenizer
from minilong.data.marked import MarkedTokenizer
from minilong.data.numbering import Numbering, numbering_of
from minilong.data.spans import restore
from minilong.data.vocabulary import BOS, EOS, FIRST, Ids, Tokenizer
from minilong.errors import UserError
from minilong.train.config import FILLING_TASKS
from minilong.train.loaded import LoadedRun, as_row, finite, ready_to_read
from minilong.train.pretraining import spaced

BLANK = re.compile(r"\[MASK\]|_{3,}")
LONGEST_SPAN = 12
"""Tokens that a span is searched up to."""
LEAST_BEAM = 8


@dataclass(frozen=True)
class Candidate:
    """What may stand in one blank, or in all of them, and its probability."""

    words: tuple[str, ...]
    probability: float


@dataclass(frozen=True)
class Filling:
    """The likeliest candidates first: a list for each blank, given that the others are blank (an encoder); or one list
    of what may stand in all of them together (an encoder-decoder). text: with the likeliest in all blanks."""

    blanks: int
    candidates: tuple[tuple[Candidate, ...], ...]
    text: str


def fill(loaded: LoadedRun, text: str, top: int = 5) -> Filling:
    """The `top` likeliest fillings of the blanks in a text, each written ___ or [MASK]: of one token each, or for a run
    of task `t5` of one token or more. UserError for a run of another task, a text without a blank, one that does not
    fit into the context, an unknown character, and for a model whose output is not finite."""
    task, tokenizer = loaded.config.task, loaded.tokenizer
    if task not in FILLING_TASKS:
        raise UserError(
            f"the run learnt the task {task!r}, which fills no blanks; train one with --task {', '.join(FILLING_TASKS)}"
        )
    numbering = numbering_of(tokenizer, spans=task == "t5")
    parts = [spaced_part(part) for part in BLANK.split(text)]
    blanks = len(parts) - 1
    if not blanks:
        raise UserError('the text has no blank; write ___ or [MASK] where one is, such as "The ___ sat"')
    spans = task == "t5"
    if spans and blanks > numbering.marks:
        raise UserError(f"the text has {blanks} blanks and the run knows {numbering.marks} at once; leave some out")
    numbers = _encode(numbering, parts, spans)
    room = loaded.config.model.context - (len(numbering.closing) if spans else 2)
    if len(numbers) > room:
        raise UserError(f"the text has {len(numbers)} tokens and this run reads {room} at once; shorten it")
    with ready_to_read(), np.errstate(all="ignore"):  # `finite` says it in words
        if spans:
            return _spans(loaded, numbering, numbers, blanks, top)
        return _masks(loaded, tokenizer, numbering.ids(numbers), top)


def spaced_part(part: str) -> str:
    """A part of a text as training saw it: one space for a run of white space, at its ends too."""
    before, behind = (" " if part[:1].isspace() else ""), (" " if part[-1:].isspace() else "")
    inner = spaced(part)
    return before + inner + behind if inner else before


def _encode(numbering: Numbering, parts: Sequence[str], spans: bool) -> Ids:
    """The numbers of the parts with a mark between each two: the same one, or each time the next of the sentinels. Byte
    pairs hold the space before a word, so a mark takes the place of the one before it, as in RoBERTa and T5; and of our
    own runs a text begins with one, as most sentences do."""
    tokenizer = numbering.tokenizer
    own = isinstance(tokenizer, MarkedTokenizer) and isinstance(tokenizer.base, BpeTokenizer)
    opened_spans = spans and not isinstance(tokenizer, MarkedTokenizer)
    takes_space = own or opened_spans or any(c.left for c in tokenizer.controls if c.id == tokenizer.mask)
    found: list[Ids] = []
    for number, part in enumerate(parts):
        if number:
            found.append(np.array([numbering.first + (number - 1 if spans else 0)], np.int32))
        if takes_space:
            part = part.removesuffix(" ") if number < len(parts) - 1 else part
        if own:
            part = f" {part}" if not number and part and not part[0].isspace() else part
        found.append(numbering.encode(part))
    return np.concatenate(found)


def _masks(loaded: LoadedRun, tokenizer: Tokenizer, ids: Ids, top: int) -> Filling:
    row = np.array([tokenizer.bos, *ids, tokenizer.separator], np.int32)
    places = np.flatnonzero(row == tokenizer.mask)
    hidden = loaded.model.hidden(as_row(row))
    likely = softmax(finite(loaded.model.logits(hidden[0][beside(hidden, places)])).astype(np.float64))
    specials = np.array(tokenizer.specials)
    likely[:, specials] = 0  # of the whole, and none that is no text
    order = np.argsort(-likely, axis=1, kind="stable")[:, : min(top, tokenizer.size - len(specials))]
    candidates = tuple(
        tuple(Candidate((tokenizer.decode([token]),), float(likely[blank, token])) for token in row_order.tolist())
        for blank, row_order in enumerate(order)
    )
    row[places] = order[:, 0]
    return Filling(len(places), candidates, tokenizer.decode(row).strip())


def _spans(loaded: LoadedRun, numbering: Numbering, source: Ids, blanks: int, top: int) -> Filling:
    found = span_beam(loaded.model, numbering, source, blanks, max(top, LEAST_BEAM))[:top]
    candidates = []
    for answer, likelihood in found:
        ends = [*np.flatnonzero(answer >= numbering.first), len(answer)]
        words = tuple(numbering.decode(answer[a + 1 : b]) for a, b in pairwise(ends))
        candidates.append(Candidate(words, float(np.exp(likelihood))))
    text = numbering.decode(restore(source, found[0][0], numbering.first)).strip()
    return Filling(blanks, (tuple(candidates),), text)


@dataclass(frozen=True)
class _Path:
    """An unfinished target: tokens from the begin token on, log-likelihood, number of its span, tokens of that."""

    tokens: tuple[int, ...]
    score: float
    span: int
    length: int


def span_beam(model: Any, numbering: Numbering, source: Ids, blanks: int, beam: int) -> list[tuple[Ids, float]]:
    """The likeliest targets for a source with `blanks` sentinels, each with its log-likelihood; all in numbers.

    Each sentinel in turn, and one to `LONGEST_SPAN` tokens of text behind it. What follows the last span may be the end
    or the sentinel of a blank that is not there: either says that the span is over.
    """
    first, marks, read = numbering.first, numbering.marks, numbering.source(source)
    lengths = np.array([len(read)], np.int32)
    memory = model.encode(as_row(read), lengths)
    paths = [_Path((BOS, first), 0.0, 0, 0)]
    finished: list[tuple[Ids, float]] = []
    while paths:
        rows = np.array([path.tokens for path in paths], np.int32)  # every path grows by one token a round
        same = beside(memory, np.zeros(len(rows), np.int64))
        logits = finite(model.decode(memory[same], numbering.ids(rows), np.repeat(lengths, len(rows)))[:, -1])
        likely = log_softmax(logits.astype(np.float64))
        likely = likely if numbering.table is None else likely[:, numbering.table]
        grown: list[_Path] = []
        for path, row in zip(paths, likely, strict=True):
            grown += _longer(path, row, first, blanks, beam)
            if path.length and path.span + 1 == blanks:
                over = np.logaddexp(row[EOS], row[first + blanks]) if blanks < marks else row[EOS]
                finished.append((np.array(path.tokens[1:], np.int32), path.score + float(over)))
        paths = sorted(grown, key=lambda path: -path.score)[:beam]
        finished = sorted(finished, key=lambda pair: -pair[1])[:beam]
        if len(finished) == beam and paths and finished[-1][1] >= paths[0].score:
            break
    return finished


def _longer(path: _Path, row: np.ndarray, first: int, blanks: int, beam: int) -> list[_Path]:
    """A path with one token more: the likeliest of the text, and the next sentinel."""
    found = []
    if path.length < LONGEST_SPAN:
        for token in (np.argsort(-row[FIRST:first], kind="stable")[:beam] + FIRST).tolist():
            found.append(_Path((*path.tokens, token), path.score + float(row[token]), path.span, path.length + 1))
    if path.length and path.span + 1 < blanks:
        mark = first + path.span + 1
        found.append(_Path((*path.tokens, mark), path.score + float(row[mark]), path.span + 1, 0))
    return found
