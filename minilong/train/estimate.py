"""What a run will need, from its configuration alone: parameters and memory by part.

Activations are those that the derivative keeps, counted from the primitives that the layers are made of, plus the
cotangents at the widest place. Time is measured, not predicted: see `Session`.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilong.models.config import ModelConfig
from minilong.train.config import RunConfig

FLOAT = 4  # bytes
USUAL_VOCABULARY = {"char": 100, "byte": 260}


@dataclass(frozen=True)
class Estimate:
    """Parameters, bytes by part, and (where measured) seconds of a whole run."""

    parameters: int
    memory: dict[str, int]
    steps: int
    seconds: float | None
    tokens_per_step: int
    threads: int


def describe(config: RunConfig, vocabulary: int | None) -> Estimate:
    """Parameters and memory without building anything; a usual vocabulary where it is not known yet."""
    config = config.resolved()
    if vocabulary is None:
        vocabulary = USUAL_VOCABULARY.get(config.data.tokenizer, config.data.vocabulary)
    parameters = count_parameters(config.model, vocabulary)
    threads = config.train.threads
    pairs = config.model.kind == "encoder-decoder"
    length = config.data.max_length + 1 if pairs else config.model.context
    rows = -(-config.train.batch // config.train.accumulate)
    memory = {
        "parameters": FLOAT * parameters,
        "gradients": FLOAT * parameters * (threads + 1),  # one flat vector a replica, and the arrays of the one in work
        "optimizer": 2 * FLOAT * parameters,
        "activations": FLOAT * rows * length * activations_per_token(config.model, vocabulary, length),
    }
    return Estimate(
        parameters=parameters,
        memory=memory,
        steps=config.train.steps,
        seconds=None,
        tokens_per_step=config.train.batch * length,
        threads=threads,
    )


def count_parameters(config: ModelConfig, vocabulary: int) -> int:
    """The number of weights that `models.build` makes."""
    config = config.resolved()
    width, hidden, kv = config.width, config.feed_forward, config.head_width * config.kv_heads
    norm = width * (2 if config.normalization == "layer" else 1)
    attention = 2 * width * width + 2 * width * kv + (2 * width + 2 * kv if config.bias else 0)
    matrices = 3 if config.activation == "swiglu" else 2
    feed_forward = matrices * width * hidden + ((matrices - 1) * hidden + width if config.bias else 0)
    layer = attention + feed_forward + 2 * norm
    final = norm if config.norm == "pre" else 0
    total = config.layers * layer + final
    if config.kind == "encoder-decoder":
        total += config.layers * (layer + attention + norm) + final
    total += width * vocabulary * (1 if config.tied else 2)
    return total + (width * config.context if config.position == "learned" else 0)


def activations_per_token(config: ModelConfig, vocabulary: int, length: int) -> int:
    """Numbers kept per token for the derivative: what each layer's primitives name, and the widest cotangents."""
    config = config.resolved()
    width, hidden, weights = config.width, config.feed_forward, config.heads * length
    attention = 7 * width + weights  # norm: 2; query, key, value; weights; output before and after the heads are merged
    # The input of the last matrix and what the activation keeps: for relu and silu its value, which is that input.
    wide = {"relu": 1, "silu": 2, "swiglu": 4}.get(config.activation, 3)
    if config.dropout:
        wide += 2 if config.activation in ("relu", "silu") else 1  # factors, and where it was shared, the input anew
    feed_forward = 2 * width + wide * hidden
    dropped = 2 * width if config.dropout else 0
    layers = config.layers * (attention + feed_forward + dropped)
    if config.kind == "encoder-decoder":
        layers += config.layers * (2 * attention + feed_forward + dropped)
    # The most at once: at the loss (logits and probabilities), or a moment later in the last feed-forward layer.
    return layers + 3 * width + max(2 * vocabulary, 3 * hidden)
