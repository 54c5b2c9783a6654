"""What a person did wrong, in one line: the fact and the remedy.

Everything that a command line user can cause (a missing file, a misspelt key, a damaged checkpoint, a full disk) is
raised as a `UserError`; the command line prints its text and ends with its exit code, without a traceback. Mistakes of
programmers (wrong shapes, wrong types) stay ordinary `ValueError` and `TypeError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can mend: `fact; remedy` in one line. Exit code 2."""

    exit_code = 2


class Diverged(UserError):
    """The loss or a gradient stopped being a finite number. Exit code 1."""

    exit_code = 1


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest choice, or an empty string where none is near."""
    near = get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
