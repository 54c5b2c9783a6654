"""T5 (Raffel et al. 2020): an encoder-decoder whose positions are biases of the distance. Its scores are not divided by
the root of the head's width. Version 1.0 ties its tables and scales what the output reads; 1.1 has gated GELU."""

from __future__ import annotations

from typing import Any

from minilong.errors import UserError
from minilong.models.config import GATED, ModelConfig
from minilong.models.families.family import Family
from minilong.models.families.hf import ACTIVATIONS, GATES, HF, THEIR_ACTIVATIONS
from minilong.models.families.places import Place, linear, norm
from minilong.models.fields import show
from minilong.positions.t5 import BUCKETS, LONGEST

PROJECTIONS = {
    **ACTIVATIONS,
    **{f"gated-{theirs}": GATES[ours] for theirs, ours in ACTIVATIONS.items() if ours in GATES},
    "gated-gelu": "geglu_tanh",
}
"""`feed_forward_proj` -> our activation. What is called gated-gelu has the form by tanh."""


def read(hf: HF) -> ModelConfig:
    """An encoder-decoder."""
    layers, width = hf.whole("num_layers", 6), hf.whole("d_model", 512)
    if hf.whole("num_decoder_layers", layers) != layers:
        raise UserError(
            f"config.json has num_decoder_layers = {show(hf.get('num_decoder_layers'))} and num_layers = {layers}, but "
            "minilong's stacks have as many layers each"
        )
    hf.only("relative_attention_num_buckets", BUCKETS)
    hf.only("relative_attention_max_distance", LONGEST)
    tied = hf.flag("tie_word_embeddings", True)
    return ModelConfig(
        kind="encoder-decoder",
        layers=layers,
        width=width,
        heads=hf.whole("num_heads", 8),
        head_width=hf.whole("d_kv", 64),
        feed_forward=hf.whole("d_ff", 2048),
        activation=hf.word("feed_forward_proj", "relu", PROJECTIONS),
        normalization="rms",
        norm_eps=hf.number("layer_norm_epsilon", 1e-6),
        position="t5",
        context=hf.whole("n_positions", 512),
        tied=tied,
        bias=False,
        input="plain",
        score_scale=1.0,
        output_scale=width**-0.5 if hf.flag("scale_decoder_outputs", tied) else 1.0,
    )


def write(c: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The keys that `read` looks at. `scale_decoder_outputs` is what newer versions of `transformers` write."""
    names = {"geglu_tanh": "gated-gelu", "swiglu": "gated-silu"}
    plain = THEIR_ACTIVATIONS.get(c.activation, c.activation)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "num_layers": c.layers,
        "num_decoder_layers": c.layers,
        "d_model": c.width,
        "num_heads": c.heads,
        "d_kv": c.head_width,
        "d_ff": c.feed_forward,
        "feed_forward_proj": names.get(c.activation, plain) if c.activation in GATED else plain,
        "layer_norm_epsilon": c.norm_eps or 1e-6,
        "n_positions": c.context,
        "relative_attention_num_buckets": BUCKETS,
        "relative_attention_max_distance": LONGEST,
        "tie_word_embeddings": c.tied,
        "scale_decoder_outputs": c.output_scale != 1.0,
    }


def arrays(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    found = {"input.tokens.table": Place("shared.weight")}
    if not c.tied:
        found |= linear("head", "lm_head", bias=False)
    for stack in ("encoder", "decoder"):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found |= {
            f"{stack}_scheme.table": Place(bias),
            **norm(f"{stack}.norm", f"{stack}.final_layer_norm", bias=False),
        }
        for i in range(c.layers):
            ours, theirs = f"{stack}.layers.{i}", f"{stack}.block.{i}.layer"
            parts = [("attention", "SelfAttention"), *([("cross", "EncDecAttention")] if stack == "decoder" else [])]
            for place, (name, module) in enumerate(parts):
                for our, their in zip(("query", "key", "value", "output"), "qkvo", strict=True):
                    found |= linear(f"{ours}.{name}.{our}", f"{theirs}.{place}.{module}.{their}", bias=False)
                found |= norm(f"{ours}.{name}_norm", f"{theirs}.{place}.layer_norm", bias=False)
            last = f"{theirs}.{len(parts)}"
            gated = c.activation in GATED
            for our, their in (("gate", "wi_0"), ("up", "wi_1")) if gated else (("up", "wi"),):
                found |= linear(f"{ours}.feed_forward.{our}", f"{last}.DenseReluDense.{their}", bias=False)
            found |= linear(f"{ours}.feed_forward.down", f"{last}.DenseReluDense.wo", bias=False)
            found |= norm(f"{ours}.feed_forward_norm", f"{last}.layer_norm", bias=False)
    return found


T5 = Family(
    model_type="t5",
    architectures=("T5ForConditionalGeneration",),
    prefix="",
    read=read,
    write=write,
    arrays=arrays,
    embedding="shared.weight",
    known=(
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    ),
)
