"""Chat templates: from messages to the text that a model was taught to read, and from there to ids.

A template is a program in Jinja that comes with a checkpoint. It runs in jinja2's sandbox, in a process of its own with
limits (`template_worker`); what it is given are plain texts. What the messages say never becomes a special token: names
of special tokens in them are wrapped in two private characters before the template sees them, which come out again
behind it and say which parts of its text are foreign.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from minilong.data.pretrained import PretrainedTokenizer
from minilong.data.tokenizer_folder import read_object, read_text
from minilong.data.vocabulary import Control, Ids, Tokenizer
from minilong.errors import UserError

LONGEST = 2**18
"""Characters of a template at most; the longest that are known have a tenth of that."""
MOST = 2**24
"""Characters that a template may write."""
SECONDS, BYTES = 5, 2**30
"""Time and memory that a template may take."""

OPEN, CLOSE = "\U000f0000", "\U000f0001"
WORKER = Path(__file__).with_name("template_worker.py")

PLAIN = """\
{% for message in messages %}
{% if message['role'] == 'system' %}
{{ message['content'] + '\\n\\n' }}
{%- elif message['role'] == 'user' %}
{{ 'User: ' + message['content'] + '\\n' }}
{%- else %}
{{ 'Assistant:' + message['content'] + '\\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ 'Assistant:' }}
{%- endif %}
"""
CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
NAMED = {"plain": PLAIN, "chatml": CHATML}
"""Templates that can be named; `plain` needs no special tokens, so any language model can try it."""
STOPS = {PLAIN: ("\nUser:",)}
"""Texts by which an answer ends where no special token says so."""

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What a template wrote. foreign: the spans (start, stop) that came from a message and look like special tokens."""

    text: str
    foreign: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ChatTemplate:
    """A template for a tokenizer. now: what the template takes for the present, ISO 8601, so that a talk over midnight
    keeps its beginning. UserError for a template that is too long."""

    text: str
    tokenizer: Tokenizer
    now: str = field(default_factory=lambda: datetime.now().isoformat())

    def __post_init__(self) -> None:
        if len(self.text) > LONGEST:
            raise UserError(f"the chat template has {len(self.text):,} characters and at most {LONGEST:,} are run")

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts by which an answer ends."""
        return STOPS.get(self.text, ())

    def render(self, messages: Sequence[Message], *, answer: bool = True) -> Rendered:
        """The text of messages, each with `role` and `content`; with `answer`, up to where the model's answer begins.

        UserError where the template refuses them, is wrong, or takes too much time, memory or room.
        """
        variables = {
            "messages": [_marked(message, self.tokenizer.controls) for message in messages],
            "add_generation_prompt": answer,
            "tools": None,
            "documents": None,
            **_names(self.tokenizer),
        }
        return _unmarked(_run(self.text, variables, self.now))

    def encode(self, rendered: Rendered, start: int = 0) -> Ids:
        """The ids of a rendered text from character `start` on. A model's own template writes what the model expects
        before a text; the named ones leave it to us."""
        foreign = [(max(a - start, 0), b - start) for a, b in rendered.foreign if b >= start]
        ids = self.tokenizer.encode_template(rendered.text[start:], foreign)
        own = self.tokenizer.prefix if not start and self.text in NAMED.values() else ()
        return np.concatenate([own, ids]).astype(np.int32)


def read_chat_template(path: Path) -> str | None:
    """The chat template of a model's folder; None where it has none."""
    if (path / "chat_template.jinja").is_file():
        return read_text(path / "chat_template.jinja")
    for file in ("chat_template.json", "tokenizer_config.json"):
        found = read_object(path / file).get("chat_template")
        if isinstance(found, list):  # several by name, of which one is the default
            named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
            found = named.get("default")
        if isinstance(found, str):
            return found
    return None


def _run(template: str, variables: Mapping[str, Any], now: str) -> str:
    _require()
    request = {
        "template": template,
        "variables": variables,
        "now": now,
        "most": MOST,
        "seconds": SECONDS,
        "bytes": BYTES,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(WORKER)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=2 * SECONDS,  # of the clock: other work may have the processor
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except (subprocess.TimeoutExpired, ValueError):
        answer = {}
    if isinstance(answer.get("text"), str):
        return str(answer["text"])
    reason = answer.get("error", f"takes more than {SECONDS} seconds or {BYTES >> 20:,} MiB")
    raise UserError(f"the chat template {str(reason)[:300]}; choose another with --template")


def _names(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens that templates ask for, as texts."""
    if not isinstance(tokenizer, PretrainedTokenizer):
        return {}
    names = {control.id: control.text for control in tokenizer.controls}
    roles = tokenizer.roles
    found = {"bos": roles.bos, "eos": roles.eos, "pad": roles.pad, "unk": roles.unk}
    return {f"{role}_token": names[id] for role, id in found.items() if id is not None and id in names}


def _marked(message: Message, controls: Sequence[Control]) -> Any:
    """The message with what looks like a control wrapped. An answer may hold controls that stand for text, since the
    model wrote them itself."""
    every = message.get("role") != "assistant"
    texts = [re.escape(control.text) for control in controls if control.special or every]
    pattern = re.compile("|".join(texts) or "(?!)")

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda match: OPEN + match[0] + CLOSE, value.replace(OPEN, "").replace(CLOSE, ""))
        if isinstance(value, Mapping):
            return {str(key): walk(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [walk(one) for one in value]
        return value

    return walk(message)


def _unmarked(text: str) -> Rendered:
    """The text without its marks. Where a template parted a mark from its twin, the character beside it is foreign: no
    control begins or ends there."""
    parts: list[str] = []
    foreign: list[tuple[int, int]] = []
    at, opened = 0, -1
    for part in re.split(f"([{OPEN}{CLOSE}])", text):
        if part not in (OPEN, CLOSE):
            parts.append(part)
            at += len(part)
            continue
        if part == CLOSE:
            foreign.append((opened, at) if opened >= 0 else (max(at - 1, 0), at))
        elif opened >= 0:
            foreign.append((opened, opened + 1))
        opened = at if part == OPEN else -1
    if opened >= 0:
        foreign.append((opened, opened + 1))
    return Rendered("".join(parts), tuple(foreign))


def _require() -> None:
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise UserError('chat templates need jinja2; pip install "minilong[text]"') from None
