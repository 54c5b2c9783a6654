"""The public laws against a function of somebody else: load it, adapt it, check it, say what was found.

The function is called with positional float64 NumPy arrays and plain numbers, as its kind's signature says. Functions
of two sorts need no adapter of their own:

- one that works on PyTorch tensors. It is tried with NumPy arrays first. If it raises and the file has loaded torch,
  arrays become float64 tensors (integers and booleans keep their type) and what it returns becomes arrays again. A file
  that says `minilong_adapter = "torch"` (or "numpy") is called in that way only;
- a `torch.nn.Module`: a copy of it in float64 and evaluation mode is called, with tensors.

Tensors share the memory of the arrays: what a function writes into its arguments is seen by the laws named `pure`.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minilong.audit import KINDS, laws_for, load
from minilong.audit.book import parameters
from minilong.audit.law import Case, Kind, Law, Measure
from minilong.audit.run import as_python, quiet_numbers, run_law
from minilong.errors import UserError, did_you_mean

ADAPTERS = ("numpy", "torch")
Function = Callable[..., Any]


@dataclass(frozen=True)
class Verdict:
    """One law on the user's function. `found` and `counterexample` (Python that pastes) if it fails."""

    law: Law
    examples: int
    worst: float
    found: str | None
    counterexample: str | None


@dataclass
class Adapted:
    """A function called with arrays whatever it works on; it remembers the calls of the last check."""

    f: Function
    mode: str | None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    coarse: bool = False
    """It has returned numbers of less than double precision."""

    def __call__(self, *args: Any) -> Any:
        self.calls.append(copy.deepcopy(args))
        result = self._result(args)
        self.coarse = self.coarse or any(x.dtype in (np.float32, np.float16) for x in _arrays(result))
        return result

    def _result(self, args: tuple[Any, ...]) -> Any:
        if self.mode == "torch":
            return to_arrays(self.f(*to_tensors(args)))
        if self.mode == "numpy" or "torch" not in sys.modules:
            return to_arrays(self.f(*args))
        try:
            result = to_arrays(self.f(*copy.deepcopy(args)))
            self.mode = "numpy"
        except Exception as with_arrays:  # it may want tensors, or be wrong
            try:
                result = to_arrays(self.f(*to_tensors(args)))
                self.mode = "torch"
            except Exception:
                if re.search(r"[Tt]ensor|ndarray", str(with_arrays)):
                    raise
                raise with_arrays from None
        return result


def audit_function(path: Path, name: str | None, kind: str, *, examples: int, seed: int | None) -> list[Verdict]:
    """Check a function of a file against the laws of a public kind. UserError for a wrong file, name or signature."""
    from threadpoolctl import threadpool_limits

    of = public_kind(kind)
    # Small arrays: threads of a BLAS or of PyTorch would only wait for one another.
    with loaded(path) as module, quiet_numbers(), threadpool_limits(1):
        adapted = adapt(module, find(module, path, name, of))
        call = f"{name or of.function}({', '.join(parameters(of))})"
        return [_verdict(law, adapted, of, path, name or of.function, call, examples, seed) for law in laws_for(kind)]


def public_kind(name: str) -> Kind:
    """A kind that users may audit. UserError names the nearest."""
    load()
    public = [kind.name for kind in KINDS.values() if kind.public]
    if name not in public:
        raise UserError(f"there is no kind {name!r}{did_you_mean(name, public)}; choose one of {', '.join(public)}")
    return KINDS[name]


def split_target(target: str) -> tuple[Path, str | None]:
    """Path and name of `FILE.py[:NAME]`. UserError where there is no such file."""
    match = re.fullmatch(r"(.+\.py)(?::([^/\\]*))?", target)
    path, name = (Path(match[1]), match[2]) if match else (Path(target), None)
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(
            f"there is no file {str(path)!r}{did_you_mean(path.name, beside)}; give FILE.py or FILE.py:NAME"
        )
    if match is None:
        raise UserError(f"{target} is no Python file; give FILE.py or FILE.py:NAME")
    if name == "":
        raise UserError(f"{target} names nothing after the colon; give FILE.py or FILE.py:NAME")
    return path, name


@contextmanager
def loaded(path: Path) -> Iterator[ModuleType]:
    """The file as a fresh module; its folder is searched for imports as long as the module is in use."""
    name = f"audited_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be loaded as a Python file; give one that ends with .py")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise UserError(f"{path}{_line(error, path)} raises {_said(error)} when it is loaded; mend it") from error
        yield module
    finally:
        sys.modules.pop(name, None)
        if folder in sys.path:
            sys.path.remove(folder)


def find(module: ModuleType, path: Path, name: str | None, kind: Kind) -> Any:
    """The function of that name (the kind's by default), callable with the arguments of the kind's signature."""
    wanted = name or kind.function
    found: Any = module  # whatever the file holds
    for part in wanted.split("."):
        if not hasattr(found, part):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            remedy = (
                f"give {path.name}:NAME" if name is None else f"{path.name} defines {', '.join(names[:8]) or 'none'}"
            )
            raise UserError(f"{path} has no function {wanted!r}{did_you_mean(wanted, names)}; {remedy}")
        found = getattr(found, part)
    if isinstance(found, type):
        raise UserError(f"{wanted} in {path} is a class; name an instance, or a function")
    if not callable(found):
        raise UserError(f"{wanted} in {path} is no function but a {type(found).__name__}; name a function")
    try:
        signature = inspect.signature(getattr(found, "forward", found) if _is_module(found) else found)
    except (TypeError, ValueError):  # built-in functions do not tell
        return found
    try:
        signature.bind(*parameters(kind))
    except TypeError:
        raise UserError(
            f"{wanted}{signature} in {path} cannot be called as {kind.signature.split(':')[0]}; "
            f"give it {len(parameters(kind))} positional parameters"
        ) from None
    return found


def adapt(module: ModuleType, f: Any) -> Adapted:
    """The function behind the adapter that its file asks for, or that fits."""
    mode = getattr(module, "minilong_adapter", None)
    if mode is not None and mode not in ADAPTERS:
        near = did_you_mean(str(mode), ADAPTERS)
        raise UserError(f"minilong_adapter is {mode!r}{near}; choose one of {', '.join(ADAPTERS)}, or leave it out")
    if mode == "torch" and "torch" not in sys.modules:
        raise UserError("minilong_adapter is 'torch', but the file does not import torch; import it there")
    if _is_module(f):
        return Adapted(copy.deepcopy(f).double().eval(), "torch")
    return Adapted(f, mode)


def to_tensors(value: Any) -> Any:
    """NumPy arrays as PyTorch tensors, in lists and tuples too; torch is imported by the user's file."""
    if isinstance(value, list | tuple):
        return type(value)(to_tensors(v) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    # The memory is shared where PyTorch can, so that a law sees what a function writes into its arguments.
    shared = value.flags.writeable and value.flags.c_contiguous
    return sys.modules["torch"].from_numpy(value if shared else value.copy())


def to_arrays(value: Any) -> Any:
    """PyTorch tensors as NumPy arrays, in lists and tuples too; anything else unchanged."""
    if isinstance(value, list | tuple):
        return type(value)(to_arrays(v) for v in value)
    torch = sys.modules.get("torch")
    return value.detach().cpu().numpy() if torch is not None and isinstance(value, torch.Tensor) else value


def _verdict(
    law: Law, adapted: Adapted, kind: Kind, path: Path, name: str, call: str, examples: int, seed: int | None
) -> Verdict:
    def check(f: Function, case: Case, measure: Measure) -> None:
        adapted.calls.clear()
        law.check(f, case, measure)

    adapted.coarse = False
    result = run_law(replace(law, check=check), adapted, examples=examples, seed=seed)
    failure = result.failure
    if failure is None:
        return Verdict(law, result.examples, result.worst, None, None)
    found = failure.message
    if adapted.coarse:
        found += "; it returns numbers of less than double precision, and the bounds are those of float64"
    tensors = adapted.mode == "torch"
    lines = ["import numpy as np", *(["import torch"] if tensors else [])]
    if path.stem.isidentifier():
        lines.append(f"from {path.stem} import {name.split('.')[0]}")
    lines += _calls(adapted.calls, parameters(kind), call, tensors)
    return Verdict(law, result.examples, result.worst, found, "\n".join(lines))


MOST_CALLS = 3


def _calls(calls: Sequence[tuple[Any, ...]], names: Sequence[str], call: str, tensors: bool) -> Iterator[str]:
    """The calls of the failing check as Python, each argument written out where it differs from the call before."""
    before: dict[str, str] = {}
    different = 0
    for args in calls:
        written = {n: _tensor(v) if tensors else as_python(v) for n, v in zip(names, args, strict=False)}
        if written == before:
            continue
        different += 1
        if different <= MOST_CALLS:
            yield from (f"{name} = {value}" for name, value in written.items() if before.get(name) != value)
            yield call
            before = written
    if different > MOST_CALLS:
        yield f"# and {different - MOST_CALLS} calls more"


def _tensor(value: Any) -> str:
    """The argument as Python, with tensors for arrays."""
    if isinstance(value, list):
        return f"[{', '.join(map(_tensor, value))}]"
    return f"torch.from_numpy({as_python(value)})" if isinstance(value, np.ndarray) else as_python(value)


def _is_module(f: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(f, torch.nn.Module)


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, list | tuple):
        return [x for v in value for x in _arrays(v)]
    return [np.asarray(value)] if isinstance(value, np.ndarray | np.generic) else []


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f":{error.lineno}"
    line, at = "", error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == str(path.resolve()):
            line = f":{at.tb_lineno}"
        at = at.tb_next
    return line


def _said(error: BaseException) -> str:
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}{f' ({said})' if said else ''}"
