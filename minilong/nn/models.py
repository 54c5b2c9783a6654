"""Whole models: tokens in, logits out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.autodiff import ops, stop_gradient
from minilong.backend import Array, beside
from minilong.keys import Key
from minilong.memory import Full, Memory, Window
from minilong.nn.layers import Dropout, Embedding, Linear
from minilong.nn.past import Past, check_memory
from minilong.nn.prediction import Pooler, Transform
from minilong.nn.scheme import Scheme, table_type
from minilong.nn.transformer import Decoder, Encoder
from minilong.nn.view import View
from minilong.positions import cas_at, sinusoidal_at


@dataclass(frozen=True)
class TokenInput:
    """Tokens to vectors: rows of a table times sqrt(width), plus what the position scheme adds (`eq:input`).

    position: sinusoidal, cas, learned (`positions` is then a table); for the others nothing is added here. types: a
    table with a row for each part of a pair. norm: of the sum, which is then one of unscaled rows (`eq:normed-input`).
    scaled: whether rows are multiplied by sqrt(width) where there is no norm (`eq:plain-input`).
    """

    tokens: Embedding
    positions: Embedding | None
    position: str
    dropout: Dropout
    types: Embedding | None = None
    norm: Any = None
    scaled: bool = True

    def __call__(
        self, tokens: Array, key: Key | None = None, *, places: Array | None = None, types: Array | None = None
    ) -> Any:
        """tokens (b, t) -> (b, t, width). places: positions (t,) or (b, t), from 0 on unless given. types (b, t): parts
        of a pair, 0 unless given. Raises ValueError where there are more tokens than learned positions."""
        width = self.tokens.table.shape[-1]
        x = self.tokens(tokens)
        if self.norm is None and self.scaled:
            x = ops.scale(x, by=math.sqrt(width))
        places = np.arange(tokens.shape[-1]) if places is None else places
        if self.positions is not None:
            limit, longest = self.positions.table.shape[0], int(places.max(initial=-1)) + 1
            if longest > limit:
                raise ValueError(f"{longest} tokens, but learned positions for {limit} only")
            x = x + self.positions(places)
        elif self.position in ADDED:
            table = ADDED[self.position](places, width, dtype=table_type(x.dtype))
            x = x + beside(stop_gradient(x), table).astype(x.dtype, copy=False)
        if self.types is not None:
            x = x + self.types(np.zeros(tokens.shape, np.int32) if types is None else types)
        return self.dropout(x if self.norm is None else self.norm(x), key)


ADDED = {"sinusoidal": sinusoidal_at, "cas": cas_at}
"""Fixed tables that are added to the embeddings, by name."""


@dataclass
class Stream:
    """A text that a model reads piece by piece: one `Past` a layer, the tokens seen, and what keeps rows apart.

    segments (b, seen): as in `Mask`, for what was seen. starts (b,): padding before each row's first token.
    """

    pasts: tuple[Past, ...]
    seen: int = 0
    segments: Array | None = None
    starts: Array | None = None

    @property
    def memory(self) -> Memory:
        """What the layers remember."""
        return self.pasts[0].memory

    @property
    def bytes(self) -> int:
        """Memory that the layers' states hold."""
        return sum(past.bytes for past in self.pasts)


@dataclass(frozen=True)
class LanguageModel:
    """One stack over one sequence: decoder-only if `causal` (predicts the next token), else encoder-only.

    head: the output projection, or None where it is the embedding's table (tied weights). scheme: positions inside
    attention. window, sinks: as in `Mask` (0: none). memory: segment recurrence, in training too, or None. transform,
    pooler: of an encoder that is pretrained (`prediction.py`). output_scale: times what the projection reads
    (`eq:output-scale`); None where there is no projection, and the model's output is what `hidden` gives.
    """

    input: TokenInput
    stack: Decoder | Encoder
    head: Linear | None
    causal: bool
    context: int
    scheme: Scheme = field(default_factory=Scheme)
    window: int = 0
    sinks: int = 0
    memory: Memory | None = None
    transform: Transform | None = None
    pooler: Pooler | None = None
    output_scale: float | None = 1.0

    def __call__(
        self, tokens: Array, *, segments: Array | None = None, lengths: Array | None = None, key: Key | None = None
    ) -> Any:
        """Integers (b, t) -> logits (b, t, vocabulary). segments (b, t) keep packed documents apart, lengths (b,) end
        the rows; the key switches dropout on."""
        return self.logits(self.hidden(tokens, segments=segments, lengths=lengths, key=key))

    def hidden(
        self,
        tokens: Array,
        *,
        segments: Array | None = None,
        lengths: Array | None = None,
        types: Array | None = None,
        key: Key | None = None,
    ) -> Any:
        """What `logits` reads: integers (b, t) -> (b, t, width). types (b, t): parts of a pair."""
        t = tokens.shape[-1]
        if self.memory is not None or (self.sinks and t > self.scheme.reach):
            if lengths is not None:
                raise ValueError("a model with a memory reads rows of one length")
            return self.extend(tokens, self.start(), segments=segments, key=key)
        mask = Mask(
            causal=self.causal,
            window=self.window or None,
            sinks=self.sinks,
            segments=segments,
            key_lengths=lengths,
        )
        x = self.input(tokens, key.fold("input") if key else None, types=types)
        places = np.arange(t)
        x = self.stack(x, view=self.scheme.view(mask, places, places, x.dtype).beside(x), key=key)
        return scaled(x, self.output_scale)

    def logits(self, x: Any) -> Any:
        """(..., width) -> (..., vocabulary). ValueError where there is no output projection."""
        if self.output_scale is None:
            raise ValueError("this encoder has no output projection; take what `hidden` gives")
        if self.transform is not None:
            x = self.transform(x)
        y = self.input.tokens.logits(x) if self.head is None else self.head(x)
        return y if self.transform is None else y + self.transform.bias

    def start(self, memory: Memory | None = None, starts: Array | None = None) -> Stream:
        """An empty stream. memory: what the layers remember; by default as the model was built: its segment
        recurrence, its window, or everything. starts (b,): padding in front of each row (ragged prompts)."""
        if not self.causal:
            raise ValueError("only a causal model reads a stream")
        memory = memory or self.memory or (Window(self.window, self.sinks) if self.window else Full())
        check_memory(memory, self.scheme, ragged=starts is not None)
        return Stream(tuple(Past(memory) for _ in self.stack.layers), starts=starts)

    def extend(self, tokens: Array, stream: Stream, *, segments: Array | None = None, key: Key | None = None) -> Any:
        """Read on: integers (b, t) -> (b, t, width), equal to what one pass over all that was seen gives there
        (`eq:streaming`). The stream is changed."""
        memory, t, done = stream.memory, tokens.shape[-1], 0
        parts = []
        while done < t:
            room = memory.room(stream.seen)
            count = t - done if room is None else min(room, t - done)
            piece = slice(done, done + count)
            own = key.fold("piece", stream.seen) if key else None
            parts.append(self._piece(tokens[:, piece], stream, None if segments is None else segments[:, piece], own))
            done += count
        return parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=1)

    def _piece(self, tokens: Array, stream: Stream, segments: Array | None, key: Key | None) -> Any:
        memory, seen, (b, t) = stream.memory, stream.seen, tokens.shape
        queries, keys, mask = np.arange(seen, seen + t), memory.visible(seen, t), memory.mask(seen, t)
        places = queries
        if stream.starts is not None:
            places = np.maximum(queries[None, :] - stream.starts[:, None], 0)
            segments = (queries[None, :] >= stream.starts[:, None]).astype(np.int32)
        if segments is not None:
            check_memory(memory, self.scheme, ragged=True)
            before = np.zeros((b, 0), np.int32) if stream.segments is None else stream.segments
            stream.segments = np.concatenate([before, segments], axis=1)
            mask = replace(mask, segments=stream.segments[:, np.floor(keys).astype(np.int64)])
        x = self.input(tokens, key.fold("input") if key else None, places=places)
        view = self.scheme.view(mask, queries, keys, x.dtype, stream.starts).beside(x)
        x = self.stack(x, view=view, past=stream.pasts, key=key)
        stream.seen += t
        return scaled(x, self.output_scale)


@dataclass(frozen=True)
class EncoderDecoder:
    """The article's Transformer: the decoder predicts the target's next token and attends to the encoded source.

    Source and target share one vocabulary, and `input` one table with the tied output. Each stack has its scheme.
    output_scale: times what the output projection reads (`eq:output-scale`).
    """

    input: TokenInput
    encoder: Encoder
    decoder: Decoder
    head: Linear | None
    context: int
    encoder_scheme: Scheme = field(default_factory=Scheme)
    decoder_scheme: Scheme = field(default_factory=Scheme)
    output_scale: float = 1.0

    def encode(self, source: Array, lengths: Array | None = None, key: Key | None = None) -> Any:
        """Integers (b, s) -> memory (b, s, width). It does not depend on the target."""
        x = self.input(source, key.fold("source") if key else None)
        view = plain_view(self.encoder_scheme, Mask(key_lengths=lengths), x)
        return self.encoder(x, view=view, key=key.fold("encoder") if key else None)

    def decode(self, memory: Any, target: Array, lengths: Array | None = None, key: Key | None = None) -> Any:
        """memory (b, s, width), integers (b, t) -> logits (b, t, vocabulary). lengths (b,) are the source's."""
        return self.logits(self.decode_hidden(memory, target, lengths, key))

    def decode_hidden(self, memory: Any, target: Array, lengths: Array | None = None, key: Key | None = None) -> Any:
        """What `logits` projects: memory (b, s, width), integers (b, t) -> (b, t, width)."""
        x = self.input(target, key.fold("target") if key else None)
        x = self.decoder(
            x,
            memory,
            view=plain_view(self.decoder_scheme, Mask(causal=True), x),
            memory_view=View(Mask(key_lengths=lengths)).beside(x),
            key=key.fold("decoder") if key else None,
        )
        return scaled(x, self.output_scale)

    def logits(self, x: Any) -> Any:
        """(b, t, width) -> (b, t, vocabulary)."""
        return self.input.tokens.logits(x) if self.head is None else self.head(x)

    def __call__(self, source: Array, target: Array, *, lengths: Array | None = None, key: Key | None = None) -> Any:
        """source (b, s), target (b, t) -> logits (b, t, vocabulary)."""
        return self.decode(self.encode(source, lengths, key), target, lengths, key)


def scaled(x: Any, by: float | None) -> Any:
    """Hidden vectors in the units that an output projection reads (`eq:output-scale`)."""
    return x if by is None or by == 1.0 else ops.scale(x, by=by)


def plain_view(scheme: Scheme, mask: Mask, x: Any) -> View:
    """The view of one pass over x (b, t, width), from position 0 on."""
    places = np.arange(x.shape[-2])
    return scheme.view(mask, places, places, x.dtype).beside(x)
