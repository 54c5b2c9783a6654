"""Inputs for the flash attention kernels, exact results by the definition, and how far results may be from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from row_arrays import exactly
from step_arrays import FLOAT32, UNIT, normal, wide

from minilong.attention.bias import DistanceBias
from minilong.attention.mask import Mask
from minilong.attention.naive import naive, repeat_heads
from minilong.autodiff import vjp
from minilong.backend.kernels import flash, flash_plan


@dataclass(frozen=True)
class Call:
    """Sizes, type and keywords of one attention. spread: standard deviation of queries and keys."""

    t: int
    s: int
    d: int = 16
    e: int = 16
    b: int = 1
    h: int = 2
    g: int = 1
    dtype: Any = FLOAT32
    spread: float = 1.0
    scale: float = 0.3
    causal: bool = False
    window: int | None = None
    sinks: int = 0
    offset: int = 0
    key_lengths: Any = None
    segments: Any = None
    values: Any = None
    least: int = 0

    def arrays(self) -> tuple[np.ndarray, ...]:
        """q (b, h, t, d), k, v and the cotangent g (b, h, t, e): views of memory in which tokens come before heads."""
        shapes = (
            (self.t, self.h, self.d),
            (self.s, self.g, self.d),
            (self.s, self.g, self.e),
            (self.t, self.h, self.e),
        )
        found = [normal(i, (self.b, *shape), np.float64) for i, shape in enumerate(shapes)]
        found = [x * self.spread if i < 2 else x for i, x in enumerate(found)]
        return tuple(x.astype(self.dtype).transpose(0, 2, 1, 3) for x in found)

    def keywords(self, xp: Any) -> dict[str, Any]:
        """What the wrappers take besides the arrays."""
        names = ("scale", "causal", "window", "sinks", "offset", "key_lengths", "segments", "values", "least")
        put = {name: getattr(self, name) for name in names}
        return {name: xp.asarray(x) if isinstance(x, list | np.ndarray) else x for name, x in put.items()}

    @property
    def mask(self) -> Mask:
        lengths, segments = (None if x is None else np.asarray(x) for x in (self.key_lengths, self.segments))
        return Mask(self.causal, self.window, self.sinks, self.offset, lengths, segments)

    @property
    def bias(self) -> DistanceBias | None:
        if self.values is None:
            return None
        return DistanceBias(
            np.broadcast_to(exactly(np.asarray(self.values)), (self.h, len(self.values[0]))), self.least
        )


@contextmanager
def rows_of(rows: int) -> Iterator[None]:
    """Tiles of so many rows on tensor cores: 64, or the 128 that small inputs do not get."""
    with patch.object(flash_plan, "BUSY", 0 if rows == 128 else 1 << 30):
        yield


def run(xp: Any, call: Call, *, forward_only: bool = False) -> dict[str, Any]:
    """y, lse and the cotangents, from the device."""
    q, k, v, g = (on_device(xp, x) for x in call.arrays())
    keywords = call.keywords(xp)
    y, lse = flash.flash_attention(xp, q, k, v, **keywords)
    if forward_only:
        return {"y": y, "lse": lse}
    gq, gk, gv = flash.flash_attention_vjp(xp, g, q, k, v, y, lse, **keywords)
    return {"y": y, "lse": lse, "gq": gq, "gk": gk, "gv": gv}


def on_device(xp: Any, x: np.ndarray) -> Any:
    """The view (b, h, t, d) of memory (b, t, h, d)."""
    return xp.asarray(np.ascontiguousarray(x.transpose(0, 2, 1, 3))).transpose(0, 2, 1, 3)


def agree(xp: Any, call: Call, names: tuple[str, ...] = ("y", "lse", "gq", "gk", "gv")) -> None:
    """Run the kernels and compare with `naive` and its cotangents in float64, element by element."""
    found, (exact, bounds) = run(xp, call, forward_only=set(names) <= {"y", "lse"}), exact_of(call)
    for name in names:
        got = xp.asnumpy(found[name])
        assert got.shape == exact[name].shape
        assert got.dtype == (wide(call.dtype) if name == "lse" else call.dtype)
        near_or_equal(got.astype(np.float64), exact[name], bounds[name], f"{name} of {call}")


def near_or_equal(got: np.ndarray, exact: np.ndarray, bound: np.ndarray, what: str) -> None:
    """Equal (infinities too), or within the bound."""
    with np.errstate(invalid="ignore"):
        fine = (got == exact) | (np.abs(got - exact) <= bound)
        worst = np.max(np.where(fine, 0, np.abs(got - exact) / bound), initial=0)
    assert fine.all(), f"{what}: {(~fine).sum()} elements, up to {worst} times the bound"


_known: dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}


def exact_of(call: Call) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """`computed_exactly`, once for each call."""
    key = repr(call)
    if key not in _known:
        _known[key] = computed_exactly(call)
    return _known[key]


def computed_exactly(call: Call) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By the definition in float64: results, and a bound for the error of each element.

    A weight p is wrong by a share r: its score by roundings of sums and of the exponent, itself by one to the type of
    the data. So y is wrong by r (p |v|) and its own rounding, and so on for the cotangents; D = g y takes over the
    rounding of y.
    """
    q, k, v, g = map(exactly, call.arrays())
    y, pull = vjp(lambda *x: naive(*x, mask=call.mask, scale=call.scale, bias=call.bias), q, k, v)
    gq, gk, gv = pull(g)
    wide_k, wide_v = repeat_heads(k, call.h), repeat_heads(v, call.h)
    scores = q @ wide_k.swapaxes(-1, -2) * call.scale
    if call.bias is not None:
        scores = scores + call.bias.dense(call.t, call.s, call.offset)
    allowed = call.mask.dense(np, call.t, call.s)
    hidden = np.where(True if allowed is None else allowed, scores, -np.inf)
    top = np.max(hidden, -1, keepdims=True, initial=-1e300)
    p = np.exp(hidden - top)
    total = p.sum(-1, keepdims=True)
    seen = total > 0
    p /= np.where(seen, total, 1)
    lse = np.where(seen, top + np.log(np.where(seen, total, 1)), -np.inf)[..., 0]

    unit, sums = UNIT[call.dtype], UNIT[wide(call.dtype)]
    size = np.abs(scores).max(initial=0) + abs(call.scale) * (np.abs(q) @ np.abs(wide_k).swapaxes(-1, -2)).max(
        initial=0
    )
    share = 3 * unit + sums * (40 + 4 * size)
    small = {"float16": 2.0**-24, "float64": 1e-300}.get(str(call.dtype), 1e-37)  # underflow: absolute steps
    b = {
        "y": share * (p @ np.abs(wide_v)) + unit * np.abs(y) + small,
        "lse": np.full(lse.shape, sums * (40 + 4 * size)),
    }
    b["gv"] = fold(call, share * (p.swapaxes(-1, -2) @ (np.abs(g) + small))) + unit * np.abs(gv) + small
    gaps = np.abs(g @ wide_v.swapaxes(-1, -2) - (g * y).sum(-1, keepdims=True))
    whole = np.abs(g) @ np.abs(wide_v).swapaxes(-1, -2)
    lost = (np.abs(g) * (np.abs(y) * unit + b["y"])).sum(-1, keepdims=True) + 20 * sums * whole
    ds = p * (gaps * share + lost) + small
    b["gq"] = abs(call.scale) * (ds @ np.abs(wide_k)) + unit * np.abs(gq) + small
    b["gk"] = fold(call, abs(call.scale) * (ds.swapaxes(-1, -2) @ np.abs(q))) + unit * np.abs(gk) + small
    return {"y": y, "lse": lse, "gq": gq, "gk": gk, "gv": gv}, b


def fold(call: Call, x: np.ndarray) -> np.ndarray:
    """The sum over the query heads of each key head."""
    return x.reshape(call.b, call.g, call.h // call.g, *x.shape[2:]).sum(2)


SMALL = Call(t=70, s=70, h=4, g=2)
"""Two tiles of queries and of keys, heads that share keys."""

EVERYTHING = replace(
    SMALL,
    causal=True,
    window=40,
    sinks=3,
    key_lengths=[66],
    segments=[[0] * 20 + [1] * 50],
    values=[[0.5, -0.25, 0.125, 1.0, -2.0]] * 4,
    least=-2,
)
"""All fields at once."""

UNDECLARED = "checks use narrow heads and few rows, which build and run quickly; headers list what a large GPU runs"


def edges(columns: int) -> tuple[Call, ...]:
    """What finds a mistake in a kernel that streams so many rows at a time, with few builds."""
    one = Call(t=64, s=128, h=1)
    return (
        EVERYTHING,
        # A width that is no vector; as many key heads as query heads; the first queries see nothing.
        Call(t=70, s=72, d=12, e=20, b=2, h=2, g=2, causal=True, offset=-5, key_lengths=[30, 72]),
        # Tiles of one text and of two, of queries and of keys.
        Call(t=130, s=130, h=1, segments=[[0] * 80 + [1] * 50], values=[[0.25, 0.5]]),
        # Weights beyond float32, if rows past the last query counted.
        Call(t=5, s=20, h=1, segments=[[0] * 20], values=[[200.0]]),
        # Tiles that their last score alone cuts (the diagonal, the window, the last key), or reaches.
        *(replace(one, causal=True, offset=columns - back) for back in (2, 1)),
        *(replace(one, window=60, offset=columns - back) for back in (4, 3)),
        replace(one, key_lengths=[127]),
        replace(one, t=70, window=60, offset=58),
        # Sinks far from the window.
        Call(t=64, s=200, h=1, causal=True, window=20, sinks=3, offset=136),
        # The maximum moves in every tile; scores are scaled before it is taken.
        Call(t=20, s=160, h=1, spread=6.0, scale=1.0),
        Call(t=20, s=70, h=1, scale=-0.5),
    )


def check(xp: Any, dtype: Any, names: tuple[str, ...]) -> None:
    """Compare these results for all `edges`, without tensor cores or with."""
    for call in edges(32 if dtype == FLOAT32 else 64):
        agree(xp, replace(call, dtype=dtype), names)
