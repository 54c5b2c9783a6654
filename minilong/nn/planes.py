"""Low-bit weights laid out for products: integers, scales and least values apart, by panels of outputs.

A file's blocks interleave all that; NumPy widens integers quickly where they lie side by side. So blocks are
rearranged once, in no more memory than they had and a float32 for each run, and a product then widens one panel at a
time, which stays in the processor's cache, multiplies, and forgets it. For a few rows of x, runs are multiplied as
integers and their sums scaled, since sums are fewer than weights: x W is the sum over runs j of s_j (x_j q_j) + m_j
times the sum of x_j (`eq:low-bit-product`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minilong.backend import Array, workspace
from minilong.backend.workers import WORTH, share_out
from minilong.nn.blocks import FORMATS

PANEL = 256
"""Outputs of a panel, at most."""

PIECE = 1 << 18
"""Weights that are widened at a time: a megabyte."""

SHARED = 0.05
"""Nanoseconds for each code and row that a second thread can save: most of the time goes into many short calls, and
between these the threads wait for the interpreter's lock."""

FEW = 4
"""Rows of x for which scaling sums takes less time than scaling weights."""

FOUR, LOW = np.uint8(4), np.uint8(15)


@dataclass(frozen=True, eq=False)
class Planes:
    """A weight (out, in) as planes, with p panels of c outputs and j runs of l inputs; outputs beyond `out` are zero.

    codes: int8 (p, j, l, c), or uint8 (p, j, l / 2, c) where two fit a byte; input i of a run is in the low half, input
    i + l / 2 in the high one. scales, least: float32 (p, j, c). shape: (out, in).
    """

    codes: Array
    scales: Array
    least: Array | None
    shape: tuple[int, int]

    @staticmethod
    def of(blocks: np.ndarray, kind: str) -> Planes:
        """Of rows of blocks (out, bytes)."""
        form = FORMATS[kind]
        out, inner = len(blocks), blocks.shape[1] // form.bytes * form.weights
        panels = -(-out // PANEL)
        width = -(-out // panels // 16) * 16
        runs, half = inner // form.run, form.run // 2
        packed = form.zero is not None
        codes = np.zeros((panels, runs, half if packed else form.run, width), np.uint8 if packed else np.int8)
        scales = np.zeros((panels, runs, width), np.float32)
        least: np.ndarray | None = None
        for p in range(panels):
            piece = blocks[p * width : (p + 1) * width]
            n = len(piece)
            with np.errstate(invalid="ignore", over="ignore"):  # as `decode`
                q, s, m = form.unpack(piece.reshape(-1, form.bytes))
            q, s = q.reshape(n, runs, form.run).transpose(1, 2, 0), s.reshape(n, runs).T
            m = None if m is None else m.reshape(n, runs).T
            if form.zero is not None:
                nibbles = (q + np.int8(form.zero)).view(np.uint8)
                codes[p, :, :, :n] = nibbles[:, :half] | nibbles[:, half:] << FOUR
                if form.zero:
                    m = np.float32(-form.zero) * s
            else:
                codes[p, :, :, :n] = q
            scales[p, :, :n] = s
            if m is not None:
                least = np.zeros_like(scales) if least is None else least
                least[p, :, :n] = m
        return Planes(codes, scales, least, (out, inner))

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(int(a.nbytes) for a in (self.codes, self.scales, self.least) if a is not None)

    def product(self, x: np.ndarray) -> np.ndarray:
        """x W^T: float32 (rows, in) -> (rows, out). Panels of a large weight are shared among the granted threads."""
        panels, _, width = self.scales.shape
        rows = len(x)
        y: np.ndarray = workspace(np, (rows, panels * width), np.float32)
        work = self._few(x, y) if rows <= FEW else self._many(x, y)
        share_out(work, range(panels), None if rows * self.codes.size * SHARED >= WORTH else 1)
        return y[:, : self.shape[0]]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Rows of the weight: integers (n,) -> float32 (n, in)."""
        panel, column = np.divmod(indices, self.scales.shape[2])
        codes = self.codes[panel, :, :, column]
        w = self._widened(codes.reshape(-1, codes.shape[2], 1)).reshape(*codes.shape[:2], -1)
        w *= self.scales[panel, :, column][..., None]
        if self.least is not None:
            w += self.least[panel, :, column][..., None]
        return w.reshape(len(indices), self.shape[1])

    def decode(self) -> np.ndarray:
        """The weight in float32 (out, in)."""
        return self.rows(np.arange(self.shape[0]))

    def _few(self, x: np.ndarray, y: np.ndarray) -> Callable[[Iterator[int]], None]:
        """Runs multiplied as integers, their sums scaled."""
        _, runs, width = self.scales.shape
        own = np.ascontiguousarray(x.reshape(len(x), runs, -1).transpose(1, 0, 2))  # (j, rows, l)
        totals = own.sum(2).T if self.least is not None else None
        step = max(1, PIECE * runs // (x.shape[1] * width))

        def work(panels: Iterator[int]) -> None:
            sums = workspace(np, (runs, len(x), width), np.float32)
            for p in panels:
                part = y[:, p * width : (p + 1) * width]
                for j in range(0, runs, step):
                    np.matmul(own[j : j + step], self._widened(self.codes[p, j : j + step]), out=sums[j : j + step])
                np.multiply(sums, self.scales[p, :, None], out=sums)
                np.add.reduce(sums, 0, out=part)
                if totals is not None and self.least is not None:
                    part += totals @ self.least[p]

        return work

    def _many(self, x: np.ndarray, y: np.ndarray) -> Callable[[Iterator[int]], None]:
        """Panels of weights in float32, one after another."""
        width = self.scales.shape[2]

        def work(panels: Iterator[int]) -> None:
            for p in panels:
                w = self._widened(self.codes[p])
                w *= self.scales[p, :, None]
                if self.least is not None:
                    w += self.least[p, :, None]
                np.matmul(x, w.reshape(-1, width), out=y[:, p * width : (p + 1) * width])

        return work

    def _widened(self, codes: np.ndarray) -> np.ndarray:
        """The integers in float32: (..., c) -> (n, l, c), halves of bytes apart."""
        if codes.dtype == np.int8:
            return codes.astype(np.float32)
        n, half, width = codes.shape
        w: np.ndarray = workspace(np, (n, 2, half, width), np.float32)
        np.copyto(w[:, 0], codes & LOW)
        np.copyto(w[:, 1], codes >> FOUR)
        return w.reshape(n, 2 * half, width)
