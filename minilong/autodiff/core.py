"""Reverse-mode differentiation of array programs. Start reading here.

A **tensor** is a value with a pointer into a graph. The graph links *nodes*, never tensors: a node knows which
operation made it (`primitive`), the nodes of its inputs (`parents`), and exactly those arrays that the operation's
vector-Jacobian product names (`saved`). Everything else is freed as soon as the program lets go of it.

`vjp(f, x)` runs `f` on tensors and returns the value with a function `pull`, which carries a cotangent of the value
back to cotangents of the inputs. The sweep is iterative, so a chain of any length differentiates; it frees each node's
saved arrays as it goes, and a graph can be pulled through once.

Calling `f` on plain arrays is inference: no tensor, no graph, and nothing to switch off. Values that are no tensors of
this `vjp` are constants. Derivatives nest: each `vjp` has a level, and a tensor's data may be a tensor of an outer
level. The level comes from the only ambient state here, a context variable, so several threads may differentiate at
once. (Levels counted from the arguments alone would confuse the two derivatives in d/dx [x * d/dy (x + y)].)
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from minilong.autodiff.tree import leaves, rebuild
from minilong.backend import Array, array_module, is_array

if TYPE_CHECKING:
    from minilong.autodiff.primitive import Primitive

_depth: ContextVar[int] = ContextVar("minilong_vjp_depth", default=0)


class Node:
    """One step of a traced program. A node without primitive is an input of the `vjp`."""

    __slots__ = ("params", "parents", "primitive", "saved")

    def __init__(
        self,
        primitive: Primitive | Checkpoint | None = None,
        parents: list[Any] | tuple[()] = (),
        saved: list[Any] | None = None,
        params: dict[str, Any] | None = None,
    ) -> None:
        self.primitive, self.parents, self.saved, self.params = primitive, parents, saved, params


class Tensor:
    """A value that is being differentiated: `data` (an array, or a tensor of an outer level), `node`, `level`.

    Operators are bound in `ops.py`. A tensor refuses to become an array silently: NumPy functions raise TypeError.
    """

    __slots__ = ("data", "level", "node")
    __array_ufunc__ = None  # an ndarray's operators then defer to ours

    def __init__(self, data: Any, node: Node, level: int) -> None:
        self.data, self.node, self.level = data, node, level

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.data.shape)

    @property
    def dtype(self) -> Any:
        """Element type."""
        return self.data.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        made = self.node.primitive.name if self.node.primitive else "input"
        return f"Tensor({made}, shape={self.shape}, dtype={self.dtype}, level={self.level})"

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a Tensor is not an array: use an operation of minilong.autodiff, or stop_gradient(x)")

    def __bool__(self) -> NoReturn:
        raise TypeError("a Tensor is no number, truth value or index inside a derivative: use stop_gradient(x)")

    __float__ = __int__ = __index__ = __bool__

    def __eq__(self, _: object) -> NoReturn:  # Python's own would answer False, whatever the numbers
        raise TypeError("a Tensor cannot be compared inside a derivative: compare stop_gradient(x) instead")

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__
    __hash__ = object.__hash__


def vjp(f: Callable[..., Any], *xs: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """`f(*xs)` and its pullback: `pull(g)` gives the cotangents of the inputs for the cotangent `g` of the value.

    Each input is an array or a tree of arrays (tuple, list, dict, dataclass); its cotangent has the same structure.
    `f` must return one array. Inputs that it does not depend on get zeros. `pull` may be called once. Cotangents may
    share memory with each other and with `g`, or be views that repeat one number: copy before writing into one.
    """
    flat = [x for tree in xs for x in leaves(tree)]
    nodes = [Node() for _ in flat]
    value, root = _trace(lambda tensors: f(*[rebuild(tree, tensors) for tree in xs]), flat, nodes)

    def pull(g: Any) -> tuple[Any, ...]:
        if np.shape(value) != _shape(g):
            raise ValueError(f"pull: cotangent of shape {_shape(g)} for a value of shape {np.shape(value)}")
        found: dict[int, Any] = {}
        if root is not None:
            backward(root, g, nodes, found.__setitem__)
        cotangents = iter([zeros_like(x) if found.get(i) is None else found[i] for i, x in enumerate(flat)])
        return tuple(rebuild(tree, cotangents) for tree in xs)

    return value, pull


def _trace(f: Callable[[Any], Any], flat: list[Any], nodes: list[Node]) -> tuple[Any, Node | None]:
    """Run `f` on tensors of these inputs; its value, and the node that made it (None where it depends on no input)."""
    level = _depth.get() + 1
    token = _depth.set(level)
    try:
        y = f(iter([Tensor(x, node, level) for x, node in zip(flat, nodes, strict=True)]))
    finally:
        _depth.reset(token)
    traced = type(y) is Tensor and y.level == level
    if not (traced or type(y) is Tensor or is_array(y) or isinstance(y, int | float)):
        raise TypeError(f"vjp: the function must return one array, not {type(y).__name__}")
    return (y.data, y.node) if traced else (y, None)


def backward(root: Node, g: Any, inputs: list[Node], deliver: Callable[[int, Any], None]) -> None:
    """Sweep the graph from `root` with cotangent `g`; `deliver(i, cotangent)` for each of `inputs` that is reached.

    A node is ready when all its children have contributed. The first contribution to a cotangent is borrowed (it may be
    an array that somebody else holds), the second allocates, and from then on the sum belongs to the sweep and grows in
    place: fan-out costs one array, not one per use.
    """
    waiting = count_children(root)
    cotangent: dict[Node, Any] = {root: g}
    owned: set[Node] = set()
    place = {node: i for i, node in enumerate(inputs)}
    ready = [root]
    while ready:
        node = ready.pop()
        g = cotangent.pop(node, None)
        owned.discard(node)
        primitive = node.primitive
        if primitive is None:
            deliver(place[node], g)
            continue
        saved, params = node.saved, node.params
        if saved is None:
            raise RuntimeError(f"the graph of {primitive.name!r} was already consumed; call vjp again")
        node.saved = node.params = None  # what the operation kept is freed as the sweep passes
        parents = node.parents
        if g is None:
            contributions: Any = (None,) * len(parents)
        elif params is None:
            contributions = primitive.rule(g, *saved)
        else:
            contributions = primitive.rule(g, *saved, **params)
        del saved, params, g
        for parent, c in zip(parents, contributions, strict=True):
            if parent is None:
                continue
            if c is not None:
                current = cotangent.get(parent)
                if current is None:
                    cotangent[parent] = c
                elif parent in owned:
                    current += c
                else:
                    total = current + c
                    cotangent[parent] = total
                    if type(total) is np.ndarray or (is_array(total) and total.ndim):
                        owned.add(parent)  # not 0-d: NumPy's scalars are immutable
            waiting[parent] -= 1
            if not waiting[parent]:
                ready.append(parent)
        del contributions


def count_children(root: Node) -> dict[Node, int]:
    """How many edges lead to each node below `root`."""
    count: dict[Node, int] = {}
    stack = [root]
    while stack:
        for parent in stack.pop().parents:
            if parent is not None:
                if parent in count:
                    count[parent] += 1
                else:
                    count[parent] = 1
                    stack.append(parent)
    return count


def value_and_grad(f: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """`(f(x, *rest), df/dx)` for a scalar function. The gradient has the structure of `x`; `rest` is constant."""

    def evaluate(x: Any, *rest: Any) -> tuple[Any, Any]:
        found: dict[int, Any] = {}
        value = deliver_gradient(lambda traced: f(traced, *rest), x, found.__setitem__)
        return value, rebuild(x, (found[i] for i in range(len(found))))

    return evaluate


def deliver_gradient(f: Callable[[Any], Any], x: Any, deliver: Callable[[int, Any], None]) -> Any:
    """`f(x)` for a scalar function, whose gradient is handed over piece by piece: `deliver(i, g)` for each leaf of `x`.

    i counts the leaves in the order of `tree.leaves`. A piece is handed over as soon as the sweep has it and then let
    go, so the gradients of a whole model never exist at a time unless the receiver keeps them. It may share memory with
    other arrays: copy it, never write into it.
    """
    flat = leaves(x)
    nodes = [Node() for _ in flat]
    value, root = _trace(lambda tensors: f(rebuild(x, tensors)), flat, nodes)
    if np.shape(value) != ():
        raise ValueError(f"grad: a gradient needs a scalar, not shape {np.shape(value)} (use vjp)")
    missing = set(range(len(flat)))

    def hand_over(i: int, g: Any) -> None:
        if g is not None:
            missing.discard(i)
            deliver(i, g)

    if root is not None:
        backward(root, ones_like(value), nodes, hand_over)
    for i in sorted(missing):
        deliver(i, zeros_like(flat[i]))
    return value


def grad(f: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient of a scalar function with respect to its first argument (an array or a tree of arrays)."""
    evaluate = value_and_grad(f)
    return lambda x, *rest: evaluate(x, *rest)[1]


class Checkpoint:
    """The operation of a checkpointed call: keeps the inputs, and runs the function again when its VJP is asked for."""

    name = "checkpoint"

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f

    def rule(self, g: Any, *inputs: Any) -> tuple[Any, ...]:
        """Cotangents of the inputs, by a new forward pass."""
        return vjp(self.f, *inputs)[1](g)


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, keeping only its inputs for the derivative and computing the rest a second time (Chen et al. 2016).

    Arguments are arrays or trees of arrays. Values are bit-identical to those of `f`, which must be a function of its
    arguments alone: a tensor that it closes over would lose its gradient, and is refused with a TypeError.
    """

    def call(*trees: Any) -> Any:
        flat = [x for tree in trees for x in leaves(tree)]
        level = max((x.level for x in flat if type(x) is Tensor), default=0)
        if level == 0:
            return f(*trees)

        def on_leaves(*xs: Any) -> Any:
            supply = iter(xs)
            return f(*[rebuild(tree, supply) for tree in trees])

        traced = [type(x) is Tensor and x.level == level for x in flat]
        raw = [x.data if t else x for x, t in zip(flat, traced, strict=True)]
        y = on_leaves(*raw)
        if not (type(y) is Tensor or is_array(y)):
            raise TypeError(f"checkpoint: the function must return one array, not {type(y).__name__}")
        if type(y) is Tensor and y.level >= level:
            raise TypeError("checkpoint: the function uses a tensor that is not among its arguments; pass it as one")
        parents = [x.node if t else None for x, t in zip(flat, traced, strict=True)]
        return Tensor(y, Node(Checkpoint(on_leaves), parents, raw), level)

    return call


def stop_gradient(x: Any) -> Any:
    """The value of `x` as a constant: the array under a tensor, or `x` itself."""
    while type(x) is Tensor:
        x = x.data
    return x


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if type(x) is Tensor else np.shape(x)


def zeros_like(x: Any) -> Array:
    """Zeros of the shape and type of an array or a tensor (a constant)."""
    value = stop_gradient(x)
    return array_module(value).zeros_like(value)


def ones_like(x: Any) -> Array:
    """Ones of the shape and type of an array or a tensor (a constant)."""
    value = stop_gradient(x)
    return array_module(value).ones_like(value)
