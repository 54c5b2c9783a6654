"""Models of every kind, a loss of each, and its gradient on the stand-in's device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from primitive_calls import DEVICE, forms_used
from standin import cupy

from minilong.audit.device import mapped
from minilong.audit.laws.streams import CONTEXT, SETTINGS, VOCABULARY
from minilong.autodiff import value_and_grad
from minilong.autodiff.tree import leaves
from minilong.data.batches import LanguageBatch, pair_batch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn.flat import flatten
from minilong.objectives import causal_loss, sequence_loss

MORE: dict[str, dict[str, Any]] = {
    "learned": {"position": "learned"},
    "cas": {"position": "cas"},
    "none": {"position": "none"},
    "post": {"norm": "post"},
    "rms": {"normalization": "rms"},
    "swiglu": {"activation": "swiglu"},
    "gelu": {"activation": "gelu"},
    "relu": {"activation": "relu"},
    "untied": {"tied": False},
    "without biases": {"bias": False},
    "dropout": {"dropout": 0.2},
    "checkpoint": {"depth": "checkpoint", "dropout": 0.2},
    "sqrt": {"depth": "sqrt"},
    "reversible": {"depth": "reversible"},
    "ntk": {"rope_scaling": "ntk", "rope_factor": 4.0},
    "naive": {"attention": "naive"},
    "dense": {"attention": "dense"},
    "blockwise": {"attention": "blockwise"},
    "convolution": {**SETTINGS["compressive"], "compressor": "conv"},
    "encoder-decoder": {"kind": "encoder-decoder"},
    "geglu": {"activation": "geglu_tanh"},
    "part of a head turned": {"rope_share": 0.5, "head_width": 8, "biases": "qkv", "norm_eps": 1e-3},
    "wide heads, unscaled": {"head_width": 6, "score_scale": 1.0, "input": "plain", "output_scale": 0.5},
}
KINDS = SETTINGS | MORE


def model_of(name: str, layers: int = 2) -> Any:
    """A model of random weights in float64, none of them zero."""
    config = replace(ModelConfig(layers=layers, width=8, heads=2, kv_heads=1, context=CONTEXT), **KINDS[name])
    vector, model, _ = flatten(build(config, VOCABULARY, Key.of(7)), np.float64)
    vector += 0.2 * np.random.default_rng(7).standard_normal(vector.size)
    return model


def loss_of(name: str, packed: bool) -> Any:
    """A loss as a function of the model: of rows that are packed documents, or single ones; of pairs."""
    rng = np.random.default_rng(3)
    key = Key.of(1) if KINDS[name].get("dropout") else None
    if KINDS[name].get("kind") == "encoder-decoder":
        batch = pair_batch([(rng.integers(3, 7, n), rng.integers(3, 7, n + 1)) for n in (2, 5)], pad=0, bos=1, eos=2)
        return lambda model: sequence_loss(model, batch, key=key)
    tokens = rng.integers(0, VOCABULARY, (2, CONTEXT + 1))
    segments = np.sort(rng.integers(0, 2, (2, CONTEXT)), axis=1) if packed else None
    rows = LanguageBatch(tokens[:, :-1], tokens[:, 1:], segments)
    return lambda model: causal_loss(model, rows, key=key)


def flat(tree: Any) -> np.ndarray:
    """The arrays of a tree, one after another, on the host."""
    return np.concatenate([cupy.asnumpy(x).astype(np.float64).ravel() for x in leaves(tree)])


def gradient(name: str, dtype: Any, packed: bool, layers: int = 2) -> tuple[Any, Any, list[Any]]:
    """Loss, gradient and the forms used, of a model of this type that does not wait for the device."""
    loss = loss_of(name, packed)
    model = mapped(lambda x: DEVICE.put(x.astype(dtype)), model_of(name, layers))
    with cupy.no_sync(), forms_used() as forms:
        value, found = value_and_grad(loss)(model)
    return cupy.asnumpy(value), found, forms


def copies_by_layers(name: str) -> list[int]:
    """How much is copied to the device for loss and gradient of a model of two layers, and of three."""
    counts = []
    for layers in (2, 3):
        with cupy.counting() as count:
            gradient(name, np.dtype(np.float32), packed=True, layers=layers)
        counts.append(count.h2d - len(leaves(model_of(name, layers))))
    return counts
