"""Streaming memories: what a layer keeps of a stream that is longer than its memory. Read `base.py` first."""

from minilong.memory.base import Card, Memory, Rows, State
from minilong.memory.cache import CacheState, Full
from minilong.memory.cards import CARDS
from minilong.memory.compressive import COMPRESSORS, Compressive, Compressor, reconstruction_loss
from minilong.memory.segments import Segments, SegmentState
from minilong.memory.window import Window

__all__ = [
    "CARDS", "COMPRESSORS", "CacheState", "Card", "Compressive", "Compressor", "Full", "Memory", "Rows",
    "SegmentState", "Segments", "State", "Window", "reconstruction_loss",
]  # fmt: skip
