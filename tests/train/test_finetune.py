"""Fine-tuning by adapters and as a whole: the base untouched, stops that leave no trace, the merged model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_faults import memory_folder
from tiny_runs import TEXT, Stop, cheap, complete, content_of, differing, ignore, interrupted, lm, never, train

from minilong.autodiff.tree import named
from minilong.errors import UserError
from minilong.nn.lora import attach
from minilong.train import checkpoint as ck
from minilong.train import finetune
from minilong.train.adapters import ABOUT, ADAPTER
from minilong.train.config import RunConfig
from minilong.train.evaluate import evaluate
from minilong.train.finetune import AdapterSession, Adapting, settings_for, start_adapters, start_full
from minilong.train.generate import generate
from minilong.train.loaded import load
from minilong.train.run import RunFolder
from minilong.train.session import Session

OTHER = "pack my box with five dozen liquor jugs; how vexingly quick daft zebras jump.\n" * 9
SMALL: dict[str, Any] = {
    "train.steps": 6, "train.batch": 4, "train.eval_every": 2, "train.save_every": 3, "train.log_every": 1,
    "train.threads": 1, "train.lr": 1e-2, "data.length": 8,
}  # fmt: skip
ALL = Adapting(rank=2, alpha=4.0, targets=())


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory with a trained run `base` and another text."""
    with memory_folder() as path, cheap():
        (path / "book.txt").write_text(TEXT)
        (path / "other.txt").write_text(OTHER)
        train(lm(path / "book.txt", model__activation="swiglu"), path / "base")
        train(lm(path / "book.txt", model__dropout=0.1, model__layers=11, model__width=4), path / "deep")
        yield path


def config(folder: Path, *, full: bool = False, base: str = "base", **given: Any) -> RunConfig:
    changes = {key.replace("__", "."): value for key, value in given.items()}
    return settings_for(folder / base, (str(folder / "other.txt"),), full=full, given=SMALL | changes)


def started(folder: Path, out: str, adapting: Adapting = ALL, **given: Any) -> AdapterSession:
    return start_adapters(folder / given.pop("base", "base"), config(folder, **given), adapting, folder / out)


def everything(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_adapters_learn_and_the_base_stays_as_it_was(folder: Path) -> None:
    before = everything(folder / "base")
    outcome = started(folder, "learnt", train__steps=60, train__eval_every=20).run(ignore, never)
    assert outcome.validation_loss is not None
    assert outcome.first_validation is not None
    assert outcome.validation_loss < outcome.first_validation - 0.05
    assert everything(folder / "base") == before
    with RunFolder.open(folder / "learnt") as run:
        assert {ABOUT, ADAPTER, "best_adapter.safetensors"} < set(run.files)
        assert ck.MODEL not in run.files
    assert (folder / "learnt" / ADAPTER).stat().st_size < (folder / "base" / ck.MODEL).stat().st_size


def test_the_first_loss_is_that_of_the_base(folder: Path) -> None:
    session = started(folder, "first")
    with session.workers() as workers:
        adapted = session.mean_loss(workers, session.source.validation)
    held_out = OTHER[int(len(OTHER) * 0.9) :]
    assert adapted == pytest.approx(evaluate(load(folder / "base"), held_out).nats_per_token, rel=0.05)
    outcome = session.run(ignore, never)
    assert outcome.first_validation == adapted


def test_the_merged_model_equals_the_adapter_model(folder: Path) -> None:
    session = started(folder, "merged", train__eval_every=100)
    session.run(ignore, never)
    tokens = np.arange(4, 12, dtype=np.int32)[None]
    base = load(folder / "base")
    adapted = attach(base.model, session.model, ALL.alpha)(tokens)
    merged = load(folder / "merged", "last").model(tokens)
    assert np.abs(merged - base.model(tokens)).max() > 1e-3
    np.testing.assert_allclose(merged, adapted, rtol=0, atol=2e-6)


def test_only_adapted_layers_are_new_arrays(folder: Path) -> None:
    started(folder, "some", Adapting(2, 4.0, ("query", "down"))).run(ignore, never)
    base, merged = named(load(folder / "base").model), named(load(folder / "some", "last").model)
    changed = {name for name in base if not np.array_equal(base[name], merged[name])}
    assert changed == {
        f"stack.layers.{layer}.{name}.weight" for layer in (0, 1) for name in ("attention.query", "feed_forward.down")
    }


@settings(max_examples=6)
@given(
    stops=st.lists(
        st.builds(Stop, st.integers(0, 7), st.sampled_from(["between", "gradient", "validation", "crash"])),
        min_size=1,
        max_size=3,
    ),
    threads=st.integers(1, 2),
)
def test_a_resumed_fine_tuning_is_the_one_that_never_stopped(folder: Path, stops: list[Stop], threads: int) -> None:
    """Eleven layers: sorted by name, layer 10 comes before layer 2."""
    run, stopped = config(folder, base="deep", train__threads=threads), folder / "stopped"
    whole = folder / f"whole-{threads}"
    if not whole.exists():
        start_adapters(folder / "deep", run, ALL, whole).run(ignore, never)
    session: Session = start_adapters(folder / "deep", run, ALL, stopped, replace_run=True)
    for stop in stops:
        if not interrupted(session, stop):
            break
        if session.folder is None or session.folder.step is None:
            return  # stopped before anything was saved
        if complete(stopped):
            break
        session = finetune.resume(stopped)
    else:
        assert not session.run(ignore, never).interrupted
    assert differing(whole, stopped) == []


def test_a_whole_fine_tuning_is_a_run_like_any_other(folder: Path) -> None:
    before = everything(folder / "base")
    out = folder / "full"
    outcome = start_full(folder / "base", config(folder, full=True, train__lr=1e-2), out).run(ignore, never)
    assert outcome.first_validation is not None
    assert outcome.validation_loss is not None
    assert outcome.validation_loss < outcome.first_validation
    assert everything(folder / "base") == before
    longer = finetune.resume(out, steps=8)
    assert type(longer) is not AdapterSession
    assert longer.run(ignore, never).step == 8
    assert "".join(generate(load(out), "pack", length=5))


def test_adapters_of_adapters(folder: Path) -> None:
    started(folder, "one").run(ignore, never)
    started(folder, "two", base="one").run(ignore, never)
    tokens = np.arange(4, 12, dtype=np.int32)[None]
    models = [load(folder / name).model(tokens) for name in ("base", "one", "two")]
    assert np.abs(models[1] - models[0]).max() > 0
    assert np.abs(models[2] - models[1]).max() > 0


def test_a_base_that_was_moved_with_its_adapters_is_found(folder: Path) -> None:
    (folder / "here").mkdir()
    train(lm(folder / "book.txt"), folder / "here" / "base")
    start_adapters(folder / "here" / "base", config(folder, base="here/base"), ALL, folder / "here" / "tuned").run(
        ignore, never
    )
    (folder / "here").rename(folder / "there")
    assert load(folder / "there" / "tuned").step > 0


def test_a_base_that_learnt_on_or_is_gone_is_refused(folder: Path) -> None:
    train(lm(folder / "book.txt"), folder / "learns")
    started(folder, "of-learns", base="learns").run(ignore, never)
    kept = everything(folder / "learns")
    longer = finetune.resume(folder / "learns", steps=30)
    longer.run(ignore, never)
    message = "of-learns adapts the run .*learns, which is gone or has other weights than it had; put it back there"
    with pytest.raises(UserError, match=message):
        load(folder / "of-learns")
    with pytest.raises(UserError, match=message):
        finetune.resume(folder / "of-learns", steps=9)
    for name, data in kept.items():
        (folder / "learns" / name).write_bytes(data)
    load(folder / "of-learns")


@pytest.mark.parametrize(
    "damage", [{"alpha": "4"}, {"path": 3}, {"more": 1}, {"sha256": None}], ids=lambda damage: str(damage)
)
def test_a_damaged_reference_is_an_error_of_one_line(folder: Path, damage: dict[str, Any]) -> None:
    if not (folder / "damaged").exists():
        started(folder, "damaged").run(ignore, never)
    whole = content_of(folder / "damaged", ABOUT)
    with RunFolder.open(folder / "damaged", write=True) as run:
        run.commit({ABOUT: json.dumps(json.loads(whole) | damage).encode()})
    with pytest.raises(UserError, match="does not say which run is adapted"):
        load(folder / "damaged")
    with RunFolder.open(folder / "damaged", write=True) as run:
        run.commit({ABOUT: whole})


def test_a_base_is_never_replaced(folder: Path) -> None:
    started(folder, "upper").run(ignore, never)
    for base, out in (("base", "base"), ("upper", "upper"), ("upper", "base")):
        with pytest.raises(UserError, match="is what is fine-tuned, or part of it, and never written to"):
            start_adapters(folder / base, config(folder, base=base), ALL, folder / out, replace_run=True)
    with pytest.raises(UserError, match="never written to"):
        start_full(folder / "base", config(folder, full=True), folder / "base", replace_run=True)


def test_what_cannot_be_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no linear layer relative"):
        started(folder, "bad", replace(ALL, targets=("relative",)))
    with pytest.raises(UserError, match="--rank 9 is above the 8 of the layer"):
        started(folder, "bad", replace(ALL, rank=9))
    with pytest.raises(UserError, match=r"data\.length is 9"):
        config(folder, data__length=9)
    with pytest.raises(UserError, match=r"so .* cannot be given; leave it out"):
        finetune.resume(folder / "base", text=("other.txt",), steps=99)
    assert not (folder / "bad").exists()
