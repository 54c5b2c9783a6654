"""What a real gradient step takes in this process: the peak of NumPy's memory, and what the graph keeps, by part."""

from __future__ import annotations

import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.autodiff import Tensor
from minilong.autodiff.core import Node
from minilong.keys import Key
from minilong.models.build import build
from minilong.nn import LanguageModel
from minilong.nn.fixed_point import MomentumState, TwoStreams
from minilong.nn.flat import flatten
from minilong.optim import Adam
from minilong.train.config import RunConfig
from minilong.train.estimate import count_parameters, share_needs
from minilong.train.ledger import FLOAT, PARTS
from minilong.train.replicas import Replicas
from minilong.train.source import Source

PART_OF = {
    "linear": "products", "affine": "products", "layer_norm": "norms", "rms_norm": "norms", "gelu": "activations",
    "gelu_tanh": "activations", "silu": "activations", "relu": "activations", "mul": "activations",
    "dropout": "dropout", "rotate": "positions", "checkpoint": "depth", "reversible stack": "depth",
}  # fmt: skip
"""What an operation keeps its arrays for; all others belong to attention. An array that several keep counts for the
first of them, in this order."""

ORDER = (*dict.fromkeys(PART_OF.values()), "attention")
NOT_COUNTED = ("linear_cross_entropy", "affine_cross_entropy", "embedding")
"""The loss, whose gradients are part of its work, and what keeps tokens, which are there anyway."""


@dataclass(frozen=True)
class Step:
    """Bytes of a step: the flat vectors, what is kept for the derivative by part, and the peak of all."""

    parameters: int
    gradients: int
    optimizer: int
    kept: dict[str, int]
    peak: int

    @property
    def work(self) -> int:
        """What the peak holds beside all that is listed; 0 where replicas came to their peaks at different moments."""
        return max(0, self.peak - self.parameters - self.gradients - self.optimizer - sum(self.kept.values()))

    def by_part(self) -> dict[str, int]:
        """All parts in the order of printing, and their sum, the peak."""
        vectors = {"parameters": self.parameters, "gradients": self.gradients, "optimizer": self.optimizer}
        kept = {f"kept: {name}": amount for name, amount in self.kept.items()}
        return vectors | kept | {"at work": self.work, "peak": self.peak}


def predict(config: RunConfig, vocabulary: int) -> Step:
    """The same by the formulas."""
    config = config.resolved()
    parameters = count_parameters(config.model, vocabulary)
    needs, vector = share_needs(config, vocabulary, parameters), FLOAT * parameters
    replicas = config.train.threads // config.train.inner_threads
    kept = {name: replicas * amount for name, amount in needs.kept.items()}
    return Step(vector, replicas * vector, 2 * vector, kept, (3 + replicas) * vector + replicas * needs.peak)


def measure_step(config: RunConfig, source: Source) -> Step:
    """Build the model and differentiate one batch as `train` does, watched by tracemalloc, which slows it a little."""
    config = config.resolved()
    loss, train = source.loss, config.train
    batches = source.batch(0).shards(train.accumulate)
    key = Key.of(train.seed) if config.model.dropout else None
    kept = Kept()
    watching = tracemalloc.is_tracing()
    if not watching:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        vector, model, layout = flatten(build(config.model, source.tokenizer.size, Key.of(train.seed)))
        moments = Adam().init(vector)
        with Replicas(train.threads // train.inner_threads, layout, inner=train.inner_threads) as replicas:
            kept.exclude(vector)
            tracemalloc.reset_peak()
            replicas.gradient(kept.watch(loss), model, batches, key)
            gradients = sum(g.nbytes for g in replicas.gradients)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not watching:
            tracemalloc.stop()
    optimizer = moments.first.nbytes + moments.second.nbytes
    return Step(vector.nbytes, gradients, optimizer, kept.parts(replicas.threads), peak)


def measure_cache(config: RunConfig, vocabulary: int) -> int:
    """Bytes that a decoder's layers hold after one pass over a context of tokens and one token more."""
    c = config.resolved().model
    model = build(c, vocabulary, Key.of(0))
    if not isinstance(model, LanguageModel):
        raise TypeError("an encoder-decoder has no stream to measure")
    stream, tokens = model.start(), np.zeros((1, c.context + 1), np.int64)
    model.extend(tokens[:, :-1], stream)
    model.extend(tokens[:, -1:], stream)
    return stream.bytes


class Kept:
    """Adds up, over the shares that are differentiated at once, what their graphs keep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._excluded: set[int] = set()
        self._found: list[dict[str, int]] = []

    def exclude(self, *arrays: np.ndarray) -> None:
        """Arrays that are there anyway."""
        self._excluded |= {id(owner(x)) for x in arrays}

    def watch(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """The loss, which also looks at the graph that it has made."""

        def watched(*args: Any, **keywords: Any) -> Any:
            value = loss(*args, **keywords)
            if type(value) is Tensor:
                found = kept_by(value.node, self._excluded)
                with self._lock:
                    self._found.append(found)
            return value

        return watched

    def parts(self, replicas: int) -> dict[str, int]:
        """Bytes by part of as many shares as are differentiated at once, the largest."""
        largest = sorted(self._found, key=lambda f: -sum(f.values()))[:replicas]
        together = sum((Counter(f) for f in largest), Counter())
        return {name: together[name] for name in PARTS if together[name]}


def kept_by(root: Node, excluded: Iterable[int] = ()) -> dict[str, int]:
    """Bytes that the graph below a node keeps, by part; memory that several nodes keep is counted once."""
    seen, by_part = set(excluded), Counter[str]()
    nodes = sorted(_nodes(root), key=lambda n: ORDER.index(_part(n)))
    for node in nodes:
        for array in _arrays([node.saved, list((node.params or {}).values())]):
            whole = owner(array)
            if id(whole) not in seen:
                seen.add(id(whole))
                by_part[_part(node)] += whole.nbytes
    return {name: by_part[name] for name in ORDER if by_part[name]}


def owner(x: np.ndarray) -> np.ndarray:
    """The array whose memory a view shows."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def _part(node: Node) -> str:
    return PART_OF.get(node.primitive.name if node.primitive else "", "attention")


def _nodes(root: Node) -> list[Node]:
    """The operations below a node that are counted."""
    found, stack = {root: None}, [root]
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in found:
                found[parent] = None
                stack.append(parent)
    return [n for n in found if n.primitive is not None and n.primitive.name not in NOT_COUNTED]


def _arrays(items: Iterable[Any]) -> Iterator[np.ndarray]:
    """The arrays in lists, and in the state of a reversible stack."""
    for item in items:
        if isinstance(item, np.ndarray):
            yield item
        elif isinstance(item, list | tuple):
            yield from _arrays(item)
        elif isinstance(item, TwoStreams | MomentumState):
            yield from _arrays(list(vars(item).values()))
