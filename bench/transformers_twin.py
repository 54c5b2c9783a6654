"""BERT and T5 of the library `transformers` from minilong's weights, and their gradients under minilong's names.

Which array is which say `models.families`. Nothing is fetched: the models are made of configurations. A T5 that is
trained here has its queries and its table in other units (`claim:t5-scales`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers

from minilong.models.config import ModelConfig
from minilong.models.families.places import Place, arrays_there, by_name


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


def t5_units(c: ModelConfig) -> dict[str, float]:
    """How many times ours their array is, by our field path; once where it is not named."""
    c = c.resolved()
    maps = [f"{stack}.layers.{i}.attention" for stack in ("encoder", "decoder") for i in range(c.layers)]
    maps += [f"decoder.layers.{i}.cross" for i in range(c.layers)]
    queries = {f"{name}.query.weight": 1 / math.sqrt(c.head_width) for name in maps}
    return {"input.tokens.table": math.sqrt(c.width), **queries}


def load(
    peer: Any, places: Mapping[str, Place], ours: Mapping[str, np.ndarray], units: Mapping[str, float] | None = None
) -> None:
    """Copy our arrays into the peer. KeyError where an array of either side has no place on the other."""
    theirs = dict(peer.named_parameters())
    missing = (set(ours) ^ set(places)) | (set(theirs) ^ set(by_name(places)))
    if missing:
        raise KeyError(f"without a place: {sorted(missing)}")
    scaled = {path: (units or {}).get(path, 1.0) * array for path, array in ours.items()}
    with torch.no_grad():
        for name, array in arrays_there(places, scaled).items():
            theirs[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))


def gradients(
    peer: Any, places: Mapping[str, Place], units: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """The peer's gradients under our names, in our units."""
    theirs = dict(peer.named_parameters())
    return {
        path: (units or {}).get(path, 1.0) * place.of(theirs[place.name].grad.numpy()) for path, place in places.items()
    }
