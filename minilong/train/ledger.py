"""The memory ledger: bytes that a gradient and a cache need, from the configuration alone (`eq:ledger`).

What the derivative keeps is counted part by part (`ledger_layers.py`). What is at work beside it is that of the widest
of five moments: the last layer's feed-forward network; the loss; that network and the layer's attention, on the way
back; and the end, where the embeddings' gradient is made. `minilong ledger` prints the figures beside those of a real
step (`ledger_measure.py`), and tests hold them within 15%.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from minilong.autodiff.projected import BLOCK, chunk_rows
from minilong.memory import Full, Window
from minilong.models.build import memory
from minilong.models.config import ModelConfig
from minilong.nn.depth import group_size
from minilong.nn.fixed_point import store_words
from minilong.train import ledger_layers as of

FLOAT, WORD = 4, 8
GRAPH = 20_000
"""Bytes of Python objects that a layer's nodes take, whatever its size."""
INTERPRETER = 70_000_000
"""Bytes that Python, NumPy and the other libraries take before there is any array."""

PARTS = ("attention", "products", "activations", "norms", "dropout", "positions", "depth")
"""What is kept: heads and scores; inputs of matrix products; inside the feed-forward network; normalised rows; what
was dropped; angles; and what stands for layers that are computed again."""


@dataclass(frozen=True)
class Work:
    """What is differentiated at once: `rows` sequences of `length` tokens, and for an encoder of `source` tokens.

    threads: as many as attention uses inside.
    """

    rows: int
    length: int
    source: int
    vocabulary: int
    threads: int = 1

    @property
    def tokens(self) -> int:
        """Tokens that are predicted."""
        return self.rows * self.length


@dataclass(frozen=True)
class Needs:
    """Bytes of one gradient: what is `kept` for the derivative, by part, and what is at `work` beside it."""

    kept: dict[str, int]
    work: int

    @property
    def peak(self) -> int:
        """The most at once."""
        return sum(self.kept.values()) + self.work


def gradient_needs(config: ModelConfig, work: Work, parameters: int) -> Needs:
    """What the gradient of one share of a batch needs, beside the parameters and the vector it is copied into."""
    c = config.resolved()
    branches = layer(c, work)
    kept = stacks(c, work) + ends(c, work)
    held, stream, table = of.total(kept), FLOAT * work.tokens * c.width, FLOAT * c.width * work.vocabulary
    carried = waiting(c, table, FLOAT * parameters) + cotangents(c) * stream
    moments = [
        held + 2 * stream + table + loss_work(c, work),
        (3 if c.tied else 1) * table + 2 * stream,
    ]
    if c.depth == "stored":  # with the activations before and inside the layer; the last norm is still to come
        moments.append(held + 2 * stream + branches[-1].forward)
    for i, branch in enumerate(branches):
        computed = c.depth != "stored" and (i == len(branches) - 1 or c.depth in ("reversible", "momentum"))
        most = max(branch.work, branch.forward if computed else 0)
        moments.append(held + again(c, branches[: i + 1], branches[i + 1 :], stream) + carried + most)
    return Needs({name: kept[name] for name in PARTS if kept[name]}, max(moments) - held + GRAPH * c.layers)


def layer(c: ModelConfig, work: Work) -> list[of.Branch]:
    """The branches of a layer of the (last) stack."""
    branches = [of.pieces(c, work.rows, work.length, work.threads)]
    if c.kind == "encoder-decoder":
        branches.append(of.attention(c, work.rows, work.length, work.source, work.threads, own=False))
    return [*branches, of.feed_forward(c, work.tokens)]


def stacks(c: ModelConfig, work: Work) -> of.Parts:
    """What all layers keep until the derivative comes to them."""
    kept = stack(c, layer(c, work), FLOAT * work.tokens * c.width)
    if c.kind == "encoder-decoder":
        tokens = work.rows * work.source
        encoder = [of.attention(c, work.rows, work.source, work.source), of.feed_forward(c, tokens)]
        kept += stack(c, encoder, FLOAT * tokens * c.width) + Counter(products=FLOAT * tokens * c.width)
    return kept


def stack(c: ModelConfig, branches: list[of.Branch], stream: int) -> of.Parts:
    """What one stack keeps, by the way in which its depth is stored (`eq:depth-ledger`). stream: bytes of its rows."""
    if c.depth == "stored":
        return of.times(of.whole(*branches), c.layers)
    words = 2 if c.depth == "reversible" else 3 + store_words(c.layers * len(branches), c.momentum)
    streams = {"checkpoint": c.layers, "sqrt": of.groups_of(c.layers, group_size(c.layers))}
    return Counter(depth=stream * streams.get(c.depth, words * WORD // FLOAT))


def again(c: ModelConfig, done: list[of.Branch], undone: list[of.Branch], stream: int) -> int:
    """Bytes that the last layer adds to what is kept when its branch `done[-1]` is differentiated; `undone` was.

    Of stored layers it takes some away; of others it holds what was computed once more.
    """
    if c.depth == "stored":
        return -of.total(of.whole(*undone))
    if c.depth in ("reversible", "momentum"):
        return of.total(done[-1].kept)
    groups = group_size(c.layers) * stream if c.depth == "sqrt" else 0
    return groups + of.total(of.whole(*done))


def waiting(c: ModelConfig, table: int, parameters: int) -> int:
    """Bytes of gradients that are not yet handed over in the last layer: that of a table that is input and output waits
    for the input, and those of a reversible stack for one another. Others exist one at a time."""
    return (table if c.tied else 0) + (parameters if c.depth in ("reversible", "momentum") else 0)


def cotangents(c: ModelConfig) -> int:
    """Arrays of the stream's size that are carried backward: its cotangent, and those that a reversible stack needs."""
    return {"reversible": 4, "momentum": 5}.get(c.depth, 1)


def ends(c: ModelConfig, work: Work) -> of.Parts:
    """What is kept before and behind the layers, or once for all: dropout of the embeddings, the last norms, angles of
    rotary positions that turn halves, sinusoids of distances."""
    tokens = work.tokens + (work.rows * work.source if c.kind == "encoder-decoder" else 0)
    final = FLOAT * tokens * (c.width + 1) if c.norm == "pre" else 0
    halves = c.position == "rotary" and c.rope_layout == "half" and c.depth == "stored" and c.memory == "none"
    return Counter(
        norms=final,
        dropout=FLOAT * tokens * c.width if c.dropout else 0,
        positions=FLOAT * work.length * c.head_width if halves else 0,
        products=FLOAT * work.length * c.width if c.position == "xl" and c.depth == "stored" else 0,
    )


def loss_work(c: ModelConfig, work: Work) -> int:
    """What the chunked loss has at work: a chunk of logits, and parts of the products with it."""
    rows = min(work.tokens, chunk_rows(work.vocabulary))
    several = rows < work.tokens
    block = min(BLOCK, work.vocabulary) * c.width if several else 0
    return FLOAT * (rows * work.vocabulary + max(2 * rows * c.width, rows * c.width + block))


def cache_bytes(config: ModelConfig, tokens: int, *, batch: int = 1) -> int:
    """Bytes that a decoder's layers hold after one pass over `tokens` and one token more (`eq:cache-bytes`).

    Keys and values of the key heads; with recurrence over segments, the layers' inputs instead.
    """
    c = config.resolved()
    recurrence = memory(c)
    if recurrence is not None:
        return c.layers * recurrence.predicted_bytes(tokens, 1, FLOAT * batch * c.width)
    kept = Window(c.window, c.sinks) if c.window else Full()
    return c.layers * kept.predicted_bytes(tokens, 1, 2 * FLOAT * batch * c.kv_heads * c.head_width)


def cache_bytes_per_token(config: ModelConfig) -> int:
    """Bytes that each token adds, as long as none is forgotten."""
    c = config.resolved()
    return FLOAT * c.layers * (2 * c.kv_heads * c.head_width if c.memory == "none" else c.width)
