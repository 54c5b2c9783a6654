"""Reading a text token by token with a language model: what generation and streaming evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilong.backend import Array, to_host
from minilong.backend.workers import grant_threads
from minilong.memory import Full, Memory
from minilong.nn.models import Stream
from minilong.nn.panels import FEW, for_few_rows
from minilong.train.worker import device_of

CHUNK = 2048
"""Tokens of a prompt that are read at once: activations take the memory of a chunk, whatever the prompt's length."""


class Reader:
    """Texts (one a row) that a model reads on and on; `read` gives the logits after the last token.

    memory: what is remembered; by default what the model was built with. A model that remembers everything is read to
    its context at most: a text that is full starts afresh from the second half of what the model had seen. With a
    window or a segment memory a text goes on for ever in constant memory.
    length: tokens that a text will have in the end, where that is known: a cache of everything is then allocated once.
    threads: that large operations may use.
    """

    def __init__(
        self,
        model: Any,
        memory: Memory | None = None,
        *,
        length: int | None = None,
        threads: int = 1,
        chunk: int = CHUNK,
    ) -> None:
        self.model, self.threads, self.chunk = model, threads, chunk
        self._panels: Any = None
        self._panelled = device_of(model).is_cpu
        self.stream: Stream = model.start(memory)
        if length and isinstance(self.stream.memory, Full):
            memory = Full(capacity=max(1, min(length, model.context)))
            self.stream = model.start(memory)
        self.memory = memory
        self.endless = self.stream.memory.endless
        self._recent = np.zeros((1, 0), np.int32)

    def read(self, tokens: Array) -> np.ndarray:
        """Read on: integers (b, t), t > 0 -> logits (b, vocabulary)."""
        with grant_threads(self.threads):
            return to_host(self.model.logits(self.hidden(tokens))[:, -1])

    def hidden(self, tokens: Array) -> Array:
        """The same before the output projection, of the last token only: (b, 1, width)."""
        if not self.endless:
            tokens = self._within_context(tokens)
        if not self.stream.seen:
            self._begin(tokens.shape[1])
        last = None
        for first in range(0, tokens.shape[1], self.chunk):
            last = self._fit(len(tokens)).extend(tokens[:, first : first + self.chunk], self.stream)
        assert last is not None
        return last[:, -1:]

    def _begin(self, length: int) -> None:
        """Tell the memory how long the prompt is, where that matters to it."""
        memory = self.stream.memory.prompted(length)
        if memory != self.stream.memory:
            self.stream = self.model.start(memory, self.stream.starts)

    def _fit(self, rows: int) -> Any:
        """The model in the form that reads so many texts fastest."""
        if rows > FEW or not self._panelled:
            return self.model
        if self._panels is None:
            self._panels = for_few_rows(self.model, rows)
        return self._panels

    def _within_context(self, tokens: Array) -> Array:
        """What to read so that no text exceeds the context; starts afresh where it would."""
        context = self.model.context
        self._recent = np.concatenate([self._recent, tokens], axis=1) if self._recent.shape[1] else tokens
        self._recent = self._recent[:, -context:]
        if self.stream.seen + tokens.shape[1] <= context:
            return tokens
        if self.stream.seen:
            self._recent = self._recent[:, -(context - context // 2) :]
        self.stream = self.model.start(self.memory)
        return self._recent


class RaggedReader(Reader):
    """Prompts of several lengths in one batch: shorter ones are padded in front, where nothing sees the padding.

    The texts together may not exceed the context where the model remembers everything (ValueError), nor may there be
    sinks, which are the first tokens of a text and so at another place in each row. new: tokens that will follow, where
    that is known.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Array],
        memory: Memory | None = None,
        *,
        new: int | None = None,
        threads: int = 1,
    ) -> None:
        longest = max(map(len, prompts))
        super().__init__(model, memory, length=new and longest + new, threads=threads)
        starts = np.array([longest - len(prompt) for prompt in prompts])
        if starts.any():
            self.stream = model.start(self.memory, starts)
            if self.stream.memory.mask(0, 1).sinks:
                raise ValueError("prompts of several lengths have no common first tokens, so there can be no sinks")
        self.prompts = np.zeros((len(prompts), longest), np.int32)
        for row, prompt in zip(self.prompts, prompts, strict=True):
            row[longest - len(prompt) :] = prompt
        self.starts = starts

    def _within_context(self, tokens: Array) -> Array:
        if self.starts.any() and self.stream.seen + tokens.shape[1] > self.model.context:
            raise ValueError(f"prompts and texts together are longer than the context of {self.model.context} tokens")
        return super()._within_context(tokens)
