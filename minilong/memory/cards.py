"""The capability cards of all memories, by name: what a reader compares before choosing one."""

from __future__ import annotations

from types import MappingProxyType

from minilong.memory.base import Card
from minilong.memory.cache import Full
from minilong.memory.compressive import Compressive, Compressor
from minilong.memory.eviction import HeavyHitters, SnapKV
from minilong.memory.quantised import Quantised
from minilong.memory.segments import Segments
from minilong.memory.window import Window

CARDS: MappingProxyType[str, Card] = MappingProxyType(
    {
        "full": Full().card,
        "window": Window(64).card,
        "window and sinks": Window(64, sinks=4).card,
        "segments": Segments(64, 64).card,
        "compressive": Compressive(64, 64, 64, Compressor("mean", 4)).card,
        "heavy hitters": HeavyHitters(64).card,
        "snapkv": SnapKV(64).card,
        "quantised": Quantised(4).card,
    }
)
"""Cards of typical sizes. A memory with no room (`memory=0`) says so on its own `card`."""
