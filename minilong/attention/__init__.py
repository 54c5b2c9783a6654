"""Attention: the mask as a value, the naive definition, and kernels that must equal it."""

from minilong.attention.dense import dense
from minilong.attention.mask import Mask
from minilong.attention.naive import naive

__all__ = ["Mask", "dense", "naive"]
