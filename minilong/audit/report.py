"""What an audit found, as plain values: the table, the JSON file and the page are three renderings of one report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LawReport:
    """One law on this project's implementations of its kind, and how it fared against its mutants."""

    name: str
    statement: str
    serves: tuple[str, ...]
    subjects: tuple[str, ...]
    examples: int
    worst: float
    """Worst error as a share of its bound, over all subjects."""
    passed: bool
    failure: str | None
    """What was found and a minimal counterexample, as text, if it failed."""
    mutants: tuple[tuple[str, bool], ...]
    """(mutant, killed by this law)"""
    seconds: float


@dataclass(frozen=True)
class MutantReport:
    """One mutant: where the mistake was met, and the laws that were to find it with whether they did."""

    name: str
    met: str
    killed: bool
    by: tuple[tuple[str, bool], ...]
    counterexample: str | None


@dataclass(frozen=True)
class EquationReport:
    """One equation of `specs/`: statement, code, references, laws, and what the article says of it."""

    id: str
    title: str
    stated: str
    """File and line in `specs/`."""
    article: str | None
    """The article's section, or None for an equation that it only implies."""
    latex: str
    block: str
    reading: str
    deviations: str
    source: str
    code: tuple[tuple[str, int, str], ...]
    """(file, line, name) of each implementation."""
    reference: str | None
    """The definition that a fused implementation must equal."""
    agrees: bool | None
    """Whether block and code agree on random cases; None where the block is stated for reading only."""
    agreement_examples: int
    agreement_worst: float
    laws: tuple[str, ...]
    verdict: str | None
    """holds, corrected or reading: the article's printed form; None if the article does not print it."""
    examples: int = 0
    """Examples of the laws that serve it, on its own implementations and block."""
    worst: float = 0.0
    """The worst error of these, as a share of its bound."""
    mutants: tuple[tuple[str, bool], ...] = ()
    """(mutant, killed by all laws that are to find it): those of its laws, of a primitive only its own."""


@dataclass(frozen=True)
class ClaimReport:
    """One worked example, number, line of code or statement of the article."""

    id: str
    title: str
    stated: str
    article: str
    verdict: str
    """holds, corrected, reading, or unchecked (no program can decide it)."""
    says: str
    right: str
    block: str
    passed: bool | None
    """Whether the entry's own check ran through; None where it has none (verdict unchecked)."""
    laws: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The whole audit. `holes` lists every reason for which it fails, one line each; none means that it passes."""

    version: str
    examples: int
    seconds: float
    laws: tuple[LawReport, ...]
    holes: tuple[str, ...]
    equations: tuple[EquationReport, ...] = ()
    claims: tuple[ClaimReport, ...] = ()
    mutants: tuple[MutantReport, ...] = ()
    device: str = "cpu"
    """Where the functions under audit computed. On a GPU it is their laws that are run: what joins equations, blocks
    and mutants is the same wherever numbers are computed, and is looked at on a CPU."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(law, why it says nothing of a device)"""

    @property
    def on_cpu(self) -> bool:
        """Whether this is the whole audit."""
        return self.device == "cpu"

    @property
    def passed(self) -> bool:
        """Whether there is no hole."""
        return not self.holes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "passed": self.passed}
