"""One GPU as a worker: what `Replicas` are on a CPU. It is handed work and does not wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from minilong.autodiff import deliver_gradient
from minilong.autodiff.tree import leaves, rebuild
from minilong.backend import CPU, Array, Device, array_module
from minilong.keys import Key
from minilong.nn.flat import Layout
from minilong.train.config import available_threads
from minilong.train.replicas import Replicas, share

NOTHING = Layout((), (), (), 0, 0)


class DeviceWorker:
    """Differentiates whole batches on a GPU, one after another. Use as `Replicas`, as a context manager.

    Dropout takes the bits of a CPU's only replica: a run with `threads = 1` sees the same ones on every device.
    """

    threads = 1

    def __init__(self, device: Device, layout: Layout = NOTHING) -> None:
        self.device, self.layout = device, layout
        self.flat: Array = device.xp.zeros(layout.size, device.xp.float32)

    def __enter__(self) -> DeviceWorker:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def gradient(
        self, loss: Callable[..., Any], model: Any, batches: Sequence[Any], key: Key | None, scale: Array | None = None
    ) -> tuple[Array, Array]:
        """Mean loss over all tokens of the batches (a 0-d array) and its flat float32 gradient, which the next call
        overwrites; both times `scale` where there is one (`eq:loss-scaling`)."""
        tokens: Any = float(max(1, sum(batch.tokens for batch in batches)))
        if scale is not None:
            tokens = tokens / scale
        total = None
        for i, batch in enumerate(batches):
            own = key.fold(i, 0) if key else None
            receive = self.layout.receiver(self.flat, add=i > 0)
            value = deliver_gradient(partial(share, loss, batch, own, tokens), model, receive)
            total = value if total is None else total + value
        return total, self.flat

    def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`f` of each item in turn."""
        return [f(item) for item in items]


def device_of(model: Any) -> Device:
    """Where the arrays of a model are."""
    weights = leaves(model)
    xp = array_module(*weights)
    if not weights or xp.__name__ == "numpy":
        return CPU
    return Device("fake" if hasattr(xp, "__standin__") else "cuda", int(weights[0].device.id))


def put_model(model: Any, device: Device) -> Any:
    """The model with its arrays on a device. A table that two layers share stays one."""
    moved: dict[int, Array] = {}
    return rebuild(model, (moved.setdefault(id(x), device.put(x)) for x in leaves(model)))


def workers(model: Any) -> Any:
    """What reads with a model in parallel: threads on a CPU, or the GPU that holds it."""
    device = device_of(model)
    return Replicas(available_threads(), NOTHING) if device.is_cpu else DeviceWorker(device)
