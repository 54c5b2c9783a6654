"""Laws of the memory ledger: what it says of a layer, a cache and a stack is what the real ones hold, to the byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F
from minilong.autodiff import ops, vjp
from minilong.autodiff.tree import leaves
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn.depth import chain, run
from minilong.nn.view import View
from minilong.train import ledger, ledger_layers
from minilong.train.ledger_measure import kept_by, owner

kind(
    "ledger",
    "ledger(kernel, rows, length, width, heads, kv_heads, hidden)",
    "Sizes of a causal layer (layer norm, tanh GELU, no positions) and the name of its attention kernel -> the bytes "
    "that it keeps for its derivative in float32.",
)
kind(
    "cache-bytes",
    "cache_bytes(layers, heads, kv_heads, width, tokens, window, sinks)",
    "Sizes of a decoder, tokens read (window 0: none) -> bytes of keys and values after one token more, in float32.",
)
kind(
    "depth-ledger",
    "depth_ledger(depth, layers, branches, numerator, denominator, stream)",
    "How depth is stored, layers of as many branches, momentum as a fraction, bytes of the stream -> bytes kept.",
)


@subject("ledger", "ledger_layers", code=ledger_layers.attention, equation="eq:ledger")
def our_layer(kernel: str, rows: int, length: int, width: int, heads: int, kv_heads: int, hidden: int) -> int:
    """Ours, of a configuration."""
    c = configuration(kernel, width, heads, kv_heads, hidden, length)
    branches = ledger_layers.attention(c, rows, length, length), ledger_layers.feed_forward(c, rows * length)
    return ledger_layers.total(ledger_layers.whole(*branches))


@subject("cache-bytes", "cache_bytes", code=ledger.cache_bytes, equation="eq:cache-bytes")
def our_cache(layers: int, heads: int, kv_heads: int, width: int, tokens: int, window: int, sinks: int) -> int:
    """Ours, of a configuration."""
    return ledger.cache_bytes(decoder(layers, heads, kv_heads, width, window, sinks), tokens)


@subject("depth-ledger", "stack", code=ledger.stack, equation="eq:depth-ledger")
def our_depth(depth: str, layers: int, branches: int, numerator: int, denominator: int, stream: int) -> int:
    """Ours: what the branches themselves keep does not matter."""
    c = ModelConfig(layers=layers, depth=depth, momentum=numerator / denominator, position="none")
    empty = ledger_layers.Branch(Counter(), 0)
    return ledger_layers.total(ledger.stack(c.resolved(), [empty] * branches, stream))


def configuration(kernel: str, width: int, heads: int, kv_heads: int, hidden: int, length: int) -> ModelConfig:
    """One causal layer."""
    return ModelConfig(
        layers=1, width=width, heads=heads, kv_heads=kv_heads, feed_forward=hidden, attention=kernel,
        position="none", context=length,
    ).resolved()  # fmt: skip


def decoder(layers: int, heads: int, kv_heads: int, width: int, window: int, sinks: int) -> ModelConfig:
    """A decoder with a window, or with none."""
    return ModelConfig(
        layers=layers, heads=heads, kv_heads=kv_heads, width=width, window=window, sinks=sinks if window else 0,
        position="none", feed_forward=2,
    )  # fmt: skip


def sizes(r: Numbers, kernel: str, rows: int, length: int, heads: int, shared: int, each: int, hidden: int) -> Case:
    """A layer's sizes; `shared` query heads share a key head."""
    h = heads * shared
    return {
        "kernel": kernel, "rows": rows, "length": length, "width": h * each, "heads": h, "kv_heads": heads,
        "hidden": hidden,
    }  # fmt: skip


LAYERS = cases(
    sizes,
    kernel=("dense", "blockwise", "naive"),
    rows=(1, 2, 3),
    length=(2, 3, 5, 17),
    heads=(1, 2),
    shared=(1, 2),
    each=(2, 3, 4),
    hidden=(2, 3, 7),
)


def kept_in(f: Any, *inputs: Any) -> int:
    """Bytes that the graph of f keeps beside its inputs."""
    found = []

    def traced(*xs: Any) -> Any:
        y = f(*xs)
        found.append(sum(kept_by(y.node, {id(owner(a)) for a in leaves(inputs)}).values()))
        return y

    vjp(traced, *inputs)
    return found[0]


def real_layer(c: Case) -> int:
    """What a real layer keeps."""
    config = configuration(c["kernel"], c["width"], c["heads"], c["kv_heads"], c["hidden"], c["length"])
    model: Any = build(config, 3, Key.of(0))
    view = View(Mask(causal=True, segments=np.zeros((c["rows"], c["length"]), np.int32)))  # as of a packed batch
    x = np.zeros((c["rows"], c["length"], c["width"]), np.float32)
    return kept_in(lambda layer, x: layer(x, view=view), model.stack.layers[0], x)


@law("ledger", "measured", serves="eq:ledger", cases=LAYERS, share=0.5)
def layer_measured(f: F, c: Case, measure: Measure) -> None:
    """A layer keeps, to the byte, what the ledger says."""
    says, keeps = f(*c.values()), real_layer(c)
    measure.holds(says == keeps, f"the ledger says {says} bytes, and a layer keeps {keeps}")


@law("ledger", "growth", serves="eq:ledger", cases=LAYERS)
def layer_growth(f: F, c: Case, measure: Measure) -> None:
    """Every layer keeps in proportion to its rows, and a blockwise one to its length. Of the others, each array of
    scores has 2 h t^2 numbers a row more than two of half the length."""
    once, twice = f(*c.values()), f(*{**c, "length": 2 * c["length"]}.values())
    scores = 4 * c["rows"] * c["heads"] * c["length"] ** 2
    extra = {"blockwise": 0, "dense": 2 * scores, "naive": 4 * scores + 2 * c["rows"] * c["length"] ** 2}[c["kernel"]]
    measure.holds(twice == 2 * once + extra, f"twice the length keeps {twice} bytes, once {once}")
    rows = f(*{**c, "rows": 2 * c["rows"]}.values())
    measure.holds(rows == 2 * once, f"twice the rows keep {rows} bytes, once {once}")


def streams(r: Numbers, layers: int, heads: int, shared: int, each: int, tokens: int, window: int, sinks: int) -> Case:
    """A decoder's sizes, and how much it has read."""
    h = heads * shared
    return {
        "layers": layers, "heads": h, "kv_heads": heads, "width": h * each, "tokens": tokens, "window": window,
        "sinks": sinks if window else 0,
    }  # fmt: skip


STREAMS = cases(
    streams, layers=(1, 2, 3), heads=(1, 2), shared=(1, 2, 4), each=(1, 2), tokens=(1, 2, 15, 16, 33),
    window=(0, 1, 3, 7), sinks=(0, 1, 2),
)  # fmt: skip


@law("cache-bytes", "measured", serves="eq:cache-bytes", cases=STREAMS, share=0.5)
def cache_measured(f: F, c: Case, measure: Measure) -> None:
    """A decoder that has read the tokens in one pass and one token more holds, to the byte, what the ledger says."""
    sizes = {name: c[name] for name in ("layers", "heads", "kv_heads", "width", "window", "sinks")}
    model: Any = build(decoder(**sizes), 3, Key.of(0))
    stream, tokens = model.start(), np.zeros((1, c["tokens"] + 1), np.int64)
    model.extend(tokens[:, :-1], stream)
    model.extend(tokens[:, -1:], stream)
    says, holds = f(*c.values()), stream.bytes
    measure.holds(says == holds, f"the ledger says {says} bytes, and the cache holds {holds}")


def stacks(r: Numbers, depth: str, layers: int, branches: int, gamma: tuple[int, int]) -> Case:
    """A stack, and the fraction of its momentum."""
    return {"depth": depth, "layers": layers, "branches": branches, "numerator": gamma[0], "denominator": gamma[1]}


STACKS = cases(
    stacks, depth=("momentum", "checkpoint", "sqrt", "reversible"), layers=(1, 3, 12, 50), branches=(1, 2, 3),
    gamma=((1, 2), (1, 10), (9, 10)),
)  # fmt: skip


@law("depth-ledger", "measured", serves="eq:depth-ledger", cases=STACKS)
def depth_measured(f: F, c: Case, measure: Measure) -> None:
    """A stack of real branches keeps, to the byte, what the ledger says."""
    x, weight = np.full((3, 2), 0.5, np.float32), np.full(2, 0.1, np.float32)
    branch = (lambda w, x: ops.tanh(x * w), weight)
    layers = [branch] * (c["layers"] * c["branches"])
    if c["depth"] in ("checkpoint", "sqrt"):
        plain = [(lambda w, x: x + ops.tanh(x * w), weight)] * len(layers)
        kept = kept_in(lambda x, w: chain(c["depth"], _with(plain, w), x, per_layer=c["branches"]), x, weight)
        kept += x.nbytes  # the first input was excluded
    else:
        gamma = c["numerator"] / c["denominator"]
        kept = kept_in(lambda x, w: run(c["depth"], _with(layers, w), x, momentum=gamma), x, weight)
    says = f(*c.values(), x.nbytes)
    measure.holds(says == kept, f"the ledger says {says} bytes, and the stack keeps {kept}")


def _with(branches: Any, weight: Any) -> list[Any]:
    return [(f, weight) for f, _ in branches]


# Mutants

LAYER = ("kernel", "rows", "length", "width", "heads", "kv_heads", "hidden")
CACHE = ("layers", "heads", "kv_heads", "width", "tokens", "window", "sinks")
STACK = ("depth", "layers", "branches", "numerator", "denominator", "stream")


def planted(of: str, name: str, names: tuple[str, ...], wrong: Callable[[dict[str, Any]], Any], met: str) -> None:
    """A mutant as a function of its arguments by name."""

    def f(*sizes: Any) -> Any:
        return wrong(dict(zip(names, sizes, strict=True)))

    mutant(of, name, kills="measured", met=met)(f)


def dense_scores(c: dict[str, Any]) -> Any:
    """Bytes of the weights of one row, where a kernel keeps them."""
    return 4 * c["heads"] * c["length"] ** 2 * (c["kernel"] != "blockwise")


@mutant(
    "ledger",
    "scores of all queries and keys for blockwise attention",
    kills=("measured", "growth"),
    met="plausible: an estimate written for stored scores, applied to every kernel",
)
def scores_for_all(kernel: str, *sizes: int) -> Any:
    """As dense."""
    return our_layer("dense" if kernel == "blockwise" else kernel, *sizes)


@mutant("ledger", "scores of one row", kills=("measured", "growth"), met="plausible: the batch was left out of h t^2")
def one_row(*sizes: Any) -> Any:
    """Scores of further rows are missing."""
    c = dict(zip(LAYER, sizes, strict=True))
    return our_layer(**c) - (c["rows"] - 1) * dense_scores(c)


planted(
    "ledger", "key heads counted as query heads", LAYER, lambda c: our_layer(**{**c, "kv_heads": c["heads"]}),
    "hahnyuan/LLM-Viewer 12: grouped queries counted as if each had keys of its own",
)  # fmt: skip
planted(
    "ledger", "what GELU keeps is left out", LAYER,
    lambda c: our_layer(**c) - 4 * c["rows"] * c["length"] * c["hidden"],
    "plausible: elementwise functions thought free",
)  # fmt: skip
planted(
    "ledger", "GELU keeps its argument as well", LAYER,
    lambda c: our_layer(**c) + 4 * c["rows"] * c["length"] * c["hidden"],
    "Korthikanti et al. 2022, section 4.1: the argument is stored, the derivative computed from it (here until 0.5)",
)  # fmt: skip
planted(
    "ledger", "merged heads copied", LAYER,
    lambda c: our_layer(**c) + 4 * c["rows"] * c["length"] * c["width"] * (c["kernel"] != "naive"),
    "plausible: the output counted head by head for attention, and once more for the product after it",
)  # fmt: skip
planted(
    "cache-bytes", "key heads counted as query heads", CACHE, lambda c: our_cache(**{**c, "kv_heads": c["heads"]}),
    "torchtune 38, vllm-fit 2, KolosalAI/model-memory-calculator 2: the whole width, not that of the key heads",
)  # fmt: skip
planted(
    "cache-bytes", "key heads taken for the size of a group", CACHE,
    lambda c: our_cache(**{**c, "kv_heads": c["heads"] // c["kv_heads"]}),
    "rasbt/LLMs-from-scratch 922: the number of key heads taken for how many queries share one",
)  # fmt: skip
planted(
    "cache-bytes", "growth beyond the window", CACHE, lambda c: our_cache(**{**c, "window": 0, "sinks": 0}),
    "ai-dynamo/aiconfigurator 1201: a constant rate per token for layers whose window forgets",
)  # fmt: skip
planted(
    "cache-bytes", "keys alone", CACHE, lambda c: our_cache(**c) // 2, "plausible: the factor 2 for values is forgotten"
)
planted(
    "depth-ledger", "the bit store forgotten", STACK,
    lambda c: 4 * c["stream"] if c["depth"] == "momentum" else our_depth(**c),
    "plausible: momentum counted as position and velocity alone",
)  # fmt: skip
planted(
    "depth-ledger", "one word of the bit store", STACK,
    lambda c: 6 * c["stream"] if c["depth"] == "momentum" else our_depth(**c),
    "plausible: a store thought never to fill; the official package's overflows unseen (momentumnet, n_max_iter)",
)  # fmt: skip
planted(
    "depth-ledger", "as many groups as the root", STACK,
    lambda c: int(c["layers"] ** 0.5) * c["stream"] if c["depth"] == "sqrt" else our_depth(**c),
    "plausible: sqrt(L) taken for what is kept, whatever L is",
)  # fmt: skip
