"""Streaming memories: what a layer keeps of a stream that is longer than its memory. Read `base.py` first."""

from minilong.memory.base import Card, Memory, Rows, State
from minilong.memory.cache import CacheState, Full
from minilong.memory.cards import CARDS
from minilong.memory.compressive import COMPRESSORS, Compressive, Compressor, reconstruction_loss
from minilong.memory.eviction import HeavyHitters, ScoredState, SnapKV
from minilong.memory.packing import Packed, encode
from minilong.memory.quantised import Quantised, QuantisedState
from minilong.memory.segments import Segments, SegmentState
from minilong.memory.window import Window

__all__ = [
    "CARDS", "COMPRESSORS", "CacheState", "Card", "Compressive", "Compressor", "Full", "HeavyHitters", "Memory",
    "Packed", "Quantised", "QuantisedState", "Rows", "ScoredState", "SegmentState", "Segments", "SnapKV", "State",
    "Window", "encode", "reconstruction_loss",
]  # fmt: skip
