"""Laws of the losses: each token is predicted from those before it, once, and every counted token weighs the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest, of_host
from minilong.autodiff import cross_entropy
from minilong.backend import beside, to_host
from minilong.data.batches import PackedWindows, pair_batch
from minilong.nn.layers import Linear
from minilong.objectives import causal_loss, sequence_loss
from minilong.train.loop import bits_per_character

Model = Callable[..., np.ndarray]

kind("causal-loss", "causal_loss(model, stream)", "model: integers (t,) -> logits (t, n), causal; stream (t + 1,).")
kind("sequence-loss", "sequence_loss(model, source, target, begin, end)", "model(source, inputs) -> logits (t, n).")
kind("bits", "bits(nats, tokens, units)", "Nats per token, and how many tokens and units -> bits per unit.")


class Standing:
    """A function from tokens to logits in the place of a model: its hidden vectors are the logits, its output layer
    the identity."""

    def __init__(self, model: Model, vocabulary: int, like: Any) -> None:
        self.model, self.memory = of_host(model, like), None
        self.head = Linear(beside(like, np.eye(vocabulary)), None)

    def hidden(self, inputs: Any, *, segments: Any, key: Any) -> Any:
        """Of a causal model."""
        return self.model(inputs[0])[None]

    def encode(self, source: Any, lengths: Any, key: Any) -> Any:
        """The source as it is: `decode_hidden` reads it."""
        return source

    def decode_hidden(self, source: Any, inputs: Any, lengths: Any, key: Any) -> Any:
        """Of a decoder that reads a source."""
        return self.model(source[0], inputs[0])[None]


def our_causal_loss(model: Model, stream: Any) -> float:
    """Our data set cuts the stream into inputs and targets, our loss takes the batch."""
    windows = PackedWindows([to_host(stream)], max(1, len(stream) - 1), separator=None, partial=True)
    (batch,) = windows.sequential(1)
    whole: Any = Standing(model, model(batch.inputs[0]).shape[-1], stream)
    return float(causal_loss(whole, batch))


def our_sequence_loss(model: Model, source: Any, target: Any, begin: int, end: int) -> float:
    """Our pair of padded arrays, and our loss."""
    batch = pair_batch([(to_host(source), to_host(target))], pad=0, bos=begin, eos=end)
    whole: Any = Standing(model, model(batch.source[0], batch.inputs[0]).shape[-1], source)
    return float(sequence_loss(whole, batch))


def our_bits(nats: float, tokens: int, units: int) -> float:
    """Ours, by units for each token."""
    found = bits_per_character(nats, units / tokens)
    assert found is not None
    return found


subject("causal-loss", "causal_loss", code=causal_loss, equation="eq:causal-loss")(our_causal_loss)
subject("sequence-loss", "sequence_loss", code=sequence_loss, equation="eq:sequence-loss")(our_sequence_loss)
subject("bits", "bits_per_character", code=bits_per_character, equation="eq:bits")(our_bits)


def stream(n: Numbers, *, length: int, vocabulary: int) -> dict[str, Any]:
    """Tokens, and a table whose running sums are the model's logits."""
    return {"stream": n.integers(0, vocabulary, length), "table": n.normal(vocabulary, vocabulary)}


STREAM = cases(stream, length=(2, 3, 5, 8), vocabulary=(2, 3, 5))


def summing(table: np.ndarray) -> Model:
    """A causal model: logits are the sum of the rows of all tokens up to the position."""
    return lambda tokens: np.cumsum(table[np.asarray(tokens)], axis=0)


def surprise(logits: np.ndarray, token: int) -> float:
    """-log softmax(logits)[token], written out."""
    top = logits.max()
    return float(np.log(np.exp(logits - top).sum()) - (logits[token] - top))


@law(
    "causal-loss", "chain-rule", serves=("eq:causal-loss", "claim:code-shift", "claim:code-labels-twice"), cases=STREAM
)
def chain_rule(f: F, c: Case, measure: Measure) -> None:
    """The loss is the mean of -log p(next token | tokens before it), where the model is shown those tokens only."""
    model, tokens = summing(c["table"]), c["stream"]
    terms = [surprise(model(tokens[: t + 1])[-1], tokens[t + 1]) for t in range(len(tokens) - 1)]
    measure.close(f(model, tokens), np.mean(terms), bound(1 + len(tokens) * largest(c["table"]), len(tokens)))


@law("causal-loss", "uniform", serves=("eq:causal-loss", "eq:cross-entropy"), cases=STREAM)
def uniform(f: F, c: Case, measure: Measure) -> None:
    """A model that knows nothing has the loss log n, and one that is certain of every next token the loss 0."""
    n, tokens = len(c["table"]), c["stream"]
    measure.close(f(lambda t: np.zeros((len(t), n)), tokens), np.log(n), bound(1 + np.log(n), len(tokens)))
    certain = np.where(np.arange(n) == tokens[1:, None], 0.0, -1e3)
    measure.close(f(lambda t: certain[: len(t)], tokens), 0.0, bound(1.0, len(tokens)))


def pair(n: Numbers, *, s: int, t: int, vocabulary: int) -> dict[str, Any]:
    """A source, a target without special tokens (the ids 0 and 1), and the model's table."""
    return {
        "source": n.integers(2, vocabulary, s),
        "target": n.integers(2, vocabulary, t),
        "begin": 0,
        "end": 1,
        "table": n.normal(vocabulary, vocabulary),
    }


PAIR = cases(pair, s=(1, 2, 3), t=(1, 2, 3, 5), vocabulary=(3, 4, 6))


@law("sequence-loss", "chain-rule", serves="eq:sequence-loss", cases=PAIR)
def pair_chain_rule(f: F, c: Case, measure: Measure) -> None:
    """The mean over the target and the end token of -log p(token | source, start token and true tokens before it)."""

    def model(source: Any, inputs: Any) -> np.ndarray:
        table: np.ndarray = c["table"]
        read: np.ndarray = table[np.asarray(source)].sum(axis=0)
        summed: np.ndarray = read + np.cumsum(table[np.asarray(inputs)], axis=0)
        return summed

    read, written = [c["begin"], *c["target"]], [*c["target"], c["end"]]
    terms = [surprise(model(c["source"], read[: t + 1])[-1], token) for t, token in enumerate(written)]
    size = 1 + (len(read) + len(c["source"])) * largest(c["table"])
    measure.close(f(model, c["source"], c["target"], c["begin"], c["end"]), np.mean(terms), bound(size, len(terms)))


def rate(n: Numbers, *, tokens: int, units: int) -> dict[str, Any]:
    """A loss and what it was measured on."""
    return {"nats": float(n.uniform(0, 10)), "tokens": tokens, "units": units}


RATE = cases(rate, tokens=(1, 2, 7, 100), units=(1, 3, 7, 400))


@law("bits", "same-text", serves="eq:bits", cases=RATE)
def same_text(f: F, c: Case, measure: Measure) -> None:
    """Bits per unit times units are the bits of the text: 2 to their negative power is its probability, exp(-nats)."""
    bits = float(f(c["nats"], c["tokens"], c["units"])) * c["units"]
    measure.close(bits * np.log(2.0), c["nats"] * c["tokens"], bound(1 + c["nats"] * c["tokens"]))


# Mutants


def misaligned(inputs: slice, targets: slice) -> F:
    """Inputs and targets cut from the stream in a wrong way."""

    def loss(model: Model, stream: Any) -> float:
        logits = np.asarray(model(stream[inputs]))
        n = min(len(logits), len(stream[targets]))
        return float(cross_entropy(logits[:n], targets=np.asarray(stream[targets][:n], np.int64)))

    return loss


mutant(
    "causal-loss", "shifted twice", kills=("chain-rule", "uniform"),
    met="the article's 5.2: targets are shifted before they go to a model that shifts its labels itself",
)(misaligned(slice(0, -1), slice(2, None)))  # fmt: skip
mutant(
    "causal-loss", "not shifted", kills=("chain-rule", "uniform"),
    met="plausible: labels = inputs for a model that does not shift; the loss falls to 0 by copying",
)(misaligned(slice(0, -1), slice(0, -1)))  # fmt: skip


@mutant(
    "causal-loss",
    "targets cut along the batch axis",
    kills="chain-rule",
    met="the article's 5.2: `input_ids[1:]` of an array (batch, time)",
)
def batch_axis(model: Model, stream: Any) -> float:
    """The first sentence of the batch is cut off, and with it all targets of a batch of one."""
    inputs = np.asarray(stream)[None]
    targets = inputs[1:]
    return float(cross_entropy(model(inputs[0])[None][: len(targets)], targets=targets))


@mutant(
    "causal-loss",
    "summed, not averaged",
    kills=("chain-rule", "uniform"),
    met="plausible: reduction='sum'; the learning rate then depends on the context length",
)
def summed(model: Model, stream: Any) -> float:
    """The sum over tokens."""
    return our_causal_loss(model, stream) * (len(stream) - 1)


def wrong_pair(begin_read: bool = True, end_written: bool = True) -> F:
    """Inputs or targets without their special token."""

    def loss(model: Model, source: Any, target: Any, begin: int, end: int) -> float:
        read = np.array([begin, *target] if begin_read else [*target, end])
        written = np.array([*target, end] if end_written else [*target, -100])
        return float(cross_entropy(np.asarray(model(source, read)), targets=written))

    return loss


mutant(
    "sequence-loss",
    "the decoder reads the token that it predicts",
    kills="chain-rule",
    met="plausible: no start token; the loss falls to 0 and decoding gives noise",
)(wrong_pair(begin_read=False))
mutant(
    "sequence-loss",
    "the end token is never a target",
    kills="chain-rule",
    met="OpenNMT 526 and others: answers that do not end",
)(wrong_pair(end_written=False))


@mutant(
    "bits",
    "nats taken for bits",
    kills="same-text",
    met="plausible: a factor of log 2, by which losses of different papers differ",
)
def nats(nats: float, tokens: int, units: int) -> float:
    """Not divided by log 2."""
    return nats * tokens / units


@mutant("bits", "tokens per unit inverted", kills="same-text", met="plausible: characters per token is what is stored")
def inverted(nats: float, tokens: int, units: int) -> float:
    """Times units by tokens."""
    return nats / float(np.log(2)) * units / tokens
