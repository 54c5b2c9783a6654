"""BERT (Devlin et al. 2019): an encoder with learned positions, segments, and post-norm."""

from __future__ import annotations

from typing import Any

from minilong.errors import UserError
from minilong.models.config import ModelConfig
from minilong.models.families.family import Family
from minilong.models.families.hf import ACTIVATIONS, HF, THEIR_ACTIVATIONS
from minilong.models.families.places import Place, linear, norm

ARCHITECTURES = ("BertModel", "BertForMaskedLM", "BertForPreTraining")


def read(hf: HF) -> ModelConfig:
    """Pretrained with both heads, with that of masks, or without."""
    kind = hf.architecture(ARCHITECTURES)
    hf.only("position_embedding_type", "absolute")
    return encoder(
        hf,
        context=hf.whole("max_position_embeddings", 512),
        output="none" if kind == "BertModel" else "transform",
        pooler=kind == "BertForPreTraining",
    )


def encoder(hf: HF, *, context: int, output: str, pooler: bool) -> ModelConfig:
    """What BERT and its descendants share."""
    return ModelConfig(
        kind="encoder",
        layers=hf.whole("num_hidden_layers", 12),
        width=hf.whole("hidden_size", 768),
        heads=hf.whole("num_attention_heads", 12),
        feed_forward=hf.whole("intermediate_size", 3072),
        activation=hf.word("hidden_act", "gelu", ACTIVATIONS),
        norm="post",
        norm_eps=hf.number("layer_norm_eps", 1e-12),
        position="learned",
        context=context,
        tied=output == "none" or hf.flag("tie_word_embeddings", True),
        types=hf.whole("type_vocab_size", 2),
        input="normed",
        output=output,
        pooler=pooler,
    )


def write(c: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The keys that `read` looks at."""
    if c.output == "none" and c.pooler:
        raise UserError("model.pooler is true, but a BertModel has no classifier behind it; set model.pooler = false")
    kind = "BertModel" if c.output == "none" else "BertForPreTraining" if c.pooler else "BertForMaskedLM"
    return {"architectures": [kind], "max_position_embeddings": c.context, **described(c)}


def described(c: ModelConfig) -> dict[str, Any]:
    """What BERT and its descendants share."""
    return {
        "num_hidden_layers": c.layers,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "intermediate_size": c.feed_forward,
        "hidden_act": THEIR_ACTIVATIONS.get(c.activation, c.activation),
        "layer_norm_eps": c.norm_eps or 1e-5,
        "type_vocab_size": c.types,
        "tie_word_embeddings": c.tied,
    }


def arrays(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    found = encoder_places(c, "bert")
    if c.output == "transform":
        found |= {"transform.bias": Place("cls.predictions.bias" if c.tied else "cls.predictions.decoder.bias")}
        found |= linear("transform.dense", "cls.predictions.transform.dense")
        found |= norm("transform.norm", "cls.predictions.transform.LayerNorm")
        if not c.tied:
            found |= linear("head", "cls.predictions.decoder", bias=False)
    if c.pooler:
        # Their first answer is "is next", ours "is not".
        found |= linear("pooler.dense", "bert.pooler.dense")
        found |= {
            "pooler.classifier.weight": Place("cls.seq_relationship.weight", turned=True, backward=True),
            "pooler.classifier.bias": Place("cls.seq_relationship.bias", backward=True),
        }
    return found


def encoder_places(c: ModelConfig, prefix: str, *, after: int = 0) -> dict[str, Place]:
    """Embeddings and layers. after: rows of the table of positions that no token uses."""
    theirs = f"{prefix}.embeddings"
    found = {
        "input.tokens.table": Place(f"{theirs}.word_embeddings.weight"),
        "input.positions.table": Place(f"{theirs}.position_embeddings.weight", after=after),
        "input.types.table": Place(f"{theirs}.token_type_embeddings.weight"),
        **norm("input.norm", f"{theirs}.LayerNorm"),
    }
    for i in range(c.layers):
        ours, theirs = f"stack.layers.{i}", f"{prefix}.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            found |= linear(f"{ours}.attention.{name}", f"{theirs}.attention.self.{name}")
        found |= linear(f"{ours}.attention.output", f"{theirs}.attention.output.dense")
        found |= norm(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm")
        found |= linear(f"{ours}.feed_forward.up", f"{theirs}.intermediate.dense")
        found |= linear(f"{ours}.feed_forward.down", f"{theirs}.output.dense")
        found |= norm(f"{ours}.feed_forward_norm", f"{theirs}.output.LayerNorm")
    return found


BERT = Family(
    model_type="bert",
    architectures=ARCHITECTURES,
    prefix="bert.",
    read=read,
    write=write,
    arrays=arrays,
    embedding="bert.embeddings.word_embeddings.weight",
    head="cls.predictions.decoder.weight",
    known=(
        "bert.embeddings.position_ids",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "cls.predictions.bias",
        "cls.predictions.decoder.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    ),
    older=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
)
