"""A run as a folder that `transformers` opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minilong.autodiff.tree import named
from minilong.backend import Array
from minilong.data.pretrained import PretrainedTokenizer
from minilong.errors import UserError
from minilong.models.config import GATED, ModelConfig
from minilong.models.families import FAMILIES
from minilong.models.pretrained import save_folder
from minilong.train.loaded import load
from minilong.train.opened import RUN_FAMILY, read_origin
from minilong.train.run import RunFolder

HALVES = ("llama", "mistral")
"""Families whose rotary pairs are the halves of a head."""


def save_run(path: Path, to: Path, *, weights: str = "best") -> tuple[str, bool]:
    """Write the model of a run, adapters merged in, as a folder of `transformers`; its family, and whether the
    tokenizer could be written too, which ours cannot.

    UserError for a model that no family can describe, naming the setting.
    """
    loaded = load(path, weights, decode=True)
    with RunFolder.open(path) as run:
        origin = read_origin(run)
    config = loaded.config.model.resolved()
    family = origin.family if origin is not None and origin.family != RUN_FAMILY else family_for(config)
    arrays: Mapping[str, Array] = named(loaded.model)
    if family in HALVES and config.rope_layout == "interleaved" and config.position == "rotary":
        arrays, config = in_halves(config, arrays), replace(config, rope_layout="half")
    tokenizer = loaded.tokenizer
    text = tokenizer.text if isinstance(tokenizer, PretrainedTokenizer) else None
    hf: Mapping[str, Any] = {} if origin is None else origin.hf
    template = None if origin is None else origin.chat_template
    save_folder(to, config, arrays, family=family, hf=hf, tokenizer_json=text, chat_template=template)
    return family, text is not None


def family_for(config: ModelConfig) -> str:
    """The family that says most of what a model of ours is; whether it says all is for `describe`."""
    if config.kind == "encoder-decoder":
        return "t5"
    if config.kind == "encoder":
        return "bert"
    if config.position == "learned":
        return "gpt2"
    if config.position != "rotary":
        raise UserError(
            f"model.position is {config.position!r}, which no family of decoders has that can be saved "
            f"({', '.join(FAMILIES)}); train with --position rotary or learned"
        )
    if config.activation not in GATED:
        raise UserError(
            f"model.activation is {config.activation!r}, but the families with rotary positions have a gated network; "
            "train with --set activation=swiglu, or with --position learned for GPT-2"
        )
    return "glm" if config.rope_share < 1 else "mistral" if config.window else "llama"


def in_halves(config: ModelConfig, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of a model whose rotary pairs are neighbours, for one whose pairs are the halves of a head: the
    components of each head's queries and keys in another order, by which no score changes."""
    width = config.resolved().head_width
    order = np.arange(width).reshape(-1, 2).T.reshape(-1)  # 0, 2, 4, ..., 1, 3, 5, ...
    moved = dict(arrays)
    for name, x in arrays.items():
        if name.rpartition(".")[0].endswith((".attention.query", ".attention.key")):
            heads = x.reshape(*x.shape[:-1], -1, width)
            moved[name] = heads[..., order].reshape(x.shape)
    return moved
