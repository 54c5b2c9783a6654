"""Training a compressor: its loss moves nothing else, and does not show in the model's."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.autodiff import value_and_grad
from minilong.autodiff.tree import named
from minilong.data.batches import LanguageBatch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.objectives import causal_loss
from minilong.optim import Adam

TOKENS = np.random.default_rng(0).integers(0, 20, (2, 33))
BATCH = LanguageBatch(TOKENS[:, :-1], TOKENS[:, 1:])


def made(compressor: str) -> Any:
    config = ModelConfig(
        layers=2, width=16, heads=2, context=32, memory="compressive", segment=8, memory_length=4, compression=4,
        compressor=compressor,
    )  # fmt: skip
    return build(config, 20, Key.of(1))


def gradient(model: Any) -> tuple[float, Any]:
    value, found = value_and_grad(lambda m: causal_loss(m, BATCH))(model)
    return float(value), found


def test_the_compressor_alone_is_moved_and_the_value_is_untouched() -> None:
    mean, conv = gradient(made("mean")), gradient(made("conv"))
    assert mean[0] == conv[0]  # a convolution starts as the mean
    plain, learned = named(mean[1]), named(conv[1])
    assert set(learned) - set(plain) == {"memory.compressor.weight"}
    assert np.abs(learned["memory.compressor.weight"]).max() > 1e-4
    for name, array in plain.items():
        np.testing.assert_array_equal(learned[name], array)


def test_training_lowers_the_loss_of_reconstruction() -> None:
    from minilong.nn import flatten
    from minilong.objectives.compression import hidden_and_compression

    vector, model, layout = flatten(made("conv"))
    optimizer = Adam()
    state = optimizer.init(vector)
    start = float(hidden_and_compression(model, BATCH, None)[1])
    part = layout.slices(np.zeros(layout.size, np.float32))
    for _ in range(30):
        _, found = gradient(model)
        flat = layout.gather(found, np.empty(layout.size, np.float32))
        kept = layout.slices(flat)
        for name in part:
            if name != "memory.compressor.weight":
                kept[name][...] = 0
        optimizer.step(state, vector, flat, 1e-2)
    assert float(hidden_and_compression(model, BATCH, None)[1]) < 0.8 * start
