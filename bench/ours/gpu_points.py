"""minilong's attention and operations on a GPU: `vjp` and the pull-back of a cotangent, as in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.attention import Mask, blockwise
from minilong.autodiff import cross_entropy, gelu_tanh, layer_norm, rms_norm, softmax, vjp
from minilong.backend import Device, to_host
from minilong.backend.kernels.adamw import adamw
from minilong.backend.kernels.norm import new_control

from ..case import Arrays, Settings
from ..gpu_points import PointsSide
from .steps import BETAS, DECAY, EPS, RATE, drawn


def type_of(name: str) -> np.dtype[Any]:
    """An element type by its name, bfloat16 as well."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class DevicePoints(PointsSide):
    """Points on the device of the settings."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.device = Device.of(settings["device"])
        self.xp = self.device.xp

    def wait(self) -> None:
        self.device.synchronize()

    def release(self) -> None:
        self.xp.get_default_memory_pool().free_all_blocks()

    def normal(self, seed: int, shape: tuple[int, ...], dtype: str) -> Any:
        """Normal numbers that were drawn on the host; a few of them, again and again, where there are many."""
        size = int(np.prod(shape))
        few = self.device.put(drawn(seed, (min(size, 1 << 20),))).astype(type_of(dtype))
        return self.xp.tile(few, -(-size // few.size))[:size].reshape(shape)

    def given(self, name: str, dtype: str) -> Any:
        """An array of the gate, rounded to the type."""
        return self.device.put(self.gate_arrays()[name].astype(type_of(dtype)))

    def gate_arrays(self) -> dict[str, np.ndarray]:
        """Float32 inputs and cotangents of the gate, by name."""
        raise NotImplementedError

    def share(self) -> dict[str, np.ndarray]:
        return self.gate_arrays()


def differentiated(call: Callable[..., Any], inputs: tuple[Any, ...], cotangent: Any) -> tuple[Any, ...]:
    """Output and cotangents of the inputs."""
    y, pull = vjp(call, *inputs)
    return (y, *pull(cotangent))


def on_host(x: Any) -> np.ndarray:
    """In float32."""
    return to_host(x).astype(np.float32)


class Attention(DevicePoints):
    """Causal attention by the kernel that a model takes on a GPU."""

    @staticmethod
    def call(q: Any, k: Any, v: Any) -> Any:
        return blockwise(q, k, v, mask=Mask(causal=True))

    def gate_arrays(self) -> dict[str, np.ndarray]:
        widths = {point["shape"][-1] for point in self.settings["points"]}
        heads, length = (self.settings["gate"][key] for key in ("heads", "length"))
        return {
            f"{width}.{name}": drawn(seed, (1, heads, length, width))
            for width in sorted(widths)
            for seed, name in enumerate(("q", "k", "v", "g"))
        }

    def gate(self) -> dict[str, np.ndarray]:
        found = {}
        for dtype in dict.fromkeys(point["dtype"] for point in self.settings["points"]):
            for width in dict.fromkeys(point["shape"][-1] for point in self.settings["points"]):
                q, k, v, g = (self.given(f"{width}.{name}", dtype) for name in ("q", "k", "v", "g"))
                for name, x in zip(("y", "q", "k", "v"), differentiated(self.call, (q, k, v), g), strict=True):
                    found[f"{dtype}.{width}.{name}"] = on_host(x)
        return found

    def prepared(self, point: dict[str, Any]) -> Callable[[], Any]:
        shape, dtype = tuple(point["shape"]), point["dtype"]
        b, h, t, d = shape
        q, k, v, g = (self.normal(i, (b, t, h, d), dtype).transpose(0, 2, 1, 3) for i in range(4))
        if not point["backward"]:
            return lambda: self.call(q, k, v)
        return lambda: differentiated(self.call, (q, k, v), g)


class Operations(DevicePoints):
    """Operations over rows, and the optimiser."""

    def gate_arrays(self) -> dict[str, np.ndarray]:
        rows, columns = (self.settings["gate"][key] for key in ("rows", "columns"))
        found = {name: drawn(seed, (rows, columns)) for seed, name in enumerate(("x", "g", "gradient"))}
        targets = (np.arange(rows) * 7 % columns).astype(np.int64)
        return {**found, "gain": drawn(3, (columns,)), "bias": drawn(4, (columns,)), "targets": targets}

    def gate(self) -> dict[str, np.ndarray]:
        found = {}
        for point in self.settings["points"]:
            name, dtype = point["operation"], point["dtype"]
            x, g, gain, bias = (self.given(key, dtype) for key in ("x", "g", "gain", "bias"))
            if name == "adamw":
                results = self.adamw(x.reshape(-1), self.given("gradient", dtype).reshape(-1))()
            else:
                targets = self.device.put(self.gate_arrays()["targets"])
                results = self.operation(name, x, g, gain, bias, targets)()
            found |= {f"{dtype}.{name}.{i}": on_host(result) for i, result in enumerate(results)}
        return found

    def prepared(self, point: dict[str, Any]) -> Callable[[], Any]:
        name, dtype, shape = point["operation"], point["dtype"], tuple(point["shape"])
        if name == "adamw":
            return self.adamw(self.normal(0, shape, dtype), self.normal(1, shape, dtype))
        x, g = (self.normal(i, shape, dtype) for i in range(2))
        gain, bias = (self.normal(i, shape[1:], dtype) for i in (2, 3))
        targets = self.device.put((np.arange(shape[0]) * 7 % shape[1]).astype(np.int64))
        return self.operation(name, x, g, gain, bias, targets)

    def operation(self, name: str, x: Any, g: Any, gain: Any, bias: Any, targets: Any) -> Callable[[], Any]:
        """Output and cotangents."""
        if name == "cross-entropy":
            one = self.xp.ones((), self.xp.float32)
            return lambda: differentiated(lambda logits: cross_entropy(logits, targets=targets), (x,), one)
        if name == "layer-norm":
            return lambda: differentiated(layer_norm, (x, gain, bias), g)
        if name == "rms-norm":
            return lambda: differentiated(rms_norm, (x, gain), g)
        function = {"softmax": softmax, "gelu-tanh": gelu_tanh}[name]
        return lambda: differentiated(function, (x,), g)

    def adamw(self, parameters: Any, gradient: Any) -> Callable[[], Any]:
        """A step, the first time from moments of zero; the parameters after it."""
        first, second = (self.xp.zeros_like(parameters) for _ in range(2))
        control = new_control(self.xp, 1)
        rates = {"lr": RATE, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "weight_decay": DECAY}

        def step() -> tuple[Any]:
            adamw(
                self.xp, parameters, gradient, first, second, control,
                **rates, decayed=parameters.size, decoupled=True,
            )  # fmt: skip
            return (parameters,)

        return step
