"""How the flash attention kernels cut up their work: tile sizes by type, head width and the GPU's shared memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

WIDEST = 128
"""The largest head width that the kernels compute."""

BUSY = 132
"""Blocks that fill a large GPU. Where tiles of 128 rows give fewer, tiles of 64 do."""

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Plan:
    """A block owns `rows` rows and streams `columns` at a time past them, `chunk` of them in each product.

    tensor: on tensor cores. head: elements of a row in shared memory. keep: how many of its arrays a block keeps in
    registers. aligned: rows are whole vectors of 16 bytes. biased, segmented: what else the kernel looks at.
    """

    kernel: str
    dtype: str
    tensor: bool
    head: int
    rows: int
    columns: int
    chunk: int
    warps: int
    keep: int
    aligned: bool
    biased: bool
    segmented: bool

    @property
    def source(self) -> str:
        """The kernel's file."""
        return f"{self.kernel}_tensor.cu" if self.tensor else f"{self.kernel}.cu"

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros that it is compiled with."""
        sizes = {"HEAD": self.head, "ROWS": self.rows, "COLUMNS": self.columns, "CHUNK": self.chunk}
        flags = {"ALIGNED": self.aligned, "BIAS": self.biased, "SEGMENTS": self.segmented}
        named = {**sizes, "BLOCK_WARPS": self.warps, **({"KEEP": self.keep} if self.tensor else {}), **flags}
        return tuple(f"{name}={int(value)}" for name, value in named.items())

    @property
    def vector(self) -> int:
        """Elements of 16 bytes."""
        return 16 // BYTES[self.dtype]

    @property
    def shared(self) -> int:
        """Bytes of shared memory: own rows, two stages of streamed rows with what belongs to them, passing weights."""
        row, sums = self.head * BYTES[self.dtype], max(4, BYTES[self.dtype])
        own = (1 if self.kernel == "flash_forward" else 2) * self.rows * row
        pairs = 2 * self.columns * sums if self.kernel == "flash_keys" else 0
        line = (self.rows + self.columns) * sums if self.biased else 0
        weights = 0 if self.tensor else self.rows * (self.chunk * sums + 16)
        return own + 2 * (2 * self.columns * row + pairs + line) + weights


def plan_of(
    xp: Any, kernel: str, dtype: Any, d: int, e: int, rows: int, heads: int, *, biased: bool, segmented: bool
) -> Plan:
    """The plan of a kernel that owns `rows` rows of so many heads in all.

    Raises ValueError for heads that are too wide: more than 128, or 64 in float64 on a GPU older than 8.0.
    """
    if max(d, e) > WIDEST:
        raise ValueError(f"flash attention: heads of {d} and {e} elements; the kernels take at most {WIDEST}")
    name, capability = str(dtype), int(xp.cuda.Device().compute_capability)
    tensor = BYTES[name] == 2 and capability >= 80
    head = next(width for width in (32, 64, 128) if max(d, e) <= width)
    few = heads * -(-rows // 128) < BUSY
    sizes = tensor_sizes(kernel, head, few, plain=not (biased or segmented)) if tensor else SIMT
    plan = Plan(
        kernel=kernel,
        dtype=name,
        tensor=tensor,
        head=head,
        aligned=d * BYTES[name] % 16 == 0 and e * BYTES[name] % 16 == 0,
        biased=biased,
        segmented=segmented,
        **sizes,
    )
    limit = (99 if capability >= 80 else 64) * 1024  # of 7.5, and the least of 8.0 and above
    while plan.shared > limit and plan.rows > LEAST_ROWS:
        plan = smaller(plan)
    if plan.shared > limit:
        raise ValueError(f"flash attention: {name} heads of {head} elements exceed the {limit} bytes of this GPU")
    return plan


LEAST_ROWS = 8
"""A row for every 16 threads."""

SIMT = {"rows": 64, "columns": 32, "chunk": 32, "warps": 4, "keep": 0}


def tensor_sizes(kernel: str, head: int, few: bool, plain: bool) -> dict[str, int]:
    """Tiles that leave no register to spill: a warp owns 32 rows, or 16 where heads are wide and sums are two."""
    backward = kernel != "flash_forward"
    own = 16 if few or (backward and head == 128) else 32
    rows, columns = 64 if few else 128, 64 if head <= 64 else 32
    keep = {"flash_forward": int(plain and head <= 64), "flash_queries": 1 if head <= 64 else 2}.get(kernel, 0)
    chunk = 32 if backward else columns
    return {"rows": rows, "columns": columns, "chunk": chunk, "warps": rows // own, "keep": keep}


def smaller(plan: Plan) -> Plan:
    """A plan that needs less shared memory: fewer columns, down to 16, then fewer rows."""
    if plan.columns > 16:
        columns = plan.columns // 2
        return replace(plan, columns=columns, chunk=min(plan.chunk, columns))
    return replace(plan, rows=plan.rows // 2)
