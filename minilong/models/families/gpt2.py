"""GPT-2 (Radford et al. 2019): a decoder with learned positions. Its maps hold weights (in, out), as ours do, and
queries, keys and values in one."""

from __future__ import annotations

from typing import Any

from minilong.models.config import ModelConfig
from minilong.models.families.family import Family
from minilong.models.families.hf import ACTIVATIONS, HF, THEIR_ACTIVATIONS
from minilong.models.families.places import Place, norm


def read(hf: HF) -> ModelConfig:
    """A language model."""
    hf.only("scale_attn_by_inverse_layer_idx", False)
    return ModelConfig(
        kind="decoder",
        layers=hf.whole("n_layer", 12),
        width=hf.whole("n_embd", 768),
        heads=hf.whole("n_head", 12),
        feed_forward=hf.whole("n_inner", 4 * hf.whole("n_embd", 768)),
        activation=hf.word("activation_function", "gelu_new", ACTIVATIONS),
        norm_eps=hf.number("layer_norm_epsilon", 1e-5),
        score_scale=0.0 if hf.flag("scale_attn_weights", True) else 1.0,
        position="learned",
        context=hf.whole("n_positions", 1024),
        tied=hf.flag("tie_word_embeddings", True),
        input="plain",
    )


def write(c: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The keys that `read` looks at."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": c.layers,
        "n_embd": c.width,
        "n_head": c.heads,
        "n_inner": c.feed_forward,
        "activation_function": THEIR_ACTIVATIONS.get(c.activation, c.activation),
        "layer_norm_epsilon": c.norm_eps or 1e-5,
        "scale_attn_weights": c.score_scale != 1.0,
        "n_positions": c.context,
        "tie_word_embeddings": c.tied,
    }


def arrays(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    found = {
        "input.tokens.table": Place("transformer.wte.weight"),
        "input.positions.table": Place("transformer.wpe.weight"),
        **norm("stack.norm", "transformer.ln_f"),
    }
    if not c.tied:
        found["head.weight"] = Place("lm_head.weight", turned=True)
    for i in range(c.layers):
        ours, theirs = f"stack.layers.{i}", f"transformer.h.{i}"
        for n, name in enumerate(("query", "key", "value")):
            found |= straight(f"{ours}.attention.{name}", f"{theirs}.attn.c_attn", (n * c.width, (n + 1) * c.width))
        found |= straight(f"{ours}.attention.output", f"{theirs}.attn.c_proj")
        found |= norm(f"{ours}.attention_norm", f"{theirs}.ln_1")
        found |= straight(f"{ours}.feed_forward.up", f"{theirs}.mlp.c_fc")
        found |= straight(f"{ours}.feed_forward.down", f"{theirs}.mlp.c_proj")
        found |= norm(f"{ours}.feed_forward_norm", f"{theirs}.ln_2")
    return found


def straight(ours: str, theirs: str, part: tuple[int, int] | None = None) -> dict[str, Place]:
    """A map whose weights lie as ours do."""
    return {f"{ours}.{name}": Place(f"{theirs}.{name}", part=part) for name in ("weight", "bias")}


GPT2 = Family(
    model_type="gpt2",
    architectures=("GPT2LMHeadModel",),
    prefix="transformer.",
    read=read,
    write=write,
    arrays=arrays,
    embedding="transformer.wte.weight",
    known=("transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias"),
)
