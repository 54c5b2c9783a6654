"""Cases of weights in few bits: what one token is multiplied with in a whole model, beside PyTorch in float32.

Sizes are those of SmolLM2-135M. Nothing else of a model is computed: what is timed is reading weights and multiplying.
"""

from __future__ import annotations

from typing import Any

from .case import OURS, Case, Settings, Work

SIZES = {"layers": 30, "width": 576, "keys": 192, "hidden": 1536, "vocabulary": 49152}
SMALL = {"layers": 2, "width": 64, "keys": 32, "hidden": 96, "vocabulary": 300}


def weights(s: Settings) -> int:
    """How many numbers the matrices have."""
    layer = 2 * s["width"] * (s["width"] + s["keys"]) + 3 * s["width"] * s["hidden"]
    return int(s["layers"] * layer + s["vocabulary"] * s["width"])


def products(s: Settings) -> Work:
    """Two operations for each weight."""
    return Work("matmul", 2.0 * weights(s))


def case(kind: str, about: str) -> Case:
    """All products of a token, ours by weights of the kind."""
    settings: dict[str, Any] = {**SIZES, "kind": kind}
    return Case(
        name=f"low-bit-{kind.lower()}",
        kind="operation",
        about=f"products of one token with the 135M weights of SmolLM2-135M, {about}; PyTorch's in float32",
        sides={OURS: ".ours.low_bit:Products", "torch": ".peers.torch_low_bit:Products"},
        settings=settings,
        quick=SMALL,
        work=products,
        tolerance={"*": 1e-5},
        repetition=0.04,
    )


LOW_BIT = (
    case("F32", "in float32"),
    case("Q8_0", "in blocks of 8 bits"),
    case("Q4_1", "in blocks of 4 bits"),
)
