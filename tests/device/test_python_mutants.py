"""Each mistake of `python_mutants.py` is seen by its check, which the right code passes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_code import planted
from python_mutants import MUTANTS, Mutant
from standin import cupy

from minilong.audit.run import quiet_numbers

KILLED: list[Mutant] = []


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    with cupy.install(), quiet_numbers():
        yield


@pytest.mark.parametrize("m", MUTANTS, ids=lambda m: m.why)
def test_a_mistake_is_seen(m: Mutant, tmp_path: Path) -> None:
    with planted(m.module, m.old, m.new), pytest.raises(Exception) as found:
        m.check(tmp_path)
    assert re.search(m.says, f"{type(found.value).__name__}: {found.value}"), f"seen otherwise: {found.value!r}"
    m.check(tmp_path)
    KILLED.append(m)


def test_counts() -> None:
    print(f"{len(KILLED)} of {len(MUTANTS)} mistakes seen")
    assert len(MUTANTS) >= 25
    assert len({m.why for m in MUTANTS}) == len(MUTANTS)
