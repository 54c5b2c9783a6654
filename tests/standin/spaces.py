"""Modules of the stand-in that have no file: their names are those of CuPy's table."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from .table import TABLE, VERSION


class Space(ModuleType):
    """A module, importable by its name once it is in `sys.modules`. What CuPy has and it has not is not modelled."""

    def __init__(self, name: str, **members: Any) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in TABLE.get(self.__name__, ()):
            raise NotImplementedError(f"{self.__name__}.{name} is not modelled by the stand-in")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} in CuPy {VERSION}")
