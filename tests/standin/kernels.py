"""`RawModule` and `RawKernel`: CUDA text, compiled by g++ and run on the CPU by `shim.py`, between guards."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from . import events
from .array import ndarray
from .memory import GuardError, Memory, allocate
from .table import VERSION

SHARED_LIMIT = 48 * 1024
"""Bytes of dynamic shared memory that a kernel has without asking."""

OPTIN_LIMIT = 227 * 1024
"""The most that it can ask for (compute capability 9.0)."""

OPTIONS = ("-D", "-std=", "--std=", "-U", "--use_fast_math", "-use_fast_math", "--fmad=", "-fmad=", "-I", "-lineinfo")


class RawModule:
    """cupy.RawModule of a text. Compiled when a kernel is first launched, as CuPy does."""

    def __init__(self, code: str | None = None, *, path: str | None = None, options: Any = (), **other: Any) -> None:
        unknown = set(other) - {
            "backend", "translate_cucomplex", "enable_cooperative_groups", "name_expressions", "jitify",
        }  # fmt: skip
        if unknown:
            raise TypeError(f"RawModule has no parameter {sorted(unknown)} in CuPy {VERSION}")
        if not isinstance(code, str) or path is not None or any(v for k, v in other.items() if k != "backend"):
            raise NotImplementedError("only RawModule(code=..., options=...) is modelled")
        if not isinstance(options, tuple) or not all(isinstance(x, str) for x in options):
            raise TypeError("options must be a tuple of str")
        for option in options:
            if not option.startswith(OPTIONS):
                raise ValueError(f"the compiler's option {option!r} is not modelled")
        self.code, self.options = code, options
        self._library: Any = None

    def compile(self, log_stream: Any = None) -> None:
        self._compiled()

    def _compiled(self) -> Any:
        if self._library is None:
            from . import shim

            self._library = shim.compile_kernels(self.code, self.options)
        return self._library

    def get_function(self, name: str) -> RawKernel:
        return RawKernel._of(self, name)


class RawKernel:
    """cupy.RawKernel: `kernel(grid, block, arguments, shared_mem=0)`."""

    _module: RawModule
    name: str

    def __init__(self, code: str, name: str, options: Any = (), **other: Any) -> None:
        self._module, self.name, self._most = RawModule(code, options=options, **other), name, SHARED_LIMIT

    @classmethod
    def _of(cls, module: RawModule, name: str) -> RawKernel:
        kernel = cls.__new__(cls)
        kernel._module, kernel.name, kernel._most = module, name, SHARED_LIMIT
        return kernel

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._most

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, nbytes: int) -> None:
        if not 0 <= nbytes <= OPTIN_LIMIT:
            raise ValueError(f"CUDA_ERROR_INVALID_VALUE: {nbytes} bytes of shared memory, at most {OPTIN_LIMIT}")
        self._most = nbytes

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        if not isinstance(grid, tuple) or not isinstance(block, tuple) or not isinstance(args, tuple):
            raise TypeError(f"kernel {self.name}: grid, block and arguments must be tuples")
        if any(isinstance(n, float) for n in (*grid, *block)):
            raise TypeError(f"kernel {self.name}: sizes are integers")
        library = self._module._compiled()
        events.launch(self.name)
        with _Guarded(self.name, args) as arguments:
            library.launch(self.name, grid, block, arguments, shared=shared_mem, max_shared=self._most)


class _Guarded:
    """The arguments as the shim takes them, all arrays between guards while the kernel runs, which are then checked.

    Memory that NumPy allocated has no guards: it is copied between some, and back.
    """

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args = name, args
        self.copies: dict[int, tuple[Memory, np.ndarray, Memory]] = {}
        self.used: dict[int, tuple[int, Memory]] = {}

    def __enter__(self) -> tuple[Any, ...]:
        return tuple(self._argument(i, x) for i, x in enumerate(self.args))

    def _argument(self, i: int, x: Any) -> Any:
        from . import shim

        if not isinstance(x, ndarray):
            if isinstance(x, np.ndarray):
                raise TypeError(f"kernel {self.name}, argument {i + 1}: a host array")
            return x
        memory, address = x._m, int(x._a.__array_interface__["data"][0])
        if not memory.guarded and memory.nbytes:
            if id(memory) not in self.copies:
                original = memory.bytes()
                copy, guards = allocate(original.shape, np.uint8, counted=False)
                copy[...] = original
                self.copies[id(memory)] = memory, copy, guards
            guards = self.copies[id(memory)][2]
            address += guards.address - memory.address
            memory = guards
        self.used.setdefault(id(memory), (i, memory))
        return shim.Pointer(address, x._a.dtype)

    def __exit__(self, *error: object) -> None:
        broken = [i for i, memory in self.used.values() if memory.guarded and not memory.intact()]
        for memory, copy, _ in self.copies.values():
            memory.bytes()[...] = copy
        for _, memory in self.used.values():
            if memory.guarded and not memory.intact():
                memory.mend()
        if broken and error[0] is None:
            names = ", ".join(str(i + 1) for i in broken)
            raise GuardError(f"kernel {self.name} wrote beyond the ends of argument {names} of {len(self.args)}")


class ElementwiseKernel:
    """Refused: a kernel is a `.cu` file, which can be run here; CuPy's generated code cannot."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("ElementwiseKernel and ReductionKernel are not modelled: write a .cu file")


class ReductionKernel(ElementwiseKernel):
    """Refused likewise."""


def fuse(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("cupy.fuse is not modelled: it cannot be called on the host's arrays")
