"""Models made of given arrays: of these very arrays, at once, without a copy; or one error that names all misfits."""

from __future__ import annotations

import json
import resource
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilong.autodiff.tree import leaves, named
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.assemble import assemble, shapes_of
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.models.families import FAMILIES
from minilong.models.families.places import shapes_there
from minilong.models.pretrained import open_folder
from minilong.nn.lowbit import LowBit, LowBitEmbedding, LowBitLinear

V = 11
KINDS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "turned in part": {"rope_share": 0.5, "biases": "qkv", "activation": "swiglu", "normalization": "rms"},
    "encoder": {"kind": "encoder", "position": "learned", "types": 2, "input": "normed", "output": "transform"},
    "encoder without output": {"kind": "encoder", "output": "none", "norm": "post"},
    "encoder-decoder": {"kind": "encoder-decoder", "position": "t5", "tied": False, "head_width": 5},
    "xl": {"position": "xl", "head_width": 6},
}


def config(name: str) -> ModelConfig:
    return ModelConfig(layers=2, width=16, heads=2, kv_heads=1, context=12, **KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_the_model_is_made_of_these_arrays(name: str) -> None:
    c, tokens = config(name), np.arange(10).reshape(2, 5)
    original = build(c, V, Key.of(3))
    arrays = named(original)
    model = assemble(c, V, arrays, "a file")
    assert all(x is y for x, y in zip(leaves(model), arrays.values(), strict=True))
    assert shapes_of(c, V) == {path: x.shape for path, x in arrays.items()}
    call = (lambda m: m(tokens, tokens)) if c.kind == "encoder-decoder" else (lambda m: m.hidden(tokens))
    np.testing.assert_array_equal(call(model), call(original))


def test_turned_and_read_only_views_serve() -> None:
    c, tokens = config("decoder"), np.arange(5)[None]
    original = build(c, V, Key.of(3))
    arrays = {path: np.ascontiguousarray(x.T).T for path, x in named(original).items()}
    for x in arrays.values():
        x.flags.writeable = False
    np.testing.assert_allclose(assemble(c, V, arrays, "a file")(tokens), original(tokens), rtol=1e-5, atol=1e-6)


def test_an_encoder_without_output_refuses_logits() -> None:
    model = build(config("encoder without output"), V, Key.of(0))
    with pytest.raises(ValueError, match="no output projection; take what `hidden` gives"):
        model(np.arange(4)[None])


def test_all_misfits_are_named_at_once() -> None:
    arrays: dict[str, Any] = dict(named(build(config("decoder"), V, Key.of(0))))
    arrays["stack.layers.0.attention.query.weight"] = np.zeros((16, 8), np.float32)
    arrays["stack.norm.gain"] = np.zeros(16, np.int32)
    arrays["more"] = arrays.pop("stack.norm.bias")
    del arrays["stack.layers.1.feed_forward.up.bias"]
    with pytest.raises(UserError) as caught:
        assemble(config("decoder"), V, arrays, "'model.gguf'")
    assert str(caught.value) == (
        "the arrays of 'model.gguf' are not those of the model that it describes: 2 missing: "
        "stack.layers.1.feed_forward.up.bias, stack.norm.bias; 1 unexpected: more; 2 misshapen: "
        "stack.layers.0.attention.query.weight (16 x 8, not 16 x 16), stack.norm.gain (int32, not floating-point); "
        "fetch it again, or mend its configuration"
    )


def test_many_misfits_are_counted() -> None:
    with pytest.raises(UserError, match=r"\d+ missing: input.tokens.table, .* and \d+ more; fetch it again") as caught:
        assemble(config("decoder"), V, {}, "a file")
    assert len(str(caught.value)) < 600


LARGE = ModelConfig(
    layers=30, width=576, heads=9, kv_heads=3, feed_forward=1536, activation="swiglu", normalization="rms",
    context=8192, bias=False, input="plain", rope_layout="half", rope_base=100000.0,
)  # fmt: skip
"""134.5 million parameters: the shape of SmolLM2-135M."""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A folder of that model, all zeros: a sparse file of 538 MB that takes no room on the disk."""
    family = FAMILIES["llama"]
    places, end, header = shapes_there(family.places(LARGE), shapes_of(LARGE, 49152)), 0, {}
    for name, shape in places.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end := end + size]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (tmp_path / "config.json").write_text(json.dumps(family.describe(LARGE, 49152)), "utf-8")
    return tmp_path


def test_134_million_parameters_open_at_once_and_take_no_memory(large: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        start = time.perf_counter()
        opened = open_folder(large)
        model = opened.model()
        seconds = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(x.size for x in leaves(model)) == 134_515_008
    assert seconds < 1.0
    assert peak < 5e6, f"{peak:,} bytes allocated"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB: a copy would take 538,000
    assert opened.config == replace(LARGE, rope_factor=1.0, head_width=64, norm_eps=1e-6)


def test_a_model_without_weights_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        model = build(LARGE, 49152, None)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    matrices = [x for x in leaves(model) if x.ndim == 2]
    assert not any(x.flags.writeable for x in matrices)


@pytest.mark.parametrize("tied", [True, False])
def test_low_bit_matrices_stay_low_bit(tied: bool) -> None:
    c = ModelConfig(layers=2, width=32, heads=2, kv_heads=1, feed_forward=64, context=12, tied=tied, input="plain")
    original, tokens = build(c, V, Key.of(3)), np.arange(10).reshape(2, 5)
    low = {
        path: LowBit.encode(np.ascontiguousarray(x if path.endswith("table") else x.T), "Q8_0") if x.ndim == 2 else x
        for path, x in named(original).items()
    }
    model = assemble(c, V, low, "a file")
    assert isinstance(model.stack.layers[1].feed_forward.up, LowBitLinear)
    assert isinstance(model.input.tokens, LowBitEmbedding)
    floats = {
        path: (x.decode() if path.endswith("table") else x.decode().T) if isinstance(x, LowBit) else x
        for path, x in low.items()
    }
    found, right = model(tokens), assemble(c, V, floats, "a file")(tokens)
    assert np.abs(found - right).max() <= 0.02 * np.abs(right).max()
    low["stack.norm.gain"] = LowBit.encode(np.ones((1, 32), np.float32), "Q8_0")
    low["stack.layers.0.attention.query.weight"] = LowBit.encode(np.ones((64, 32), np.float32), "Q8_0")
    with pytest.raises(UserError, match=r"attention\.query\.weight \(32 x 64, not 32 x 32\), .*\(Q8_0, but this array"):
        assemble(c, V, low, "a file")
