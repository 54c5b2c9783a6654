"""BERT and T5 of minilong are those of `transformers`: the same logits, losses and gradients from the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minilong.data.batches import IGNORE, MaskedBatch, PairBatch, pair_batch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.models.families import bert, t5
from minilong.nn import flatten
from minilong.objectives import masked_loss, next_sentence_loss, sequence_loss
from minilong.train.replicas import Replicas

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from bench import transformers_twin as twin

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

VOCABULARY = 37
BERT = ModelConfig(
    kind="encoder",
    layers=3,
    width=24,
    heads=4,
    feed_forward=50,
    context=19,
    norm="post",
    activation="gelu",
    position="learned",
    types=2,
    input="normed",
    output="transform",
    pooler=True,
)
T5 = ModelConfig(
    kind="encoder-decoder",
    layers=3,
    width=24,
    heads=4,
    feed_forward=50,
    context=200,
    activation="relu",
    normalization="rms",
    position="t5",
    bias=False,
)


def random_model(config: ModelConfig) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """A float64 model whose biases, gains and tables are not what they begin as, its layout, and its arrays."""
    vector, model, layout = flatten(build(config, VOCABULARY, Key.of(7)), np.float64)
    vector += 0.1 * np.random.default_rng(3).standard_normal(vector.size)
    return model, layout, layout.slices(vector)


def masked_batch(rows: int = 5, length: int = 19) -> MaskedBatch:
    """Pairs of several lengths, with three masks each: so that rows weigh the same on both sides."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(9, length + 1, rows).astype(np.int32)
    lengths[0] = length
    inputs, types = rng.integers(4, VOCABULARY, (rows, length)), np.zeros((rows, length), np.int32)
    targets = np.full((rows, length), IGNORE)
    for i, n in enumerate(lengths):
        places = rng.choice(n, 3, replace=False)
        targets[i, places] = inputs[i, places]
        inputs[i, places], inputs[i, n:] = 4, 0
        types[i, n // 2 : n] = 1
    return MaskedBatch(
        inputs.astype(np.int32), targets.astype(np.int32), lengths, types, rng.integers(0, 2, rows).astype(np.int32)
    )


def tensor(x: np.ndarray) -> Any:
    return torch.from_numpy(np.asarray(x, np.int64))


def seen(lengths: np.ndarray, width: int) -> np.ndarray:
    return np.arange(width) < np.asarray(lengths)[:, None]


def assert_gradients_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], bound: float) -> None:
    """Relative to the size of each parameter's gradient. Key biases get none: the softmax ignores them."""
    assert set(ours) == set(theirs)
    whole = max(float(np.linalg.norm(g)) for g in theirs.values())
    for name, g in theirs.items():
        size = whole if name.endswith("key.bias") else float(np.linalg.norm(g))
        assert size > 1e-6 * whole, name
        assert np.linalg.norm(ours[name] - g) <= bound * size, name


def bert_run(change: Any = None) -> tuple[Any, ...]:
    """Logits, losses and gradients of both sides. change: of our arrays, after the peer has got them."""
    model, layout, arrays = random_model(BERT)
    peer, places, batch = twin.bert(BERT, VOCABULARY), bert.BERT.places(BERT), masked_batch()
    twin.load(peer, places, arrays)
    if change:
        change(arrays)
    hidden = model.hidden(batch.inputs, lengths=batch.lengths, types=batch.types)
    said = peer(
        input_ids=tensor(batch.inputs),
        token_type_ids=tensor(batch.types),
        attention_mask=tensor(seen(batch.lengths, batch.inputs.shape[1])),
        labels=tensor(batch.targets),
        next_sentence_label=1 - tensor(batch.follows),  # 0 is "is next" there
    )
    return model, layout, batch, hidden, peer, places, said


def test_bert() -> None:
    model, layout, batch, hidden, peer, places, said = bert_run()
    at = seen(batch.lengths, batch.inputs.shape[1])
    logits = said.prediction_logits.detach().numpy()
    assert np.abs(model.logits(hidden)[at] - logits[at]).max() <= 1e-10
    assert np.std(logits[at]) > 0.5
    assert np.abs(model.pooler(hidden)[:, ::-1] - said.seq_relationship_logits.detach().numpy()).max() <= 1e-10
    said.loss.backward()
    with Replicas(2, layout, np.float64) as replicas:
        loss, gradient = replicas.gradient(masked_loss, model, [batch], None)
    # The loss that is shown is that of the masks; both are descended.
    assert abs(loss + float(next_sentence_loss(model, hidden, batch)) - float(said.loss)) <= 1e-10
    assert_gradients_equal(layout.slices(gradient), twin.gradients(peer, places), 1e-9)


@pytest.mark.parametrize(
    "name", ["input.types.table", "input.norm.bias", "transform.bias", "stack.layers.1.attention_norm.gain"]
)
def test_another_weight_is_seen(name: str) -> None:
    """What would be left out is found: the comparison is no comparison of a model with itself."""
    model, _, batch, hidden, _, _, said = bert_run(lambda arrays: np.multiply(arrays[name], 1.01, out=arrays[name]))
    at = seen(batch.lengths, batch.inputs.shape[1])
    assert np.abs(model.logits(hidden)[at] - said.prediction_logits.detach().numpy()[at]).max() > 1e-5


def pairs(longest: int) -> PairBatch:
    """Sources and targets of several lengths, of tokens that are no special ones."""
    rng = np.random.default_rng(11)
    lengths = [(longest, 9), (3, longest // 2), (longest // 2, 1)]
    ids = [tuple(rng.integers(4, VOCABULARY, n).astype(np.int32) for n in pair) for pair in lengths]
    return pair_batch(ids, pad=0, bos=1, eos=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("longest", [12, 180])  # within the exact distances, and beyond the last range
def test_t5(longest: int) -> None:
    model, layout, arrays = random_model(T5)
    peer, places, units, batch = twin.t5(T5, VOCABULARY), t5.T5.places(T5), twin.t5_units(T5), pairs(longest)
    twin.load(peer, places, arrays, units)
    said = peer(
        input_ids=tensor(batch.source),
        attention_mask=tensor(seen(batch.source_lengths, batch.source.shape[1])),
        decoder_input_ids=tensor(batch.inputs),
        labels=tensor(batch.targets),
    )
    at = batch.targets != IGNORE
    logits = said.logits.detach().numpy()
    found = model(batch.source, batch.inputs, lengths=batch.source_lengths)
    assert np.abs(found[at] - logits[at]).max() <= 1e-5  # its norms are in float32
    assert np.std(logits[at]) > 0.5
    said.loss.backward()
    with Replicas(2, layout, np.float64) as replicas:
        loss, gradient = replicas.gradient(sequence_loss, model, [batch], None)
    assert abs(loss - float(said.loss)) <= 1e-6
    assert_gradients_equal(layout.slices(gradient), twin.gradients(peer, places, units), 1e-4)
