"""Every changed byte of every file of a run is found, and the error names the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_faults import contents, is_one_line, memory_folder, saved, state

from minilong.errors import UserError
from minilong.train.arrays import arrays_from_bytes, arrays_to_bytes, metadata_from_bytes
from minilong.train.manifest import FORMAT, Entry, Manifest, ManifestError, NewerFormat, _render
from minilong.train.metrics import METRICS
from minilong.train.run import RunFolder

FILES = [
    "config.toml",
    "manifest.json",
    METRICS,
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "loss.png",
]


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


@pytest.fixture(params=["settled", "published"])
def run(request: pytest.FixtureRequest, folder: Path) -> Path:
    """A small run; `published`: as a crash leaves it between the commit and the moves to the plain names."""
    path = folder / "run"
    saved(path, 7, "loss.png")
    if request.param == "published":
        (path / ".commit").mkdir()
        for name in FILES[1:4]:
            os.rename(path / name, path / ".commit" / name)
    assert set(contents(path)) == set(FILES) - {"manifest.json"}
    return path


def _where(path: Path, name: str) -> Path:
    return path / ".commit" / name if (path / ".commit" / name).exists() else path / name


def _refused(path: Path, name: str) -> str:
    with pytest.raises(UserError) as info:
        RunFolder.open(path)
    assert is_one_line(info.value), info.value
    assert str(_where(path, name)) in str(info.value) or name == "manifest.json"
    assert name in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("name", FILES)
def test_each_flipped_byte_of_each_file_is_found(run: Path, name: str) -> None:
    file = _where(run, name)
    data = file.read_bytes()
    for i, byte in enumerate(data):
        for flip in (1, 0x20, 0xFF):  # 0x20 changes a letter to a capital and a space to NUL
            file.write_bytes(data[:i] + bytes([byte ^ flip]) + data[i + 1 :])
            _refused(run, name)
    file.write_bytes(data)
    assert "model.safetensors" in contents(run)


@pytest.mark.parametrize("name", FILES)
def test_each_truncation_of_each_file_is_found(run: Path, name: str) -> None:
    file = _where(run, name)
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        _refused(run, name)
    if name != METRICS:  # lines after the committed ones are not part of the state
        file.write_bytes(data + b"\n")
        _refused(run, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("put", [lambda p: None, os.mkdir, os.mkfifo], ids=["missing", "folder", "pipe"])
def test_a_file_that_is_no_file_is_found(run: Path, name: str, put: Callable[[Path], None]) -> None:
    file = _where(run, name)
    file.unlink()
    put(file)
    with pytest.raises(
        UserError, match=r"manifest\.json|not a run folder" if name == "manifest.json" else name
    ) as info:
        RunFolder.open(run)
    assert is_one_line(info.value)


def test_a_file_of_another_run_is_found(run: Path, tmp_path: Path) -> None:
    saved(tmp_path / "other", 8)
    shutil.copy(tmp_path / "other" / "model.safetensors", _where(run, "model.safetensors"))
    assert "does not match its checksum in manifest.json" in _refused(run, "model.safetensors")


def test_the_damaged_array_is_named(run: Path) -> None:
    file = _where(run, "model.safetensors")
    data = bytearray(file.read_bytes())
    data[data.index(np.float32(7).tobytes() * 6)] ^= 4
    file.write_bytes(data)
    assert "array 'weight'" in _refused(run, "model.safetensors")


def test_damage_after_opening_is_found_on_reading(run: Path) -> None:
    with RunFolder.open(run) as opened:
        file = _where(run, "state.json")
        file.write_bytes(file.read_bytes().replace(b"7", b"8"))
        with pytest.raises(UserError, match=r"state\.json does not match"):
            opened.read("state.json")


def test_a_damaged_run_can_be_replaced_and_is_kept_until_then(run: Path) -> None:
    file = _where(run, "manifest.json")
    file.write_bytes(file.read_bytes()[:-1])
    before = {p: p.read_bytes() for p in run.rglob("*.*") if p.is_file() and p.name != ".lock"}
    with RunFolder.create(run, replace=True) as new:
        after = {p.name: p.read_bytes() for p in run.rglob("*.*") if p.is_file() and p.name != ".lock"}
        assert after == {p.name: data for p, data in before.items()}
        new.commit(state(9))
    assert contents(run) == state(9) | {METRICS: b""}


def test_a_changed_config_says_how_to_train_with_it(run: Path) -> None:
    (run / "config.toml").write_text("seed = 8\n")
    assert f"minilong train --config {run / 'config.toml'} --out" in _refused(run, "config.toml")


def _with(content: bytes, old: bytes, new: bytes) -> bytes:
    """A manifest changed by someone who makes its own checksum fit."""
    changed = json.loads(content.replace(old, new))
    changed.pop("sha256")
    return _render(changed)


@pytest.mark.parametrize(
    "old, new",
    [
        (b'"a.txt"', b'"../a.txt"'),
        (b'"a.txt"', b'".lock"'),
        (b'"a.txt"', b'"manifest.json"'),
        (b'"bytes": 1', b'"bytes": -1'),
        (b'"bytes": 1', b'"bytes": true'),
        (b'"bytes": 1', b'"size": 1'),
        (b'"files": {', b'"file": {'),
        (b'"format": 1', b'"format": []'),
    ],
)
def test_a_manifest_of_bad_intent_is_refused(old: bytes, new: bytes) -> None:
    content = Manifest(3, {"a.txt": Entry.of(b"a")}).to_bytes()
    assert Manifest.from_bytes(content) == Manifest(3, {"a.txt": Entry.of(b"a")})
    with pytest.raises(ManifestError):
        Manifest.from_bytes(_with(content, old, new))


def test_a_newer_format_is_told_apart_from_damage(tmp_path: Path) -> None:
    saved(tmp_path / "run", 1)
    file = tmp_path / "run" / "manifest.json"
    newer = _with(file.read_bytes(), f'"format": {FORMAT}'.encode(), f'"format": {FORMAT + 1}'.encode())
    with pytest.raises(NewerFormat):
        Manifest.from_bytes(newer)
    file.write_bytes(newer)
    with pytest.raises(UserError, match=r"newer minilong \(format 2.*pip install --upgrade"):
        RunFolder.open(tmp_path / "run")


@given(st.binary(max_size=200))
def test_no_bytes_but_a_manifest_are_one(data: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_bytes(data)


def test_a_deeply_nested_manifest_is_refused() -> None:
    with pytest.raises(ManifestError):
        Manifest.from_bytes(b"[" * 200_000)


ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(True), "c": np.zeros((0, 2), np.int16)}
PLAIN = pytest.importorskip("safetensors.numpy").save(ARRAYS)


@given(st.data(), st.sampled_from([arrays_to_bytes(ARRAYS, {"k": "v"}), PLAIN]))
def test_mutated_arrays_are_refused_or_well_formed(data: st.DataObject, whole: bytes) -> None:
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(changed) - 1))
        changed[i : i + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    error = None
    try:
        arrays = arrays_from_bytes(bytes(changed), "x.safetensors")
        metadata = metadata_from_bytes(bytes(changed), "x.safetensors")
    except UserError as e:
        error = e
    if error is not None:
        assert is_one_line(error), error
        assert "x.safetensors" in str(error)
        return
    assert sum(a.nbytes for a in arrays.values()) <= len(changed)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items())


@pytest.mark.parametrize("header", [b'{"__metadata__":{"minilong":"[]"}}', b'{"__metadata__":{"minilong":"{"}}'])
def test_a_header_that_is_not_ours_is_refused(header: bytes) -> None:
    with pytest.raises(UserError, match="x is damaged: its header is unreadable"):
        arrays_from_bytes(len(header).to_bytes(8, "little") + header, "x")


def test_a_type_that_numpy_lacks_is_named() -> None:
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    with pytest.raises(UserError, match="x has an array of the type 'BF16'"):
        arrays_from_bytes(len(header).to_bytes(8, "little") + header + b"\0\0", "x")


@pytest.mark.parametrize("name", ["a", "d"])
def test_an_array_under_another_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="lists other arrays"):
        arrays_from_bytes(arrays_to_bytes(ARRAYS).replace(b'"b":{"dtype', b'"z":{"dtype'), "x")


_numbers = st.sampled_from(["<f2", "<f4", "<f8", ">f4", ">i8", "<i2", "u1", "<u4", "?"])


@given(
    st.data(), _numbers, st.lists(st.integers(0, 3), max_size=3), st.booleans(), st.dictionaries(st.text(), st.text())
)
def test_arrays_come_back(data: st.DataObject, kind: str, shape: list[int], turned: bool, meta: dict[str, str]) -> None:
    array = np.arange(int(np.prod(shape))).astype(kind).reshape(shape)
    array = array.T[::-1] if turned and array.ndim else array
    names = data.draw(st.lists(st.text(min_size=1).filter(lambda n: n != "__metadata__"), min_size=1, unique=True))
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            return
    arrays = dict.fromkeys(names, array)
    written = arrays_to_bytes(arrays, meta)
    assert written == arrays_to_bytes(dict(reversed(arrays.items())), dict(reversed(meta.items())))
    back = arrays_from_bytes(written, "x")
    assert back.keys() == arrays.keys()
    for found in back.values():
        assert found.dtype == array.dtype.newbyteorder("<")
        assert found.shape == array.shape
        assert found.flags.writeable
        np.testing.assert_array_equal(found, array)
    assert metadata_from_bytes(written, "x") == meta


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_written(bad: float) -> None:
    with pytest.raises(ValueError, match=r"array 'layers\.0\.weight' has a value that is not finite"):
        arrays_to_bytes({"a": np.ones(2), "layers.0.weight": np.array([1, bad], np.float32)})


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.array([object()]), np.longdouble(1)])
def test_a_type_that_the_format_lacks_is_named(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array 'a' is of type"):
        arrays_to_bytes({"a": array})


def test_metadata_of_another_program_is_ignored() -> None:
    assert metadata_from_bytes(PLAIN, "x") == {}
