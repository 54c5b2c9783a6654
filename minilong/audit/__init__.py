"""The audit: equations in `specs/`, the code that implements them, laws that bind them, mutants that prove the laws.

In a test suite of your own:

    import pytest
    from minilong.audit import laws_for

    @pytest.mark.parametrize("law", laws_for("attention"), ids=str)
    def test_my_attention(law):
        law(my_attention)

Needs the extra `audit` (Hypothesis).
"""

from __future__ import annotations

from minilong.audit.law import KINDS, LAWS, MUTANTS, SUBJECTS, Law, LawBroken, Mutant, Subject

__all__ = ["KINDS", "LAWS", "MUTANTS", "SUBJECTS", "Law", "LawBroken", "Mutant", "Subject", "laws_for", "load"]


def load() -> None:
    """Import every law, mutant and subject of the package, so that the registries are full."""
    import minilong.audit.laws  # noqa: F401 - the import registers them


def laws_for(kind: str) -> list[Law]:
    """The laws that an implementation of a kind must satisfy. ValueError for an unknown kind names the known ones."""
    load()
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}; choose one of {', '.join(sorted(KINDS))}")
    return [law for law in LAWS.values() if law.kind == kind]
