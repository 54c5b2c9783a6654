"""Trees of arrays: tuples, lists, dicts and dataclasses with arrays at the leaves.

A model is such a tree. `leaves` lists its arrays in field order, `rebuild` makes the same structure around other
arrays, `named` gives each array its path (`decoder.layers.0.attention.query.weight`).
An array that stands at two places of a tree is refused by `named`: tie weights by using one field twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def leaves(tree: Any) -> list[Any]:
    """The arrays (or tensors) of a tree, in field order. Numbers, strings, None and other values are no leaves."""
    return [x for _, x in _walk(tree, "")]


def named(tree: Any) -> dict[str, Any]:
    """Path -> array. Raises ValueError where one array has two paths."""
    found = dict(_walk(tree, ""))
    seen: dict[int, str] = {}
    for name, x in found.items():
        if id(x) in seen:
            raise ValueError(f"one array has two names, {seen[id(x)]!r} and {name!r}; use one field twice")
        seen[id(x)] = name
    return found


def rebuild(tree: T, supply: Iterator[Any]) -> T:
    """A tree of the same structure and types, with leaves taken in order from `supply`."""
    if is_leaf(tree):
        return next(supply)  # type: ignore[no-any-return]
    if isinstance(tree, tuple | list):
        items = [rebuild(x, supply) for x in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return type(tree)((k, rebuild(v, supply)) for k, v in tree.items())
    if is_dataclass(tree) and not isinstance(tree, type):
        # Past __init__: a rebuilt layer holds what the original held, and tensors would fail its checks.
        new = object.__new__(type(tree))
        for f in fields(tree):
            object.__setattr__(new, f.name, rebuild(getattr(tree, f.name), supply))
        return new
    return tree


def is_leaf(x: Any) -> bool:
    """Whether `x` stands for an array: it has a shape and an element type (arrays, NumPy scalars, tensors)."""
    return isinstance(x, np.ndarray) or (hasattr(x, "shape") and hasattr(x, "dtype"))


def _walk(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_leaf(tree):
        yield path, tree
        return
    if isinstance(tree, tuple | list):
        items: Any = enumerate(tree)
    elif isinstance(tree, dict):
        items = tree.items()
    elif is_dataclass(tree) and not isinstance(tree, type):
        items = ((f.name, getattr(tree, f.name)) for f in fields(tree))
    else:
        return
    for name, value in items:
        yield from _walk(value, f"{path}.{name}" if path else str(name))
