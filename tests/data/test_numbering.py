"""Rows of pretrained tokenizers: their special ids, T5's sentinels in their order, and nothing of the text lost."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from minilong.data.batches import IGNORE, MaskedBatch, PairBatch
from minilong.data.marked import MarkedTokenizer
from minilong.data.numbering import numbering_of
from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.roles import Roles
from minilong.data.tokenizer_json import added, around, document, word_pieces
from minilong.data.tokenizers import ByteTokenizer
from minilong.errors import UserError
from minilong.keys import Key
from minilong.models.config import ModelConfig
from minilong.train.config import DataConfig, RunConfig
from minilong.train.pretraining import filling_rows, with_marks

pytest.importorskip("tokenizers")

WORDS = [
    *("the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "ran", "far", "away", "from", "it"),
    "birds",
    ".",
]
NUMBERS = np.random.default_rng(0)
TEXT = " ".join(" ".join(WORDS[i] for i in NUMBERS.integers(0, 14, NUMBERS.integers(3, 9))) + " ." for _ in range(60))


def tokenizer(before: list[str], behind: list[str], **roles: Any) -> PretrainedTokenizer:
    """Words between special tokens. roles: by the special token's name."""
    names = [*before, *WORDS, *behind]
    ids = {name: i for i, name in enumerate(names)}
    of = {role: ids[name] for role, name in roles.items()}
    begins = [] if "mask" not in of else [(roles["bos"], of["bos"])]
    ends = [(roles["separator"], of["separator"])]
    text = document(
        word_pieces(ids, before[0]),
        added=[added(ids[name], name) for name in (*before, *behind)],
        pre_tokenizer={"type": "WhitespaceSplit"},
        post_processor=around(begins, ends),
    )
    return PretrainedTokenizer(json.dumps(text), Roles(unk=0, **of), len(names) + 3)


BERT = tokenizer(
    ["[UNK]", "[MASK]", "[PAD]"], ["[SEP]", "[CLS]"], mask="[MASK]", pad="[PAD]", separator="[SEP]", bos="[CLS]"
)
SENTINELS = [f"<extra_id_{i}>" for i in range(20)][::-1]
T5 = tokenizer(["<unk>", "<pad>", "</s>"], SENTINELS, pad="<pad>", bos="<pad>", eos="</s>", separator="</s>")


def config(task: str, context: int) -> RunConfig:
    kind = "encoder-decoder" if task == "t5" else "encoder"
    position = "t5" if task == "t5" else "learned"
    model = ModelConfig(kind=kind, layers=1, width=8, heads=2, context=context, position=position)
    return RunConfig(task, DataConfig(tokenizer="pretrained", text=("book",)), model).resolved()


@pytest.mark.parametrize("task", ["roberta", "mlm"])
def test_masked_rows_hold_the_text_and_its_special_ids(task: str) -> None:
    rows = filling_rows(config(task, 24), with_marks(config(task, 24), BERT), [TEXT], Key.of(1))
    seen, masked, chosen = [], 0, 0
    for batch in rows.sequential(4):
        assert isinstance(batch, MaskedBatch)
        for inputs, targets, length in zip(batch.inputs, batch.targets, batch.lengths, strict=True):
            picked = targets != IGNORE
            row = np.where(picked, targets, inputs)
            assert (row[0], row[length - 1]) == (BERT.bos, BERT.separator)
            assert set(row[length:].tolist()) <= {BERT.pad}
            text = set(row[1 : length - 1].tolist()) - {BERT.separator}
            assert max(text) < 3 + len(WORDS)
            assert min(text) >= 3
            special = [id for id in BERT.specials if id != BERT.unknown]
            assert not np.isin(row[picked], special).any()
            assert not np.isin(inputs[picked & (inputs != BERT.mask)], special).any()
            masked, chosen = masked + int((inputs == BERT.mask).sum()), chosen + int(picked.sum())
            seen.append(BERT.decode(row[:length]))
    if task == "roberta":
        assert " ".join(" ".join(seen).split()) == TEXT
    assert 0.6 < masked / chosen < 0.95


def test_span_rows_hold_the_text_in_the_order_of_the_sentinels() -> None:
    numbering = numbering_of(T5, spans=True)
    sentinels = [T5.size - 4 - i for i in range(20)]
    assert numbering.table is not None
    assert numbering.table[numbering.first :].tolist() == sentinels
    whole = T5.encode(TEXT).tolist()
    rows = filling_rows(config("t5", 32), with_marks(config("t5", 32), T5), [TEXT], Key.of(1))
    for batch in [rows.batch(3, 5, Key.of(2)), *rows.sequential(4)]:
        assert isinstance(batch, PairBatch)
        pairs = zip(batch.source, batch.source_lengths, batch.inputs, batch.targets, strict=True)
        for source, length, inputs, targets in pairs:
            answer = targets[targets != IGNORE].tolist()
            assert source[length - 1] == T5.eos == answer[-1]
            assert set(source[length:].tolist()) <= {T5.pad}
            assert inputs[0] == T5.pad
            assert inputs[1 : len(answer)].tolist() == answer[:-1]
            marks = [id for id in answer if id in sentinels]
            assert marks == [id for id in source.tolist() if id in sentinels] == sentinels[: len(marks)]
            spans = {id: answer[answer.index(id) + 1 :] for id in marks}
            restored: list[int] = []
            for id in source[: length - 1].tolist():
                end = next((i for i, x in enumerate(spans.get(id, [])) if x in [*sentinels, T5.eos]), 0)
                restored += spans[id][:end] if id in spans else [id]
            at = [i for i in range(len(whole)) if whole[i : i + len(restored)] == restored]
            assert at, "the row is no part of the text"


def test_numbers_and_ids_go_both_ways() -> None:
    for numbering in (numbering_of(BERT, spans=False), numbering_of(T5, spans=True)):
        assert numbering.table is not None
        text = np.arange(4, len(numbering.table), dtype=np.int32)
        assert numbering.of_ids(numbering.ids(text)).tolist() == text.tolist()
        assert numbering.ids(np.array([IGNORE, 0])).tolist() == [IGNORE, numbering.tokenizer.pad]
        assert numbering.encode("the unknowable cat").min() >= 4
        assert numbering.decode(numbering.encode("the cat")) == "the cat"
    assert numbering_of(T5, spans=True).source(np.array([4], np.int32)).tolist() == [0, T5.eos]


def test_our_tokenizers_are_numbered_already() -> None:
    ours = MarkedTokenizer(ByteTokenizer(), 3)
    numbering = numbering_of(ours, spans=True)
    ids = ours.encode("abc")
    assert (numbering.first, numbering.marks, numbering.table) == (ours.first, 3, None)
    assert numbering.ids(ids) is ids
    rows: Any = object()
    assert numbering.rows(rows) is rows


def test_a_tokenizer_without_marks_is_refused() -> None:
    with pytest.raises(UserError, match=r"tokenizer has no mask"):
        numbering_of(T5, spans=False)
    with pytest.raises(UserError, match=r"no sentinels \(<extra_id_0> and so on\)"):
        numbering_of(BERT, spans=True)
