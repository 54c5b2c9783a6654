"""How many blocks a kernel gets whose threads stride over its elements."""

from __future__ import annotations

THREADS = 256
BLOCKS = 2048
"""At most so many: enough to fill the largest GPU several times over. Each thread then takes several elements."""


def striding(items: int) -> tuple[int]:
    """The grid for so many items, one a thread at a time."""
    return (min(-(-items // THREADS), BLOCKS),)
