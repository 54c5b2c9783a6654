"""What a run writes, to show what it has learnt."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.backend import beside
from minilong.data.batches import IGNORE, MaskedBatch, PairBatch
from minilong.data.numbering import Numbering, numbering_of
from minilong.data.spans import restore
from minilong.objectives import next_sentence_accuracy
from minilong.train.config import FILLING_TASKS, RECALL_TASKS
from minilong.train.generate import generate
from minilong.train.loaded import LoadedRun, finite
from minilong.train.source import Source, loss_by_frequency, open_source, sample_row, sample_source
from minilong.train.translate import greedy, translate


def sample(loaded: LoadedRun, length: int, prompt: str | None = None) -> str:
    """A continuation of the prompt, `length` tokens; or the answer to the prompt, else to a held-out source."""
    if loaded.config.task == "lm":
        return (prompt or "") + "".join(generate(loaded, prompt or "", length=length))
    if loaded.config.task in RECALL_TASKS:
        return _answered(loaded)
    if loaded.config.task in FILLING_TASKS:
        return _filled(loaded)
    source = sample_source(loaded.config) if prompt is None else prompt
    return f"{source}\n-> {translate(loaded, [source])[0]}"


def _answered(loaded: LoadedRun) -> str:
    """A held-out row of a recall task, and under it the likeliest token where one is asked for."""
    batch = sample_row(loaded.config, loaded.tokenizer)
    asked = np.flatnonzero(batch.targets[0] != IGNORE)
    told = finite(loaded.model(batch.inputs)[0])[asked].argmax(axis=-1)
    answers = [loaded.tokenizer.decode([token]) for token in told]
    right = loaded.tokenizer.decode(batch.targets[0, asked])
    shown = "".join(answers)
    return f"{loaded.tokenizer.decode(batch.inputs[0])}\n-> {shown}" + (f" (right: {right})" if shown != right else "")


def _filled(loaded: LoadedRun) -> str:
    """A held-out row with blanks, the same as the model fills it; and what frequencies alone would reach."""
    source = open_source(loaded.config, loaded.tokenizer)
    batch = source.validation[0]
    numbering = numbering_of(source.tokenizer, spans=isinstance(batch, PairBatch))
    found = _spans(loaded.model, numbering, batch) if isinstance(batch, PairBatch) else _masks(loaded.model, batch)
    row, told = map(numbering.of_ids, found)
    if isinstance(batch, PairBatch):
        told = restore(row, told, numbering.first)
    lines = [_blanked(numbering, row), f"-> {numbering.decode(told)}", _measures(loaded, source)]
    return "\n".join(lines)


def _masks(model: Any, batch: MaskedBatch) -> tuple[np.ndarray, np.ndarray]:
    """The first row as the model reads it, and with its likeliest tokens where one was chosen."""
    row = batch.inputs[0, : batch.lengths[0]].copy()
    hidden = model.hidden(row[None], types=None if batch.types is None else batch.types[:1, : len(row)])
    places = np.flatnonzero(batch.targets[0] != IGNORE)
    told = row.copy()
    told[places] = finite(model.logits(hidden[0][beside(hidden, places)])).argmax(axis=-1)
    return row, told


def _spans(model: Any, numbering: Numbering, batch: PairBatch) -> tuple[np.ndarray, np.ndarray]:
    """The first source, and the likeliest spans."""
    row, of = batch.source[0, : batch.source_lengths[0]], numbering.tokenizer
    never = tuple({of.pad, of.bos, of.separator} - {of.eos})
    lengths = batch.source_lengths[:1]
    return row, greedy(model, row[None], lengths, batch.inputs.shape[1], bos=of.bos, eos=of.eos, never=never)[0]


def _blanked(numbering: Numbering, row: np.ndarray) -> str:
    """The text of a row, with ___ where a mark stands."""
    ends = np.flatnonzero(row >= numbering.first)
    parts = np.split(row, ends)
    return " ___".join(numbering.decode(part[part < numbering.first]) for part in parts)


def _measures(loaded: LoadedRun, source: Source) -> str:
    """What the validation loss is to be compared with; and for pairs, how often neighbours are told from strangers."""
    line = f"by frequency alone: {loss_by_frequency(source):.4f} nats/token"
    if loaded.config.task == "mlm" and loaded.config.model.pooler:
        line += f"; next sentences: {100 * next_sentence_accuracy(loaded.model, source.validation):.1f}% right"
    return line
