"""The ledger against real gradient steps: one dimension grows, and the peak stays within 15% of the formula."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_runs import SMALL, dotted

from minilong.cli import main
from minilong.data.batches import LanguageBatch
from minilong.objectives import causal_loss
from minilong.train import ledger, ledger_layers
from minilong.train.config import RunConfig
from minilong.train.estimate import count_parameters
from minilong.train.ledger_measure import Step, measure_cache, measure_step, predict
from minilong.train.source import Source

WITHIN = 0.15
BASE = SMALL | {
    "data.text": ("pride_and_prejudice",), "model.layers": 2, "model.width": 32, "model.heads": 2, "train.batch": 1,
    "train.threads": 1,
}  # fmt: skip


class Vocabulary:
    """Stands for a tokenizer."""

    def __init__(self, size: int) -> None:
        self.size = size


def source(config: RunConfig, vocabulary: int) -> Source:
    """Random tokens, one document a row: what is in a batch does not matter to memory."""
    rng = np.random.default_rng(0)
    shape = config.train.batch, config.model.context
    ids = [rng.integers(0, vocabulary, shape).astype(np.int32) for _ in range(2)]
    batch = LanguageBatch(ids[0], ids[1], np.zeros(shape, np.int32))
    tokenizer: Any = Vocabulary(vocabulary)
    return Source(tokenizer, causal_loss, lambda step: batch, (), None, batch.tokens, "")


@cache
def first_step() -> None:
    """Imports and caches, which would count as memory of a step."""
    for kernel in ("dense", "blockwise"):
        config = RunConfig.from_flat(BASE | {"model.attention": kernel})
        measure_step(config, source(config, 10))


@cache
def steps(vocabulary: int = 100, **settings: Any) -> tuple[Step, Step]:
    """The predicted and the measured step of a configuration."""
    config = RunConfig.from_flat(BASE | dotted(settings))
    data = source(config, vocabulary)
    first_step()
    return predict(config, vocabulary), measure_step(config, data)


def assert_within(pairs: list[tuple[Step, Step]]) -> None:
    """Every peak, and the growth from each size to the next, within 15%."""
    for says, took in pairs:
        assert abs(says.peak / took.peak - 1) < WITHIN, f"{says.by_part()} predicted, {took.by_part()} measured"
    for (says, took), (then_says, then_took) in pairwise(pairs):
        growth = (then_says.peak - says.peak) / (then_took.peak - took.peak)
        assert abs(growth - 1) < WITHIN, f"the growth is {growth:.2f} times the measured one"


N = {"dense": (256, 512, 768), "naive": (256, 512), "blockwise": (512, 1024, 2048)}


@pytest.mark.parametrize("kernel", N)
def test_attention_in_n(kernel: str) -> None:
    pairs = [steps(model__attention=kernel, model__context=n) for n in N[kernel]]
    assert_within(pairs)
    for says, took in pairs:
        assert says.kept == took.kept


@pytest.mark.parametrize("kernel", ["dense", "naive", "blockwise"])
@pytest.mark.parametrize("wide", [8, 48])
def test_heads_of_any_width(kernel: str, wide: int) -> None:
    """Queries, keys and what is merged are heads times that wide, the stream is as wide as the model."""
    settings = {"model__attention": kernel, "model__head_width": wide, "model__kv_heads": 1}
    pairs = [steps(model__context=n, **settings) for n in N[kernel][:2]]
    assert_within(pairs)
    for says, took in pairs:
        assert says.kept == took.kept


DEPTHS = {"stored": (4, 12), "checkpoint": (4, 16, 36), "sqrt": (4, 16, 36), "reversible": (4, 36), "momentum": (4, 36)}


def depth(mode: str, layers: int) -> tuple[Step, Step]:
    """With more activations than parameters."""
    return steps(model__depth=mode, model__layers=layers, model__context=128, train__batch=8)


@pytest.mark.parametrize("mode", DEPTHS)
def test_depth_in_layers(mode: str) -> None:
    pairs = [depth(mode, layers) for layers in DEPTHS[mode]]
    assert_within(pairs)
    for says, took in pairs:
        assert sum(says.kept.values()) == pytest.approx(sum(took.kept.values()), rel=0.01)


def test_reversible_depth_grows_by_its_parameters_alone() -> None:
    (few, _), (many, took) = depth("reversible", 4), depth("reversible", 36)
    assert many.kept == few.kept
    assert took.peak < 0.2 * (few.peak + 36 / 4 * sum(depth("stored", 4)[0].kept.values()))


def test_cross_entropy_in_the_vocabulary() -> None:
    pairs = [steps(v, model__context=512, train__batch=2, model__layers=1) for v in (1000, 4000, 16_000, 32_000)]
    assert_within(pairs)
    assert pairs[-1][1].peak < 4 * 1024 * 32_000 / 2  # half of what the logits alone would take


def test_the_batch_and_the_width() -> None:
    assert_within([steps(model__context=64, train__batch=b) for b in (4, 16, 64)])
    assert_within([steps(model__context=64, train__batch=16, model__width=w) for w in (32, 64, 128)])


@pytest.mark.parametrize("window", [0, 16])
@pytest.mark.parametrize("memory", ["none", "xl", "compressive"])
def test_the_cache_to_the_byte(memory: str, window: int) -> None:
    if memory != "none" and window:
        with pytest.raises(Exception, match=r"model\.window and model\.memory"):
            RunConfig.from_flat(BASE | {"model.memory": memory, "model.window": window})
        return
    for n in (16, 64, 100):
        settings = {"model.context": n, "model.memory": memory, "model.window": window, "model.segment": 16}
        config = RunConfig.from_flat(BASE | settings | {"model.sinks": 3 if window else 0, "model.memory_length": 16})
        assert ledger.cache_bytes(config.model, n) == measure_cache(config, 50)


MODES: dict[str, dict[str, Any]] = {
    "alibi": {"model__position": "alibi", "model__context": 256, "model__attention": "dense"},
    "t5, blockwise": {"model__position": "t5", "model__context": 1024, "model__attention": "blockwise"},
    "xl": {"model__position": "xl", "model__context": 256},
    "recurrence": {"model__memory": "xl", "model__context": 256, "train__batch": 2},
    "compressive": {"model__memory": "compressive", "model__context": 256},
    "window": {"model__window": 32, "model__context": 1024, "model__attention": "blockwise"},
    "grouped heads": {"model__heads": 4, "model__kv_heads": 1, "model__context": 512},
    "halves": {"model__rope_layout": "half", "model__context": 256, "train__batch": 4},
    "reversible, dropout": {
        "model__depth": "reversible",
        "model__dropout": 0.1,
        "train__batch": 8,
        "model__context": 128,
    },
    "many units": {
        "model__context": 8,
        "train__batch": 64,
        "model__layers": 1,
        "model__width": 16,
        "model__feed_forward": 256,
    },
    "untied": {"model__tied": False, "model__width": 64, "model__context": 64},
    "untied, reversible": {"model__tied": False, "model__depth": "reversible", "model__layers": 6},
    "more weights": {"model__width": 256, "model__layers": 3, "model__context": 16},
    "more weights, untied": {"model__tied": False, "model__width": 256, "model__layers": 1, "model__context": 16},
    "more weights, checkpoint": {"model__depth": "checkpoint", "model__width": 192, "model__layers": 6},
    "blockwise rows": {"model__attention": "blockwise", "model__context": 100, "train__batch": 8},
    "blockwise, checkpoint": {
        "model__attention": "blockwise",
        "model__context": 400,
        "train__batch": 4,
        "model__heads": 8,
        "model__width": 64,
        "model__depth": "checkpoint",
        "model__feed_forward": 16,
    },
    "accumulated": {"train__accumulate": 4, "train__batch": 16, "model__context": 64, "model__width": 64},
}


@pytest.mark.parametrize("name", MODES)
def test_other_ways(name: str) -> None:
    says, took = steps(**MODES[name])
    assert abs(says.peak / took.peak - 1) < WITHIN, f"{says.by_part()} predicted, {took.by_part()} measured"


# Wrong formulas, which the tests above must find

MISTAKES: dict[str, tuple[str, Any, Callable[[], None]]] = {
    "scores counted for blockwise attention": (
        "ledger_layers.kernel",
        lambda c, queries, keys: "dense",
        lambda: test_attention_in_n("blockwise"),
    ),
    "no bit store": (
        "ledger.store_words",
        lambda branches, gamma: -1,
        lambda: test_depth_in_layers("momentum"),
    ),
    "groups of one layer": (
        "ledger.group_size",
        lambda layers: 1,
        lambda: test_depth_in_layers("sqrt"),
    ),
    "all logits at once": (
        "ledger.chunk_rows",
        lambda classes: 10**9,
        test_cross_entropy_in_the_vocabulary,
    ),
    "activations that keep their argument": (
        "ledger_layers.INSIDE",
        {"gelu_tanh": (2, 2)},
        lambda: test_attention_in_n("blockwise"),
    ),
    "all gradients at a time": (
        "ledger.waiting",
        lambda c, table, parameters: table + parameters,
        lambda: test_other_ways("more weights, untied"),
    ),
    "activations free on the way there": (
        "ledger_layers.BLOCK",
        -(10**9),
        lambda: test_other_ways("many units"),
    ),
    "no window": (
        "ledger.Window",
        lambda window, sinks: ledger.Full(),
        lambda: test_the_cache_to_the_byte("none", 16),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_formula_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, wrong, test = MISTAKES[name]
    module, attribute = place.split(".")
    measured = steps

    def mistaken(vocabulary: int = 100, **settings: Any) -> tuple[Step, Step]:
        _, took = measured(vocabulary, **settings)  # measured once: it was cached by the tests before
        return predict(RunConfig.from_flat(BASE | dotted(settings)), vocabulary), took

    monkeypatch.setitem(globals(), "steps", mistaken)
    monkeypatch.setattr({"ledger": ledger, "ledger_layers": ledger_layers}[module], attribute, wrong)
    with pytest.raises(AssertionError):
        test()


# The command


def call(*arguments: str) -> Any:
    result = CliRunner().invoke(main, ["ledger", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_prints_both_and_their_ratio() -> None:
    out = call("--preset", "tiny", "--context", "32", "--threads", "1", "--layers", "1")
    (peak,) = [line.split() for line in out.splitlines() if line.startswith("peak")]
    assert float(peak[-1]) == pytest.approx(1, abs=WITHIN)
    assert "and about 70.0 MB for Python and its libraries" in out
    assert "a token adds" in out


def test_predictions_alone_as_json() -> None:
    facts = json.loads(call("--no-measure", "--json", "--set", "layers=3", "--depth", "momentum"))
    assert facts["measured"] is None
    assert facts["predicted"]["kept: depth"] > 0
    assert facts["predicted"]["peak"] == sum(v for k, v in facts["predicted"].items() if k != "peak")
    pairs = json.loads(call("--no-measure", "--json", "--task", "copy"))
    assert pairs["cache"] is None


def test_two_replicas_share_the_batch() -> None:
    config = RunConfig.from_flat(BASE | {"train.batch": 4, "train.threads": 2, "model.context": 64})
    took = measure_step(config, source(config, 100))
    says = predict(config, 100)
    assert took.gradients == says.gradients == 2 * 4 * count_parameters(config.model, 100)
    assert took.kept == says.kept
    one = predict(replace(config, train=replace(config.train, threads=1)), 100)
    assert sum(one.kept.values()) == pytest.approx(sum(says.kept.values()), rel=0.05)
