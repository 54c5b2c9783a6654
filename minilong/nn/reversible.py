"""Residual stacks whose activations are recomputed backward from the last one, to the bit, instead of stored.

A **branch** is a pair `(f, params)`: `f(params, x, *extras)` returns what is added to the residual stream. `params` is
a tree of arrays, a layer for instance; `extras` are trees that all branches share (a table of biases, an encoder's
output). `f` is a function of these arguments alone: dropout takes its key from a closure or from `params`, and so sees
the same one again.

Under a derivative the whole stack is one node of the graph, which keeps the last state. Its rule goes from the end to
the beginning: undo a branch, run it again on what it saw, pull the cotangent through. So memory does not grow with
depth, but for the bits that momentum loses. The state is in fixed point (`fixed_point.py`), hence what a branch sees on
the way back equals what it saw, and gradients equal those of stored activations in every bit.

Rounding to the grid counts as the identity in the derivative. Inside an outer derivative (second order) the stack runs
as ordinary operations with the same values, and stores them: see `stored_twin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from minilong.autodiff import Tensor, stop_gradient, vjp
from minilong.autodiff.core import Node, backward
from minilong.autodiff.tree import leaves, rebuild
from minilong.backend import is_array
from minilong.nn.fixed_point import MomentumState, TwoStreams

Branch: TypeAlias = tuple[Callable[..., Any], Any]
"""`(f, params)`: f(params, x, *extras) -> what is added to x."""


def run_reversible(branches: Sequence[Branch], x: Any, *extras: Any) -> Any:
    """A reversible residual network: two streams, each the input of the other's next branch (`eq:reversible-stack`).

    x (...) float32 or float64 -> the same shape: the mean of both streams. Source: Gomez, Ren, Urtasun and Grosse 2017.
    Errors: Diverged where a stream leaves the range of fixed point, RuntimeError where a branch did not repeat itself.
    """
    return _run(branches, x, extras, None)


def run_momentum(branches: Sequence[Branch], x: Any, *extras: Any, gamma: float = 0.9) -> Any:
    """A momentum residual network (`eq:momentum-stack`): v <- gamma v + (1 - gamma) f(x), x <- x + v, from v = 0.

    x (...) float32 or float64 -> the same shape. gamma in [0, 1) is taken as the nearest fraction n/d with d <= 1000.
    Beside the last state, log2(d/n) bits per branch and element are kept; at gamma 0, which is a plain residual stack,
    the velocities themselves. Source: Sander, Ablin, Blondel and Peyré 2021. Errors as in `run_reversible`.
    """
    return _run(branches, x, extras, gamma)


def _run(branches: Sequence[Branch], x: Any, extras: tuple[Any, ...], gamma: float | None) -> Any:
    given = [t for tree in (x, extras, *[params for _, params in branches]) for t in leaves(tree) if type(t) is Tensor]
    level = max((t.level for t in given), default=0)
    if level > 1:
        return stored_twin(branches, x, *extras, gamma=gamma)
    state = _begin(stop_gradient(x), gamma, forget=level == 0)
    slots: dict[Node, int] = {}
    calls = [Call(f, (params, extras), slots) for f, params in branches]
    for call in calls:
        delta = call(state.read())
        if type(delta) is Tensor:
            raise TypeError("a branch uses a tensor that is not among its arguments; pass it as params or extra")
        if not is_array(delta):
            raise TypeError(f"a branch must return one array, not {type(delta).__name__}")
        state.push(delta)
    value = state.value()
    if level == 0:
        return value
    parents: list[Any] = [x.node if type(x) is Tensor else None, *slots]
    operation: Any = Reversal(calls, len(slots))
    return Tensor(value, Node(operation, parents, [state]), level)


def _begin(x: Any, gamma: float | None, *, forget: bool = False) -> TwoStreams | MomentumState:
    return TwoStreams(x, forget=forget) if gamma is None else MomentumState(x, gamma, forget=forget)


class Call:
    """One branch with the values of its arguments, and those of them that are differentiated (`slots` in the node)."""

    def __init__(self, f: Callable[..., Any], arguments: tuple[Any, tuple[Any, ...]], slots: dict[Node, int]) -> None:
        flat = leaves(arguments)
        self.f = f
        self.values = [t.data if type(t) is Tensor else t for t in flat]
        self.arguments = rebuild(arguments, iter(self.values))
        self.live = [i for i, t in enumerate(flat) if type(t) is Tensor]
        self.slots = [slots.setdefault(flat[i].node, len(slots)) for i in self.live]

    def __call__(self, x: Any, *live: Any) -> Any:
        """What the branch adds to x; `live` replaces the arguments that are differentiated."""
        arguments = self.arguments
        if live:
            values = list(self.values)
            for i, value in zip(self.live, live, strict=True):
                values[i] = value
            arguments = rebuild(arguments, iter(values))
        params, extras = arguments
        return self.f(params, x, *extras)


class Reversal:
    """The operation of a reversible stack: keeps the last state, and recomputes what was before it for its VJP."""

    name = "reversible stack"

    def __init__(self, calls: list[Call], slots: int) -> None:
        self.calls, self.slots = calls, slots

    def rule(self, g: Any, state: TwoStreams | MomentumState) -> tuple[Any, ...]:
        """Cotangents of x and of every differentiated argument, in the order of the node's parents."""
        carried = TwoCotangents(g) if isinstance(state, TwoStreams) else MomentumCotangents(g, state)
        found: dict[int, Any] = {}
        owned: set[int] = set()
        for call in reversed(self.calls):
            state.rewind()
            delta, pull = pullback(call, state.read(), *[call.values[i] for i in call.live])
            state.pop(delta)
            del delta
            of_x, *of_arguments = pull(carried.of_delta())
            del pull
            if of_x is not None:
                carried.take(of_x)
            del of_x
            for slot, c in zip(call.slots, of_arguments, strict=True):
                if c is None:
                    continue
                if slot not in found:  # borrowed: it may share memory with another cotangent
                    found[slot] = c
                elif slot in owned:
                    found[slot] += c
                else:
                    found[slot] = found[slot] + c
                    owned.add(slot)
        of_x = carried.of_x()
        if not state.grid.waits:
            state.grid.require(state.back_at_start())
            of_x += state.grid.poison
        elif not state.back_at_start():
            raise RuntimeError(
                "a branch of a reversible stack gave other values when it was run again; "
                "it must be a function of its arguments alone, with dropout from a key"
            )
        return (of_x, *[found.get(i) for i in range(self.slots)])


def pullback(f: Callable[..., Any], *xs: Any) -> tuple[Any, Callable[[Any], list[Any]]]:
    """As `vjp` of arrays, with None instead of zeros for what f does not use: a layer has weights of other branches."""
    root: Node | None = None
    nodes: list[Node] = []

    def traced(*tensors: Tensor) -> Any:
        nonlocal root
        nodes.extend(t.node for t in tensors)
        y = f(*tensors)
        if type(y) is Tensor and y.level == tensors[0].level:
            root = y.node
        return y

    value, _ = vjp(traced, *xs)

    def pull(g: Any) -> list[Any]:
        found: dict[int, Any] = {}
        if root is not None:
            backward(root, g, nodes, found.__setitem__)
        return [found.get(i) for i in range(len(nodes))]

    return value, pull


class TwoCotangents:
    """Cotangents of the two streams, on the way back."""

    def __init__(self, g: Any) -> None:
        self.writes = g * 0.5
        self.reads = g * 0.5

    def of_delta(self) -> Any:
        """Of what the branch returned. From here on the streams are named as at that branch."""
        self.writes, self.reads = self.reads, self.writes
        return self.writes

    def take(self, of_read: Any) -> None:
        """Add what came through the branch."""
        self.reads += of_read

    def of_x(self) -> Any:
        """Of the input, which both streams began as."""
        return self.writes + self.reads


class MomentumCotangents:
    """Cotangents of position and velocity, on the way back."""

    def __init__(self, g: Any, state: MomentumState) -> None:
        self.x = g.copy()  # it grows in place, and `g` may be somebody else's
        self.v: Any = None
        self.gamma, self.share = state.n / state.d, state.share

    def of_delta(self) -> Any:
        """Of what the branch returned: the velocity's, which is also the position's from there on, times a share."""
        if self.v is None:
            self.v = self.x.copy()
        else:
            self.v *= self.gamma
            self.v += self.x
        return self.v * self.share

    def take(self, of_read: Any) -> None:
        """Add what came through the branch."""
        self.x += of_read

    def of_x(self) -> Any:
        """Of the input: the velocity began as a constant."""
        return self.x


def stored_twin(branches: Sequence[Branch], x: Any, *extras: Any, gamma: float | None) -> Any:
    """The same stack as ordinary operations of the graph, which store every activation: same values, same gradients.

    gamma: of `run_momentum`, or None for `run_reversible`. It is the definition that the one-node form equals bit for
    bit, and what an outer derivative differentiates. The formula is computed in floating point for its derivative
    alone; wherever a value is read, that of the fixed-point state takes its place.
    """
    state = _begin(stop_gradient(x), gamma)
    shared = Shared()
    writes: Any
    reads: Any
    writes, reads = (_copy(x, x.data), _copy(x, x.data)) if type(x) is Tensor else (x, x)
    velocity: Any = None
    for f, params in branches:
        params_now, extras_now = shared.use((params, extras))
        delta = f(params_now, standing_for(reads, state.read()), *extras_now)
        state.push(stop_gradient(delta))
        if isinstance(state, TwoStreams):
            writes, reads = reads, writes + delta
        else:
            pushed = delta * state.share
            velocity = pushed if velocity is None else velocity * (state.n / state.d) + pushed
            reads = reads + velocity
    value = reads if isinstance(state, MomentumState) else (writes + reads) * 0.5
    return standing_for(value, state.value())


class StandsFor:
    """The operation of a value that stands for another: the cotangent passes."""

    name = "standing for"

    def rule(self, g: Any) -> tuple[Any, ...]:
        """The cotangent of the output, as it is."""
        return (g,)


def standing_for(x: Any, value: Any) -> Any:
    """`value`, with the derivative of x at every level."""
    if type(x) is not Tensor:
        return value
    return _copy(x, standing_for(x.data, value))


class Shared:
    """Hands out the tensors of a tree so that each use sums its own cotangents first, and the uses from the last on.

    That is the order in which the one-node form adds; floating-point sums in another order differ in their last bits.
    """

    def __init__(self) -> None:
        self.latest: dict[Node, Tensor] = {}

    def use(self, tree: Any) -> Any:
        """The tree, for one branch."""
        return rebuild(tree, self._each(leaves(tree)))

    def _each(self, flat: list[Any]) -> Iterator[Any]:
        for t in flat:
            if type(t) is not Tensor:
                yield t
                continue
            before = self.latest.get(t.node, t)
            here = _copy(before, before.data)
            self.latest[t.node] = here
            yield _copy(here, here.data)


def _copy(t: Tensor, data: Any) -> Tensor:
    """A tensor of other data and a node of its own, through which cotangents pass to t."""
    operation: Any = StandsFor()
    return Tensor(data, Node(operation, [t.node], []), t.level)
