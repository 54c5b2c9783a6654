"""`minilong trace`: table, JSON, saved arrays, comparison with a saved trace and its exit code; and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from calling import call, refused
from safetensors.numpy import load_file, save_file

from minilong.train.loaded import load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "book.txt").write_text("The cat sat. The dog ran! It is a cat. " * 40)
    sizes = ["--layers", "2", "--width", "16", "--context", "16", "--batch", "4", "--threads", "1", "--set", "heads=2"]
    result = call("train", folder / "book.txt", "--out", folder / "run", "--steps", "2", *sizes)
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_the_table_has_a_row_for_each_array(run: Path) -> None:
    result = call("trace", run, "--prompt", "The cat")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "38 arrays (float32) of one pass over 7 tokens"
    assert lines[0].split()[:4] == ["name", "equation", "shape", "rms"]
    assert "stack.layers.1" in [line.strip() for line in lines]
    (row,) = [line for line in lines if line.startswith("logits")]
    assert row.split()[1] == "eq:linear"
    assert "minilong/nn/models.py:" in row
    assert sum(line.startswith("  attention.weights ") for line in lines) == 2


def test_json_and_the_saved_file_hold_the_same(run: Path, tmp_path: Path) -> None:
    saved = tmp_path / "trace.safetensors"
    facts = json.loads(call("trace", run, "--prompt", "-", "--json", "--save", saved, given="The cat\n").stdout)
    arrays = load_file(saved)
    tokens = arrays.pop("ids.tokens")
    assert tokens.tolist() == [facts["tokens"]["tokens"]]
    assert [r["name"] for r in facts["records"]] == sorted(arrays, key=[r["name"] for r in facts["records"]].index)
    assert np.array_equal(arrays["logits"], load(run).model(tokens))
    assert all(list(arrays[r["name"]].shape) == r["shape"] for r in facts["records"])
    assert np.isneginf(arrays["stack.layers.0.attention.scores"]).any()
    assert not list(tmp_path.glob(".*"))


def test_only_a_layer_and_only_a_pattern(run: Path) -> None:
    words = ["trace", run, "--prompt", "cat", "--json", "--layer", "1", "--only", "*.weights", "--only", "*.up"]
    names = [r["name"] for r in json.loads(call(*words).stdout)["records"]]
    assert names == ["stack.layers.1.attention.weights", "stack.layers.1.feed_forward.up"]
    assert "no array has such a name" in refused("trace", run, "--prompt", "cat", "--only", "wights")


def test_against_a_saved_trace(run: Path, tmp_path: Path) -> None:
    """Another kernel agrees; an array with one wrong number is named, with the number, and ends with code 1."""
    saved = tmp_path / "naive.safetensors"
    words = ["trace", run, "--prompt", "The cat sat"]
    assert call(*words, "--attention", "naive", "--save", saved).exit_code == 0
    same = call(*words, "--attention", "blockwise", "--against", saved)
    assert same.exit_code == 0, same.output
    assert "38 arrays agree with" in same.stdout
    arrays = load_file(saved)
    right = arrays["stack.layers.1.attention.keys"][0, 1, 2, 3]
    arrays["stack.layers.1.attention.keys"][0, 1, 2, 3] += 0.5
    arrays["logits"] = arrays["logits"] + 1
    save_file(arrays, saved)
    other = call(*words, "--against", saved)
    assert other.exit_code == 1
    assert "stack.layers.1.attention.keys is the first of 38 arrays that differs from" in other.stdout
    assert f"difference  0.5 at [0, 1, 2, 3]: ours {right:.6g}" in other.stdout
    assert not [line for line in other.stdout.splitlines() if line.startswith("logits")]
    facts = json.loads(call(*words, "--against", saved, "--json").stdout)
    assert facts["first_divergence"] == "stack.layers.1.attention.keys"
    assert [c["name"] for c in facts["compared"] if c["diverges"]] == ["stack.layers.1.attention.keys", "logits"]
    assert call(*words, "--against", saved, "--tolerance", "10").exit_code == 0
    assert call(*words, "--against", saved, "--layer", "0").exit_code == 0
    save_file({"logits": arrays["logits"][:, :3]}, saved)
    assert "shape       ours (1, 11, 12), theirs (1, 3, 12)" in call(*words, "--against", saved).stdout.replace(
        str(load(run).tokenizer.size), "12"
    )


def test_an_encoder_decoder_reads_twice(tmp_path: Path) -> None:
    sizes = ["--layers", "1", "--width", "8", "--batch", "4", "--threads", "1", "--set", "heads=2", "--steps", "1"]
    result = call("train", "--task", "copy", "--out", tmp_path / "copy", *sizes, "--set", "max_length=4")
    assert result.exit_code == 0, result.output
    words = ["trace", tmp_path / "copy", "--prompt", "abc", "--target", "ab"]
    facts = json.loads(call(*words, "--json").stdout)
    assert [len(ids) for ids in facts["tokens"].values()] == [3, 3]
    shapes = {r["name"]: r["shape"] for r in facts["records"]}
    assert shapes["decoder.layers.0.cross.weights"] == [1, 2, 3, 3]
    assert {"source", "target", "encoder.layers.0", "decoder.layers.0"} <= set(shapes)
    assert call(*words).stdout.splitlines()[-1].endswith("of one pass over 3 source, 3 target")
    assert "an encoder-decoder has two" in refused(*words, "--attention", "naive")


def test_the_picture_is_drawn(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "stream.png"
    assert call("trace", run, "--prompt", "The cat", "--plot", picture).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    words = ["trace", run, "--prompt", "cat", "--only", "logits", "--plot", picture]
    assert "the trace has no layer" in refused(*words)


def test_bad_input_is_refused_in_a_line(run: Path, tmp_path: Path) -> None:
    assert "the prompt has no token" in refused("trace", run, "--prompt", "")
    assert "this run reads 16 at once" in refused("trace", run, "--prompt", "The cat sat. The dog ran!")
    assert "--target belongs to an encoder-decoder" in refused("trace", run, "--prompt", "cat", "--target", "dog")
    assert "there is no 'torch' to compare with" in refused("trace", run, "--prompt", "cat", "--against", "torch")
    saved = tmp_path / "other.safetensors"
    call("trace", run, "--prompt", "dog", "--save", saved)
    assert "is a trace of other tokens" in refused("trace", run, "--prompt", "cat", "--against", saved)
    save_file({"weights": np.zeros(3, np.float32)}, saved)
    assert "no name in common" in refused("trace", run, "--prompt", "cat", "--against", saved)
