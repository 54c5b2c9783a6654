"""Cases of a published model in use: a prompt is read, tokens are decoded, beside the library `transformers`.

The shape is SmolLM2-135M's, the weights are random: what a token costs does not depend on them.
"""

from __future__ import annotations

from typing import Any

from . import counting
from .case import OURS, Case

MODEL = {
    "kind": "decoder",
    "layers": 30,
    "width": 576,
    "heads": 9,
    "kv_heads": 3,
    "head_width": 64,
    "feed_forward": 1536,
    "context": 8192,
    "position": "rotary",
    "rope_layout": "half",
    "rope_base": 100000.0,
    "activation": "swiglu",
    "normalization": "rms",
    "norm_eps": 1e-5,
    "bias": False,
    "input": "plain",
}
TINY = {
    **MODEL,
    "layers": 2,
    "width": 32,
    "heads": 4,
    "kv_heads": 2,
    "head_width": 8,
    "feed_forward": 48,
    "context": 64,
}


def case(name: str, side: str, prompt: int, new: int, repetition: float, about: str) -> Case:
    """A side's class in `ours/published.py` beside the one of that name in `peers/transformers_reading.py`."""
    settings: dict[str, Any] = {"model": MODEL, "vocabulary": 49152, "prompt": prompt, "new": new}
    return Case(
        name=name,
        kind="generate",
        about=about,
        sides={OURS: f".ours.published:{side}", "transformers": f".peers.transformers_reading:{side}"},
        settings=settings,
        quick={"model": TINY, "vocabulary": 61, "prompt": min(prompt, 19), "new": min(new, 3)},
        work=counting.reading if new == 0 else counting.decoding,
        tolerance={"logits": 1e-5},
        repetition=repetition,
    )


PUBLISHED = (
    case("published-prompt", "Prompt", 2048, 0, 5.0, "SmolLM2-135M's shape: a prompt of 2,048 tokens into a cache"),
    case("published-decode", "Decoding", 8, 32, 2.0, "SmolLM2-135M's shape: 32 tokens one by one, after 8"),
    case("published-decode-2048", "Decoding", 2048, 32, 2.5, "SmolLM2-135M's shape: 32 tokens one by one, after 2,048"),
)
