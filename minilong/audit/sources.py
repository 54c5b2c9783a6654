"""Where the code names an equation, read off the source files without importing them.

Code names an equation by its id in backquotes in the docstring of a module, class, function or method, or by `eq=` in
the declaration of a primitive.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMED = re.compile(r"`(eq:[a-z0-9]+(?:-[a-z0-9]+)*)`")


@dataclass(frozen=True)
class Place:
    """A definition: file (below the package's parent), first and last line, dotted name, and the equations it names."""

    file: str
    line: int
    end: int
    name: str
    equations: tuple[str, ...]


def definitions(package: Path, *, leave_out: tuple[str, ...] = ("audit", "specs")) -> dict[str, Place]:
    """Every module, class, function and method of a package by its dotted name, folders `leave_out` excepted."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0] in leave_out:
            continue
        text = path.read_text("utf-8")
        dotted = ".".join((package.name, *inside.with_suffix("").parts)).removesuffix(".__init__")
        for place in _walk(ast.parse(text), f"{package.name}/{inside.as_posix()}", dotted, text.count("\n") + 1):
            found[place.name] = place
    return found


def by_equation(places: dict[str, Place]) -> dict[str, tuple[Place, ...]]:
    """The places that name each equation, in the order of files and lines; a module only if nothing in it does."""
    found: dict[str, list[Place]] = {}
    for place in places.values():
        for name in place.equations:
            found.setdefault(name, []).append(place)
    return {name: tuple(_most_exact(items)) for name, items in found.items()}


def _most_exact(items: list[Place]) -> list[Place]:
    within = {p.file for p in items if p.line > 1}
    return [p for p in items if p.line > 1 or p.file not in within]


def _walk(node: ast.AST, file: str, name: str, end: int) -> Iterator[Place]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        named = NAMED.findall(ast.get_docstring(node) or "")
        line = 1
        if not isinstance(node, ast.Module):
            line, end = node.lineno, node.end_lineno or node.lineno
            named += [eq for decorator in node.decorator_list for eq in _declared(decorator)]
        yield Place(file, line, end, name, tuple(dict.fromkeys(named)))
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _walk(child, file, f"{name}.{child.name}", end)


def _declared(decorator: ast.expr) -> Iterator[str]:
    for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if keyword.arg == "eq" and isinstance(value, str):
            yield value
