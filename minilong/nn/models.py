"""Whole models: tokens in, logits out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.backend import Array
from minilong.keys import Key
from minilong.nn.layers import Dropout, Embedding, Linear
from minilong.nn.transformer import Decoder, Encoder
from minilong.positions import cas, rotary_turns, sinusoidal


@dataclass(frozen=True)
class TokenInput:
    """Tokens to vectors: rows of a table times sqrt(width), plus what the position scheme adds (`eq:input`).

    position: sinusoidal, cas, learned (`positions` is then a table), rotary and none (nothing is added here).
    """

    tokens: Embedding
    positions: Embedding | None
    position: str
    dropout: Dropout

    def __call__(self, tokens: Array, key: Key | None = None) -> Any:
        """tokens (b, t) -> (b, t, width). Raises ValueError where there are more tokens than learned positions."""
        length, width = tokens.shape[-1], self.tokens.table.shape[-1]
        x = self.tokens(tokens) * math.sqrt(width)
        if self.positions is not None:
            limit = self.positions.table.shape[0]
            if length > limit:
                raise ValueError(f"{length} tokens, but learned positions for {limit} only")
            x = x + self.positions(np.arange(length))
        elif self.position in ADDED:
            x = x + ADDED[self.position](length, width, dtype=x.dtype)
        return self.dropout(x, key)


ADDED = {"sinusoidal": sinusoidal, "cas": cas}
"""Fixed tables that are added to the embeddings, by name."""


@dataclass(frozen=True)
class LanguageModel:
    """One stack over one sequence: decoder-only if `causal` (predicts the next token), else encoder-only.

    head: the output projection, or None where it is the embedding's table (tied weights).
    """

    input: TokenInput
    stack: Decoder | Encoder
    head: Linear | None
    causal: bool
    context: int

    def __call__(
        self, tokens: Array, *, segments: Array | None = None, lengths: Array | None = None, key: Key | None = None
    ) -> Any:
        """Integers (b, t) -> logits (b, t, vocabulary). segments (b, t) keep packed documents apart, lengths (b,) end
        the rows; the key switches dropout on."""
        mask = Mask(causal=self.causal, segments=segments, key_lengths=lengths)
        x = self.input(tokens, key.fold("input") if key else None)
        x = self.stack(x, mask=mask, turns=turns_of(self.input, self.stack, tokens.shape[-1]), key=key)
        return self.input.tokens.logits(x) if self.head is None else self.head(x)


@dataclass(frozen=True)
class EncoderDecoder:
    """The article's Transformer: the decoder predicts the target's next token and attends to the encoded source.

    Source and target share one vocabulary, and `input` one table with the tied output.
    """

    input: TokenInput
    encoder: Encoder
    decoder: Decoder
    head: Linear | None
    context: int

    def encode(self, source: Array, lengths: Array | None = None, key: Key | None = None) -> Any:
        """Integers (b, s) -> memory (b, s, width). It does not depend on the target."""
        x = self.input(source, key.fold("source") if key else None)
        turns = turns_of(self.input, self.encoder, source.shape[-1])
        return self.encoder(x, mask=Mask(key_lengths=lengths), turns=turns, key=key.fold("encoder") if key else None)

    def decode(self, memory: Any, target: Array, lengths: Array | None = None, key: Key | None = None) -> Any:
        """memory (b, s, width), integers (b, t) -> logits (b, t, vocabulary). lengths (b,) are the source's."""
        x = self.input(target, key.fold("target") if key else None)
        turns = turns_of(self.input, self.decoder, target.shape[-1])
        x = self.decoder(
            x,
            memory,
            mask=Mask(causal=True),
            memory_mask=Mask(key_lengths=lengths),
            turns=turns,
            key=key.fold("decoder") if key else None,
        )
        return self.input.tokens.logits(x) if self.head is None else self.head(x)

    def __call__(self, source: Array, target: Array, *, lengths: Array | None = None, key: Key | None = None) -> Any:
        """source (b, s), target (b, t) -> logits (b, t, vocabulary)."""
        return self.decode(self.encode(source, lengths, key), target, lengths, key)


def turns_of(tokens: TokenInput, stack: Encoder | Decoder, length: int) -> Array | None:
    """The rotary turns (t, d/2) of a stack's heads, or None for another position scheme."""
    if tokens.position != "rotary":
        return None
    width = tokens.tokens.table.shape[-1]
    kind = "complex64" if tokens.tokens.table.dtype == np.float32 else "complex128"
    return rotary_turns(np.arange(length), width // stack.layers[0].attention.heads, dtype=kind)
