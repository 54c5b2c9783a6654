"""What a computation must do at least: floating-point operations of models and kernels, bytes of elementwise work.

A product of (m, k) and (k, n) counts 2 m k n. Forward and backward are three products of the same size, so a matrix
of n entries costs 6 n per token, and attention 12 d per pair of a query and a key that it sees, all heads together
(two products forward, four backward; a kernel that computes the scores again is not paid for it). Over a causal
sequence of T tokens that is 6 T d per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .case import Settings, Work

FLOAT = 4


def decoder_step(s: Settings) -> Work:
    """(6 N + 6 L T d) tokens, with N the entries of all matrices that multiply: 12 d^2 a layer, and the tied output."""
    m: Mapping[str, Any] = s["model"]
    layers, d = m["layers"], m["width"]
    matrices = 12 * layers * d * d + s["vocabulary"] * d
    return Work("matmul", (6 * matrices + 6 * layers * s["length"] * d) * s["batch"] * s["length"])


def encoder_decoder_step(s: Settings) -> Work:
    """An encoder layer has 12 d^2 per source token; a decoder layer 14 d^2 per target token and 2 d^2 per source token
    (keys and values of the attention to the source); the output V d per target token. Attention sees S keys in the
    encoder and in the attention to the source, T / 2 on average in the causal one. Each matrix entry counts 6, each
    pair of query and key 12 d."""
    m: Mapping[str, Any] = s["model"]
    layers, d, length = m["layers"], m["width"], s["length"]
    source = 6 * layers * (12 + 2) * d * d + 12 * layers * length * d
    target = 6 * (layers * 14 * d * d + s["vocabulary"] * d) + (12 + 6) * layers * length * d
    return Work("matmul", (source + target) * s["batch"] * length)


def generation(s: Settings) -> Work:
    """2 N per token that is read or written, and 4 L d per key that it sees; one forward pass."""
    m: Mapping[str, Any] = s["model"]
    layers, d, rows = m["layers"], m["width"], s["batch"]
    whole = s["prompt"] + s["new"]
    per_token = 2 * 12 * layers * d * d
    return Work("matmul", rows * (whole * (per_token + 2 * layers * whole * d) + s["new"] * 2 * s["vocabulary"] * d))


def reading(s: Settings) -> Work:
    """2 N per token of a prompt, with N the entries of a gated layer's matrices; 4 h e per pair of a query and a key
    that it sees, h heads e wide; and the output once."""
    m, length = s["model"], s["prompt"]
    pairs = 4 * m["layers"] * m["heads"] * m["head_width"] * visible_pairs(length, 0)
    return Work("matmul", 2 * gated_layers(m) * length + pairs + 2 * s["vocabulary"] * m["width"])


def decoding(s: Settings) -> Work:
    """The same for tokens one by one after a prompt, with the output for each."""
    m, new = s["model"], s["new"]
    seen = visible_pairs(s["prompt"] + new, 0) - visible_pairs(s["prompt"], 0)
    pairs = 4 * m["layers"] * m["heads"] * m["head_width"] * seen
    return Work("matmul", 2 * (gated_layers(m) + s["vocabulary"] * m["width"]) * new + pairs)


def gated_layers(m: Mapping[str, Any]) -> int:
    """Entries of the matrices of all layers, with key heads that are shared and a gated network."""
    attention = 2 * m["width"] * m["head_width"] * (m["heads"] + m["kv_heads"])
    return int(m["layers"] * (attention + 3 * m["width"] * m["feed_forward"]))


def attention(s: Settings) -> Work:
    """12 d per pair of a query and a key that it sees."""
    width = s["heads"] * s["head_width"]
    return Work("matmul", 12 * width * s["batch"] * visible_pairs(s["length"], s["window"]))


def visible_pairs(length: int, window: int) -> float:
    """Pairs of a query and a key of a causal sequence, each query seeing at most `window` keys (0: all)."""
    seen = min(window or length, length)
    return seen * (seen + 1) / 2 + (length - seen) * seen


def elementwise(arrays: int, *sizes: str) -> Any:
    """Work that reads or writes `arrays` arrays of the product of these settings, once each."""

    def work(s: Settings) -> Work:
        count = 1
        for name in sizes:
            count *= s[name]
        return Work("copy", FLOAT * arrays * count)

    return work


def projected_loss(s: Settings) -> Work:
    """Three products of hidden rows and the output matrix."""
    return Work("matmul", 6 * s["rows"] * s["width"] * s["classes"])


def embedding(s: Settings) -> Work:
    """Rows read and written forward; backward the cotangent read and the whole gradient written."""
    return Work("copy", FLOAT * s["width"] * (3 * s["rows"] + s["classes"]))
