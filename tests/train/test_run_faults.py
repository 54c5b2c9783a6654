"""A fault at any call leaves the old or the new state, nothing else, and the run takes further commits."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_faults import (
    NOTHING,
    Crash,
    FaultyDisk,
    PowerCutDisk,
    QuickDisk,
    contents,
    is_one_line,
    memory_folder,
    saved,
    state,
)

from minilong.errors import UserError
from minilong.train.files import Disk
from minilong.train.metrics import METRICS
from minilong.train.run import RunFolder

Fault = Callable[[], BaseException]
OLD, NEW, LATER = 1, 2, 3
BOTH = f'{{"step": {OLD}}}\n{{"step": {NEW}}}\n'.encode()
ONE = f'{{"step": {NEW}}}\n'.encode()


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


def first(path: Path, disk: Disk) -> RunFolder:
    return _save(RunFolder.create(path, disk=disk))


def resumed(path: Path, disk: Disk) -> RunFolder:
    return _save(RunFolder.open(path, write=True, disk=disk))


def replaced(path: Path, disk: Disk) -> RunFolder:
    return _save(RunFolder.create(path, replace=True, disk=disk))


def reopened(path: Path, disk: Disk) -> RunFolder:
    return RunFolder.open(path, write=True, disk=disk)


def _save(run: RunFolder) -> RunFolder:
    run.append_metrics({"step": NEW})
    run.commit(state(NEW))
    return run


def nothing(path: Path) -> dict[str, bytes]:
    return NOTHING


def old_run(path: Path) -> dict[str, bytes]:
    return saved(path, OLD)


def old_run_with_more(path: Path) -> dict[str, bytes]:
    return saved(path, OLD, "best.safetensors.txt", "loss.png")


def stopped_before_rolling_forward(path: Path) -> dict[str, bytes]:
    """A process died right after it published the new state."""
    saved(path, OLD)
    published = next(
        k for k in itertools.count() if _crashes(resumed, path, k) and (path / ".commit" / "model.safetensors").exists()
    )
    assert published > 0
    return contents(path)


def _crashes(scenario: Callable[[Path, Disk], RunFolder], path: Path, at: int) -> bool:
    disk = FaultyDisk(at, Crash)
    try:
        scenario(path, disk).close()
    except Crash:
        return True
    return False


SCENARIOS = {
    "first": (nothing, first, state(NEW) | {METRICS: ONE}),
    "resumed": (old_run, resumed, state(NEW) | {METRICS: BOTH}),
    "replaced": (old_run_with_more, replaced, state(NEW) | {METRICS: ONE}),
    "reopened": (stopped_before_rolling_forward, reopened, state(NEW) | {METRICS: BOTH}),
}


Seen = tuple[Path, dict[str, bytes], dict[str, bytes], BaseException | None]


def every_call(folder: Path, name: str, make: Callable[[int], FaultyDisk]) -> Iterator[Seen]:
    """Run a scenario with a fault at call 0, 1, 2, ... until it ends unhurt: (folder, old, new, error or None)."""
    before, scenario, new = SCENARIOS[name]
    base = folder / "base"
    old = before(base)
    seen = []
    for k in itertools.count():
        shutil.rmtree(folder / "backups", ignore_errors=True)
        (folder / "backups").mkdir()
        path = folder / "run"
        if base.exists():
            shutil.copytree(base, path, symlinks=True)
        disk = make(k)
        run, error = None, None
        try:
            run = scenario(path, disk)
        except (UserError, Crash, KeyboardInterrupt) as e:
            error = e.with_traceback(None)
        struck = disk.struck
        if error is None and isinstance(disk, PowerCutDisk):
            disk.strike()  # what a commit that returned has saved survives a power cut right after it
        yield path, old, new, error
        seen.append(contents(path))
        if run is not None:
            run.close()
        shutil.rmtree(path, ignore_errors=True)
        if not struck:
            break
    assert len(seen) > 20, "the faults reached the work"
    assert old == NOTHING or old in seen
    assert new in seen


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_the_old_or_the_new_state(folder: Path, name: str, late: bool) -> None:
    for path, old, new, error in every_call(folder, name, lambda k: FaultyDisk(k, Crash, late=late)):
        assert error is None or type(error) is Crash
        found = contents(path)
        assert found in (old, new)
        _commit_again(path, found)
        shutil.rmtree(path / ".next", ignore_errors=True)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_at_any_call_leaves_the_old_or_the_new_state(folder: Path, name: str, seed: int) -> None:
    def cut(k: int) -> FaultyDisk:
        return PowerCutDisk(k, 1000 * seed + k, folder / "backups")

    for path, old, new, error in every_call(folder, name, cut):
        assert error is None or type(error) is Crash
        assert contents(path) in ((old, new) if error else (new,))


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("code, lasting", [(errno.ENOSPC, True), (errno.EIO, False), (errno.EACCES, True)])
def test_an_error_at_any_call_is_one_line_and_loses_nothing(folder: Path, name: str, code: int, lasting: bool) -> None:
    def failing(k: int) -> FaultyDisk:
        return FaultyDisk(k, lambda: OSError(code, os.strerror(code), "secret/path"), lasting=lasting)

    for path, old, new, error in every_call(folder, name, failing):
        found = contents(path)
        assert found in (old, new)
        if error is None:
            assert found == new
        else:
            assert isinstance(error, UserError)
            assert is_one_line(error), error
            assert os.strerror(code) in str(error)
            assert str(path) in str(error)
            step = re.search(r"the state of step (\d+) is whole", str(error))
            if step and not lasting:
                assert found == (old, new)[int(step[1]) - OLD]
            if "no state was saved" in str(error) and not lasting:
                assert found == NOTHING


@pytest.mark.parametrize("name", ["first", "resumed", "replaced"])
@pytest.mark.parametrize("fault", [lambda: OSError(errno.ENOSPC, "full"), KeyboardInterrupt], ids=["full", "ctrl-c"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_the_same_run_goes_on_after_a_fault(folder: Path, name: str, fault: Fault, late: bool) -> None:
    before, _, _ = SCENARIOS[name]
    for k in itertools.count():
        path = folder / str(k)
        before(path)
        disk = FaultyDisk(10**9, fault, late=late)
        run = (
            RunFolder.open(path, write=True, disk=disk)
            if name == "resumed"
            else RunFolder.create(path, replace=name == "replaced", disk=disk)
        )
        disk.at = disk.calls + k
        lines = b"" if name != "resumed" else f'{{"step": {OLD}}}\n'.encode()
        try:
            run.append_metrics({"step": NEW})
            lines += ONE
            run.commit(state(NEW))
        except (UserError, KeyboardInterrupt):
            pass
        struck = disk.struck
        disk.at = 10**9
        if k % 2:
            run.append_metrics({"step": LATER})
            assert run.metrics()[-1] == {"step": LATER}
            lines += f'{{"step": {LATER}}}\n'.encode()
        run.commit(state(LATER, "more.txt"))
        found = contents(path)
        written = found.pop(METRICS)
        # A line whose writing failed or was interrupted does not count.
        assert written == lines
        assert found == state(LATER, "more.txt")
        assert (run.step, set(contents(path))) == (LATER, set(run.files))
        assert sorted(os.listdir(path)) == sorted([".lock", "manifest.json", *run.files])
        run.close()
        if not struck:
            break
    assert k > 20


def _commit_again(path: Path, found: dict[str, bytes]) -> None:
    """A later process goes on from what it found."""
    copy = path.with_name("again")
    if path.exists():
        shutil.copytree(path, copy)
    quick = QuickDisk()
    with RunFolder.open(copy, write=True, disk=quick) if found else RunFolder.create(copy, disk=quick) as run:
        run.append_metrics({"step": LATER})
        run.commit(state(LATER))
    lines = found.get(METRICS, b"") + f'{{"step": {LATER}}}\n'.encode()
    assert contents(copy) == found | state(LATER) | {METRICS: lines}
    shutil.rmtree(copy)


def test_short_reads_and_writes_are_continued(tmp_path: Path) -> None:
    class Short(Disk):
        def read(self, fd: int, size: int, position: int) -> bytes:
            return super().read(fd, min(size, 7), position)

        def write(self, fd: int, data: memoryview, position: int) -> int:
            return super().write(fd, data[:5], position)

    with RunFolder.create(tmp_path / "run", disk=Short()) as run:
        run.commit(state(OLD))
        assert run.read("model.safetensors") == state(OLD)["model.safetensors"]
    assert contents(tmp_path / "run") == state(OLD) | {METRICS: b""}


def test_a_file_system_that_cannot_synchronise_folders_is_accepted(tmp_path: Path) -> None:
    class Plain(Disk):
        def fsync(self, fd: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                raise OSError(errno.EINVAL, "Invalid argument")

    with RunFolder.create(tmp_path / "run", disk=Plain()) as run:
        run.commit(state(OLD))
    assert contents(tmp_path / "run") == state(OLD) | {METRICS: b""}


def test_every_name_is_synchronised_before_the_next_step_depends_on_it(folder: Path) -> None:
    """Stricter than the power cuts above, which assume that names reach the medium in the order of the calls."""

    class Recorded(Disk):
        def __init__(self) -> None:
            self.log: list[tuple[str, str]] = []
            self.names_of: dict[int, str] = {}

        def open(self, path: Path, flags: int) -> int:
            fd = super().open(path, flags)
            self.names_of[fd] = str(path.relative_to(folder))
            return fd

        def fsync(self, fd: int) -> None:
            self.log.append(("fsync", self.names_of[fd]))
            super().fsync(fd)

        def replace(self, source: Path, target: Path) -> None:
            self.log.append(("replace", str(source.relative_to(folder))))
            super().replace(source, target)

        def rmdir(self, path: Path) -> None:
            self.log.append(("rmdir", str(path.relative_to(folder))))
            super().rmdir(path)

    saved(folder / "run", OLD)
    disk = Recorded()
    with RunFolder.open(folder / "run", write=True, disk=disk) as run:
        disk.log.clear()
        run.append_metrics({"step": NEW})
        run.commit({"state.json": b"{}"})
    assert disk.log == [
        ("fsync", "run/metrics.jsonl"),
        ("fsync", "run/.next/state.json"),
        ("fsync", "run/.next/manifest.json"),
        ("fsync", "run/.next"),
        ("replace", "run/.next"),
        ("fsync", "run"),
        ("replace", "run/.commit/state.json"),
        ("replace", "run/.commit/manifest.json"),
        ("fsync", "run"),
        ("rmdir", "run/.commit"),
    ]
    disk.log.clear()
    RunFolder.create(folder / "a" / "b", disk=disk).close()
    assert disk.log == [("fsync", "."), ("fsync", "a")]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_metrics_are_written_anew_after_the_disk_failed_them(folder: Path, call: str) -> None:
    """A failed fsync may lose data that a second one then calls written, so the file cannot be trusted again."""

    class Failing(Disk):
        fail = False

        def write(self, fd: int, data: memoryview, position: int) -> int:
            self._fail("write")
            return super().write(fd, data, position)

        def fsync(self, fd: int) -> None:
            self._fail("fsync")
            super().fsync(fd)

        def _fail(self, name: str) -> None:
            if self.fail and name == call:
                self.fail = False
                raise OSError(errno.EIO, "Input/output error")

    path = folder / "run"
    saved(path, OLD)
    with RunFolder.open(path, write=True, disk=(disk := Failing())) as run:
        inodes = [(path / METRICS).stat().st_ino]
        disk.fail = True
        if call == "fsync":
            run.append_metrics({"step": NEW})
        with pytest.raises(UserError, match="Input/output error"):
            run.commit({}) if call == "fsync" else run.append_metrics({"step": NEW})
        run.append_metrics({"step": LATER})
        for _ in range(2):
            run.commit({})
            inodes.append((path / METRICS).stat().st_ino)
        assert inodes[0] != inodes[1] == inodes[2], "anew once"
        steps = [OLD, LATER] if call == "write" else [OLD, NEW, LATER]
        assert [r["step"] for r in run.metrics()] == steps
    assert contents(path)[METRICS] == b"".join(f'{{"step": {s}}}\n'.encode() for s in steps)
