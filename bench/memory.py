"""The memory that a process holds, as Linux counts it: resident now, and at most since a reset."""

from __future__ import annotations

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int | None:
    """Bytes now; None where the system has no /proc."""
    return _field("VmRSS")


def peak() -> int | None:
    """The most bytes since `reset`. (`getrusage` would not do: its maximum outlives exec, and knows no reset.)"""
    return _field("VmHWM")


def reset() -> bool:
    """Let the peak begin anew from what is resident; whether the system allows that."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _field(name: str) -> int | None:
    try:
        lines = STATUS.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
