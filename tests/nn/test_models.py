"""Whole models: who may see whom, what stays float32, and that a call changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minilong.autodiff import IGNORE, checkpoint, value_and_grad, vjp
from minilong.autodiff.numeric import rounding_bound
from minilong.autodiff.tree import leaves, named
from minilong.data.batches import LanguageBatch, PairBatch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import POSITIONS, ModelConfig
from minilong.nn import flatten
from minilong.objectives import causal_loss, sequence_loss

V = 13
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, V, (3, 9))
ATOL = rounding_bound(np.float64, 100.0, 64)


def made(dtype: Any = np.float64, **settings: Any) -> Any:
    """A small model whose biases are not zero."""
    sizes: dict[str, Any] = {"layers": 2, "width": 16, "heads": 4, "context": 32}
    vector, model, _ = flatten(build(ModelConfig(**(sizes | settings)), V, Key.of(0)), dtype)
    vector += (0.1 * np.random.default_rng(1).standard_normal(vector.size)).astype(dtype)
    vector.flags.writeable = False
    return model


NORMED = [{"norm": norm, "position": position} for norm in ("pre", "post") for position in POSITIONS]


@pytest.mark.parametrize("settings", NORMED, ids=str)
def test_the_future_changes_no_bit_of_the_past(settings: dict[str, str]) -> None:
    model = made(np.float32, **settings)
    logits = model(IDS)
    for t in (1, 4, 8):
        other = IDS.copy()
        other[:, t:] = (other[:, t:] + 5) % V
        found = model(other)
        np.testing.assert_array_equal(found[:, :t], logits[:, :t])
        assert np.all(np.abs(found[:, t:] - logits[:, t:]).max(-1) > 0)


def test_an_encoder_sees_the_future() -> None:
    model, other = made(kind="encoder"), IDS.copy()
    other[:, -1] = (other[:, -1] + 5) % V
    assert np.all(np.abs(model(other)[:, 0] - model(IDS)[:, 0]).max(-1) > 1e-6)


def test_the_decoder_of_a_pair_model_is_causal_and_reads_the_source() -> None:
    model, target = made(kind="encoder-decoder"), IDS[:, :6]
    logits = model(IDS, target)
    other = target.copy()
    other[:, 3:] = (other[:, 3:] + 1) % V
    np.testing.assert_array_equal(model(IDS, other)[:, :3], logits[:, :3])
    source = IDS.copy()
    source[:, -1] = (source[:, -1] + 1) % V
    assert np.all(np.abs(model(source, target) - logits).max(-1) > 1e-6)


def test_the_encoder_does_not_depend_on_the_target() -> None:
    """`encode` has no target to read, and decoding from its memory is the whole model: so one encoding serves all."""
    model, lengths = made(kind="encoder-decoder"), np.array([9, 4, 1])
    memory = model.encode(IDS, lengths)
    for target in (IDS[:, :1], IDS[:, 2:7]):
        np.testing.assert_array_equal(model.decode(memory, target, lengths), model(IDS, target, lengths=lengths))


@pytest.mark.parametrize("settings", NORMED, ids=str)
def test_padding_changes_nothing_where_positions_are_valid(settings: dict[str, str]) -> None:
    lengths = np.array([9, 4, 1])
    valid = np.arange(9) < lengths[:, None]
    wide = np.concatenate([np.where(valid, IDS, 0), np.full((3, 5), 7)], axis=1)
    encoder = made(kind="encoder", **settings)
    exact = encoder(IDS, lengths=lengths)
    np.testing.assert_allclose(encoder(wide, lengths=lengths)[:, :9][valid], exact[valid], rtol=0, atol=ATOL)
    pairs = made(kind="encoder-decoder", **settings)
    exact = pairs(IDS, IDS[:, :5], lengths=lengths)
    np.testing.assert_allclose(pairs(wide, IDS[:, :5], lengths=lengths), exact, rtol=0, atol=ATOL)
    assert np.abs(pairs(IDS, IDS[:, :5]) - exact).max() > 1e-6  # the lengths are used


def test_padding_changes_neither_the_loss_nor_its_gradient() -> None:
    model, lengths = made(kind="encoder-decoder"), np.array([9, 4, 1], np.int32)
    targets = np.where(np.arange(6) < np.array([6, 2, 3])[:, None], IDS[:, 1:7], IGNORE)
    narrow = PairBatch(IDS, lengths, IDS[:, :6], targets)
    pad = np.full((3, 4), 5)
    wide = PairBatch(
        np.hstack([IDS, pad]), lengths, np.hstack([IDS[:, :6], pad]), np.hstack([targets, pad * 0 + IGNORE])
    )
    results = [value_and_grad(lambda m, batch=batch: sequence_loss(m, batch))(model) for batch in (narrow, wide)]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-13)
    for a, b in zip(leaves(results[0][1]), leaves(results[1][1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=ATOL)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("position", ["none", "rotary"])
def test_packed_documents_are_separate_documents(position: str, kind: str) -> None:
    """Without positions, or with those that know distances only, a document does not notice what it is packed with."""
    model = made(position=position, kind=kind)
    first, second, third = IDS[0], IDS[1, :4], IDS[2, :6]
    packed = np.concatenate([first, second, third])[None]
    segments = np.repeat([0, 1, 2], [9, 4, 6])[None]
    right = np.concatenate([model(part[None])[0] for part in (first, second, third)])
    np.testing.assert_allclose(model(packed, segments=segments)[0], right, rtol=0, atol=ATOL)
    assert np.abs(model(packed)[0, 9:] - right[9:]).max() > 1e-3
    np.testing.assert_allclose(model(packed)[0, :9], right[:9], rtol=0, atol=ATOL if kind == "decoder" else 10)


def test_examples_of_a_batch_do_not_see_one_another() -> None:
    model = made()
    together = model(IDS)
    for row in range(3):
        np.testing.assert_allclose(model(IDS[row : row + 1])[0], together[row], rtol=0, atol=ATOL)


@pytest.mark.parametrize("position", [p for p in POSITIONS if p != "none"])
def test_every_scheme_tells_orders_apart(position: str) -> None:
    """Without positions an encoder is blind to order; with any scheme it is not."""
    swapped = IDS[:1, [1, 0, *range(2, 9)]]
    blind, sees = (made(kind="encoder", position=p) for p in ("none", position))
    np.testing.assert_allclose(blind(swapped)[0, 2:], blind(IDS[:1])[0, 2:], rtol=0, atol=ATOL)
    assert np.abs(sees(swapped)[0, 2:] - sees(IDS[:1])[0, 2:]).max() > 1e-4


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_learned_positions_have_a_limit_and_say_so(kind: str) -> None:
    model = made(kind=kind, position="learned", context=6)
    short = (IDS[:, :6],) * (2 if kind == "encoder-decoder" else 1)
    assert model(*short).shape == (3, 6, V)
    with pytest.raises(ValueError, match="7 tokens, but learned positions for 6 only"):
        model(*[IDS[:, :7]] * len(short))


VARIED = [
    {},
    {"norm": "post", "activation": "relu", "tied": False, "position": "sinusoidal"},
    {"activation": "swiglu", "normalization": "rms", "kv_heads": 2, "bias": False, "position": "cas"},
    {"activation": "gelu", "position": "learned", "kv_heads": 1},
    {"activation": "silu", "position": "none"},
]


@pytest.mark.parametrize("settings", VARIED, ids=str)
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder", "encoder"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_stay_and_every_parameter_gets_a_gradient(dtype: type, kind: str, settings: dict[str, Any]) -> None:
    """Float32 in, float32 everywhere: one float64 constant would double memory and halve speed unseen."""
    model = made(dtype, kind=kind, dropout=0.1, **settings)
    targets = np.where(RNG.random((3, 9)) < 0.2, IGNORE, IDS)
    batch: Any
    if kind == "encoder-decoder":
        batch, loss = PairBatch(IDS, np.array([9, 4, 1]), IDS, targets), sequence_loss
        logits = model(IDS, IDS, lengths=batch.source_lengths, key=Key.of(1))
    else:
        batch, loss = LanguageBatch(IDS, targets, np.sort(RNG.integers(0, 2, (3, 9)))), causal_loss
        logits = model(IDS, segments=batch.segments, key=Key.of(1))
    assert logits.dtype == dtype
    assert logits.shape == (3, 9, V)
    value, gradient = value_and_grad(lambda m: loss(m, batch, key=Key.of(1), denominator=7.0))(model)
    assert value.dtype == dtype
    for (name, g), parameter in zip(named(gradient).items(), leaves(model), strict=True):
        assert (g.dtype, g.shape) == (dtype, parameter.shape), name
        assert np.all(np.isfinite(g)), name
        assert np.any(g != 0) or name.endswith(".key.bias"), name  # which the softmax ignores: zero but for rounding


@pytest.mark.parametrize("settings", VARIED, ids=str)
def test_no_intermediate_array_of_a_float32_model_is_float64(settings: dict[str, Any]) -> None:
    """Every operation of the forward pass: the types of all tensors that the graph holds."""
    model = made(np.float32, dropout=0.1, **settings)
    types: set[np.dtype[Any]] = set()
    seen: set[int] = set()

    def loss(m: Any) -> Any:
        value = causal_loss(m, LanguageBatch(IDS, IDS, np.zeros((3, 9), np.int32)), key=Key.of(1))
        stack = [value.node]
        while stack:
            node = stack.pop()
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            types.update(x.dtype for x in node.saved or () if isinstance(x, np.ndarray))
            stack.extend(node.parents)
        return value

    vjp(loss, model)
    assert len(seen) > 50
    assert np.dtype(np.float32) in types
    assert not types & {np.dtype(np.float64), np.dtype(np.complex128)}


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_a_call_is_pure(kind: str) -> None:
    """Read-only weights and inputs; equal calls give equal bits, in training too."""
    model, ids = made(np.float32, kind=kind, dropout=0.2), IDS.copy()
    ids.flags.writeable = False
    inputs = (ids, ids) if kind == "encoder-decoder" else (ids,)
    for key in (None, Key.of(5)):
        np.testing.assert_array_equal(model(*inputs, key=key), model(*inputs, key=key))
    assert np.any(model(*inputs, key=Key.of(5)) != model(*inputs, key=Key.of(6)))
    assert np.any(model(*inputs, key=Key.of(5)) != model(*inputs))


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_every_dropout_draws_its_own_elements(kind: str) -> None:
    """Two places with one key would zero the same elements; count the distinct draws of a pass."""
    layers = 3
    model = made(np.float32, kind=kind, dropout=0.5, layers=layers)
    drawn: list[bytes] = []
    inputs = (IDS, IDS) if kind == "encoder-decoder" else (IDS,)

    def record(m: Any) -> Any:
        logits = m(*inputs, key=Key.of(5))
        stack, seen = [logits.node], set()
        while stack:
            node = stack.pop()
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if node.primitive is not None and node.primitive.name == "dropout":
                drawn.append(node.saved[0].tobytes()[:64])
            stack.extend(node.parents)
        return logits

    vjp(record, model)
    per_layer = {"decoder": [3], "encoder-decoder": [3, 4]}[kind]  # each branch, and inside the feed-forward network
    assert len(drawn) == len(per_layer) + layers * sum(per_layer)
    assert len(set(drawn)) == len(drawn)


def test_a_checkpointed_layer_gives_the_same_bits_with_dropout() -> None:
    model = made(np.float32, dropout=0.3)
    batch, key = LanguageBatch(IDS, IDS), Key.of(9)
    value, gradient = value_and_grad(lambda m: causal_loss(m, batch, key=key))(model)

    def loss(m: Any) -> Any:
        stack = replace(m.stack, layers=tuple(map(Checkpointed, m.stack.layers)))
        return causal_loss(replace(m, stack=stack), batch, key=key)

    value2, gradient2 = value_and_grad(loss)(model)
    assert value == value2
    for a, b in zip(leaves(gradient), leaves(gradient2), strict=True):
        np.testing.assert_array_equal(a, b)


class Checkpointed:
    """A layer whose forward pass is run again for the derivative."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.attention = layer, layer.attention

    def __call__(self, x: Any, memory: Any, **settings: Any) -> Any:
        return checkpoint(lambda layer, h: layer(h, memory, **settings))(self.layer, x)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_objectives_are_the_mean_over_targets_that_count(norm: str) -> None:
    rng = np.random.default_rng(7)
    targets = np.where(rng.random((3, 9)) < 0.3, IGNORE, rng.integers(0, V, (3, 9)))
    kept = targets != IGNORE

    def mean(logits: np.ndarray) -> float:
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return float(-np.log(np.take_along_axis(p, np.where(kept, targets, 0)[..., None], -1)[..., 0][kept]).mean())

    model, segments = made(norm=norm), np.sort(rng.integers(0, 3, (3, 9)), axis=1)
    batch = LanguageBatch(IDS, targets, segments)
    assert float(causal_loss(model, batch)) == pytest.approx(mean(model(IDS, segments=segments)), rel=1e-13)
    share = float(causal_loss(model, batch, denominator=2.0 * kept.sum()))
    assert share == pytest.approx(mean(model(IDS, segments=segments)) / 2, rel=1e-13)
    pairs, lengths = made(kind="encoder-decoder", norm=norm), np.array([9, 2, 5])
    found = float(sequence_loss(pairs, PairBatch(IDS, lengths, IDS, targets)))
    assert found == pytest.approx(mean(pairs(IDS, IDS, lengths=lengths)), rel=1e-13)
