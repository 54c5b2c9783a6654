"""GLM-4 (`GlmForCausalLM`): Llama's network with rotary pairs of neighbours in half of each head, and biases of
queries, keys and values. Gate and value of its feed-forward network are one matrix."""

from __future__ import annotations

from typing import Any

from minilong.models.config import ModelConfig
from minilong.models.families.family import Family
from minilong.models.families.hf import HF
from minilong.models.families.llama import decoder, decoder_places, described
from minilong.models.families.places import Place, linear

SHARE = 0.5
"""Of a head's components, turned where config.json does not say."""


def read(hf: HF) -> ModelConfig:
    """A language model."""
    return decoder(
        hf,
        layout="interleaved",
        layers=40,
        head_width=128,
        feed_forward=hf.whole("intermediate_size", 13696),
        context=hf.whole("max_position_embeddings", 131072),
        kv_heads=hf.whole("num_key_value_heads", 2),
        eps=1.5625e-07,
        share=SHARE,
        bias=hf.flag("attention_bias", True),
        biases="qkv" if hf.flag("attention_bias", True) else "all",
    )


def write(c: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The keys that `read` looks at."""
    return {
        "architectures": ["GlmForCausalLM"],
        **described(c),
        "partial_rotary_factor": c.rope_share,
        "attention_bias": c.bias,
    }


def arrays(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    found = decoder_places(c)
    for i in range(c.layers):
        ours, theirs = f"stack.layers.{i}.feed_forward", f"model.layers.{i}.mlp"
        for n, name in enumerate(("gate", "up")):
            part = (n * c.feed_forward, (n + 1) * c.feed_forward)
            found |= linear(f"{ours}.{name}", f"{theirs}.gate_up_proj", bias=False, part=part)
        found |= linear(f"{ours}.down", f"{theirs}.down_proj", bias=False)
    return found


GLM = Family(
    model_type="glm",
    architectures=("GlmForCausalLM",),
    prefix="",
    read=read,
    write=write,
    arrays=arrays,
    embedding="model.embed_tokens.weight",
    known=("model.layers.{i}.self_attn.rotary_emb.inv_freq",),
)
