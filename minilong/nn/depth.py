"""How a stack of layers is run, by name: what is stored for the derivative, and what is computed again.

    stored       x + f(x), branch after branch; keeps all that the branches' rules name
    checkpoint   the same values; keeps the input of each layer, and runs a layer again for its derivative
    sqrt         the same values; keeps about sqrt(L) inputs of groups of layers, and checkpoints within a group
    reversible   another network, with two streams; keeps nothing that grows with depth
    momentum     another network, with a velocity; keeps log2(1/gamma) bits per branch and element

The last two come back exactly (`reversible.py`). A branch is `(f, params)` with f(params, x, *extras) -> what is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minilong.autodiff import Tensor, checkpoint
from minilong.autodiff.tree import leaves, rebuild
from minilong.errors import did_you_mean
from minilong.nn.reversible import Branch, run_momentum, run_reversible

DEPTHS = ("stored", "checkpoint", "sqrt", "reversible", "momentum")
PLAIN = ("stored", "checkpoint", "sqrt")
"""Those that compute x + f(x), with equal values."""


def run(depth: str, branches: Sequence[Branch], x: Any, *extras: Any, per_layer: int = 1, momentum: float = 0.9) -> Any:
    """The stack of branches on x, in one of the ways of `DEPTHS` (`eq:residual-stack` for the first three).

    per_layer: branches that make a layer, the unit of checkpoints. momentum: gamma of `run_momentum`. The gradient
    reaches x, the branches' params and the extras. Errors: ValueError for an unknown name.
    """
    if depth == "reversible":
        return run_reversible(branches, x, *extras)
    if depth == "momentum":
        return run_momentum(branches, x, *extras, gamma=momentum)
    return chain(depth, [(_Residual(f), params) for f, params in branches], x, *extras, per_layer=per_layer)


def run_stored(branches: Sequence[Branch], x: Any, *extras: Any) -> Any:
    """x + f(x), one branch after another (`eq:residual-stack`)."""
    return run("stored", branches, x, *extras)


def run_checkpointed(branches: Sequence[Branch], x: Any, *extras: Any, every: int | str = 1) -> Any:
    """As `run_stored`, keeping the input of each group of `every` branches, or of about sqrt(L) of them (`"sqrt"`)."""
    if every == "sqrt":
        return run("sqrt", branches, x, *extras)
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every={every!r}; it must be a number of branches, or 'sqrt'")
    return run("checkpoint", branches, x, *extras, per_layer=every)


def chain(depth: str, steps: Sequence[Branch], x: Any, *extras: Any, per_layer: int = 1) -> Any:
    """x <- f(params, x, *extras), step after step, stored or checkpointed: for layers that are not a sum x + f(x).

    depth: `stored`, `checkpoint` (every `per_layer` steps), or `sqrt`. Values are bit-identical. Source: Chen et al.
    2016. A group of `sqrt` checkpoints its own layers, else it would keep all that sqrt(L) layers compute; so layers
    are run three times in all.
    """
    if depth not in PLAIN:
        near = did_you_mean(depth, DEPTHS)
        raise ValueError(f"depth {depth!r}{near} is none of {', '.join(PLAIN)} for steps, or {', '.join(DEPTHS)}")
    if depth == "stored":
        return _through(steps, x, extras)
    if depth == "checkpoint":
        return _checkpointed(steps, per_layer, x, extras)
    group = per_layer * group_size(math.ceil(len(steps) / per_layer))
    return _checkpointed(steps, group, x, extras, within=per_layer)


def group_size(layers: int) -> int:
    """Layers in a group of `sqrt`: L / group + group is then least, up to rounding."""
    return max(1, math.isqrt(layers))


@dataclass(frozen=True)
class _Residual:
    """x + f(x) as a step."""

    f: Callable[..., Any]

    def __call__(self, params: Any, x: Any, *extras: Any) -> Any:
        return x + self.f(params, x, *extras)


def _through(steps: Sequence[Branch], x: Any, extras: Any) -> Any:
    for f, params in steps:
        x = f(params, x, *extras)
    return x


def _checkpointed(steps: Sequence[Branch], every: int, x: Any, extras: Any, within: int = 0) -> Any:
    """A checkpoint around each `every` steps, and inside it around each `within` (none if 0)."""
    for i in range(0, len(steps), every):
        x = _at_once(steps[i : i + every], x, extras, within)
    return x


def _at_once(steps: Sequence[Branch], x: Any, extras: Any, within: int) -> Any:
    """The steps as one checkpoint of x and of the tensors among params and extras; the rest is constant.

    What is no tensor stays what it is: an argument of a checkpoint becomes a tensor when it is run again, which
    masks, indices and tables of angles must not.
    """
    functions = [f for f, _ in steps]
    arguments = ([params for _, params in steps], extras)
    given = leaves(arguments)
    live = [i for i, t in enumerate(given) if type(t) is Tensor]
    constants = [None if type(t) is Tensor else t for t in given]

    def call(x: Any, *tensors: Any) -> Any:
        values = list(constants)
        for i, t in zip(live, tensors, strict=True):
            values[i] = t
        params, now = rebuild(arguments, iter(values))
        again = list(zip(functions, params, strict=True))
        return _checkpointed(again, within, x, now) if within else _through(again, x, now)

    return checkpoint(call)(x, *[given[i] for i in live])
