"""A trace against the modules of `transformers`: seven families agree array by array, and a mistake that is planted in
one layer of ours is found there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.models.pretrained import open_folder
from minilong.nn import EncoderDecoder
from minilong.train.config import RunConfig
from minilong.train.loaded import LoadedRun
from minilong.train.trace import trace
from minilong.train.trace_compare import TOLERANCE, Comparison, compare, first_divergence

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from minilong.train.trace_transformers import STREAMS, reference

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

VOCABULARY = 41
IDS = np.random.default_rng(0).integers(4, VOCABULARY, (1, 11)).astype(np.int32)
BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 50}
LLAMA = {**BERT, "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 1}
CASES: dict[str, dict[str, Any]] = {
    "BertForPreTraining": BERT,
    "BertModel": BERT,
    "RobertaForMaskedLM": {**BERT, "type_vocab_size": 1, "pad_token_id": 1},
    "GPT2LMHeadModel": {"n_embd": 24, "n_layer": 2, "n_head": 4},
    "T5ForConditionalGeneration": {"d_model": 24, "d_kv": 5, "d_ff": 50, "num_layers": 2, "num_heads": 4},
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": {**LLAMA, "sliding_window": 5},
    "GlmForCausalLM": {**LLAMA, "head_dim": 8},
}
LEAST = {"BertForPreTraining": 36, "BertModel": 32, "T5ForConditionalGeneration": 70}
"""Arrays that are compared, at least; 28 for decoders of two layers."""


def saved(name: str, folder: Path) -> Path:
    """A model of `transformers` with weights that matter."""
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(vocab_size=VOCABULARY, bos_token_id=2, eos_token_id=3, **CASES[name]))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p + (0.4 * torch.randn_like(p) if p.ndim == 1 else torch.randn_like(p) / p.shape[-1] ** 0.5))
    model.save_pretrained(folder)
    return folder


def compared(folder: Path, change: Callable[[Any], Any] = lambda model: model) -> list[Comparison]:
    """Our pass, by a model that is changed, beside that of the folder."""
    opened = open_folder(folder)
    model = change(opened.model())
    tokens = {"source": IDS, "target": IDS[:, :7]} if isinstance(model, EncoderDecoder) else {"tokens": IDS}
    theirs = reference(folder, tokens)
    found = trace(LoadedRun(RunConfig(), model, None, 0), tokens, kept=theirs.__contains__)  # type: ignore[arg-type]
    return compare(found.records, found.arrays, theirs, TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_every_array_agrees(name: str, tmp_path: Path) -> None:
    found = compared(saved(name, tmp_path))
    assert not [c for c in found if c.diverges]
    names = {c.name for c in found}
    assert len(names) == len(found) >= LEAST.get(name, 28)
    kind = open_folder(tmp_path).family
    for stack in STREAMS[kind]:
        for i in range(2):
            ends = (
                "",
                ".attention.query",
                ".attention.weights",
                ".attention.heads",
                ".attention.output",
                ".feed_forward.hidden",
            )
            assert {f"{stack}.layers.{i}{end}" for end in ends} <= names
    assert name == "BertModel" or "logits" in names


def in_second(part: str, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A change of one part of the second layer."""

    def changed(model: Any) -> Any:
        first, layer = model.stack.layers
        layer = replace(layer, **{part: change(getattr(layer, part))})
        return replace(model, stack=replace(model.stack, layers=(first, layer)))

    return changed


def one_weight(layer: Any) -> Any:
    weight = np.array(layer.down.weight)
    weight[3, 4] *= 1.05
    return replace(layer, down=replace(layer.down, weight=weight))


def neighbours(attention: Any) -> Any:
    """The rotary layout trap: this layer's components in the order of the other layout."""
    order = np.arange(6).reshape(2, 3).T.reshape(-1)
    weight = attention.query.weight
    moved = np.concatenate([weight[:, h * 6 : h * 6 + 6][:, order] for h in range(4)], axis=1)
    return replace(attention, query=replace(attention.query, weight=np.ascontiguousarray(moved)))


@pytest.mark.parametrize(
    "part, change, name",
    [
        ("feed_forward", one_weight, "feed_forward.down"),
        ("feed_forward_norm", lambda norm: replace(norm, eps=1e-2), "feed_forward_norm"),
        ("attention", neighbours, "attention.query"),
        ("attention", lambda a: replace(a, scale=0.5), "attention.weights"),
    ],
)
def test_a_mistake_in_a_layer_is_found_there(part: str, change: Any, name: str, tmp_path: Path) -> None:
    first = first_divergence(compared(saved("LlamaForCausalLM", tmp_path), in_second(part, change)))
    assert first is not None
    assert first.name == f"stack.layers.1.{name}"


def test_the_wrong_rotary_layout_of_a_model_is_found_in_its_first_weights(tmp_path: Path) -> None:
    def wrong(model: Any) -> Any:
        return replace(model, scheme=replace(model.scheme, interleaved=True))

    first = first_divergence(compared(saved("LlamaForCausalLM", tmp_path), wrong))
    assert first is not None
    assert first.name == "stack.layers.0.attention.weights"


def test_a_run_of_our_own_agrees_when_it_is_saved(tmp_path: Path) -> None:
    """Its rotary pairs are neighbours, those of a Llama halves: queries and keys are compared in our order."""
    from minilong.autodiff.tree import named
    from minilong.models.pretrained import save_folder
    from minilong.train.saved import in_halves

    config = ModelConfig(
        layers=2, width=24, heads=4, activation="swiglu", normalization="rms", bias=False, input="plain"
    ).resolved()
    model = build(config, VOCABULARY, Key.of(2))
    halves = replace(config, rope_layout="half")
    save_folder(tmp_path / "model", halves, in_halves(config, named(model)), family="llama", hf={})
    theirs = reference(tmp_path / "model", {"tokens": IDS}, config)
    run = LoadedRun(RunConfig(model=config), model, None, 0)  # type: ignore[arg-type]
    found = trace(run, {"tokens": IDS}, kept=theirs.__contains__)
    assert first_divergence(compare(found.records, found.arrays, theirs, TOLERANCE)) is None
    unaware = reference(tmp_path / "model", {"tokens": IDS})
    first = first_divergence(compare(found.records, found.arrays, unaware, TOLERANCE))
    assert first is not None
    assert first.name == "stack.layers.0.attention.query"
