"""Wrong numbers in few bits, and wrong caches of them, which the laws of `quantising.py` must find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minilong.attention.parts import attention_by_parts
from minilong.audit.law import mutant
from minilong.audit.laws.memories import pieces
from minilong.audit.laws.quantising import ours, ours_cache, policy_of, streamed
from minilong.memory import Quantised, QuantisedState, Rows, Window, encode
from minilong.memory.packing import Packed

# Numbers


def in_steps(x: Any, bits: int, rounded: Any) -> np.ndarray:
    """From zero in steps of the scale, to the code that `rounded` gives."""
    levels, zero = 2**bits - 1, x.min(axis=-1, keepdims=True)
    scale = np.ptp(x, axis=-1, keepdims=True) / levels
    y: np.ndarray = zero + scale * rounded((x - zero) / np.where(scale > 0, scale, 1.0), levels)
    return y


@mutant("quantise", "rounded down", kills="half-a-step",
        met="KIVI issue tracker and many others: astype(int) truncates")  # fmt: skip
def truncated(x: Any, bits: int) -> Any:
    return in_steps(x, bits, lambda steps, levels: np.clip(np.floor(steps + 1e-9), 0, levels))


@mutant("quantise", "two to the bits levels", kills=("ends-are-exact", "half-a-step"),
        met="plausible: range / 2^bits, whose largest code does not fit")  # fmt: skip
def wrapped(x: Any, bits: int) -> Any:
    zero, scale = x.min(axis=-1, keepdims=True), np.ptp(x, axis=-1, keepdims=True) / 2**bits
    codes = np.rint((x - zero) / np.where(scale > 0, scale, 1.0))
    return zero + scale * np.mod(codes, 2**bits)


@mutant("quantise", "divided by a step of zero", kills="constant",
        met="KIVI new_pack.py: (data - mn) / scale without a look at scale = 0")  # fmt: skip
def by_zero(x: Any, bits: int) -> Any:
    zero, scale = x.min(axis=-1, keepdims=True), np.ptp(x, axis=-1, keepdims=True) / (2**bits - 1)
    with np.errstate(all="ignore"):
        return zero + scale * np.rint((x - zero) / scale)


@mutant("quantise", "symmetric", kills=("half-a-step", "ends-are-exact"),
        met="KIVI, section 3: absmax with one scale and no zero loses half the codes of a shifted group")  # fmt: skip
def symmetric(x: Any, bits: int) -> Any:
    most = 2 ** (bits - 1) - 1
    scale = np.abs(x).max(axis=-1, keepdims=True) / most
    return scale * np.rint(x / np.where(scale > 0, scale, 1.0))


@mutant("quantise", "codes in another order", kills=("half-a-step", "order", "idempotent"),
        met="plausible: packed as neighbours of a byte, unpacked as neighbours of a group")  # fmt: skip
def shuffled(x: Any, bits: int) -> Any:
    packed = encode(x, bits)
    if bits >= 8 or x.shape[-1] < 2:
        return packed.decode()
    n, each = x.shape[-1], 8 // bits
    wide = packed.codes.shape[-1] * each
    whole = Packed(packed.codes, packed.scale, packed.zero, bits, wide).decode()
    mixed = whole.reshape(*whole.shape[:-1], each, -1).swapaxes(-1, -2).reshape(*whole.shape[:-1], wide)
    return mixed[..., :n][..., ::-1]


@mutant("quantise", "one scale for all groups", kills=("half-a-step", "constant"),
        met="plausible: min and max without an axis")  # fmt: skip
def one_scale(x: Any, bits: int) -> Any:
    y: np.ndarray = ours(x.reshape(-1), bits)
    return y.reshape(x.shape) + (1e-3 if x.ndim > 1 and np.ptp(x) == 0 else 0)


@mutant("quantise", "middle of the steps", kills=("ends-are-exact", "nearest", "constant"),
        met="plausible: a histogram's bins, whose centres stand for them")  # fmt: skip
def centred(x: Any, bits: int) -> Any:
    levels, zero = 2**bits, x.min(axis=-1, keepdims=True)
    scale = np.maximum(np.ptp(x, axis=-1, keepdims=True), 1e-6) / levels
    return zero + scale * (np.clip(np.floor((x - zero) / scale), 0, levels - 1) + 0.5)


# The cache


def cache(of: Any) -> Any:
    """The kind's function with this memory."""

    def wrong(
        q: Any, k: Any, v: Any, bits: int, group: int, recent: int, window: int | None, sinks: int, splits: Any
    ) -> Any:
        return streamed(of(bits, group, recent, None if window is None else Window(window, sinks)), q, k, v, splits)

    return wrong


class Exchanged(Quantised):
    """Keys by row, values by channel."""

    def _packed(self, rows: Rows) -> Any:
        block = super()._packed((rows[1], rows[0]))
        return Swapped(block.keys, block.values)


class Swapped:
    """A block whose packed keys are by row."""

    def __init__(self, keys: Packed, values: Packed) -> None:
        self.keys, self.values = keys, values

    def decode(self, keys: Any, values: Any) -> None:
        """As `Block`, the other way round."""
        by_channel = self.keys.decode()
        values[...] = by_channel.reshape(*by_channel.shape[:-2], -1).swapaxes(-1, -2)
        by_row = self.values.decode()
        keys[...] = by_row.reshape(*by_row.shape[:-2], -1).swapaxes(-1, -2)


mutant("quantised-cache", "keys by row, values by channel", kills=("definition",),
       met="KIVI, table 2: the arrangement that loses most at 2 bits")(cache(Exchanged))  # fmt: skip


class Early(Quantised):
    """Of the exact rows, a complete block is read as if it were packed."""

    def parts(self, state: QuantisedState) -> Iterator[Rows]:
        *before, (k, v) = list(super().parts(state))
        yield from before
        if state.recent.stop >= self.recent:
            block = self._packed((k[..., : self.recent, :], v[..., : self.recent, :]))
            k, v = np.ascontiguousarray(k.swapaxes(-1, -2)), v.copy()
            block.decode(k[..., : self.recent], v[..., : self.recent, :])
            k = k.swapaxes(-1, -2)
        yield k, v


mutant("quantised-cache", "packed as soon as a block is full", kills=("definition", "recent-is-exact"),
       met="plausible: then a query at a block's beginning has no exact row before it")(cache(Early))  # fmt: skip


class Hasty(Quantised):
    """A packed block is dropped one block too early."""

    def _gone(self, seen: int) -> int:
        return min(super()._gone(seen) + (self.window is not None), max(self._block(seen) - 1, 0))


mutant("quantised-cache", "a block left behind too early", kills="definition",
       met="plausible: dropped where its first row leaves the window, not its last")(cache(Hasty))  # fmt: skip


class PackedSinks(Quantised):
    """The sinks are kept in few bits too."""

    def parts(self, state: QuantisedState) -> Iterator[Rows]:
        for i, (k, v) in enumerate(super().parts(state)):
            few = i == 0 and bool(state.first)
            yield (encode(k, self.bits).decode() + 0.1, encode(v, self.bits).decode()) if few else (k, v)


mutant("quantised-cache", "sinks in few bits", kills=("definition", "recent-is-exact"),
       met="KVQuant (Hooper et al. 2024): the first tokens must stay exact")(cache(PackedSinks))  # fmt: skip


class FirstScale(Quantised):
    """The first channel's step serves all channels."""

    def _packed(self, rows: Rows) -> Any:
        block = super()._packed(rows)
        scale = np.broadcast_to(3 * block.keys.scale[:, :, :1], block.keys.scale.shape)
        return replace(block, keys=replace(block.keys, scale=scale, zero=block.keys.zero + 1))


mutant("quantised-cache", "one step for all channels", kills=("definition", "error-bound"),
       met="plausible: scales broadcast along the wrong axis")(cache(FirstScale))  # fmt: skip


@mutant("quantised-cache", "blocks begin where pieces do", kills=("any-split", "definition"),
        met="plausible: what is read at once is packed at once")  # fmt: skip
def at_pieces(
    q: Any, k: Any, v: Any, bits: int, group: int, recent: int, window: int | None, sinks: int, splits: Any
) -> Any:
    return ours_cache(q, k, v, bits, group, max(splits[0] // group, 1) * group, window, sinks, splits)


@mutant("quantised-cache", "parts collected before they are used", kills=("definition", "error-bound"),
        met="plausible: the decoded rows of all parts in one list, though their memory is used again")  # fmt: skip
def collected(
    q: Any, k: Any, v: Any, bits: int, group: int, recent: int, window: int | None, sinks: int, splits: Any
) -> Any:
    policy = replace(policy_of(bits, group, recent, window, sinks), decoded=1)
    state, y = policy.init(), []
    for seen, t in pieces(policy, splits):
        part = slice(seen, seen + t)
        state = policy.write(state, (k[..., part, :], v[..., part, :]))
        whole = list(policy.parts(state))
        y.append(attention_by_parts(q[..., part, :], whole, mask=policy.mask(seen, t)))
    return np.concatenate(y, axis=-2)


@mutant("quantised-cache", "keys of the first batch row for all", kills=("batch-rows-alone", "definition"),
        met="plausible: a prompt cached once and expanded, in a batch of different prompts")  # fmt: skip
def shared_prefix(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    return ours_cache(q, np.broadcast_to(k[:1], k.shape), v, *rest)
