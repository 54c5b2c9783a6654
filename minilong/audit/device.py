"""Laws on a device: a function gets its arrays there, and the law, which is of the host, gets back what it returns.

A law states something about numbers, so the same law runs wherever the numbers are computed. What has no arrays to put
on a device, or makes tables of the host's, is named by `HOST` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from minilong.audit.law import Law
from minilong.backend import Array, Device, is_array, to_host

_TABLE = "a table, made on the host and copied to where it is used"
_PLAN = "a formula of a few Python numbers"
_DATA = "data are made and cut on the host"
_VECTORS = "vectors of words are learned on the host"

HOST: dict[str, str] = {
    "adagrad": _VECTORS,
    "common-direction": _VECTORS,
    "smooth-mean": _VECTORS,
    "sentence-vector": _VECTORS,
    "retrieval": _VECTORS,
    "rank": _VECTORS,
    "cosine-search": _VECTORS,
    "llama3-scaling": _TABLE,
    "low-bit-product": "weights in blocks are decoded on the host",
    "low-bit": "weights in blocks are decoded on the host",
    "block": "weights in blocks are decoded on the host",
    "alibi": _TABLE,
    "analogy": _VECTORS,
    "beam": _PLAN,
    "beam-search": "hypotheses are compared on the host",
    "bits": _PLAN,
    "blocks": _VECTORS,
    "cache-bytes": _PLAN,
    "capped-step": _VECTORS,
    "cas": _TABLE,
    "cbow": _VECTORS,
    "compressed-cache-bytes": "it counts the bytes of the host's memory",
    "cooccurrence": _VECTORS,
    "cosine": _PLAN,
    "depth-ledger": "it predicts and measures the host's memory",
    "dynamic-ntk": _TABLE,
    "embedding-gradients": _VECTORS,
    "frequency-loss": _DATA,
    "full-rows": _DATA,
    "glove": _VECTORS,
    "glove-fit": _VECTORS,
    "hierarchical-softmax": _VECTORS,
    "huffman": _VECTORS,
    "inference": _VECTORS,
    "ledger": "it predicts and measures the host's memory",
    "logistic": _VECTORS,
    "loss-scaling": _PLAN,
    "mask-row": _DATA,
    "masked-rows": _DATA,
    "masking": _DATA,
    "memory-reach": _PLAN,
    "memory-rows": "it counts the bytes of the host's memory",
    "nearest": _VECTORS,
    "negative-sampling": _VECTORS,
    "noise": _VECTORS,
    "noise-draws": _VECTORS,
    "ntk-scaling": _TABLE,
    "packing": _DATA,
    "paragraph-bag": _VECTORS,
    "paragraph-concatenation": _VECTORS,
    "paragraph-memory": _VECTORS,
    "passkey": _DATA,
    "per-position": "sums of a few numbers that were read already",
    "position-interpolation": _TABLE,
    "primitive/residuals": "it follows references to NumPy's buffers; a GPU's memory is counted by its pool",
    "principal": _VECTORS,
    "recall": _DATA,
    "recomputed": "the law itself differentiates, on the host; depth-gradient recomputes on a device",
    "residual-scaling": _PLAN,
    "resumed": "it compares files, which a run writes from the host's memory",
    "sampling": "a token is drawn on the host",
    "schedule": _PLAN,
    "sentence-pairs": _DATA,
    "sentences": "text",
    "sinusoidal": _TABLE,
    "skip-gram": _VECTORS,
    "span-corruption": _DATA,
    "span-draw": _DATA,
    "span-restoration": _DATA,
    "span-windows": _DATA,
    "store": "files",
    "subsampling": _VECTORS,
    "t5-bucket": _TABLE,
    "tokenizer": "text",
    "window": _VECTORS,
    "yarn": _TABLE,
}
"""Kinds, and laws, that say nothing of a device, and why."""


def reason_absent(law: Law) -> str | None:
    """Why a law is not run on a device; None where it is."""
    return HOST.get(law.name) or HOST.get(law.kind)


@dataclass(frozen=True)
class OnDevice:
    """A function of the host's arrays that computes on a device. What it writes into its arguments is written back."""

    f: Callable[..., Any]
    device: Device

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        given: list[tuple[np.ndarray, Array]] = []

        def there(x: Array) -> Array:
            if not isinstance(x, np.ndarray):  # a NumPy number is the host's
                return x
            given.append((x, self.device.put(x)))
            return given[-1][1]

        result = mapped(to_host, self.f(*mapped(there, args), **mapped(there, keywords)))
        for x, put in given:
            after = to_host(put)
            if after.tobytes() != x.tobytes():
                x[...] = after
        return result


def mapped(change: Callable[[Array], Array], tree: Any) -> Any:
    """A tree of tuples, lists, dictionaries and dataclasses with its arrays changed; other values as they are."""
    if is_array(tree):
        return change(tree)
    if isinstance(tree, tuple | list):
        items = [mapped(change, x) for x in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {name: mapped(change, x) for name, x in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        changed = object.__new__(type(tree))  # past __init__: its checks may be of the host's arrays
        for f in fields(tree):
            object.__setattr__(changed, f.name, mapped(change, getattr(tree, f.name)))
        return changed
    return tree
