"""The loss of a model that knows how frequent tokens are and nothing else: what any other has to be below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minilong.data.batches import IGNORE


def frequency_loss(trained: Iterable[Any], held_out: Iterable[Any], vocabulary: int) -> float:
    """Mean negative log-likelihood in nats of the held-out batches' targets by their frequency among the targets of
    training batches, each counted once more than it occurs (`eq:frequency-loss`)."""
    counts = np.ones(vocabulary)
    for batch in trained:
        np.add.at(counts, batch.targets[batch.targets != IGNORE], 1)
    surprise = -np.log(counts / counts.sum())
    found = [surprise[batch.targets[batch.targets != IGNORE]] for batch in held_out]
    return float(np.concatenate(found).mean())
