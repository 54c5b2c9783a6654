"""The array libraries: NumPy on a CPU, CuPy on a GPU. The only room that names them apart."""

from minilong.backend.arrays import (
    Array,
    array_module,
    is_array,
    scatter_rows,
    special,
    to_host,
    workspace,
)
from minilong.backend.device import CPU, Device, beside
from minilong.backend.memory import keep_freed_memory

__all__ = [
    "CPU",
    "Array",
    "Device",
    "array_module",
    "beside",
    "is_array",
    "keep_freed_memory",
    "scatter_rows",
    "special",
    "to_host",
    "workspace",
]
