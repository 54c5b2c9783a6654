"""Wrong parts of a pretrained encoder, and wrong losses, for the laws of `masking_models.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.law import mutant
from minilong.audit.laws.masking_models import (
    Model,
    our_frequency_loss,
    our_input,
    our_masked_loss,
    our_pooler,
    our_prediction,
)
from minilong.data.batches import IGNORE


@mutant("masked-loss", "the mean over the row", kills="mean-over-masks", met="plausible: divided by the row's length")
def over_the_row(model: Model, inputs: Any, targets: Any) -> float:
    return our_masked_loss(model, inputs, targets) * np.count_nonzero(targets != IGNORE) / (len(targets) + 1)


@mutant(
    "masked-loss", "every place counts", kills=("only-where-masked", "mean-over-masks"), met="labels without IGNORE"
)
def every_place(model: Model, inputs: Any, targets: Any) -> float:
    return our_masked_loss(model, inputs, np.where(targets == IGNORE, inputs, targets))


@mutant(
    "masked-loss", "shifted as a causal model's", kills="mean-over-masks", met="plausible: labels shifted once more"
)
def shifted(model: Model, inputs: Any, targets: Any) -> float:
    return our_masked_loss(lambda x: np.roll(model(x), 1, axis=0), inputs, targets)


@mutant("frequency-loss", "counts not smoothed", kills="odds", met="plausible: a token that training lacks, log 0")
def unsmoothed(trained: Any, held_out: Any, vocabulary: int) -> float:
    counts = np.maximum(np.bincount(trained, minlength=vocabulary), 1e-9)
    return float(-np.log(counts / counts.sum())[held_out].mean())


@mutant("frequency-loss", "summed, not averaged", kills="mean", met="plausible: nats of the text, not of a token")
def summed(trained: Any, held_out: Any, vocabulary: int) -> float:
    return our_frequency_loss(trained, held_out, vocabulary) * (len(held_out) + 1) / 2


@mutant("pooler", "the mean of all states", kills="definition", met="Sentence-BERT's mean pooling, another vector")
def mean_state(hidden: Any, weight: Any, bias: Any, classifier: Any, shift: Any) -> Any:
    return our_pooler(hidden.mean(axis=0, keepdims=True), weight, bias, classifier, shift)


@mutant("pooler", "no tanh", kills="definition", met="plausible: two linear maps, which are one")
def linear(hidden: Any, weight: Any, bias: Any, classifier: Any, shift: Any) -> Any:
    return (hidden[0] @ weight + bias) @ classifier + shift


@mutant("prediction", "no transform", kills="definition", met="plausible: the tied table alone, as in GPT-2")
def plain(hidden: Any, weight: Any, bias: Any, gain: Any, shift: Any, table: Any, output_bias: Any) -> Any:
    return hidden @ table.T + output_bias


@mutant(
    "prediction",
    "no bias of tokens",
    kills=("output-bias", "definition"),
    met="a tied decoder created without its bias",
)
def no_bias(hidden: Any, weight: Any, bias: Any, gain: Any, shift: Any, table: Any, output_bias: Any) -> Any:
    return our_prediction(hidden, weight, bias, gain, shift, table, 0 * output_bias)


@mutant("normed-input", "tokens scaled", kills="definition", met="the 2017 factor left in, and the norm beside it")
def scaled(tokens: Any, types: Any, table: Any, positions: Any, type_table: Any, gain: Any, shift: Any) -> Any:
    return our_input(tokens, types, 2 * table, positions, type_table, gain, shift)


@mutant("normed-input", "no types", kills="definition", met="token_type_ids left out: all of them 0")
def no_types(tokens: Any, types: Any, table: Any, positions: Any, type_table: Any, gain: Any, shift: Any) -> Any:
    return our_input(tokens, 0 * types, table, positions, type_table, gain, shift)
