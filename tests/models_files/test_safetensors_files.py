"""The reader and the writer of safetensors files, beside the library of that name; every way to be damaged."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as library
from hypothesis import given, settings
from hypothesis import strategies as st
from small_files import framed, safetensors_file

from minilong.errors import UserError
from minilong.models.files import open_safetensors, write_safetensors

DTYPES = ("f4", "f2", "f8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")


def stored(path: Path) -> dict[str, Any]:
    with open_safetensors(path) as file:
        return {name: file.stored(name) for name in file.names}


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)), max_size=6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_writes_what_the_library_reads_and_reads_what_it_writes(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[str, list[int]]], turned: bool
) -> None:
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    arrays = {f"a.{i}": rng.integers(0, 2, shape).astype(kind) for i, (kind, shape) in enumerate(kinds)}
    given = {name: np.asfortranarray(a) if turned else a for name, a in arrays.items()}
    write_safetensors(folder / "ours", given, {"format": "pt", "é": "x"})
    library.save_file(arrays, folder / "theirs", {"format": "pt"})
    for found in (library.load_file(folder / "ours"), stored(folder / "ours"), stored(folder / "theirs")):
        assert found.keys() == arrays.keys()
        for name, a in arrays.items():
            assert found[name].dtype == a.dtype
            np.testing.assert_array_equal(found[name], a)
    with open_safetensors(folder / "ours") as file:
        assert file.metadata == {"format": "pt", "é": "x"}


def test_float32_is_a_view_of_the_file_and_outlives_it(tmp_path: Path) -> None:
    a = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)
    write_safetensors(tmp_path / "a", {"a": a, "b": np.zeros(3, np.uint8)})
    tracemalloc.start()
    try:
        with open_safetensors(tmp_path / "a") as file:
            found = file.array("a")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    (tmp_path / "a").unlink()
    assert not found.flags.writeable
    assert not found.flags.owndata
    np.testing.assert_array_equal(found, a)


def test_writes_in_pieces_without_a_second_copy(tmp_path: Path) -> None:
    a = np.random.default_rng(0).standard_normal((3000, 2000)).astype(np.float32)
    tracemalloc.start()
    try:
        write_safetensors(tmp_path / "a", {"a": a.T, "b": a})
        assert tracemalloc.get_traced_memory()[1] < a.nbytes
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(stored(tmp_path / "a")["a"], a.T)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {"a": np.ones(2)})
    for bad in (np.array([1.0, np.nan]), np.ones(2, np.complex64), np.array(["a"])):
        with pytest.raises(ValueError, match="array 'a' "):
            write_safetensors(tmp_path / "a", {"a": bad})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    np.testing.assert_array_equal(stored(tmp_path / "a")["a"], np.ones(2))


def test_half_precision_comes_as_float32(tmp_path: Path) -> None:
    exact = np.array([0.0, -1.5, 2.0**-14, 240.0], np.float32)
    bf16 = (exact.view(np.uint32) >> 16).astype("<u2").tobytes()
    double = np.array([1e300, -0.5]).tobytes()
    data = safetensors_file(
        [("d", "F64", (2,), double), ("h", "F16", (4,), exact.astype("<f2").tobytes()), ("b", "BF16", (2, 2), bf16)]
    )
    (tmp_path / "a").write_bytes(data)
    with open_safetensors(tmp_path / "a") as file:
        for name, right in (("h", exact), ("b", exact.reshape(2, 2)), ("d", np.array([np.inf, -0.5], np.float32))):
            assert file.array(name).dtype == np.float32
            np.testing.assert_array_equal(file.array(name), right)
        assert file.stored("h").dtype == np.float16  # type: ignore[union-attr]
        with pytest.raises(UserError, match=r"has no array 'hh' \(did you mean 'h'"):
            file.array("hh")


def header(**changes: Any) -> bytes:
    """A header of one array of two numbers, with other values."""
    about = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return json.dumps({"a": {k: v for k, v in about.items() if v is not None}}).encode()


EIGHT = b"\0" * 8
TWO = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]},"b":{"dtype":"U8","shape":[4],"data_offsets":[%d,%d]}}'

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "short": (b"\1\2\3", "its header goes beyond its end"),
    "header beyond the end": (b"\xff" * 8 + b"{}", "its header goes beyond its end"),
    "header beyond the bound": ((1 << 25).to_bytes(8, "little") + b" " * (1 << 25), "a header of 33554432 bytes"),
    "no object": (framed(b"[]"), "no JSON object"),
    "space before": (framed(b" {}"), "no JSON object"),
    "no JSON": (framed(b"{]"), "no JSON text"),
    "not UTF-8": (framed(b'{"\xff":1}'), "no JSON text"),
    "deep": (framed(b'{"a":' + b"[" * 100_000), "no JSON text"),
    "long number": (framed(b'{"a":' + b"1" * 5000 + b"}"), "no JSON text"),
    "key twice": (framed(b'{"a":1,"a":1}'), "the key 'a' twice"),
    "inner key twice": (framed(header()[:-2] + b',"shape":[2]}}', EIGHT), "the key 'shape' twice"),
    "NaN": (framed(b'{"a":NaN}'), "NaN"),
    "metadata": (framed(b'{"__metadata__":{"a":1}}'), "metadata that are no strings"),
    "metadata list": (framed(b'{"__metadata__":[]}'), "metadata that are no strings"),
    "no table": (framed(b'{"a":[]}'), "not described by"),
    "key missing": (framed(header(shape=None), EIGHT), "not described by"),
    "another key": (framed(header(more=1), EIGHT), "not described by"),
    "dtype": (framed(header(dtype="F8_E4M3"), EIGHT), "type 'F8_E4M3', which is not read"),
    "dtype list": (framed(header(dtype=["F32"]), EIGHT), "which is not read"),
    "negative": (framed(header(shape=[-1, -2]), EIGHT), "which is none"),
    "true": (framed(header(shape=[True, 2]), EIGHT), "which is none"),
    "float": (framed(header(shape=[2.0]), EIGHT), "which is none"),
    "nine axes": (framed(header(shape=[1] * 8 + [2]), EIGHT), "which is none"),
    "overflow": (framed(header(shape=[1 << 62, 4], data_offsets=[0, 0]), b""), "by its shape"),
    "too many numbers": (framed(header(shape=[3]), EIGHT), "12 bytes by its shape, but its place has 8"),
    "backward": (framed(header(data_offsets=[8, 0]), EIGHT), "by its shape, but its place has -8"),
    "three offsets": (framed(header(data_offsets=[0, 8, 8]), EIGHT), "the place [0, 8, 8]"),
    "cut": (framed(header(), EIGHT[:7]), "ends before its array 'a'"),
    "absurd": (framed(header(shape=[1 << 40], data_offsets=[0, 1 << 42]), EIGHT), "ends before its array 'a'"),
    "more": (framed(header(), EIGHT + b"\0"), "1 bytes after the array 'a'"),
    "gap": (framed(TWO % (0, 4, 5, 9), EIGHT + b"\0"), "a gap between the array 'a' and the array 'b'"),
    "overlap": (framed(TWO % (0, 4, 3, 7), EIGHT), "an overlap between the array 'a' and the array 'b'"),
    "begins late": (framed(header(data_offsets=[1, 9]), EIGHT + b"\0"), "a gap between the header and the array 'a'"),
    "line break": (framed(b'{"a\\n\\u001b[31mb":[]}'), r"'a\n\x1b[31mb'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    data, why = DAMAGED[name]
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError) as refused:
        open_safetensors(tmp_path / "model.safetensors")
    assert why in str(refused.value)
    assert "; " in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_boolean_is_0_or_1(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(safetensors_file([("a", "BOOL", (2,), b"\1\2")]))
    with open_safetensors(tmp_path / "a") as file, pytest.raises(UserError, match="other bytes than 0 and 1"):
        file.array("a")


def test_paths_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_safetensors(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        open_safetensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is not opened, since such files can execute code"):
        open_safetensors(tmp_path)
    with pytest.raises(UserError, match="is no file"):
        open_safetensors(Path("/dev/null"))


def shards(folder: Path, places: dict[str, str]) -> None:
    """Two shards with the arrays a and b, and an index."""
    for name in ("a", "b"):
        write_safetensors(folder / f"{name}.safetensors", {name: np.full(2, ord(name), np.float32)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    shards(tmp_path, {"b": "b.safetensors", "a": "a.safetensors"})
    with open_safetensors(tmp_path) as file:
        assert sorted(file.names) == ["a", "b"]
        assert file.array("b")[0] == ord("b")


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ({"a": "a.safetensors", "b": "c.safetensors"}, "'c.safetensors', which is missing"),
        ({"a": "b.safetensors", "b": "b.safetensors"}, "'a' in 'b.safetensors', which lacks it"),
        ({"a": "b.safetensors", "b": "a.safetensors"}, "but 'a.safetensors' holds it"),
        ({"a": "a.safetensors", "x": "b.safetensors"}, "'b' nowhere, but 'b.safetensors' holds it"),
        ({"a": "a.safetensors", "b": "../b.safetensors"}, "no safetensors file beside it"),
        ({"a": "/etc/passwd"}, "no safetensors file beside it"),
        ({"a": "a.safetensors\0"}, "no safetensors file beside it"),
        ({"a": "x" * 300 + ".safetensors"}, "no safetensors file beside it"),
        ({"a": ".safetensors"}, "no safetensors file beside it"),
        ({"a": 1}, "no weight_map"),
        (["a"], "no weight_map"),
    ],
)
def test_an_index_that_does_not_fit(tmp_path: Path, places: Any, why: str) -> None:
    shards(tmp_path, places)
    with pytest.raises(UserError) as refused:
        open_safetensors(tmp_path)
    assert why in str(refused.value)
