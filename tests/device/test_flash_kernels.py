"""Flash attention equals attention by its definition, forward and backward: every field of the mask, every type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flash_arrays import EVERYTHING, SMALL, Call, agree, on_device, rows_of, run
from hypothesis import given
from hypothesis import strategies as st
from row_arrays import same_in_any_order
from standin import cupy, shim
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TYPES, normal, same_bits

from minilong.backend.kernels.flash import FARTHEST, flash_attention, flash_attention_vjp
from minilong.backend.kernels.flash_plan import Plan, plan_of

pytestmark = pytest.mark.skipif(bool(shim.reason_absent()), reason=shim.reason_absent() or "")

BOTH = pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
"""Without and with tensor cores."""

VALUES = [[0.5, -0.25, 0.125, 1.0, -2.0], [1.0, 2.0, -1.0, 0.0, 0.25]] * 2
TEXTS = np.repeat(np.arange(3), (30, 90, 10))[None]
MASKS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "causal": {"causal": True},
    "causal, queries ahead": {"causal": True, "offset": 9},
    "causal, the first see nothing": {"causal": True, "offset": -67},
    "window": {"window": 5},
    "window beyond the keys": {"window": 1000, "causal": True},
    "window of one": {"window": 1, "causal": True},
    "window and sinks": {"window": 20, "sinks": 3, "causal": True},
    "many sinks": {"window": 2, "sinks": 70, "offset": 4},
    "lengths": {"b": 2, "key_lengths": [5, 129]},
    "one length, int32": {"b": 2, "key_lengths": np.array([64], np.int32)},
    "no key at all": {"b": 2, "key_lengths": [0, 1]},
    "texts": {"segments": TEXTS, "causal": True},
    "texts in disorder, int32": {"b": 2, "segments": np.arange(260, dtype=np.int32).reshape(2, 130) * 7 % 3},
    "a text that goes on": {"t": 60, "offset": 70, "segments": TEXTS, "window": 50, "sinks": 35},
    "bias": {"values": VALUES, "least": -1},
    "one bias for all heads": {"values": VALUES[:1], "least": 40, "causal": True, "offset": -2},
    "all": {"b": 2, "causal": True, "window": 40, "sinks": 3, "key_lengths": [70, 126], "segments": TEXTS}
    | {"values": VALUES, "least": 2},
}
ODD = Call(t=130, s=130, h=4, g=2)


@BOTH
@pytest.mark.parametrize("fields", MASKS.values(), ids=MASKS)
def test_every_field_of_the_mask(fields: dict[str, Any], dtype: Any) -> None:
    agree(cupy, replace(ODD, dtype=dtype, **fields))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type(dtype: Any) -> None:
    agree(cupy, replace(SMALL, dtype=dtype))
    agree(cupy, replace(EVERYTHING, dtype=dtype))


def test_tiles_of_128_rows() -> None:
    with rows_of(128):
        agree(cupy, replace(ODD, dtype=BFLOAT16, **MASKS["all"]))


def test_a_gpu_without_tensor_cores_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy.cuda.Device, "compute_capability", "75")
    agree(cupy, replace(EVERYTHING, dtype=FLOAT16))
    wide = (cupy.zeros((1, 1, 2, 65), np.float64) for _ in range(3))
    with pytest.raises(ValueError, match="bytes of this GPU"):
        flash_attention(cupy, *wide, scale=1.0)


@BOTH
@pytest.mark.parametrize("t", [1, 5, 63, 64, 65, 130])
def test_sizes_around_those_of_tiles(t: int, dtype: Any) -> None:
    for s in (1, 63, 64, 65):
        agree(cupy, Call(t=t, s=s, h=2, g=1, dtype=dtype, causal=True, offset=s - t))


@BOTH
@pytest.mark.parametrize("d, e", [(32, 8), (64, 64), (80, 128), (12, 20), (1, 3)])
def test_head_widths(d: int, e: int, dtype: Any) -> None:
    agree(cupy, Call(t=70, s=66, d=d, e=e, b=2, dtype=dtype, scale=d**-0.5, causal=True, spread=1.5))


@BOTH
@pytest.mark.parametrize("scale", [0.0, -0.7, 3.0])
def test_scales(scale: float, dtype: Any) -> None:
    agree(cupy, replace(SMALL, dtype=dtype, scale=scale, causal=True))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_scores_in_the_thousands(dtype: Any) -> None:
    agree(cupy, replace(SMALL, dtype=dtype, spread=30.0, scale=1.0, causal=True))


@BOTH
def test_scores_that_grow_along_the_keys_move_the_maximum_in_every_tile(dtype: Any) -> None:
    q, k = np.zeros((1, 1, 70, 16)), np.zeros((1, 1, 200, 16))
    q[..., 0], k[..., 0] = 1, np.arange(200)
    v, scale = normal(0, (1, 1, 200, 16), dtype), 0.5
    y, lse = flash_attention(cupy, *(cupy.asarray(x.astype(dtype)) for x in (q, k, v)), scale=scale)
    p = np.exp(0.5 * np.arange(200.0) - 99.5)
    np.testing.assert_allclose(cupy.asnumpy(lse), 99.5 + np.log(p.sum()), rtol=1e-6)
    exact = np.broadcast_to(p @ v[0, 0].astype(np.float64) / p.sum(), (1, 1, 70, 16))
    np.testing.assert_allclose(cupy.asnumpy(y).astype(np.float64), exact, atol=3e-2 if dtype == BFLOAT16 else 1e-5)


@BOTH
def test_a_query_that_sees_no_key_gives_zeros_and_takes_no_cotangent(dtype: Any) -> None:
    found = run(cupy, replace(SMALL, dtype=dtype, causal=True, offset=-66))  # 4 queries see some
    y, lse, gq, gk, gv = (cupy.asnumpy(found[name]) for name in ("y", "lse", "gq", "gk", "gv"))
    assert np.all(y[:, :, :66] == 0)
    assert np.all(lse[:, :, :66] == -np.inf)
    assert np.all(gq[:, :, :66] == 0)
    assert np.all(np.isfinite(lse[:, :, 66:]))
    assert np.all(gk[:, :, 4:] == 0)
    assert np.all(gv[:, :, 4:] == 0)


@BOTH
@given(data=st.data())
def test_any_mask_and_sizes(dtype: Any, data: st.DataObject) -> None:
    draw, small = data.draw, st.integers(1, 90)
    t, s, b, g = draw(small), draw(small), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    window = draw(st.none() | st.integers(1, 60))
    call = Call(t, s, b=b, g=g, h=g * draw(st.integers(1, 2)), dtype=dtype, causal=draw(st.booleans()))
    call = replace(
        call, window=window, sinks=draw(st.integers(0, 70)) if window else 0, offset=draw(st.integers(-9, 99))
    )
    if draw(st.booleans()):
        call = replace(call, key_lengths=draw(st.lists(st.integers(0, s), min_size=b, max_size=b)))
    agree(cupy, call)


@BOTH
def test_the_same_bits_in_any_order_of_threads(dtype: Any) -> None:
    same_in_any_order(cupy, lambda: run(cupy, replace(EVERYTHING, dtype=dtype)))


@BOTH
def test_no_race_and_no_access_out_of_bounds(dtype: Any) -> None:
    with shim.checked():
        run(cupy, replace(EVERYTHING, dtype=dtype))


@BOTH
def test_views_give_what_copies_give(dtype: Any) -> None:
    packed = normal(0, (2, 70, 3, 2, 16), dtype)  # queries, keys and values of one product
    views = [cupy.asarray(packed)[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]
    flat = cupy.asarray(normal(1, 2 * 2 * 70 * 16 + 1, dtype))
    g = flat[1:].reshape(2, 2, 70, 16)  # begins between multiples of 16 bytes
    turned = cupy.asarray(np.ascontiguousarray(cupy.asnumpy(g).swapaxes(-1, -2))).swapaxes(-1, -2)
    repeated = cupy.broadcast_to(views[1][:1, :1], (2, 2, 70, 16))
    for q, k, v in (views, [turned, repeated, g], [g[..., :10], views[0][..., 3:13], turned]):
        copies = [cupy.ascontiguousarray(x) for x in (q, k, v)]
        y, lse = flash_attention(cupy, q, k, v, scale=0.5, causal=True)
        same, same_lse = flash_attention(cupy, *copies, scale=0.5, causal=True)
        same_bits(cupy, y, cupy.asnumpy(same))
        same_bits(cupy, lse, cupy.asnumpy(same_lse))
        cotangents = flash_attention_vjp(cupy, g, q, k, v, same.copy(), lse, scale=0.5, causal=True)
        expected = flash_attention_vjp(cupy, cupy.ascontiguousarray(g), *copies, same, lse, scale=0.5, causal=True)
        for got, want in zip(cotangents, expected, strict=True):
            same_bits(cupy, got, cupy.asnumpy(want))


def test_results_lie_in_memory_token_by_token() -> None:
    found = run(cupy, SMALL)
    for name in ("y", "gq", "gk", "gv"):
        assert found[name].transpose(0, 2, 1, 3).flags.c_contiguous


@BOTH
def test_tiles_that_the_mask_empties_are_not_read(dtype: Any) -> None:
    q, k, v, g = (on_device(cupy, x) for x in Call(t=130, s=400, h=1, dtype=dtype).arrays())
    cases: list[tuple[dict[str, Any], slice]] = [
        ({"causal": True}, slice(192, None)),
        ({"key_lengths": cupy.asarray([130])}, slice(192, None)),
        ({"causal": True, "window": 20, "sinks": 2, "offset": 270}, slice(64, 192)),
        ({"segments": cupy.asarray(np.repeat([[0, 1]], (192, 208), axis=1))}, slice(192, None)),
    ]
    for keywords, hidden in cases:
        (bad_k, bad_v), slots = (x.copy() for x in (k, v)), (slice(None), slice(None), hidden)
        bad_k[slots] = bad_v[slots] = np.nan
        y, lse = flash_attention(cupy, q, bad_k, bad_v, scale=0.3, **keywords)
        same_bits(cupy, y, cupy.asnumpy(flash_attention(cupy, q, k, v, scale=0.3, **keywords)[0]))
        gq, gk, gv = flash_attention_vjp(cupy, g, q, bad_k, bad_v, y, lse, scale=0.3, **keywords)
        assert all(np.isfinite(cupy.asnumpy(x).astype(np.float32)).all() for x in (gq, gk, gv))
        assert not cupy.asnumpy(gk[slots]).any()


@BOTH
@pytest.mark.parametrize("sizes", [{"t": 0}, {"s": 0}, {"b": 0}, {"d": 0}, {"e": 0}], ids=str)
def test_empty_arrays(sizes: dict[str, int], dtype: Any) -> None:
    if "s" not in sizes:  # the definition has no maximum of no scores
        agree(cupy, replace(Call(t=5, s=7, dtype=dtype), **sizes))
    found = run(cupy, replace(Call(t=5, s=7, dtype=dtype), **sizes))
    if "s" in sizes:
        assert not cupy.asnumpy(found["y"]).any()
        assert not cupy.asnumpy(found["gq"]).any()
        assert np.all(cupy.asnumpy(found["lse"]) == -np.inf)
    if "t" in sizes:
        assert not cupy.asnumpy(found["gk"]).any()
        assert not cupy.asnumpy(found["gv"]).any()


def test_the_host_never_waits_and_launches_are_few() -> None:
    arrays = [on_device(cupy, x) for x in EVERYTHING.arrays()]
    keywords = EVERYTHING.keywords(cupy)
    with cupy.no_sync(), cupy.counting() as counts:
        y, lse = flash_attention(cupy, *arrays[:3], **keywords)
    assert counts.launches <= 4  # the pass, the segments' ranges, two casts
    with cupy.no_sync(), cupy.counting() as counts:
        flash_attention_vjp(cupy, arrays[3], *arrays[:3], y, lse, **keywords)
    assert counts.launches <= 7


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    call = Call(t=512, s=512, h=1, causal=True)
    q, k, v, g = (on_device(cupy, x) for x in call.arrays())
    row = 512 * 16 * 4  # the scores would take 1 MB
    with cupy.memory_limit(row + 512 * 4 + 1024):
        y, lse = flash_attention(cupy, q, k, v, scale=0.3, causal=True)
    with cupy.memory_limit(3 * row + 512 * 8 + 1024):
        flash_attention_vjp(cupy, g, q, k, v, y, lse, scale=0.3, causal=True)


def test_what_does_not_fit_is_refused() -> None:
    q, k, v, g = (on_device(cupy, x) for x in SMALL.arrays())
    texts, values = cupy.zeros((1, 70), np.int32), cupy.zeros((4, 3), np.float32)
    refused: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("do not fit", (q, k[:, :, 1:], v), {}),
        ("do not fit", (q, k, v[:, :1]), {}),
        ("no multiple", (q[:, :3], k, v), {}),
        ("one type", (q, k.astype(np.float64), v), {}),
        ("at most", (q, k, v), {"offset": FARTHEST}),
        ("sequences", (q, k, v), {"key_lengths": cupy.zeros(3, np.int64)}),
        ("do not cover", (q, k, v), {"segments": texts, "offset": 1}),
        ("do not cover", (q, k, v), {"segments": texts, "offset": -1}),
        ("distances", (q, k, v), {"values": values[:2]}),
        ("distances", (q, k, v), {"values": values[:, :0]}),
        ("at most 128", tuple(cupy.zeros((1, 1, 2, 129), np.float32) for _ in range(3)), {}),
    ]
    for message, arrays, keywords in refused:
        with pytest.raises(ValueError, match=message):
            flash_attention(cupy, *arrays, scale=1.0, **keywords)
    y, lse = flash_attention(cupy, q, k, v, scale=1.0)
    for wrong in ((g[:, :, 1:], y, lse), (g, y, lse[..., 1:])):
        with pytest.raises(ValueError, match="are not those"):
            flash_attention_vjp(cupy, wrong[0], q, k, v, *wrong[1:], scale=1.0)
    with pytest.raises(ValueError, match="for q of float32"):
        flash_attention_vjp(cupy, g.astype(np.float64), q, k, v, y, lse, scale=1.0)


@given(data=st.data())
def test_every_plan_fits_the_gpu(data: st.DataObject) -> None:
    draw = data.draw
    capability = draw(st.sampled_from(["75", "80", "86", "90"]))
    xp = type("library", (), {"cuda": type("cuda", (), {"Device": type("d", (), {"compute_capability": capability})})})
    kernel, dtype = (
        draw(st.sampled_from(["flash_forward", "flash_queries", "flash_keys"])),
        draw(st.sampled_from(TYPES)),
    )
    widest = 64 if capability == "75" and dtype == FLOAT64 else 128
    plan: Plan = plan_of(
        xp,
        kernel,
        dtype,
        draw(st.integers(0, widest)),
        draw(st.integers(0, widest)),
        rows=draw(st.integers(0, 1 << 17)),
        heads=draw(st.integers(0, 64)),
        biased=draw(st.booleans()),
        segmented=draw(st.booleans()),
    )
    assert plan.shared <= {"75": 64, "80": 163, "86": 99, "90": 227}[capability] * 1024
    assert plan.tensor == (plan.dtype in ("float16", "bfloat16") and capability != "75")
    if plan.tensor:  # a warp has whole tiles of 16 rows, products take 16 columns
        assert plan.rows % (16 * plan.warps) == 0
        assert plan.chunk % 16 == plan.columns % plan.chunk == 0
    else:  # 16 lanes share a row
        assert plan.rows % (2 * plan.warps) == 0
        assert plan.chunk % 16 == plan.columns % plan.chunk == 0
    assert plan.kernel != "flash_forward" or plan.chunk == plan.columns
    assert plan.dtype != FLOAT64 or not plan.tensor
