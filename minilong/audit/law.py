"""A law: a statement about a function, checked on random cases. A mutant: a wrong function that a law must find.

A law does not know whose function it checks. The same law runs on this project's implementation, on the executable
block of its equation in `specs/`, on every mutant, on an implementation of a user's own (`minilong audit --on`), and
in somebody else's test suite (`minilong.audit.laws_for`).

A law is registered by the decorator `law`, a mutant by `mutant`, an implementation by `subject`. Names are unique.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Case: TypeAlias = Mapping[str, Any]
"""The drawn arguments of one check, by name: arrays and numbers that can be printed as Python."""


class LawBroken(AssertionError):
    """A law does not hold for a case; the message says what was found and what the law asks for."""


@dataclass
class Measure:
    """What a check reports to: `close` and `holds` raise LawBroken, and remember how near to its bound a law came."""

    worst: float = 0.0
    checks: int = 0

    def close(self, actual: Any, expected: Any, bound: float, what: str = "the result") -> None:
        """Equal to within an absolute `bound` (from `numeric.rounding_bound`), in shape too; NaN is never close."""
        self.checks += 1
        a, e = np.asarray(actual), np.asarray(expected)
        if a.shape != e.shape:
            raise LawBroken(f"{what} has shape {a.shape}, and the law asks for {e.shape}")
        if a.size == 0:
            return
        if np.array_equal(a, e):
            return
        with np.errstate(all="ignore"):
            error = np.abs(a.astype(np.float64) - e.astype(np.float64))
        worst = float(np.max(error)) if not np.isnan(error).any() else float("nan")
        if not worst <= bound:
            at = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
            place = tuple(int(i) for i in np.unravel_index(at, a.shape))
            if np.isnan(e.reshape(-1)[at]):
                raise LawBroken(f"{what} at {list(place)} is compared with what is no number, and nothing equals that")
            raise LawBroken(
                f"{what} at {list(place)} is {a.reshape(-1)[at].item()!r}, and the law asks for "
                f"{e.reshape(-1)[at].item()!r} (error {float(error.reshape(-1)[at]):.3g}, bound {bound:.3g})"
            )
        self.worst = max(self.worst, worst / bound if bound else 0.0)

    def holds(self, condition: Any, what: str) -> None:
        """`condition` is true; `what` says what was found instead, if it is not."""
        self.checks += 1
        if not bool(condition):
            raise LawBroken(what)


@dataclass(frozen=True)
class Kind:
    """A family of functions with one signature. `public`: users may audit their own (`--as NAME`)."""

    name: str
    signature: str
    about: str
    public: bool = False

    @property
    def function(self) -> str:
        """The function's default name in a user's file."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Law:
    """`check(f, case, measure)` raises LawBroken where the statement fails for `f`. `serves`: ids in `specs/`."""

    name: str
    kind: str
    serves: tuple[str, ...]
    statement: str
    cases: Callable[[], SearchStrategy[Case]] = field(repr=False)
    check: Callable[[Callable[..., Any], Case, Measure], None] = field(repr=False)
    skip: str | None = None
    share: float = 1.0
    """Of the examples asked for, how many are run: less than 1 for laws that train or search at each example."""

    def __str__(self) -> str:
        return self.name

    def __call__(self, f: Callable[..., Any], *, examples: int = 100) -> None:
        """Check a function. LawBroken names the equation and a minimal counterexample that pastes into Python."""
        from minilong.audit.run import explain, run_law

        result = run_law(self, f, examples=examples)
        if result.failure is not None:
            raise LawBroken(explain(self, result.failure))


@dataclass(frozen=True)
class Mutant:
    """A wrong function that must break each law in `kills`. `met`: where the mistake was met, or why it is likely."""

    name: str
    kind: str
    f: Callable[..., Any] = field(repr=False)
    kills: tuple[str, ...]
    met: str


@dataclass(frozen=True)
class Subject:
    """An implementation of this project under a kind: `f` adapts `code` to the kind's signature.

    `variant(block, *arguments)` calls the block of its equation where the equation leaves a choice open (a layout, say)
    and this implementation has chosen otherwise than the block.
    """

    name: str
    kind: str
    f: Callable[..., Any] = field(repr=False)
    code: Any = field(repr=False)
    equation: str
    variant: Callable[..., Any] | None = field(default=None, repr=False)


KINDS: dict[str, Kind] = {}
LAWS: dict[str, Law] = {}
MUTANTS: dict[str, Mutant] = {}
SUBJECTS: dict[str, Subject] = {}


def kind(name: str, signature: str, about: str, *, public: bool = False) -> Kind:
    """Register a kind."""
    return _add(KINDS, Kind(name, signature, about, public))


def law(
    of: str,
    name: str,
    *,
    serves: str | tuple[str, ...],
    cases: Callable[[], Any],
    skip: str | None = None,
    share: float = 1.0,
) -> Callable[[Callable[..., None]], Law]:
    """Register a law of a kind; the check's docstring is the statement. The full name is `kind/name`."""

    def declare(check: Callable[[Callable[..., Any], Case, Measure], None]) -> Law:
        statement = " ".join((check.__doc__ or "").split())
        if not statement:
            raise TypeError(f"law {name!r} has no statement: give its check a docstring")
        ids = (serves,) if isinstance(serves, str) else serves
        return _add(LAWS, Law(f"{of}/{name}", of, ids, statement, cases, check, skip, share))

    return declare


def mutant(of: str, name: str, *, kills: str | tuple[str, ...], met: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a mutant of a kind; `kills` names laws of the kind (without `kind/`)."""

    def declare(f: Callable[..., Any]) -> Callable[..., Any]:
        names = (kills,) if isinstance(kills, str) else kills
        _add(MUTANTS, Mutant(f"{of}/{name}", of, f, tuple(f"{of}/{n}" for n in names), met))
        return f

    return declare


def subject(
    of: str, name: str, *, code: Any, equation: str, variant: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Any]:
    """Register an implementation: the decorated adapter has the kind's signature, `code` is what it calls."""

    def declare(f: Callable[..., Any]) -> Callable[..., Any]:
        _add(SUBJECTS, Subject(name, of, f, code, equation, variant))
        return f

    return declare


Item = TypeVar("Item", Kind, Law, Mutant, Subject)


def _add(registry: dict[str, Item], item: Item) -> Item:
    if item.name in registry:
        raise TypeError(f"{item.name!r} is registered twice")
    registry[item.name] = item
    return item
