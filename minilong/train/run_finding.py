"""Which folders are runs, and what to say of those that are not."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from minilong.errors import UserError
from minilong.train.files import COMMIT, MANIFEST
from minilong.train.run_errors import damaged

STATE = "state.json"


def is_run(path: Path) -> bool:
    """Whether the folder holds a committed run, or one whose commit was cut off."""
    return (path / MANIFEST).exists() or (path / COMMIT / MANIFEST).exists()


def require_run(path: Path) -> None:
    """UserError where the path is no run folder: which runs there are beside it, or in it."""
    if path.is_file():
        raise UserError(f"{path} is a file; name the run folder that holds it")
    if not path.is_dir():
        runs = [p.name for p in path.parent.iterdir() if is_run(p)] if path.parent.is_dir() else []
        near = get_close_matches(path.name, runs, n=1)  # of the names alone: a long path is near to all its neighbours
        guess = f" (did you mean {str(path.with_name(near[0]))!r}?)" if near else ""
        raise UserError(f"there is no run folder {path}{guess}; `minilong train` makes one")
    if not is_run(path):
        if (path / STATE).exists():
            raise damaged(path / MANIFEST, "is missing")
        runs = sorted(str(p) for p in path.iterdir() if is_run(p))
        remedy = f"name a run in it: {', '.join(runs[:5])}" if runs else "name a folder that `minilong train` made"
        raise UserError(f"{path} is not a run folder; {remedy}")
