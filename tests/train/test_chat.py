"""A talk: what is read is what the template says, the cache is what reading anew gives, and an answer ends in time."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
from tiny_runs import SMALL

import minilong.data.chat_template as chat_template
from minilong.data.bpe import letters
from minilong.data.chat_template import CHATML, PLAIN, ChatTemplate
from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.roles import Roles
from minilong.data.template_worker import render
from minilong.data.tokenizer_json import added, byte_level, byte_pairs, document
from minilong.errors import UserError
from minilong.keys import Key
from minilong.memory import Window
from minilong.models.build import build
from minilong.train import chat as chatting
from minilong.train.chat import Chat, Sampling
from minilong.train.config import RunConfig
from minilong.train.loaded import LoadedRun
from minilong.train.reader import Reader

NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_tokenizer() -> PretrainedTokenizer:
    """A token for each byte, and those of ChatML."""
    vocabulary = {name: i for i, name in enumerate([*NAMES, *letters()])}
    tokens = [added(i, name) for i, name in enumerate(NAMES)]
    parts = {"pre_tokenizer": byte_level(), "decoder": byte_level()}
    text = json.dumps(document(byte_pairs(vocabulary, []), added=tokens, **parts))
    return PretrainedTokenizer(text, Roles(bos=1, eos=2, ends=(0, 2)))


TOKENIZER = byte_tokenizer()


def talker(context: int = 400, **changes: Any) -> LoadedRun:
    settings = {"data.text": ("unread",), "model.context": context, "model.width": 16, "model.tied": False} | changes
    config = RunConfig.from_flat(SMALL | settings)
    model: Any = build(config.model, TOKENIZER.size, Key.of(3))
    np.multiply(model.stack.norm.gain, 3.0, out=model.stack.norm.gain)
    return LoadedRun(config, model, TOKENIZER, 0)


def chat(loaded: LoadedRun, template: str = CHATML, **options: Any) -> Chat:
    sampling = {"temperature": 1.0, "top_p": 1.0, "length": 12} | options.pop("sampling", {})
    return Chat(loaded, ChatTemplate(template, TOKENIZER), sampling=Sampling(**sampling), **options)


@pytest.fixture(autouse=True)
def templates_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tests/data/test_chat_template.py` has the process that they run in; here it would take most of the time."""
    monkeypatch.setattr(chat_template, "_run", partial(render, most=10**6))


@pytest.fixture(autouse=True)
def letters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of random weights says bytes that are no text, which cannot be read anew; here it keeps to ASCII."""
    spoken = {i for i, piece in enumerate(TOKENIZER.pieces) if b" " <= piece < b"\x7f"}
    silent = np.array([i for i in range(TOKENIZER.size) if i not in spoken | {0, 2}])
    monkeypatch.setattr(chatting, "undrawn", lambda tokenizer: silent)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What readers read: the tokens of each, in order."""
    found: list[list[int]] = []
    begin, go_on = Reader.__init__, Reader.read

    def init(self: Reader, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        found.append([])

    def reading(self: Reader, tokens: np.ndarray) -> np.ndarray:
        found[-1] += tokens[0].tolist()
        return go_on(self, tokens)

    monkeypatch.setattr(Reader, "__init__", init)
    monkeypatch.setattr(Reader, "read", reading)
    return found


TURNS = ["Hi", "What?<|im_end|>", "世界 🙂", "And then?"]


@pytest.mark.parametrize("template", [CHATML, PLAIN])
def test_history_in_the_cache_is_history_read_anew(template: str) -> None:
    loaded = talker()
    kept, afresh = chat(loaded, template, system="Be brief."), chat(loaded, template, system="Be brief.")
    for turn in TURNS:
        afresh._start()
        answers = ["".join(talk.ask(turn)) for talk in (kept, afresh)]
        assert answers[0] == answers[1]
    assert kept.messages == afresh.messages
    assert [message["role"] for message in kept.messages] == ["system", *["user", "assistant"] * 4]


def test_each_token_is_read_once(read: list[list[int]]) -> None:
    talk = chat(talker())
    answers = ["".join(talk.ask(turn)) for turn in TURNS]
    assert len(read) == 1
    said = [m for turn, answer in zip(TURNS, answers, strict=True) for m in (("user", turn), ("assistant", answer))]
    whole = talk.template.render([{"role": role, "content": content} for role, content in said], answer=False)
    tokens = talk.template.encode(whole).tolist()
    assert read[0] == tokens[: len(read[0])]
    assert len(read[0]) >= len(tokens) - 4  # the end of the last answer is not read yet
    assert read[0].count(1) == 8


def test_a_template_that_rewrites_the_past_is_read_anew(read: list[list[int]]) -> None:
    shouting = CHATML.replace("message['content']", "(message['content'] if loop.last else message['content']|upper)")
    talk = chat(talker(), shouting)
    for turn in TURNS[:3]:
        "".join(talk.ask(turn))
    assert len(read) == 3
    whole = talk.template.render(talk.messages[:-1])
    tokens = talk.template.encode(whole).tolist()
    assert read[-1][: len(tokens)] == tokens


def test_oldest_turns_are_left_out_where_the_context_ends(read: list[list[int]]) -> None:
    talk = chat(talker(context=160), system="S")
    for _ in range(6):
        "".join(talk.ask("abcdefgh"))
    assert talk.forgotten > 0
    assert talk.messages[0] == {"role": "system", "content": "S"}
    assert talk.messages[1]["role"] == "user"
    assert all(len(tokens) <= 160 for tokens in read)
    before = talk.messages
    with pytest.raises(UserError, match=r"the talk has 2\d\d tokens and the model reads 160, with 12 left"):
        next(talk.ask("x" * 200))
    assert talk.messages == before
    assert "".join(talk.ask("abcdefgh")) is not None


def test_an_endless_memory_leaves_nothing_out(read: list[list[int]]) -> None:
    talk = chat(talker(context=32, **{"model.position": "rotary"}), memory=Window(20, 4))
    for _ in range(6):
        "".join(talk.ask("abcdefgh"))
    assert (talk.forgotten, len(read)) == (0, 1)
    assert len(talk.messages) == 12


class Script:
    """Stands in for `choose`: the tokens of a script, one after another."""

    def __init__(self, *answers: list[int]) -> None:
        self.tokens = [token for answer in answers for token in answer]

    def __call__(self, *args: Any, **options: Any) -> int:
        return self.tokens.pop(0)


def ids(text: str) -> list[int]:
    return [int(i) for i in TOKENIZER.encode(text)]


def test_an_answer_ends_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatting, "choose", Script([*ids("Yes, 世."), 2], [0], ids("abc")))
    talk = chat(talker(), sampling={"length": 3 + 9})
    assert list(talk.ask("?")) == list("Yes, 世.")
    assert list(talk.ask("?")) == []
    answer = talk.ask("?", stop=lambda: True)
    assert list(answer) == ["a"]
    assert [m["content"] for m in talk.messages] == ["?", "Yes, 世.", "?", "", "?", "a"]


def test_the_plain_template_ends_where_the_user_speaks(monkeypatch: pytest.MonkeyPatch, read: list[list[int]]) -> None:
    monkeypatch.setattr(chatting, "choose", Script(ids(" Us\nUs\nUser:"), ids(" x\nUser:")))
    talk = chat(talker(), PLAIN)
    assert "".join(talk.ask("Hi")) == " Us\nUs"
    assert "".join(talk.ask("Ho")) == " x"
    assert TOKENIZER.decode(read[0]) == "User: Hi\nAssistant: Us\nUs\nUser: Ho\nAssistant: x\nUser"
    assert len(read) == 1


def test_an_answer_that_is_left_stays_as_far_as_it_came(monkeypatch: pytest.MonkeyPatch, read: list[list[int]]) -> None:
    monkeypatch.setattr(chatting, "choose", Script(ids("abc"), ids("d"), [2]))
    talk = chat(talker())
    answer = talk.ask("1")
    assert [next(answer), next(answer)] == ["a", "b"]
    answer.close()
    assert talk.messages[-1] == {"role": "assistant", "content": "ab"}
    monkeypatch.setattr(chatting, "choose", Script(ids("d"), [2]))
    assert "".join(talk.ask("2")) == "d"
    assert TOKENIZER.decode(read[0]) == "user\n1\nassistant\nab\nuser\n2\nassistant\nd"
    assert len(read) == 1


def test_an_interrupt_inside_the_model_leaves_the_talk_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = chat(talker())
    "".join(talk.ask("Hi"))
    before = talk.messages

    def interrupted(*args: Any, **options: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chatting, "choose", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(talk.ask("What?"))
    assert talk.messages == before
    other = chat(talker())
    "".join(other.ask("Hi"))
    assert "".join(talk.ask("What?")) == "".join(other.ask("What?"))


def test_same_seed_same_answers() -> None:
    first, second, other = (chat(talker(), sampling={"seed": seed}) for seed in (1, 1, 2))
    said = [["".join(talk.ask(turn)) for turn in TURNS[:2]] for talk in (first, second, other)]
    assert said[0] == said[1] != said[2]
