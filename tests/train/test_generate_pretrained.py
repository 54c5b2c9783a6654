"""Generation and filling with pretrained tokenizers: where a text ends, what is never drawn, where a mask stands."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tiny_runs import SMALL

from minilong.data.bpe import letters
from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.roles import Roles
from minilong.data.tokenizer_json import added, byte_level, byte_pairs, document
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.build import build
from minilong.train import generate as generating
from minilong.train.config import RunConfig
from minilong.train.fill import fill
from minilong.train.generate import choose, generate, generate_batch, undrawn
from minilong.train.loaded import LoadedRun

NAMES = ("<end>", "<s>", "</s>", "<mask>")
VOCABULARY = {name: i for i, name in enumerate([*NAMES, *letters()])}


def tokenizer(*, left: bool = False) -> PretrainedTokenizer:
    tokens = [added(i, name, left=left and name == "<mask>") for i, name in enumerate(NAMES)]
    parts = {"pre_tokenizer": byte_level(), "decoder": byte_level()}
    text = json.dumps(document(byte_pairs(VOCABULARY, []), added=tokens, **parts))
    return PretrainedTokenizer(text, Roles(bos=1, separator=2, mask=3, ends=(0,))).sized(len(VOCABULARY) + 5)


def loaded(**changes: Any) -> LoadedRun:
    own = changes.pop("tokenizer", tokenizer())
    config = RunConfig.from_flat(SMALL | {"data.text": ("unread",), "model.context": 40} | changes)
    return LoadedRun(config, build(config.model, own.size, Key.of(0)), own, 0)


class Script:
    """Stands in for `choose`: the tokens of a script for each row, one after another."""

    def __init__(self, *rows: list[int]) -> None:
        self.tokens = [token for step in zip(*rows, strict=True) for token in step]

    def __call__(self, *args: Any, **options: Any) -> int:
        return self.tokens.pop(0)


def ids(text: str) -> list[int]:
    return [int(i) for i in tokenizer().encode(text)]


def test_a_text_ends_where_the_model_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generating, "choose", Script([*ids("ab"), 0, *ids("cd")]))
    assert "".join(generate(loaded(), "x", length=5)) == "ab"
    script = Script([*ids("ab"), 0, *ids("cdef")], [*ids("uvwx"), 0, *ids("yz")])
    monkeypatch.setattr(generating, "choose", script)
    assert generate_batch(loaded(), ["x", "y"], length=7) == ["ab", "uvwx"]
    assert len(script.tokens) == 4  # both texts were over


def test_special_ids_are_not_drawn_unless_they_end() -> None:
    own = tokenizer()
    assert undrawn(own).tolist() == [1, 2, 3, *range(len(VOCABULARY), own.size)]
    scores = np.zeros(own.size)
    scores[undrawn(own)] = 50.0
    numbers = np.random.default_rng(0)
    drawn = {choose(scores, numbers, never=undrawn(own)) for _ in range(2000)}
    assert drawn <= {0, *range(4, len(VOCABULARY))}
    assert 0 in drawn
    assert choose(scores, numbers, temperature=0, never=undrawn(own)) == 0


@pytest.mark.parametrize("left", [False, True])
def test_masks_of_a_pretrained_tokenizer(left: bool) -> None:
    changes = {"task": "roberta", "model.kind": "encoder", "model.position": "learned", "data.tokenizer": "byte"}
    run = loaded(tokenizer=tokenizer(left=left), **changes)
    seen: list[np.ndarray] = []
    hidden = type(run.model).hidden

    def watched(self: Any, tokens: np.ndarray, **options: Any) -> Any:
        seen.append(tokens.copy())
        return hidden(self, tokens, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.model), "hidden", watched)
        found = fill(run, "a ___ b", top=300)
    assert seen[0].tolist() == [[1, *ids("a" if left else "a "), 3, *ids(" b"), 2]]
    assert len(found.candidates[0]) == 256
    with pytest.raises(UserError, match="has no sentinels"):
        fill(loaded(**{"task": "t5", "model.kind": "encoder-decoder", "data.tokenizer": "byte"}), "a ___ b")
