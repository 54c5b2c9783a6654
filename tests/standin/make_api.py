"""Write down what CuPy has and how it may be called: `python tests/standin/make_api.py cupy_api.json`.

Runs where CuPy is installed; no GPU is needed. One line an entry, sorted, so that an upgrade of CuPy shows as a diff.

Parameters are written as in Python, with "=" after those that have a default: "a, axis=, *, dtype=". The types of loops
are written as in NumPy: "ff->f".
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

Entry = dict[str, Any]


def parameters(f: Any) -> str:
    """The parameters of a function. Raises ValueError where it does not say."""
    try:
        given = inspect.signature(f).parameters.values()
    except (ValueError, TypeError):
        return from_docstring(f)
    out: list[str] = []
    for p in given:
        if p.kind is p.KEYWORD_ONLY and not any(x.startswith("*") for x in out):
            out.append("*")
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        out.append(stars + p.name + ("" if p.default is p.empty else "="))
    return ", ".join(out)


def from_docstring(f: Any) -> str:
    """The same of a compiled function, from the signature that is the first line of its docstring."""
    match = re.match(r"\s*[\w.]+\((.*?)\)\s*(?:->.*)?$", (f.__doc__ or "").split("\n")[0])
    if match is None:
        raise ValueError(f"{f} does not say what its parameters are")
    parts = [part.strip() for part in match[1].split(",")]
    return ", ".join(re.sub(r"^(?:[\w ]+ )?([*\w]+)(=?).*$", r"\1\2", part) for part in parts if part not in ("", "/"))


def loops(kernel: Any) -> Entry:
    """The types that a ufunc or reduction computes in, in the order in which CuPy tries them. invalid: those of them
    that raise TypeError."""
    types, invalid = [], []
    for op in kernel._ops.ops:
        types.append("->".join("".join(numpy.dtype(t).char for t in ts) for ts in (op.in_types, op.out_types)))
        if op.error_func:
            invalid.append(types[-1])
    return {"types": " ".join(types), **({"invalid": " ".join(invalid)} if invalid else {})}


def entry(x: Any, ufunc: type) -> Entry:
    """What the table says of one object."""
    if isinstance(x, ufunc):
        return {"kind": "ufunc", "nin": x.nin, "nout": x.nout, **loops(x), "at": x._scatter_op is not None}
    if inspect.ismodule(x):
        return {"kind": "module"}
    if isinstance(x, type):
        return {"kind": "type"}
    if callable(x):
        return {"kind": "function", "params": parameters(x)}
    return {"kind": "constant"}


def names(space: Any) -> list[str]:
    """The public names of a module or class."""
    return [name for name in dir(space) if not name.startswith("_")]


def module(space: ModuleType, ufunc: type) -> dict[str, Entry]:
    """All public names of a module."""
    return {name: entry(getattr(space, name), ufunc) for name in names(space)}


def methods(cls: type) -> dict[str, Entry]:
    """All public names of a class, and how its methods are called."""
    table: dict[str, Entry] = {}
    for name in names(cls):
        x = getattr(cls, name)
        table[name] = {"kind": "method", "params": parameters(x)} if callable(x) else {"kind": "attribute"}
    return table


def behind() -> dict[str, Entry]:
    """Loops of the kernels behind functions that are no ufuncs."""
    from cupy._core import _routines_logic, _routines_math, _routines_statistics
    from cupy._sorting import search

    kernels = {
        "all": _routines_logic.all,
        "any": _routines_logic.any,
        "clip": _routines_math.clip,
        "max": _routines_statistics.amax,
        "min": _routines_statistics.amin,
        "nanmax": _routines_statistics.nanmax,
        "nanmin": _routines_statistics.nanmin,
        "nansum": _routines_math.nansum_auto_dtype,
        "prod": _routines_math.prod_auto_dtype,
        "sum": _routines_math.sum_auto_dtype,
        "where": search._where_ufunc,
    }
    return {name: {"kind": "loops", **loops(kernel)} for name, kernel in kernels.items()}


def compiled(library: Path) -> dict[str, Entry]:
    """The functions of a compiled module that cannot be imported where its library is missing, by the docstrings that
    it holds: `gemmEx(intptr_t handle, int transa, ...)`. types: of the parameters, in C."""
    found = re.findall(rb"(\w+)\((intptr_t handle[^()\0]*)\)", library.read_bytes())
    table: dict[str, Entry] = {}
    for name, inside in found:
        parts = [part.strip().rsplit(" ", 1) for part in inside.decode().split(",")]
        table[name.decode()] = {
            "kind": "function",
            "params": ", ".join(re.sub("=.*", "=", parameter) for _, parameter in parts),
            "types": ", ".join(kind for kind, _ in parts),
        }
    return table


def api() -> dict[str, Any]:
    """The whole table of the CuPy that is installed here."""
    import cupy
    import cupy_backends.cuda.libs
    import cupyx
    import cupyx.scipy.special
    import ml_dtypes  # noqa: F401  (CuPy shows its loops for bfloat16 only where this is loaded)

    modules = {
        "cupy": cupy,
        "cupy.cuda": cupy.cuda,
        "cupy.cuda.runtime": cupy.cuda.runtime,
        "cupy.linalg": cupy.linalg,
        "cupy.random": cupy.random,
        "cupyx": cupyx,
        "cupyx.scipy.special": cupyx.scipy.special,
    }
    classes = {
        "Device": cupy.cuda.Device,
        "Event": cupy.cuda.Event,
        "Generator": cupy.random.Generator,
        "MemoryPool": cupy.cuda.MemoryPool,
        "MemoryPointer": cupy.cuda.MemoryPointer,
        "RawKernel": cupy.RawKernel,
        "RawModule": cupy.RawModule,
        "Stream": cupy.cuda.Stream,
        "ndarray": cupy.ndarray,
        "ufunc": cupy.ufunc,
    }
    table: dict[str, Any] = {"version": cupy.__version__}
    table |= {name: module(space, cupy.ufunc) for name, space in modules.items()}
    table |= {name: methods(cls) for name, cls in classes.items()}
    [cublas] = Path(cupy_backends.cuda.libs.__file__).parent.glob("cublas.*.so")
    table["cublas"] = compiled(cublas)
    table["loops"] = behind()
    return table


def lines(table: dict[str, Any]) -> Iterator[str]:
    """The table as JSON text with one line an entry."""
    yield "{"
    for i, (space, entries) in enumerate(sorted(table.items())):
        comma = "," if i + 1 < len(table) else ""
        if not isinstance(entries, dict):
            yield f"{json.dumps(space)}: {json.dumps(entries)}{comma}"
            continue
        yield f"{json.dumps(space)}: {{"
        yield ",\n".join(f"{json.dumps(name)}: {json.dumps(x, sort_keys=True)}" for name, x in sorted(entries.items()))
        yield f"}}{comma}"
    yield "}"


def text(table: dict[str, Any]) -> str:
    """What the file holds."""
    return "\n".join(lines(table)) + "\n"


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose cupy.py is the stand-in
    Path(sys.argv[1]).write_text(text(api()), "utf-8")
