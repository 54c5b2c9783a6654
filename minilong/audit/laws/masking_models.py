"""Laws of what a pretrained encoder has beside its stack, and of the losses at its masks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, subject
from minilong.audit.laws.common import F, bound, call, largest, of_host
from minilong.audit.laws.objectives import surprise
from minilong.autodiff import gelu, layer_norm
from minilong.backend import beside, to_host
from minilong.data.batches import IGNORE, MaskedBatch
from minilong.nn.layers import Dropout, Embedding, LayerNorm, Linear
from minilong.nn.models import LanguageModel, TokenInput
from minilong.nn.prediction import Pooler, Transform
from minilong.objectives import frequency_loss, masked_loss

Model = Callable[..., np.ndarray]

kind("masked-loss", "masked_loss(model, inputs, targets)", "model: integers (t,) -> logits (t, n), of both sides.")
kind("frequency-loss", "frequency_loss(trained, held_out, vocabulary)", "Two lists of tokens -> nats per token.")
kind("pooler", "pooler(hidden, weight, bias, classifier, shift)", "hidden (t, d) -> logits (2,).")
kind(
    "prediction",
    "prediction(hidden, weight, bias, gain, shift, table, output_bias)",
    "hidden (t, d) -> logits (t, n), by the table (n, d) of the input.",
)
kind(
    "normed-input",
    "normed_input(tokens, types, table, positions, type_table, gain, shift)",
    "tokens and types (t,) -> vectors (t, d).",
)


# Ours


def our_masked_loss(model: Model, inputs: Any, targets: Any) -> float:
    """Our loss of a batch of one row; the model's hidden vectors are its logits."""
    logits = of_host(model, inputs)
    n = logits(inputs).shape[-1]
    standing: Any = SimpleNamespace(
        hidden=lambda rows, *, lengths, types, key: logits(rows[0])[None],
        head=Linear(beside(inputs, np.eye(n)), None),
        transform=None,
        pooler=None,
    )
    row = to_host(targets)[None]
    return float(masked_loss(standing, MaskedBatch(to_host(inputs)[None], row, np.array([row.size]))))


def our_frequency_loss(trained: Any, held_out: Any, vocabulary: int) -> float:
    """Ours, on batches of one."""
    batches = [SimpleNamespace(targets=np.asarray(x, np.int64)) for x in (trained, held_out)]
    return frequency_loss(batches[:1], batches[1:], vocabulary)


def our_pooler(hidden: Any, weight: Any, bias: Any, classifier: Any, shift: Any) -> Any:
    """Ours, on a batch of one."""
    return Pooler(Linear(weight, bias), Linear(classifier, shift))(hidden[None])[0]


def our_prediction(hidden: Any, weight: Any, bias: Any, gain: Any, shift: Any, table: Any, output_bias: Any) -> Any:
    """The logits of our encoder, whose stack is not asked."""
    transform = Transform(Linear(weight, bias), LayerNorm(gain, shift), output_bias, "gelu")
    tokens = TokenInput(Embedding(table), None, "none", Dropout())
    stack: Any = None
    return LanguageModel(tokens, stack, None, causal=False, context=9, transform=transform).logits(hidden)


def our_input(tokens: Any, types: Any, table: Any, positions: Any, type_table: Any, gain: Any, shift: Any) -> Any:
    """Ours, on a batch of one."""
    entry = TokenInput(
        Embedding(table), Embedding(positions), "learned", Dropout(), Embedding(type_table), LayerNorm(gain, shift)
    )
    return entry(tokens[None], types=types[None])[0]


subject("masked-loss", "masked_loss", code=masked_loss, equation="eq:masked-loss")(our_masked_loss)
subject("frequency-loss", "frequency_loss", code=frequency_loss, equation="eq:frequency-loss")(our_frequency_loss)
subject("pooler", "Pooler", code=Pooler.__call__, equation="eq:pooler")(our_pooler)
subject("prediction", "Transform", code=Transform.__call__, equation="eq:prediction")(our_prediction)
subject("normed-input", "TokenInput with a norm", code=TokenInput.__call__, equation="eq:normed-input")(our_input)


# Cases and laws


def masked(n: Numbers, *, length: int, vocabulary: int, share: float) -> dict[str, Any]:
    """A row, its targets (one at least), and a table of which a model's logits are sums."""
    targets = np.where(n.chance(share, length), n.integers(0, vocabulary, length), IGNORE)
    targets[int(n.integers(0, length))] = int(n.integers(0, vocabulary))
    return {
        "inputs": n.integers(0, vocabulary, length),
        "targets": targets,
        "table": n.normal(vocabulary, vocabulary),
    }


MASKED = cases(masked, length=(2, 1, 3, 8), vocabulary=(2, 3, 5), share=(0.3, 0.0, 1.0))


def both_sides(table: np.ndarray) -> Model:
    """Logits at each place: the sum of the rows of all tokens but its own, and half of its own."""
    return lambda tokens: table[np.asarray(tokens)].sum(axis=0) - table[np.asarray(tokens)] / 2


@law("masked-loss", "mean-over-masks", serves="eq:masked-loss", cases=MASKED)
def mean_over_masks(f: F, c: Case, measure: Measure) -> None:
    """The mean of -log p(token | row) over the places that have a target."""
    model, x, y = both_sides(c["table"]), c["inputs"], c["targets"]
    terms = [surprise(model(x)[t], y[t]) for t in np.flatnonzero(y != IGNORE)]
    measure.close(f(model, x, y), np.mean(terms), bound(1 + len(x) * largest(c["table"]), len(x)))


@law("masked-loss", "only-where-masked", serves="eq:masked-loss", cases=MASKED)
def only_where_masked(f: F, c: Case, measure: Measure) -> None:
    """What the model says at places without a target does not matter."""
    model, x, y = both_sides(c["table"]), c["inputs"], c["targets"]
    other = np.where(y[:, None] == IGNORE, 7.0 * np.arange(len(c["table"])), model(x))
    measure.close(f(lambda _: other, x, y), f(model, x, y), bound(1 + len(x) * largest(c["table"]), len(x)))


def tokens(n: Numbers, *, trained: int, held_out: int, vocabulary: int) -> dict[str, Any]:
    """Tokens to count and tokens to tell."""
    return {
        "trained": n.integers(0, vocabulary, trained),
        "held_out": n.integers(0, vocabulary, held_out),
        "vocabulary": vocabulary,
    }


TOKENS = cases(tokens, trained=(3, 0, 1, 20), held_out=(1, 2, 9), vocabulary=(2, 3, 7))


@law("frequency-loss", "odds", serves="eq:frequency-loss", cases=TOKENS)
def frequency_odds(f: F, c: Case, measure: Measure) -> None:
    """The probabilities of all tokens add up to 1, and stand to one another as their counts and one."""
    p = np.exp([-f(c["trained"], np.array([y]), c["vocabulary"]) for y in range(c["vocabulary"])])
    counts = 1 + np.bincount(c["trained"], minlength=c["vocabulary"])
    measure.close(p, counts / counts.sum(), bound(1.0, len(counts)), "a probability")


@law("frequency-loss", "mean", serves="eq:frequency-loss", cases=TOKENS)
def frequency_mean(f: F, c: Case, measure: Measure) -> None:
    """The loss of some tokens is the mean of their own losses."""
    each = [f(c["trained"], np.array([y]), c["vocabulary"]) for y in c["held_out"]]
    measure.close(f(c["trained"], c["held_out"], c["vocabulary"]), np.mean(each), bound(5.0, len(each)))


def states(n: Numbers, *, length: int, width: int) -> dict[str, Any]:
    """States and the pooler's arrays."""
    return {
        "hidden": n.normal(length, width),
        "weight": n.normal(width, width),
        "bias": n.normal(width),
        "classifier": n.normal(width, 2),
        "shift": n.normal(2),
    }


STATES = cases(states, length=(2, 1, 4), width=(2, 1, 3))


@law("pooler", "definition", serves="eq:pooler", cases=STATES)
def pooler_definition(f: F, c: Case, measure: Measure) -> None:
    """Component by component: the classifier of tanh of a linear map of the first state, the other states unread."""
    h, w, b, u, s = c.values()
    inner = [np.tanh(sum(h[0, i] * w[i, j] for i in range(len(w))) + b[j]) for j in range(len(b))]
    right = [sum(inner[j] * u[j, k] for j in range(len(b))) + s[k] for k in range(2)]
    measure.close(
        call(f, *c.values()), right, bound(1 + largest(h) * largest(w) * (1 + largest(u)) + largest(b, s), 99)
    )


def heads(n: Numbers, *, length: int, width: int, vocabulary: int) -> dict[str, Any]:
    """States and what makes logits of them."""
    return {
        "hidden": n.normal(length, width),
        "weight": n.spread_out(width, width),
        "bias": n.normal(width),
        "gain": n.nonzero(width),
        "shift": n.normal(width),
        "table": n.normal(vocabulary, width),
        "output_bias": n.normal(vocabulary),
    }


HEADS = cases(heads, length=(2, 1, 3), width=(3, 2, 4), vocabulary=(4, 2, 5))


@law("prediction", "definition", serves="eq:prediction", cases=HEADS)
def prediction_definition(f: F, c: Case, measure: Measure) -> None:
    """Row by row: the transformed state against each row of the table, and that token's bias."""
    h, w, b, gain, shift, table, out = c.values()
    found = call(f, *c.values())
    for t, row in enumerate(h):
        x = layer_norm(gelu(row @ w + b), gain, shift)
        right = [sum(x * entry) + own for entry, own in zip(table, out, strict=True)]
        condition = 1 + largest(gain, shift) * (1 + largest(table)) * (1 + largest(h) * largest(w)) ** 2 + largest(out)
        measure.close(found[t], right, 1e3 * bound(condition, 99), f"the logits of row {t}")


@law("prediction", "output-bias", serves="eq:prediction", cases=HEADS)
def output_bias(f: F, c: Case, measure: Measure) -> None:
    """A bias more is a logit more."""
    more = {**c, "output_bias": c["output_bias"] + np.arange(len(c["output_bias"]))}
    apart = call(f, *more.values()) - call(f, *c.values())
    right = np.broadcast_to(np.arange(float(apart.shape[-1])), apart.shape)
    measure.close(apart, right, bound(largest(apart) + 1e2 * (1 + largest(c["table"])), 99))


def entries(n: Numbers, *, length: int, width: int) -> dict[str, Any]:
    """Tokens of a pair, and the tables."""
    return {
        "tokens": n.integers(0, 5, length),
        "types": np.sort(n.integers(0, 2, length)),
        "table": n.spread_out(5, width),
        "positions": n.normal(9, width) / 8,
        "type_table": n.normal(2, width) / 8,
        "gain": n.nonzero(width),
        "shift": n.normal(width),
    }


ENTRIES = cases(entries, length=(3, 1, 9), width=(3, 2, 5))


@law("normed-input", "definition", serves="eq:normed-input", cases=ENTRIES)
def input_definition(f: F, c: Case, measure: Measure) -> None:
    """Each vector is the norm of the sum of three rows: the token's, the place's, the part's."""
    found = call(f, *c.values())
    for t, (token, part) in enumerate(zip(c["tokens"], c["types"], strict=True)):
        row = c["table"][token] + c["positions"][t] + c["type_table"][part]
        right = layer_norm(row, c["gain"], c["shift"])
        measure.close(found[t], right, 1e4 * bound(1 + largest(row) * (1 + largest(c["gain"])), 99), f"vector {t}")
