"""The stand-in for CuPy sees what waits for the device, counts what is launched, and goes when it is told to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from standin import cupy

HOST = np.ones((3, 4), np.float32)
X = cupy.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))
LOSS = X.sum()
AT = cupy.asarray(np.array([0, 0]))


def assign(x: Any, key: Any, value: Any) -> None:
    x.copy()[key] = value


SYNCS: dict[str, Callable[[], Any]] = {
    "float()": lambda: float(LOSS),
    "int()": lambda: int(LOSS),
    "bool()": lambda: bool(cupy.isnan(X).any()),
    "if": lambda: 1 if LOSS > 0 else 0,
    ".item()": lambda: LOSS.item(),
    ".get()": lambda: X.get(),
    ".tolist()": lambda: X.tolist(),
    "asnumpy": lambda: cupy.asnumpy(X),
    "f-string": lambda: f"{LOSS:.3f}",
    "str": lambda: str(LOSS),
    "repr": lambda: repr(LOSS),
    "x[mask]": lambda: X[X > 3],
    "x[mask] = array": lambda: assign(X, X > 3, cupy.zeros(8)),
    "x[mask] = number": lambda: assign(X, X > 3, 0.0),
    "nonzero": lambda: cupy.nonzero(X),
    "x.nonzero": lambda: X.nonzero(),
    "where(condition)": lambda: cupy.where(X > 3),
    "flatnonzero": lambda: cupy.flatnonzero(X),
    "argwhere": lambda: cupy.argwhere(X),
    "unique": lambda: cupy.unique(AT),
    "bincount": lambda: cupy.bincount(AT),
    "repeat by an array": lambda: cupy.repeat(X, AT[:1] + 2, axis=0),
    "iteration over numbers": lambda: list(X[0]),
    "sum of an iteration": lambda: sum(X[0]),
    "max of an iteration": lambda: max(X[0]),
    "array_equal, used": lambda: bool(cupy.array_equal(X, X)),
    "Device.synchronize": lambda: cupy.cuda.Device().synchronize(),
    "Stream.synchronize": lambda: cupy.cuda.get_current_stream().synchronize(),
    "Event.synchronize": lambda: cupy.cuda.Event().synchronize(),
    "deviceSynchronize": lambda: cupy.cuda.runtime.deviceSynchronize(),
}


@pytest.mark.parametrize("name", SYNCS)
def test_a_wait_is_seen(name: str) -> None:
    with cupy.counting() as counts:
        SYNCS[name]()  # allowed, and counted
    assert counts.syncs >= 1
    with cupy.no_sync(), pytest.raises(cupy.ImplicitSync):
        SYNCS[name]()


def test_enough_ways_to_wait_are_tried() -> None:
    print(f"{len(SYNCS)} ways to wait for the device seen")
    assert len(SYNCS) >= 28


def test_counts_launches_and_copies() -> None:
    with cupy.counting() as outer, cupy.no_sync():
        x = cupy.asarray(HOST)
        with cupy.counting() as inner:
            y = cupy.exp(x) + x
            y *= 2.0
            z = y.reshape(4, 3).T[1:, ::2].swapaxes(0, 1)[None]  # views: nothing to do for the device
        assert z.shape == (1, 2, 2)
        assert (inner.launches, inner.h2d, inner.syncs) == (3, 0, 0)
        assert inner.names == {"exp": 1, "add": 1, "multiply": 1}
    assert (outer.launches, outer.h2d, outer.syncs) == (3, 1, 0)
    with cupy.no_sync(h2d=False), pytest.raises(cupy.ImplicitSync, match="copies"):
        cupy.asarray(HOST)
    assert cupy.EVENTS[-1][0] == "h2d"


def test_no_sync_ends_with_its_block() -> None:
    with cupy.no_sync(), cupy.no_sync():
        pass
    assert float(LOSS) == 66.0
    with pytest.raises(ZeroDivisionError), cupy.no_sync():
        raise ZeroDivisionError
    assert float(LOSS) == 66.0


def test_installs_and_leaves_no_trace() -> None:
    from minilong.backend import array_module, is_array

    def found() -> set[str]:
        return {name for name in sys.modules if name.split(".")[0] in ("cupy", "cupyx", "cupy_backends")}

    before = found()
    assert array_module(HOST) is np
    with cupy.install() as installed:
        import cupy as imported
        import cupyx.scipy.special
        from cupy.cuda import device as imported_device
        from cupy_backends.cuda.libs import cublas

        assert installed is imported is cupy
        assert array_module(X) is cupy
        assert array_module(X).__name__ == "cupy"
        assert is_array(X)
        assert cupy.get_array_module(X) is cupy
        assert cupy.get_array_module(HOST) is np
        with pytest.raises(TypeError, match="NumPy and CuPy"):
            array_module(X, HOST)
        assert imported.cuda.is_available()
        assert imported.__version__ == "14.2.0"
        handle = imported_device.get_cublas_handle()
        mode = cublas.getMathMode(handle)  # of the process: whoever multiplied last has set it
        for wanted in (cublas.CUBLAS_TF32_TENSOR_OP_MATH, mode):
            cublas.setMathMode(handle, wanted)
            assert cublas.getMathMode(handle) == wanted
        assert abs(float(cupyx.scipy.special.erf(X)[0, 1]) - 0.8427008) < 1e-6
    assert found() == before
    cupy.install()
    cupy.install()
    cupy.uninstall()
    assert sys.modules["cupy"] is cupy
    cupy.uninstall()
    assert found() == before
