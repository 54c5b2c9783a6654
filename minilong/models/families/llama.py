"""Llama (Touvron et al. 2023): a decoder with rotary positions in halves, grouped heads, SwiGLU and RMSNorm."""

from __future__ import annotations

from typing import Any

from minilong.models.config import ModelConfig
from minilong.models.families.family import Family
from minilong.models.families.hf import HF, rope_described
from minilong.models.families.places import Place, linear, norm

THEIR_GATES = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_pytorch_tanh"}


def read(hf: HF) -> ModelConfig:
    """A language model."""
    attention, feed_forward = hf.flag("attention_bias", False), hf.flag("mlp_bias", False)
    heads = hf.whole("num_attention_heads", 32)
    biases = "all" if attention == feed_forward else "attention" if attention else "feed_forward"
    return decoder(
        hf,
        layout="half",
        feed_forward=hf.whole("intermediate_size", 11008),
        context=hf.whole("max_position_embeddings", 2048),
        kv_heads=hf.whole("num_key_value_heads", heads),
        eps=1e-6,
        bias=attention or feed_forward,
        biases=biases,
    )


def decoder(
    hf: HF,
    *,
    layout: str,
    feed_forward: int,
    context: int,
    kv_heads: int,
    eps: float,
    layers: int = 32,
    head_width: int = 0,
    share: float | None = None,
    bias: bool = False,
    biases: str = "all",
    window: int = 0,
) -> ModelConfig:
    """What Llama and its descendants share. eps, layers, share: where config.json does not say."""
    return ModelConfig(
        kind="decoder",
        layers=hf.whole("num_hidden_layers", layers),
        width=hf.whole("hidden_size", 4096),
        heads=hf.whole("num_attention_heads", 32),
        head_width=hf.whole("head_dim", head_width, least=0),
        kv_heads=kv_heads,
        feed_forward=feed_forward,
        activation=hf.gate("hidden_act", "silu"),
        normalization="rms",
        norm_eps=hf.number("rms_norm_eps", eps),
        context=context,
        tied=hf.flag("tie_word_embeddings", False),
        bias=bias,
        biases=biases,
        input="plain",
        window=window,
        rope_layout=layout,
        **hf.rope(context, share=share),
    )


def write(c: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The keys that `read` looks at."""
    return {
        "architectures": ["LlamaForCausalLM"],
        **described(c),
        "attention_bias": c.bias and c.biases in ("all", "attention"),
        "mlp_bias": c.bias and c.biases in ("all", "feed_forward"),
    }


def described(c: ModelConfig) -> dict[str, Any]:
    """What Llama and its descendants share."""
    return {
        "num_hidden_layers": c.layers,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "intermediate_size": c.feed_forward,
        "hidden_act": THEIR_GATES.get(c.activation, c.activation),
        "rms_norm_eps": c.norm_eps or 1e-6,
        "max_position_embeddings": c.context,
        "tie_word_embeddings": c.tied,
        **rope_described(c),
    }


def arrays(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    found = decoder_places(c)
    for i in range(c.layers):
        ours, theirs, biased = f"stack.layers.{i}.feed_forward", f"model.layers.{i}.mlp", has_bias(c, "feed_forward")
        for name in ("gate", "up", "down"):
            found |= linear(f"{ours}.{name}", f"{theirs}.{name}_proj", bias=biased)
    return found


def decoder_places(c: ModelConfig) -> dict[str, Place]:
    """All but the feed-forward networks."""
    found = {"input.tokens.table": Place("model.embed_tokens.weight"), **norm("stack.norm", "model.norm", bias=False)}
    if not c.tied:
        found |= linear("head", "lm_head", bias=False)
    for i in range(c.layers):
        ours, theirs = f"stack.layers.{i}", f"model.layers.{i}"
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
            biased = has_bias(c, "attention") or (has_bias(c, "qkv") and name != "output")
            found |= linear(f"{ours}.attention.{name}", f"{theirs}.self_attn.{letter}_proj", bias=biased)
        found |= norm(f"{ours}.attention_norm", f"{theirs}.input_layernorm", bias=False)
        found |= norm(f"{ours}.feed_forward_norm", f"{theirs}.post_attention_layernorm", bias=False)
    return found


def has_bias(c: ModelConfig, maps: str) -> bool:
    """Whether these linear maps have biases."""
    return c.bias and c.biases in ("all", maps)


LLAMA = Family(
    model_type="llama",
    architectures=("LlamaForCausalLM",),
    prefix="",
    read=read,
    write=write,
    arrays=arrays,
    embedding="model.embed_tokens.weight",
    known=("model.layers.{i}.self_attn.rotary_emb.inv_freq",),
)
