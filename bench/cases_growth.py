"""Cases of growth: how cost rises with the batch and with the length, beside what it must be."""

from __future__ import annotations

from .case import OURS, Case
from .cases_models import decoder

GROWTH = (
    Case(
        name="growth-batch",
        kind="growth",
        about="time of a step of the 0.8M model over the batch, 2 to 48: a line",
        sides={OURS: ".ours.growth:OverBatch"},
        settings={
            "model": decoder(4, 128, 4, 64),
            "length": 64,
            "vocabulary": 73,
            "batches": [2, 4, 8, 12, 16, 24, 32, 48],
        },
        quick={"model": decoder(1, 16, 2, 8), "length": 8, "batches": [2, 3, 4]},
        seconds=0.4,
        repetition=5.0,
        growth=True,
    ),
    Case(
        name="growth-length",
        kind="growth",
        about="forward and backward of 4 layers, 256 wide, over the length, 512 to 16,384: full attention costs "
        "a + b n a token, a window of 512 the same at every length",
        sides={OURS: ".ours.growth:OverLength"},
        settings={
            "layers": 4,
            "width": 256,
            "heads": 4,
            "vocabulary": 73,
            "window": 512,
            "lengths": [512, 1024, 2048, 4096, 8192, 16384],
        },
        quick={"layers": 1, "width": 16, "heads": 2, "window": 8, "lengths": [8, 16, 32, 64]},
        seconds=0.5,
        repetition=60.0,
        growth=True,
    ),
)
