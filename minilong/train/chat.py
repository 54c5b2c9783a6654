"""A talk with a language model: messages by its chat template, and a history that stays in its cache.

Each turn reads what is new. The text that the model has read so far, its own answer included, is known; where the
template's text of the whole talk begins with it, which is so in nearly all templates, the rest alone is encoded and
read, and the logits are those of reading everything anew (`tests/train/test_chat.py`). Otherwise, as with
templates that drop a model's thoughts from older turns, everything is read anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minilong.data.chat_template import ChatTemplate, Message, Rendered
from minilong.errors import UserError
from minilong.keys import Key
from minilong.memory import Memory
from minilong.train.checkpoint import PRETRAINED
from minilong.train.config import available_threads
from minilong.train.generate import choose, language_tokenizer, undrawn
from minilong.train.loaded import LoadedRun, as_row, finite, ready_to_read
from minilong.train.opened import read_origin
from minilong.train.reader import Reader
from minilong.train.run import RunFolder


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn (`eq:sampling`), and how many an answer has at most."""

    temperature: float = 0.6
    top_k: int = 0
    top_p: float = 0.9
    seed: int = 0
    length: int = 512


def run_template(path: Path) -> str | None:
    """The chat template that came with the model of a run folder; None where there was none."""
    with RunFolder.open(path) as run:
        origin = read_origin(run)
    template = origin.chat_template if origin else None
    if template is not None and not isinstance(template, str):
        raise UserError(f"{path / PRETRAINED} has a chat template that is no text; restore it from a copy of the run")
    return template


class Chat:
    """A talk. `ask` adds a turn; `messages` holds what was said; `forgotten` counts messages that no longer fit.

    A model that remembers everything reads to its context: the oldest turns are then left out, and the rest is read
    anew. With a memory that is endless (a window, say) nothing is left out, and the memory forgets in its own way.
    """

    def __init__(
        self,
        loaded: LoadedRun,
        template: ChatTemplate,
        *,
        system: str | None = None,
        sampling: Sampling | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.tokenizer = language_tokenizer(loaded)
        self.loaded, self.template, self.memory = loaded, template, memory
        self.sampling = sampling or Sampling()
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self.forgotten = 0
        self._never = undrawn(self.tokenizer)
        self._turn = 0
        self._start()

    def ask(self, text: str, stop: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Say something, and the answer, piece by piece. It ends where the model ends it, at the sampling's length, at
        the end of the context, where `stop` says so, and where the caller closes the iterator; what was said by then is
        the answer. UserError for a message that does not fit, and for what the template refuses; the talk is then as it
        was before."""
        before = self.messages
        said, rendered, tokens = self._new_tokens([*before, {"role": "user", "content": text}])
        self.messages = said
        raw: list[str] = []
        try:
            yield from self._shown(self._answer(tokens, raw, stop))
        except GeneratorExit:
            self._conclude(rendered, "".join(raw))
            raise
        except BaseException:  # a half-read cache is of no use
            self.messages = before
            self._start()
            raise
        self._conclude(rendered, "".join(raw))

    def _conclude(self, rendered: Rendered, answer: str) -> None:
        self._known = rendered.text + answer
        self.messages = [*self.messages, {"role": "assistant", "content": _until(answer, self.template.stops)}]
        self._turn += 1

    def _new_tokens(self, said: list[Message]) -> tuple[list[Message], Rendered, np.ndarray]:
        """What is to be read of the talk, its text, and the tokens that are new in it. Starts afresh where it must."""
        room = self.loaded.model.context
        spare = min(self.sampling.length, room // 4)
        rendered = self.template.render(said)
        if rendered.text.startswith(self._known):
            tokens = np.concatenate([self._pending, self.template.encode(rendered, len(self._known))])
            if self._reader.endless or self._reader.stream.seen + len(tokens) + spare <= room:
                return said, rendered, tokens
        first, left_out = int(said[0]["role"] == "system"), 0
        while True:
            tokens = self.template.encode(rendered)
            if self._reader.endless or len(tokens) + spare <= room:
                break
            if len(said) - first < 3:
                raise UserError(
                    f"the talk has {len(tokens):,} tokens and the model reads {room:,}, with {spare} left for its "
                    "answer; write less, or take --memory window"
                )
            said = [*said[:first], *said[first + 2 :]]
            left_out += 2
            rendered = self.template.render(said)
        self.forgotten += left_out
        self._start()
        return said, rendered, tokens

    def _start(self) -> None:
        self._reader = Reader(self.loaded.model, self.memory, threads=available_threads())
        self._known = ""
        self._pending = np.zeros(0, np.int32)

    def _answer(self, tokens: np.ndarray, raw: list[str], stop: Callable[[], bool]) -> Iterator[str]:
        """The texts that tokens complete, which also go to `raw`. `_pending`: tokens that were not read yet."""
        numbers = Key.of(self.sampling.seed).fold("chat", self._turn).generator()
        decoder, how = self.tokenizer.stream_decoder(continues=True), self.sampling
        with ready_to_read():
            for _ in range(how.length):
                with np.errstate(all="ignore"):  # `finite` says it in words
                    logits = finite(self._reader.read(as_row(tokens))[0])
                self._pending = np.zeros(0, np.int32)
                token = choose(
                    logits,
                    numbers,
                    temperature=how.temperature,
                    top_k=how.top_k,
                    top_p=how.top_p,
                    never=self._never,
                )
                if token in self.tokenizer.ends:
                    break
                self._pending = tokens = np.array([token], np.int32)
                if piece := decoder.push(token):
                    raw.append(piece)
                    yield piece
                full = not self._reader.endless and self._reader.stream.seen >= self.loaded.model.context
                if full or stop():
                    break
        if rest := decoder.flush():
            raw.append(rest)
            yield rest

    def _shown(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces up to a text that ends the answer; what may be its beginning waits."""
        held = ""
        for piece in pieces:
            held += piece
            if (shown := _until(held, self.template.stops)) != held:
                yield shown
                return
            safe = len(held) - max((_begun(held, end) for end in self.template.stops), default=0)
            if safe:
                yield held[:safe]
                held = held[safe:]
        if held:
            yield held


def _until(text: str, ends: Sequence[str]) -> str:
    """The text before the first of the ends."""
    places = [place for end in ends if (place := text.find(end)) >= 0]
    return text[: min(places)] if places else text


def _begun(text: str, end: str) -> int:
    """How much of `end` the text ends with."""
    return next((n for n in range(min(len(end) - 1, len(text)), 0, -1) if text.endswith(end[:n])), 0)
