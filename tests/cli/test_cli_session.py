"""What `minilong train` does around a session: order of messages, stops, failures. The session itself is a stand-in."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

import minilong.train
from minilong.backend import CPU, Device
from minilong.cli import main
from minilong.cli import progress as progress_module
from minilong.cli.output import console, count, duration, plain_table, seconds_of, size
from minilong.cli.progress import progress_line, progress_report
from minilong.cli.stopping import stop_requests
from minilong.cli.train import free_folder
from minilong.errors import Diverged, UserError
from minilong.train.config import RunConfig
from minilong.train.presets import layered, preset


def progress(step: int, validation: float | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        step=step,
        steps=20,
        loss=1.5,
        validation=validation,
        bits_per_character=None if validation is None else 2.25,
        lr=0.1,
        gradient_norm=1.0,
        tokens_per_second=41_234.0,
        elapsed=12.0,
        remaining=187.0,
        saved=False,
    )


@dataclass
class Stand:
    """A training layer that does nothing but notice how it is called."""

    memory: int = 10**6
    failure: BaseException | None = None
    accuracy: float | None = None
    sent: int = 0
    sample: str | BaseException = "[bold]not markup[/bold] :smile:"
    calls: list[tuple[str, object]] = field(default_factory=list)
    config: RunConfig | None = None

    def estimate(self) -> SimpleNamespace:
        memory = {"parameters": self.memory, "activations": 2 * self.memory, "nothing": 0}
        return SimpleNamespace(
            parameters=830_000, memory=memory, steps=20, seconds=187.0, tokens_per_step=2048, threads=2
        )

    def session(self, config: RunConfig, path: Path) -> SimpleNamespace:
        def run(report: Callable[[object], None], should_stop: Callable[[], bool]) -> SimpleNamespace:
            self.calls.append(("run", None))
            report(progress(1))
            report(progress(2))
            report(progress(10, validation=1.25))
            if self.failure is not None:
                raise self.failure
            if self.sent:
                os.kill(os.getpid(), self.sent)
            stopped = should_stop()
            return SimpleNamespace(
                step=11 if stopped else 20,
                interrupted=stopped,
                train_loss=1.5,
                validation_loss=1.25,
                bits_per_character=2.25,
                accuracy=self.accuracy,
                path=path,
                seconds=12.0,
            )

        def sample(length: int, prompt: str | None = None) -> str:
            if isinstance(self.sample, BaseException):
                raise self.sample
            return self.sample

        self.config = config
        return SimpleNamespace(config=config, estimate=self.estimate(), run=run, sample=sample)

    def start(
        self, config: RunConfig, out: Path, *, replace: bool = False, budget: float | None = None, device: Device = CPU
    ) -> SimpleNamespace:
        assert device == CPU
        self.calls.append(("start", (out, replace, budget)))
        return self.session(config, out)

    def resume(
        self,
        path: Path,
        *,
        text: tuple[str, ...] = (),
        steps: int | None = None,
        device: Device = CPU,
        precision: str | None = None,
    ) -> SimpleNamespace:
        assert (text, device, precision) == ((), CPU, None)
        self.calls.append(("resume", (path, steps)))
        return self.session(preset("tiny"), path)


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    stand = Stand()
    session, estimate, finetune = (ModuleType(f"minilong.train.{name}") for name in ("session", "estimate", "finetune"))
    session.start, finetune.resume = stand.start, stand.resume  # type: ignore[attr-defined]
    estimate.describe = lambda config, vocabulary: stand.estimate()  # type: ignore[attr-defined]
    for module in (session, estimate, finetune):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(minilong.train, module.__name__.rpartition(".")[2], module, raising=False)
    monkeypatch.chdir(tmp_path)
    return stand


def train(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", *arguments], prog_name="minilong")


def test_everything_is_said_before_the_start_and_the_next_command_at_the_end(stand: Stand) -> None:
    result = train("--preset", "tiny")
    assert result.exit_code == 0
    assert result.stdout == ""
    order = [
        "task        lm",
        "data        text=pride_and_prejudice",
        "layers=2 width=32",
        "steps=200 batch=16",
        "parameters  0.83M",
        "memory      about 3.0 MB (parameters 1.0 MB, activations 2.0 MB), and 70 MB for Python",
        "work        20 steps, about 3m07s; 2.0k tokens a step, 2 threads",
        "run         runs/pride_and_prejudice-1",
        " 1/20   5%  loss 1.500  41.2k tok/s  12s, 3m07s left",
        "10/20  50%  loss 1.500  val 1.250 bpc 2.250",
        "done        20 steps in 12s, saved in runs/pride_and_prejudice-1",
        "loss        train 1.5000, validation 1.2500 nats/token; 2.2500 bits/character",
        "[bold]not markup[/bold] :smile:",
        'next        minilong generate runs/pride_and_prejudice-1 --prompt "..."',
    ]
    places = [result.stderr.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert " 2/20" not in result.stderr  # within the interval of plain lines


def test_all_options_reach_the_configuration(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "a book.txt").write_text("text")
    words = "--context 64 --steps 7 --batch 5 --lr 0.5 --position cas --norm post --layers 3 --width 64 --threads 1"
    assert train("a book.txt", "sanguo", *words.split(), "--seed", "9", "--set", "dropout=0.5").exit_code == 0
    config = stand.config
    assert config is not None
    assert config.data.text == (str(tmp_path / "a book.txt"), "sanguo")
    model, how = config.model, config.train
    assert (model.context, model.position, model.norm, model.layers, model.width) == (64, "cas", "post", 3, 64)
    assert (how.steps, how.batch, how.lr, how.threads, how.seed, model.dropout) == (7, 5, 0.5, 1, 9, 0.5)
    assert stand.calls == [("start", (Path("runs/a-book-1"), False, None)), ("run", None)]
    assert train("--task", "copy", "--out", "x", "--replace", "--budget", "1h30m", "--dry-run").exit_code == 0
    assert stand.calls[-1] == ("start", (Path("x"), True, 5400.0))
    assert stand.config is not None
    assert stand.config.task == "copy"


def test_a_dry_run_trains_nothing(stand: Stand) -> None:
    result = train("--dry-run")
    assert result.exit_code == 0
    assert "memory      about" in result.stderr
    assert [name for name, _ in stand.calls] == ["start"]


def test_quiet_prints_the_path_alone(stand: Stand) -> None:
    result = train("--quiet", "--out", "there")
    assert (result.stdout, result.stderr) == ("there\n", "")


def test_resume_takes_the_run_as_it_is(stand: Stand) -> None:
    assert train("--resume", "r", "--steps", "40").exit_code == 0
    assert stand.calls == [("resume", (Path("r"), 40)), ("run", None)]


def test_other_tasks_report_exactness_and_suggest_translate(stand: Stand) -> None:
    stand.accuracy = 0.995
    result = train("--task", "reverse", "--out", "my runs/r")
    assert "; 99.5% exact" in result.stderr
    assert "next        minilong translate 'my runs/r' \"...\"" in result.stderr


def test_a_run_that_memory_cannot_hold_is_refused_before_it_is_built(stand: Stand) -> None:
    stand.memory = 10**15
    result = train()
    assert result.exit_code == 2
    assert "this run needs about 3.0 PB of memory and the machine has" in result.stderr
    assert stand.calls == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_saves_and_says_how_to_go_on(stand: Stand, number: int) -> None:
    stand.sent = number
    before = signal.getsignal(number)
    result = train("--out", "it's")
    assert result.exit_code == 130
    assert "interrupted after step 11, saved; go on with:\n  minilong train --resume 'it'\"'\"'s'" in result.stderr
    assert signal.getsignal(number) is before


def test_a_stop_during_the_sample_comes_after_what_was_saved_is_said(stand: Stand) -> None:
    stand.sample = KeyboardInterrupt()
    result = train("--out", "there")
    assert result.exit_code == 130
    assert "done        20 steps in 12s, saved in there\n" in result.stderr


def test_ctrl_c_saves_from_the_moment_it_is_promised(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    echo = click.echo

    def noticing(text: str, err: bool = False) -> None:
        seen[text] = signal.getsignal(signal.SIGINT)
        echo(text, err=err)

    monkeypatch.setattr(click, "echo", noticing)
    before = signal.getsignal(signal.SIGINT)
    assert train().exit_code == 0
    assert seen["stop        Ctrl-C saves and says how to go on"] is not before


FAILURES: list[tuple[BaseException, int, str]] = [
    (Diverged("the loss is nan at step 5; lower --lr"), 1, "the loss is nan at step 5; lower --lr"),
    (UserError("two\nlines \x1b[31m"), 2, "two lines \\x1b[31m"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (MemoryError(), 2, "out of memory; lower --batch, --context or --width"),
    (OSError(errno.ENOSPC, "No space left on device", "x"), 2, "x: No space left on device; free some space"),
    (OSError(errno.EIO, "Input/output error"), 2, "Input/output error; check the path and try again"),
    (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "x: Permission denied; check the permissions"),
    (UnicodeEncodeError("ascii", "ab\u65e5", 2, 3, "no"), 2, "this terminal cannot show '\\u65e5' (ascii); set PYTHON"),
]


@pytest.mark.parametrize(("failure", "code", "message"), FAILURES, ids=[type(f).__name__ for f, _, _ in FAILURES])
def test_failures_end_in_one_line(stand: Stand, failure: BaseException, code: int, message: str) -> None:
    stand.failure = failure
    result = train("--quiet")
    assert result.exit_code == code
    assert result.stderr.startswith(f"minilong: error: {message}")
    assert len(result.stderr.splitlines()) == 1


def test_a_mistake_of_the_program_keeps_its_traceback(stand: Stand) -> None:
    stand.failure = ZeroDivisionError("a bug")
    assert isinstance(train().exception, ZeroDivisionError)


def test_a_second_signal_leaves_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from minilong.cli.stopping import stop_requests\n"
        "with stop_requests() as asked:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert asked()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 130
    assert done.stderr.count("stopping after this step to save") == 1


def test_an_ignored_signal_stays_ignored_and_threads_may_ask() -> None:
    from concurrent.futures import ThreadPoolExecutor

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)

    def elsewhere() -> bool:
        with stop_requests() as asked:
            return asked()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() is False


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "minilong", "info", "--keys"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_on_a_full_disk_is_one_line_and_does_not_end_a_training(tmp_path: Path) -> None:
    def run(*arguments: str, stdout: str = os.devnull, stderr: str | None = None) -> subprocess.CompletedProcess[str]:
        with open(stdout, "w") as out, open(stderr or tmp_path / "log", "w") as err:
            command = [sys.executable, "-m", "minilong", *arguments]
            return subprocess.run(command, stdout=out, stderr=err, cwd=tmp_path, check=False)

    assert run("info", "--keys", stdout="/dev/full").returncode == 2
    log = (tmp_path / "log").read_text()
    assert log == "minilong: error: No space left on device; free some space, or write somewhere else\n"
    (tmp_path / "book.txt").write_text("The cat sat on the mat.\n" * 60)
    fast = ["--preset", "tiny", "--steps", "2", "--threads", "1"]
    assert run("train", "book.txt", *fast, "--out", "run", stderr="/dev/full").returncode == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_output_that_breaks_silences_the_progress_but_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def broken(text: str) -> None:
        seen.append(text)
        raise BrokenPipeError

    monkeypatch.setattr(progress_module, "_echo", broken)
    with progress_report(quiet=False) as report:
        report(progress(1))  # type: ignore[arg-type]
        report(progress(2, validation=1.0))  # type: ignore[arg-type]
    assert len(seen) == 1


def test_a_terminal_gets_one_line_in_place_and_each_validation_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(progress_module, "LIVE_INTERVAL", 3600.0)
        with progress_report(quiet=False) as report:
            report(progress(1))  # type: ignore[arg-type]
            report(progress(2))  # type: ignore[arg-type]
            report(progress(10, validation=1.25))  # type: ignore[arg-type]
    written = b""
    with suppress(OSError):  # the end of a terminal that nobody holds any more
        while piece := os.read(master, 65536):
            written += piece
    os.close(master)
    shown = written.decode()
    assert " 1/20   5%  loss 1.500" in shown
    assert " 2/20" not in shown  # too soon after the line before
    assert shown.count("10/20  50%  loss 1.500  val 1.250 bpc 2.250") > 1  # kept above, and in place
    assert shown.count("\n") < 10
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_progress_fits_a_line() -> None:
    late = SimpleNamespace(**{**vars(progress(1200)), "steps": 4000, "elapsed": 80.0})
    assert progress_line(late, (1.25, 2.25)) == (  # type: ignore[arg-type]
        "1200/4000  30%  loss 1.500  val 1.250 bpc 2.250  41.2k tok/s  1m20s, 3m07s left"
    )
    assert len(progress_line(late, (1.25, 2.25))) < 80  # type: ignore[arg-type]


def test_free_folder_takes_the_first_free_number(tmp_path: Path) -> None:
    book = layered(options={"data.text": ("/x/My  book (2).final.txt",)})
    assert free_folder(tmp_path, book) == tmp_path / "My-book-2-.final-1"
    (tmp_path / "copy-1").mkdir()
    (tmp_path / "copy-2").touch()
    assert free_folder(tmp_path, preset("copy")) == tmp_path / "copy-3"
    assert free_folder(tmp_path, layered(options={"data.text": ("三国.txt",)})) == tmp_path / "三国-1"
    assert free_folder(tmp_path, layered(options={"data.text": ("...",)})) == tmp_path / "lm-1"


def test_tables_show_text_verbatim(capsys: pytest.CaptureFixture[str]) -> None:
    table = plain_table("[bold]title[/bold]")
    table.add_row("[red]x[/red] :smile: http://a.b 'c' 12")
    console(stderr=False).print(table)
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert shown == ["[bold]title[/bold]", "[red]x[/red] :smile: http://a.b 'c' 12"]


def test_figures_for_people() -> None:
    assert [count(n) for n in (0, 950, 1234, 99_999, 830_000, 10_700_000, 1.3e9)] == [
        "0",
        "950",
        "1.2k",
        "100.0k",
        "0.83M",
        "10.7M",
        "1.30G",
    ]
    assert [size(n) for n in (0, 999, 3_200_000, 150_000_000, 1.96e12)] == [
        "0 B",
        "999 B",
        "3.2 MB",
        "150 MB",
        "2.0 TB",
    ]
    assert [duration(s) for s in (0.44, 9.94, 42, 59.7, 187, 7500, 273_600)] == [
        "0.4s",
        "9.9s",
        "42s",
        "1m00s",
        "3m07s",
        "2h05m",
        "3d04h",
    ]
    assert [seconds_of(text) for text in ("90s", "5m", "1h", "1h30m", "1h0m5s")] == [90, 300, 3600, 5400, 3605]
    for wrong in ("", "5", "5 m", "m", "30m1h", "5.5m", "0m", "-1s", "9999999s"):
        with pytest.raises(ValueError):
            seconds_of(wrong)
