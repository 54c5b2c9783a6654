"""A side of a GPU case that times several computations, one after another, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .case import Side


def timed(run: Callable[[], Any], wait: Callable[[], Any], rounds: int, seconds: float) -> float:
    """Seconds of one call: of the fastest of some rounds, each of as many calls as fill `seconds`, none waited for but
    the last. So work that the host does between two calls is hidden behind the device's, as it is in training."""
    run()  # compiles, and fills the memory pool
    wait()
    begin = time.perf_counter()
    run()
    wait()
    calls = max(1, int(seconds / max(time.perf_counter() - begin, 1e-9)))
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        best = min(best, (time.perf_counter() - begin) / calls)
    return best


class PointsSide(Side):
    """A side whose settings list `points`. A point that fails, for lack of memory say, has an `error` for a time."""

    def prepared(self, point: dict[str, Any]) -> Callable[[], Any]:
        """What is timed, with its inputs on the device."""
        raise NotImplementedError

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        raise NotImplementedError

    def release(self) -> None:
        """Give back the memory that no array holds."""
        raise NotImplementedError

    def run(self) -> None:
        """Nothing: `sweep` warms up each point."""

    def sweep(self, rounds: int, seconds: float) -> list[dict[str, Any]]:
        return [self.measured(point, rounds, seconds) for point in self.settings["points"]]

    def measured(self, point: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
        """Name and seconds, or name and error."""
        try:
            return {"name": point["name"], "seconds": timed(self.prepared(point), self.wait, rounds, seconds)}
        except Exception as error:  # the other points go on
            return {"name": point["name"], "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        finally:
            self.release()
