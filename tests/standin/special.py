"""`cupyx.scipy.special`: the functions that SciPy has under the same names, in CuPy's types."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from .table import TABLE
from .ufuncs import ufunc


class _Special(ModuleType):
    """Loads SciPy when a function is first asked for."""

    def __getattr__(self, name: str) -> Any:
        entry = TABLE["cupyx.scipy.special"].get(name)
        if entry is None or name.startswith("_"):
            raise AttributeError(f"cupyx.scipy.special has no {name!r}")
        if entry["kind"] != "ufunc":
            raise NotImplementedError(f"cupyx.scipy.special.{name} is not modelled by the stand-in")
        import scipy.special

        f = ufunc(name, entry, getattr(scipy.special, name))
        setattr(self, name, f)
        return f


special = _Special("cupyx.scipy.special")
