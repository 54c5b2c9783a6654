"""Configuration: exact round trip, strict types, one line for every mistake, and the order of layers."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilong.errors import UserError
from minilong.models.config import GATED, ModelConfig
from minilong.models.fields import Rule
from minilong.train.config import (
    FILLING_TASKS,
    KIND_OF_TASK,
    LEAST_CONTEXT,
    RULES,
    TEXTLESS,
    DataConfig,
    RunConfig,
    TrainConfig,
    available_threads,
    dump_toml,
    full_key,
)
from minilong.train.presets import layered, parse_assignment, preset, preset_names, read_preset

plain_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def strategy(key: str, rule: Rule, kind: str) -> st.SearchStrategy[Any]:
    """Every value that a rule admits."""
    if rule.choices:
        return st.sampled_from(rule.choices)
    if kind == "bool":
        return st.booleans()
    if kind == "int":
        least = None if rule.least is None else int(rule.least)
        return st.integers(least, None if rule.most is None else int(rule.most))
    if kind == "float":
        low = rule.above if rule.above is not None else rule.least
        high = rule.below if rule.below is not None else rule.most
        opened, closed = rule.above is not None, rule.below is not None
        return st.floats(low, high, allow_nan=False, allow_infinity=False, exclude_min=opened, exclude_max=closed)
    return st.lists(plain_text, max_size=3).map(tuple)


@st.composite
def runs(draw: st.DrawFn) -> RunConfig:
    """Valid runs over the whole space of every key, with the conditions between keys repaired."""
    sections: dict[str, Any] = {}
    for name, kind in (("data", DataConfig), ("model", ModelConfig), ("train", TrainConfig)):
        sections[name] = {
            entry.name: draw(strategy(entry.name, RULES[f"{name}.{entry.name}"], str(entry.type)))
            for entry in fields(kind)
        }
    task = draw(st.sampled_from(sorted(KIND_OF_TASK)))
    data, model, train = sections["data"], sections["model"], sections["train"]
    model["kind"] = KIND_OF_TASK[task]
    model["heads"] = draw(st.integers(1, 64))
    model["width"] = model["heads"] * 2 * draw(st.integers(1, 64))
    model["kv_heads"] = draw(st.sampled_from([0, 1, model["heads"]]))
    data["min_length"], data["max_length"] = sorted((data["min_length"], data["max_length"]))
    if task != "lm":
        model["context"] = draw(st.integers(LEAST_CONTEXT if task in FILLING_TASKS else 2, 10**9))
        data["max_length"] = min(data["max_length"], model["context"] - 1)
        data["min_length"] = min(data["min_length"], data["max_length"])
    if task in TEXTLESS:
        data["text"] = ()
    data["length"] = min(data["length"], model["context"]) if task == "lm" else 0
    repair_stream(model)
    train["accumulate"] = min(train["accumulate"], train["batch"])
    return RunConfig(task, DataConfig(**data), ModelConfig(**model), TrainConfig(**train))


def repair_stream(model: dict[str, Any]) -> None:
    """Make what a model remembers, its positions and its depth fit together."""
    if model["kind"] != "decoder":
        model |= {"window": 0, "memory": "none"}
    if model["kind"] != "encoder":
        model |= {"types": 0, "output": "plain", "pooler": False}
    if model["activation"] in GATED and model["output"] == "transform":
        model["output"] = "plain"
    if model["output"] == "none":
        model |= {"tied": True, "output_scale": 1.0}
    if not model["bias"]:
        model["biases"] = "all"
    if model["position"] != "rotary" or model["rope_layout"] != "interleaved":
        model["rope_share"] = 1.0
    if model["rope_share"] < 1:
        model |= {"head_width": 4 * max(1, model["head_width"] // 4), "rope_share": 0.5}
    model["head_width"] += model["head_width"] % 2
    if model["memory"] != "none":
        model |= {"window": 0, "depth": "stored"}
        if model["position"] in ("sinusoidal", "cas", "learned"):
            model["position"] = "rotary"
    if model["memory"] == "compressive":
        model["compression"] = min(model["compression"], 1000)
        model |= {"segment": 3 * model["compression"], "memory_length": 2 * model["compression"]}
        model["position"] = "alibi" if model["position"] == "xl" else model["position"]
    if not model["window"]:
        model["sinks"] = 0
    if model["depth"] in ("reversible", "momentum"):
        model["norm"] = "pre"
    if model["position"] == "xl":
        model["attention"] = "auto"
    streaming = model["window"] or model["memory"] != "none"
    short = (model["rope_context"] or model["context"]) < 7
    if model["position"] != "rotary" or (streaming and model["rope_scaling"] == "dynamic") or short:
        model["rope_scaling"] = "none"


@given(runs())
def test_toml_round_trip_is_exact(run: RunConfig) -> None:
    assert RunConfig.from_toml(run.to_toml()) == run
    assert RunConfig.from_toml(run.resolved().to_toml()) == run.resolved() == run.resolved().resolved()


values = st.one_of(plain_text, st.integers(), st.booleans(), st.floats(allow_nan=False), st.lists(plain_text))


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), values),
    st.dictionaries(st.from_regex(r"[A-Z]{1,8}", fullmatch=True), st.dictionaries(st.just("key"), values)),
)
def test_writer_agrees_with_the_standard_parser(plain: dict[str, Any], tables: dict[str, Any]) -> None:
    table = plain | tables
    read = tomllib.loads(dump_toml(table))
    assert read == table
    assert all(type(read[key]) is type(value) for key, value in table.items())


def test_strings_with_every_ascii_character_round_trip() -> None:
    table = {"text": "".join(map(chr, range(128))) + "\u0085\u2028\U0001f600"}
    assert tomllib.loads(dump_toml(table)) == table


def test_writer_refuses_what_a_configuration_does_not_hold() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        dump_toml({"key": None})


def flat(run: RunConfig) -> dict[str, Any]:
    nested = run.to_dict()
    return {"task": nested["task"]} | {
        f"{section}.{name}": value for section in ("data", "model", "train") for name, value in nested[section].items()
    }


@pytest.mark.parametrize("key", RULES)
def test_every_key_has_a_meaning_and_refuses_wrong_types(key: str) -> None:
    assert RULES[key].about
    right = flat(RunConfig())[key]
    # An integer passes for a number and one string for a list of them; everything else is refused.
    wrong: list[Any] = [None, {"a": 1}, [1, 2]]
    if not isinstance(right, bool):
        wrong.append(True)
    if not isinstance(right, (str, list)):
        wrong.append("four")
    if not isinstance(right, (int, float)) or isinstance(right, bool):
        wrong.append(4)
    if isinstance(right, int):
        wrong.append(4.0)
    for value in wrong:
        with pytest.raises(UserError) as caught:
            RunConfig.from_flat({key: value})
        message = str(caught.value)
        assert message.startswith(f"{key} must be ")
        assert "; " in message
        assert "\n" not in message


@pytest.mark.parametrize("key", [key for key, rule in RULES.items() if rule.least is not None or rule.most is not None])
def test_bounds_belong_to_the_range(key: str) -> None:
    rule = RULES[key]
    if rule.least is not None:
        assert rule.refusal(rule.least) is None
        assert f"choose {rule.least} or more" in str(rule.refusal(rule.least - 1))
    if rule.most is not None:
        assert rule.refusal(rule.most) is None
        assert f"choose {rule.most} or less" in str(rule.refusal(rule.most + 1))


def test_an_integer_is_stored_as_a_number_where_a_number_is_meant() -> None:
    assert type(TrainConfig(lr=1).lr) is float


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"model.heads": 5}, "model.heads is 5, which does not divide model.width 128; choose 4 or 8 heads"),
    ({"model.heads": 300}, "model.heads is 300, which does not divide model.width 128; choose 128 heads"),
    ({"model.kv_heads": 3}, "model.kv_heads is 3, which does not divide model.heads 4; choose 2 or 4"),
    ({"model.width": 12}, "model.position is 'rotary'.* a head is 3 wide .model.width 12 / model.heads 4.; choose"),
    ({"model.head_width": 7}, "model.position is 'rotary'.* a head is 7 wide .model.head_width.; choose sizes"),
    ({"model.rope_share": 0.5, "model.position": "alibi"}, "model.rope_share is 0.5, but model.position is 'alibi'"),
    ({"model.rope_share": 0.1}, "model.rope_share is 0.1, which turns 3 of a head's 32 components, but"),
    ({"model.rope_share": 0.01}, "model.rope_share is 0.01, which turns 0 of a head's 32 components, but"),
    ({"model.rope_share": 0.5, "model.rope_layout": "half"}, "model.rope_share is 0.5, .*rope_layout is 'half'; set"),
    ({"model.rope_share": 1.5}, "model.rope_share is 1.5; choose 1 or less"),
    (
        {"model.biases": "qkv", "model.bias": False},
        "model.biases is 'qkv', but model.bias is false, .*; set model.bias",
    ),
    ({"model.output_scale": 0.0}, "model.output_scale is 0.0; choose a value above 0"),
    ({"model.norm_eps": 1.0}, "model.norm_eps is 1.0; choose a value below 1"),
    ({"model.output": "none"}, "model.output belongs to an encoder, but model.kind is 'decoder'; leave it out"),
    (
        {"task": "roberta", "model.kind": "encoder", "model.output": "none", "model.tied": False},
        "model.output is 'none', .* but model.tied is false; set model.tied = true",
    ),
    (
        {"task": "roberta", "model.kind": "encoder", "model.output": "none", "model.output_scale": 2.0},
        "model.output_scale is 2, but model.output is 'none', .*; leave it out",
    ),
    (
        {"task": "roberta", "model.kind": "encoder", "model.output": "transform", "model.activation": "geglu"},
        "needs a plain function, but model.activation is 'geglu'; choose gelu",
    ),
    ({"model.position": "sinusoidal", "model.width": 9, "model.heads": 3}, "model.width is 9; choose an even width"),
    ({"model.position": "rotray"}, "model.position is 'rotray'; choose one of .*did you mean 'rotary'"),
    ({"model.layers": 0}, "model.layers is 0; choose 1 or more"),
    ({"model.dropout": 1.0}, "model.dropout is 1.0; choose a value below 1"),
    ({"model.context": 2 * 10**9}, "model.context is 2000000000; choose 1000000000 or less"),
    ({"train.lr": 0.0}, "train.lr is 0.0; choose a value above 0"),
    ({"train.lr": float("nan")}, "train.lr is nan; choose a finite number"),
    ({"train.lr": float("inf")}, "train.lr is inf; choose a finite number"),
    ({"train.lr": 10**400}, "train.lr is larger than any floating-point number; choose a smaller one"),
    ({"train.accumulate": 17}, "train.accumulate 17 is above train.batch 16; .*lower it"),
    ({"data.validation": 0.0}, "data.validation is 0.0; choose a value above 0"),
    ({"data.min_length": 65}, "data.min_length 65 is above data.max_length 64; lower"),
    ({"data.text": ["\ud800"]}, "data.text is .* not valid Unicode; rename"),
    ({"data.text": ["a\0b"]}, "data.text is .* NUL character; leave it out"),
    ({"data.text": ["x" * 99 + "\0"]}, r"data.text is 'x{56}\.\.\., which"),
    ({"task": "lmm"}, "task is 'lmm'; choose one of .*did you mean 'lm'"),
    ({"task": "copy"}, "model.kind is 'decoder', but task 'copy' needs 'encoder-decoder'; set model.kind"),
    (
        {"task": "copy", "model.kind": "encoder-decoder", "data.text": "a.txt"},
        "generates its data, .*leave out the text",
    ),
    (
        {"task": "translate", "model.kind": "encoder-decoder", "model.context": 64},
        "data.max_length is 64, .* model.context 64; set model.context = 65, or lower",
    ),
    ({"heds": 3}, "unknown key 'heds' .did you mean 'heads'..; `minilong info --keys`"),
    ({"model.heds": 3}, "unknown key 'model.heds' .did you mean 'model.heads'..;"),
    ({"train.layers": 3}, "unknown key 'train.layers' .did you mean"),
    ({"": 3}, "unknown key ''; "),
]


@pytest.mark.parametrize(("values", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_mistakes_name_key_fact_and_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        RunConfig.from_flat(values)
    assert "\n" not in str(caught.value)


def test_derived_sizes() -> None:
    model = ModelConfig(width=96, heads=6).resolved()
    assert (model.kv_heads, model.feed_forward, model.head_width) == (6, 384, 16)
    assert ModelConfig(width=96, heads=6, kv_heads=2, feed_forward=7).resolved().feed_forward == 7
    assert ModelConfig(width=96, heads=6, activation="swiglu").resolved().feed_forward == 256
    assert ModelConfig(width=100, heads=2, activation="swiglu").resolved().feed_forward == 272  # 266.7 upwards
    assert RunConfig().resolved().train.threads == available_threads()
    assert 1 <= available_threads() <= 8


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("heads = 4\n", "", 1), "config.toml: key 'model.heads' is missing; "),
        (lambda text: text.replace("layers = 4", "layers = -4"), "config.toml: model.layers is -4; "),
        (lambda text: text.replace("layers = 4", "layers = four"), "config.toml is not valid TOML: .*line .*; mend"),
        (
            lambda text: text.replace("layers = 4", "layerz = 4"),
            "config.toml: unknown key 'model.layerz' .did you mean",
        ),
        (lambda text: "layers = 3\n" + text, "config.toml: key 'model.layers' is given twice; "),
        (lambda text: text + "[extra]\nkey = 1\n", "config.toml: unknown key 'extra.key'"),
        (lambda text: "x = " + "[" * 100_000, "config.toml is not valid TOML"),
    ],
)
def test_a_damaged_document_is_named(edit: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunConfig.from_toml(edit(RunConfig().to_toml()))


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_described(name: str) -> None:
    run = preset(name)
    assert RunConfig.from_toml(run.to_toml()) == run
    assert len(read_preset(name)[0]) > 10
    assert run.train.warmup < run.train.steps


def test_the_presets_that_the_documentation_names_are_there() -> None:
    assert {"small", "medium", "tiny", "translate", "copy", "reverse"} <= set(preset_names())
    with pytest.raises(UserError, match=r"no preset 'smal' .did you mean 'small'..; choose one of"):
        read_preset("smal")


def test_each_layer_overrules_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[train]\nlr = 0.25\nbatch = 3\nseed = 5\n")
    assert TrainConfig().batch != preset("translate").train.batch != 3
    run = layered(preset="tiny", file=file, options={"train.batch": 4, "seed": 6}, assignments=["seed=7"])
    assert (run.model.width, run.train.lr, run.train.batch, run.train.seed) == (32, 0.25, 4, 7)


def test_the_task_chooses_preset_kind_and_text() -> None:
    assert layered() == preset("small")
    assert layered(options={"task": "copy"}) == preset("copy")
    assert layered(assignments=["task=reverse"]).task == "reverse"
    copy = layered(preset="tiny", options={"task": "copy"})
    assert (copy.model.kind, copy.data.text, copy.data.max_length) == ("encoder-decoder", (), 31)
    with pytest.raises(UserError, match=r"task is 'cpoy'.*did you mean 'copy'"):
        layered(options={"task": "cpoy"})


def test_warm_up_shrinks_with_fewer_steps_unless_it_is_given() -> None:
    assert layered(options={"steps": 50}).train.warmup == 5
    assert layered(options={"steps": 10**6}).train.warmup == preset("small").train.warmup
    assert layered(options={"steps": 50, "warmup": 40}).train.warmup == 40
    with pytest.raises(UserError, match=r"train.steps is -5; choose 1 or more"):
        layered(options={"steps": -5})


def test_a_resolved_run_is_a_configuration_file(tmp_path: Path) -> None:
    run = replace(preset("tiny"), train=replace(preset("tiny").train, seed=99))
    (tmp_path / "config.toml").write_text(run.to_toml())
    assert layered(file=tmp_path / "config.toml") == run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no configuration file '.*run.tml' .did you mean 'run.toml'..; give the path"),
        (b"\xff\xfe", "is not UTF-8 text .byte 0.; save it as UTF-8"),
        (b"layers = ", "is not valid TOML: "),
        (b"layers = 0", "run.tml: model.layers is 0; choose"),
    ],
)
def test_configuration_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    (tmp_path / "run.toml").write_bytes(b"")
    if content is not None:
        (tmp_path / "run.tml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        layered(file=tmp_path / "run.tml")


def test_a_mistake_is_blamed_on_the_file_only_where_it_is_made_there(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("layers = 3\nwidth = 64\n")
    with pytest.raises(UserError, match=r"^model\.layers is 0; choose"):
        layered(file=tmp_path / "run.toml", assignments=["layers=0"])
    with pytest.raises(UserError, match=r"^model\.heads is 5"):
        layered(file=tmp_path / "run.toml", assignments=["heads=5"])


def test_a_folder_is_no_configuration_file_and_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory; give the path"):
        layered(file=tmp_path)
    (tmp_path / "bom.toml").write_text("layers = 3\n", encoding="utf-8-sig")
    assert layered(file=tmp_path / "bom.toml").model.layers == 3


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("layers=6", "model.layers", 6),
        (" model.layers = 6 ", "model.layers", 6),
        ("lr=1e-3", "train.lr", 1e-3),
        ("tied=false", "model.tied", False),
        ("position=rotary", "model.position", "rotary"),
        ('position="rotary"', "model.position", "rotary"),
        ('text=["a.txt", "b.txt"]', "data.text", ["a.txt", "b.txt"]),
        ("text=my book = 1.txt", "data.text", "my book = 1.txt"),
        ("text=1979-05-27", "data.text", "1979-05-27"),
        ("text=1\nseed = 2", "data.text", "1\nseed = 2"),
        ("layers=", "model.layers", ""),
    ],
)
def test_assignments_are_toml_or_bare_words(text: str, key: str, value: Any) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["layers", "=6", " =6", ""])
def test_assignments_need_a_key_and_an_equals_sign(text: str) -> None:
    with pytest.raises(UserError, match="is not of the form key=value; write"):
        parse_assignment(text)


@given(st.text(max_size=30))
def test_any_text_for_a_key_is_taken_as_it_is_or_as_toml(text: str) -> None:
    key, value = parse_assignment(f"text={text}")
    assert key == "data.text"
    assert value == text.strip() or tomllib.loads(f"value = {text.strip()}") == {"value": value}


@given(st.text(max_size=30).filter(lambda text: text.strip() and text.strip() not in RULES and "=" not in text))
def test_an_unknown_key_is_one_line(text: str) -> None:
    known = {key.rpartition(".")[2] for key in RULES}
    if text.strip() not in known:
        with pytest.raises(UserError, match=r"\Aunknown key [^\n]*\Z"):
            parse_assignment(f"{text}=1")


def test_short_keys_are_the_last_part_of_full_ones() -> None:
    for key in RULES:
        assert full_key(key) == full_key(key.rpartition(".")[2]) == key
