"""A trace is the very pass that the model makes: its logits, the sums of its parts, its statistics and its names."""

from __future__ import annotations

import re
import zlib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import TEXT, copy, lm, untrained

import minilong
from minilong.attention import DistanceBias, Mask, naive
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import EncoderDecoder, LanguageModel
from minilong.nn.lowbit import LowBit, LowBitEmbedding, LowBitLinear
from minilong.train.loaded import LoadedRun
from minilong.train.trace import Trace, choice, tokens_of, trace
from minilong.train.trace_attention import map_rows
from minilong.train.trace_compare import TOLERANCE, compare, difference, first_divergence
from minilong.train.trace_plot import stream_lines
from minilong.train.trace_records import everything
from minilong.train.trace_statistics import Statistics, Tally

ROOT = Path(minilong.__file__).parents[1]
SPECS = set(
    re.findall(r"^## (eq:[a-z0-9-]+):", "\n".join(p.read_text("utf-8") for p in (ROOT / "specs").glob("*.md")), re.M)
)
RNG = np.random.default_rng(0)
IDS = RNG.integers(4, 30, (1, 11)).astype(np.int32)
SIZES: dict[str, Any] = {"layers": 2, "width": 24, "heads": 4, "context": 16}
MODELS = {
    "rotary": ModelConfig(**SIZES),
    "as Llama": ModelConfig(
        **SIZES, kv_heads=2, activation="swiglu", normalization="rms", bias=False, input="plain", tied=False,
        rope_layout="half", rope_scaling="yarn", rope_factor=2.0,
    ),
    "part of a head turned": ModelConfig(**SIZES, head_width=8, rope_share=0.5, activation="geglu"),
    "dynamic": ModelConfig(**SIZES | {"context": 32}, rope_scaling="dynamic", rope_factor=2.0, rope_context=8),
    "ALiBi in a window": ModelConfig(**SIZES, position="alibi", window=4, sinks=2),
    "post-norm, learned": ModelConfig(**SIZES, norm="post", position="learned", activation="relu"),
    "two streams": ModelConfig(**SIZES, depth="reversible"),
    "segments, xl": ModelConfig(**SIZES, position="xl", memory="xl", segment=4),
    "as BERT": ModelConfig(
        **SIZES, kind="encoder", norm="post", position="learned", input="normed", output="transform", types=2,
        pooler=True, activation="gelu",
    ),
    "without head": ModelConfig(**SIZES, kind="encoder", output="none"),
    "as T5": ModelConfig(
        **SIZES, kind="encoder-decoder", position="t5", normalization="rms", bias=False, score_scale=1.0,
        output_scale=0.2, activation="geglu_tanh",
    ),
}  # fmt: skip


def loaded(config: ModelConfig) -> LoadedRun:
    """A model whose every array is random, T5's table and the gains too."""
    run = untrained(lm(Path("book.txt")), TEXT)
    model = shaken(build(config, 30, Key.of(3)), np.random.default_rng(1))
    task = {"decoder": "lm", "encoder-decoder": "t5"}.get(
        config.kind, "encode" if config.output == "none" else "roberta"
    )
    return replace(run, config=replace(run.config, task=task, model=config), model=model)


def shaken(part: Any, rng: np.random.Generator) -> Any:
    if isinstance(part, np.ndarray):
        return (part + 0.3 * rng.standard_normal(part.shape)).astype(np.float32)
    if isinstance(part, tuple):
        return tuple(shaken(x, rng) for x in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{f.name: shaken(getattr(part, f.name), rng) for f in fields(part)})
    return part


def tokens_for(config: ModelConfig) -> dict[str, np.ndarray]:
    return {"source": IDS, "target": IDS[:, :7]} if config.kind == "encoder-decoder" else {"tokens": IDS}


def traced(config: ModelConfig) -> tuple[LoadedRun, Trace]:
    run = loaded(config)
    return run, trace(run, tokens_for(config), kept=everything)


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[LoadedRun, Trace]:
    return traced(MODELS[request.param])


def test_logits_are_those_of_the_model_bit_for_bit(pair: tuple[LoadedRun, Trace]) -> None:
    run, found = pair
    model = run.model
    if isinstance(model, EncoderDecoder):
        assert np.array_equal(found.arrays["logits"], model(IDS, IDS[:, :7]))
        return
    assert isinstance(model, LanguageModel)
    hidden = model.hidden(IDS)
    if model.output_scale is None:
        assert "logits" not in found.arrays
        assert np.array_equal(found.arrays["stack.norm"], hidden)
    else:
        assert np.array_equal(found.arrays["logits"], model.logits(hidden))
    if model.pooler is not None:
        assert np.array_equal(found.arrays["pooler.classifier"], model.pooler(hidden))


def test_the_residual_stream_is_the_sum_of_its_parts(pair: tuple[LoadedRun, Trace]) -> None:
    run, found = pair
    model, a = run.config.model, found.arrays
    if model.depth == "reversible" or model.memory != "none":
        return  # two streams, or pieces of one: no single sum
    encoder_decoder = model.kind == "encoder-decoder"
    stacks = [("encoder", "source"), ("decoder", "target")] if encoder_decoder else [("stack", "input")]
    for stack, x_name in stacks:
        x = a[x_name]
        for i in range(model.layers):
            layer = f"{stack}.layers.{i}"
            parts = [("attention", "attention.output"), ("feed_forward", "feed_forward.down")]
            if stack == "decoder":
                parts.insert(1, ("cross", "cross.output"))
            for norm, (name, added) in enumerate(parts):
                before = x
                x = x + a[f"{layer}.{added}"]
                if model.norm == "post":
                    assert np.array_equal(a[f"{layer}.{name}_norm.input"], x)
                    x = a[f"{layer}.{name}_norm"]
                elif norm:
                    assert np.array_equal(a[f"{layer}.{name}_norm.input"], before)
            assert np.array_equal(a[layer], x)


def test_each_record_says_what_it_is_and_where_it_is_computed(pair: tuple[LoadedRun, Trace]) -> None:
    _, found = pair
    names = [r.name for r in found.records]
    assert len(names) == len(set(names))
    assert set(names) == set(found.arrays)
    for r in found.records:
        assert r.equation, r.name
        assert set(r.equation.split(", ")) <= SPECS, r
        file, _, line = r.code.rpartition(":")
        assert re.match(r"\s*(@|def )", (ROOT / file).read_text("utf-8").splitlines()[int(line) - 1]), r
        x = found.arrays[r.name]
        assert (x.shape, str(x.dtype)) == (r.shape, r.dtype)
        assert r.statistics.checksum == f"{zlib.crc32(np.ascontiguousarray(x)):08x}"
        finite = x[np.isfinite(x)].astype(np.float64)
        assert r.statistics.least == finite.min()
        assert r.statistics.rms == pytest.approx(np.sqrt((finite**2).mean()), rel=1e-12)
        assert r.statistics.nonfinite == 0  # hidden scores do not count


def test_the_map_is_that_of_the_heads(pair: tuple[LoadedRun, Trace]) -> None:
    """weights @ values are the heads' outputs that the kernel gave, and softmax(scores) the weights."""
    _, found = pair
    checked = 0
    for name, weights in found.arrays.items():
        stem, _, last = name.partition(".weights")
        if "." not in stem or not name.endswith(f".weights{last}"):
            continue
        values = found.arrays[f"{stem}.values{last}"]
        values = np.repeat(values, weights.shape[1] // values.shape[1], axis=1)
        np.testing.assert_allclose(weights @ values, found.arrays[f"{stem}.heads{last}"], atol=2e-5)
        scores = found.arrays[f"{stem}.scores{last}"].astype(np.float64)
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(weights, e / e.sum(axis=-1, keepdims=True), atol=1e-5)
        assert ((scores == -np.inf) <= (weights == 0)).all()
        checked += 1
    assert checked >= 2


def test_equations_follow_the_settings() -> None:
    def of(name: str, end: str) -> str:
        return next(r.equation for r in traced(MODELS[name])[1].records if r.name.endswith(end))

    assert of("as Llama", "0.attention.queries") == "eq:rotary, eq:yarn"
    assert of("part of a head turned", "0.attention.keys") == "eq:partial-rotary"
    assert of("as Llama", "feed_forward.hidden") == "eq:swiglu"
    assert of("post-norm, learned", "feed_forward.hidden") == "eq:relu"
    assert of("as T5", "decoder.layers.0.cross.scores") == "eq:attention"
    assert of("as T5", "encoder.layers.0.attention.scores") == "eq:biased-attention"
    assert of("as Llama", "attention.query") == "eq:linear"
    assert (of("rotary", "input"), of("as Llama", "input"), of("as BERT", "input")) == (
        "eq:input", "eq:plain-input", "eq:normed-input",
    )  # fmt: skip


def test_low_bit_layers_are_recorded_as_they_are() -> None:
    run = loaded(replace(MODELS["rotary"], width=32))
    layer: Any = run.model.stack.layers[0]
    up = LowBitLinear(LowBit.encode(layer.feed_forward.up.weight.T, "Q8_0"), None)  # type: ignore[arg-type]
    table = LowBitEmbedding(LowBit.encode(run.model.input.tokens.table, "Q8_0"))  # type: ignore[arg-type]
    layer = replace(layer, feed_forward=replace(layer.feed_forward, up=up))
    model = replace(
        run.model,
        stack=replace(run.model.stack, layers=(layer,)),
        input=replace(run.model.input, tokens=table),
    )
    found = trace(replace(run, model=model), {"tokens": IDS}, kept=everything)
    assert np.array_equal(found.arrays["logits"], model(IDS))
    equations = {r.name: r.equation for r in found.records}
    assert equations["input.tokens"] == "eq:embedding"
    assert equations["stack.layers.0.feed_forward.up"] == "eq:low-bit-product"


def test_a_model_that_reads_in_pieces_is_recorded_piece_by_piece() -> None:
    names = [r.name for r in traced(MODELS["segments, xl"])[1].records]
    assert [n for n in names if n.startswith("stack.layers.0.attention.heads")] == [
        "stack.layers.0.attention.heads", "stack.layers.0.attention.heads#2", "stack.layers.0.attention.heads#3",
    ]  # fmt: skip


def test_the_map_of_some_rows_at_a_time_is_the_whole() -> None:
    """Under every kind of mask and bias, and with key heads that are shared."""
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal(s) for s in ((2, 4, 5, 3), (2, 2, 7, 3), (2, 2, 7, 7)))
    v[:] = np.eye(7)
    mask = Mask(
        causal=True, window=4, sinks=1, offset=2, key_lengths=np.array([7, 6]), segments=rng.integers(0, 2, (2, 7))
    )
    biases = (None, DistanceBias(rng.standard_normal((4, 6)), -2), *(
        rng.standard_normal(s) for s in ((5, 7), (4, 1, 7), (1, 4, 5, 7), (2, 1, 5, 7))
    ))  # fmt: skip
    for bias in biases:
        for area in (1, 14, 1000):
            found = np.zeros((2, 4, 5, 7))
            for place, _, weights, _ in map_rows(q, k, mask, 0.7, bias, area):
                found[place] = weights
            np.testing.assert_allclose(found, naive(q, k, v, mask=mask, scale=0.7, bias=bias), atol=1e-12)


def test_statistics_do_not_depend_on_how_the_array_is_cut() -> None:
    x = np.random.default_rng(4).standard_normal((5, 7)).astype(np.float32)
    x[1, 2], x[3, 3] = np.nan, np.inf
    tally = Tally()
    for row in x:
        tally.add(row)
    whole, cut = Statistics.of(x), tally.result()
    assert (whole.least, whole.greatest, whole.nonfinite, whole.checksum) == (
        cut.least, cut.greatest, 2, cut.checksum,
    )  # fmt: skip
    assert whole.rms == pytest.approx(cut.rms, rel=1e-12)
    assert Statistics.of(x.T).checksum != whole.checksum == Statistics.of(np.asfortranarray(x)).checksum
    assert Statistics.of(np.full(3, np.nan)).mean is None


def test_a_difference_is_measured_by_its_row() -> None:
    theirs = np.array([[1000.0, 1000.0], [1.0, 1.0], [1.0, 0.0]])
    ours = theirs.copy()
    ours[0, 1] += 0.05
    assert not difference("x", ours, theirs, TOLERANCE).diverges
    ours[1, 0] += 0.05
    found = difference("x", ours[None], theirs, TOLERANCE)
    assert found.diverges
    assert found.excess == pytest.approx(0.05 / TOLERANCE)
    assert found.index[0] == 0
    assert len(found.index) == 3
    assert difference("x", ours[:2], theirs, TOLERANCE).excess == np.inf
    hidden = np.array([-np.inf, np.nan, 1.0])
    assert not difference("x", hidden, hidden.copy(), TOLERANCE).diverges
    assert difference("x", np.array([-np.inf, 0.0, 1.0]), hidden, TOLERANCE).diverges
    assert difference("x", np.array([np.inf, np.nan, 1.0]), hidden, TOLERANCE).diverges


def planted(model: LanguageModel, where: str) -> LanguageModel:
    """The model with a mistake in its second layer."""
    stack: Any = model.stack
    first, layer = stack.layers
    if where == "weight":
        weight = layer.feed_forward.up.weight.copy()
        weight[2, 5] *= 1.05
        layer = replace(
            layer, feed_forward=replace(layer.feed_forward, up=replace(layer.feed_forward.up, weight=weight))
        )
    elif where == "eps":
        layer = replace(layer, attention_norm=replace(layer.attention_norm, eps=1e-2))
    else:
        layer = replace(layer, attention=replace(layer.attention, query=layer.attention.key, key=layer.attention.query))
    return replace(model, stack=replace(stack, layers=(first, layer)))


@pytest.mark.parametrize(
    "where, name", [("weight", "feed_forward.up"), ("eps", "attention_norm"), ("swapped", "attention.query")]
)
def test_the_first_divergence_is_the_layer_with_the_mistake(where: str, name: str) -> None:
    run, right = traced(MODELS["rotary"])
    wrong = trace(replace(run, model=planted(run.model, where)), {"tokens": IDS}, kept=everything)
    found = first_divergence(compare(wrong.records, wrong.arrays, right.arrays, TOLERANCE))
    assert found is not None
    assert found.name == f"stack.layers.1.{name}"
    a, b = wrong.arrays[found.name], right.arrays[found.name]
    assert found.pair == (a[found.index], b[found.index])
    assert found.difference == np.abs(a.astype(np.float64) - b).max()
    same = trace(run, {"tokens": IDS}, kept=everything)
    assert first_divergence(compare(same.records, same.arrays, right.arrays, 0.0)) is None


def test_only_what_is_wanted_is_recorded() -> None:
    run = loaded(MODELS["rotary"])
    found = trace(run, {"tokens": IDS}, wanted=choice(["*.attention.weights", "*.up"], [1]))
    assert [r.name for r in found.records] == ["stack.layers.1.attention.weights", "stack.layers.1.feed_forward.up"]
    assert not found.arrays
    assert choice((), (1,))("stack.layers.11.attention") is False


def test_the_picture_has_a_line_for_the_stream_and_for_each_part() -> None:
    _, found = traced(MODELS["as T5"])
    lines = stream_lines(found.records)
    assert set(lines) == {
        "encoder, stream", "encoder, attention", "encoder, feed-forward", "decoder, stream", "decoder, attention",
        "decoder, feed-forward", "decoder, cross-attention",
    }  # fmt: skip
    rms = np.sqrt((found.arrays["decoder.layers.1"].astype(np.float64) ** 2).mean())
    assert lines["decoder, stream"][1] == (1, pytest.approx(rms))


def test_a_prompt_is_read_as_its_commands_read_it() -> None:
    run = untrained(lm(Path("book.txt")), TEXT)
    assert tokens_of(run, "the fox")["tokens"].tolist() == [run.tokenizer.encode("the fox").tolist()]
    pairs = untrained(copy(), "")
    found = tokens_of(pairs, "abc", "ab")
    assert found["source"].shape == (1, 3)
    assert found["target"][0].tolist() == [pairs.tokenizer.bos, *pairs.tokenizer.encode("ab")]
    encoder = replace(run, config=loaded(MODELS["as BERT"]).config)
    assert tokens_of(encoder, "fox")["tokens"][0].tolist() == [1, *run.tokenizer.encode("fox"), 3]
    for prompt, target, line in (
        ("", "", "no token"),
        ("the quick brown fox", "", "this run reads 8 at once"),
        ("fox", "x", "--target belongs to an encoder-decoder"),
    ):
        with pytest.raises(UserError, match=line):
            tokens_of(run, prompt, target)
