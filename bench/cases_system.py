"""Cases of what is around the computation: starting, batches of data, writing a checkpoint."""

from __future__ import annotations

from .case import OURS, Case
from .cases_models import decoder

SYSTEM = (
    Case(
        name="start-import",
        kind="start",
        about="a fresh process that imports the library and ends; minilong loads its parts when they are used",
        sides={
            OURS: ".ours.system:Command",
            "torch": ".peers.commands:ImportTorch",
            "jax": ".peers.commands:ImportJax",
        },
        settings={"arguments": ["-c", "import minilong"]},
        tolerance={"*": 0.0},
        repetition=1.5,
    ),
    Case(
        name="start-ready",
        kind="start",
        about="the same with all that training needs imported: engine, models, optimiser, data, run folders",
        sides={OURS: ".ours.system:Command", "torch": ".peers.commands:ImportTorch"},
        settings={"arguments": ["-c", "import minilong.train.session"]},
        tolerance={"*": 0.0},
        repetition=1.5,
    ),
    Case(
        name="start-help",
        kind="start",
        about="`minilong --help` in a fresh process",
        sides={OURS: ".ours.system:Command"},
        settings={"arguments": ["-m", "minilong", "--help"]},
        repetition=0.2,
    ),
    Case(
        name="data-batches",
        kind="data",
        about="200 batches of 8 windows of 256 characters of a shipped text; PyTorch by a DataLoader in the process",
        sides={OURS: ".ours.system:Batches", "torch": ".peers.torch_system:Batches"},
        settings={"text": "pride_and_prejudice", "context": 256, "batch": 8, "batches": 200},
        quick={"batches": 5},
        tolerance={"*": 0.0},
        repetition=0.1,
    ),
    Case(
        name="checkpoint-write",
        kind="data",
        about="weights and optimiser of 10.7M parameters to disk: ours crash-safe, PyTorch by torch.save and fsync",
        sides={OURS: ".ours.system:Checkpoint", "torch": ".peers.torch_system:Checkpoint"},
        settings={"model": decoder(6, 384, 6, 256), "vocabulary": 73},
        quick={"model": decoder(2, 32, 2, 16), "vocabulary": 19},
        tolerance={"*": 1e-6},
        repetition=0.5,
    ),
)
