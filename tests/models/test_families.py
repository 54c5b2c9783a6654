"""Families of published models: each says all that its configuration holds, and refuses by name what it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minilong.errors import UserError
from minilong.models.assemble import shapes_of
from minilong.models.config import ModelConfig
from minilong.models.families import FAMILIES
from minilong.models.families.family import settled
from minilong.models.families.places import arrays_there, shapes_there

SIZES = {
    "bert": {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 9},
    "gpt2": {"n_layer": 2, "n_embd": 8, "n_head": 2, "n_positions": 10},
    "t5": {"num_layers": 2, "d_model": 8, "d_kv": 3, "num_heads": 2, "d_ff": 9},
}
SIZES |= {"roberta": SIZES["bert"], "llama": {**SIZES["bert"], "num_key_value_heads": 1}}
SIZES |= {"mistral": SIZES["llama"], "glm": {**SIZES["llama"], "head_dim": 8}}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "bert": [
        {}, {"architectures": ["BertForMaskedLM"], "hidden_act": "gelu_new"}, {"architectures": ["BertForPreTraining"]},
        {"architectures": ["BertForMaskedLM"], "tie_word_embeddings": False},
    ],
    "roberta": [{}, {"architectures": ["RobertaModel"]}, {"tie_word_embeddings": False}],
    "gpt2": [{}, {"scale_attn_weights": False, "tie_word_embeddings": False, "n_inner": 7}],
    "t5": [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, {"feed_forward_proj": "gated-silu"}],
    "llama": [
        {}, {"tie_word_embeddings": True, "attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 5000},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ],
    "mistral": [{}, {"sliding_window": None}, {"sliding_window": 7}],
    "glm": [{}, {"attention_bias": False, "partial_rotary_factor": 0.25}],
}  # fmt: skip
EACH = [(name, i) for name, variants in VARIANTS.items() for i in range(len(variants))]


def hf(name: str, **more: Any) -> dict[str, Any]:
    return {"model_type": name, "vocab_size": 11, **SIZES[name], **more}


def read(values: dict[str, Any]) -> tuple[ModelConfig, int]:
    family = FAMILIES[values["model_type"]]
    return family.config(values), family.vocabulary(values)


def test_there_are_seven() -> None:
    assert set(FAMILIES) == set(VARIANTS) == {"bert", "roberta", "gpt2", "t5", "llama", "mistral", "glm"}


@pytest.mark.parametrize(("name", "i"), EACH)
def test_what_a_config_says_is_said_again(name: str, i: int) -> None:
    family, given = FAMILIES[name], hf(name, **VARIANTS[name][i])
    c = family.config(given)
    said = family.describe(c, family.vocabulary(given))
    assert settled(family.config(said)) == settled(c)
    assert said["model_type"] == name
    assert said["vocab_size"] == family.vocabulary(given) == 11


@pytest.mark.parametrize(("name", "i"), EACH)
def test_every_array_has_one_place_and_comes_back(name: str, i: int) -> None:
    family = FAMILIES[name]
    c = family.config(hf(name, **VARIANTS[name][i]))
    shapes, places, rng = shapes_of(c, 11), family.places(c), np.random.default_rng(0)
    assert set(places) == set(shapes)
    arrays = {path: rng.standard_normal(shape).astype(np.float32) for path, shape in shapes.items()}
    there = arrays_there(places, arrays)
    assert {n: x.shape for n, x in there.items()} == shapes_there(places, shapes)
    for path, place in places.items():
        np.testing.assert_array_equal(place.of(there[place.name]), arrays[path])
        assert np.shares_memory(place.of(there[place.name]), there[place.name])
    assert not family.extras(c) & set(there) - {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} - {
        n for n in there if n.startswith(("cls.", "lm_head."))
    }


def test_defaults_are_those_of_the_library() -> None:
    bare = {"vocab_size": 11}
    assert FAMILIES["bert"].config({**bare, "model_type": "bert", "architectures": ["BertForMaskedLM"]}) == ModelConfig(
        kind="encoder", layers=12, width=768, heads=12, feed_forward=3072, activation="gelu", norm="post",
        norm_eps=1e-12, position="learned", context=512, types=2, input="normed", output="transform",
    )  # fmt: skip
    mistral = FAMILIES["mistral"].config({**bare, "model_type": "mistral"})
    assert (mistral.window, mistral.kv_heads, mistral.context) == (4096, 8, 131072)
    null = FAMILIES["mistral"].config({**bare, "model_type": "mistral", "num_key_value_heads": None})
    assert null.kv_heads == 32
    glm = FAMILIES["glm"].config({**bare, "model_type": "glm"})
    assert (glm.rope_share, glm.head_width, glm.kv_heads, glm.layers) == (0.5, 128, 2, 40)
    assert FAMILIES["t5"].config({**bare, "model_type": "t5"}).output_scale == 512**-0.5


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bert", {"hidden_act": "mish"}, "hidden_act = 'mish'; minilong knows relu, gelu,"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key', which"),
    ("bert", {"architectures": ["BertForQuestionAnswering"]}, "architectures = .'BertForQuestionAnswering'.; of this"),
    ("bert", {"architectures": None, "is_decoder": True}, "is_decoder = True, which minilong does not compute"),
    ("bert", {"add_cross_attention": True}, "add_cross_attention = True"),
    ("bert", {"auto_map": {"AutoModel": "x.py"}}, "auto_map: code of its own, which minilong does not run"),
    ("bert", {"num_hidden_layers": -2}, "num_hidden_layers = -2, which must be a whole number from 1 on"),
    ("bert", {"num_hidden_layers": 2.0}, "num_hidden_layers = 2.0, which must be a whole number"),
    ("bert", {"num_hidden_layers": True}, "num_hidden_layers = True, which must be a whole number"),
    ("bert", {"layer_norm_eps": 0}, "layer_norm_eps = 0, which must be a number above 0"),
    ("bert", {"tie_word_embeddings": "yes", "architectures": ["BertForMaskedLM"]}, "= 'yes', which must be true or"),
    ("roberta", {"hidden_act": "relu"}, "hidden_act = 'relu', but RoBERTa's head always has gelu"),
    ("roberta", {"pad_token_id": 0}, "pad_token_id = 0, which minilong does not compute; it knows 1"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
    ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config: weights in another form"),
    ("t5", {"num_decoder_layers": 3}, "num_decoder_layers = 3 and num_layers = 2"),
    ("t5", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets = 16"),
    ("t5", {"feed_forward_proj": "gated-relu"}, "feed_forward_proj = 'gated-relu'; minilong knows"),
    ("llama", {"hidden_act": "relu"}, "hidden_act = 'relu'; minilong knows gelu,"),
    ("llama", {"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_scaling of type 'longrope', which"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "config.json has no factor"),
    ("llama", {"rope_scaling": "linear"}, "rope_scaling = 'linear', which must be an object"),
    ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 16}}, "beta_fast = 16, which"),
    ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0, "attention_factor": 1.0}}, r"= 1 for YaRN's .* 1.069"),
    (
        "llama",
        {"rope_scaling": {"type": "llama3", "factor": 2.0, "low_freq_factor": 2.0, "high_freq_factor": 4.0}},
        "low_freq_factor = 2.0, which",
    ),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5, which"),
    ("llama", {"rope_scaling": {"type": ["linear"]}}, "rope_scaling of type .'linear'., which"),
    ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types = .* layers are all alike"),
    ("glm", {"vocab_size": None}, "config.json has no vocab_size"),
]


@pytest.mark.parametrize(("name", "more", "message"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(name: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(hf(name, **more))


@pytest.mark.parametrize("key", ["attention_dropout", "hidden_dropout_prob", "use_cache", "torch_dtype", "anything"])
def test_what_changes_no_number_is_let_be(key: str) -> None:
    assert FAMILIES["llama"].config(hf("llama", **{key: 0.5})) == FAMILIES["llama"].config(hf("llama"))


UNSAYABLE: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"window": 5}, "model.window is 5, but a config.json of llama can only say 0 here"),
    ("mistral", {"window": 5, "sinks": 1}, "model.sinks is 1, but a config.json of mistral can only say 0"),
    ("llama", {"rope_layout": "interleaved"}, "model.rope_layout is 'interleaved'"),
    ("llama", {"normalization": "layer"}, "model.normalization is 'layer'"),
    ("llama", {"activation": "relu"}, "cannot be saved as llama: config.json has hidden_act = 'relu'"),
    ("llama", {"score_scale": 1.0}, "model.score_scale is 1.0"),
    ("llama", {"bias": True, "biases": "qkv"}, "model.bias is True"),
    ("gpt2", {"position": "alibi"}, "model.position is 'alibi', but a config.json of gpt2 can only say 'learned'"),
    ("gpt2", {"depth": "reversible"}, "model.depth is 'reversible'"),
    ("gpt2", {"kv_heads": 1}, "model.kv_heads is 1"),
    ("bert", {"norm": "pre"}, "model.norm is 'pre'"),
    ("t5", {"output_scale": 0.7}, "model.output_scale is 0.7"),
    ("llama", {"rope_scaling": "yarn", "rope_factor": 2.0, "rope_ramp": "paper"}, "model.rope_ramp is 'paper'"),
]


@pytest.mark.parametrize(("name", "changes", "message"), UNSAYABLE)
def test_what_a_config_cannot_say_is_not_saved(name: str, changes: dict[str, Any], message: str) -> None:
    c = replace(FAMILIES[name].config(hf(name)), **changes)
    with pytest.raises(UserError, match=message):
        FAMILIES[name].describe(c, 11)


def test_what_changes_no_number_is_saved() -> None:
    family = FAMILIES["llama"]
    c = family.config(hf("llama"))
    changed = replace(c, dropout=0.1, attention="dense", depth="checkpoint", init="he", rope_ramp="paper", momentum=0.5)
    assert family.describe(changed, 11) == family.describe(c, 11)


def test_ntk_scaling_is_said_as_a_base() -> None:
    family = FAMILIES["llama"]
    c = replace(family.config(hf("llama", head_dim=8)), rope_scaling="ntk", rope_factor=4.0)
    said = family.describe(c, 11)
    assert said["rope_theta"] == pytest.approx(10000 * 4 ** (8 / 6))
    assert said["rope_scaling"] is None
