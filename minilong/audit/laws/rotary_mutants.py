"""Wrong rotary positions: mistakes that were met in code and bug reports, and likely ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.rotary import paired


def angles(at: Any, d: int, base: float) -> Any:
    return at[:, None] * base ** (-np.arange(0, d, 2) / d)


def turn(x: Any, angle: Any, interleaved: bool = True) -> Any:
    """x turned by angles (t, d/2)."""
    z = paired(x, interleaved) * np.exp(1j * angle)
    return (
        np.stack([z.real, z.imag], axis=-1).reshape(x.shape)
        if interleaved
        else np.concatenate([z.real, z.imag], axis=-1)
    )


@mutant(
    "rotary",
    "mixed-layouts",
    kills=("layout", "norm", "distance"),
    met="how-to-train-your-gpt 6; asked in gpt-neox 834",
)
def mixed_layouts(x: Any, at: Any, base: float) -> Any:
    angle = np.concatenate([angles(at, x.shape[-1], base)] * 2, axis=-1)
    partner = np.stack([-x[..., 1::2], x[..., 0::2]], axis=-1).reshape(x.shape)
    return x * np.cos(angle) + partner * np.sin(angle)


@mutant(
    "rotary", "layout-by-width", kills=("layout", "definition"), met="plausible: two code paths, one for wide heads"
)
def layout_by_width(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at, x.shape[-1], base), interleaved=x.shape[-1] < 6)


@mutant("rotary", "from-one", kills=("identity", "definition", "composition"), met="positions from 1")
def from_one(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at + 1, x.shape[-1], base))


@mutant(
    "rotary",
    "index-for-position",
    kills=("row-order", "position-dependent"),
    met="plausible: the cache's offset ignored; see HF 17490",
)
def index_for_position(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(np.arange(len(at)), x.shape[-1], base))


@mutant(
    "rotary",
    "from-the-first",
    kills=("row-order", "position-dependent"),
    met="plausible: positions less the first one's, per chunk",
)
def from_the_first(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at - at[0], x.shape[-1], base))


@mutant("rotary", "half-exponent", kills=("frequencies", "definition"), met="exponent j/d for 2j/d")
def half_exponent(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at, x.shape[-1], np.sqrt(base)))


@mutant("rotary", "fixed-base", kills=("frequencies", "definition"), met="a constant base: vLLM 41236")
def fixed_base(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at, x.shape[-1], 10000.0))


def keeping() -> Callable[..., Any]:
    """Rotary positions with a memory: the frequencies of each width are computed once."""
    kept: dict[int, Any] = {}

    def cached_frequencies(x: Any, at: Any, base: float) -> Any:
        theta = kept.setdefault(x.shape[-1], base ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1]))
        return turn(x, at[:, None] * theta)

    return cached_frequencies


mutant("rotary", "cached-frequencies", kills=("other-base",), met="plausible: a cache that is kept by width alone")(
    keeping()
)


@mutant(
    "rotary", "reversed-frequencies", kills=("frequencies", "position-dependent"), met="plausible: slow pairs first"
)
def reversed_frequencies(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at, x.shape[-1], base)[:, ::-1])


@mutant("rotary", "float32-angles", kills=("distance", "definition"), met="plausible: wrong by 0.004 at 100,000")
def float32_angles(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at.astype(np.float32), x.shape[-1], base).astype(np.float32))


@mutant(
    "rotary",
    "clockwise",
    kills=("position-dependent", "definition"),
    met="the minus on the other sine; another model's weights",
)
def clockwise(x: Any, at: Any, base: float) -> Any:
    return turn(x, -angles(at, x.shape[-1], base))


@mutant("rotary", "both-plus", kills=("norm", "layout", "composition"), met="the minus in (x1 cos - x2 sin) forgotten")
def both_plus(x: Any, at: Any, base: float) -> Any:
    cosine, sine = np.cos(angles(at, x.shape[-1], base)), np.sin(angles(at, x.shape[-1], base))
    a, b = x[..., 0::2], x[..., 1::2]
    return np.stack([a * cosine + b * sine, a * sine + b * cosine], axis=-1).reshape(x.shape)


@mutant(
    "rotary", "first-half-only", kills=("frequencies", "definition"), met="GPT-NeoX's rotary_pct applied to every model"
)
def first_half_only(x: Any, at: Any, base: float) -> Any:
    angle = angles(at, x.shape[-1], base)
    return turn(x, angle * (np.arange(angle.shape[-1]) < (angle.shape[-1] + 1) // 2))


@mutant("rotary", "added", kills=("linear", "norm"), met="sinusoidal positions added under the name of rotary ones")
def added(x: Any, at: Any, base: float) -> Any:
    angle = angles(at, x.shape[-1], base)
    return x + np.stack([np.cos(angle) - 1, np.sin(angle)], axis=-1).reshape(len(at), -1)


@mutant("rotary", "decaying", kills=("norm", "distance"), met="xPos's factor on queries alone")
def decaying(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at, x.shape[-1], base)) * 0.99 ** np.minimum(at, 100)[:, None]


@mutant(
    "rotary",
    "wrong-axis",
    kills=("batch", "definition"),
    met="(t, h, d) taken for (h, t, d): heads turned by their number",
)
def wrong_axis(x: Any, at: Any, base: float) -> Any:
    if x.ndim > 2 and x.shape[-3] == len(at):
        return turn(x, angles(at, x.shape[-1], base)[:, None])
    return turn(x, angles(at, x.shape[-1], base))


@mutant(
    "rotary", "wrapped-table", kills=("distance", "definition"), met="plausible: a table of 512 positions, index modulo"
)
def wrapped_table(x: Any, at: Any, base: float) -> Any:
    return turn(x, angles(at % 512, x.shape[-1], base))


@mutant("rotary", "in-place", kills=("pure",), met="plausible: x[..., 0::2] = ... on the caller's queries")
def in_place(x: Any, at: Any, base: float) -> Any:
    x[...] = turn(x, angles(at, x.shape[-1], base))
    return x
