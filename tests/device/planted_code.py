"""A function of the package with a mistake in its text: compiled anew, its code in the place of the old one.

So nothing is imported again, and whoever holds the function, a registry for instance, has the wrong one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from minilong.autodiff import Primitive


@contextmanager
def planted(name: str, old: str, new: str) -> Iterator[None]:
    """A module of the package with one piece of text replaced, in which `numpy` is the host's library.

    AssertionError where the text does not occur exactly once, or not inside a function.
    """
    module = import_module(f"minilong.{name}")
    text = Path(str(module.__file__)).read_text("utf-8")
    assert text.count(old) == 1, f"{name}: {old!r} occurs {text.count(old)} times, not once"
    line = text[: text.index(old) + len(old) - len(old.lstrip())].count("\n") + 1
    path, _ = around(ast.parse(text), line)
    f = function_at(module, path)
    _, node = around(ast.parse(text.replace(old, new)), line)
    right = f.__code__
    f.__code__ = compiled(node, str(module.__file__))
    f.__globals__["numpy"] = import_module("numpy")
    forget(module, path)
    try:
        yield
    finally:
        f.__code__ = right
        del f.__globals__["numpy"]
        forget(module, path)


def around(tree: ast.Module, line: int) -> tuple[tuple[str, ...], ast.FunctionDef]:
    """Name and definition of the function, of a module or of a class in it, around a line."""
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        for f in members:
            if isinstance(f, ast.FunctionDef) and f.lineno <= line <= (f.end_lineno or 0):
                return ((node.name, f.name) if isinstance(node, ast.ClassDef) else (f.name,)), f
    raise AssertionError(f"line {line} is in no function")


def compiled(node: ast.FunctionDef, file: str) -> CodeType:
    """The code of a function, without what its decorators make of it."""
    node.decorator_list = []
    module = compile(ast.Module([node], []), file, "exec")  # with the future imports of this module, as everywhere
    (code,) = (c for c in module.co_consts if isinstance(c, CodeType))
    return code


def function_at(module: Any, path: tuple[str, ...]) -> FunctionType:
    """The function behind a name: a primitive's forward pass, what a cache or a decorator wraps."""
    found = module
    for name in path:
        found = vars(found)[name]
    if isinstance(found, Primitive):
        found = found.forward
    found = getattr(found, "__func__", found)
    found = getattr(found, "__wrapped__", found)
    assert isinstance(found, FunctionType)
    return found


def forget(module: Any, path: tuple[str, ...]) -> None:
    """Empty the cache of a function that has one."""
    found = vars(module)[path[0]]
    if hasattr(found, "cache_clear"):
        found.cache_clear()
