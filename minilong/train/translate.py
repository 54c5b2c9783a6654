"""Answers of an encoder-decoder: greedy search and beam search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilong.autodiff import log_softmax
from minilong.backend import beside
from minilong.data.batches import PairBatch
from minilong.data.vocabulary import BOS, EOS, PAD, SEPARATOR, Tokenizer
from minilong.errors import UserError
from minilong.train.loaded import LoadedRun, finite, ready_to_read

NEVER = (PAD, BOS, SEPARATOR)
"""Tokens that no answer holds."""


def translate(
    loaded: LoadedRun,
    sentences: Sequence[str],
    *,
    beam: int = 1,
    length_penalty: float = 0.6,
    max_length: int | None = None,
    first: int = 1,
) -> list[str]:
    """The answers to some sentences. beam: hypotheses kept (1: greedy). UserError for an empty or too long sentence,
    and for one with a character that the run does not know; `first` is the number of the first one in such an error."""
    if loaded.config.model.kind == "decoder":
        raise UserError("the run learnt to continue a text; use `minilong generate`")
    limit = loaded.config.data.max_length
    longest = min(max_length or limit, loaded.model.context)
    ids = []
    for number, sentence in enumerate(sentences, start=first):
        try:
            row = loaded.tokenizer.encode(sentence)
        except UserError as error:
            raise UserError(f"sentence {number}: {error}") from None
        if not 1 <= len(row) <= limit:
            remedy = "shorten it" if len(row) else "fill it in or take it out"
            raise UserError(
                f"sentence {number} has {len(row)} tokens and this run reads 1 to {limit} (data.max_length); {remedy}"
            )
        ids.append(row)
    if not ids:
        return []
    source, lengths = pad_rows(ids)
    with ready_to_read(), np.errstate(all="ignore"):  # `finite` says it in words
        if beam == 1:
            answers = greedy(loaded.model, source, lengths, longest)
        else:
            answers = [beam_search(loaded.model, row, longest, beam, length_penalty) for row in ids]
    return [loaded.tokenizer.decode(answer) for answer in answers]


def pad_rows(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one padded array (b, longest), and their lengths (b,)."""
    lengths = np.array([len(row) for row in rows], np.int32)
    padded = np.full((len(rows), int(lengths.max())), PAD, np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded, lengths


def greedy(
    model: Any,
    source: np.ndarray,
    lengths: np.ndarray,
    longest: int,
    *,
    bos: int = BOS,
    eos: int = EOS,
    never: tuple[int, ...] = NEVER,
) -> list[np.ndarray]:
    """For each source row the answer that takes the likeliest token at each place, without the end token. bos, eos,
    never: the ids that begin and end an answer, and those that are no part of one."""
    memory = model.encode(source, lengths)
    answers = np.full((len(source), longest + 1), bos, np.int32)
    ends = np.full(len(source), longest, np.int64)
    open_rows = np.arange(len(source))
    for t in range(longest):
        logits = finite(
            model.decode(memory[beside(memory, open_rows)], answers[open_rows, : t + 1], lengths[open_rows])[:, -1]
        )
        logits[:, never] = -np.inf
        answers[open_rows, t + 1] = logits.argmax(axis=-1)
        ended = answers[open_rows, t + 1] == eos
        ends[open_rows[ended]] = t
        open_rows = open_rows[~ended]
        if not len(open_rows):
            break
    return [row[1 : end + 1] for row, end in zip(answers, ends, strict=True)]


def beam_search(model: Any, source: np.ndarray, longest: int, beam: int, penalty: float) -> np.ndarray:
    """The best of `beam` hypotheses by log-likelihood / ((5 + length) / 6)^penalty (`eq:beam`, Wu et al. 2016)."""
    lengths = np.array([len(source)], np.int32)
    memory = model.encode(np.asarray(source, np.int32)[None], lengths)
    paths, scores = np.full((1, 1), BOS, np.int32), np.zeros(1)
    finished: list[tuple[float, np.ndarray]] = []
    for t in range(longest):
        rows = len(paths)
        logits = finite(
            model.decode(memory[beside(memory, np.zeros(rows, np.int64))], paths, np.repeat(lengths, rows))[:, -1]
        )
        logits[:, NEVER] = -np.inf
        totals = scores[:, None] + log_softmax(logits.astype(np.float64))
        best = np.argsort(-totals, axis=None, kind="stable")[: 2 * beam]
        rows_of, tokens = np.unravel_index(best, totals.shape)
        values = totals[rows_of, tokens]
        ended = tokens == EOS
        for i in np.flatnonzero(ended[:beam]):  # an end that ranks below the beam is dropped like any other token there
            finished.append((float(values[i]) / length_norm(t + 1, penalty), paths[rows_of[i], 1:]))
        keep = np.flatnonzero(~ended & np.isfinite(values))[:beam]
        if not len(keep):
            break
        # Log-likelihoods only fall: without a penalty, no open hypothesis can overtake a finished one that leads.
        if len(finished) >= beam and max(score for score, _ in finished) >= values[keep[0]] / length_norm(
            t + 1, penalty
        ):
            break
        paths = np.concatenate([paths[rows_of[keep]], tokens[keep, None].astype(np.int32)], axis=1)
        scores = values[keep]
    else:
        finished += [
            (float(value) / length_norm(longest, penalty), path[1:]) for value, path in zip(scores, paths, strict=True)
        ]
    return max(finished, key=lambda pair: pair[0])[1]


def length_norm(length: int, penalty: float) -> float:
    """What a log-likelihood is divided by, so that long answers have no disadvantage: ((5 + length) / 6)^penalty."""
    return float(((5 + length) / 6) ** penalty)


def exact_match(model: Any, batches: Sequence[PairBatch], tokenizer: Tokenizer) -> float:
    """Share of the pairs that greedy search answers exactly, end included."""
    right = total = 0
    for batch in batches:
        answers = greedy(model, batch.source, batch.source_lengths, batch.inputs.shape[1])
        for answer, targets in zip(answers, batch.targets, strict=True):
            expected = targets[targets >= 0][:-1]
            right += bool(np.array_equal(answer, expected))
            total += 1
    return right / max(1, total)
