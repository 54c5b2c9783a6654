"""`cupy.random`: the generators have CuPy's methods and NumPy's distributions, and other numbers for the same seed."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from . import events
from .array import ndarray, owned
from .table import TABLE, VERSION, signature
from .ufuncs import result_into

OTHER = 0x5EED
"""Seeds together with the user's, since CuPy's numbers differ from NumPy's."""

CONVERTED = ("uniform", "exponential", "poisson")
"""Methods that take `dtype` in CuPy and not in NumPy."""


class Generator:
    """cupy.random.Generator."""

    def __init__(self, seed: Any = None) -> None:
        if isinstance(seed, ndarray):
            raise TypeError("a seed on the device")
        entropy = None if seed is None else [OTHER, *np.atleast_1d(np.asarray(seed, dtype=object)).tolist()]
        self._generator = np.random.default_rng(entropy)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        entry = TABLE["Generator"].get(name)
        if entry is None:
            raise AttributeError(f"cupy.random.Generator has no {name!r} in CuPy {VERSION}")
        check = signature("Generator", name).check
        f = getattr(self._generator, name)

        def call(*args: Any, **kw: Any) -> Any:
            check(args, kw)
            out = kw.pop("out", None)
            dtype = kw.pop("dtype", None) if name in CONVERTED else None
            events.launch(f"random.{name}")
            y = np.asarray(f(*args, **kw))
            y = y if dtype is None else y.astype(dtype)
            return owned(y) if out is None else result_into(y, out)

        return call


def default_rng(seed: Any = None) -> Generator:
    """cupy.random.default_rng."""
    return seed if isinstance(seed, Generator) else Generator(seed)


def __getattr__(name: str) -> NoReturn:
    if name in TABLE["cupy.random"]:
        raise NotImplementedError(f"cupy.random.{name} is not modelled: the stand-in has default_rng only")
    raise AttributeError(f"cupy.random has no {name!r} in CuPy {VERSION}")
