"""Which vectors predict a word: skip-gram, CBOW, and the paragraph vectors' ways with a vector of the document.

A method takes a batch of blocks to gradients of rows: of `words` (one row a word), of `documents` (one a document),
and of `outputs` (what the predictions are compared with).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minilong.embeddings.blocks import Blocks
from minilong.embeddings.outputs import Output
from minilong.embeddings.rows import RowGradient

Tables = Mapping[str, np.ndarray]


class Method(Protocol):
    """A way to predict words; `outputs` is learnt beside its own tables."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of what it learns."""
        ...

    windows: ClassVar[str]
    """`shrunk`: drawn for each centre; `full`: all of one length; `none`: the order of words does not matter."""

    def gradients(self, tables: Tables, blocks: Blocks, drawn: np.ndarray, output: Output) -> dict[str, RowGradient]:
        """Gradients of the summed loss, by table."""
        ...

    def loss(self, tables: Tables, blocks: Blocks, drawn: np.ndarray, output: Output) -> tuple[float, float]:
        """The summed loss in nats, and how many predictions it sums."""
        ...

    def output_width(self, width: int, window: int) -> int:
        """Components of a row of `outputs`."""
        ...


class SkipGram:
    """The vector of each word near a centre predicts the centre, `eq:skip-gram`."""

    tables: ClassVar[tuple[str, ...]] = ("words",)
    windows: ClassVar[str] = "shrunk"

    def gradients(self, tables: Tables, blocks: Blocks, drawn: np.ndarray, output: Output) -> dict[str, RowGradient]:
        """As in `Method`."""
        x = tables["words"][blocks.contexts]
        dx, mass, met = output.from_contexts(x, tables["outputs"], blocks, drawn)
        return {"words": _rows(blocks.contexts, dx, mass), "outputs": met}

    def loss(self, tables: Tables, blocks: Blocks, drawn: np.ndarray, output: Output) -> tuple[float, float]:
        """As in `Method`."""
        x = tables["words"][blocks.contexts]
        return output.loss(x, tables["outputs"], blocks, drawn, contexts=True), float(blocks.near.sum())

    def output_width(self, width: int, window: int) -> int:
        """As in `Method`."""
        return width


class _Hidden(ABC):
    """Methods that make one vector for each centre, and predict with that."""

    @abstractmethod
    def hidden(self, tables: Tables, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (b, c, e), and which centres have one (b, c)."""

    @abstractmethod
    def back(self, dh: np.ndarray, mass: np.ndarray, blocks: Blocks) -> dict[str, RowGradient]:
        """Gradients of rows from the cotangent of the vectors and the mass of each."""

    def gradients(self, tables: Tables, blocks: Blocks, drawn: np.ndarray, output: Output) -> dict[str, RowGradient]:
        """As in `Method`."""
        h, real = self.hidden(tables, blocks)
        blocks = blocks.only(real)
        dh, mass, met = output.from_vectors(h, tables["outputs"], blocks, drawn)
        return {**self.back(dh, mass, blocks), "outputs": met}

    def loss(self, tables: Tables, blocks: Blocks, drawn: np.ndarray, output: Output) -> tuple[float, float]:
        """As in `Method`."""
        h, real = self.hidden(tables, blocks)
        blocks = blocks.only(real)
        return output.loss(h, tables["outputs"], blocks, drawn, contexts=False), float(real.sum())

    def output_width(self, width: int, window: int) -> int:
        """As in `Method`."""
        return width


class Mean(_Hidden):
    """The mean of the words near a centre predicts it (CBOW, `eq:cbow`); with `document`, its vector is one more of
    them (PV-DM, `eq:paragraph-memory`)."""

    windows: ClassVar[str] = "shrunk"

    def __init__(self, *, document: bool) -> None:
        self.document = document
        self.tables = ("words", "documents") if document else ("words",)

    def hidden(self, tables: Tables, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """As in `_Hidden`."""
        share, count = self._shares(blocks)
        h = share.swapaxes(1, 2) @ tables["words"][blocks.contexts]
        if self.document:
            h += tables["documents"][np.maximum(blocks.units, 0)] / count[..., None]
        return h, blocks.real * (count > 0)

    def back(self, dh: np.ndarray, mass: np.ndarray, blocks: Blocks) -> dict[str, RowGradient]:
        """As in `_Hidden`."""
        share, count = self._shares(blocks)
        heavy = (share @ mass[..., None])[..., 0]
        found = {"words": _rows(blocks.contexts, share @ dh, heavy)}
        if self.document:
            found["documents"] = _document_rows(dh / count[..., None], mass / count, blocks)
        return found

    def _shares(self, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """What each context counts in each centre's mean (b, c + 2w, c), and of how many vectors that is (b, c)."""
        count = blocks.near.sum(axis=1) + np.float32(self.document)
        return blocks.near / np.maximum(count, 1)[:, None, :], count


class Concatenation(_Hidden):
    """The document's vector and those of the words near a centre, each at its place, side by side: PV-DM's other form,
    `eq:paragraph-concatenation`. The document takes the centre's own place; places beyond the document are zero."""

    tables: ClassVar[tuple[str, ...]] = ("words", "documents")
    windows: ClassVar[str] = "full"

    def hidden(self, tables: Tables, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """As in `_Hidden`."""
        span = 2 * blocks.window + 1
        around = sliding_window_view(tables["words"][blocks.contexts], span, axis=1).swapaxes(2, 3)
        h = around * blocks.near_windows()[..., None]
        h[:, :, blocks.window] = tables["documents"][np.maximum(blocks.units, 0)]
        return h.reshape(*h.shape[:2], -1), blocks.real

    def back(self, dh: np.ndarray, mass: np.ndarray, blocks: Blocks) -> dict[str, RowGradient]:
        """As in `_Hidden`."""
        span, size = 2 * blocks.window + 1, blocks.centres.shape[1]
        parts = dh.reshape(*dh.shape[:2], span, -1)
        near = blocks.near_windows()
        dx = np.zeros((len(blocks), size + span - 1, parts.shape[3]), dh.dtype)
        heavy = np.zeros(dx.shape[:2], mass.dtype)
        for at in range(span):
            dx[:, at : at + size] += parts[:, :, at] * near[:, :, at, None]
            heavy[:, at : at + size] += mass * near[:, :, at]
        document = _document_rows(parts[:, :, blocks.window], mass, blocks)
        return {"words": _rows(blocks.contexts, dx, heavy), "documents": document}

    def output_width(self, width: int, window: int) -> int:
        """As in `Method`."""
        return width * (2 * window + 1)


class BagOfWords(_Hidden):
    """The document's vector alone predicts each of its words, PV-DBOW, `eq:paragraph-bag`."""

    tables: ClassVar[tuple[str, ...]] = ("documents",)
    windows: ClassVar[str] = "none"

    def hidden(self, tables: Tables, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """As in `_Hidden`."""
        return tables["documents"][np.maximum(blocks.units, 0)], blocks.real

    def back(self, dh: np.ndarray, mass: np.ndarray, blocks: Blocks) -> dict[str, RowGradient]:
        """As in `_Hidden`."""
        return {"documents": _document_rows(dh, mass, blocks)}


def _rows(rows: np.ndarray, values: np.ndarray, mass: np.ndarray) -> RowGradient:
    return RowGradient(rows.ravel(), values.reshape(rows.size, -1), mass.ravel())


def _document_rows(values: np.ndarray, mass: np.ndarray, blocks: Blocks) -> RowGradient:
    """Of the centres that exist: the others belong to no document."""
    kept = np.flatnonzero(blocks.real.ravel())
    flat = values.reshape(blocks.real.size, -1)
    return RowGradient(blocks.units.ravel()[kept], flat[kept], mass.ravel()[kept])
