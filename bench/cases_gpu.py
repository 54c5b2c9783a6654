"""Cases on a GPU: training steps, attention, one layer over a very long text, kernels one by one.

Run by `gpu.py`. Beside the sizes each case names the device, and the type of numbers: float32 without TF32 on both
sides, or 16 bits, which is PyTorch's autocast (weights and moments float32) and minilong's `--precision`.
A case of points times several computations in the process of each side. The gate compares them at small sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import counting
from .case import OURS, Case
from .cases_models import decoder

STEP = {
    OURS: ".ours.gpu_steps:Step",
    "torch": ".peers.torch_gpu_steps:Step",
    "torch-compile": ".peers.torch_gpu_steps:CompiledStep",
}
ATTENTION = {OURS: ".ours.gpu_points:Attention", "torch": ".peers.torch_gpu_points:Attention"}
OPERATIONS = {OURS: ".ours.gpu_points:Operations", "torch": ".peers.torch_gpu_points:Operations"}

ROUNDING = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""Largest relative difference of results and gradients of one operation."""

LOSSES = {"float32": 1e-4, "bfloat16": 2e-2}
WEIGHTS = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest relative differences of three losses, and of parameters after them: Adam makes steps of one size of small
gradients too, whose sign rounding may turn."""

GPT2 = decoder(12, 768, 12, 1024, "gelu_tanh")
TINY = decoder(2, 32, 2, 24, "gelu_tanh")
LONG = {**decoder(1, 768, 12, 131_072, "gelu_tanh"), "position": "sinusoidal"}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LENGTHS, TOKENS, WIDTH = (512, 1024, 2048, 4096, 8192), 16_384, 1024

Point = dict[str, Any]


def step(
    name: str, about: str, precision: str, model: Mapping[str, Any], *, batch: int, length: int, vocabulary: int
) -> Case:
    """A training step, gated by the losses of three steps and the parameters after them."""
    tiny = {**TINY, "position": model["position"]}
    return Case(
        name=name,
        kind="gpu-step",
        about=about,
        sides=STEP,
        settings={
            "device": "cuda",
            "precision": precision,
            "model": dict(model),
            "batch": batch,
            "length": length,
            "vocabulary": vocabulary,
        },
        quick={"model": tiny, "batch": min(batch, 2), "length": 24, "vocabulary": 61},
        work=counting.decoder_step,
        tolerance={"loss": LOSSES[precision], "parameters.*.key.bias": math.inf, "parameters.*": WEIGHTS[precision]},
    )


def attention_point(dtype: str, width: int, length: int, backward: bool) -> Point:
    """Causal attention with heads of `width`, together 1,024 wide, and as many texts as make 16,384 tokens."""
    batch, heads = TOKENS // length, WIDTH // width
    pairs = counting.visible_pairs(length, 0)
    return {
        "name": f"attention {dtype} {width} {length} {'both' if backward else 'forward'}",
        "dtype": dtype,
        "shape": [batch, heads, length, width],
        "backward": backward,
        "work": (12 if backward else 4) * batch * heads * width * pairs,
    }


def operation_point(name: str, dtype: str, arrays: int, *shape: int) -> Point:
    """An operation forward and backward, which reads and writes so many arrays of the shape."""
    work = arrays * BYTES[dtype] * math.prod(shape)
    return {"name": f"{name} {dtype}", "operation": name, "dtype": dtype, "shape": list(shape), "work": work}


def points(
    name: str, about: str, sides: Mapping[str, str], found: list[Point], gate: dict[str, int], *limits: int
) -> Case:
    """Several computations, each timed; limits: of the axes in a quick run. gate: sizes that are compared."""
    small = [
        p | {"shape": [min(n, most) for n, most in zip(p["shape"], limits[: len(p["shape"])], strict=True)]}
        for p in found
    ]
    return Case(
        name=name,
        kind="gpu-points",
        about=about,
        sides=sides,
        settings={"device": "cuda", "points": found, "gate": gate},
        quick={"points": small, "gate": {key: min(n, 40) for key, n in gate.items()}},
        tolerance={f"{dtype}.*": bound for dtype, bound in ROUNDING.items()},
        seconds=0.1,
    )


ATTENTION_POINTS = [
    attention_point(dtype, width, length, backward)
    for dtype in ROUNDING
    for width in (64, 128)
    for backward in (False, True)
    for length in LENGTHS
]
OPERATION_POINTS = [
    operation_point(name, dtype, arrays, *shape)
    for name, arrays, shape in (
        ("softmax", 5, (32_768, 1024)),
        ("layer-norm", 5, (32_768, 768)),
        ("rms-norm", 5, (32_768, 768)),
        ("gelu-tanh", 5, (16_384, 3072)),
        ("cross-entropy", 3, (4096, 50_257)),
        ("adamw", 7, (124_000_000,)),
    )
    for dtype in ("float32", "bfloat16")
    if (name, dtype) != ("adamw", "bfloat16")
]

GPU: Mapping[str, Case] = {
    case.name: case
    for case in (
        *(
            step(
                f"gpu-step-{precision}",
                f"training step in {precision}, 124M parameters: 12 layers, 768 wide, 1,024 tokens, vocabulary 50,257",
                precision,
                GPT2,
                batch=8,
                length=1024,
                vocabulary=50_257,
            )
            for precision in ("float32", "bfloat16")
        ),
        points(
            "gpu-attention",
            "causal attention, beside PyTorch's own",
            ATTENTION,
            ATTENTION_POINTS,
            {"heads": 2, "length": 300},
            *(1, 2, 40, 128),
        ),
        points(
            "gpu-operations",
            "kernels one by one, forward and backward",
            OPERATIONS,
            OPERATION_POINTS,
            {"rows": 33, "columns": 264},
            *(17, 40),
        ),
        step(
            "gpu-long",
            "one layer, 768 wide, over one text of 131,072 tokens, in bfloat16",
            "bfloat16",
            LONG,
            batch=1,
            length=131_072,
            vocabulary=256,
        ),
    )
}


def fitted(case: Case, memory: int) -> Case:
    """The case with as many texts in a batch as a GPU of so many bytes holds for two sides at a time: each takes about
    1.5 GB a text of the step in float32, and 2 GB for parameters and moments."""
    if not case.name.startswith("gpu-step"):
        return case
    batch = next(n for n in (32, 16, 8, 4, 2, 1) if n == 1 or 2 * (2 + 1.5 * n) * 1e9 <= 0.8 * memory)
    return replace(case, settings={**case.settings, "batch": batch})
