"""From a configuration to a model with fresh weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.attention import KERNELS
from minilong.keys import Key
from minilong.memory import Compressive, Compressor, Memory, Segments
from minilong.models.config import ModelConfig
from minilong.models.starting import ready_for_spans
from minilong.nn import (
    Decoder,
    DecoderLayer,
    Dropout,
    Embedding,
    Encoder,
    EncoderDecoder,
    EncoderLayer,
    FeedForward,
    LanguageModel,
    Linear,
    MultiHeadAttention,
)
from minilong.nn.init import child
from minilong.nn.layers import NORMALIZATIONS
from minilong.nn.models import TokenInput
from minilong.nn.prediction import Pooler, Transform
from minilong.nn.scheme import Scheme
from minilong.positions import BUCKETS, Scaling


def build(config: ModelConfig, vocabulary: int, key: Key | None) -> LanguageModel | EncoderDecoder:
    """A model of the configured kind; equal keys give equal weights. Without a key, matrices take no memory and are
    read-only zeros, in whose places others are put (`assemble.py`)."""
    config = config.resolved()
    tokens = TokenInput(
        tokens=Embedding.create(child(key, "tokens"), vocabulary, config.width),
        positions=(
            Embedding.create(child(key, "positions"), config.context, config.width)
            if config.position == "learned"
            else None
        ),
        position=config.position,
        dropout=Dropout(config.dropout),
        types=Embedding.create(child(key, "types"), config.types, config.width) if config.types else None,
        norm=NORMALIZATIONS[config.normalization](config.width, config.norm_eps) if config.input == "normed" else None,
        scaled=config.input == "scaled",
    )
    head = None if config.tied else Linear.create(child(key, "head"), config.width, vocabulary, bias=False)
    if config.kind == "encoder-decoder":
        model = EncoderDecoder(
            input=tokens,
            encoder=encoder(config, child(key, "encoder")),
            decoder=decoder(config, child(key, "decoder"), cross=True),
            head=head,
            context=config.context,
            encoder_scheme=scheme(config, causal=False),
            decoder_scheme=scheme(config, causal=True),
            output_scale=config.output_scale,
        )
        return ready_for_spans(model, key.fold("spans")) if key is not None and config.position == "t5" else model
    causal = config.kind == "decoder"
    stack = decoder(config, child(key, "stack")) if causal else encoder(config, child(key, "stack"))
    return LanguageModel(
        input=tokens,
        stack=stack,
        head=head,
        causal=causal,
        context=config.context,
        scheme=scheme(config, causal=causal),
        window=config.window,
        sinks=config.sinks,
        memory=memory(config),
        transform=transform(config, vocabulary, child(key, "transform")) if config.output == "transform" else None,
        pooler=Pooler.create(child(key, "pooler"), config.width, init=config.init) if config.pooler else None,
        output_scale=None if config.output == "none" else config.output_scale,
    )


def transform(config: ModelConfig, vocabulary: int, key: Key | None) -> Transform:
    """What an encoder's output projection reads."""
    return Transform.create(
        key,
        config.width,
        vocabulary,
        activation=config.activation,
        normalization=config.normalization,
        init=config.init,
        eps=config.norm_eps,
    )


def scheme(config: ModelConfig, *, causal: bool) -> Scheme:
    """How a stack's attention knows positions. T5's biases start at zero, but for `starting.py`."""
    scaling = Scaling(config.rope_scaling, config.rope_factor, config.rope_context, config.rope_ramp)
    return Scheme(
        name=config.position,
        heads=config.heads,
        head_width=config.head_width,
        width=config.width,
        base=config.rope_base,
        interleaved=config.rope_layout == "interleaved",
        scaling=scaling,
        share=config.rope_share,
        table=np.zeros((BUCKETS, config.heads), np.float32) if config.position == "t5" else None,
        causal=causal,
        reach=max(config.context, config.window + config.sinks),
    )


def memory(config: ModelConfig) -> Memory | None:
    """The recurrence over segments that the model was configured with."""
    if config.memory == "none":
        return None
    segment, length, slots = config.recurrence
    if config.memory == "xl":
        return Segments(segment, length)
    compressor = Compressor.create(config.compressor, config.compression, config.width)
    return Compressive(segment, length, slots, compressor)


def encoder(config: ModelConfig, key: Key | None) -> Encoder:
    """A stack of encoder layers."""
    gain = residual_gain(config, 2)
    norm, attention, feed_forward = _parts(config, gain)
    return Encoder(
        layers=tuple(
            EncoderLayer(
                attention=attention(child(key, i, "attention")),
                attention_norm=norm(),
                feed_forward=feed_forward(child(key, i, "feed_forward")),
                feed_forward_norm=norm(),
                dropout=Dropout(config.dropout),
                norm=config.norm,
            )
            for i in range(config.layers)
        ),
        norm=norm() if config.norm == "pre" else None,
        depth=config.depth,
        momentum=config.momentum,
    )


def decoder(config: ModelConfig, key: Key | None, *, cross: bool = False) -> Decoder:
    """A stack of decoder layers, with attention to an encoder's output where `cross`."""
    gain = residual_gain(config, 3 if cross else 2)
    norm, attention, feed_forward = _parts(config, gain)
    return Decoder(
        layers=tuple(
            DecoderLayer(
                attention=attention(child(key, i, "attention")),
                attention_norm=norm(),
                cross=attention(child(key, i, "cross"), cross=True) if cross else None,
                cross_norm=norm() if cross else None,
                feed_forward=feed_forward(child(key, i, "feed_forward")),
                feed_forward_norm=norm(),
                dropout=Dropout(config.dropout),
                norm=config.norm,
            )
            for i in range(config.layers)
        ),
        norm=norm() if config.norm == "pre" else None,
        depth=config.depth,
        momentum=config.momentum,
    )


def residual_gain(config: ModelConfig, branches: int) -> float:
    """1 / sqrt(residual branches) for pre-norm stacks (`eq:residual-scaling`), so that the stream's variance does not
    grow with depth (GPT-2); 1 for post-norm, which normalises the stream itself."""
    return 1.0 / math.sqrt(branches * config.layers) if config.norm == "pre" else 1.0


def _parts(
    config: ModelConfig, gain: float
) -> tuple[Callable[[], Any], Callable[..., Any], Callable[[Key | None], Any]]:
    def norm() -> Any:
        return NORMALIZATIONS[config.normalization](config.width, config.norm_eps)

    def attention(key: Key | None, *, cross: bool = False) -> MultiHeadAttention:
        return MultiHeadAttention.create(
            key,
            config.width,
            config.heads,
            kv_heads=config.kv_heads,
            head_width=config.head_width,
            bias=config.bias and config.biases != "feed_forward",
            output_bias=config.bias and config.biases in ("all", "attention"),
            init=config.init,
            gain=gain,
            kernel=KERNELS[config.attention],
            relative=config.position == "xl" and not cross,
            scale=config.score_scale or None,
        )

    def feed_forward(key: Key | None) -> FeedForward:
        return FeedForward.create(
            key,
            config.width,
            config.feed_forward,
            activation=config.activation,
            bias=config.bias and config.biases in ("all", "feed_forward"),
            init=config.init,
            gain=gain,
            dropout=config.dropout,
        )

    return norm, attention, feed_forward
