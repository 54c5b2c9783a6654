"""PyTorch's attention and operations on a GPU: forward, and `torch.autograd.grad` with a cotangent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Arrays, Settings
from ..gpu_points import PointsSide
from .arrays import BETAS, DECAY, EPS, RATE

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class DevicePoints(PointsSide):
    """Points on the device of the settings. (`fake`, which only tests name, is minilong's stand-in: here a CPU.)"""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.device = torch.device("cpu" if settings["device"] == "fake" else settings["device"])
        torch.manual_seed(0)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def normal(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Normal numbers."""
        return torch.randn(shape, device=self.device).to(TYPES[dtype])

    def given(self, name: str, dtype: str) -> Tensor:
        """An array of the gate, rounded to the type."""
        return torch.from_numpy(self.shared[name]).to(self.device, TYPES[dtype], copy=True)


def differentiated(call: Callable[..., Tensor], inputs: tuple[Tensor, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
    """Output and cotangents of the inputs."""
    y = call(*inputs)
    return (y, *torch.autograd.grad(y, inputs, cotangent))


def on_host(x: Tensor) -> np.ndarray:
    """In float32."""
    found: np.ndarray = x.detach().float().cpu().numpy()
    return found


class Attention(DevicePoints):
    """scaled_dot_product_attention, causal by its flag."""

    @staticmethod
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def gate(self) -> dict[str, np.ndarray]:
        found = {}
        for dtype in dict.fromkeys(point["dtype"] for point in self.settings["points"]):
            for width in dict.fromkeys(point["shape"][-1] for point in self.settings["points"]):
                q, k, v, g = (self.given(f"{width}.{name}", dtype) for name in ("q", "k", "v", "g"))
                inputs = tuple(x.requires_grad_() for x in (q, k, v))
                for name, x in zip(("y", "q", "k", "v"), differentiated(self.call, inputs, g), strict=True):
                    found[f"{dtype}.{width}.{name}"] = on_host(x)
        return found

    def prepared(self, point: dict[str, Any]) -> Callable[[], Any]:
        b, h, t, d = point["shape"]
        q, k, v, g = (self.normal((b, t, h, d), point["dtype"]).transpose(1, 2) for _ in range(4))
        if not point["backward"]:
            return lambda: self.call(q, k, v)
        inputs = tuple(x.requires_grad_() for x in (q, k, v))
        return lambda: differentiated(self.call, inputs, g)


class Operations(DevicePoints):
    """Operations over rows, and the fused optimiser."""

    def gate(self) -> dict[str, np.ndarray]:
        found = {}
        for point in self.settings["points"]:
            name, dtype = point["operation"], point["dtype"]
            x, g, gain, bias = (self.given(key, dtype) for key in ("x", "g", "gain", "bias"))
            if name == "adamw":
                results = self.adamw(x.reshape(-1), self.given("gradient", dtype).reshape(-1))()
            else:
                targets = torch.from_numpy(self.shared["targets"]).to(self.device)
                results = self.operation(name, x, g, gain, bias, targets)()
            found |= {f"{dtype}.{name}.{i}": on_host(result) for i, result in enumerate(results)}
        return found

    def prepared(self, point: dict[str, Any]) -> Callable[[], Any]:
        name, dtype, shape = point["operation"], point["dtype"], tuple(point["shape"])
        if name == "adamw":
            return self.adamw(self.normal(shape, dtype), self.normal(shape, dtype))
        x, g = (self.normal(shape, dtype) for _ in range(2))
        gain, bias = (self.normal(shape[1:], dtype) for _ in range(2))
        targets = torch.arange(shape[0], device=self.device) * 7 % shape[1]
        return self.operation(name, x, g, gain, bias, targets)

    def operation(self, name: str, x: Tensor, g: Tensor, gain: Tensor, bias: Tensor, targets: Tensor) -> Any:
        """Output and cotangents."""
        for tensor in (x, gain, bias):
            tensor.requires_grad_()
        if name == "cross-entropy":
            one = torch.ones((), device=self.device, dtype=x.dtype)
            return lambda: differentiated(lambda logits: F.cross_entropy(logits, targets), (x,), one)
        width = x.shape[-1:]
        if name == "layer-norm":
            return lambda: differentiated(lambda *xs: F.layer_norm(xs[0], width, *xs[1:]), (x, gain, bias), g)
        if name == "rms-norm":
            return lambda: differentiated(lambda *xs: F.rms_norm(xs[0], width, xs[1], 1e-6), (x, gain), g)
        if name == "softmax":
            return lambda: differentiated(lambda z: F.softmax(z, dim=-1), (x,), g)
        return lambda: differentiated(lambda z: F.gelu(z, approximate="tanh"), (x,), g)

    def adamw(self, x: Tensor, gradient: Tensor) -> Callable[[], Any]:
        """A step; the parameters after it."""
        parameters = torch.nn.Parameter(x)
        parameters.grad = gradient
        optimiser = torch.optim.AdamW([parameters], lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)

        def step() -> tuple[Tensor]:
            optimiser.step()
            return (parameters,)

        return step
