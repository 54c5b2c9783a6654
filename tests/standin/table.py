"""The stored table of CuPy's names and signatures, and the check of a call against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "cupy_api.json").read_text("utf-8"))
VERSION: str = TABLE["version"]


class Signature:
    """The parameters of one function: a call is checked in a microsecond, an error names the parameter."""

    __slots__ = ("keywords", "name", "names", "positional", "required", "title")

    def __init__(self, title: str, parameters: str) -> None:
        self.title = title
        parts = [part for part in parameters.split(", ") if part and part != "self"]
        stars = [i for i, part in enumerate(parts) if part.startswith("*")]
        by_place = parts[: stars[0]] if stars else parts
        self.names = tuple(part.rstrip("=") for part in by_place)
        self.required = tuple(part for part in by_place if not part.endswith("="))
        anything = any(part.startswith("*") and len(part) > 1 and part[1] != "*" for part in parts)
        self.positional = 10**9 if anything else len(by_place)
        any_keyword = any(part.startswith("**") for part in parts)
        self.keywords = None if any_keyword else frozenset(p.rstrip("=") for p in parts if not p.startswith("*"))

    def check(self, args: tuple[Any, ...], kw: dict[str, Any]) -> None:
        """Raise TypeError where CuPy has no such parameter, too many are given, or one is missing."""
        n = len(args)
        if n > self.positional:
            raise TypeError(f"{self.title} takes {self.positional} positional arguments, not {n}")
        for name in kw:
            if self.keywords is not None and name not in self.keywords:
                raise TypeError(f"{self.title} has no parameter {name!r} in CuPy {VERSION}; it has {list(self.names)}")
            if name in self.names[:n]:
                raise TypeError(f"{self.title}: {name!r} is given twice")
        if n < len(self.required):
            for name in self.required[n:]:
                if name not in kw:
                    raise TypeError(f"{self.title}: {name!r} is missing")


def signature(space: str, name: str) -> Signature:
    """The signature of `name` in a part of the table ("cupy", "ndarray", "Generator", ...)."""
    found = TABLE[space][name]
    return Signature(f"{space}.{name}", found["params"])


def has(space: str, name: str) -> bool:
    """Whether CuPy has that name."""
    return name in TABLE[space]
