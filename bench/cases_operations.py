"""Cases of single operations and of attention kernels, each forward and backward with a given cotangent.

Operations have the sizes of one thread's share of the 10.7M step (4 rows of 256 tokens), and one thread on both sides.
"""

from __future__ import annotations

from typing import Any

from . import counting
from .case import OURS, Case

ROWS, WIDTH = 1024, 384


def operation(
    name: str, about: str, settings: dict[str, Any], work: Any, tolerance: float = 1e-5, repetition: float = 0.01
) -> Case:
    """One operation on one thread."""
    small = {"rows": 13, "width": 12, "classes": 17, "heads": 2, "length": 9, "parameters": 1001}
    return Case(
        name=f"op-{name}",
        kind="operation",
        about=f"{about}; 1 thread each",
        sides={OURS: ".ours.operations:Operation", "torch": ".peers.torch_operations:Operation"},
        settings={"operation": name, **settings},
        quick={key: small[key] for key in settings if key in small},
        work=work,
        tolerance={"*": tolerance},
        threads=1,
        seconds=0.5,
        repetition=repetition,
    )


OPERATIONS = (
    operation(
        "layer-norm",
        f"layer norm of ({ROWS}, {WIDTH})",
        {"rows": ROWS, "width": WIDTH},
        counting.elementwise(5, "rows", "width"),
    ),
    operation(
        "gelu",
        f"exact GELU of ({ROWS}, {4 * WIDTH})",
        {"rows": ROWS, "width": 4 * WIDTH},
        counting.elementwise(5, "rows", "width"),
    ),
    operation(
        "gelu-tanh",
        f"GELU by tanh of ({ROWS}, {4 * WIDTH})",
        {"rows": ROWS, "width": 4 * WIDTH},
        counting.elementwise(5, "rows", "width"),
    ),
    operation(
        "softmax",
        "softmax of (4, 6, 256, 256) scores",
        {"rows": 4, "heads": 6, "length": 256},
        counting.elementwise(5, "rows", "heads", "length", "length"),
    ),
    operation(
        "cross-entropy",
        f"output projection and loss of ({ROWS}, {WIDTH}) at 8,192 classes, ours in chunks of rows",
        {"rows": ROWS, "width": WIDTH, "classes": 8192},
        counting.projected_loss,
        repetition=0.3,
    ),
    operation(
        "embedding",
        f"embedding of {ROWS} tokens, with the gradient of the table (8192, {WIDTH})",
        {"rows": ROWS, "width": WIDTH, "classes": 8192},
        counting.embedding,
    ),
    operation(
        "adamw",
        "AdamW step of 10.7M parameters in one array",
        {"parameters": 10_700_000},
        counting.elementwise(7, "parameters"),
        repetition=0.03,
    ),
)


def kernel(length: int, batch: int, threads: int | None, repetition: float, window: int = 0) -> Case:
    """Causal attention of 8 heads of 64."""
    name = f"kernel-window-{length}" if window else f"kernel-attention-{length}"
    what = f"attention in a window of {window} keys" if window else "causal attention"
    how = "1 thread each" if threads else "threads as asked"
    peer = "; PyTorch by a boolean mask" if window else ""
    return Case(
        name=name,
        kind="kernel",
        about=f"{what}, {length:,} tokens, batch {batch}, 8 heads of 64; {how}{peer}",
        sides={OURS: ".ours.operations:Kernel", "torch": ".peers.torch_operations:Kernel"},
        settings={"batch": batch, "heads": 8, "head_width": 64, "length": length, "window": window},
        quick={"heads": 2, "head_width": 8, "length": 23, "window": min(window, 5)},
        work=counting.attention,
        tolerance={"*": 1e-5},
        threads=threads,
        repetition=repetition,
    )


KERNELS = (
    kernel(256, 4, 1, 0.02),
    kernel(2048, 1, None, 0.15),
    kernel(8192, 1, None, 2.0),
    kernel(8192, 1, None, 2.0, window=512),
)
