"""What a case of the benchmark is: a value that names its sides, their settings, how they are compared and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

Settings: TypeAlias = Mapping[str, Any]
Arrays: TypeAlias = Mapping[str, np.ndarray]
OURS = "minilong"


class Side:
    """One side of a case, in a process of its own. It is built once: `Side(settings, threads, shared)`.

    settings: JSON values of the case. shared: weights and inputs that minilong's side gave by `share`; empty for that
    side itself. `run` is one repetition of what is timed, and every call does the same work.
    """

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        self.settings, self.threads, self.shared = settings, threads, shared

    def share(self) -> dict[str, np.ndarray]:
        """Weights and inputs for the peers, before anything was computed."""
        return {}

    def gate(self) -> dict[str, np.ndarray]:
        """Results that must agree between the sides."""
        return {}

    def run(self) -> None:
        """One repetition."""
        raise NotImplementedError

    def sweep(self, rounds: int, seconds: float) -> list[dict[str, Any]]:
        """Points of a growth case: each with `curve`, `x`, `times`, and what else its report needs."""
        raise NotImplementedError

    def profile(self, steps: int) -> dict[str, Any]:
        """Where the time of a repetition goes."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of threads and limits."""


@dataclass(frozen=True)
class Work:
    """What one repetition must do at least, in the unit of a ceiling.

    amount: floating-point operations (`matmul`) or bytes that are read and written once (`copy`).
    """

    ceiling: str
    amount: float


@dataclass(frozen=True)
class Case:
    """A named comparison.

    sides: name of the side -> where its class is, `.module:Class` in this package; minilong's own is always there.
    settings: JSON values that every side gets; `quick` replaces some of them in a quick run.
    work: settings -> what a repetition must do at least, or None where nothing is counted.
    tolerance: pattern of a result's name -> largest |ours - theirs| / |theirs| (Euclidean norms); the first pattern
    that fits counts, and `inf` stands for a result that rounding alone decides (the case's text says why).
    threads: of both sides, or None for what the command asks. seconds: what a round is filled with.
    repetition: about how long one takes on two cores, for the estimate. growth: points over sizes, without a peer.
    """

    name: str
    kind: str
    about: str
    sides: Mapping[str, str]
    settings: Settings
    quick: Settings = field(default_factory=dict)
    work: Any = None
    tolerance: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    seconds: float = 1.0
    repetition: float = 0.1
    growth: bool = False

    def __post_init__(self) -> None:
        if OURS not in self.sides:
            raise ValueError(f"case {self.name!r} has no side {OURS!r}")

    def shrunk(self) -> Case:
        """The case in tiny sizes and short rounds."""
        return replace(self, settings={**self.settings, **self.quick}, seconds=min(self.seconds, 0.01))

    def least_work(self) -> Work | None:
        """What a repetition must do at least, with these settings."""
        found: Work | None = None if self.work is None else self.work(self.settings)
        return found

    def estimate(self, peers: int, rounds: int) -> float:
        """About how many seconds it takes: starts of processes, gate, warm-up and rounds."""
        if self.growth:
            return 4.0 + rounds * self.repetition
        return (1 + peers) * (4.0 + 5 * self.repetition + rounds * (max(self.seconds, self.repetition) + 0.3))
