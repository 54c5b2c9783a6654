"""The reader of GGUF files, and the translation of llama.cpp's metadata and names."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_files import Array, gguf_file, llama_arrays, llama_metadata, text, value

from minilong.errors import UserError
from minilong.models.families.gguf import llama_cpp, open_gguf_model
from minilong.models.files import open_gguf
from minilong.nn import blocks
from minilong.nn.lowbit import LowBit, LowBitEmbedding, LowBitLinear

RAMP = np.arange(6, dtype="<f4")
ONE: Array = ("a", "F32", (2, 3), RAMP.tobytes())


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_metadata_of_every_type(tmp_path: Path) -> None:
    told: list[tuple[str, int, Any]] = [
        ("u8", 0, 255), ("i8", 1, -128), ("u16", 2, 65535), ("i16", 3, -5), ("u32", 4, 1 << 31), ("i32", 5, -7),
        ("f32", 6, 0.5), ("yes", 7, 1), ("text", 8, "né\n"), ("u64", 10, 1 << 63), ("i64", 11, -9), ("f64", 12, 1e300),
        ("words", 9, (8, ["a", "", "ü"])), ("numbers", 9, (5, [1, -2])), ("flags", 9, (7, [1, 0])),
        ("none", 9, (4, [])),
    ]  # fmt: skip
    with open_gguf(written(tmp_path / "a", gguf_file(told, []))) as file:
        found = file.metadata
    assert list(found) == [key for key, *_ in told]
    for key, kind, x in told:
        right = tuple(x[1]) if kind == 9 else x
        got = found[key]
        assert (tuple(got.tolist()) if isinstance(got, np.ndarray) else got) == right, key
        assert type(got) is (bool if kind == 7 else np.ndarray if kind == 9 and x[0] != 8 else type(right)), key


@pytest.mark.parametrize("alignment", [8, 32, 256])
@pytest.mark.parametrize("version", [2, 3])
def test_arrays_lie_as_they_are_told_to(tmp_path: Path, alignment: int, version: int) -> None:
    arrays: list[Array] = [("a", "F32", (2, 3), RAMP.tobytes()), ("b", "I16", (3,), b"\1\0\2\0\3\0"), ONE]
    arrays[2] = ("c", "F16", (1, 1, 2), np.array([1, -2], "<f2").tobytes())
    data = gguf_file([("general.alignment", 4, alignment)], arrays, alignment=alignment, version=version)
    for more in (0, -len(data) % alignment):  # the last array need not be padded, and may be
        with open_gguf(written(tmp_path / "a", data + b"\0" * more)) as file:
            assert file.names == ("a", "b", "c")
            assert not file.array("a").flags.owndata
            np.testing.assert_array_equal(file.array("a"), RAMP.reshape(2, 3))
            np.testing.assert_array_equal(file.array("b"), [1, 2, 3])
            np.testing.assert_array_equal(file.array("c"), np.array([[[1, -2]]], np.float32))


def test_low_bit_arrays_stay_blocks_until_they_are_decoded(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    rows = blocks.encode(x, "Q4_1")
    with open_gguf(written(tmp_path / "a", gguf_file([], [("w", "Q4_1", (2, 2, 64), rows.tobytes())]))) as file:
        kept = file.stored("w")
        assert isinstance(kept, LowBit)
        assert (kept.kind, kept.shape, kept.nbytes) == ("Q4_1", (2, 2, 64), rows.nbytes)
        np.testing.assert_array_equal(kept.blocks, rows)
        np.testing.assert_array_equal(file.array("w"), blocks.decode(rows, "Q4_1").reshape(2, 2, 64))


def described(name: str | bytes = "a", axes: Sequence[int] = (3, 2), kind: int = 0, at: int = 0) -> bytes:
    head = text(name) + struct.pack("<I", len(axes)) + b"".join(struct.pack("<Q", n) for n in axes)
    return head + struct.pack("<IQ", kind, at)


def whole(arrays: int = 0, count: int = 0, body: bytes = b"", version: int = 3, content: bytes = b"") -> bytes:
    """A file from its head, what follows, and aligned content."""
    data = b"GGUF" + struct.pack("<IQQ", version, arrays, count) + body
    return data + b"\0" * (-len(data) % 32) + content


def told(key: str, kind: int, x: Any) -> bytes:
    return text(key) + struct.pack("<I", kind) + value(kind, x)


C = RAMP.tobytes()
HUGE = struct.pack("<Q", 1 << 60)

DAMAGED: dict[str, tuple[bytes, str]] = {
    "another file": (b"GGML" + b"\0" * 40, "is no GGUF file"),
    "short": (b"GG", "is no GGUF file"),
    "cut in the head": (b"GGUF\3\0\0\0\1", "ends within its head"),
    "version 1": (whole(version=1), "of GGUF's version 1"),
    "version 4": (whole(version=4), "of GGUF's version 4"),
    "big-endian": (whole(version=3 << 24), "written for big-endian machines"),
    "many arrays": (whole(arrays=1 << 60), "more than it can hold"),
    "much metadata": (whole(count=1 << 60), "more than it can hold"),
    "long key": (whole(count=1, body=HUGE + b"x" * 40), "bytes in a key, and 65536 are read"),
    "long text": (whole(count=1, body=text("k") + struct.pack("<I", 8) + HUGE), "ends within the value of 'k'"),
    "long list": (whole(count=1, body=text("k") + struct.pack("<II", 9, 8) + HUGE), "strings in the value of 'k'"),
    "long numbers": (whole(count=1, body=text("k") + struct.pack("<II", 9, 6) + HUGE), "ends within the value"),
    "list of lists": (whole(count=1, body=text("k") + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 40), "the type 9 in"),
    "type": (whole(count=1, body=text("k") + struct.pack("<I", 13) + b"\0" * 40), "the type 13 in"),
    "boolean": (whole(count=1, body=told("k", 7, 2)), "the boolean 2"),
    "not UTF-8": (whole(count=1, body=told("k", 8, b"\xff\xfe")), "text that is not UTF-8"),
    "key twice": (whole(count=2, body=told("k", 4, 1) + told("k", 4, 1)), "the key 'k' twice"),
    "alignment 0": (whole(count=1, body=told("general.alignment", 4, 0)), "no power of two"),
    "alignment 24": (whole(count=1, body=told("general.alignment", 4, 24)), "no power of two"),
    "alignment huge": (whole(count=1, body=told("general.alignment", 4, 1 << 31)), "no power of two"),
    "alignment text": (whole(count=1, body=told("general.alignment", 8, "32")), "no power of two"),
    "no axes": (whole(1, body=described(axes=()), content=C), "0 axes"),
    "five axes": (whole(1, body=described(axes=(1, 1, 1, 2, 3)), content=C), "5 axes"),
    "no numbers": (whole(1, body=described(axes=(3, 0))), "the shape (0, 3)"),
    "overflow": (whole(1, body=described(axes=(1 << 62, 1 << 2)), content=C), "ends before its array 'a'"),
    "overflow of blocks": (whole(1, body=described(axes=(32, 1 << 62), kind=8), content=C), "ends before"),
    "kind": (whole(1, body=described(kind=16), content=C), "ggml's type 16, which is not read"),
    "no whole blocks": (whole(1, body=described(axes=(33, 2), kind=8), content=b"\0" * 99), "no whole blocks of 32"),
    "cut": (whole(1, body=described(), content=C[:-1]), "ends before its array 'a'"),
    "late": (whole(1, body=described(at=32), content=b"\0" * 56), "'a' at 32, but the one before ends at 0"),
    "overlap": (whole(2, body=described() + described("b"), content=C), "'b' at 0, but the one before ends at 24"),
    "far away": (whole(1, body=described(at=(1 << 64) - 32), content=C), "but the one before ends at 0"),
    "name twice": (whole(2, body=described() + described(at=32), content=C * 3), "two arrays 'a'"),
    "control characters": (whole(1, body=described("a\x1b[31m"), content=C), "calls an array 'a\\x1b[31m'"),
    "long name": (whole(1, body=described("n" * 2000), content=C), "2000 bytes in the name of an array"),
    "more": (whole(1, body=described(), content=C + b"\0" * 9), "9 bytes after its last array"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    data, why = DAMAGED[name]
    with pytest.raises(UserError) as refused:
        open_gguf(written(tmp_path / "a.gguf", data))
    assert why in str(refused.value)
    assert "; " in str(refused.value)
    assert str(refused.value).isprintable()


def test_whole_files_of_these_helpers_open(tmp_path: Path) -> None:
    """What the damaged ones differ from."""
    with open_gguf(written(tmp_path / "a", whole(1, 1, told("k", 4, 1) + described(), content=C))) as file:
        np.testing.assert_array_equal(file.array("a"), RAMP.reshape(2, 3))


def test_names_of_llama_cpp() -> None:
    assert llama_cpp("model.layers.12.self_attn.q_proj.weight") == "blk.12.attn_q.weight"
    assert llama_cpp("model.embed_tokens.weight") == "token_embd.weight"


def test_a_model_in_float32_and_in_blocks_is_one_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = written(tmp_path / "a.gguf", gguf_file(llama_metadata(), llama_arrays(rng, "Q8_0")))
    plain, low = open_gguf_model(path), open_gguf_model(path, lowbit=True)
    assert plain.config == low.config
    assert (plain.config.rope_layout, plain.config.norm_eps, plain.config.tied) == ("half", 1e-5, True)
    assert isinstance(low.arrays["stack.layers.0.attention.query.weight"], LowBit)
    model, small = plain.model(), low.model()
    assert isinstance(small.input.tokens, LowBitEmbedding)
    assert isinstance(small.stack.layers[0].feed_forward.up, LowBitLinear)
    for length in (1, 9):  # few rows, and many
        tokens = rng.integers(0, 37, (1, length))
        np.testing.assert_allclose(small(tokens), model(tokens), rtol=1e-4, atol=1e-5)


def test_queries_and_keys_are_put_back(tmp_path: Path) -> None:
    """Of each head's rows, pairs that are neighbours become pairs in halves; biases too, values not."""
    arrays = llama_arrays(np.random.default_rng(1))
    sizes = {"q": 32, "k": 16, "v": 16, "output": 32}
    arrays += [(f"blk.0.attn_{n}.bias", "F32", (k,), np.arange(k, dtype="<f4").tobytes()) for n, k in sizes.items()]
    theirs = {name: np.frombuffer(data, "<f4").reshape(shape) for name, _, shape, data in arrays}
    ours = open_gguf_model(written(tmp_path / "a.gguf", gguf_file(llama_metadata(), arrays))).arrays
    order = np.concatenate([8 * h + np.array([0, 2, 4, 6, 1, 3, 5, 7]) for h in range(4)])
    for name, letter in (("query", "q"), ("key", "k"), ("value", "v")):
        right = np.arange(16) if letter == "v" else order[: sizes[letter]]
        layer = f"stack.layers.0.attention.{name}"
        np.testing.assert_array_equal(ours[f"{layer}.bias"], right)
        np.testing.assert_array_equal(ours[f"{layer}.weight"], theirs[f"blk.0.attn_{letter}.weight"][right].T)


def test_float32_is_not_copied(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", gguf_file(llama_metadata(), llama_arrays(np.random.default_rng(1))))
    arrays = open_gguf_model(path).arrays
    owned = {name for name, a in arrays.items() if isinstance(a, np.ndarray) and a.flags.writeable}
    assert {name.split(".")[-2] for name in owned} == {"query", "key"}  # their rows are reordered


@pytest.mark.parametrize(
    ("changes", "arrays", "why"),
    [
        ({"general_architecture": "qwen2"}, None, "the architecture 'qwen2'; minilong opens llama"),
        ({"block_count": 2}, None, "9 missing: blk.1.attn_k.weight"),
        ({"block_count": 500}, None, "tells of 500 layers"),
        ({"embedding_length": 64}, None, "misshapen"),
        ({"attention_head_count": 3}, None, "model.kv_heads is 2, which does not divide model.heads 3"),
        ({"attention_head_count_kv": 3}, None, "kv_heads"),
        ({"vocab_size": 38}, None, "1 misshapen: token_embd.weight (37 x 32, not 38 x 32)"),
        ({}, [("rope_freqs.weight", "F32", (4,), b"\0" * 16)], "frequencies of its own"),
        ({}, [("blk.0.extra.weight", "F32", (1,), b"\0" * 4)], "1 unexpected: blk.0.extra.weight"),
        ({}, [("blk.0.attn_q.bias", "F32", (32,), b"\0" * 128)], "3 missing: blk.0.attn_k.bias"),
    ],
)
def test_a_model_that_is_not_what_it_says(tmp_path: Path, changes: Any, arrays: Any, why: str) -> None:
    more = [*llama_arrays(np.random.default_rng(0)), *(arrays or [])]
    data = gguf_file(llama_metadata(**changes), more)
    with pytest.raises(UserError) as refused:
        open_gguf_model(written(tmp_path / "a.gguf", data))
    assert why in str(refused.value)
