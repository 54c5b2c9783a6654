"""What one attention layer of a stream carries from one pass to the next."""

from __future__ import annotations

from typing import Any

from minilong.memory import Memory, Segments


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

    @property
    def bytes(self) -> int:
        """Memory that the state holds."""
        return self.memory.bytes(self.state)
