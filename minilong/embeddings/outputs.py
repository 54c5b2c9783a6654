"""The two ways to predict a word from a vector without touching the whole vocabulary.

Negative sampling: the word against drawn ones, which all centres of a block share. Hierarchical softmax: the decisions
on the word's path in the Huffman tree. Both turn a block of vectors into `logistic`'s vectors, targets and weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minilong.embeddings.blocks import Blocks
from minilong.embeddings.huffman import Huffman
from minilong.embeddings.logistic import logistic, logistic_loss
from minilong.embeddings.noise import Noise
from minilong.embeddings.rows import RowGradient


class Output(Protocol):
    """Predicts centres from vectors; `table` (rows, width) is what it learns."""

    def draw(self, blocks: int, rng: np.random.Generator) -> np.ndarray:
        """What a batch needs of chance."""
        ...

    def from_contexts(
        self, x: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        """Each centre from each of its contexts alone, x (b, c + 2w, d): cotangent, mass of each, and the table's."""
        ...

    def from_vectors(
        self, h: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        """Each centre from a vector of its own, h (b, c, d): cotangent, mass of each, and the table's."""
        ...

    def loss(self, h: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray, *, contexts: bool) -> float:
        """The sum of the losses in nats."""
        ...


@dataclass(frozen=True, eq=False)
class NegativeSampling:
    """`negatives` wrong words for each prediction, `eq:negative-sampling`, of `shared` words drawn for each block.

    Each prediction meets all words drawn for its block but its own centre, with weight negatives / shared: the loss
    has the expectation that it would have if each prediction drew its own.
    """

    noise: Noise
    negatives: int = 5
    shared: int = 32

    def draw(self, blocks: int, rng: np.random.Generator) -> np.ndarray:
        """Words (b, shared)."""
        return self.noise.draw(rng, (blocks, self.shared))

    def from_contexts(
        self, x: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        """As in `Output`."""
        return self._gradient(x, table, blocks, drawn, blocks.near)

    def from_vectors(
        self, h: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        """As in `Output`."""
        return self._gradient(h, table, blocks, drawn, _one_each(blocks))

    def loss(self, h: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray, *, contexts: bool) -> float:
        """As in `Output`."""
        rows, target, weight = self._meetings(blocks, drawn, blocks.near if contexts else _one_each(blocks))
        return logistic_loss(h, table[rows], target, weight)

    def _meetings(
        self, blocks: Blocks, drawn: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the table (b, c + shared), their targets, and weights (b, m, c + shared) from `wanted` (b, m, c)."""
        rows = np.concatenate([blocks.centres, drawn], axis=1)
        target = np.zeros(rows.shape[1], np.float32)
        target[: blocks.centres.shape[1]] = 1.0
        others = (blocks.centres[:, :, None] != drawn[:, None, :]).astype(wanted.dtype)
        others *= self.negatives / self.shared
        return rows, target, np.concatenate([wanted, wanted @ others], axis=2)

    def _gradient(
        self, x: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        rows, target, weight = self._meetings(blocks, drawn, wanted)
        dx, do = logistic(x, table[rows], target, weight)
        met = RowGradient(rows.ravel(), do.reshape(-1, table.shape[1]), weight.sum(axis=1).ravel())
        return dx, weight.sum(axis=2), met


@dataclass(frozen=True, eq=False)
class HierarchicalSoftmax:
    """The decisions at the inner nodes of the tree, `eq:hierarchical-softmax`; branch 0 is the sigmoid's side."""

    tree: Huffman

    def draw(self, blocks: int, rng: np.random.Generator) -> np.ndarray:
        """Nothing."""
        return np.zeros((blocks, 0), np.int32)

    def from_contexts(
        self, x: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        """As in `Output`; each centre meets the 2 window + 1 contexts around it, of which its own place counts 0."""
        dx, mass, met = self._gradient(_windows(x, blocks), table, blocks, blocks.near_windows())
        width, size = 2 * blocks.window + 1, blocks.centres.shape[1]
        back, heavy = np.zeros_like(x), np.zeros(x.shape[:2], mass.dtype)
        for at in range(width):
            back[:, at : at + size] += dx[:, :, at]
            heavy[:, at : at + size] += mass[:, :, at]
        return back, heavy, met

    def from_vectors(
        self, h: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        """As in `Output`."""
        dx, mass, met = self._gradient(h[:, :, None], table, blocks, blocks.real[:, :, None])
        return dx[:, :, 0], mass[:, :, 0], met

    def loss(self, h: np.ndarray, table: np.ndarray, blocks: Blocks, drawn: np.ndarray, *, contexts: bool) -> float:
        """As in `Output`."""
        x, wanted = (
            (_windows(h, blocks), blocks.near_windows()) if contexts else (h[:, :, None], blocks.real[:, :, None])
        )
        rows, target, weight = self._meetings(blocks, wanted)
        return logistic_loss(x, table[rows], target, weight)

    def _meetings(self, blocks: Blocks, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nodes (b, c, longest), targets (b, c, 1, longest), weights (b, c, m, longest) from `wanted` (b, c, m)."""
        longest = int(np.max(self.tree.lengths[blocks.centres], initial=0))
        nodes = self.tree.nodes[blocks.centres][..., :longest]
        target = 1.0 - self.tree.branches[blocks.centres][..., None, :longest].astype(np.float32)
        real = self.tree.real[blocks.centres][..., None, :longest].astype(np.float32)
        return nodes, target, wanted[..., None] * real

    def _gradient(
        self, x: np.ndarray, table: np.ndarray, blocks: Blocks, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, RowGradient]:
        rows, target, weight = self._meetings(blocks, wanted)
        dx, do = logistic(x, table[rows], target, weight)
        real = weight.sum(axis=2)
        kept = np.flatnonzero(real.ravel())  # filled-up ends of short codes would count as the node 0
        met = RowGradient(rows.ravel()[kept], do.reshape(-1, table.shape[1])[kept], real.ravel()[kept])
        return dx, weight.sum(axis=3), met


def _one_each(blocks: Blocks) -> np.ndarray:
    """(b, c, c): each vector predicts its own centre."""
    size = blocks.centres.shape[1]
    each: np.ndarray = np.eye(size, dtype=np.float32) * blocks.real[:, :, None]
    return each


def _windows(x: np.ndarray, blocks: Blocks) -> np.ndarray:
    """x (b, c + 2w, d) as a view (b, c, 2w + 1, d) of the contexts around each centre."""
    view: np.ndarray = np.swapaxes(sliding_window_view(x, 2 * blocks.window + 1, axis=1), 2, 3)
    return view
