"""A copy of a model whose layers record what they give. It holds the same arrays and computes the same bits.

A layer that is called with one array (a linear map, a norm) is replaced by one that calls it and records the result. In
attention the kernel is replaced as well (`trace_attention.py`), since queries, keys and heads pass through it. What no
layer returns, the sum in the residual stream and the activated units of a feed-forward network, is recorded where it
enters the next one. Nothing is patched: the copy has other parts, as `nn/panels.py` makes one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from minilong.autodiff import rotate
from minilong.backend import Array
from minilong.keys import Key
from minilong.nn.attention import MultiHeadAttention
from minilong.nn.layers import ACTIVATIONS, Dropout, FeedForward, Linear
from minilong.nn.models import EncoderDecoder, LanguageModel, TokenInput
from minilong.nn.past import Past
from minilong.nn.prediction import Transform
from minilong.nn.scheme import Scheme
from minilong.nn.transformer import DecoderLayer, EncoderLayer, residual
from minilong.nn.view import View
from minilong.train.trace_attention import RecordedKernel
from minilong.train.trace_records import NAMED, Origin, Recorder

SCALED = {
    "pi": "eq:position-interpolation",
    "ntk": "eq:ntk-scaling",
    "dynamic": "eq:dynamic-attention",
    "yarn": "eq:yarn",
    "llama3": "eq:llama3-scaling",
}


PARTS = ("input", "stack", "encoder", "decoder", "transform", "pooler")
"""Fields of a model whose layers record. Its logits are recorded whole, be they of a layer or of the embedding."""


@dataclass(frozen=True)
class Recorded:
    """A layer of one array, and what its result is called. before: where its input comes from, if it is recorded."""

    layer: Any
    name: str
    recorder: Recorder
    before: Origin | None = None

    def __call__(self, x: Any) -> Any:
        if self.before is not None:
            self.recorder.add(f"{self.name}.input", self.before, x)
        y = self.layer(x)
        self.recorder.add(self.name, origin(self.layer), y)
        return y


@dataclass(frozen=True)
class RecordedTable(Recorded):
    """An embedding. Its table is read by others, and may be the output projection."""

    @property
    def table(self) -> Array:
        """(entries, width)."""
        return self.layer.table

    def logits(self, x: Any) -> Any:
        """As of the embedding; not recorded, since the whole model's logits are."""
        return self.layer.logits(x)


@dataclass(frozen=True)
class RecordedDropout:
    """A dropout, whose input is recorded: in a forward pass without a key that is what it gives, too."""

    layer: Dropout
    name: str
    given: Origin
    recorder: Recorder

    def __call__(self, x: Any, key: Key | None) -> Any:
        self.recorder.add(self.name, self.given, x)
        return self.layer(x, key)


@dataclass(frozen=True)
class RecordedLayer:
    """A layer of a stack, whose result is the residual stream behind it."""

    layer: Any
    name: str
    recorder: Recorder

    def __call__(
        self,
        x: Any,
        memory: Any = None,
        *,
        view: View,
        memory_view: View | None = None,
        past: Past | None = None,
        key: Key | None = None,
    ) -> Any:
        """As an encoder's layer, or a decoder's."""
        if isinstance(self.layer, EncoderLayer):
            y = self.layer(x, view=view, past=past, key=key)
        else:
            y = self.layer(x, memory, view=view, memory_view=memory_view, past=past, key=key)
        self.recorder.add(self.name, Origin.of(type(self.layer).__call__, "eq:residual"), y)
        return y

    def branches(self, *context: Any) -> Any:
        """As of the layer: a stack with two streams calls its parts, so no sum is recorded here."""
        return self.layer.branches(*context)


def traced(model: Any, recorder: Recorder, *, source: bool = False) -> Any:
    """The model, recording. Names are field paths; of an encoder-decoder, which reads twice by one table, `input` is
    called `source` or `target`."""
    if isinstance(model, EncoderDecoder):
        scheme, first = (model.encoder_scheme if source else model.decoder_scheme), ("source" if source else "target")
    else:
        assert isinstance(model, LanguageModel)
        scheme, first = model.scheme, "input"
    copier = _Copier(recorder, scheme)
    return _again(model, {f: copier.copy(x, first if f == "input" else f) for f, x in _of(model) if f in PARTS})


@dataclass(frozen=True)
class _Copier:
    recorder: Recorder
    scheme: Scheme

    def copy(self, part: Any, name: str) -> Any:
        """The part with layers that record."""
        if isinstance(part, tuple):
            return tuple(self.copy(x, f"{name}.{i}") for i, x in enumerate(part))
        if not is_dataclass(part) or isinstance(part, type):
            return part
        if isinstance(part, MultiHeadAttention):
            return self._attention(part, name)
        if isinstance(part, EncoderLayer | DecoderLayer):
            return RecordedLayer(self._layer(part, name), name, self.recorder)
        if isinstance(part, TokenInput):
            return self._input(part, name)
        if isinstance(part, FeedForward):
            return self._feed_forward(part, name)
        if isinstance(part, Transform):
            norm = Recorded(part.norm, f"{name}.norm", self.recorder, _activation(part))
            return self._plain(part, name, {"norm": norm})
        if hasattr(part, "table") and hasattr(part, "logits"):
            return RecordedTable(part, name, self.recorder)
        if _takes_one_array(part):
            return Recorded(part, name, self.recorder)
        return self._plain(part, name)

    def _plain(self, part: Any, name: str, given: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """The part, its own parts copied but for those that are given."""
        return _again(part, {f: self.copy(x, f"{name}.{f}") for f, x in _of(part) if f not in given} | dict(given))

    def _attention(self, part: MultiHeadAttention, name: str) -> Any:
        split = Origin.of(MultiHeadAttention.__call__, "eq:multi-head")
        queries = keys = split
        within = not name.endswith(".cross")  # what another stack gave has no positions there
        if self.scheme.name == "rotary" and within:
            equation = "eq:rotary" if self.scheme.share == 1 else "eq:partial-rotary"
            scaled = SCALED.get(self.scheme.scaling.kind)
            queries = keys = Origin.of(rotate.forward, f"{equation}, {scaled}" if scaled else equation)
        if self.scheme.name == "xl" and within:
            queries = Origin.of(MultiHeadAttention._attend, "eq:relative-term")
        kernel = RecordedKernel(part.kernel, name, queries, keys, split, self.recorder)
        return self._plain(part, name, {"kernel": kernel})

    def _layer(self, part: EncoderLayer | DecoderLayer, name: str) -> Any:
        """A norm's input is the sum that no layer gives; but the first one of a pre-norm layer is the layer's own."""
        norms = [f for f in ("attention_norm", "cross_norm", "feed_forward_norm") if getattr(part, f, None) is not None]
        sums = {
            f: Recorded(getattr(part, f), f"{name}.{f}", self.recorder, Origin.of(residual, "eq:residual"))
            for f in norms[1 if part.norm == "pre" else 0 :]
        }
        return self._plain(part, name, sums | {"dropout": part.dropout})

    def _input(self, part: TokenInput, name: str) -> Any:
        equation = "eq:normed-input" if part.norm is not None else "eq:input" if part.scaled else "eq:plain-input"
        given = Origin.of(TokenInput.__call__, equation)
        norm = None if part.norm is None else Recorded(part.norm, f"{name}.norm", self.recorder, given)
        dropout = RecordedDropout(part.dropout, name, given, self.recorder)
        return self._plain(part, name, {"norm": norm, "dropout": dropout})

    def _feed_forward(self, part: FeedForward, name: str) -> Any:
        dropout = RecordedDropout(part.dropout, f"{name}.hidden", _activation(part), self.recorder)
        return self._plain(part, name, {"dropout": dropout})


def _activation(part: FeedForward | Transform) -> Origin:
    """Where the activated units come from: a primitive, or with a gate a product."""
    if part.activation in ACTIVATIONS:
        primitive: Any = ACTIVATIONS[part.activation]
        return Origin.of(primitive.forward, primitive.eq)
    return Origin.of(type(part).__call__, f"eq:{part.activation.removesuffix('_tanh')}")


def origin(layer: Any) -> Origin:
    """The equation that the layer's docstring names, and its code."""
    named = list(dict.fromkeys(NAMED.findall(type(layer).__doc__ or "")))
    if isinstance(layer, Linear):
        named = ["eq:linear" if layer.bias is None else "eq:affine"]
    return Origin.of(type(layer).__call__, ", ".join(named))


def _takes_one_array(part: Any) -> bool:
    """Whether a part is called with one array and nothing else, and is made of arrays only."""
    whole = not any(is_dataclass(x) and callable(x) for _, x in _of(part))
    return whole and callable(part) and len(inspect.signature(part).parameters) == 1


def _of(part: Any) -> list[tuple[str, Any]]:
    return [(f.name, getattr(part, f.name)) for f in fields(part)]


def _again(part: Any, values: Mapping[str, Any]) -> Any:
    """One like the part with other values in some of its fields."""
    new = object.__new__(type(part))  # past __init__, whose checks want the layers' own types
    for name, value in _of(part):
        object.__setattr__(new, name, values.get(name, value))
    return new
