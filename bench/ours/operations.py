"""minilong's operations and attention kernels: `vjp` and the pull-back of a given cotangent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from minilong.attention import Mask, auto
from minilong.autodiff import embedding, gelu, gelu_tanh, layer_norm, ops, softmax, token_loss, vjp
from minilong.backend.workers import grant_threads
from minilong.keys import Key
from minilong.optim import Adam

from ..case import Arrays, Settings, Side
from .steps import BETAS, DECAY, EPS, RATE, drawn


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Normal numbers, others in each."""
    return [drawn(50 + i, shape) for i, shape in enumerate(shapes)]


class Differentiated(Side):
    """`call` forward, and backward with a cotangent."""

    call: Callable[..., Any]
    inputs: list[np.ndarray]
    cotangent: np.ndarray
    constants: dict[str, np.ndarray]

    def set(self, call: Callable[..., Any], inputs: list[np.ndarray], constants: dict[str, np.ndarray]) -> None:
        """What is computed; constants are inputs without a derivative."""
        self.limit = threadpool_limits(1)
        self.call, self.inputs, self.constants = call, inputs, constants
        shape = np.shape(call(*inputs))
        self.cotangent = np.ones((), np.float32) if shape == () else drawn(6, shape)

    def share(self) -> dict[str, np.ndarray]:
        inputs = {f"inputs.{i}": x for i, x in enumerate(self.inputs)}
        return inputs | {"cotangent": np.asarray(self.cotangent)} | self.constants

    def gate(self) -> dict[str, np.ndarray]:
        with grant_threads(self.threads):
            y, pull = vjp(self.call, *self.inputs)
            return {"output": np.asarray(y), **{f"gradient.{i}": g for i, g in enumerate(pull(self.cotangent))}}

    def run(self) -> None:
        with grant_threads(self.threads):
            _, pull = vjp(self.call, *self.inputs)
            pull(self.cotangent)

    def close(self) -> None:
        self.limit.__exit__(None, None, None)


class Operation(Differentiated):
    """The operation that the settings name."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.state = self.adam = None
        if settings["operation"] == "adamw":
            self.limit = threadpool_limits(1)
            self.vector, self.gradient = arrays((settings["parameters"],), (settings["parameters"],))
            self.adam = Adam(*BETAS, EPS, DECAY, decoupled=True)
            self.state = self.adam.init(self.vector)
            return
        self.set(*self.chosen(settings))

    @staticmethod
    def chosen(s: Settings) -> tuple[Callable[..., Any], list[np.ndarray], dict[str, np.ndarray]]:
        """Function, inputs, constants."""
        name, numbers = s["operation"], Key.of(7).generator()
        if name == "softmax":
            return softmax, arrays((s["rows"], s["heads"], s["length"], s["length"])), {}
        rows, width = s["rows"], s["width"]
        if name == "layer-norm":
            return layer_norm, arrays((rows, width), (width,), (width,)), {}
        if name in ("gelu", "gelu-tanh"):
            return gelu if name == "gelu" else gelu_tanh, arrays((rows, width)), {}
        indices = numbers.integers(0, s["classes"], (rows,)).astype(np.int32)
        if name == "embedding":
            return lambda table: embedding(table, indices=indices), arrays((s["classes"], width)), {"indices": indices}
        if name == "cross-entropy":

            def loss(hidden: Any, table: Any) -> Any:
                return token_loss(hidden, ops.transpose(table, order=(1, 0)), None, targets=indices)

            hidden, table = arrays((rows, width), (s["classes"], width))
            return loss, [hidden, table * np.float32(0.1)], {"indices": indices}
        raise ValueError(f"there is no operation {name!r}")

    def share(self) -> dict[str, np.ndarray]:
        if self.adam is None:
            return super().share()
        return {"parameters": self.vector.copy(), "gradient": self.gradient}

    def gate(self) -> dict[str, np.ndarray]:
        if self.adam is None:
            return super().gate()
        self.run()
        return {"parameters": self.vector.copy()}

    def run(self) -> None:
        if self.adam is None or self.state is None:
            super().run()
        else:
            self.adam.step(self.state, self.vector, self.gradient, RATE)


class Kernel(Differentiated):
    """Attention as a model of these settings would compute it."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        shape = settings["batch"], settings["heads"], settings["length"], settings["head_width"]
        mask = Mask(causal=True, window=settings["window"] or None)
        self.set(lambda q, k, v: auto(q, k, v, mask=mask), arrays(shape, shape, shape), {})
