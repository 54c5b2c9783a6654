"""BERT and T5 of the library `transformers`, from minilong's weights: which array is which, and in which units.

Nothing is fetched: the models are made of configurations. Linear layers hold their weights the other way round there.
T5's queries and its table are in other units (`claim:t5-scales`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers

from minilong.models.config import ModelConfig


@dataclass(frozen=True)
class Place:
    """A parameter there: its name, whether it is turned, and how many times ours it is."""

    name: str
    turned: bool = False
    times: float = 1.0


def bert(c: ModelConfig, vocabulary: int) -> Any:
    """`BertForPreTraining` of this shape, in evaluation."""
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.feed_forward,
        hidden_act="gelu",
        max_position_embeddings=c.context,
        type_vocab_size=c.types,
        layer_norm_eps=1e-5,
        attn_implementation="eager",
    )
    return transformers.BertForPreTraining(config).double().eval()


def t5(c: ModelConfig, vocabulary: int) -> Any:
    """`T5ForConditionalGeneration` of this shape, in evaluation."""
    c = c.resolved()
    config = transformers.T5Config(
        vocab_size=vocabulary,
        d_model=c.width,
        d_kv=c.head_width,
        d_ff=c.feed_forward,
        num_layers=c.layers,
        num_heads=c.heads,
        feed_forward_proj="relu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=1,
        attn_implementation="eager",
    )
    return transformers.T5ForConditionalGeneration(config).double().eval()


def bert_places(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    found = {
        "input.tokens.table": Place("bert.embeddings.word_embeddings.weight"),
        "input.positions.table": Place("bert.embeddings.position_embeddings.weight"),
        "input.types.table": Place("bert.embeddings.token_type_embeddings.weight"),
        "transform.bias": Place("cls.predictions.bias"),
        **_norm("input.norm", "bert.embeddings.LayerNorm"),
        **_linear("transform.dense", "cls.predictions.transform.dense"),
        **_norm("transform.norm", "cls.predictions.transform.LayerNorm"),
        **_linear("pooler.dense", "bert.pooler.dense"),
        **_linear("pooler.classifier", "cls.seq_relationship"),
    }
    for i in range(c.layers):
        ours, theirs = f"stack.layers.{i}", f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            found |= _linear(f"{ours}.attention.{name}", f"{theirs}.attention.self.{name}")
        found |= _linear(f"{ours}.attention.output", f"{theirs}.attention.output.dense")
        found |= _norm(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm")
        found |= _linear(f"{ours}.feed_forward.up", f"{theirs}.intermediate.dense")
        found |= _linear(f"{ours}.feed_forward.down", f"{theirs}.output.dense")
        found |= _norm(f"{ours}.feed_forward_norm", f"{theirs}.output.LayerNorm")
    return found


def t5_places(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    c = c.resolved()
    found = {"input.tokens.table": Place("shared.weight", times=math.sqrt(c.width))}
    for stack in ("encoder", "decoder"):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found |= {f"{stack}_scheme.table": Place(bias), f"{stack}.norm.gain": Place(f"{stack}.final_layer_norm.weight")}
        for i in range(c.layers):
            ours, theirs = f"{stack}.layers.{i}", f"{stack}.block.{i}.layer"
            parts = [("attention", "SelfAttention"), *([("cross", "EncDecAttention")] if stack == "decoder" else [])]
            for place, (name, module) in enumerate(parts):
                for our, their in zip(("query", "key", "value", "output"), "qkvo", strict=True):
                    found |= _linear(f"{ours}.{name}.{our}", f"{theirs}.{place}.{module}.{their}", bias=False)
                query = f"{ours}.{name}.query.weight"
                found[query] = replace(found[query], times=1 / math.sqrt(c.head_width))
                found[f"{ours}.{name}_norm.gain"] = Place(f"{theirs}.{place}.layer_norm.weight")
            last = f"{theirs}.{len(parts)}"
            found |= _linear(f"{ours}.feed_forward.up", f"{last}.DenseReluDense.wi", bias=False)
            found |= _linear(f"{ours}.feed_forward.down", f"{last}.DenseReluDense.wo", bias=False)
            found[f"{ours}.feed_forward_norm.gain"] = Place(f"{last}.layer_norm.weight")
    return found


def load(peer: Any, places: dict[str, Place], ours: dict[str, np.ndarray]) -> None:
    """Copy our arrays into the peer. KeyError where an array of either side has no place on the other."""
    theirs = dict(peer.named_parameters())
    missing = (set(ours) ^ set(places)) | (set(theirs) ^ {place.name for place in places.values()})
    if missing:
        raise KeyError(f"without a place: {sorted(missing)}")
    with torch.no_grad():
        for name, place in places.items():
            array = ours[name].T if place.turned else ours[name]
            theirs[place.name].copy_(torch.from_numpy(np.ascontiguousarray(place.times * array)))


def gradients(peer: Any, places: dict[str, Place]) -> dict[str, np.ndarray]:
    """The peer's gradients under our names, in our units."""
    theirs = dict(peer.named_parameters())
    found = {name: place.times * theirs[place.name].grad.numpy() for name, place in places.items()}
    return {name: g.T if places[name].turned else g for name, g in found.items()}


def _linear(ours: str, theirs: str, *, bias: bool = True) -> dict[str, Place]:
    found = {f"{ours}.weight": Place(f"{theirs}.weight", turned=True)}
    return found | {f"{ours}.bias": Place(f"{theirs}.bias")} if bias else found


def _norm(ours: str, theirs: str) -> dict[str, Place]:
    return {f"{ours}.gain": Place(f"{theirs}.weight"), f"{ours}.bias": Place(f"{theirs}.bias")}
