"""What a run will need, from its configuration alone: parameters, and memory by part as the ledger has it.

Time is measured, not predicted: see `Session`.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilong.models.config import ModelConfig
from minilong.positions.t5 import BUCKETS
from minilong.train.config import RunConfig
from minilong.train.ledger import FLOAT, Needs, Work, gradient_needs

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
    vocabulary = usual_vocabulary(config) if vocabulary is None else vocabulary
    parameters = count_parameters(config.model, vocabulary)
    threads = config.train.threads
    replicas = threads // config.train.inner_threads
    needs = share_needs(config, vocabulary, parameters)
    memory = {
        "parameters": FLOAT * parameters,
        "gradients": FLOAT * parameters * replicas,  # one flat vector a replica
        "optimizer": 2 * FLOAT * parameters,
        "activations": sum(needs.kept.values()) * replicas,
        "at work": needs.work * replicas,
    }
    return Estimate(
        parameters=parameters,
        memory=memory,
        steps=config.train.steps,
        seconds=None,
        tokens_per_step=config.train.batch * length_of(config),
        threads=threads,
    )


def share_needs(config: RunConfig, vocabulary: int, parameters: int) -> Needs:
    """What one replica's share of a batch needs: of one of the parts that are accumulated."""
    config = config.resolved()
    part = -(-config.train.batch // config.train.accumulate)
    inner = config.train.inner_threads
    rows = -(-part // (config.train.threads // inner))
    source = config.data.max_length if config.model.kind == "encoder-decoder" else 0
    work = Work(rows, length_of(config), source, vocabulary, inner)
    return gradient_needs(config.model, work, parameters)


def length_of(config: RunConfig) -> int:
    """Tokens that a sequence has at most."""
    return config.data.max_length + 1 if config.model.kind == "encoder-decoder" else config.model.context


def usual_vocabulary(config: RunConfig) -> int:
    """Entries that a vocabulary has, about, where the text was not read yet."""
    return USUAL_VOCABULARY.get(config.data.tokenizer, config.data.vocabulary)


def count_parameters(config: ModelConfig, vocabulary: int) -> int:
    """The number of weights that `models.build` makes."""
    config = config.resolved()
    width, hidden, kv = config.width, config.feed_forward, config.head_width * config.kv_heads
    norm = width * (2 if config.normalization == "layer" else 1)
    attention = 2 * width * width + 2 * width * kv + (2 * width + 2 * kv if config.bias else 0)
    matrices = 3 if config.activation == "swiglu" else 2
    feed_forward = matrices * width * hidden + ((matrices - 1) * hidden + width if config.bias else 0)
    relative = 2 * width + width * width if config.position == "xl" else 0
    layer = attention + relative + feed_forward + 2 * norm
    final = norm if config.norm == "pre" else 0
    stack = config.layers * layer + final + (BUCKETS * config.heads if config.position == "t5" else 0)
    total = stack
    if config.kind == "encoder-decoder":
        total += stack + config.layers * (attention + norm)
    if config.memory == "compressive" and config.compressor == "conv":
        total += config.compression * width * width
    total += width * vocabulary * (1 if config.tied else 2)
    return total + (width * config.context if config.position == "learned" else 0)
