"""All cases by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from .case import Case
from .cases_growth import GROWTH
from .cases_low_bit import LOW_BIT
from .cases_models import GENERATION, STEPS
from .cases_operations import KERNELS, OPERATIONS
from .cases_published import PUBLISHED
from .cases_system import SYSTEM

CASES: Mapping[str, Case] = MappingProxyType(
    {case.name: case for case in (*STEPS, *GENERATION, *PUBLISHED, *OPERATIONS, *KERNELS, *LOW_BIT, *SYSTEM, *GROWTH)}
)

PEERS: Mapping[str, str] = MappingProxyType(
    {"torch": "torch", "torch-compile": "torch", "jax": "jax", "transformers": "transformers"}
)
"""Name of a peer -> the module that must be installed."""


def select(patterns: Sequence[str], cases: Mapping[str, Case] = CASES) -> tuple[list[Case], list[str]]:
    """The cases that names or globs mean (all of them for none), in their order, and the patterns that mean none."""
    if not patterns:
        return list(cases.values()), []
    unknown = [p for p in patterns if not any(fnmatchcase(name, p) for name in cases)]
    return [c for name, c in cases.items() if any(fnmatchcase(name, p) for p in patterns)], unknown
