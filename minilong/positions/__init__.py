"""Positions: how a model knows the order of its tokens."""

from minilong.positions.alibi import alibi, alibi_slopes
from minilong.positions.rotary import rotary, rotary_turns
from minilong.positions.sinusoidal import cas, sinusoidal

__all__ = ["alibi", "alibi_slopes", "cas", "rotary", "rotary_turns", "sinusoidal"]
