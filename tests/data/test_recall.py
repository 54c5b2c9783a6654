"""Generated recall tasks: sizes, refusals, text forms. What every row obeys is in the laws of `minilong audit`."""

from __future__ import annotations

import numpy as np
import pytest

from minilong.data.batches import IGNORE
from minilong.data.bpe import BpeTokenizer
from minilong.data.passkey import NAMES, Passkey
from minilong.data.recall import FILLER, RECALL, Mqar, draw_gaps, recall_task
from minilong.data.tokenizers import ByteTokenizer, CharTokenizer
from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError
from minilong.keys import Key

every = pytest.mark.parametrize("name", RECALL)
TEXT = "It is a truth universally acknowledged, that a single man must be in want of a wife. " * 8


def passkey(
    context: int, codec: Tokenizer | None = None, items: int = 1, digits: int = 5, whole: bool = False
) -> Passkey:
    codec = codec or ByteTokenizer()
    ids = codec.encode(TEXT)
    return Passkey(context, codec=codec, text=ids, held_out_text=ids, items=items, digits=digits, whole=whole)


@every
def test_rows_can_be_shown_as_text_and_read_back(name: str) -> None:
    task = recall_task(name, 40, 4, 12)
    batch = task.batch(0, 8, Key.of(1))
    assert batch.inputs.shape == batch.targets.shape == (8, 40)
    assert batch.inputs.dtype == batch.targets.dtype == np.int32
    assert FILLER <= batch.inputs.min() <= batch.inputs.max() < task.tokenizer.size
    for row in batch.inputs:
        assert np.array_equal(task.tokenizer.encode(task.tokenizer.decode(row)), row)


@every
@pytest.mark.parametrize("symbols", [40, 300])
def test_many_symbols_have_signs_of_their_own(name: str, symbols: int) -> None:
    task = recall_task(name, 20, 4, symbols)
    assert len(set(task.tokenizer.pieces[FILLER:])) == task.tokenizer.size - FILLER
    assert task.batch(0, 50, Key.of(2)).inputs.max() > FILLER + symbols // 3


@every
def test_rows_of_another_length_are_the_same_task(name: str) -> None:
    longer = recall_task(name, 16, 4, 12).at(50)
    assert next(longer.sequential(3)).inputs.shape == (3, 50)
    assert longer.tokenizer == recall_task(name, 16, 4, 12).tokenizer
    asked = int((next(longer.sequential(1)).targets != IGNORE).sum())
    assert asked == {"induction": 1, "copy-lm": 25}.get(name, 4)


@every
def test_the_held_out_set_has_the_size_asked_for_in_batches(name: str) -> None:
    task = recall_task(name, 16, 4, 12)
    assert [len(batch.inputs) for batch in task.sequential(4, 10)] == [4, 4, 2]
    assert sum(len(batch.inputs) for batch in task.sequential(100)) == 512
    assert sum(len(batch.inputs) for batch in task.at(4096).sequential(8)) == 32
    joined = np.concatenate([batch.inputs for batch in task.sequential(3, 10)])
    assert np.array_equal(joined, next(task.sequential(10, 10)).inputs)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("mqar", 15, 4, 16), "needs a context of at least 16, and it is 15"),
        (("mqar", 64, 9, 16), "16 symbols takes 2 to 8 pairs, and data.items is 9"),
        (("mqar", 64, 1, 16), "takes 2 to 8 pairs"),
        (("induction", 3, 4, 16), "needs a context of at least 4"),
        (("induction", 8, 4, 2), "has no question"),
        (("selective-copy", 9, 5, 16), "needs a context of at least 10"),
        (("selective-copy", 9, 1, 16), "at least 2 tokens"),
        (("copy-lm", 3, 0, 16), "at least 2 tokens"),
        (("mqr", 64, 4, 16), "did you mean 'mqar'"),
    ],
)
def test_what_has_no_room_is_refused(arguments: tuple[str, int, int, int], fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        recall_task(*arguments)


@every
def test_steps_and_sizes_that_can_not_be(name: str) -> None:
    task = recall_task(name, 16, 4, 12)
    for bad in (
        lambda: task.batch(-1, 1, Key.of(1)),
        lambda: task.batch(0, 0, Key.of(1)),
        lambda: list(task.sequential(0)),
    ):
        with pytest.raises(ValueError, match="at least"):
            bad()


def test_gaps_are_the_successive_draws_of_numpy() -> None:
    """As sets of two, gaps come as often as from `choice` without replacement."""
    p = np.arange(1, 6) ** (0.01 - 1)
    p /= p.sum()
    ours = draw_gaps(np.random.default_rng(1), 5_000, 5, 2, 0.01)
    numbers = np.random.default_rng(2)
    theirs = np.array([numbers.choice(5, 2, replace=False, p=p) for _ in range(5_000)])
    counts = [np.bincount(np.ravel_multi_index(tuple(draws.T), (5, 5)), minlength=25) for draws in (ours, theirs)]
    assert (np.abs(counts[0] - counts[1]) <= 6 * np.sqrt(counts[1] + counts[0] + 1)).all()
    assert (ours[:, 0] != ours[:, 1]).all()


def test_a_long_row_of_mqar_takes_a_fraction_of_a_second() -> None:
    task = Mqar(65_536, 64, 8192)
    batch = task.batch(0, 1, Key.of(1))
    assert int((batch.targets != IGNORE).sum()) == 64


# Passkeys


def test_passkeys_with_characters_and_bytes() -> None:
    for codec in (ByteTokenizer(), CharTokenizer.train([TEXT, "\n?.0123456789", *NAMES, "The passkey for What is"])):
        task = passkey(120, codec, items=2)
        row = codec.decode(task.batch(0, 1, Key.of(1)).inputs[0])
        assert row.count(" The passkey for ") == 2
        assert "\nWhat is the passkey for " in row


def test_the_whole_row_can_be_the_target() -> None:
    batch = passkey(120, whole=True).batch(0, 2, Key.of(1))
    assert (batch.targets != IGNORE).all()
    assert np.array_equal(batch.targets[:, :-1], batch.inputs[:, 1:])
    assert passkey(120).batch(0, 2, Key.of(1)).tokens == 10


def test_depths_change_the_place_and_nothing_else() -> None:
    first, last = (passkey(200).at_depth(depth, 4, 4)[0] for depth in (0.0, 1.0))
    assert np.array_equal(first.targets, last.targets)
    assert not np.array_equal(first.inputs, last.inputs)
    assert np.array_equal(np.sort(first.inputs), np.sort(last.inputs))
    assert [len(batch.inputs) for batch in passkey(200).at_depth(0.5, 2, 5)] == [2, 2, 1]
    with pytest.raises(ValueError, match=r"the depth is 1.5"):
        passkey(200).at_depth(1.5, 1, 1)


def test_passkeys_that_have_no_room_no_text_or_no_digits_are_refused() -> None:
    with pytest.raises(UserError, match="needs a context of at least"):
        passkey(passkey(200).least - 1)
    with pytest.raises(UserError, match=f"1 to {len(NAMES)} numbers, and data.items is 17"):
        passkey(2000, items=17)
    with pytest.raises(UserError, match="has 680 tokens and a context of 2000 needs"):
        passkey(2000).batch(0, 1, Key.of(1))
    merged = BpeTokenizer(((ord("0"), ord("1")),))
    with pytest.raises(UserError, match=r"joins characters; set data\.tokenizer = char or byte"):
        passkey(200, merged)
