"""Small checkpoint files made byte by byte, by no writer of the package's or of another program."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12}
KINDS |= {"Q5_K": 13, "Q6_K": 14, "I8": 24, "I16": 25, "I32": 26, "I64": 27, "F64": 28, "BF16": 30}

Array = tuple[str, str, tuple[int, ...], bytes]
"""Name, kind, shape with rows first, content."""


def safetensors_file(arrays: Sequence[Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file with arrays in their order."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, kind, shape, data in arrays:
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    return framed(text, b"".join(data for *_, data in arrays))


def framed(header: bytes, data: bytes = b"") -> bytes:
    """A header of any text, with its size before it."""
    return struct.pack("<Q", len(header)) + header + data


def text(value: str | bytes) -> bytes:
    """A string of GGUF."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


def value(kind: int, x: Any) -> bytes:
    """A value of GGUF's metadata after its type; a list is (type, values)."""
    if kind == 8:
        return text(x)
    if kind == 9:
        inner, items = x
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, item) for item in items)
    return struct.pack("<" + NUMBERS[kind], x)


def gguf_file(
    metadata: Sequence[tuple[str, int, Any]], arrays: Sequence[Array], *, alignment: int = 32, version: int = 3
) -> bytes:
    """A GGUF file. metadata: key, type, value."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(arrays), len(metadata))
    for key, kind, x in metadata:
        head += text(key) + struct.pack("<I", kind) + value(kind, x)
    content = b""
    for name, kind, shape, data in arrays:
        content += b"\0" * (-len(content) % alignment)
        head += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape[::-1])
        head += struct.pack("<IQ", KINDS[kind], len(content))
        content += data
    return head + b"\0" * (-len(head) % alignment) + content


def llama_metadata(**changes: Any) -> list[tuple[str, int, Any]]:
    """Metadata of a llama of one layer, 32 wide, 4 heads, 2 key heads, 37 tokens. changes: by the end of a key, with
    underscores for dots."""
    sizes = {
        "block_count": 1, "context_length": 50, "embedding_length": 32, "feed_forward_length": 64,
        "attention.head_count": 4, "attention.head_count_kv": 2, "vocab_size": 37,
    }  # fmt: skip
    numbers: list[tuple[str, int, Any]] = [(f"llama.{key}", 4, n) for key, n in sizes.items()]
    told = [("general.architecture", 8, "llama"), *numbers, ("llama.attention.layer_norm_rms_epsilon", 6, 1e-5)]
    return [(key, kind, changes.get(key.removeprefix("llama.").replace(".", "_"), x)) for key, kind, x in told]


def llama_arrays(rng: np.random.Generator, kind: str = "F32") -> list[Array]:
    """The arrays that belong to `llama_metadata`; matrices of the kind F32 or Q8_0."""

    def array(name: str, *shape: int) -> Array:
        if kind == "F32" or len(shape) == 1:
            return name, "F32", shape, (rng.standard_normal(shape) / 4).astype("<f4").tobytes()
        blocks = rng.integers(0, 256, (shape[0] * shape[1] // 32, 34), np.uint8)
        blocks[:, :2] = np.full(len(blocks), 0.002, "<f2").view(np.uint8).reshape(-1, 2)
        return name, kind, shape, blocks.tobytes()

    return [
        array("token_embd.weight", 37, 32),
        array("blk.0.attn_norm.weight", 32),
        array("blk.0.attn_q.weight", 32, 32),
        array("blk.0.attn_k.weight", 16, 32),
        array("blk.0.attn_v.weight", 16, 32),
        array("blk.0.attn_output.weight", 32, 32),
        array("blk.0.ffn_norm.weight", 32),
        array("blk.0.ffn_gate.weight", 64, 32),
        array("blk.0.ffn_up.weight", 64, 32),
        array("blk.0.ffn_down.weight", 32, 64),
        array("output_norm.weight", 32),
    ]
