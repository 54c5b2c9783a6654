"""Keyword arguments for the primitives, drawn at random for given input shapes: what tests call an operation with.

Each function here is a `draw` of `primitive.py`: `(generator, input_shapes) -> keywords`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Shapes = tuple[tuple[int, ...], ...]


def number(rng: np.random.Generator, _: Shapes) -> dict[str, Any]:
    """`by`: a number away from zero."""
    return {"by": float(rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 2.0))}


def exponent(rng: np.random.Generator, _: Shapes) -> dict[str, Any]:
    """`exponent`: whole or fractional, positive or negative."""
    return {"exponent": float(rng.choice([2.0, 3.0, -1.0, 0.5, 1.7]))}


def condition(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`condition`: booleans of the inputs' common shape."""
    return {"condition": rng.random(np.broadcast_shapes(*shapes)) < 0.5}


def axes(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`axis` (None, one, or several) and `keepdims`."""
    n = len(shapes[0])
    some = tuple(int(a) for a in sorted(rng.choice(n, rng.integers(1, n + 1), replace=False))) if n else ()
    choices: list[Any] = [None, some] + ([int(rng.integers(-n, n))] if n else [])
    return {"axis": choices[rng.integers(len(choices))], "keepdims": bool(rng.integers(2))}


def new_shape(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`shape`: the same elements in other axes."""
    size = int(np.prod(shapes[0]))
    divisors = [d for d in range(1, max(size, 1) + 1) if size % d == 0]
    d = int(rng.choice(divisors))
    return {"shape": [(size,), (d, size // d), (1, size // d, d, 1)][rng.integers(3)]}


def order_of_axes(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`order`: a permutation of the axes."""
    return {"order": tuple(int(a) for a in rng.permutation(len(shapes[0])))}


def target_shape(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`shape`: more axes in front, and axes of size 1 widened."""
    wide = tuple(int(rng.integers(1, 4)) if n == 1 else n for n in shapes[0])
    return {"shape": tuple(int(n) for n in rng.integers(1, 3, size=rng.integers(0, 3))) + wide}


def cut(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`key`: slices with steps of either sign, a single index, or repeated indices along the first axis."""
    shape = shapes[0]
    if not shape:
        return {"key": ()}
    kind = rng.integers(3) if shape[0] else 0  # an empty axis has no index
    if kind == 0:
        return {"key": tuple(slice(int(rng.integers(max(n, 1))), None, int(rng.choice([1, 2, -1]))) for n in shape)}
    if kind == 1:
        return {"key": (int(rng.integers(-shape[0], shape[0])), ...)}
    return {"key": rng.integers(0, shape[0], size=4)}


def place(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`key` and `shape`: where the input goes in a larger array."""
    front = int(rng.integers(0, 3))
    if not shapes[0]:
        return {"key": (front,), "shape": (4,)}
    rows = shapes[0][0]
    if rng.integers(2):
        return {"key": (slice(front, front + rows),), "shape": (rows + 3, *shapes[0][1:])}
    return {"key": rng.integers(0, 4, size=rows), "shape": (4, *shapes[0][1:])}


def joined(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`axis`: the axis in which the inputs' shapes differ (`-2` by the declared signature)."""
    return {"axis": -2}


def along_last(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`indices`: one position on the last axis for each row."""
    return {"indices": rng.integers(0, shapes[0][-1], size=shapes[0][:-1])}


def rows(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`indices`: rows of a table, with repetitions."""
    return {"indices": rng.integers(0, shapes[0][0], size=(2, 5))}


def targets(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`targets`: a class for each row, some of them ignored."""
    classes = rng.integers(0, shapes[0][-1], size=shapes[0][:-1])
    return {"targets": np.where(rng.random(classes.shape) < 0.25, -100, classes)}


def targets_in_chunks(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`targets` for rows that a matrix (d, classes) projects, and how many rows are taken at a time."""
    some = targets(rng, ((*shapes[0][:-1], shapes[1][-1]),))
    return some | {"chunk": [None, 1, 2, 3][rng.integers(4)], "denominator": [None, 5.0][rng.integers(2)]}


def constant_layer(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`weight` (d, n), and sometimes `bias` (n), of a layer that does not learn, for rows (..., d)."""
    n = int(rng.integers(1, 5))
    weight = rng.uniform(-1.5, 1.5, (shapes[0][-1], n))
    return {"weight": weight, "bias": [None, rng.uniform(-1.5, 1.5, n)][rng.integers(2)]}


def projection_and_targets(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """The same with `targets`, and how many rows are taken at a time."""
    layer = constant_layer(rng, shapes)
    return layer | targets_in_chunks(rng, (shapes[0], layer["weight"].shape))


def kept(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`keep`: zeros and a scale, as dropout has it."""
    return {"keep": (rng.random(shapes[0]) < 0.7) / 0.7}


def visible(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`allowed` and `scale`: a mask over the last two axes, some rows of which may be empty."""
    return {"allowed": rng.random((shapes[0][-2], shapes[1][-2])) < 0.6, "scale": float(rng.uniform(0.3, 1.0))}


def angles(rng: np.random.Generator, shapes: Shapes) -> dict[str, Any]:
    """`turn`: complex numbers of modulus 1 for each position and pair; `interleaved`."""
    t, d = shapes[0][-2], shapes[0][-1]
    return {"turn": np.exp(1j * rng.uniform(-3, 3, size=(t, d // 2))), "interleaved": bool(rng.integers(2))}
