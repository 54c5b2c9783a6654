"""What one attention layer of a stream carries from one pass to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from minilong.backend import Array
from minilong.memory import Memory, Segments

if TYPE_CHECKING:
    from minilong.nn.scheme import Scheme
    from minilong.nn.view import View


class Past:
    """A layer's memory and its state. `extend` writes new rows and gives all that they may look at."""

    __slots__ = ("memory", "state")

    def __init__(self, memory: Memory) -> None:
        self.memory, self.state = memory, memory.init()

    @property
    def of_inputs(self) -> bool:
        """Whether the layer's inputs are kept, from which keys and values are made anew; else these two."""
        return isinstance(self.memory, Segments)

    def extend(self, *rows: Any) -> tuple[Any, ...]:
        """Write rows (..., t, d), and read what the memory shows to them: the new rows are the last."""
        self.state = self.memory.write(self.state, rows)
        read: tuple[Any, ...] = self.memory.read(self.state)
        return read

    def write(self, *rows: Any) -> None:
        """Write rows (..., t, d), to be read by `parts`."""
        self.state = self.memory.write(self.state, rows)

    def parts(self) -> Iterator[tuple[Any, ...]]:
        """What `extend` would give, a part at a time."""
        return self.memory.parts(self.state)

    def by_parts(self, view: View) -> bool:
        """Whether keys can be met part by part, and that saves memory."""
        return self.memory.in_parts and view.late is None and view.relative is None and view.mask.segments is None

    def heed(self, q: Array, scale: float) -> None:
        """Tell the memory of the queries (b, h, t, d) that have met what `extend` gave."""
        self.state = self.memory.heed(self.state, q, scale)

    @property
    def bytes(self) -> int:
        """Memory that the state holds."""
        return self.memory.bytes(self.state)


def check_memory(memory: Memory, scheme: Scheme, *, ragged: bool) -> None:
    """ValueError where the heads' choice of rows cannot be told to the position scheme, or to the rows of a batch."""
    if not memory.scored:
        return
    name = type(memory).__name__
    if scheme.name in ("alibi", "t5", "xl"):
        raise ValueError(
            f"{name} keeps other rows in each head, and {scheme.name} positions add to each score by its distance; "
            "take rotary positions, or another memory"
        )
    if scheme.scaling.by_length:
        raise ValueError(
            f"{name} keeps other rows in each head, and dynamic scaling turns all keys anew; take pi, ntk or yarn"
        )
    if ragged:
        raise ValueError(f"{name} keeps other rows in each head, so texts of one batch must begin together")
