"""`minilong chat`: lines in, answers out, templates by name, file and run; Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import call, refused

from minilong.cli.chat import leading_space_off, one_interrupt
from minilong.data.tokenizers import ByteTokenizer
from minilong.keys import Key
from minilong.models.build import build
from minilong.nn.flat import flatten
from minilong.train import checkpoint as ck
from minilong.train.chat import Chat
from minilong.train.config import RunConfig
from minilong.train.run import RunFolder

SETTINGS: dict[str, Any] = {
    "data.text": ("unread",),
    "model.layers": 1,
    "model.width": 8,
    "model.heads": 2,
    "model.context": 64,
    "data.tokenizer": "byte",
}
SHORT = ("--length", "4", "--temperature", "0", "--template", "plain")


def run_of(folder: Path, pretrained: dict[str, Any] | None = None) -> Path:
    config = RunConfig.from_flat(SETTINGS)
    vector, _, layout = flatten(build(config.model, ByteTokenizer().size, Key.of(0)))
    files = {
        ck.CONFIG: config.to_toml().encode(),
        ck.TOKENIZER: json.dumps(ByteTokenizer().to_dict()).encode(),
        ck.MODEL: ck.model_file(vector, layout),
        ck.STATE: ck.state_file(ck.State()),
    }
    if pretrained is not None:
        origin = {"family": "llama", "hf": {}, "source": "x", "sha256": {}, "name": "x", "licence": None}
        files[ck.PRETRAINED] = json.dumps(origin | pretrained).encode()
    with RunFolder.create(folder) as run:
        run.commit(files)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("runs") / "own")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to a model that answers with the number of its turn."""
    found: list[str] = []

    def ask(self: Chat, text: str, stop: Any) -> Iterator[str]:
        found.append(text)
        self.messages = [*self.messages, {"role": "user", "content": text}]
        return iter([" ", f" answer {len(self.messages)}", " to", f" {text}"])

    monkeypatch.setattr(Chat, "ask", ask)
    return found


def test_a_line_is_a_turn(run: Path, asked: list[str]) -> None:
    result = call("chat", run, "--template", "plain", given="one\n\n  two \n/reset\nthree\n/quit\nfour\n")
    assert result.exit_code == 0, result.output
    assert asked == ["one", "two", "three"]
    assert result.stdout == "answer 1 to one\nanswer 2 to two\nanswer 1 to three\n"


def test_answers_of_a_model(run: Path) -> None:
    first, second = (call("chat", run, *SHORT, "--system", "S", given="ab\n") for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    endless = call("chat", run, *SHORT, "--memory", "window", "--window", "20", given="abcdefghij\n" * 9)
    assert endless.exit_code == 0, endless.output
    assert endless.stderr == ""


def test_what_no_longer_fits_is_told(run: Path) -> None:
    result = call("chat", run, *SHORT, given="abcdefghij\n" * 4)
    assert result.exit_code == 0, result.output
    assert "(2 messages of the beginning no longer fit into the context)" in result.stderr


def test_templates(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no chat template; give --template FILE, or --template plain" in refused("chat", run, given="hi\n")
    message = refused("chat", run, "--template", tmp_path / "missing.jinja")
    assert "missing.jinja" in message
    assert "give chatml, plain, or a file in Jinja" in message
    seen: list[str] = []

    def ask(self: Chat, text: str, stop: Any) -> Iterator[str]:
        seen.append(self.template.render([{"role": "user", "content": text}]).text)
        return iter("x")

    monkeypatch.setattr(Chat, "ask", ask)
    (tmp_path / "own.jinja").write_text("[{{ messages[0].content }}]")
    call("chat", run, "--template", tmp_path / "own.jinja", given="hi\n")
    opened = run_of(tmp_path / "opened", {"chat_template": "({{ messages[0].content }})"})
    call("chat", opened, given="hi\n")
    call("chat", opened, "--template", "plain", given="hi\n")
    assert seen == ["[hi]", "(hi)", "User: hi\nAssistant:"]
    none = run_of(tmp_path / "none", {"chat_template": None})
    assert "has no chat template" in refused("chat", none, given="hi\n")
    wrong = run_of(tmp_path / "wrong", {"chat_template": 3})
    assert "has a chat template that is no text" in refused("chat", wrong, given="hi\n")


def test_a_template_that_fails_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    message = refused("chat", run, "--template", tmp_path / "bad.jinja", given="hi\n")
    assert "the chat template refuses the messages: roles must alternate" in message


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a process there, not raised in it")
def test_first_interrupt_stops_and_second_leaves() -> None:
    with one_interrupt() as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_leading_space() -> None:
    assert list(leading_space_off(iter([" ", "\n a", " b", " "]))) == ["a", " b", " "]
    assert list(leading_space_off(iter([" "]))) == []
