"""Mistral (Jiang et al. 2023): Llama's network in a sliding window, the query's own key included."""

from __future__ import annotations

from typing import Any

from minilong.errors import UserError
from minilong.models.config import ModelConfig
from minilong.models.families.family import Family
from minilong.models.families.hf import HF
from minilong.models.families.llama import arrays, decoder, described
from minilong.models.fields import show

WINDOW = 4096
"""Where config.json lacks the key; null there means no window."""


def read(hf: HF) -> ModelConfig:
    """A language model."""
    window = hf.whole("sliding_window", WINDOW) if hf.values.get("sliding_window", WINDOW) is not None else 0
    heads = hf.whole("num_attention_heads", 32)
    kinds = hf.get("layer_types", [])
    if isinstance(kinds, list) and any(kind != kinds[0] for kind in kinds):
        raise UserError(f"config.json has layer_types = {show(kinds)}; minilong's layers are all alike")
    return decoder(
        hf,
        layout="half",
        feed_forward=hf.whole("intermediate_size", 14336),
        context=hf.whole("max_position_embeddings", 4096 * 32),
        kv_heads=hf.whole("num_key_value_heads", heads if "num_key_value_heads" in hf.values else 8),
        eps=1e-6,
        window=window,
    )


def write(c: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The keys that `read` looks at."""
    return {"architectures": ["MistralForCausalLM"], **described(c), "sliding_window": c.window or None}


MISTRAL = Family(
    model_type="mistral",
    architectures=("MistralForCausalLM",),
    prefix="",
    read=read,
    write=write,
    arrays=arrays,
    embedding="model.embed_tokens.weight",
    known=("model.layers.{i}.self_attn.rotary_emb.inv_freq",),
)
