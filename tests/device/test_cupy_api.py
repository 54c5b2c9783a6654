"""The stored table of CuPy's names: it is that of the wheel, the stand-in uses it, and minilong keeps to it."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import types
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from standin import cupy, functions, make_api
from standin.dtypes import BFLOAT16
from standin.table import TABLE, VERSION, Signature, signature
from standin.ufuncs import UFUNCS

PACKAGE = Path(__file__).parents[2] / "minilong"
UFUNC = {"out", "dtype", "casting"}

HOST_ONLY: dict[tuple[str, str], str] = {
    ("audit/laws/normal_single.py", "x.min(initial)"): "steps of a function of the host's",
    ("audit/laws/sentence_vectors.py", "x.min(initial)"): "sentences are pooled on the host",
    ("embeddings/pooling.py", "x.max(axis, initial)"): "sentences are pooled on the host",
    ("nn/models.py", "x.max(initial)"): "places are counted on the host",
}
"""(file, use): why CuPy never sees it."""


# The wheel


@pytest.fixture(scope="module")
def wheel() -> types.ModuleType:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed; to look at its wheel no GPU is needed")
    import cupy as installed

    if not hasattr(installed, "_core"):
        pytest.skip("the module called cupy is the stand-in of these tests, not CuPy itself")
    return installed


def test_the_table_is_that_of_the_wheel(wheel: types.ModuleType) -> None:
    if wheel.__version__ != VERSION:
        pytest.skip(f"the table is of CuPy {VERSION}; make_api.py writes that of {wheel.__version__}")
    made, kept = make_api.api(), dict(TABLE)
    for space in sorted({*made, *kept}):
        assert made[space] == kept[space], f"CuPy's {space} differs from the table: run make_api.py"
    assert make_api.text(made) == (Path(make_api.__file__).parent / "cupy_api.json").read_text("utf-8")


def kind_of(dtype: type) -> int:
    """CuPy's order of kinds, in which a type that NumPy does not know comes last."""
    kinds = ((bool, np.bool_), (int, np.integer), (float, complex, np.inexact))
    return next((i for i, kind in enumerate(kinds) if issubclass(dtype, kind)), len(kinds))


def test_loops_are_chosen_as_by_the_wheel(wheel: types.ModuleType) -> None:
    dtypes = [*(np.dtype(c) for c in "?bBhHiIlLefdFD"), BFLOAT16]
    cases = 0
    for name, ours in UFUNCS.items():
        for key in itertools.product([*dtypes, bool, int, float, complex], repeat=ours.nin) if ours.nin < 3 else ():
            strong = [kind_of(k.type) for k in key if isinstance(k, np.dtype)]
            weak = [kind_of(k) for k in key if not isinstance(k, np.dtype)]
            if not strong:
                continue
            counts = bool(weak) and max(strong) >= max(weak)
            weaks = tuple(counts and not isinstance(k, np.dtype) and k for k in key)
            op = getattr(wheel, name)._ops._guess_routine_from_in_types(tuple(np.dtype(k) for k in key), weaks)
            want = None if op is None or op.error_func else [np.dtype(t) for t in op.out_types]
            try:
                got = ours._resolve(key, None)[1]
            except TypeError:
                got = None
            assert got == want, (name, key)
            cases += 1
    print(f"{cases} combinations of types give the loop that CuPy gives")
    assert cases > 16_000


# The stand-in


def test_what_the_stand_in_models_is_in_the_table() -> None:
    assert set(functions.MODELLED) <= set(TABLE["cupy"])
    assert {n for n in dir(cupy.ndarray) if not n.startswith("_")} <= set(TABLE["ndarray"])
    for space, cls in (("Device", cupy.cuda.Device), ("Stream", cupy.cuda.Stream), ("Event", cupy.cuda.Event)):
        assert {n for n in dir(cls) if not n.startswith("_")} <= {*TABLE[space], "time", "timed", "is_null", "ptr"}
    assert {n for n in vars(cupy.cuda.runtime) if not n.startswith("_")} <= set(TABLE["cupy.cuda.runtime"])
    assert {n for n in vars(cupy.cuda) if not n.startswith("_")} <= set(TABLE["cupy.cuda"])


def test_functions_take_their_parameters_in_the_order_of_cupy() -> None:
    """What the stand-in passes on by place must mean the same to NumPy."""
    passed_on = (*functions.REDUCTIONS, *functions.VIEWS, *functions.COPIES, *functions.SYNCING)
    for name in passed_on:
        ours = signature("cupy", name).names
        renamed = functions.RENAMED.get(name, {})
        numpys = list(inspect.signature(getattr(np, name)).parameters)
        assert numpys[: len(ours)] == [renamed.get(p, p) for p in ours], name
    for name, f in functions.MODELLED.items():
        if name in passed_on or name in functions.OF_HOST or name in ("matmul", "einsum"):
            continue
        parameters = list(inspect.signature(f).parameters.values())
        if parameters[0].kind is not parameters[0].VAR_POSITIONAL:
            assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == list(signature("cupy", name).names)


def test_cublas_has_the_arguments_of_the_wheel() -> None:
    from standin import cublas

    for name in ("gemmEx", "gemmStridedBatchedEx", "setMathMode", "getMathMode", "setStream", "getVersion"):
        ours = list(inspect.signature(getattr(cublas, name)).parameters)
        assert ours == list(Signature(name, TABLE["cublas"][name]["params"]).names)


# minilong


def chain(node: ast.expr) -> list[str] | None:
    """["add", "at"] of `xp.add.at` and `self.xp.add.at`; None of what does not begin at `xp`."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr == "xp":
            return names[::-1]
        names.append(node.attr)
        node = node.value
    return names[::-1] if isinstance(node, ast.Name) and node.id == "xp" else None


def uses(tree: ast.AST) -> Iterator[tuple[int, str, str | None]]:
    """(line, use, what is wrong with it or None) for each name of `xp`, and each of its calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (names := chain(node)):
            yield node.lineno, "xp." + ".".join(names), missing(names)
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg for k in node.keywords if k.arg is not None}
        starred = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
        names = chain(node.func) or []
        if names:
            yield node.lineno, f"xp.{'.'.join(names)}({', '.join(sorted(keywords))})", refused(names, node, starred)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in ("max", "min", "sum", "any", "all", "mean"):
            unknown = keywords - {*signature("ndarray", node.func.attr).names}
            if unknown and not (isinstance(node.func.value, ast.Name) and node.func.value.id in ("np", "ops")):
                yield (
                    node.lineno,
                    f"x.{node.func.attr}({', '.join(sorted(keywords))})",
                    f"CuPy has no {sorted(unknown)}",
                )


def missing(names: list[str]) -> str | None:
    """What is wrong with a name."""
    entry = TABLE["cupy"].get(names[0])
    if names[0].startswith("__"):
        return None
    if entry is None:
        return f"CuPy has no {names[0]}"
    if entry["kind"] == "ufunc" and len(names) > 1 and names[1] not in TABLE["ufunc"]:
        return f"a ufunc of CuPy's has no {names[1]}"
    return None


def refused(names: list[str], call: ast.Call, starred: bool) -> str | None:
    """What is wrong with a call."""
    entry = TABLE["cupy"].get(names[0], {"kind": None})
    keywords = {k.arg: None for k in call.keywords if k.arg is not None}
    if entry["kind"] == "ufunc":
        if len(names) == 1:
            return f"a ufunc of CuPy's takes no {sorted(set(keywords) - UFUNC)}" if set(keywords) - UFUNC else None
        if names[1] not in TABLE["ufunc"]:
            return missing(names)
        check = signature("ufunc", names[1])
    elif entry["kind"] == "function" and len(names) == 1:
        check = signature("cupy", names[0])
    else:
        return None
    if starred:
        unknown = set(keywords) - set(check.keywords or keywords)
        return f"CuPy has no {sorted(unknown)}" if unknown else None
    try:
        check.check(tuple(call.args), keywords)
    except TypeError as error:
        return str(error)
    return None


def test_minilong_keeps_to_the_table() -> None:
    count, wrong, allowed = 0, [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        for line, use, problem in uses(ast.parse(path.read_text("utf-8"))):
            count += 1
            if problem and (where, use) in HOST_ONLY:
                allowed.add((where, use))
            elif problem:
                wrong.append(f"minilong/{where}:{line}: {use}: {problem}")
    print(f"{count} uses of xp in minilong, all in CuPy {VERSION}; {len(allowed)} of them on the host only")
    assert not wrong, "\n".join(wrong)
    assert allowed == set(HOST_ONLY), "an exception that nothing needs any more"
    assert count > 100


@pytest.mark.parametrize(
    "text",
    [
        "xp.geomspace(1, 2)",
        "self.xp.errstate",
        "xp.max(x, axis=-1, initial=0.0)",
        "xp.exp(x, where=m)",
        "x.max(axis=-1, initial=0.0)",
        "p.sum(where=m)",
        "xp.take(x, i, mode='clip')",
        "xp.add.nonsense(x)",
        "xp.add.reduce(x, initial=0)",
        "xp.concatenate(arrays=[x, y])",
        "xp.take(x)",
        "xp.zeros((3,), np.float32, device='cpu')",
        "xp.einsum",
    ],
)
def test_the_scan_sees_mistakes(text: str) -> None:
    problems = [problem for _, _, problem in uses(ast.parse(text)) if problem]
    assert bool(problems) != (text == "xp.einsum")


def test_half_types_are_known() -> None:
    assert np.dtype(ml_dtypes.bfloat16).char == "E"
    assert "EE->E" in UFUNCS["add"].types
    assert "E->E" in TABLE["loops"]["sum"]["types"].split()
    assert not any("E" in t for t in TABLE["loops"]["where"]["types"].split())
