"""The stand-in for CuPy 14.2: `from standin import cupy`. Arrays lie in NumPy memory; what CuPy refuses is refused.

`with cupy.install():` (or `install()` and `uninstall()`) puts it into `sys.modules`, where `import cupy`, and
`minilong.backend.array_module`, find it. Beyond CuPy's own names there are

    no_sync(), counting()      forbid, or count, what makes the host wait
    check_guards()             whether something was written beyond the ends of an array
    memory_limit(nbytes)       let so much more be allocated
    peak_memory()              the most that was allocated inside
    thread_order(order, seed)  the order in which a kernel's threads run: "ascending", "descending", "random"
    EVENTS, ImplicitSync, GuardError, Differs

It is stricter than CuPy where CuPy silently does something else than NumPy: index arrays on the host, indices out of
range, duplicates in an assignment, casts out of range, batched products, NumPy's functions called on device arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from . import cublas, generator
from .array import MemoryPointer, ndarray
from .creation import as_strided
from .device import MemoryPool, cuda, get_default_memory_pool
from .dtypes import Differs
from .events import EVENTS, Counts, ImplicitSync, counting, no_sync
from .functions import MODELLED
from .kernels import ElementwiseKernel, RawKernel, RawModule, ReductionKernel, fuse
from .memory import GuardError, OutOfMemoryError, check_guards, memory_limit, peak_memory
from .spaces import Space
from .special import special
from .table import TABLE, VERSION, signature
from .ufuncs import UFUNCS, ufunc

from . import methods  # isort: skip  # binds them

__version__ = VERSION
__standin__ = True


def get_array_module(*args: Any) -> Any:
    found = [x for x in args if isinstance(x, ndarray)]  # `any` is CuPy's here
    return sys.modules["standin.cupy"] if found else np


@contextmanager
def thread_order(order: str, seed: int = 0) -> Iterator[None]:
    """The order in which the threads of kernels run."""
    from . import shim

    with shim.thread_order(order, seed):
        yield


def _function(name: str) -> Any:
    """A function of CuPy's whose calls are checked against its signature."""
    f = MODELLED[name]
    check = signature("cupy", name).check if TABLE["cupy"][name].get("params") else None
    if check is None:
        return f

    def call(*args: Any, **kw: Any) -> Any:
        check(args, kw)
        return f(*args, **kw)

    call.__name__ = call.__qualname__ = name
    return call


def __getattr__(name: str) -> Any:
    entry = TABLE["cupy"].get(name)
    if entry is None:
        raise AttributeError(f"module 'cupy' has no attribute {name!r} in CuPy {VERSION}")
    if entry["kind"] in ("type", "constant") and hasattr(np, name):
        return getattr(np, name)
    raise NotImplementedError(f"cupy.{name} is not modelled by the stand-in")


globals().update({name: _function(name) for name in MODELLED if name in TABLE["cupy"]})
globals().update({name: f for name, f in UFUNCS.items() if name not in MODELLED})


random = generator
linalg = Space("cupy.linalg")
lib = Space("cupy.lib", stride_tricks=Space("cupy.lib.stride_tricks", as_strided=as_strided))
_cupyx_scipy = Space("cupyx.scipy", special=special)
_cupyx = Space(
    "cupyx", scipy=_cupyx_scipy,
    scatter_add=lambda a, slices, value: UFUNCS["add"].at(a, slices, value),
    scatter_max=lambda a, slices, value: UFUNCS["maximum"].at(a, slices, value),
    scatter_min=lambda a, slices, value: UFUNCS["minimum"].at(a, slices, value),
    allow_synchronize=lambda allow: nullcontext() if allow else no_sync(),
)  # fmt: skip
_libs = Space("cupy_backends.cuda.libs", cublas=cublas)
_backends_cuda = Space("cupy_backends.cuda", libs=_libs)
_backends = Space("cupy_backends", cuda=_backends_cuda)


def _modules() -> dict[str, Any]:
    return {
        "cupy": sys.modules["standin.cupy"],
        "cupy.cuda": cuda,
        "cupy.cuda.runtime": cuda.runtime,
        "cupy.cuda.device": cuda.device,
        "cupy.cuda.memory": cuda.memory,
        "cupy.cuda.stream": cuda.stream,
        "cupy.linalg": linalg,
        "cupy.lib": lib,
        "cupy.lib.stride_tricks": lib.stride_tricks,
        "cupy.random": generator,
        "cupyx": _cupyx,
        "cupyx.scipy": _cupyx_scipy,
        "cupyx.scipy.special": special,
        "cupy_backends": _backends,
        "cupy_backends.cuda": _backends_cuda,
        "cupy_backends.cuda.libs": _libs,
        "cupy_backends.cuda.libs.cublas": cublas,
    }


_saved: list[dict[str, Any]] = []


class Installed:
    """What `install()` returns: a context that uninstalls at its end."""

    def __enter__(self) -> ModuleType:
        return sys.modules["cupy"]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        uninstall()


def install() -> Installed:
    """Put the stand-in into `sys.modules` as `cupy`, `cupyx` and `cupy_backends`, in the place of what is there."""
    roots = ("cupy", "cupyx", "cupy_backends")
    _saved.append({name: m for name, m in sys.modules.items() if name.split(".")[0] in roots})
    for name in _saved[-1]:
        del sys.modules[name]
    sys.modules.update(_modules())
    return Installed()


def uninstall() -> None:
    """Put back what `install` replaced."""
    for name in _modules():
        sys.modules.pop(name, None)
    sys.modules.update(_saved.pop())


__all__ = [
    "EVENTS", "Counts", "Differs", "ElementwiseKernel", "GuardError", "ImplicitSync", "MemoryPointer", "MemoryPool",
    "OutOfMemoryError", "RawKernel", "RawModule", "ReductionKernel", "as_strided", "check_guards", "counting", "cuda",
    "fuse", "get_array_module", "get_default_memory_pool", "install", "memory_limit", "methods", "ndarray", "no_sync",
    "peak_memory", "thread_order", "ufunc", "uninstall",
]  # fmt: skip
__name__ = "cupy"
