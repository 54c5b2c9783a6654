"""Damaged checkpoint files by the thousand: each is opened and read whole, or refused by one line, and nothing else.

    python tests/models_files/fuzz_files.py 10000

opens so many files with each reader, in a process with little memory to spare, and prints what happened.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from small_files import Array, gguf_file, llama_arrays, llama_metadata, safetensors_file

from minilong.errors import UserError
from minilong.models.families.gguf import open_gguf_model
from minilong.models.files import TensorFile, open_gguf, open_safetensors
from minilong.nn.blocks import FORMATS
from minilong.nn.lowbit import LowBit

FACTOR, BESIDE = 40, 1 << 16
"""Memory that reading a file may take: so many times its size and so much more. Python's objects for JSON of `[[],[],`
are twenty times as large as that text; no number in a file may have anything to do with it."""

SPARE = 1 << 29
"""Bytes of address space beyond what the process has at its start."""

SECONDS = 5
"""For one file."""

NUMBERS = (0, 1, 2, 3, 7, 8, 31, 33, 127, 128, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
           (1 << 53) + 1, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 8, (1 << 61) // 34)  # fmt: skip
WORDS = (b"-1", b"1e9", b"0.5", b"true", b"null", b"[]", b"{}", b'"4"', b"NaN", b"1" * 5000, b"18446744073709551616",
         b"[" * 3000, b'"\\ud800"', b"9223372036854775807", b"4294967297")  # fmt: skip


def arrays(rng: np.random.Generator, kinds: dict[str, int]) -> list[Array]:
    """A small array of each kind. kinds: bytes of a number."""
    found: list[Array] = []
    for i, (kind, size) in enumerate(kinds.items()):
        shape = ((3, 2), (5,), (1, 2, 2), (4, 1))[i % 4]
        data = rng.integers(0, 2, int(np.prod(shape)) * size, np.uint8).tobytes()
        found.append((f"layers.{i}.{kind.lower()}", kind, shape, data))
    return found


PLAIN = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1}


def safetensors_bytes(rng: np.random.Generator) -> bytes:
    """A file with all kinds, an empty array, one without axes, and metadata."""
    more: list[Array] = [("empty", "F32", (0, 4), b""), ("one", "F32", (), b"\0\0\x80?")]
    kinds = PLAIN | {"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
    return safetensors_file([*arrays(rng, kinds), *more], {"format": "pt"})


def gguf_bytes(rng: np.random.Generator) -> bytes:
    """A file with all types of metadata and all kinds of arrays."""
    told = [("general.architecture", 8, "llama"), ("general.alignment", 4, 32)]
    told += [(f"number.{kind}", kind, 1) for kind in (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12)]
    told += [
        ("list.words", 9, (8, ["a", "bc", "é"])),
        ("list.numbers", 9, (5, [1, -2, 3])),
        ("list.yes", 9, (7, [1, 0])),
    ]
    blocks: list[Array] = [
        (f"b.{kind}", kind, (2, 2 * form.weights), rng.integers(0, 256, 4 * form.bytes, np.uint8).tobytes())
        for kind, form in FORMATS.items()
    ]
    return gguf_file(told, [*arrays(rng, PLAIN), *blocks])


def llama_bytes(rng: np.random.Generator) -> bytes:
    """A whole small model."""
    return gguf_file(llama_metadata(), llama_arrays(rng, "Q8_0"))


def damaged(data: bytes, rng: np.random.Generator, head: int) -> bytes:
    """One to three mistakes, most of them among the first `head` bytes."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        size = len(data)
        if not size:
            break
        at = int(rng.integers(0, head if head < size and rng.random() < 0.7 else size))
        kind = rng.integers(0, 10)
        if kind == 0:
            data = data[:at] + bytes([data[at] ^ 1 << rng.integers(0, 8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data + rng.bytes(rng.integers(1, 200))
        elif kind == 3:
            data = data[:at] + data[at + int(rng.integers(1, 40)) :]
        elif kind == 4:
            start = int(rng.integers(0, size))
            data = data[:at] + data[start : start + int(rng.integers(1, 80))] + data[at:]
        elif kind == 5:
            start = int(rng.integers(0, size))
            piece = data[start : start + int(rng.integers(1, 80))]
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind in (6, 7):
            width = int(rng.choice([1, 2, 4, 8]))
            number = int(rng.choice(len(NUMBERS)))
            piece = (NUMBERS[number] % (1 << 8 * width)).to_bytes(width, "little")
            at = 0 if rng.random() < 0.1 else at
            data = data[:at] + piece + data[at + width :]
        else:
            data = another_number(data, rng)
    return data


def another_number(data: bytes, rng: np.random.Generator) -> bytes:
    """Another value in the place of a number of the JSON text, whose size before it is mended half of the time."""
    found = list(re.finditer(rb"\d+", data[8:4000]))
    if not found:
        return data
    one = found[int(rng.integers(0, len(found)))]
    words = (*WORDS, *(str(n).encode() for n in NUMBERS))
    piece = words[int(rng.integers(0, len(words)))]
    new = data[: 8 + one.start()] + piece + data[8 + one.end() :]
    if rng.random() < 0.5 and data[8:9] == b"{":
        size = int.from_bytes(data[:8], "little") + len(piece) - (one.end() - one.start())
        new = max(size, 0).to_bytes(8, "little") + new[8:]
    return new


def read_whole(file: TensorFile) -> None:
    """Everything that a file offers."""
    for name in file.names:
        file.shape(name), file.kind(name)
        stored = file.stored(name)
        if isinstance(stored, LowBit):
            assert stored.nbytes == len(stored.blocks.reshape(-1))
        assert file.array(name).shape == file.shape(name)
    json.dumps({key: str(value) for key, value in file.metadata.items()})


def open_model(path: Path) -> TensorFile:
    """A model, in float32 and in blocks, built too."""
    opened = open_gguf_model(path)
    opened.model()
    open_gguf_model(path, lowbit=True).model()
    return open_gguf(path)


READERS: dict[str, tuple[Callable[[Path], TensorFile], Callable[[np.random.Generator], bytes], int]] = {
    "safetensors": (open_safetensors, safetensors_bytes, 1200),
    "gguf": (open_gguf, gguf_bytes, 1700),
    "gguf model": (open_model, llama_bytes, 1100),
}
"""Reader, whole file, bytes of its head."""


def case(reader: str, seed: int, folder: Path) -> tuple[str, float, float]:
    """Open one damaged file: how it ended, memory beside BESIDE as a multiple of its size, seconds."""
    opener, make, head = READERS[reader]
    rng = np.random.default_rng(seed)
    data = damaged(make(np.random.default_rng(0)), rng, head)
    path = folder / "checkpoint"
    path.write_bytes(data)
    tracemalloc.clear_traces()
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with opener(path) as file:
            read_whole(file)
        end = "opened"
    except UserError as error:
        end = refused(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.perf_counter() - start
    taken = tracemalloc.get_traced_memory()[1] - before
    return end, max(0, taken - BESIDE) / max(len(data), 1), seconds


def index_case(seed: int, folder: Path) -> str:
    """Open a folder of two shards whose index or one shard is damaged."""
    rng = np.random.default_rng(seed)
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    parts = [arrays(rng, {"F32": 4, "I8": 1}), [("other", "F16", (2,), b"\0\0\0\0")]]
    places = {name: shard for shard, part in zip(shards, parts, strict=True) for name, *_ in part}
    files = {shard: safetensors_file(part) for shard, part in zip(shards, parts, strict=True)}
    files["model.safetensors.index.json"] = json.dumps({"metadata": {"total_size": 9}, "weight_map": places}).encode()
    name = str(rng.choice(list(files), p=[0.15, 0.15, 0.7]))
    files[name] = damaged(files[name], rng, 300)
    for other, data in files.items():
        (folder / other).write_bytes(data)
    try:
        with open_safetensors(folder) as file:
            read_whole(file)
        return "opened"
    except UserError as error:
        return refused(error)


def refused(error: UserError) -> str:
    """That the text is one line."""
    assert str(error).isprintable(), error
    return "refused"


def late(*_: object) -> None:
    """What the clock of a file calls."""
    raise TimeoutError(f"a file took more than {SECONDS} seconds")


@contextmanager
def watched() -> Iterator[None]:
    """Little memory to spare, a clock for each file, warnings that raise; all as before afterwards."""
    address = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address + SPARE, limits[1]))
    clock = signal.signal(signal.SIGALRM, late)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, clock)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def run(count: int, first: int = 0) -> None:
    """So many files for each reader; prints what happened. Raises what a reader raised, with its seed."""
    with tempfile.TemporaryDirectory() as name, watched():
        for reader in (*READERS, "safetensors index"):
            ends: Counter[str] = Counter()
            most = slowest = 0.0
            start = time.perf_counter()
            for seed in range(first, first + count):
                try:
                    if reader in READERS:
                        end, factor, seconds = case(reader, seed, Path(name))
                        most, slowest = max(most, factor), max(slowest, seconds)
                        assert factor <= FACTOR, f"it took {factor:.0f} times its size"
                    else:
                        end = index_case(seed, Path(name))
                except Exception as error:
                    raise AssertionError(f"{reader}, seed {seed}: {type(error).__name__} {error}") from error
                ends[end] += 1
            print(
                f"{reader}: {count} files, {ends['refused']} refused, {ends['opened']} opened; "
                f"memory at most {most:.1f} times a file's size and {BESIDE >> 10} kB; "
                f"at most {1e3 * slowest:.0f} ms a file; {time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
