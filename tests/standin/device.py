"""`cupy.cuda`: one device of compute capability 9.0 with 80 GB, its streams, events and memory pool."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from . import cublas, events, memory
from .memory import POOL, OutOfMemoryError
from .spaces import Space

TOTAL = 80 << 30
ATTRIBUTES = {
    "MaxThreadsPerBlock": 1024, "MaxSharedMemoryPerBlock": 48 << 10, "MaxSharedMemoryPerBlockOptin": 227 << 10,
    "MultiProcessorCount": 132, "WarpSize": 32, "ComputeCapabilityMajor": 9, "ComputeCapabilityMinor": 0,
    "L2CacheSize": 50 << 20, "ClockRate": 1_980_000,
}  # fmt: skip


class CUDARuntimeError(RuntimeError):
    """cupy.cuda.runtime.CUDARuntimeError."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"cudaError {status}")


class Device:
    """cupy.cuda.Device."""

    compute_capability = "90"
    attributes = ATTRIBUTES
    pci_bus_id = "0000:00:00.0"
    cublas_handle = cublas.HANDLE

    def __init__(self, device: Any = None) -> None:
        number = 0 if device is None else int(device)
        if number != 0:
            raise CUDARuntimeError(101)
        self.id = number

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> Device:
        return self

    def synchronize(self) -> None:
        events.sync("Device.synchronize()")

    @property
    def mem_info(self) -> tuple[int, int]:
        return memGetInfo()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Stream:
    """cupy.cuda.Stream: all work is done when it is given, so there is only the bookkeeping."""

    null: Stream
    ptr = 0

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.is_null = null

    @property
    def done(self) -> bool:
        return True

    def synchronize(self) -> None:
        events.sync("Stream.synchronize()")

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.time is None:
            raise CUDARuntimeError(400)

    def use(self) -> Stream:
        return self

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


Stream.null = Stream(null=True)


class Event:
    """cupy.cuda.Event."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.time: float | None = None
        self.timed = not disable_timing

    @property
    def done(self) -> bool:
        return True

    def record(self, stream: Stream | None = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        events.sync("Event.synchronize()")


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events."""
    if start_event.time is None or end_event.time is None or not (start_event.timed and end_event.timed):
        raise CUDARuntimeError(400)
    return 1e3 * (end_event.time - start_event.time)


class MemoryPool:
    """cupy.cuda.MemoryPool: the bytes of live arrays, and of freed ones that are kept for later."""

    def used_bytes(self) -> int:
        return POOL.used

    def total_bytes(self) -> int:
        return POOL.held

    def free_bytes(self) -> int:
        return POOL.held - POOL.used

    def n_free_blocks(self) -> int:
        return int(POOL.held > POOL.used)

    def free_all_blocks(self, stream: Any = None) -> None:
        POOL.held = POOL.used

    def get_limit(self) -> int:
        return POOL.limit

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        if (size is None) == (fraction is None):
            raise ValueError("size and fraction: one of them is needed")
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError("memory limit fraction out of range")
        limit = int(TOTAL * fraction) if fraction is not None else int(size or 0)
        if limit < 0:
            raise ValueError("memory limit size out of range")
        POOL.limit = limit


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


def memGetInfo() -> tuple[int, int]:
    return TOTAL - POOL.held, TOTAL


def get_current_stream(device_id: int = -1) -> Stream:
    return Stream.null


def is_available() -> bool:
    return True


def get_device_id() -> int:
    return 0


def get_cublas_handle() -> int:
    return cublas.HANDLE


def deviceSynchronize() -> None:
    events.sync("deviceSynchronize()")


def getDeviceProperties(device: int) -> dict[str, Any]:
    Device(device)
    return {
        "name": b"CPU stand-in", "totalGlobalMem": TOTAL, "major": 9, "minor": 0, "multiProcessorCount": 132,
        "warpSize": 32, "sharedMemPerBlock": 48 << 10, "sharedMemPerBlockOptin": 227 << 10, "regsPerBlock": 65536,
        "maxThreadsPerBlock": 1024, "l2CacheSize": 50 << 20, "clockRate": 1_980_000, "memoryClockRate": 2_619_000,
        "memoryBusWidth": 5120,
    }  # fmt: skip


runtime = Space(
    "cupy.cuda.runtime", CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 1, getDevice=lambda: 0,
    setDevice=lambda device: Device(device) and None, getDeviceProperties=getDeviceProperties, memGetInfo=memGetInfo,
    driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 12090, deviceSynchronize=deviceSynchronize,
    is_hip=False,
)  # fmt: skip
device_module = Space(
    "cupy.cuda.device", Device=Device, get_cublas_handle=get_cublas_handle, get_device_id=get_device_id
)
memory_module = Space(
    "cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError, MemoryPool=MemoryPool, Memory=memory.Memory
)
stream_module = Space("cupy.cuda.stream", Stream=Stream, Event=Event, get_current_stream=get_current_stream)
cuda = Space(
    "cupy.cuda", Device=Device, Stream=Stream, Event=Event, MemoryPool=MemoryPool, runtime=runtime,
    device=device_module, memory=memory_module, stream=stream_module, is_available=is_available,
    get_current_stream=get_current_stream, get_device_id=get_device_id, get_elapsed_time=get_elapsed_time,
    get_cublas_handle=get_cublas_handle, get_local_runtime_version=lambda: 12090,
)  # fmt: skip
