"""What can go wrong with the files of a run, as one line each: the fact and the remedy."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minilong.errors import UserError

_MEND = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit of the file size (ulimit -f)",
    errno.EACCES: "make it writable, or choose another folder",
    errno.EPERM: "make it writable, or choose another folder",
    errno.EROFS: "choose a folder on a disk that is writable",
    errno.ENOTDIR: "choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "check the disk",
    errno.ENOENT: "put back what another program removed",
}


@contextmanager
def as_user_errors(fact: str) -> Iterator[None]:
    """An OSError inside becomes a UserError that starts with `fact`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{fact}: {reason(error)}; {mend(error)}") from error


def damaged(path: Path, what: str) -> UserError:
    """The error that names a damaged file and what to do about it."""
    if path.name == "config.toml":
        remedy = f"undo the change, or train anew with `minilong train --config {quoted(path)} --out FOLDER`"
    else:
        remedy = "restore it from a copy of the run, or train anew with --replace"
    return UserError(f"{path} {what}; {remedy}")


def reason(error: OSError) -> str:
    """What the system says, without the path."""
    return error.strerror or str(error)


def mend(error: OSError) -> str:
    """What a person can do about it."""
    return _MEND.get(error.errno or 0, "mend that")


def quoted(path: Path) -> str:
    """A path to paste into a shell."""
    return shlex.quote(str(path))
