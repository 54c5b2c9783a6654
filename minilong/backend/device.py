"""Where arrays live and operations run: the CPU (NumPy), or one GPU (CuPy). Named once, passed down from the top.

`Device.of("cuda:1")` finds the device or says what is missing. Nothing falls back to another device by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from minilong.backend.arrays import Array, to_host
from minilong.errors import UserError

SUPPORTED = "a GPU needs the NVIDIA driver and one of: pip install 'minilong[cuda12]', pip install 'minilong[cuda13]'"


@dataclass(frozen=True)
class Device:
    """`kind` is cpu or cuda (or fake: a stand-in for CuPy that tests bring), `index` the number of the GPU."""

    kind: str = "cpu"
    index: int = 0

    @staticmethod
    def of(name: str) -> Device:
        """The device of a name: cpu, cuda, cuda:N. UserError where there is none such here, with the remedy."""
        kind, colon, number = name.partition(":")
        if kind not in ("cpu", "cuda", "fake") or (colon and not number.isdecimal()) or (kind == "cpu" and colon):
            raise UserError(f"no device is called {name!r}; give cpu, cuda, or cuda:N with the number of a GPU")
        if kind == "cpu":
            return Device()
        cupy = _cupy(kind)
        index, count = int(number or 0), int(cupy.cuda.runtime.getDeviceCount())
        if index >= count:
            here = "only cuda:0 is" if count == 1 else f"cuda:0 to cuda:{count - 1} are"
            raise UserError(f"there is no GPU {index}: {here} here")
        cupy.cuda.Device(index).use()
        return Device(kind, index)

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def is_cpu(self) -> bool:
        """Whether arrays are NumPy's."""
        return self.kind == "cpu"

    @property
    def xp(self) -> Any:
        """The array library of the device."""
        return np if self.is_cpu else sys.modules["cupy"]

    def put(self, x: Array) -> Array:
        """`x` on this device: itself where it is there, else a copy."""
        if self.is_cpu:
            return to_host(x)
        cupy = self.xp
        return x if isinstance(x, cupy.ndarray) else cupy.asarray(x)

    def synchronize(self) -> None:
        """Wait until all that was asked of the device is done: before a clock is read."""
        if not self.is_cpu:
            self.xp.cuda.get_current_stream().synchronize()

    def limit_memory(self, bytes: int) -> None:
        """Let the memory pool take at most so many bytes. UserError where the GPU has fewer."""
        if self.is_cpu:
            raise UserError("a memory limit concerns a GPU's memory; leave it out, or give --device cuda")
        total = self.memory()[1]
        if bytes > total:
            raise UserError(f"the limit of {bytes / 1e9:.3g} GB exceeds the {total / 1e9:.3g} GB of {self}; lower it")
        self.xp.get_default_memory_pool().set_limit(size=bytes)

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the GPU."""
        free, total = self.xp.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def used(self) -> int:
        """Bytes of the memory pool that arrays take now."""
        return int(self.xp.get_default_memory_pool().used_bytes())


CPU = Device()


@dataclass(frozen=True)
class Found:
    """A GPU that was found: its name, compute capability such as "9.0", free and total bytes."""

    device: Device
    name: str
    capability: str
    free: int
    total: int


def found_devices() -> tuple[list[Found], str]:
    """The GPUs that can be used, and where there is none: why, with the remedy."""
    try:
        cupy = _cupy("cuda")
        found = []
        for index in range(cupy.cuda.runtime.getDeviceCount()):
            with cupy.cuda.Device(index) as device:
                free, total = cupy.cuda.runtime.memGetInfo()
                name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
                capability = str(device.compute_capability)
                found.append(Found(Device("cuda", index), name, f"{capability[:-1]}.{capability[-1]}", free, total))
        return found, ""
    except UserError as error:
        return [], str(error)


def beside(x: Any, constant: Array) -> Array:
    """A constant (tokens, a table, a mask) where the array `x` lives. A copy to a GPU does not wait for it."""
    cupy = sys.modules.get("cupy")
    if cupy is None or constant is None or not isinstance(x, cupy.ndarray) or isinstance(constant, cupy.ndarray):
        return constant
    return cupy.asarray(constant)


@contextmanager
def out_of_memory(explanation: str) -> Iterator[None]:
    """Turn a GPU's lack of memory into a UserError that gives this explanation and remedy."""
    try:
        yield
    except Exception as error:
        cupy = sys.modules.get("cupy")
        if cupy is None or not isinstance(error, cupy.cuda.memory.OutOfMemoryError):
            raise
        raise UserError(f"the GPU's memory is full ({str(error).rstrip('.')}); {explanation}") from error


def _cupy(kind: str) -> Any:
    """CuPy, with a GPU that answers. UserError says which of wheel, driver, card or major version is missing."""
    if kind == "fake":
        stand_in = sys.modules.get("cupy")
        if stand_in is None or not hasattr(stand_in, "__standin__"):
            raise UserError("the device 'fake' is for minilong's own tests, which put a stand-in in CuPy's place")
        return stand_in
    return _real_cupy()


@lru_cache(maxsize=1)
def _driver() -> int | None:
    """The CUDA version that the NVIDIA driver supports, such as 12040; None where there is no driver."""
    import ctypes

    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            library = ctypes.CDLL(name)
            version = ctypes.c_int()
            if library.cuDriverGetVersion(ctypes.byref(version)) == 0:
                return version.value
        except (OSError, AttributeError):
            continue
    return None


def extra_for(driver: int) -> str:
    """The extra whose CuPy fits a driver's CUDA version."""
    return "cuda13" if driver >= 13000 else "cuda12"


def _real_cupy() -> Any:
    driver = _driver()
    try:
        import cupy
    except Exception as error:  # a broken installation raises more than ImportError
        if driver is None:
            raise UserError(f"CuPy {_lacks(error)}, and no NVIDIA driver was found; {SUPPORTED}") from error
        extra = extra_for(driver)
        raise UserError(f"CuPy {_lacks(error)}; pip install 'minilong[{extra}]'") from error
    if hasattr(cupy, "__standin__"):
        raise UserError("a stand-in is in CuPy's place; use --device fake")
    if driver is None:
        raise UserError(f"CuPy is installed, but no NVIDIA driver was found; {SUPPORTED.partition(' and ')[0]}")
    major = int(cupy.cuda.runtime.runtimeGetVersion()) // 1000
    if major > driver // 1000:
        raise UserError(
            f"this CuPy is built for CUDA {major}, the driver supports CUDA {driver // 1000}.{driver % 1000 // 10}; "
            f"pip uninstall cupy-cuda{major}x, then pip install 'minilong[{extra_for(driver)}]'"
        )
    try:
        usable = bool(cupy.cuda.is_available())
    except Exception:
        usable = False
    if not usable:
        raise UserError("CuPy and a driver are installed, but no GPU answers; see nvidia-smi, and CUDA_VISIBLE_DEVICES")
    return cupy


def _lacks(error: Exception) -> str:
    missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
    return "is not installed" if missing else f"cannot be imported ({error})"
