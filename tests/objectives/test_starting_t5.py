"""Initial values of an encoder-decoder that knows order by T5's biases: its first steps find the source."""

from __future__ import annotations

import numpy as np
import pytest

from minilong.autodiff import softmax
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import EncoderDecoder

T5 = ModelConfig(kind="encoder-decoder", layers=2, width=64, heads=4, position="t5", normalization="rms", bias=False)


def found(config: ModelConfig, source: np.ndarray) -> float:
    """How much a decoder that reads one token of the source looks at it, over all heads of the first layer."""
    model = build(config, 40, Key.of(3))
    assert isinstance(model, EncoderDecoder)
    cross = model.decoder.layers[0].cross
    assert cross is not None
    memory = model.encode(source[None])
    q = cross.query(model.decoder.layers[0].cross_norm(model.input(source[None, :1])))
    k = cross.key(memory)
    heads = (x.reshape(x.shape[1], config.heads, -1).swapaxes(0, 1) for x in (q, k))
    scores = np.matmul(next(heads), next(heads).swapaxes(1, 2)) / np.sqrt(config.width / config.heads)
    return float(np.mean(softmax(scores)[:, 0, 0]))


def test_equal_tokens_find_each_other_from_the_start() -> None:
    source = np.arange(4, 36)
    assert found(T5, source) > 0.2  # of 32 tokens
    assert found(ModelConfig(**{**vars(T5), "position": "sinusoidal"}), source) < 0.1  # others start as usual


def test_the_order_of_the_source_matters_from_the_start() -> None:
    model = build(T5, 40, Key.of(3))
    assert isinstance(model, EncoderDecoder)
    source = np.arange(4, 36)[None]
    turned = model.encode(source[:, ::-1].copy())[:, ::-1]
    assert np.abs(model.encode(source) - turned).max() > 0.3
    tables = [model.encoder_scheme.table, model.decoder_scheme.table]
    assert np.std(tables[0]) == pytest.approx(2, rel=0.2)
    assert not np.array_equal(tables[0], tables[1])
    again = build(T5, 40, Key.of(3))
    assert isinstance(again, EncoderDecoder)
    assert np.array_equal(again.encoder_scheme.table, tables[0])


def test_shared_keys_stay_as_they_are() -> None:
    model = build(ModelConfig(**{**vars(T5), "kv_heads": 2}), 40, Key.of(3))
    assert isinstance(model, EncoderDecoder)
    cross = model.decoder.layers[0].cross
    assert cross is not None
    assert cross.key.weight.shape != cross.query.weight.shape
