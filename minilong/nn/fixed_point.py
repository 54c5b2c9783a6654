"""Fixed-point streams that can be run backward without an error, and the bits that momentum would lose.

A floating-point sum cannot be undone: (x + f) - f is not x. A sum of integers can. So the activations that a reversible
stack carries are integers, x = X 2^-F with 64-bit X: a branch reads the float nearest to x, its output is rounded to
the grid and added, and the same output, subtracted, gives X again to the last bit.

Momentum also multiplies by gamma = n/d < 1, which drops log2(d/n) bits of each velocity. They go to a **bit store**, a
non-negative integer beside each element (`eq:bit-store`; Maclaurin, Duvenaud and Adams 2015): the remainder of the
velocity by d is pushed, a digit of base n is popped in its place. When the next push could overflow, the store is set
aside and a new one begun, so depth is not limited.

All updates go through memory in pieces that fit a processor's cache, and in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from minilong.backend import Array, array_module
from minilong.errors import Diverged

FRACTION = {"float32": 32, "float64": 40}
"""Bits after the point, by the type of the activations: finer than that type from 2^-8 and from 2^12 on."""
LIMIT = 2**61
"""Magnitude that no integer here may reach: a sum of two velocities and a position then fits into 64 bits."""
PIECE = 16_384
DENOMINATOR = 1000


def ratio(gamma: float) -> tuple[int, int]:
    """gamma as n/d in lowest terms with d at most 1000. ValueError unless 0 <= n/d < 1."""
    exact = Fraction(gamma).limit_denominator(DENOMINATOR) if 0 <= gamma < 1 else Fraction(1)
    if exact >= 1:
        raise ValueError(f"momentum {gamma} is not in [0, 1), or so near to 1 that no fraction over 1000 lies between")
    return exact.numerator, exact.denominator


def store_words(depth: int, gamma: float) -> int:
    """64-bit words per element that the bit store has set aside after `depth` branches, beside the one in use."""
    n, d = ratio(gamma)
    if n == 0:
        return depth
    words, count = 0, 1
    for _ in range(depth):
        words, count = (words + 1, 1) if count * d >= 2**63 else (words, count)
        count = -(-count * d // n)
    return words


class Grid:
    """The fixed-point grid for arrays of one shape and type (`eq:fixed-point`); rounds what a branch returns.

    Numbers beyond its range raise Diverged. A GPU would have to be waited for to know: there all that is read from then
    on is NaN, which the loss shows.
    """

    def __init__(self, x: Array) -> None:
        name = str(x.dtype)
        if name not in FRACTION:
            raise TypeError(f"reversible depth needs float32 or float64 activations, not {name}")
        self.xp, self.shape, self.dtype, self.size = array_module(x), x.shape, x.dtype, x.size
        self.fraction = FRACTION[name]
        self.waits = self.xp is np
        self.piece = PIECE if self.waits else max(1, self.size)
        self.poison: Array = None if self.waits else self.xp.zeros((), self.dtype)

    def zeros(self) -> Array:
        """Integers 0, one for each element, in one row."""
        return self.xp.zeros(self.size, np.int64)

    def read(self, values: Array, halvings: int = 0) -> Array:
        """The floats nearest to the numbers that the integers stand for (divided by 2^halvings), in a new array."""
        out = self.xp.empty(self.size, self.dtype)
        unit = 2.0 ** -(self.fraction + halvings)
        for part in self.pieces():
            out[part] = values[part]
            out[part] *= unit
        if self.poison is not None:
            out += self.poison
        return out.reshape(self.shape)

    def rounded(self, delta: Array, share: float = 1.0) -> Iterator[tuple[slice, Array]]:
        """Piece by piece, where it lies and the integers nearest to share delta 2^F. Diverged beyond the range."""
        if delta.shape != self.shape or delta.dtype != self.dtype:
            wanted = f"{self.dtype} {self.shape}"
            raise TypeError(f"a branch returned {delta.dtype} {delta.shape} for activations {wanted}")
        flat, factor = delta.reshape(-1), share * 2.0**self.fraction
        floats = self.xp.empty(min(self.piece, self.size), self.dtype)
        integers = self.xp.empty(min(self.piece, self.size), np.int64)
        for part in self.pieces():
            f, i = floats[: part.stop - part.start], integers[: part.stop - part.start]
            with np.errstate(over="ignore", invalid="ignore"):
                self.xp.multiply(flat[part], factor, out=f)
            self.xp.rint(f, out=f)
            if self.waits:
                if not (f.min() > -LIMIT and f.max() < LIMIT):  # a NaN as well
                    self.overflow()
            else:
                inside = self.xp.abs(f) < LIMIT
                self.require(inside.all())
                f[...] = self.xp.where(inside, f, 0.0)
            i[...] = f
            yield part, i

    def check(self, *values: Array) -> None:
        """Diverged where an integer has reached the limit."""
        if not self.size:
            return
        if self.waits:
            if not all(v.max() < LIMIT and v.min() > -LIMIT for v in values):
                self.overflow()
        else:
            for v in values:
                self.require((v.max() < LIMIT) & (v.min() > -LIMIT))

    def require(self, condition: Array) -> None:
        """Make all that is read from here on NaN unless a condition holds, which is on the device."""
        self.poison = self.poison + self.xp.where(condition, 0.0, np.nan).astype(self.dtype)

    def pieces(self) -> Iterator[slice]:
        """Consecutive slices: of as many elements as a processor's cache holds, or on a GPU of all."""
        for start in range(0, self.size, self.piece):
            yield slice(start, min(start + self.piece, self.size))

    def overflow(self) -> None:
        """Raise Diverged."""
        most = float(LIMIT) * 2.0**-self.fraction
        raise Diverged(
            f"the residual stream left the range of fixed point, +-{most:.2g}; "
            "lower the learning rate, or store the activations (depth 'stored' or 'checkpoint')"
        )


class TwoStreams:
    """The two streams of a reversible residual network, in fixed point (`eq:reversible-stack`; Gomez et al. 2017).

    Both begin as x. A branch reads `reads` and is added to `writes`; then the two change places.
    """

    def __init__(self, x: Array, *, forget: bool = False) -> None:
        del forget  # there is nothing to keep in any case
        self.grid = Grid(x)
        self.writes, self.reads = self.grid.zeros(), self.grid.zeros()
        for part, i in self.grid.rounded(x):
            self.writes[part] = i
            self.reads[part] = i

    def read(self) -> Array:
        """What the next branch sees (or, after `rewind`, saw)."""
        return self.grid.read(self.reads)

    def push(self, delta: Array) -> None:
        """Take in what the branch returned."""
        for part, i in self.grid.rounded(delta):
            self.writes[part] += i
        self.grid.check(self.writes)
        self.writes, self.reads = self.reads, self.writes

    def rewind(self) -> None:
        """Go back to what the last branch saw."""
        self.writes, self.reads = self.reads, self.writes

    def pop(self, delta: Array) -> None:
        """Undo `push`, given the same delta; after `rewind`."""
        for part, i in self.grid.rounded(delta):
            self.writes[part] -= i

    def value(self) -> Array:
        """The mean of the two streams."""
        return self.grid.read(self.writes + self.reads, halvings=1)

    def back_at_start(self) -> Array:
        """Whether the streams are equal, as they began."""
        return (self.writes == self.reads).all()


class MomentumState:
    """Position x and velocity v of a momentum stack, in fixed point, with the bit store (`eq:momentum-exact`).

    v <- gamma v + (1 - gamma) delta, x <- x + v. `forget`: set-aside words are dropped, for inference. The values do
    not depend on that: a word that was set aside is not read again on the way forward.
    """

    def __init__(self, x: Array, gamma: float, *, forget: bool = False) -> None:
        self.grid = Grid(x)
        self.n, self.d = ratio(gamma)
        self.share = (self.d - self.n) / self.d
        self.forget = forget
        self.x, self.v, self.store = self.grid.zeros(), self.grid.zeros(), self.grid.zeros()
        for part, i in self.grid.rounded(x):
            self.x[part] = i
        self.grid.check(self.x)
        self.count = 1
        """How many values the store can have at most: it holds log2(count) bits."""
        self.step = 0
        self.aside: list[tuple[int, Array]] = []
        """Words of the store that are full, each with the step before which it was set aside."""

    @property
    def words(self) -> int:
        """64-bit words per element that the store has set aside."""
        return len(self.aside)

    def read(self) -> Array:
        """What the next branch sees (or, after `rewind`, saw)."""
        return self.grid.read(self.x)

    def push(self, delta: Array) -> None:
        """Take in what the branch returned."""
        self._make_room()
        for part, i in self.grid.rounded(delta, self.share):
            v = self.v[part]
            if self.n:
                exchange(v, self.store[part], self.d, self.n)
            v += i
            self.x[part] += v
        self.grid.check(self.x, self.v)
        self.step += 1

    def rewind(self) -> None:
        """Go back to the position that the last branch saw."""
        for part in self.grid.pieces():
            self.x[part] -= self.v[part]

    def pop(self, delta: Array) -> None:
        """Undo `push`, given the same delta; after `rewind`."""
        for part, i in self.grid.rounded(delta, self.share):
            v = self.v[part]
            v -= i
            if self.n:
                exchange(v, self.store[part], self.n, self.d)
        self.step -= 1
        if self.aside and self.aside[-1][0] == self.step:
            word = self.aside.pop()[1]
            if self.n:
                self.store = word
            else:
                self.v = word

    def value(self) -> Array:
        """The position."""
        return self.grid.read(self.x)

    def back_at_start(self) -> Array:
        """Whether velocity and store are zero, as they began."""
        return ~(self.v.any() | self.store.any())

    def _make_room(self) -> None:
        """Set a word aside if the next push might not fit into it."""
        if self.n == 0:  # gamma 0 forgets the velocity as a whole: it is the word
            if not self.forget:
                self.aside.append((self.step, self.v))
            self.v = self.grid.zeros()
            return
        if self.count * self.d >= 2**63:
            if not self.forget:
                self.aside.append((self.step, self.store))
            self.store, self.count = self.grid.zeros(), 1
        self.count = -(-self.count * self.d // self.n)


def exchange(v: Array, store: Array, divisor: int, factor: int) -> None:
    """v <- v factor / divisor, in place and without loss: remainders move between v and the store (`eq:bit-store`).

    The remainder of v by the divisor is pushed onto the store, and a digit of base `factor` is popped from it. With
    divisor and factor exchanged this is its own inverse. Division rounds towards minus infinity, so that a remainder
    of a negative v is not negative: truncation would lose it.
    """
    quotient = v // divisor
    v -= quotient * divisor
    store *= divisor
    store += v
    quotient *= factor
    rest = store // factor
    quotient += store
    quotient -= rest * factor
    v[...] = quotient
    store[...] = rest


def predicted_bits(depth: int, gamma: float) -> float:
    """Bits per element that `depth` multiplications by gamma lose: depth log2(1 / gamma)."""
    n, d = ratio(gamma)
    return depth * float(np.log2(d / n)) if n else 64.0 * depth
