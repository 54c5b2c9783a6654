"""A run folder in ordinary use and misuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from run_faults import QuickDisk, contents, is_one_line, saved, state

from minilong.errors import UserError
from minilong.train.files import Disk
from minilong.train.metrics import METRICS
from minilong.train.run import RunFolder


def test_files_that_are_not_given_stay(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    with RunFolder.create(path) as run:
        assert (run.step, run.files, run.metrics()) == (None, (), [])
        run.commit(state(1, "tokenizer.json"))
        inode = (path / "tokenizer.json").stat().st_ino
        run.commit({"state.json": b'{"step": 2}'})
        assert run.step == 2
        assert run.read("state.json") == b'{"step": 2}'
        assert (path / "tokenizer.json").stat().st_ino == inode, "not written again"
    assert contents(path) == state(1, "tokenizer.json") | {"state.json": b'{"step": 2}', METRICS: b""}
    assert sorted(os.listdir(path)) == sorted([*contents(path), ".lock", "manifest.json"])
    with RunFolder.open(path) as again:
        assert again.step == 2


def test_metrics_after_the_last_commit_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path) as run:
        run.append_metrics({"step": 1, "loss": np.float32(0.5), "note": "损失 [bold]\n"})
        assert not (path / METRICS).exists(), "before the first commit nothing is there"
        run.commit(state(1))
        run.append_metrics({"step": 2})
        assert (path / METRICS).read_text().endswith('{"step": 2}\n'), "at once"
        assert [r["step"] for r in run.metrics()] == [1, 2]
        assert json.loads(run.read(METRICS)) == {"step": 1, "loss": 0.5, "note": "损失 [bold]\n"}
        with RunFolder.open(path) as reader:
            assert [r["step"] for r in reader.metrics()] == [1]
    with RunFolder.open(path, write=True) as run:
        assert len((path / METRICS).read_text().splitlines()) == 1
        run.append_metrics({"step": 2, "again": True})
        run.commit({})
    with RunFolder.open(path) as reader:
        assert reader.metrics()[1:] == [{"step": 2, "again": True}]


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), [1.0, float("-inf")], {"a": np.float64("nan")}])
def test_metrics_that_are_not_finite_are_refused(tmp_path: Path, value: object) -> None:
    with RunFolder.create(tmp_path / "run") as run:
        with pytest.raises(ValueError, match="'loss' is not a finite number"):
            run.append_metrics({"step": 1, "loss": value})
        with pytest.raises(TypeError, match="metrics cannot hold a set"):
            run.append_metrics({"loss": {1}})
        assert run.metrics() == []


def test_metrics_taken_away_while_running_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path) as run:
        run.commit(state(1))
        run.append_metrics({"step": 2})
        (path / METRICS).unlink()
        run.append_metrics({"step": 3})
        run.commit({})
        run.append_metrics({"step": 4})
        assert (path / METRICS).read_text().endswith('{"step": 4}\n'), "the new file goes on"
        run.commit({})
    with RunFolder.open(path) as reader:
        assert [r["step"] for r in reader.metrics()] == [2, 3, 4]


def test_metrics_changed_while_running_are_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path) as run:
        run.append_metrics({"step": 1})
        run.commit(state(1))
        (path / METRICS).write_bytes(b'{"step": 9}\n')
        with pytest.raises(UserError, match="changed by another program"):
            run.metrics()


def test_committed_metrics_that_are_no_records_are_refused(tmp_path: Path) -> None:
    from minilong.train.manifest import Entry, Manifest

    (tmp_path / METRICS).write_bytes(b"[1]\n")
    (tmp_path / "manifest.json").write_bytes(Manifest(1, {METRICS: Entry.of(b"[1]\n")}).to_bytes())
    with RunFolder.open(tmp_path) as run, pytest.raises(UserError, match="not one JSON record a line"):
        run.metrics()


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "manifest.json", METRICS, "a\\b", "a\0"])
def test_names_that_no_run_has_are_refused(tmp_path: Path, name: str) -> None:
    with RunFolder.create(tmp_path / "run") as run, pytest.raises(ValueError, match="cannot be the name"):
        run.commit({name: b""})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"step": "x"}', b"[" * 100_000])
def test_a_state_without_a_step_is_kept_all_the_same(tmp_path: Path, data: bytes) -> None:
    with RunFolder.create(tmp_path / "run") as run:
        run.commit({"state.json": data})
        assert run.step is None
    with RunFolder.open(tmp_path / "run") as run:
        assert (run.step, run.read("state.json")) == (None, data)


def test_a_reader_does_not_write(tmp_path: Path) -> None:
    saved(tmp_path / "run", 1)
    os.unlink(tmp_path / "run" / ".lock")
    before = sorted(os.listdir(tmp_path / "run"))
    with RunFolder.open(tmp_path / "run") as run:
        with pytest.raises(ValueError, match="not open for writing"):
            run.commit({})
        with pytest.raises(ValueError, match="not open for writing"):
            run.append_metrics({})
    assert sorted(os.listdir(tmp_path / "run")) == before


def test_a_reader_keeps_the_state_it_opened(tmp_path: Path) -> None:
    old = saved(tmp_path / "run", 1, "best.txt")
    with RunFolder.open(tmp_path / "run") as reader:
        for _ in range(3):
            with RunFolder.create(tmp_path / "run", replace=True) as run:
                run.append_metrics({"step": 5})
                run.commit(state(5))
        assert {name: reader.read(name) for name in reader.files} == old


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path) as run:
        for replace in (False, True):
            with pytest.raises(UserError, match=rf"is being written by process {os.getpid()}; "):
                RunFolder.create(path, replace=replace)
        run.commit(state(1))
        with pytest.raises(UserError, match=rf"is being written by process {os.getpid()}; "):
            RunFolder.open(path, write=True)
        (path / ".lock").write_text("?")
        with pytest.raises(UserError, match="is being written by another process; "):
            RunFolder.open(path, write=True)
        assert RunFolder.open(path).step == 1
    RunFolder.open(path, write=True).close()


def test_a_run_that_nobody_closes_gives_its_lock_back(tmp_path: Path) -> None:
    saved(tmp_path / "run", 1)
    run = RunFolder.open(tmp_path / "run", write=True)
    before = len(os.listdir("/proc/self/fd"))
    del run
    assert len(os.listdir("/proc/self/fd")) < before
    RunFolder.open(tmp_path / "run", write=True).close()


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_in_the_way_is_told_and_kept(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    for path, text in [
        (tmp_path / "file", "is a file, not a folder; choose another --out"),
        (tmp_path / "file" / "deep" / "run", "cannot make the run folder .*/file is a file; choose another --out"),
        (tmp_path / "full", r"is not empty and not a run \(it has thesis.doc\); choose another --out"),
        (tmp_path / ("x" * 300), "File name too long; choose a shorter name"),
    ]:
        with pytest.raises(UserError, match=text) as info:
            RunFolder.create(path, replace=replace)
        assert is_one_line(info.value)
    assert (tmp_path / "file").read_text() == "mine"
    assert os.listdir(tmp_path / "full") == ["thesis.doc"]


def test_a_run_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "my run"
    old = saved(path, 1, "best.txt")
    with pytest.raises(UserError, match=r"holds a run already; .*--out.*--resume '.*my run'.*--replace"):
        RunFolder.create(path)
    with RunFolder.create(path, replace=True) as run:
        with pytest.raises(UserError, match="nothing was saved in it yet"):
            run.read("state.json")
        run.append_metrics({"step": 2})
        assert contents(path) == old, "the old run is whole until the first commit"
        run.commit(state(2))
        assert not (path / "best.txt").exists()


def test_an_empty_folder_and_a_run_that_never_saved_are_free(tmp_path: Path) -> None:
    RunFolder.create(tmp_path).close()
    (tmp_path / ".next").mkdir()
    (tmp_path / ".next" / "model.safetensors").write_bytes(b"half")
    with RunFolder.create(tmp_path) as run:
        assert os.listdir(tmp_path) == [".lock"]
        run.commit(state(1))


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    saved(tmp_path / "small-1", 1)
    (tmp_path / "empty").mkdir()
    saved(tmp_path / "lost", 1)
    (tmp_path / "lost" / "manifest.json").unlink()
    for path, text in [
        (tmp_path / "smal-1", r"no run folder .*smal-1 \(did you mean '.*small-1'\?\)"),
        (tmp_path / "nowhere" / "run", "there is no run folder .*nowhere/run; "),
        (tmp_path / "small-1" / "model.safetensors", "is a file; name the run folder that holds it"),
        (tmp_path, "is not a run folder; name a run in it: .*small-1"),
        (tmp_path / "empty", "is not a run folder; name a folder that"),
        (tmp_path / "lost", r"lost/manifest.json is missing; "),
    ]:
        for write in (False, True):
            with pytest.raises(UserError, match=text) as info:
                RunFolder.open(path, write=write)
            assert is_one_line(info.value)
    assert os.listdir(tmp_path / "empty") == []


def test_a_file_that_a_run_lacks(tmp_path: Path) -> None:
    saved(tmp_path / "run", 1)
    with (
        RunFolder.open(tmp_path / "run") as run,
        pytest.raises(
            UserError, match=r"has no modle.safetensors \(did you mean 'model.safetensors'\?\); it has config"
        ),
    ):
        run.read("modle.safetensors")


def test_the_run_can_move_between_two_commits_of_a_race(tmp_path: Path) -> None:
    """Another process makes the folder a run between the check and the lock: it is not written over."""

    class Late(QuickDisk):
        def lock(self, fd: int) -> None:
            (tmp_path / "run" / "manifest.json").write_text("theirs")
            super().lock(fd)

    with pytest.raises(UserError, match="holds a run already"):
        RunFolder.create(tmp_path / "run", disk=Late())
    assert (tmp_path / "run" / "manifest.json").read_text() == "theirs"


def test_a_folder_that_another_process_makes_first_is_used(tmp_path: Path) -> None:
    class Raced(Disk):
        def mkdir(self, path: Path) -> None:
            os.makedirs(path, exist_ok=True)
            super().mkdir(path)

    RunFolder.create(tmp_path / "a" / "run", disk=Raced()).close()
    assert os.listdir(tmp_path / "a" / "run") == [".lock"]


def test_a_commit_while_a_reader_opens_makes_it_look_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    saved(path, 1)

    class Beside(Disk):
        commits = 0

        def open(self, path: Path, flags: int) -> int:
            if path.name == "optimizer.safetensors" and self.commits < 3:  # the model is open already
                self.commits += 1
                writer.commit(state(1 + self.commits))
            return super().open(path, flags)

    with RunFolder.open(path, write=True) as writer:
        disk = Beside()
        with RunFolder.open(path, disk=disk) as reader:
            assert disk.commits == 3
            assert {name: reader.read(name) for name in state(4)} == state(4)


def test_a_manifest_removed_while_running_is_told(tmp_path: Path) -> None:
    saved(tmp_path / "run", 1)
    with RunFolder.open(tmp_path / "run", write=True) as run:
        (tmp_path / "run" / "manifest.json").unlink()
        with pytest.raises(UserError, match=r"manifest\.json is missing"):
            run.read("state.json")


def test_whether_a_folder_is_free_can_be_asked_without_making_it(tmp_path: Path) -> None:
    saved(tmp_path / "run", 1)
    RunFolder.check_free(tmp_path / "new" / "run")
    RunFolder.check_free(tmp_path / "run", replace=True)
    with pytest.raises(UserError, match="holds a run already"):
        RunFolder.check_free(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]
