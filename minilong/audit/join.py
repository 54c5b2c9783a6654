"""The audit: entries joined with code, laws and mutants into one report, and every hole named in a line.

    equation -> code that names it -> its block agrees with the code -> laws on the code and on the block
             -> mutants that the laws find;  claim -> its check runs through

A hole is whatever breaks this chain. A report without a hole passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from minilong import __version__
from minilong.audit.agreement import fits, fits_primitive
from minilong.audit.book import Book, Selection, open_book, parameters, select
from minilong.audit.device import reason_absent
from minilong.audit.law import Law, Mutant
from minilong.audit.report import ClaimReport, EquationReport, LawReport, MutantReport, Report
from minilong.audit.specs import Claim, Equation
from minilong.audit.work import Outcome, tasks, work
from minilong.backend import CPU, Device
from minilong.errors import UserError

Outcomes = Mapping[tuple[str, ...], Outcome]
Progress = Callable[[int, int, str], None]


def audit(
    examples: int = 100,
    only: str | None = None,
    progress: Progress | None = None,
    seed: int | None = None,
    jobs: int = 1,
    book: Book | None = None,
    device: Device = CPU,
) -> Report:
    """Run every law on `examples` random cases and join all that is known.

    only: a part, or a glob, of ids of equations and claims, or names of laws and kinds. progress: called with the
    number of tasks done, of all, and the name of the last. seed: other cases than the usual ones. jobs: processes
    (a script that asks for more than one must be guarded by `if __name__ == "__main__"`). book: another one than that
    of this package, which needs jobs=1. device: another one than the CPU runs the laws there, and only these: a hole is
    then a law that fails. UserError where `only` fits nothing; SpecError where an entry does not parse.
    """
    if book is not None and jobs != 1:
        raise ValueError(f"an audit of another book runs in one process, not {jobs}")
    from threadpoolctl import threadpool_limits

    begin = time.perf_counter()
    opened = open_book() if book is None else book
    chosen = select(opened, only)
    outcomes: dict[tuple[str, ...], Outcome] = {}
    with threadpool_limits(1):
        todo = tasks(opened, chosen, examples, seed, device)
        for key, outcome in work(todo, jobs, only, examples, seed, device):
            outcomes[key] = outcome
            if progress is not None:
                progress(len(outcomes), len(todo), key[1])
    outcomes = {task.key: outcomes[task.key] for task in todo}
    if not device.is_cpu:
        return _on_device(opened, chosen, outcomes, device, examples, time.perf_counter() - begin)
    equations = [_equation(opened, e, outcomes) for e in opened.specs.equations.values() if e.id in chosen.equations]
    claims = [_claim(opened, c, outcomes) for c in opened.specs.claims.values() if c.id in chosen.claims]
    laws = [_law(opened, law, outcomes) for law in opened.laws.values() if law.name in chosen.laws]
    hunted = {key[1] for key in outcomes if key[0] == "mutant"}
    mutants = [_mutant(m, outcomes) for m in opened.mutants.values() if chosen.whole or m.name in hunted]
    return Report(
        version=__version__,
        examples=examples,
        seconds=time.perf_counter() - begin,
        equations=tuple(equations),
        claims=tuple(claims),
        laws=tuple(laws),
        mutants=tuple(mutants),
        holes=tuple(holes(opened, chosen, outcomes)),
    )


def _on_device(
    book: Book, chosen: Selection, outcomes: Outcomes, device: Device, examples: int, seconds: float
) -> Report:
    """The report of laws that were run on a device. UserError where there are none."""
    reasons = {law: reason_absent(law) for law in book.laws.values() if law.name in chosen.laws}
    run = [law for law, reason in reasons.items() if reason is None]
    left_out = tuple((law.name, reason) for law, reason in reasons.items() if reason is not None)
    if not run:
        raise UserError(f"no law of this runs on a device: {left_out[0][1] if left_out else 'leave out --device'}")
    laws, failed = tuple(_law(book, law, outcomes) for law in run), tuple(_failures(run, outcomes))
    return Report(__version__, examples, seconds, laws, failed, device=str(device), left_out=left_out)


def _equation(book: Book, e: Equation, outcomes: Outcomes) -> EquationReport:
    compared = [o for key, o in outcomes.items() if key[0] in ("kind", "primitive") and key[1] == e.id]
    ran = list(_runs(book, e, outcomes))
    return EquationReport(
        id=e.id,
        title=e.title,
        stated=f"{e.file}:{e.line}",
        article=e.article,
        latex=e.latex,
        block=e.block,
        reading=e.reading,
        deviations=e.deviations,
        source=e.source,
        code=tuple((p.file, p.line, p.name) for p in book.code.get(e.id, ())),
        reference=e.reference
        or next((_dotted(p.ref) for p in book.primitives.values() if p.eq == e.id and p.ref), None),
        agrees=all(o.failure is None for o in compared) if compared else None,
        agreement_examples=sum(o.examples for o in compared),
        agreement_worst=max((o.worst for o in compared), default=0.0),
        laws=book.serving(e.id),
        verdict=e.verdict,
        examples=sum(o.examples for o in ran),
        worst=max((o.worst for o in ran), default=0.0),
        mutants=_mutants_of(book, e, outcomes),
    )


def _dotted(f: Callable[..., Any]) -> str:
    return f"{f.__module__}.{f.__qualname__}"


def _runs(book: Book, e: Equation, outcomes: Outcomes) -> Iterator[Outcome]:
    """Runs of the laws that serve an equation: on its own implementations and block, or, of a kind without, on all."""
    own = {s.name for s in book.subjects.values() if s.equation == e.id}
    for law in (book.laws[name] for name in book.serving(e.id)):
        subjects = {s.name for s in book.subjects_of(law.kind)}
        on = {*((subjects & own) or subjects), e.id}
        yield from (
            o for key, o in outcomes.items() if key[0] in ("law", "block") and key[1] == law.name and key[2] in on
        )


def _mutants_of(book: Book, e: Equation, outcomes: Outcomes) -> tuple[tuple[str, bool], ...]:
    laws = set(book.serving(e.id))
    found: dict[str, bool] = {}
    for key, o in outcomes.items():
        if key[0] == "mutant" and key[2] in laws and getattr(book.mutants[key[1]].f, "eq", e.id) == e.id:
            found[key[1]] = found.get(key[1], True) and _killed(o)
    return tuple(found.items())


def _claim(book: Book, c: Claim, outcomes: Outcomes) -> ClaimReport:
    ran = outcomes.get(("claim", c.id))
    return ClaimReport(
        id=c.id,
        title=c.title,
        stated=f"{c.file}:{c.line}",
        article=c.article,
        verdict=c.verdict,
        says=c.says,
        right=c.right,
        block=c.block,
        passed=None if ran is None else ran.failure is None,
        laws=book.serving(c.id),
    )


def _law(book: Book, law: Law, outcomes: Outcomes) -> LawReport:
    runs = {key: o for key, o in outcomes.items() if key[0] in ("law", "block") and key[1] == law.name}
    failed = [f"on {_on(key)}: {_shown(o)}" for key, o in runs.items() if o.failure is not None]
    return LawReport(
        name=law.name,
        statement=law.statement,
        serves=law.serves,
        subjects=tuple(_on(key) for key in runs),
        examples=sum(o.examples for o in runs.values()),
        worst=max((o.worst for o in runs.values()), default=0.0),
        passed=bool(runs) and not failed and all(o.examples for o in runs.values()),
        failure="\n\n".join(failed) or None,
        mutants=tuple((key[1], _killed(o)) for key, o in outcomes.items() if key[0] == "mutant" and key[2] == law.name),
        seconds=sum(o.seconds for key, o in outcomes.items() if law.name in key),
    )


def _mutant(m: Mutant, outcomes: Outcomes) -> MutantReport:
    runs = {name: o for name in m.kills if (o := outcomes.get(("mutant", m.name, name))) is not None}
    return MutantReport(
        name=m.name,
        met=m.met,
        killed=bool(runs) and all(_killed(o) for o in runs.values()),
        by=tuple((name, _killed(o)) for name, o in runs.items()),
        counterexample=next((_shown(o) for o in runs.values() if o.failure is not None), None),
    )


def _killed(o: Outcome) -> bool:
    return o.failure is not None and not o.raised


def _on(key: tuple[str, ...]) -> str:
    return f"the block of {key[2]}" if key[0] == "block" else key[2]


def _shown(o: Outcome) -> str:
    return f"{o.failure}\n{o.counterexample}" if o.counterexample else str(o.failure)


def holes(book: Book, chosen: Selection, outcomes: Outcomes) -> Iterator[str]:
    """Every hole in the chosen part, one line each."""
    yield from _holes_of_entries(book, chosen, outcomes)
    yield from _holes_of_code(book, chosen)
    yield from _holes_of_laws(book, chosen, outcomes)


def _holes_of_entries(book: Book, chosen: Selection, outcomes: Outcomes) -> Iterator[str]:
    for e in book.specs.equations.values():
        if e.id not in chosen.equations:
            continue
        at = f"{e.id} ({e.file}:{e.line})"
        if e.id not in book.code:
            yield f"{at} has no code: nothing in the package names it"
        if e.reference is not None and e.reference not in book.places:
            yield f"{at} refers to {e.reference}, which the package does not define"
        if not book.serving(e.id):
            yield f"{at} is served by no law"
        if e.id in book.broken:
            yield f"the block of {at} does not run: {book.broken[e.id]}"
        yield from _misfits(book, e)
    for key, o in outcomes.items():
        if key[0] in ("kind", "primitive") and o.failure is not None:
            yield f"{key[1]}: block and code ({key[2]}) disagree: {o.failure}"
        elif key[0] in ("kind", "primitive") and o.examples == 0:
            yield f"{key[1]}: block and code ({key[2]}) were compared on no example"
        elif key[0] == "claim" and o.failure is not None:
            yield f"the check of {key[1]} fails: {o.failure}"


def _misfits(book: Book, e: Equation) -> Iterator[str]:
    """Blocks that nothing can be compared with, though there is code of a public kind or a primitive for it."""
    kinds = [book.kinds[s.kind] for s in book.subjects.values() if s.equation == e.id and s.kind in book.kinds]
    public = [k for k in kinds if k.public]
    primitives = [p for p in book.primitives.values() if p.eq == e.id]
    if any(fits(e, parameters(k)) for k in kinds) or any(fits_primitive(p, e) for p in primitives):
        return
    if public or primitives:
        wanted = public[0].signature if public else f"{primitives[0].inputs} and keywords {(*primitives[0].defaults,)}"
        yield f"the block of {e.id} ({e.file}:{e.block_line}) takes {', '.join(e.parameters)}, its code {wanted}"


def _holes_of_code(book: Book, chosen: Selection) -> Iterator[str]:
    if not chosen.whole:
        return
    for name, places in book.code.items():
        if name not in book.specs.equations:
            yield f"{places[0].file}:{places[0].line} {places[0].name} names {name}, which no entry of specs/ defines"
    for s in book.subjects.values():
        if s.equation not in book.specs.equations and s.equation not in book.specs.claims:
            yield f"implementation {s.name} names {s.equation}, which no entry of specs/ defines"
        if s.kind not in book.kinds:
            yield f"implementation {s.name} is of the kind {s.kind}, which is not registered"


def _failures(laws: Iterable[Law], outcomes: Outcomes) -> Iterator[str]:
    """Laws that fail, or ran no example."""
    names = {law.name for law in laws}
    for key, o in outcomes.items():
        if key[0] in ("law", "block") and key[1] in names:
            if o.failure is not None:
                yield f"law {key[1]} fails on {_on(key)}: {o.failure}"
            elif o.examples == 0:
                yield f"law {key[1]} ran no example on {_on(key)}"


def _holes_of_laws(book: Book, chosen: Selection, outcomes: Outcomes) -> Iterator[str]:
    for name in book.kinds:
        if name in chosen.kinds and not book.subjects_of(name):
            yield f"kind {name} has no implementation under audit"
        if name in chosen.kinds and not any(law.kind == name for law in book.laws.values()):
            yield f"kind {name} has no law"
    for law in book.laws.values():
        if law.name not in chosen.laws:
            continue
        if law.kind not in book.kinds:
            yield f"law {law.name} is of the kind {law.kind}, which is not registered"
        for served in law.serves:
            if served not in book.specs.equations and served not in book.specs.claims:
                yield f"law {law.name} serves {served}, which no entry of specs/ defines"
        if law.skip is not None:
            yield f"law {law.name} is skipped: {law.skip}"
            continue
        yield from _failures([law], outcomes)
        if not any(key[0] == "mutant" and key[2] == law.name and _killed(o) for key, o in outcomes.items()):
            yield f"law {law.name} finds no mutant"
    for m in book.mutants.values():
        for name in m.kills:
            ran = outcomes.get(("mutant", m.name, name))
            if ran is not None and not _killed(ran):
                yield f"mutant {m.name} survives {name}" + (
                    f": {ran.failure}, which is no finding" if ran.raised else ""
                )
            if chosen.whole and name not in book.laws:
                yield f"mutant {m.name} is to be found by {name}, which is no law"
        if chosen.whole and not m.kills:
            yield f"mutant {m.name} names no law that is to find it"
