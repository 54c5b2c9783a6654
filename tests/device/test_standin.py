"""The stand-in for CuPy refuses what CuPy refuses, and what CuPy does otherwise than NumPy without a word."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from standin import cupy

BF16 = ml_dtypes.bfloat16


def device(*shape: int, dtype: Any = np.float32) -> Any:
    """0, 1, 2, ... on the device."""
    return cupy.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype))


X, CUBE, HALF = device(3, 4), device(2, 3, 4), device(3, 4).astype(BF16)
HOST = np.ones((3, 4), np.float32)
LOSS = X.sum()
AT = cupy.asarray(np.array([0, 0]))


def assign(x: Any, key: Any, value: Any) -> None:
    x.copy()[key] = value


REFUSED: dict[str, tuple[type[Exception] | tuple[type[Exception], ...], Callable[[], Any]]] = {
    # two libraries in one operation
    "device + host": (TypeError, lambda: X + HOST),
    "host + device": (TypeError, lambda: HOST + X),
    "host 0-d array": (TypeError, lambda: X * np.asarray(2.0)),
    "host += device": (TypeError, lambda: operator.iadd(HOST.copy(), X)),
    "device += host": (TypeError, lambda: operator.iadd(X.copy(), HOST)),
    "matmul with a host array": (TypeError, lambda: X @ HOST.T),
    "host matmul device": (TypeError, lambda: HOST @ X.T),
    "a list as operand": (TypeError, lambda: cupy.add([1.0, 2.0], X)),
    "None as operand": (TypeError, lambda: X + None),
    "out on the host": (TypeError, lambda: cupy.exp(X, out=HOST.copy())),
    "maximum with a host array": (TypeError, lambda: cupy.maximum(X, HOST)),
    "where with a host condition": (TypeError, lambda: cupy.where(HOST > 0, X, 0.0)),
    "concatenate of both": (TypeError, lambda: cupy.concatenate([X, HOST])),
    "assignment of a host array": (ValueError, lambda: assign(X, slice(None), HOST)),
    "assignment of a list": (TypeError, lambda: assign(X, 0, [1.0, 2.0, 3.0, 4.0])),
    "fill by a host array": (ValueError, lambda: X.copy().fill(HOST)),
    "a list of device arrays made an array": (TypeError, lambda: cupy.asarray([X, X])),
    # NumPy's functions on device arrays
    "np.asarray": (TypeError, lambda: np.asarray(X)),
    "np.array of a list": (TypeError, lambda: np.array([LOSS])),
    "np.exp": (TypeError, lambda: np.exp(X)),
    "np.sum": (TypeError, lambda: np.sum(X)),
    "np.add.reduce": (TypeError, lambda: np.add.reduce(X)),
    "np.add.at": (TypeError, lambda: np.add.at(X, 0, 1.0)),
    "np.multiply of a host array": (TypeError, lambda: np.multiply(HOST, X)),
    "np.isfinite": (TypeError, lambda: np.isfinite(LOSS)),
    "np.where": (TypeError, lambda: np.where(X > 0, X, 0)),
    "np.concatenate": (TypeError, lambda: np.concatenate([X, X])),
    "np.einsum": (TypeError, lambda: np.einsum("ij->i", X)),
    "np.zeros_like": (TypeError, lambda: np.zeros_like(X)),
    "np.copyto": (TypeError, lambda: np.copyto(HOST.copy(), X)),
    "np.random.permutation": (TypeError, lambda: np.random.default_rng(0).permutation(X)),
    # parameters that CuPy does not have
    "divide(where=)": (TypeError, lambda: cupy.divide(X, X, where=X > 0)),
    "exp(order=)": (TypeError, lambda: cupy.exp(X, order="F")),
    "sum(where=)": (TypeError, lambda: cupy.sum(X, where=X > 0)),
    "x.sum(initial=)": (TypeError, lambda: X.sum(initial=0.0)),
    "x.max(initial=)": (TypeError, lambda: X.max(axis=-1, initial=0.0)),
    "max(initial=)": (TypeError, lambda: cupy.max(X, initial=0.0)),
    "x.any(where=)": (TypeError, lambda: (X > 0).any(where=X > 1)),
    "var(correction=)": (TypeError, lambda: cupy.var(X, correction=1)),
    "einsum(out=)": (TypeError, lambda: cupy.einsum("ij->i", X, out=device(3))),
    "take(mode=)": (TypeError, lambda: cupy.take(X, 0, mode="clip")),
    "argsort(stable=)": (TypeError, lambda: cupy.argsort(X, stable=True)),
    "argsort(kind=quicksort)": (ValueError, lambda: cupy.argsort(X, kind="quicksort")),
    "zeros(device=)": (TypeError, lambda: cupy.zeros(3, device="cpu")),
    "asarray(like=)": (TypeError, lambda: cupy.asarray(1.0, like=X)),
    "reshape(shape=)": (TypeError, lambda: cupy.reshape(X, shape=(4, 3))),
    "clip(min=)": (TypeError, lambda: cupy.clip(X, min=0, max=1)),
    "concatenate(arrays=)": (TypeError, lambda: cupy.concatenate(arrays=[X, X])),
    "argument missing": (TypeError, lambda: cupy.take(X)),
    "argument twice": (TypeError, lambda: cupy.sum(X, 0, axis=1)),
    "too many arguments": (TypeError, lambda: X.mean(0, None, None, False, None)),
    # names that CuPy does not have
    "errstate": (AttributeError, lambda: cupy.errstate),
    "geomspace": (AttributeError, lambda: cupy.geomspace),
    "insert": (AttributeError, lambda: cupy.insert),
    "vecdot": (AttributeError, lambda: cupy.vecdot),
    "x.resize": (AttributeError, lambda: X.resize),
    "x.ctypes": (AttributeError, lambda: X.ctypes),
    "rng.normal": (AttributeError, lambda: cupy.random.default_rng(0).normal),
    "rng.permutation": (AttributeError, lambda: cupy.random.default_rng(0).permutation),
    "rng.choice": (AttributeError, lambda: cupy.random.default_rng(0).choice),
    "random.nonsense": (AttributeError, lambda: cupy.random.nonsense),
    "x.nonsense = ...": (AttributeError, lambda: setattr(X, "nonsense", 1)),
    # ufunc methods
    "maximum.reduce": (NotImplementedError, lambda: cupy.maximum.reduce(X)),
    "maximum.accumulate": (NotImplementedError, lambda: cupy.maximum.accumulate(X)),
    "logical_and.reduce": (NotImplementedError, lambda: cupy.logical_and.reduce(X)),
    "multiply.reduceat": (NotImplementedError, lambda: cupy.multiply.reduceat(X, AT)),
    "multiply.at": (NotImplementedError, lambda: cupy.multiply.at(X, AT, 2.0)),
    "add.at of int16": (TypeError, lambda: cupy.add.at(device(3, dtype=np.int16), AT, 1)),
    "add.at of bfloat16": (TypeError, lambda: cupy.add.at(HALF.copy(), AT, 1.0)),
    "subtract.at of float32": (TypeError, lambda: cupy.subtract.at(X.copy(), AT, 1.0)),
    "maximum.at of float16": (TypeError, lambda: cupy.maximum.at(device(3, dtype=np.float16), AT, 1.0)),
    # products over more than two axes
    "batched matmul": (NotImplementedError, lambda: cupy.matmul(CUBE, CUBE.swapaxes(1, 2))),
    "batched @": (NotImplementedError, lambda: CUBE @ CUBE.swapaxes(1, 2)),
    "three axes @ two": (NotImplementedError, lambda: CUBE @ X.T),
    "three axes @ one": (NotImplementedError, lambda: CUBE @ device(4)),
    "batched matmul in bfloat16": (NotImplementedError, lambda: CUBE.astype(BF16) @ CUBE.astype(BF16).mT),
    "dot over three axes": (NotImplementedError, lambda: cupy.dot(CUBE, X.T)),
    "einsum as a batched product": (NotImplementedError, lambda: cupy.einsum("bij,bkj->bik", CUBE, CUBE)),
    "einsum ... as a batched product": (NotImplementedError, lambda: cupy.einsum("...ij,...jk->...ik", CUBE, CUBE.mT)),
    "einsum without ->": (NotImplementedError, lambda: cupy.einsum("ij,jk", X, X.T)),
    "einsum of three operands": (NotImplementedError, lambda: cupy.einsum("ij,ij,ij->i", X, X, X)),
    "einsum sum in bfloat16": (TypeError, lambda: cupy.einsum("...i,...i->...", HALF, HALF)),
    # indices
    "an index array on the host": (TypeError, lambda: X[np.array([0, 1])]),
    "an index list": (TypeError, lambda: X[[0, 1]]),
    "a mask on the host": (TypeError, lambda: X[HOST > 0]),
    "a host array within a key": (TypeError, lambda: X[:, np.array([0, 1])]),
    "assignment by a host array": (TypeError, lambda: assign(X, np.array([0, 1]), 0.0)),
    "take by a list": (TypeError, lambda: cupy.take(X, [0, 1], axis=0)),
    "index out of range": (IndexError, lambda: X[cupy.asarray(np.array([3]))]),
    "take out of range": (IndexError, lambda: cupy.take(X, cupy.asarray(np.array([4])), axis=1)),
    "take_along out of range": (IndexError, lambda: cupy.take_along_axis(X, device(3, 1) + 4.0 > 0, axis=-1)),
    "float index": (IndexError, lambda: X[X]),
    "duplicates in an assignment": (cupy.Differs, lambda: assign(X, AT, device(2, 4))),
    "duplicates, one negative": (cupy.Differs, lambda: assign(X, cupy.asarray(np.array([0, -3])), 1.0)),
    "duplicates on two axes": (cupy.Differs, lambda: assign(X, (AT, AT), device(2))),
    "duplicates after ...": (cupy.Differs, lambda: assign(CUBE, (..., AT), 0.0)),
    "two masks": (ValueError, lambda: X[X[:, 0] > 0, X[0] > 0]),
    "add.at by a host array": (TypeError, lambda: cupy.add.at(X.copy(), np.array([0]), 1.0)),
    "range of a device number": (TypeError, lambda: range(AT[0])),
    # casts and types
    "float to int32 out of range": (cupy.Differs, lambda: (X + 3e9).astype(np.int32)),
    "negative float to unsigned": (cupy.Differs, lambda: (X - 20.0).astype(np.uint8)),
    "infinity to int": (cupy.Differs, lambda: (X * np.inf).astype(np.int64)),
    "NaN into an int array": (cupy.Differs, lambda: assign(device(3, 4, dtype=np.int32), ..., X * np.nan)),
    "2**63 to int64": (cupy.Differs, lambda: (X * 0.0 + 2.0**63).astype(np.int64)),
    "int += float": (TypeError, lambda: operator.iadd(device(3, dtype=np.int32), 0.5)),
    "bool - bool": (TypeError, lambda: (X > 0) - (X > 1)),
    "bitwise and of floats": (TypeError, lambda: X & X),
    "bitwise and of bfloat16": (TypeError, lambda: cupy.bitwise_and(HALF, HALF)),
    "sort of bfloat16": (TypeError, lambda: cupy.argsort(HALF)),
    "object array": (ValueError, lambda: cupy.asarray(np.array([None]))),
    "uint8 + 300": (OverflowError, lambda: device(3, dtype=np.uint8) + 300),
    "out of a wrong shape": (ValueError, lambda: cupy.sum(X, axis=0, out=device(3))),
    # the rest
    "sort of a view in place": (NotImplementedError, lambda: device(3, 4).T.sort()),
    "put": (NotImplementedError, lambda: X.put(0, 1.0)),
    "in": (TypeError, lambda: 1.0 in X),
    "hash": (TypeError, lambda: hash(X)),
    "pickle": (TypeError, lambda: pickle.dumps(X)),
    "ElementwiseKernel": (NotImplementedError, lambda: cupy.ElementwiseKernel("T x", "T y", "y = x", "k")),
    "fuse": (NotImplementedError, lambda: cupy.fuse(abs)),
    "as_strided beyond the memory": (IndexError, lambda: cupy.lib.stride_tricks.as_strided(X, (4, 4), (16, 4))),
    "arange of a device number": (TypeError, lambda: cupy.arange(AT[0])),
    "a seed on the device": (TypeError, lambda: cupy.random.default_rng(LOSS)),
    "a second device": (RuntimeError, lambda: cupy.cuda.Device(1)),
    "mean of bfloat16": (TypeError, lambda: HALF.mean()),
    "linalg is not modelled": (NotImplementedError, lambda: cupy.linalg.norm(X)),
    "cuda.nonsense": (AttributeError, lambda: cupy.cuda.nonsense),
    "not modelled": (NotImplementedError, lambda: cupy.kron(X, X)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    error, mistake = REFUSED[name]
    with pytest.raises(error):
        mistake()


def test_enough_mistakes_are_planted() -> None:
    print(f"{len(REFUSED)} mistakes refused")
    assert len(REFUSED) >= 120


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(TypeError, match=r"numpy\.exp of a device array"):
        np.exp(X)
    with pytest.raises(TypeError, match=r"numpy\.sum of a device array"):
        np.sum(X)
    with pytest.raises(TypeError, match=r"ndarray\.max has no parameter 'initial'"):
        X.max(initial=0.0)
    with pytest.raises(NotImplementedError, match=r"use minilong\.backend\.products"):
        CUBE @ CUBE


def test_what_looks_at_the_outside_only_works() -> None:
    assert np.shape(X) == (3, 4)
    assert np.ndim(X) == 2
    assert np.size(X) == 12
    assert np.result_type(X, np.float64) == np.float64
    assert copy.copy(X).shape == copy.deepcopy(X).shape == X.shape
    assert isinstance(np.float32(2) * X, cupy.ndarray)
    assert isinstance(np.float64(2) - X, cupy.ndarray)
    assert (np.float64(2) - X).dtype == np.float64
