"""Where the time of a training step goes, by primitive: `forward` and `rule` of all of them wrapped for a while.

Times are self times: of a rule that calls other primitives, what these take is theirs. Replicas work side by side, so
the sum over their threads is divided by their number; what the threads do not spend in primitives (the interpreter, the
engine, waiting for one another) is the rest, and so the parts sum to the step by their definition. What the wrapping
itself costs (about a microsecond a call) falls to the rest.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minilong.autodiff import REGISTRY
from minilong.nn.flat import Layout

GATHER, SUM, CLIP, OPTIMISER = "gather gradients", "sum gradients", "clip", "optimiser"
REST = "Python, engine, waiting"
FORWARD, BACKWARD = "forward", "backward"


class Clock:
    """Self times and calls by (name, direction), over all threads."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.calls: dict[tuple[str, str], int] = defaultdict(int)
        self._lock, self._local = threading.Lock(), threading.local()

    def timed(self, f: Callable[..., Any], key: tuple[str, str]) -> Callable[..., Any]:
        """The function, its self time added up under the key."""

        def call(*args: Any, **named: Any) -> Any:
            inner = self._local.__dict__.setdefault("inner", [])
            inner.append(0.0)
            begin = time.perf_counter()
            try:
                return f(*args, **named)
            finally:
                spent = time.perf_counter() - begin
                own = spent - inner.pop()
                if inner:
                    inner[-1] += spent
                with self._lock:
                    self.seconds[key] += own
                    self.calls[key] += 1

        return call


@contextmanager
def instrumented(clock: Clock) -> Iterator[None]:
    """Every primitive's forward and rule, and the gathering of gradients, timed inside; as before afterwards."""
    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, new: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        before.append((owner, name, original))
        setattr(owner, name, new(original))

    def timed(*key: str) -> Callable[[Any], Any]:
        return lambda f: clock.timed(f, (key[0], key[1]))

    def timed_receiver(receiver: Any) -> Any:
        return lambda *args, **named: clock.timed(receiver(*args, **named), (GATHER, ""))

    try:
        for primitive in REGISTRY.values():
            put(primitive, "forward", timed(primitive.name, FORWARD))
            put(primitive, "rule", timed(primitive.name, BACKWARD))
        put(Layout, "receiver", timed_receiver)
        yield
    finally:
        for owner, name, original in reversed(before):
            setattr(owner, name, original)


def profile(trainer: Any, batch: Any, steps: int) -> dict[str, Any]:
    """Rows `part`, `direction`, `calls` and `seconds` of one step, the largest first, and the `step` that they sum to.

    trainer: see `ours.steps.Trainer`; it takes `steps` steps, after one that is not counted.
    """
    trainer.step(batch)
    clock, whole = Clock(), 0.0
    spent = {SUM: 0.0, CLIP: 0.0, OPTIMISER: 0.0}
    replicas, maps = trainer.replicas, list[float]()
    original = replicas.map

    def timed_map(*args: Any) -> Any:
        begin = time.perf_counter()
        found = original(*args)
        maps.append(time.perf_counter() - begin)
        return found

    replicas.map = timed_map
    try:
        with instrumented(clock):
            for _ in range(steps):
                maps.clear()
                begin = time.perf_counter()
                _, gradient = trainer.gradient(batch)
                differentiated = time.perf_counter()
                trainer.clip(gradient)
                clipped = time.perf_counter()
                trainer.update(gradient)
                end = time.perf_counter()
                spent[SUM] += differentiated - begin - maps[0]  # the first differentiates, later ones add up
                spent[CLIP] += clipped - differentiated
                spent[OPTIMISER] += end - clipped
                whole += end - begin
    finally:
        del replicas.map  # the method of the class shows again
    rows = [
        {"part": name, "direction": direction, "calls": clock.calls[name, direction] / steps, "seconds": s}
        for (name, direction), total in clock.seconds.items()
        if (s := total / steps / replicas.threads) > 0
    ]
    rows += [{"part": name, "direction": "", "calls": 1.0, "seconds": total / steps} for name, total in spent.items()]
    step = whole / steps
    rest = step - sum(row["seconds"] for row in rows)
    rows.append({"part": REST, "direction": "", "calls": 0.0, "seconds": rest})
    rows.sort(key=lambda row: -row["seconds"])
    return {"steps": steps, "threads": replicas.threads, "step": step, "rows": rows}
