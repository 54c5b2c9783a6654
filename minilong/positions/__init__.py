"""Positions: how a model knows the order of its tokens."""

from minilong.positions.alibi import alibi, alibi_bias, alibi_slopes
from minilong.positions.dynamic import dynamic_attention
from minilong.positions.layout import half_to_interleaved, interleaved_to_half, to_half, to_interleaved
from minilong.positions.relative import relative_term
from minilong.positions.rotary import rotary, rotary_turns, turned_width
from minilong.positions.scaling import Scaling
from minilong.positions.sinusoidal import cas, cas_at, sinusoidal, sinusoidal_at
from minilong.positions.t5 import BUCKETS, t5_bucket, t5_values

__all__ = [
    "BUCKETS",
    "Scaling",
    "alibi",
    "alibi_bias",
    "alibi_slopes",
    "cas",
    "cas_at",
    "dynamic_attention",
    "half_to_interleaved",
    "interleaved_to_half",
    "relative_term",
    "rotary",
    "rotary_turns",
    "sinusoidal",
    "sinusoidal_at",
    "t5_bucket",
    "t5_values",
    "to_half",
    "to_interleaved",
    "turned_width",
]
