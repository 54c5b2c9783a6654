"""What the engine must do, as functions that raise AssertionError: run by `test_nesting.py` and against wrong engines.

They call the engine through its module, so that a wrong one can be put in its place.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minilong.autodiff import REGISTRY, Primitive, core, ops, primitive, real

A, B = np.array([0.3, -0.7, 1.1]), np.array([0.9, 0.2, -0.4])


def cotangents(f: Any, *xs: Any, g: Any = None) -> Any:
    """The cotangents of the inputs for g (by default, of ones)."""
    value, pull = core.vjp(f, *xs)
    return pull(np.ones(np.shape(value)) if g is None else g)


def close(actual: Any, expected: Any) -> None:
    """Equal up to a few units in the last place."""
    assert np.shape(actual) == np.shape(expected)
    assert np.allclose(actual, expected, rtol=1e-14, atol=1e-15), f"{actual} is not {expected}"


def repeated_inputs() -> None:
    """x + x, x x, and x three times."""
    close(cotangents(lambda x: x + x, A)[0], 2 * np.ones(3))
    close(cotangents(lambda x: x * x, A)[0], 2 * A)
    close(cotangents(lambda x: x * x * x, A)[0], 3 * A * A)
    close(cotangents(lambda x: ops.concatenate(x, x, x, axis=0), A)[0], 3 * np.ones(3))


def fan_out() -> None:
    """One value with 64 uses, which all count, in order and out of order."""

    def f(x: Any) -> Any:
        y = ops.tanh(x)
        total = y
        for i in range(1, 64):
            total = total + y * float(i)
        return total

    close(cotangents(f, A)[0], (1 + sum(range(1, 64))) * (1 - np.tanh(A) ** 2))


def diamonds() -> None:
    """Two ways of different length from one value to another, many times over: 2^30 paths, 30 nodes."""

    def f(x: Any) -> Any:
        for _ in range(30):
            x = x * 0.5 + ops.tanh(0.0 - (0.0 - x)) * 0.5
        return x

    x, slope = A, np.ones(3)
    for _ in range(30):
        slope = slope * (0.5 + 0.5 * (1 - np.tanh(x) ** 2))
        x = 0.5 * x + 0.5 * np.tanh(x)
    assert np.allclose(cotangents(f, A)[0], slope, rtol=1e-12)


def borrowed_arrays_stay() -> None:
    """A cotangent that came from outside, or goes to two inputs, is never written to."""
    g = np.array([1.0, 2.0, 3.0])
    for f in (lambda x: x + x, lambda x: (x + x) + x, lambda x: ops.add(x, x) + ops.neg(x) + x):
        cotangents(f, A, g=g)
        assert np.array_equal(g, [1.0, 2.0, 3.0])
    # a + b hands g to both; a has a further use, whose part must not reach b.
    ga, gb = cotangents(lambda a, b: (a + b) + a * 2.0 + a * 3.0, A, B, g=g)
    close(ga, 6 * g)
    close(gb, g)


def unused_inputs() -> None:
    """Inputs without influence get zeros of their shape and type, also when the value is a constant."""
    ga, gb = cotangents(lambda a, b: a * 2.0, A, np.ones((2, 2), np.float32))
    close(ga, 2 * np.ones(3))
    assert gb.shape == (2, 2)
    assert gb.dtype == np.float32
    assert not gb.any()
    assert not cotangents(lambda a: B, A)[0].any()
    assert not cotangents(lambda a: core.stop_gradient(a) * B, A)[0].any()
    assert cotangents(lambda a: 3.0, A)[0].shape == (3,)


@contextmanager
def with_none() -> Iterator[Primitive]:
    """An operation whose rule has no cotangent for its second input."""

    @primitive(eq="eq:none", shapes="(),()->()", domain=real(-1, 1))
    def first(xp: Any, a: Any, b: Any) -> Any:
        """a, whatever b is"""
        return a * 1.0

    @first.vjp
    def first_vjp(g: Any) -> tuple[Any, ...]:
        return g, None

    try:
        yield first
    finally:
        del REGISTRY["first"]


def missing_cotangents() -> None:
    """A rule may answer None; what else leads to that input still counts, and so does all that is below it."""
    with with_none() as first:

        def f(a: Any, b: Any) -> Any:
            y = ops.tanh(b)
            return first(a, y) + y * 2.0

        ga, gb = cotangents(f, A, B)
        close(ga, np.ones(3))
        close(gb, 2 * (1 - np.tanh(B) ** 2))
        ga, gb = cotangents(lambda a, b: first(a, ops.tanh(b) * a), A, B)
        close(ga, np.ones(3))
        close(gb, np.zeros(3))


def perturbations_are_kept_apart() -> None:
    """d/dx [x d/dy (x + y)] = 1, d/dx [x d/dy x] = 0, and a third derivative."""
    one, two = np.array(1.0), np.array(2.0)
    close(core.grad(lambda x: x * core.grad(lambda y: x + y)(one))(two), 1.0)
    # y is no tensor of the outer derivative and x none of the inner one: only the depth tells them apart.
    close(core.grad(lambda x: x * core.grad(lambda y: x * 1.0)(one))(two), 0.0)
    close(core.grad(lambda x: core.grad(lambda y: x * y * y)(x) * x)(two), 3 * 2 * 2.0**2)
    close(core.grad(core.grad(core.grad(lambda x: x * x * x * x)))(two), 24 * 2.0)


def mixed_second_derivatives() -> None:
    """d/dv of <d/dw f(w, v), c> where w is no input of the outer derivative, through a fused kernel."""
    from minilong.autodiff import softmax

    w, v, c = A, B, np.array([0.2, 0.5, -1.0])

    def slope(v: Any) -> Any:
        return ops.sum(core.grad(lambda w: ops.sum(softmax(w) * v))(w) * c)

    p = np.exp(w) / np.exp(w).sum()
    close(core.grad(slope)(v), p * (c - (p * c).sum()))


def levels_are_left() -> None:
    """A derivative leaves no trace in the next one, also when its function raises."""
    levels = []

    def note(x: Any) -> Any:
        levels.append(x.level)
        return x

    def fail(x: Any) -> Any:
        raise KeyError

    core.vjp(note, A)
    try:
        core.vjp(fail, A)
    except KeyError:
        core.vjp(note, A)
    assert levels == [1, 1]


def graphs_are_consumed() -> None:
    """A second pull raises instead of answering with other numbers."""
    _, pull = core.vjp(lambda x: ops.sum(ops.tanh(x) * x), A)
    pull(np.ones(()))
    try:
        pull(np.ones(()))
    except RuntimeError as error:
        assert "already consumed" in str(error)  # noqa: PT017 (these functions are plain assertions)
    else:
        raise AssertionError("a graph was pulled through twice")


def gradients_are_delivered() -> None:
    """Every leaf's gradient once, zeros for one without influence or without a cotangent, and each let go then."""
    with with_none() as first:

        def f(leaves: Any) -> Any:
            a, b, _, d = leaves
            return ops.sum(first(ops.tanh(a) * ops.exp(b), d))

        found: dict[int, Any] = {}
        given: list[weakref.ref[Any]] = []
        x = (A, B, np.ones((2, 2), np.float32), np.ones(3))

        def receive(i: int, g: Any) -> None:
            assert i not in found, f"leaf {i} comes twice"
            assert not any(ref() is not None for ref in given), "an earlier piece is still held"
            found[i] = g.copy()
            given.append(weakref.ref(g))

        value = core.deliver_gradient(f, x, receive)
        t, e = np.tanh(A), np.exp(B)
        close(value, (t * e).sum())
        assert sorted(found) == [0, 1, 2, 3]
        for i, right in enumerate(((1 - t**2) * e, t * e, np.zeros((2, 2)), np.zeros(3))):
            close(found[i], right)
            assert found[i].dtype == x[i].dtype
    pieces: list[Any] = []
    assert core.deliver_gradient(lambda leaves: 3.0, x, lambda i, g: pieces.append(i)) == 3.0
    assert pieces == [0, 1, 2, 3]


LAWS = (
    repeated_inputs,
    fan_out,
    diamonds,
    borrowed_arrays_stay,
    unused_inputs,
    missing_cotangents,
    perturbations_are_kept_apart,
    mixed_second_derivatives,
    levels_are_left,
    graphs_are_consumed,
    gradients_are_delivered,
)
