"""minilong's products of one token with all matrices of a model, in float32 or in low-bit planes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minilong.backend.workers import grant_threads
from minilong.nn import Linear
from minilong.nn.lowbit import LowBit, LowBitLinear, planes
from minilong.train.loaded import ready_to_read

from ..case import Arrays, Settings, Side
from .steps import drawn


def shapes(s: Settings) -> list[tuple[int, int]]:
    """(out, in) of the matrices of a layer, and of the output projection."""
    width, keys, hidden = s["width"], s["keys"], s["hidden"]
    attention = [(width, width), (keys, width), (keys, width), (width, width)]
    return [*attention, (hidden, width), (hidden, width), (width, hidden), (s["vocabulary"], width)]


class Products(Side):
    """Every layer has the same numbers, in memory of its own: what is read must come from there."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.limit = ready_to_read()
        *layer, head = [drawn(i, shape) / np.float32(shape[1] ** 0.5) for i, shape in enumerate(shapes(settings))]
        self.decoded, one = [], []
        for weight in (*layer, head):
            kept, multiply = self.made(weight)
            self.decoded.append(kept)
            one.append(multiply)
        self.maps = [[(i, copied(f)) for i, f in enumerate(one[:-1])] for _ in range(settings["layers"])]
        self.maps.append([(len(layer), one[-1])])
        self.inputs = [drawn(90 + i, (1, shape[1])) for i, shape in enumerate(shapes(settings))]

    def made(self, weight: np.ndarray) -> tuple[np.ndarray, Any]:
        """A weight (out, in) as it is used, in float32, and its layer."""
        if self.settings["kind"] == "F32":
            return weight, Linear(np.ascontiguousarray(weight.T), None)
        low = LowBit.encode(weight, self.settings["kind"])
        return low.decode(), LowBitLinear(planes(low), None)

    def share(self) -> dict[str, np.ndarray]:
        weights = {f"weights.{i}": w for i, w in enumerate(self.decoded)}
        return weights | {f"inputs.{i}": x for i, x in enumerate(self.inputs)}

    def gate(self) -> dict[str, np.ndarray]:
        return {f"output.{i}": y for i, y in enumerate(self.multiplied([self.maps[0] + self.maps[-1]]))}

    def run(self) -> None:
        self.multiplied(self.maps)

    def multiplied(self, maps: list[list[tuple[int, Any]]]) -> list[np.ndarray]:
        """All products."""
        with grant_threads(self.threads):
            return [f(self.inputs[i]) for layer in maps for i, f in layer]

    def close(self) -> None:
        self.limit.__exit__(None, None, None)


def copied(layer: Any) -> Any:
    """The same layer in other memory."""
    if isinstance(layer, Linear):
        return replace(layer, weight=layer.weight.copy())
    p = layer.weight
    planes = replace(p, codes=p.codes.copy(), scales=p.scales.copy(), least=None if p.least is None else p.least.copy())
    return replace(layer, weight=planes)
