"""The benchmark: a registry of cases, each a computation of minilong beside the same computation of a peer.

`case.py` says what a case is, `registry.py` lists them, `worker.py` is the process that one side runs in, and
`runner.py` alternates the sides. Everything is light to import: a side's libraries are loaded by its own process.
"""

from .case import Case, Side, Work
from .registry import CASES, PEERS

__all__ = ["CASES", "PEERS", "Case", "Side", "Work"]
