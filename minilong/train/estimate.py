"""What a run will need, from its configuration alone: parameters, and memory by part as the ledger has it.

Time is measured, not predicted: see `Session`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilong.data.spans import DENSITY, MEAN_SPAN, span_counts
from minilong.models.config import GATED, ModelConfig
from minilong.positions.t5 import BUCKETS
from minilong.train.config import RunConfig
from minilong.train.ledger import FLOAT, Needs, Work, gradient_needs
from minilong.train.pretraining import MARKS

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
    """0: a GPU."""

    def by_part(self) -> str:
        """The memory's parts for people."""
        return ", ".join(f"{name} {amount / 1e6:.3g} MB" for name, amount in self.memory.items() if amount)


def describe(config: RunConfig, vocabulary: int | None, *, gpu: bool = False) -> Estimate:
    """Parameters and memory without building anything; a usual vocabulary where it is not known yet.

    gpu: one worker that takes whole parts of a batch. The formulas are those of a CPU's kernels in float32: a GPU's
    keep fewer arrays (their attention no scores, their norms and activations what they are given), and 16 bits halve
    the activations.
    """
    config = config.resolved()
    if gpu:
        config = replace(config, train=replace(config.train, threads=1))
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
        threads=0 if gpu else threads,
    )


def share_needs(config: RunConfig, vocabulary: int, parameters: int) -> Needs:
    """What one replica's share of a batch needs: of one of the parts that are accumulated."""
    config = config.resolved()
    part = -(-config.train.batch // config.train.accumulate)
    inner = config.train.inner_threads
    rows = -(-part // (config.train.threads // inner))
    source, length = lengths_of(config)
    work = Work(rows, length, source, vocabulary, inner)
    return gradient_needs(config.model, work, parameters)


def length_of(config: RunConfig) -> int:
    """Tokens that a sequence has at most."""
    return config.row if config.task == "t5" else lengths_of(config)[1]


def lengths_of(config: RunConfig) -> tuple[int, int]:
    """Tokens that an encoder's source (0: there is none) and a predicted sequence have at most."""
    context = config.row
    if config.task == "t5":
        lost, spans = span_counts(context, DENSITY, MEAN_SPAN)
        return context - lost + spans, lost + spans + 1
    return (
        (config.data.max_length, config.data.max_length + 1) if config.model.kind == "encoder-decoder" else (0, context)
    )


def usual_vocabulary(config: RunConfig) -> int:
    """Entries that a vocabulary has, about, where the text was not read yet."""
    return USUAL_VOCABULARY.get(config.data.tokenizer, config.data.vocabulary) + MARKS.get(config.task, 0)


def count_parameters(config: ModelConfig, vocabulary: int) -> int:
    """The number of weights that `models.build` makes."""
    config = config.resolved()
    width, hidden = config.width, config.feed_forward
    heads, kv = config.head_width * config.heads, config.head_width * config.kv_heads
    norm = width * (2 if config.normalization == "layer" else 1)
    biases = config.biases if config.bias else ""
    attention = 2 * width * heads + 2 * width * kv
    attention += (heads + 2 * kv if biases in ("all", "attention", "qkv") else 0) + (
        width if biases in ("all", "attention") else 0
    )
    matrices = 3 if config.activation in GATED else 2
    feed_forward = matrices * width * hidden
    feed_forward += (matrices - 1) * hidden + width if biases in ("all", "feed_forward") else 0
    relative = 2 * heads + width * heads if config.position == "xl" else 0
    layer = attention + relative + feed_forward + 2 * norm
    final = norm if config.norm == "pre" else 0
    stack = config.layers * layer + final + (BUCKETS * config.heads if config.position == "t5" else 0)
    total = stack
    if config.kind == "encoder-decoder":
        total += stack + config.layers * (attention + norm)
    if config.memory == "compressive" and config.compressor == "conv":
        total += config.compression * width * width
    total += width * vocabulary * (1 if config.tied else 2)
    total += width * config.types + (norm if config.input == "normed" else 0)
    square = width * width + width
    total += (square + norm + vocabulary if config.output == "transform" else 0) + (
        square + 2 * width + 2 if config.pooler else 0
    )
    return total + (width * config.context if config.position == "learned" else 0)
