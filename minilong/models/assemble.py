"""From a configuration and arrays to the model of these very arrays: nothing is drawn and nothing is copied.

`build` without a key gives the structure with places instead of weights; here the arrays are put into the places. They
may be views of a mapped file, turned ones too, and matrices may stay in low-bit blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from minilong.autodiff.tree import is_leaf
from minilong.backend import Array
from minilong.errors import UserError
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import Embedding, EncoderDecoder, LanguageModel, Linear
from minilong.nn.lowbit import LowBit, LowBitEmbedding, LowBitLinear, planes

SHOWN = 8
"""Arrays that an error names of each sort; the rest are counted."""


def assemble(
    config: ModelConfig, vocabulary: int, arrays: Mapping[str, Array | LowBit], source: str
) -> LanguageModel | EncoderDecoder:
    """The model of these arrays, by their field paths (`stack.layers.0.attention.query.weight`).

    A weight is (in, out), and as `LowBit` (out, in) as it lies in a file; tables are (entries, width). source: what the
    arrays come from, for errors. UserError that names all arrays that are missing, unexpected or misshapen at once.
    """
    model = build(config, vocabulary, None)
    check_shapes(shapes(model), arrays, source)
    found: LanguageModel | EncoderDecoder = _filled(model, "", arrays)
    return found


def shapes_of(config: ModelConfig, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Field path -> shape of every array of the configured model, which is not built."""
    return shapes(build(config, vocabulary, None))


def shapes(model: Any, path: str = "") -> dict[str, tuple[int, ...]]:
    """Field path -> shape of every array of a model."""
    return {name: tuple(x.shape) for name, x in _places(model, path)}


def check_shapes(wanted: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array | LowBit], source: str) -> None:
    """UserError of one line where the arrays are not those that are wanted, in name, shape or type."""
    missing = [name for name in wanted if name not in arrays]
    unexpected = [name for name in arrays if name not in wanted]
    wrong = []
    for name, shape in wanted.items():
        if name in arrays:
            reason = _misfit(name, arrays[name], shape)
            wrong += [f"{name} ({reason})"] if reason else []
    report(source, missing, unexpected, wrong)


def report(source: str, missing: list[str], unexpected: list[str], wrong: list[str]) -> None:
    """UserError that lists what does not fit, or nothing where all is well."""
    sorts = (("missing", missing), ("unexpected", unexpected), ("misshapen", wrong))
    found = [f"{len(names)} {sort}: {_some(names)}" for sort, names in sorts if names]
    if found:
        raise UserError(
            f"the arrays of {source} are not those of the model that it describes: {'; '.join(found)}; "
            "fetch it again, or mend its configuration"
        )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _misfit(name: str, array: Array | LowBit, shape: tuple[int, ...]) -> str | None:
    """Why an array cannot stand in its place, or None."""
    found = tuple(array.shape)
    if isinstance(array, LowBit):
        if len(shape) != 2:
            return f"{array.kind}, but this array must be floating-point"
        found = found if name.endswith(".table") else found[::-1]
    elif np.dtype(array.dtype).kind != "f" and "bfloat16" not in str(array.dtype):
        return f"{array.dtype}, not floating-point"
    return None if found == shape else f"{_show(found)}, not {_show(shape)}"


def _show(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _places(tree: Any, path: str) -> list[tuple[str, Any]]:
    """Path and array of every place, in field order."""
    if is_leaf(tree):
        return [(path, tree)]
    return [found for name, part in _parts(tree) for found in _places(part, f"{path}.{name}" if path else name)]


def _filled(tree: Any, path: str, arrays: Mapping[str, Array | LowBit]) -> Any:
    """The tree with the arrays in their places."""
    if is_leaf(tree):
        return arrays[path]
    if isinstance(tree, tuple):
        return tuple(_filled(part, f"{path}.{name}" if path else name, arrays) for name, part in _parts(tree))
    if not is_dataclass(tree) or isinstance(tree, type):
        return tree
    own = {name: _filled(part, f"{path}.{name}" if path else name, arrays) for name, part in _parts(tree)}
    if isinstance(tree, Linear) and isinstance(own["weight"], LowBit):
        return LowBitLinear(planes(own["weight"]), own["bias"])
    if isinstance(tree, Embedding) and isinstance(own["table"], LowBit):
        return LowBitEmbedding(planes(own["table"]))
    if all(value is getattr(tree, name) for name, value in own.items()):
        return tree  # no arrays: a kernel, a rate of dropout
    new = object.__new__(type(tree))
    for name, value in own.items():
        object.__setattr__(new, name, value)
    return new


def _parts(tree: Any) -> list[tuple[str, Any]]:
    """Name and value of what a tuple or dataclass consists of."""
    if isinstance(tree, tuple):
        return [(str(i), part) for i, part in enumerate(tree)]
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(f.name, getattr(tree, f.name)) for f in fields(tree)]
    return []
