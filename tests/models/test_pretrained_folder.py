"""Folders of pretrained models: opened strictly, old and bare files too, and saved whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.errors import UserError
from minilong.models import pretrained
from minilong.models.assemble import shapes_of
from minilong.models.config import ModelConfig
from minilong.models.families import FAMILIES
from minilong.models.families.places import arrays_there
from minilong.models.files.safetensors import write_safetensors
from minilong.models.pretrained import open_folder, save_folder

V = 11
BERT = {
    "model_type": "bert", "vocab_size": V, "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
    "intermediate_size": 9, "max_position_embeddings": 10, "architectures": ["BertForMaskedLM"],
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "vocab_size": V, "n_layer": 2, "n_embd": 8, "n_head": 2, "n_positions": 10}


def arrays_of(hf: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays under our names."""
    rng, c = np.random.default_rng(seed), FAMILIES[hf["model_type"]].config(hf)
    return {path: rng.standard_normal(s).astype(np.float32) for path, s in shapes_of(c, V).items()}


def theirs(hf: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """The same under their names."""
    family = FAMILIES[hf["model_type"]]
    return arrays_there(family.places(family.config(hf)), arrays_of(hf, seed))


def written(folder: Path, hf: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf), "utf-8")
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def assert_opened(folder: Path, hf: Mapping[str, Any], seed: int = 0) -> None:
    opened, right = open_folder(folder), arrays_of(hf, seed)
    assert set(opened.arrays) == set(right)
    for path, x in right.items():
        np.testing.assert_array_equal(opened.arrays[path], x)
    assert opened.model().context == 10


@pytest.mark.parametrize("hf", [BERT, GPT2], ids=["bert", "gpt2"])
def test_arrays_are_views_of_the_file(hf: dict[str, Any], tmp_path: Path) -> None:
    folder = written(tmp_path, hf, theirs(hf))
    assert_opened(folder, hf)
    for x in open_folder(folder).arrays.values():
        assert isinstance(x, np.ndarray)
        assert x.base is not None
        assert not x.flags.writeable


def test_names_of_a_bare_model_lack_its_prefix(tmp_path: Path) -> None:
    bare = {name.removeprefix("transformer."): x for name, x in theirs(GPT2).items()}
    assert_opened(written(tmp_path, GPT2, bare), GPT2)


def test_norms_of_old_files_have_gamma_and_beta(tmp_path: Path) -> None:
    def old(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    old_names = {old(name): x for name, x in theirs(BERT).items()}
    assert any("gamma" in name for name in old_names)
    assert_opened(written(tmp_path / "old", BERT, old_names), BERT)
    with pytest.raises(UserError, match="holds an array under its old and its new name"):
        open_folder(written(tmp_path / "both", BERT, old_names | theirs(BERT)))


def test_known_extras_are_let_be_and_no_others(tmp_path: Path) -> None:
    more = {"transformer.h.1.attn.bias": np.zeros((1, 1, 10, 10), np.float32)}
    assert_opened(written(tmp_path / "known", GPT2, theirs(GPT2) | more), GPT2)
    for name in ("transformer.h.2.attn.bias", "transformer.h.1.attn.mask", "transformer.wpe.bias"):
        folder = written(tmp_path / name, GPT2, theirs(GPT2) | {name: np.zeros(3, np.float32)})
        with pytest.raises(UserError, match=f"1 unexpected: {name}; fetch it again"):
            open_folder(folder)


def test_a_copy_of_the_table_is_tied_and_another_projection_is_not(tmp_path: Path) -> None:
    tensors = theirs(GPT2)
    table = tensors["transformer.wte.weight"]
    folder = written(tmp_path / "tied", GPT2, tensors | {"lm_head.weight": table})
    assert open_folder(folder).config.tied
    other = written(tmp_path / "other", GPT2, tensors | {"lm_head.weight": 2 * table})
    opened = open_folder(other)
    assert not opened.config.tied  # as `transformers` does: config.json is wrong, and the file right
    np.testing.assert_array_equal(opened.arrays["head.weight"], 2 * table.T)


def test_all_misfits_are_named_in_their_names(tmp_path: Path) -> None:
    tensors = theirs(GPT2)
    del tensors["transformer.h.0.ln_1.bias"], tensors["transformer.h.1.attn.c_attn.weight"]
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:9]
    tensors["transformer.ln_f.bias"] = np.zeros(8, np.int64)
    tensors["strange"] = np.zeros(2, np.float32)
    with pytest.raises(UserError) as caught:
        open_folder(written(tmp_path, GPT2, tensors))
    assert "2 missing: transformer.h.0.ln_1.bias, transformer.h.1.attn.c_attn.weight; 1 unexpected: strange" in str(
        caught.value
    )
    assert "2 misshapen: transformer.wpe.weight (9 x 8, not 10 x 8)" in str(caught.value)
    assert "transformer.ln_f.bias (I64, not floating-point)" in str(caught.value)


def test_half_precision_is_read(tmp_path: Path) -> None:
    halves = {name: x.astype(np.float16) for name, x in theirs(GPT2).items()}
    opened = open_folder(written(tmp_path, GPT2, halves))
    assert all(x.dtype == np.float32 for x in opened.arrays.values() if isinstance(x, np.ndarray))
    assert opened.model()(np.arange(4)[None]).dtype == np.float32


HUGE = {"n_layer": 10_000}, {"n_embd": 1_000_000}, {"vocab_size": 10**12}, {"n_inner": 10_000_000}


@pytest.mark.parametrize("lie", HUGE, ids=str)
def test_a_config_of_another_size_is_refused_before_anything_is_made(lie: dict[str, int], tmp_path: Path) -> None:
    folder = written(tmp_path, GPT2 | lie, theirs(GPT2))
    with pytest.raises(UserError, match=r"config\.json describes a model of .*; they do not belong together"):
        open_folder(folder)


BROKEN = [
    (b"{}", "model_type = None; minilong opens bert, roberta,"),
    (b'{"model_type": "gpt-2"}', "model_type = 'gpt-2' .did you mean 'gpt2'..; minilong opens"),
    (b'{"model_type": "gpt2", "model_type": "bert"}', "holds the key 'model_type' twice"),
    (b"[]", "holds no JSON object"),
    (b"\xff\xfe", "is no JSON text"),
    (b" " * (1 << 20) + b"{}", "1048576 are read at most"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN, ids=[m for _, m in BROKEN])
def test_a_broken_config_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no folder; give one that holds config\.json"):
        open_folder(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds no config\.json"):
        open_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(GPT2), "utf-8")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        open_folder(tmp_path)


TOKENIZER = json.dumps(
    {
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": True}, {"id": 3, "content": "<unk>"}],
        "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "<unk>": 3}},
    }
)


def saved(folder: Path, **changes: Any) -> Path:
    c, other = FAMILIES["gpt2"].config(GPT2), {"eos_token_id": [0, 3], "pad_token_id": 3, "resid_pdrop": 0.1}
    hf = {**GPT2, **other, "torch_dtype": "float16", "rope_theta": 9.0}
    c = replace(c, **changes)
    save_folder(
        folder, c, arrays_of(GPT2), family="gpt2", hf=hf, tokenizer_json=TOKENIZER, chat_template="{{ messages }}"
    )
    return folder


def test_a_saved_folder_holds_what_the_library_reads(tmp_path: Path) -> None:
    folder = saved(tmp_path / "new" / "model")
    assert_opened(folder, GPT2)
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    said = json.loads((folder / "config.json").read_text("utf-8"))
    assert (said["resid_pdrop"], said["torch_dtype"], said["architectures"]) == (0.1, "float32", ["GPT2LMHeadModel"])
    assert "rope_theta" not in said
    assert json.loads((folder / "generation_config.json").read_text("utf-8")) == {
        "eos_token_id": [0, 3],
        "pad_token_id": 3,
    }
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8")) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 10,
        "eos_token": "<|endoftext|>",
        "pad_token": "<unk>",
        "unk_token": "<unk>",
        "chat_template": "{{ messages }}",
    }
    assert (folder / "tokenizer.json").read_text("utf-8") == TOKENIZER
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_model_of_our_own_is_saved_without_a_config_before(tmp_path: Path) -> None:
    c = ModelConfig(layers=2, width=8, heads=2, context=10, position="learned", input="plain")
    save_folder(tmp_path / "own", c, arrays_of(GPT2), family="gpt2", hf={})
    assert_opened(tmp_path / "own", GPT2)


def test_a_folder_that_exists_is_not_written_over(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    with pytest.raises(UserError, match="exists already; give a new folder, or remove that one"):
        saved(tmp_path / "model")


def test_nothing_is_left_where_saving_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"model\.window is 5"):
        saved(tmp_path / "model", window=5)
    assert not list(tmp_path.iterdir())

    def interrupted(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "write_safetensors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_arrays_that_are_not_the_models_are_not_saved(tmp_path: Path) -> None:
    arrays = arrays_of(GPT2)
    del arrays["stack.norm.bias"]
    with pytest.raises(UserError, match=r"what is to be saved are not .*: 1 missing: stack\.norm\.bias"):
        save_folder(tmp_path / "model", FAMILIES["gpt2"].config(GPT2), arrays, family="gpt2", hf=GPT2)
    with pytest.raises(UserError, match=r"\d+ missing: input\.tokens\.table"):
        save_folder(tmp_path / "model", FAMILIES["gpt2"].config(GPT2), {}, family="gpt2", hf=GPT2)
