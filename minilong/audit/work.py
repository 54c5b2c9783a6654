"""The parts of an audit that take time, as a list of tasks that one process or several work off in any order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from minilong.audit import agreement
from minilong.audit.book import Book, Selection, open_book, select
from minilong.audit.device import OnDevice, reason_absent
from minilong.audit.law import Law, Mutant
from minilong.audit.run import Result, case_as_python, quiet_numbers, run_law
from minilong.audit.specs import Claim
from minilong.backend import CPU, Device

PATIENCE = 0.2
"""Seconds in which a mutant's counterexample is made smaller. There are hundreds of mutants, each with one to show."""

ENOUGH = 100
"""Examples that a law has, at least, to find a mutant in: it stops at the first, so a quick audit is quick still."""


@dataclass(frozen=True)
class Outcome:
    """What a task found. `failure`: one line of what went wrong, `counterexample`: the case as Python.

    `raised`: it failed because something raised, which is no proof that a law sees a mutant.
    """

    examples: int
    worst: float
    seconds: float
    failure: str | None
    counterexample: str | None
    raised: bool = False


@dataclass(frozen=True)
class Task:
    """`key` says what is looked at: ("law", law, implementation), ("mutant", mutant, law), and so on."""

    key: tuple[str, ...]
    run: Callable[[], Outcome]


def tasks(book: Book, chosen: Selection, examples: int, seed: int | None, device: Device = CPU) -> list[Task]:
    """All tasks of an audit, in a fixed order.

    ("claim", id), ("kind", equation, implementation), ("primitive", equation, name), ("law", law, implementation),
    ("block", law, equation), ("mutant", mutant, law). On a device only the laws on implementations.
    """
    if not device.is_cpu:
        return _on_device(book, chosen, examples, seed, device)

    def ran(law: Law, f: Callable[..., Any]) -> Outcome:
        return _outcome(run_law(law, f, examples=examples, seed=seed))

    found = []

    def add(key: tuple[str, ...], call: Callable[..., Outcome], *args: Any) -> None:
        found.append(Task(key, lambda: call(*args)))

    for claim in book.specs.claims.values():
        if claim.id in chosen.claims and claim.block:
            add(("claim", claim.id), _claim, book, claim)
    for equation in book.specs.equations.values():
        if equation.id not in chosen.equations or equation.id not in book.blocks:
            continue
        block = book.blocks[equation.id]
        for s in book.fitting_subjects(equation):
            same = block if s.variant is None else partial(s.variant, block)
            laws = [_shared(agreement.of_kind(law, same), len(book.laws_of(s.kind))) for law in book.laws_of(s.kind)]
            add(("kind", equation.id, s.name), _all, [(ran, law, s.f) for law in laws])
        for p in book.fitting_primitives(equation):
            add(("primitive", equation.id, p.name), ran, agreement.of_primitive(p, block, equation.id), p)
    for law in book.laws.values():
        if law.name not in chosen.laws or law.skip is not None or law.kind not in book.kinds:
            continue
        for s in chosen.subjects(law, book.subjects_of(law.kind)):
            add(("law", law.name, s.name), ran, law, s.f)
        for entry in book.fitting_blocks(law.kind):
            add(("block", law.name, entry.id), ran, law, book.blocks[entry.id])
        for mutant in chosen.mutants(law, [m for m in book.mutants.values() if law.name in m.kills]):
            add(("mutant", mutant.name, law.name), _hunt, law, mutant, max(examples, ENOUGH), seed)
    return found


def _on_device(book: Book, chosen: Selection, examples: int, seed: int | None, device: Device) -> list[Task]:
    """The laws on our implementations, which compute on a device."""

    def ran(law: Law, f: Callable[..., Any]) -> Outcome:
        return _outcome(run_law(law, OnDevice(f, device), examples=examples, seed=seed))

    return [
        Task(("law", law.name, s.name), partial(ran, law, s.f))
        for law in book.laws.values()
        if law.name in chosen.laws and law.skip is None and law.kind in book.kinds and reason_absent(law) is None
        for s in chosen.subjects(law, book.subjects_of(law.kind))
    ]


def work(
    todo: list[Task], jobs: int, only: str | None, examples: int, seed: int | None, device: Device = CPU
) -> Iterator[tuple[tuple[str, ...], Outcome]]:
    """Run the tasks, in this process, or in several that open the real book anew; outcomes as they come."""
    if jobs <= 1 or len(todo) < 2 * jobs:
        for task in todo:
            with quiet_numbers():
                outcome = task.run()
            yield task.key, outcome
        return
    import signal
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    # Ctrl-C is for this process, which then ends the others.
    deaf = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=signal.signal, initargs=deaf)
    try:
        size = max(1, min(8, len(todo) // (8 * jobs)))
        parts = [range(i, min(i + size, len(todo))) for i in range(0, len(todo), size)]
        futures = [pool.submit(_part, part, only, examples, seed, str(device)) for part in parts]
        for future in as_completed(futures):
            yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _part(numbers: Iterable[int], only: str | None, examples: int, seed: int | None, device: str) -> list[Any]:
    todo = _real_tasks(only, examples, seed, device)
    with quiet_numbers():
        return [(todo[i].key, todo[i].run()) for i in numbers]


@lru_cache(maxsize=1)
def _real_tasks(only: str | None, examples: int, seed: int | None, device: str) -> list[Task]:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    book = open_book()
    return tasks(book, select(book, only), examples, seed, Device.of(device))


def _shared(law: Law, among: int) -> Law:
    return replace(law, share=law.share / among)


def _hunt(law: Law, mutant: Mutant, examples: int, seed: int | None) -> Outcome:
    return _outcome(run_law(replace(law, share=1.0), mutant.f, examples=examples, seed=seed, patience=PATIENCE))


def _all(runs: list[tuple[Callable[..., Outcome], Law, Callable[..., Any]]]) -> Outcome:
    outcomes = [ran(law, f) for ran, law, f in runs]
    failed = next((o for o in outcomes if o.failure is not None), None)
    return Outcome(
        sum(o.examples for o in outcomes),
        max((o.worst for o in outcomes), default=0.0),
        sum(o.seconds for o in outcomes),
        None if failed is None else failed.failure,
        None if failed is None else failed.counterexample,
    )


def _claim(book: Book, claim: Claim) -> Outcome:
    begin = time.perf_counter()
    failure = book.specs.check(claim, book.namespace)
    return Outcome(1, 0.0, time.perf_counter() - begin, failure, None)


def _outcome(result: Result) -> Outcome:
    failure = result.failure
    if failure is None:
        return Outcome(result.examples, result.worst, result.seconds, None, None)
    message, case = " ".join(failure.message.split()), case_as_python(failure.case)
    return Outcome(result.examples, result.worst, result.seconds, message, case, failure.raised)
