"""Imports go one way, heavy libraries stay where they belong, and `import minilong` is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minilong

ROOT = Path(minilong.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A package imports from its own row and from the rows above it, never from below.
ROWS = (
    ("errors", "keys"),
    ("backend",),
    ("autodiff",),
    ("attention", "positions"),
    ("memory",),
    ("nn",),
    ("models", "objectives", "data", "text"),
    ("optim",),
    ("train", "embeddings"),
    ("experiments",),
    ("audit", "cli", "__main__"),
)
RANK = {name: i for i, row in enumerate(ROWS) for name in row}
HIGH = ("data", "text", "train", "embeddings", "experiments", "audit", "cli", "__main__")
NUMERIC = {"numpy", "scipy", "minilong", *sys.stdlib_module_names}
ALSO = {"backend/workers.py": {"threadpoolctl"}}
"""Threads over blocks need the matrix library held to one, which NumPy cannot do."""


def room(path: Path) -> str:
    """The part of the package that a file belongs to; "" for `minilong/__init__.py`."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, at any depth; those for type checkers only left out."""
    stack: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if node.module == "minilong":
                yield from (f"minilong.{alias.name}" for alias in node.names)
        stack.extend(ast.iter_child_nodes(node))


def test_every_file_has_a_place() -> None:
    assert {room(f) for f in FILES} <= {"", *RANK}
    assert {"errors", "backend", "autodiff"} <= {room(f) for f in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = RANK.get(room(path), 0)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "minilong" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= own, f"{path.relative_to(ROOT)} imports {name}"


def test_packages_of_one_row_do_not_import_each_other_in_turn() -> None:
    edges = {(room(f), n.split(".")[1]) for f in FILES for n in imports(f) if n.startswith("minilong.")}
    assert not [(a, b) for a, b in edges if a != b and (b, a) in edges]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_backend_names_cupy(path: Path) -> None:
    if room(path) == "backend":
        return
    assert not [n for n in imports(path) if n.startswith("cupy")]
    tree = ast.parse(path.read_text("utf-8"))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id.startswith("cupy")]


@pytest.mark.parametrize(
    "path", [f for f in FILES if room(f) in ("autodiff", "attention", "memory")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_kernels_take_fresh_memory_from_workspace(path: Path) -> None:
    """The tests can poison `workspace`; what a kernel takes elsewhere, they cannot."""
    tree = ast.parse(path.read_text("utf-8"))
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("empty")]


@pytest.mark.parametrize("path", [f for f in FILES if room(f) not in HIGH], ids=lambda p: str(p.relative_to(ROOT)))
def test_numerical_code_needs_numpy_and_scipy_only(path: Path) -> None:
    also = ALSO.get(path.relative_to(ROOT).as_posix(), set())
    also = also | {"cupy", "cupyx"} if room(path) == "backend" else also
    assert {n.split(".")[0] for n in imports(path)} <= NUMERIC | also


def loaded(statement: str) -> set[str]:
    """Packages in memory after a statement in a fresh process."""
    code = f"import sys\n{statement}\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("statement", ["import minilong", "import minilong.autodiff", "import minilong.attention"])
def test_import_is_light(statement: str) -> None:
    heavy = {
        "scipy", "torch", "matplotlib", "rich", "click", "tokenizers", "jieba", "safetensors", "cupy", "hypothesis",
        "threadpoolctl",
    }  # fmt: skip
    assert not loaded(statement) & heavy
