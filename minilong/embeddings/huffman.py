"""The Huffman tree of a vocabulary: a short code for a common word, each bit a decision at an inner node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Huffman:
    """For each word the inner nodes from the root on and the branch taken at each: `eq:huffman`.

    nodes, branches: (V, longest) int32, filled with 0 behind a word's own; lengths (V,). The root is the last of the
    V - 1 inner nodes. A vocabulary of one word has no node, and its code is empty.
    """

    nodes: np.ndarray
    branches: np.ndarray
    lengths: np.ndarray

    @property
    def inner(self) -> int:
        """Number of inner nodes."""
        return len(self.lengths) - 1

    @property
    def real(self) -> np.ndarray:
        """(V, longest) where a code has a bit."""
        mark: np.ndarray = np.arange(self.nodes.shape[1]) < self.lengths[:, None]
        return mark


def huffman(counts: np.ndarray) -> Huffman:
    """The tree that joins the two rarest again and again; of equals, words before nodes, and the later word first."""
    size = len(counts)
    order = np.argsort(-np.asarray(counts), kind="stable")
    leaves = [int(counts[i]) for i in order]
    weight: list[int] = []
    parent, branch = np.zeros(2 * size - 1, np.int64), np.zeros(2 * size - 1, np.int8)
    leaf, node = size - 1, 0
    for new in range(size - 1):
        total = 0
        for side in (0, 1):
            if leaf >= 0 and (node >= new or leaves[leaf] <= weight[node]):
                chosen, total, leaf = int(order[leaf]), total + leaves[leaf], leaf - 1
            else:
                chosen, total, node = size + node, total + weight[node], node + 1
            parent[chosen], branch[chosen] = size + new, side
        weight.append(total)
    return _paths(parent, branch, size)


def _paths(parent: np.ndarray, branch: np.ndarray, size: int) -> Huffman:
    """Codes from the tree, all words a step up at a time."""
    root = 2 * size - 2
    at, steps = np.arange(size), []
    lengths = np.zeros(size, np.int32)
    while (going := at != root).any() and size > 1:
        steps.append((np.where(going, parent[at] - size, 0), np.where(going, branch[at], 0)))
        lengths += going
        at = np.where(going, parent[at], root)
    longest = len(steps)
    nodes, branches = np.zeros((size, longest), np.int32), np.zeros((size, longest), np.int32)
    for up, (inner, side) in enumerate(steps):  # from the leaf on: the place counts from the other end
        rows = np.flatnonzero(lengths > up)
        nodes[rows, lengths[rows] - 1 - up] = inner[rows]
        branches[rows, lengths[rows] - 1 - up] = side[rows]
    return Huffman(nodes, branches, lengths)
