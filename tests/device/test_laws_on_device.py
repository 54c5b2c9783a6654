"""Every law of the audit with all arrays on the stand-in's device, as `minilong audit --device` runs them on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from standin import cupy

from minilong.audit import KINDS, LAWS, SUBJECTS, Law, load
from minilong.audit.device import HOST, OnDevice, reason_absent
from minilong.audit.run import Result, quiet_numbers, run_law
from minilong.backend import Device

load()

DEVICE = Device("fake")
EXAMPLES = 3
ON_DEVICE = [law for law in LAWS.values() if reason_absent(law) is None]

NOTHING_COMPUTED = {"dropout-layer/off-without-key", "mask/window-count"}
"""Laws of a device's functions in a case in which these return what they were given, or no array at all."""


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    with cupy.install(), quiet_numbers():
        yield
        cupy.check_guards()


def ran(law: Law, examples: int) -> tuple[list[tuple[str, Result]], int]:
    """A law on each of our implementations, and how many operations the device did for it."""
    with cupy.counting() as counts:
        results = [
            (s.name, run_law(law, OnDevice(s.f, DEVICE), examples=examples, patience=0))
            for s in SUBJECTS.values()
            if s.kind == law.kind
        ]
    return results, counts.launches


@pytest.mark.parametrize("law", ON_DEVICE, ids=str)
def test_a_law_holds_on_the_device(law: Law) -> None:
    results, launches = ran(law, EXAMPLES)
    assert results
    for name, result in results:
        assert result.failure is None, f"{name}: {result.failure}; if it is the host's, say so in HOST"
        assert result.examples
        assert result.worst <= 1.0
    assert (launches == 0) == (law.name in NOTHING_COMPUTED), "it computes nothing there: say so in HOST"


@pytest.mark.parametrize("name", HOST)
def test_what_is_left_out_is_the_hosts(name: str) -> None:
    """It computes nothing on a device, or it refuses a device's arrays."""
    laws = [law for law in LAWS.values() if name in (law.name, law.kind)]
    assert laws
    assert HOST[name]
    for law in laws:
        results, launches = ran(law, 1)
        assert launches == 0 or any(r.failure is not None and r.failure.raised for _, r in results)


def test_a_kind_is_on_the_device_or_has_a_reason() -> None:
    kinds = {law.kind for law in ON_DEVICE}
    assert kinds | set(HOST) >= set(KINDS)
    assert not kinds & set(HOST)
    print(f"{len(ON_DEVICE)} laws on the stand-in, of {len(kinds)} kinds; {len(LAWS) - len(ON_DEVICE)} are the host's")
    assert len(ON_DEVICE) >= 230
