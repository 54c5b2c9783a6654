"""Shapes of programs and of derivatives: repeated inputs, fan-out, nesting, closures, checkpoints, depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import engine_laws
import numpy as np
import pytest
from engine_laws import A, B, close

from minilong.autodiff import checkpoint, grad, layer_norm, linear, ops, softmax, stop_gradient, value_and_grad, vjp


@pytest.mark.parametrize("law", engine_laws.LAWS, ids=lambda law: law.__name__)
def test_engine(law: Any) -> None:
    law()


def test_closures_over_outer_tensors_are_differentiated_outside_only() -> None:
    def outer(x: Any) -> Any:
        inner = grad(lambda y: ops.sum(y * y * x))(B)  # 2 y x, a tensor of the outer level
        return ops.sum(inner * x)

    close(grad(outer)(A), 4 * A * B)


def test_second_derivative_of_a_function_that_stops_a_gradient() -> None:
    close(grad(lambda x: ops.sum(stop_gradient(x) * x))(A), A)
    # The inner derivative is stop(x) + 0, a constant for the outer one as well.
    close(grad(lambda x: ops.sum(grad(lambda y: ops.sum(stop_gradient(y) * y))(x)))(A), np.zeros(3))


def test_value_of_the_function_may_be_an_input() -> None:
    value, pull = vjp(lambda x: x, A)
    assert value is A
    close(pull(B)[0], B)


def test_plain_arrays_make_no_tensors() -> None:
    y = ops.tanh(A) + layer_norm(A, A, A)
    assert type(y) is np.ndarray


@pytest.mark.parametrize("f", [lambda x: x / 3, lambda x: 1 / x, lambda x: x**2, lambda x: 2 - x, lambda x: x - 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_with_and_without_a_derivative_are_the_same_bits(f: Any, dtype: Any) -> None:
    x = np.random.default_rng(5).uniform(0.1, 3, 1000).astype(dtype)
    value, _ = vjp(f, x)
    assert value.dtype == dtype
    assert np.array_equal(value, f(x))


# Checkpoints


def block(x: Any, w: Any) -> Any:
    return softmax(linear(ops.tanh(x / 3), w)) * x + 1 / (x * x + 1.0)


def test_checkpoint_is_bit_identical() -> None:
    rng = np.random.default_rng(0)
    x, w, g = rng.normal(size=(4, 5)), rng.normal(size=(5, 5)), rng.normal(size=(4, 5))

    def run(f: Any) -> tuple[Any, ...]:
        value, pull = vjp(lambda x, w: f(f(x, w), w), x, w)
        return value, *pull(g)

    for plain, kept in zip(run(block), run(checkpoint(block)), strict=True):
        assert np.array_equal(plain, kept)
    assert np.array_equal(block(x, w), checkpoint(block)(x, w))


def test_checkpoints_nest() -> None:
    inner = checkpoint(lambda x: ops.tanh(x * x))
    outer = checkpoint(lambda x, y: inner(x) * inner(y) + inner(x))

    def plain(x: Any, y: Any) -> Any:
        a, b = ops.tanh(x * x), ops.tanh(y * y)
        return a * b + a

    for c, expected in zip(vjp(outer, A, B)[1](A), vjp(plain, A, B)[1](A), strict=True):
        close(c, expected)


def test_checkpoint_at_second_order() -> None:
    def f(x: Any) -> Any:
        return ops.sum(ops.tanh(x * x) * x)

    def hessian_product(f: Any) -> Any:
        return grad(lambda x: ops.sum(grad(f)(x) * B))(A)

    close(hessian_product(checkpoint(f)), hessian_product(f))


@dataclass(frozen=True)
class Layer:
    weight: Any
    bias: Any
    name: str = "layer"


def test_checkpoint_takes_trees() -> None:
    layer = Layer(np.eye(3) * 0.5, B)

    def f(layer: Layer, pair: dict[str, Any]) -> Any:
        return linear(pair["x"], layer.weight) + layer.bias * pair["scale"]

    x = np.stack([A, B])
    plain = vjp(f, layer, {"x": x, "scale": A})[1](x)
    kept = vjp(checkpoint(f), layer, {"x": x, "scale": A})[1](x)
    assert isinstance(kept[0], Layer)
    assert kept[0].name == "layer"
    for p, k in ((plain[0].weight, kept[0].weight), (plain[0].bias, kept[0].bias), (plain[1]["x"], kept[1]["x"])):
        assert np.array_equal(p, k)
    assert np.array_equal(plain[1]["scale"], kept[1]["scale"])


def test_checkpoint_refuses_a_tensor_that_is_no_argument() -> None:
    with pytest.raises(TypeError, match="not among its arguments"):
        vjp(lambda x, y: checkpoint(lambda x: x * y)(x), A, B)


def test_checkpoint_takes_a_tensor_of_an_outer_derivative_by_closure() -> None:
    def outer(x: Any) -> Any:
        return ops.sum(grad(lambda y: ops.sum(checkpoint(lambda y: y * y * x)(y)))(B))

    close(grad(outer)(A), 2 * B)


def test_checkpoint_must_return_one_array() -> None:
    with pytest.raises(TypeError, match="checkpoint: the function must return one array, not tuple"):
        vjp(checkpoint(lambda x: (x, x)), A)


# Depth


def test_a_chain_of_20000_operations_differentiates() -> None:
    def f(x: Any) -> Any:
        for _ in range(10_000):
            x = -(x * 1.0001)
        return x

    close(np.log(np.abs(vjp(f, np.ones(2))[1](np.ones(2))[0])) / 10_000, np.full(2, np.log(1.0001)))


def test_gradient_of_a_float_function_is_zero() -> None:
    value, g = value_and_grad(lambda x: 2.5)(A)
    assert value == 2.5
    assert not g.any()
