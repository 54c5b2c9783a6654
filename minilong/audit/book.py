"""Everything that an audit looks at, as one value: entries, code, kinds, laws, mutants, implementations.

The audit of minilong opens the real one; a test makes a small one with a hole in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import minilong
from minilong.audit.agreement import fits, fits_primitive
from minilong.audit.law import Kind, Law, Mutant, Subject
from minilong.audit.sources import Place, by_equation, definitions
from minilong.audit.specs import Equation, Specs, read_specs
from minilong.autodiff import REGISTRY, Primitive
from minilong.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Book:
    """The registries and the specifications. `places`: definitions in the code, by dotted name."""

    specs: Specs
    places: Mapping[str, Place]
    kinds: Mapping[str, Kind]
    laws: Mapping[str, Law]
    mutants: Mapping[str, Mutant]
    subjects: Mapping[str, Subject]
    primitives: Mapping[str, Primitive]

    @cached_property
    def code(self) -> dict[str, tuple[Place, ...]]:
        """Where the code names each equation."""
        return by_equation(dict(self.places))

    @cached_property
    def blocks(self) -> dict[str, Callable[..., Any]]:
        """The function of each equation whose block runs."""
        namespace = self.namespace
        return {e.id: namespace[e.function] for e in self.specs.equations.values() if e.id not in self.broken}

    @cached_property
    def _run(self) -> tuple[dict[str, Any], dict[str, str]]:
        return self.specs.functions()

    @property
    def namespace(self) -> dict[str, Any]:
        """What the equations' blocks define."""
        return self._run[0]

    @property
    def broken(self) -> dict[str, str]:
        """What went wrong with each block that does not run."""
        return self._run[1]

    def laws_of(self, kind: str) -> list[Law]:
        """The laws of a kind that are not skipped."""
        return [law for law in self.laws.values() if law.kind == kind and law.skip is None]

    def subjects_of(self, kind: str) -> list[Subject]:
        """The implementations of a kind."""
        return [s for s in self.subjects.values() if s.kind == kind]

    def serving(self, entry: str) -> tuple[str, ...]:
        """Names of the laws that serve an equation or claim."""
        return tuple(law.name for law in self.laws.values() if entry in law.serves)

    def fitting_subjects(self, equation: Equation) -> list[Subject]:
        """Implementations of an equation whose kind has the parameters of its block."""
        subjects = [s for s in self.subjects.values() if s.equation == equation.id and s.kind in self.kinds]
        return [s for s in subjects if fits(equation, parameters(self.kinds[s.kind]))]

    def fitting_primitives(self, equation: Equation) -> list[Primitive]:
        """The primitive of an equation, if its block takes the primitive's inputs and keywords."""
        own = [p for p in self.primitives.values() if p.eq == equation.id]
        return [p for p in own if fits_primitive(p, equation)]

    def fitting_blocks(self, kind: str) -> list[Equation]:
        """Equations whose blocks can stand in for an implementation of the kind."""
        named = dict.fromkeys(s.equation for s in self.subjects_of(kind))
        entries = [self.specs.equations[name] for name in named if name in self.blocks]
        return [e for e in entries if fits(e, parameters(self.kinds[kind]))]


def parameters(kind: Kind) -> tuple[str, ...]:
    """Names of the parameters in a kind's signature."""
    match = re.search(r"\(([^()]*)\)", kind.signature)
    return tuple(p for part in match[1].split(",") if (p := part.strip())) if match else ()


def open_book(specs: Path | None = None) -> Book:
    """The audit of this package: all registries, full, and the shipped specifications."""
    from minilong.audit import KINDS, LAWS, MUTANTS, SUBJECTS, load

    load()
    places = definitions(Path(minilong.__file__).resolve().parent)
    return Book(read_specs(specs), places, KINDS, LAWS, MUTANTS, SUBJECTS, REGISTRY)


@dataclass(frozen=True)
class Selection:
    """The part of a book that one audit looks at: ids of entries, names of laws and kinds. `whole`: all of it.

    `named`: laws that were asked for by their own name or kind. The others serve an equation that was asked for, and
    run on its implementations and mutants only.
    """

    equations: frozenset[str]
    claims: frozenset[str]
    laws: frozenset[str]
    kinds: frozenset[str]
    named: frozenset[str]
    whole: bool

    def subjects(self, law: Law, all_of_them: list[Subject]) -> list[Subject]:
        """The implementations to run a law on, of those of its kind."""
        own = [s for s in all_of_them if s.equation in self.equations]
        return all_of_them if law.name in self.named or not own else own

    def mutants(self, law: Law, all_of_them: list[Mutant]) -> list[Mutant]:
        """The mutants for a law to find, of those that it is to find: wrong primitives belong to one equation."""
        own = [m for m in all_of_them if getattr(m.f, "eq", None) in self.equations]
        return all_of_them if law.name in self.named or not own else own


def select(book: Book, pattern: str | None) -> Selection:
    """What a pattern names: a glob, or a part, of ids, law names or kinds; with the equations that chosen laws serve.

    UserError where nothing fits.
    """
    equations, claims = set(book.specs.equations), set(book.specs.claims)
    if pattern is None:
        laws = frozenset(book.laws)
        return Selection(frozenset(equations), frozenset(claims), laws, frozenset(book.kinds), laws, whole=True)

    def fitting(name: str) -> bool:
        return fnmatchcase(name, pattern) if re.search(r"[*?\[]", pattern) else pattern in name

    names = {*equations, *claims, *book.laws, *book.kinds}
    whole_name = pattern in {*equations, *claims, *book.laws}  # eq:gelu is not eq:gelu-tanh as well
    chosen = {pattern} if whole_name else {name for name in names if fitting(name)}
    if not chosen:
        short = {name.partition(":")[2] or name for name in names}
        near = did_you_mean(pattern, {*names, *short})
        raise UserError(f"no equation, claim, law or kind fits {pattern!r}{near}; `minilong audit --list` lists them")
    named = {law.name for law in book.laws.values() if {law.name, law.kind} & chosen}
    serving = named | {law.name for law in book.laws.values() if chosen & set(law.serves)}
    kinds = {law.kind for law in book.laws.values() if law.name in serving} | (chosen & set(book.kinds))
    entries = chosen & (equations | claims)
    if not entries:  # laws or kinds are named: show what they serve as well
        entries = {name for law in named for name in book.laws[law].serves} & (equations | claims)
    shown = frozenset(entries & equations), frozenset(entries & claims)
    return Selection(*shown, frozenset(serving), frozenset(kinds), frozenset(named), whole=False)
