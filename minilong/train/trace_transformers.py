"""The same pass by the library `transformers`: what its modules give and are given, under our names.

A folder that it opens names each of our arrays (`models/families/`), so a module that holds the weights of one of our
layers computes what that layer does. What no single module holds, the residual stream, is in a table by family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilong.errors import UserError
from minilong.models.config import ModelConfig
from minilong.models.families import FAMILIES, Place
from minilong.models.families.hf import HF
from minilong.models.pretrained import open_folder
from minilong.train.saved import HALVES, in_halves

STREAMS = {
    "bert": {"stack": "bert.encoder.layer"},
    "roberta": {"stack": "roberta.encoder.layer"},
    "gpt2": {"stack": "transformer.h"},
    "t5": {"encoder": "encoder.block", "decoder": "decoder.block"},
    "llama": {"stack": "model.layers"},
    "mistral": {"stack": "model.layers"},
    "glm": {"stack": "model.layers"},
}
"""Our stack -> their list of layers, each of which gives the residual stream behind it."""

WEIGHTS = {
    "attentions": ("stack", "attention"),
    "encoder_attentions": ("encoder", "attention"),
    "decoder_attentions": ("decoder", "attention"),
    "cross_attentions": ("decoder", "cross"),
}
"""Their name of the attention weights of all layers -> our stack and part of a layer."""


@dataclass(frozen=True)
class Match:
    """A name of ours, the module of theirs, and how our array is got from what that is given or gives."""

    name: str
    module: str
    given: bool = False
    take: Callable[[np.ndarray], np.ndarray] = lambda x: x
    call: int = 0


def reference(folder: Path, tokens: Mapping[str, np.ndarray], run: ModelConfig | None = None) -> dict[str, np.ndarray]:
    """The intermediates of `transformers` on token ids, by our names. run: the configuration of the run that the folder
    was written from, whose rotary pairs may lie otherwise. UserError without `transformers`."""
    try:
        import torch
        import transformers
    except ImportError:
        raise UserError('--against transformers needs that library; pip install "minilong[bench]"') from None
    opened = open_folder(folder)
    matches = matched(opened.family, opened.config, run or opened.config)
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    family = FAMILIES[opened.family]
    kind = getattr(transformers, HF(opened.hf).architecture(family.architectures))  # one of a closed list
    model = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", use_safetensors=True, trust_remote_code=False
    ).eval()
    modules = dict(model.named_modules())
    seen: dict[str, list[tuple[np.ndarray | None, np.ndarray]]] = {}
    for name in {match.module for match in matches}:
        here = name if name in modules else name.removeprefix(family.prefix)
        if here in modules:
            seen[name] = []
            modules[here].register_forward_hook(_noting(seen[name]))
    ids = {name: torch.from_numpy(np.asarray(x, np.int64)) for name, x in tokens.items()}
    given = (
        {"input_ids": ids["tokens"]}
        if "tokens" in ids
        else {"input_ids": ids["source"], "decoder_input_ids": ids["target"]}
    )
    with torch.no_grad():
        out = model(**given, output_attentions=True, return_dict=True)
    found = {}
    for match in matches:
        calls = seen.get(match.module, [])
        x = calls[match.call][0 if match.given else 1] if match.call < len(calls) else None
        if x is not None:
            found[match.name] = match.take(x)
    return found | _of_output(out)


def _noting(calls: list[tuple[np.ndarray | None, np.ndarray]]) -> Callable[..., None]:
    """A hook that notes what a module is given first and gives first, before others change it in place."""

    def hook(_: Any, given: Any, gives: Any) -> None:
        result = gives[0] if isinstance(gives, tuple) else gives
        calls.append((np.array(given[0]) if given else None, np.array(result)))

    return hook


def _of_output(out: Any) -> dict[str, np.ndarray]:
    """Logits and attention weights."""
    found = {}
    for theirs, (stack, part) in WEIGHTS.items():
        for i, weights in enumerate(getattr(out, theirs, None) or ()):
            found[f"{stack}.layers.{i}.{part}.weights"] = weights.numpy()
    logits = getattr(out, "logits", getattr(out, "prediction_logits", None))
    return found if logits is None else found | {"logits": logits.numpy()}


def matched(family: str, config: ModelConfig, run: ModelConfig) -> list[Match]:
    """What is compared: results of layers with weights, what norms and the last maps of attention and feed-forward
    networks are given, and the stream behind each layer."""
    found = []
    for path, place in FAMILIES[family].places(config).items():
        layer, _, leaf = path.rpartition(".")
        module = place.name.rpartition(".")[0]
        if leaf == "bias" or layer.endswith("scheme"):
            continue
        take = _part(place, _order(family, layer, config, run))
        twice = ("source", "target") if config.kind == "encoder-decoder" else ("input",)
        if layer == "input.tokens":
            found += [Match(f"{first}.tokens", module, call=i) for i, first in enumerate(twice)]
            continue
        found.append(Match(layer, module, take=take))
        if leaf == "gain":
            found.append(Match(f"{layer}.input", module, given=True))
        if layer.endswith((".attention.output", ".cross.output")):
            found.append(Match(f"{layer.removesuffix('output')}heads", module, given=True, take=_heads(config.heads)))
        if layer.endswith(".feed_forward.down"):
            found.append(Match(f"{layer.removesuffix('down')}hidden", module, given=True))
    for stack, theirs in STREAMS[family].items():
        found += [Match(f"{stack}.layers.{i}", f"{theirs}.{i}") for i in range(config.layers)]
    return found


def _heads(heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """(b, t, heads d) -> (b, heads, t, d)"""
    return lambda x: x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


def _part(place: Place, order: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """Our components of what a module gives, which may be fused, backward, or in another order."""

    def take(x: np.ndarray) -> np.ndarray:
        x = x if place.part is None else x[..., place.part[0] : place.part[1]]
        x = x[..., ::-1] if place.backward else x
        return x if order is None else x[..., order]

    return take


def _order(family: str, layer: str, config: ModelConfig, run: ModelConfig) -> np.ndarray | None:
    """Where each component of a query or key of the run lies in theirs, if the folder has rotary pairs in halves and
    the run has neighbours."""
    if family not in HALVES or run.rope_layout == config.rope_layout or not layer.endswith(("query", "key")):
        return None
    c = config.resolved()
    ours = np.arange((c.heads if layer.endswith("query") else c.kv_heads) * c.head_width)
    return np.argsort(in_halves(config, {f"{layer}.weight": ours})[f"{layer}.weight"])
