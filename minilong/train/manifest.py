"""The manifest of a run: which files its state consists of, with the size and the SHA-256 of each, and of itself.

A manifest is valid if and only if it is, byte for byte, what this program writes for its content. So every changed byte
is found, white space and the order of the entries included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

FORMAT = 1


class ManifestError(ValueError):
    """The bytes are not a valid manifest; the text says why, to follow the name of the file."""


class NewerFormat(ManifestError):
    """A valid manifest of a format that a later version of the program introduced."""


@dataclass(frozen=True)
class Entry:
    """Size in bytes and SHA-256 (hexadecimal) of a file, or of the committed beginning of a growing one."""

    size: int
    sha256: str

    @staticmethod
    def of(data: bytes) -> Entry:
        return Entry(len(data), sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """The files of one committed state; `commit` counts the commits of the folder, so no two manifests are equal."""

    commit: int
    files: Mapping[str, Entry]

    def to_bytes(self) -> bytes:
        """Canonical JSON, with the checksum of everything else in its last field."""
        files = {name: {"bytes": e.size, "sha256": e.sha256} for name, e in sorted(self.files.items())}
        return _render({"format": FORMAT, "commit": self.commit, "files": files})

    @staticmethod
    def from_bytes(data: bytes) -> Manifest:
        """The manifest that `to_bytes` wrote; ManifestError for anything else."""
        try:
            content = json.loads(data.decode("ascii"))
            content.pop("sha256")
            whole = _render(content) == data
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            whole = False
        if not whole:
            raise ManifestError("its content does not match its own checksum")
        # What follows is written by this program or one that imitates it, so only versions and bad intent can differ.
        try:
            version = _count(content["format"])
            if version > FORMAT:
                raise NewerFormat(f"format {version}, this version reads up to {FORMAT}")
            files = {_plain(name): Entry(_count(e["bytes"]), str(e["sha256"])) for name, e in content["files"].items()}
            return Manifest(_count(content["commit"]), files)
        except NewerFormat:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestError(f"it has an entry that no run has: {error}") from error


def is_plain(name: str) -> bool:
    """Whether `name` can be a file of a run: a visible name within the folder, and not the manifest's own."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\\0") and name != "manifest.json"


def _render(content: dict[str, object]) -> bytes:
    body = json.dumps(content)
    return (json.dumps({**content, "sha256": sha256(body.encode()).hexdigest()}, indent=1) + "\n").encode("ascii")


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"the file name {name!r}")
    return name


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"the number {value!r}")
    return value
