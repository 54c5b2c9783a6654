"""Laws of evaluation by windows: losses by position average to the whole, and sliding gives every token its context."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, call
from minilong.audit.laws.packing import DOCUMENTS, Wrong, ours, stream
from minilong.data.batches import IGNORE, LanguageBatch, PackedWindows
from minilong.keys import Key
from minilong.train.evaluate import position_means

kind("per-position", "per_position(sums, counts)", "Summed losses and numbers of tokens (w,) -> mean losses (w,).")
subject("per-position", "position_means", code=position_means, equation="eq:per-position")(position_means)


def losses(n: Numbers, *, width: int, windows: int, last: int) -> dict[str, Any]:
    """Sums over windows of which the last may be shorter."""
    counts = windows + (np.arange(width) < width - last)
    return {"sums": np.abs(n.normal(width, spread=3.0)) * counts, "counts": counts}


LOSSES = cases(losses, width=(1, 2, 3, 7), windows=(1, 2, 5), last=(0, 1, 3))


@law("per-position", "averages-to-total", serves="eq:per-position", cases=LOSSES)
def averages(f: F, c: Case, measure: Measure) -> None:
    """Weighted by the numbers of tokens, the means average to the mean loss of all tokens."""
    means, counts = call(f, c["sums"], c["counts"]), c["counts"]
    expected = c["sums"].sum() / counts.sum()
    measure.close(means @ counts / counts.sum(), expected, bound(expected + 1, len(counts) + 2), "the average")


@law("per-position", "own-position", serves="eq:per-position", cases=LOSSES)
def own(f: F, c: Case, measure: Measure) -> None:
    """Each mean is that of its position alone."""
    means = call(f, c["sums"], c["counts"])
    for p, (total, count) in enumerate(zip(c["sums"], c["counts"], strict=True)):
        measure.close(means[p], total / count, bound(total / count + 1), f"position {p}")


@law("packing", "sliding", serves=("claim:sliding", "eq:per-position"), cases=DOCUMENTS, share=0.5)
def sliding(f: F, c: Case, measure: Measure) -> None:
    """For every stride, each token but the first is counted once, and has at least context - stride tokens before it in
    its window, or all that there are."""
    whole, context = stream(c).tolist(), c["context"]
    windows = f(c["documents"], context)
    for stride in range(1, context + 1):
        counted = []
        for batch in windows.sequential(c["size"], stride):
            for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
                for t in np.flatnonzero(np.array(targets) != IGNORE):
                    place = next(
                        p for p in range(1, len(whole)) if whole[p] == targets[t] and whole[p - 1] == inputs[t]
                    )
                    counted.append(place)
                    seen = t + 1  # inputs up to t stand before the target
                    least = min(place, context - stride + 1)
                    measure.holds(seen >= least, f"stride {stride}: token {place} has {seen} before it, not {least}")
        measure.holds(sorted(counted) == list(range(1, len(whole))), f"stride {stride}: counted are {sorted(counted)}")


# Mutants


@mutant("per-position", "divided by the number of windows", kills=("averages-to-total", "own-position"),
        met="plausible: the mean over the rows of a matrix in which what is missing is 0")  # fmt: skip
def over_windows(sums: Any, counts: Any) -> np.ndarray:
    """The last window is taken for a full one."""
    return np.asarray(sums / counts.max())


@mutant("per-position", "running mean", kills="own-position",
        met="met in papers: the cumulative loss up to a position, shown as the loss at it")  # fmt: skip
def running(sums: Any, counts: Any) -> np.ndarray:
    """The mean of all positions up to each."""
    return np.asarray(np.cumsum(sums) / np.cumsum(counts))


class Sliding(Wrong):
    """Our windows, with the targets of sliding windows changed. change: (targets, number of the window, stride)."""

    def sequential(self, size: int, stride: int | None = None) -> Any:
        """The windows in order, changed."""
        number, stride = 0, stride or self.inner.context
        for batch in self.inner.sequential(size, stride):
            targets = []
            for inputs, row in zip(batch.inputs, batch.targets, strict=True):
                shifted = np.append(inputs[1:], row[-1])
                targets.append(self.change(row, shifted, number, stride))
                number += 1
            yield LanguageBatch(batch.inputs, np.stack(targets), batch.segments)


def all_targets(row: Any, shifted: Any, number: int, stride: int) -> Any:
    """Every target of every window counts."""
    return np.where(row == IGNORE, shifted, row)


def first_targets(row: Any, shifted: Any, number: int, stride: int) -> Any:
    """The first targets of a window count, which have the least before them."""
    fresh = np.arange(len(row)) < stride
    return np.where(fresh, np.where(row == IGNORE, shifted, row), IGNORE)


def sliding_with(change: Any) -> F:
    """Our windows with a mistake in their sliding."""
    return lambda documents, context: Sliding(ours(documents, context), change)


class Restarted(Wrong):
    """Windows that do not overlap, whatever the stride."""

    def sequential(self, size: int, stride: int | None = None) -> Any:
        """The stride is not looked at."""
        return self.inner.sequential(size)

    def batch(self, step: int, size: int, key: Key) -> LanguageBatch:
        """As it should be."""
        return self.inner.batch(step, size, key)


mutant("packing", "overlaps count again", kills="sliding",
       met="the perplexity guide of Hugging Face warns of it: labels of the overlap not set to -100")(
    sliding_with(all_targets)
)  # fmt: skip
mutant("packing", "the first targets of a window count", kills="sliding",
       met="plausible: the slice [:stride] for [-stride:]; every token then has the least context")(
    sliding_with(first_targets)
)  # fmt: skip
mutant("packing", "the stride is not used", kills="sliding",
       met="ALiBi, appendix B: non-overlapping evaluation reported as if it slid; early tokens have no context")(
    lambda documents, context: Restarted(PackedWindows(documents, context, separator=3), None)
)  # fmt: skip
