"""Real processes: killed while they save, read while they write, stopped by a real limit of the file size."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from run_faults import memory_folder

from minilong.errors import UserError
from minilong.train.arrays import arrays_from_bytes
from minilong.train.run import RunFolder

# Imports once, then forks one writer per line of its input, so that a kill costs no start of an interpreter.
NURSERY = """
import json, os, sys
from pathlib import Path
import numpy as np
from minilong.train.arrays import arrays_to_bytes
from minilong.train.run import RunFolder

def write(path):
    run = RunFolder.open(path, write=True) if (path / "manifest.json").exists() or (path / ".commit").exists() \\
        else RunFolder.create(path)
    step = run.step or 0
    while True:
        step += 1
        run.append_metrics({"step": step})
        run.commit({
            "model.safetensors": arrays_to_bytes({"w": np.full(3000, step)}),
            "optimizer.safetensors": arrays_to_bytes({"m": np.full(6000, step)}),
            "state.json": json.dumps({"step": step}).encode(),
        })

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            write(Path(line.strip()))
        finally:
            os._exit(9)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Nursery:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.child = 0

    def start(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{self.path}\n")
        self.process.stdin.flush()
        self.child = int(self.process.stdout.readline())

    def kill(self) -> int:
        assert self.process.stdout is not None
        os.kill(self.child, signal.SIGKILL)
        self.child = 0
        return int(self.process.stdout.readline())


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    with memory_folder() as folder:
        nursery = Nursery(folder / "run")
        yield nursery
        if nursery.child:  # a test failed and left its writer behind
            nursery.kill()
        with nursery.process as process:
            assert process.stdin is not None
            process.stdin.close()


def consistent_step(run: RunFolder) -> int:
    """The step of the state, the same in all its files."""
    step = run.step
    assert step is not None
    for name, array, size in (("model", "w", 3000), ("optimizer", "m", 6000)):
        found = arrays_from_bytes(run.read(f"{name}.safetensors"), name)[array]
        assert found.shape == (size,)
        assert np.all(found == step)
    assert [record["step"] for record in run.metrics()] == list(range(1, step + 1))
    return step


def test_sixty_kills_at_random_moments_leave_a_whole_state(nursery: Nursery) -> None:
    chance = random.Random(1)
    steps, unfinished = [0], 0
    for _ in range(60):
        nursery.start()
        time.sleep(chance.uniform(0.002, 0.08))
        assert nursery.kill() == signal.SIGKILL
        unfinished += bool({".next", ".commit"} & set(os.listdir(nursery.path) if nursery.path.exists() else []))
        if not (nursery.path / "manifest.json").exists() and not (nursery.path / ".commit").exists():
            assert steps == [0], "killed before the first commit"
            continue
        with RunFolder.open(nursery.path) as run:
            steps.append(consistent_step(run))
        assert steps[-1] >= steps[-2], "no committed state is lost"
    assert steps[-1] > 20
    assert unfinished > 5, "some kills hit a commit"
    with RunFolder.open(nursery.path, write=True) as run:
        assert consistent_step(run) == steps[-1]


def test_a_reader_beside_a_writer_always_gets_one_state(nursery: Nursery) -> None:
    nursery.start()
    while not (nursery.path / "manifest.json").exists():
        time.sleep(0.01)
    with RunFolder.open(nursery.path) as early:
        steps = [consistent_step(early)]
        until = time.monotonic() + 2
        while time.monotonic() < until:
            with RunFolder.open(nursery.path) as run:
                steps.append(consistent_step(run))
        assert nursery.kill() == signal.SIGKILL
        assert steps == sorted(steps)
        assert steps[-1] > steps[0] + 10
        assert consistent_step(early) == steps[0], "a reader keeps what it opened"


def test_the_lock_of_a_living_process_holds(nursery: Nursery) -> None:
    nursery.start()
    while not (nursery.path / "manifest.json").exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"is being written by process {nursery.child}; wait for it, stop it"):
        RunFolder.open(nursery.path, write=True)
    assert nursery.kill() == signal.SIGKILL
    RunFolder.open(nursery.path, write=True).close()


FULL = """
import resource, sys
from pathlib import Path
from minilong.errors import UserError
from minilong.train.run import RunFolder

run = RunFolder.create(Path(sys.argv[1]))
run.commit({"model.safetensors": b"a" * 1000, "state.json": b'{"step": 4}'})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
try:
    run.commit({"state.json": b'{"step": 5}', "model.safetensors": b"b" * (1 << 17)})
except UserError as error:
    print(error)
print((run.path / ".next").exists())
try:
    for step in range(100_000):
        run.append_metrics({"step": step, "text": "x" * 1000})
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run.commit({"state.json": b'{"step": 6}'})
print(len(run.metrics()) == step)
"""


def test_a_real_limit_of_the_file_size_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    first, half_written, second, whole = done.stdout.splitlines()
    remedy = rf"the state of step 4 is whole: raise the limit.*ulimit.*, then `minilong train --resume {path}`"
    assert re.search(rf"cannot save to {path}: File too large \(to write: 131,083 bytes\); {remedy}", first)
    assert re.search(rf"File too large .*; {remedy}", second)
    assert half_written == "False", "the space is given back"
    assert whole == "True"
    with RunFolder.open(path) as run:
        assert run.step == 6
        assert run.read("model.safetensors") == b"a" * 1000
        assert len(run.metrics()) > 50
    assert done.stderr == ""
