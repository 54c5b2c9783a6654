"""Every intermediate of one forward pass: what an auditor compares with another implementation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from minilong.data.vocabulary import Tokenizer
from minilong.errors import UserError
from minilong.nn.models import EncoderDecoder, LanguageModel, scaled
from minilong.train.loaded import LoadedRun, as_row, ready_to_read
from minilong.train.trace_layers import origin, traced
from minilong.train.trace_records import Origin, Record, Recorder, everything, ignore, nothing


@dataclass(frozen=True)
class Trace:
    """Records in the order of computation, and the arrays that were kept, by name. tokens: what the model read, by
    name: `tokens` (1, n), or `source` and `target`."""

    tokens: dict[str, np.ndarray]
    records: tuple[Record, ...]
    arrays: dict[str, np.ndarray]


def trace(
    loaded: LoadedRun,
    tokens: dict[str, np.ndarray],
    *,
    wanted: Callable[[str], bool] = everything,
    kept: Callable[[str], bool] = nothing,
    report: Callable[[str], None] = ignore,
) -> Trace:
    """One forward pass over token ids, as `tokens_of` gives them, by a copy of the model that records (`trace_layers`).

    wanted: names that are recorded; the others cost nothing. kept: names whose arrays are kept as well.
    report: is told the name of what is computed. The logits are those of the model, bit for bit.
    """
    recorder = Recorder(wanted, kept, report)
    with ready_to_read(), np.errstate(all="ignore"):  # what is not finite is counted
        if isinstance(loaded.model, EncoderDecoder):
            _encoder_decoder(loaded.model, tokens["source"], tokens["target"], recorder)
        else:
            _language_model(loaded.model, tokens["tokens"], recorder)
    return Trace(tokens, tuple(recorder.records), recorder.arrays)


def _language_model(model: LanguageModel, tokens: np.ndarray, recorder: Recorder) -> None:
    copy = traced(model, recorder)
    hidden = copy.hidden(tokens)
    _scaled(model, hidden, recorder)
    if copy.pooler is not None:
        copy.pooler(hidden)
    if model.output_scale is not None:
        recorder.add("logits", _of_logits(model), copy.logits(hidden))


def _encoder_decoder(model: EncoderDecoder, source: np.ndarray, target: np.ndarray, recorder: Recorder) -> None:
    memory = traced(model, recorder, source=True).encode(source)
    copy = traced(model, recorder)
    hidden = copy.decode_hidden(memory, target)
    _scaled(model, hidden, recorder)
    recorder.add("logits", _of_logits(model), copy.logits(hidden))


def _scaled(model: LanguageModel | EncoderDecoder, hidden: np.ndarray, recorder: Recorder) -> None:
    if model.output_scale not in (None, 1.0):
        recorder.add("scaled", Origin.of(scaled), hidden)


def _of_logits(model: LanguageModel | EncoderDecoder) -> Origin:
    """The output projection: a layer, or the embedding's table."""
    if isinstance(model, LanguageModel) and model.transform is not None:
        return Origin.of(LanguageModel.logits, "eq:prediction")
    equation = "eq:linear" if model.head is None else origin(model.head).equation
    return Origin.of(type(model).logits, equation)


def tokens_of(loaded: LoadedRun, prompt: str, target: str = "") -> dict[str, np.ndarray]:
    """Token ids (1, n) of a prompt as its commands give them to the model: with special ids around them for an encoder
    or a pretrained model. Of an encoder-decoder `source`, and `target` from its begin token on, else `tokens`.

    UserError for a target that a model does not read, an empty prompt, and one longer than the context.
    """
    tokenizer, model = loaded.tokenizer, loaded.config.model
    if model.kind != "encoder-decoder":
        if target:
            raise UserError(f"--target belongs to an encoder-decoder, but model.kind is {model.kind!r}; leave it out")
        found = {"tokens": _row(tokenizer, prompt, causal=model.kind == "decoder")}
    else:
        begin = tokenizer.pad if tokenizer.name == "pretrained" else tokenizer.bos  # T5's decoder begins with padding
        answer = np.array([begin, *tokenizer.encode(target)])
        found = {"source": tokenizer.encode_whole(prompt), "target": answer}
    for name, ids in found.items():
        if not len(ids):
            raise UserError("the prompt has no token; give --prompt some text")
        if len(ids) > model.context and loaded.config.model.memory == "none":
            raise UserError(f"the {name} are {len(ids)}, and this run reads {model.context} at once; shorten the text")
    return {name: as_row(ids) for name, ids in found.items()}


def _row(tokenizer: Tokenizer, text: str, *, causal: bool) -> np.ndarray:
    """The ids of a text that goes on, or for an encoder of one that stands alone, between special ids."""
    if causal:
        return np.array([*tokenizer.prefix, *tokenizer.encode(text)])
    if tokenizer.name == "pretrained":
        return tokenizer.encode_whole(text)
    return np.array([tokenizer.bos, *tokenizer.encode(text), tokenizer.separator])


def choice(patterns: Sequence[str] = (), layers: Sequence[int] = ()) -> Callable[[str], bool]:
    """Which names are wanted: those that match one of the patterns (`*.attention.weights`) and belong to one of the
    layers; all of them where nothing is given."""

    def wanted(name: str) -> bool:
        layer = re.search(r"\blayers\.(\d+)", name)
        here = not layers or (layer is not None and int(layer[1]) in layers)
        return here and (not patterns or any(fnmatchcase(name, pattern) for pattern in patterns))

    return wanted
