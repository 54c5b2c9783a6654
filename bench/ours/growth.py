"""How minilong's cost grows: a step over the batch, forward and backward over the length."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from ..case import Side
from ..counting import visible_pairs
from .steps import Trainer, as_batch, tokens


def best(f: Callable[[], Any], seconds: float) -> float:
    """The least time of as many calls as fill the seconds, at least one."""
    least, begin = float("inf"), time.perf_counter()
    while True:
        start = time.perf_counter()
        f()
        now = time.perf_counter()
        least = min(least, now - start)
        if now - begin >= seconds:
            return least


class OverBatch(Side):
    """A training step at several batch sizes."""

    def sweep(self, rounds: int, seconds: float) -> list[dict[str, Any]]:
        """Points with `x`, the batch, and the best time of each round."""
        points = []
        with ExitStack() as stack:
            steps = []
            for size in self.settings["batches"]:
                own = {**self.settings, "batch": size}
                trainer = Trainer(own["model"], own["vocabulary"], size, self.threads)
                # All hold the matrix library to one thread, which is undone in the order of the stack.
                steps.append((stack.enter_context(trainer), as_batch(tokens(own))))
                points.append({"curve": "step", "x": size, "times": []})
            for trainer, batch in steps:
                trainer.step(batch)
            for _ in range(rounds):
                for point, (trainer, batch) in zip(points, steps, strict=True):
                    point["times"].append(best(partial(trainer.step, batch), seconds))
        return points


class OverLength(Side):
    """Forward and backward of one sequence at several lengths, with full and with window attention."""

    def sweep(self, rounds: int, seconds: float) -> list[dict[str, Any]]:
        """Points with `x`, the length, `keys` that a query sees on average, and the best time of each round."""
        points: list[dict[str, Any]] = []
        s = self.settings
        for window in (0, s["window"]):
            for n in s["lengths"]:
                model = {
                    "kind": "decoder",
                    "layers": s["layers"],
                    "width": s["width"],
                    "heads": s["heads"],
                    "context": n,
                    "position": "learned",
                    "window": window,
                }
                own = {"model": model, "batch": 1, "length": n, "vocabulary": s["vocabulary"]}
                batch = as_batch(tokens(own))
                with Trainer(model, s["vocabulary"], 1, self.threads) as trainer:
                    trainer.gradient(batch)
                    times = [best(partial(trainer.gradient, batch), seconds) for _ in range(rounds)]
                curve = f"window {window}" if window else "full"
                points.append({"curve": curve, "x": n, "keys": visible_pairs(n, window) / n, "times": times})
        return points
