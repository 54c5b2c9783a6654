"""Attention: the mask and the bias as values, the naive definition, and kernels that must equal it."""

from collections.abc import Callable
from typing import Any

from minilong.attention.bias import DistanceBias
from minilong.attention.dense import dense
from minilong.attention.kernels import Auto, Blockwise, auto, blockwise, merge
from minilong.attention.maps import attention_picture, attention_row, attention_tile
from minilong.attention.mask import Mask
from minilong.attention.naive import naive

KERNELS: dict[str, Callable[..., Any]] = {"auto": auto, "dense": dense, "blockwise": blockwise, "naive": naive}
"""By the name that a configuration uses."""

__all__ = [
    "KERNELS",
    "Auto",
    "Blockwise",
    "DistanceBias",
    "Mask",
    "attention_picture",
    "attention_row",
    "attention_tile",
    "auto",
    "blockwise",
    "dense",
    "merge",
    "naive",
]
