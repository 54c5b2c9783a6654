"""Cases of whole models: training steps, and generation with a cache.

A step is forward, backward, clipping and AdamW in float32. Biases everywhere, pre-norm, tied output, exact GELU
(PyTorch's default), learned positions. The gate compares three steps from equal weights on equal tokens: losses, and
all parameters afterwards. Only the bias of keys is let pass there: the softmax ignores it, so that its gradient is
rounding alone, which Adam scales to full size.
"""

from __future__ import annotations

import math
from typing import Any

from . import counting
from .case import OURS, Case

DECODER = {
    OURS: ".ours.steps:Step",
    "torch": ".peers.torch_steps:Step",
    "torch-compile": ".peers.torch_steps:CompiledStep",
    "jax": ".peers.jax_steps:Step",
}
CACHED = {OURS: ".ours.generation:Generation", "torch": ".peers.torch_generation:Generation"}
TOLERANCE = {"loss": 1e-5, "parameters.*.key.bias": math.inf, "parameters.*": 5e-5}
WRITTEN = {"logits": 1e-5, "tokens": 0.0}


def decoder(layers: int, width: int, heads: int, context: int, activation: str = "gelu") -> dict[str, Any]:
    """Settings of a decoder-only model."""
    return {
        "kind": "decoder",
        "layers": layers,
        "width": width,
        "heads": heads,
        "context": context,
        "position": "learned",
        "activation": activation,
    }


def step(
    name: str, model: dict[str, Any], *, batch: int, length: int, vocabulary: int, repetition: float, about: str
) -> Case:
    """A training step of a decoder, or of an encoder-decoder whose source and target have `length` tokens."""
    tiny = {**model, "layers": 2, "width": 32, "heads": 2, "context": 16}
    counted = counting.decoder_step if model["kind"] == "decoder" else counting.encoder_decoder_step
    return Case(
        name=name,
        kind="step",
        about=about,
        sides=DECODER,
        settings={"model": model, "batch": batch, "length": length, "vocabulary": vocabulary},
        quick={"model": tiny, "batch": min(batch, 3), "length": 8, "vocabulary": 19},
        work=counted,
        tolerance=TOLERANCE,
        repetition=repetition,
    )


STEPS = (
    step(
        "step-0.8m",
        decoder(4, 128, 4, 64),
        batch=12,
        length=64,
        vocabulary=73,
        repetition=0.04,
        about="training step, 0.8M parameters: 4 layers, 128 wide, 64 tokens, batch 12",
    ),
    step(
        "step-10.7m",
        decoder(6, 384, 6, 256),
        batch=8,
        length=256,
        vocabulary=73,
        repetition=0.95,
        about="training step, 10.7M parameters: 6 layers, 384 wide, 256 tokens, batch 8",
    ),
    step(
        "step-10.7m-tanh",
        decoder(6, 384, 6, 256, "gelu_tanh"),
        batch=8,
        length=256,
        vocabulary=73,
        repetition=0.95,
        about="the same with the tanh approximation of GELU on both sides",
    ),
    step(
        "step-23m",
        decoder(6, 512, 8, 512),
        batch=4,
        length=512,
        vocabulary=8192,
        repetition=2.2,
        about="training step, 23M parameters: 6 layers, 512 wide, 512 tokens, batch 4, vocabulary 8,192",
    ),
    step(
        "step-long",
        decoder(4, 256, 4, 8192),
        batch=1,
        length=8192,
        vocabulary=73,
        repetition=5.0,
        about="training step, one sequence of 8,192 tokens: 4 layers, 256 wide; JAX takes 15 GB and minutes",
    ),
    step(
        "step-encoder-decoder",
        {
            "kind": "encoder-decoder",
            "layers": 3,
            "width": 256,
            "heads": 4,
            "context": 128,
            "position": "sinusoidal",
            "activation": "gelu",
        },
        batch=16,
        length=128,
        vocabulary=2048,
        repetition=0.8,
        about="training step, encoder-decoder: 3 + 3 layers, 256 wide, 128 + 128 tokens, batch 16, no padding",
    ),
)


def generate(name: str, batch: int, new: int, repetition: float, about: str) -> Case:
    """Greedy continuation of prompts of 16 tokens, with a cache, the prompt's pass included."""
    return Case(
        name=name,
        kind="generate",
        about=about,
        sides=CACHED,
        settings={"model": decoder(6, 384, 6, 1024), "batch": batch, "prompt": 16, "new": new, "vocabulary": 73},
        quick={"model": decoder(2, 32, 2, 64), "batch": min(batch, 3), "prompt": 4, "new": 9, "vocabulary": 19},
        work=counting.generation,
        tolerance=WRITTEN,
        repetition=repetition,
    )


GENERATION = (
    generate("generate-1", 1, 512, 1.0, "one prompt, 512 tokens with a cache, 10.7M parameters"),
    generate("generate-16", 16, 256, 1.2, "16 prompts together, 256 tokens each with a cache, 10.7M parameters"),
)
