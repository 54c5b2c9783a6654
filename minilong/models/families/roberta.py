"""RoBERTa (Liu et al. 2019): BERT's network with another head, and positions that count from padding's id + 1."""

from __future__ import annotations

from typing import Any

from minilong.errors import UserError
from minilong.models.config import ModelConfig
from minilong.models.families.bert import described, encoder, encoder_places
from minilong.models.families.family import Family
from minilong.models.families.hf import HF
from minilong.models.families.places import Place, linear, norm
from minilong.models.fields import show

ARCHITECTURES = ("RobertaForMaskedLM", "RobertaModel")
AFTER = 2
"""Rows of the table of positions before that of the first token: padding has id 1, and tokens count from the next."""


def read(hf: HF) -> ModelConfig:
    """With the head of masks, or without."""
    kind = hf.architecture(ARCHITECTURES)
    hf.only("position_embedding_type", "absolute")
    hf.only("pad_token_id", AFTER - 1)
    if kind == "RobertaForMaskedLM" and hf.get("hidden_act", "gelu") != "gelu":
        raise UserError(
            f"config.json has hidden_act = {show(hf.get('hidden_act'))}, but RoBERTa's head always has gelu, and "
            "minilong has one activation for both"
        )
    return encoder(
        hf,
        context=hf.whole("max_position_embeddings", 512, least=AFTER + 1) - AFTER,
        output="none" if kind == "RobertaModel" else "transform",
        pooler=False,
    )


def write(c: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The keys that `read` looks at."""
    kind = "RobertaModel" if c.output == "none" else "RobertaForMaskedLM"
    return {
        "architectures": [kind],
        "max_position_embeddings": c.context + AFTER,
        "pad_token_id": AFTER - 1,
        **described(c),
    }


def arrays(c: ModelConfig) -> dict[str, Place]:
    """Our field path -> theirs."""
    found = encoder_places(c, "roberta", after=AFTER)
    if c.output == "transform":
        found |= {"transform.bias": Place("lm_head.bias" if c.tied else "lm_head.decoder.bias")}
        found |= linear("transform.dense", "lm_head.dense")
        found |= norm("transform.norm", "lm_head.layer_norm")
        if not c.tied:
            found |= linear("head", "lm_head.decoder", bias=False)
    return found


ROBERTA = Family(
    model_type="roberta",
    architectures=ARCHITECTURES,
    prefix="roberta.",
    read=read,
    write=write,
    arrays=arrays,
    embedding="roberta.embeddings.word_embeddings.weight",
    head="lm_head.decoder.weight",
    known=(
        "roberta.embeddings.position_ids",
        "roberta.pooler.dense.weight",
        "roberta.pooler.dense.bias",
        "lm_head.bias",
        "lm_head.decoder.bias",
    ),
)
