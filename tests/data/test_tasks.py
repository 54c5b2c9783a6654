"""Generated tasks: exact answers, pure batches, and no held-out string in training."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilong.data.batches import IGNORE, PairBatch
from minilong.data.tasks import TASKS, Task
from minilong.data.vocabulary import BOS, EOS
from minilong.errors import UserError
from minilong.keys import Key

ANSWERS = {"copy": lambda text: text, "reverse": lambda text: text[::-1]}
every = pytest.mark.parametrize("name", TASKS)


def _texts(task: Task, batch: PairBatch) -> list[tuple[str, str]]:
    tokenizer = task.tokenizer
    sources = [tokenizer.decode(row[:n]) for row, n in zip(batch.source, batch.source_lengths, strict=True)]
    targets = [row[row != IGNORE] for row in batch.targets]
    assert all(row[-1] == EOS for row in targets)
    assert (batch.inputs[:, 0] == BOS).all()
    return list(zip(sources, [tokenizer.decode(row) for row in targets], strict=True))


@every
@settings(max_examples=40, deadline=None)
@given(step=st.integers(0, 10**9), size=st.integers(1, 20), seed=st.integers(), longest=st.integers(4, 9))
def test_answers_are_exact_and_batches_pure(name: str, step: int, size: int, seed: int, longest: int) -> None:
    task = replace(TASKS[name], longest=longest)
    batch = task.batch(step, size, Key.of(seed))
    pairs = _texts(task, batch)
    assert len(pairs) == size
    for source, target in pairs:
        assert task.shortest <= len(source) <= longest
        assert target == ANSWERS[name](source)
    assert _texts(task, task.batch(step, size, Key.of(seed))) == pairs


@every
def test_every_symbol_and_length_occurs_and_steps_and_keys_differ(name: str) -> None:
    task = TASKS[name]
    pairs = _texts(task, task.batch(0, 2000, Key.of(1)))
    assert {len(source) for source, _ in pairs} == set(range(task.shortest, task.longest + 1))
    for place in (0, -1):  # the last symbol is computed and has to be as varied as the others
        counts = [sum(source[place] == symbol for source, _ in pairs) for symbol in task.alphabet]
        assert min(counts) > 2000 / len(task.alphabet) / 2
    assert _texts(task, task.batch(1, 2000, Key.of(1))) != pairs
    assert _texts(task, task.batch(0, 2000, Key.of(2))) != pairs


@every
def test_the_held_out_set_is_fixed_and_never_in_training(name: str) -> None:
    task = replace(TASKS[name], alphabet="abc", shortest=1, longest=4, held_out=3000)
    held = [pair for batch in task.sequential(64) for pair in _texts(task, batch)]
    assert len(held) == 3000
    assert held == [pair for batch in task.sequential(3000) for pair in _texts(task, batch)]
    assert all(target == ANSWERS[name](source) for source, target in held)
    train = {source for step in range(20) for source, _ in _texts(task, task.batch(step, 200, Key.of(1)))}
    strings = {"".join(symbols) for n in range(1, 5) for symbols in itertools.product("abc", repeat=n)}
    assert train | {source for source, _ in held} == strings  # nothing is unreachable ...
    assert not train & {source for source, _ in held}  # ... and nothing is in both


def test_a_held_out_set_has_at_most_size_pairs_a_batch() -> None:
    sizes = [len(batch.inputs) for batch in replace(TASKS["copy"], held_out=10).sequential(4)]
    assert sizes == [4, 4, 2]


def test_ranges_and_alphabets_that_can_not_be() -> None:
    with pytest.raises(UserError, match="'copy' draws 4 to 3 symbols; give"):
        replace(TASKS["copy"], longest=3)
    for alphabet in ("a", "ba", "aab"):
        with pytest.raises(ValueError, match="alphabet"):
            replace(TASKS["copy"], alphabet=alphabet)
    for bad in (lambda: TASKS["copy"].batch(-1, 1, Key.of(1)), lambda: list(TASKS["copy"].sequential(0))):
        with pytest.raises(ValueError, match="at least"):
            bad()
    assert np.array_equal(TASKS["copy"].answer(np.arange(3, dtype=np.int32)), np.arange(3))
