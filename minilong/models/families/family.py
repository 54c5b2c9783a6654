"""What a family of published models is: its config.json and names, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from minilong.errors import UserError
from minilong.models.config import ModelConfig
from minilong.models.families.hf import HF, rope_described
from minilong.models.families.places import Place, each_layer
from minilong.models.fields import show

HARMLESS = {"dropout", "init", "attention"}
"""Settings that change no number of a trained model, beside those that `settled` levels."""


@dataclass(frozen=True)
class Family:
    """The published models of one `model_type`.

    architectures: those that can be opened. prefix: of the names in all of these but the bare model, whose files lack
    it. read: config.json -> ModelConfig; write: a resolved ModelConfig, vocabulary -> the keys of config.json that
    `read` looks at. arrays: field path -> place, for a resolved ModelConfig. embedding, head: names of the table and of
    the output projection, which may be one. known: names of arrays in some files that nothing needs ({i}: each layer).
    older: ends of names in old files, and what they are called now.
    """

    model_type: str
    architectures: tuple[str, ...]
    prefix: str
    read: Callable[[HF], ModelConfig]
    write: Callable[[ModelConfig, int], dict[str, Any]]
    arrays: Callable[[ModelConfig], dict[str, Place]]
    embedding: str
    head: str = "lm_head.weight"
    known: tuple[str, ...] = ()
    older: tuple[tuple[str, str], ...] = ()

    def config(self, hf: Mapping[str, Any]) -> ModelConfig:
        """The configuration of a config.json. UserError that names key and value where it is not supported."""
        values = HF(hf)
        values.only("model_type", self.model_type)
        values.architecture(self.architectures)
        for key in ("auto_map", "quantization_config"):
            if hf.get(key):
                why = "code of its own, which minilong does not run" if key == "auto_map" else "weights in another form"
                raise UserError(f"config.json has {key}: {why}; take a checkpoint without")
        values.only("is_decoder", False)
        values.only("add_cross_attention", False)
        return self.read(values)

    def vocabulary(self, hf: Mapping[str, Any]) -> int:
        """The entries of its vocabulary."""
        return HF(hf).whole("vocab_size")

    def describe(self, config: ModelConfig, vocabulary: int) -> dict[str, Any]:
        """The keys of a config.json that say what the configuration says.

        UserError that names the first setting which this family's config.json cannot say.
        """
        c = config.resolved()
        hf = {"model_type": self.model_type, "vocab_size": vocabulary, **self.write(c, vocabulary)}
        try:
            said, meant = settled(self.config(hf)), settled(c)
        except UserError as error:
            raise UserError(f"the model cannot be saved as {self.model_type}: {error}") from None
        for entry in fields(ModelConfig):
            ours, theirs = getattr(meant, entry.name), getattr(said, entry.name)
            if entry.name not in HARMLESS and ours != theirs:
                raise UserError(
                    f"model.{entry.name} is {show(getattr(c, entry.name))}, but a config.json of {self.model_type} "
                    f"can only say {show(theirs)} here; leave that setting, or save as another family"
                )
        return hf

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """Our field path -> where it lies."""
        return self.arrays(config.resolved())

    def extras(self, config: ModelConfig) -> set[str]:
        """Names of arrays that a file may hold and that nothing needs."""
        return set(each_layer(self.known, config.layers))

    def now(self, name: str) -> str:
        """Today's name of an array in an old file."""
        for before, after in self.older:
            if name.endswith(before):
                return name[: -len(before)] + after
        return name


def settled(config: ModelConfig) -> ModelConfig:
    """The configuration with equal values for what computes equal numbers, to compare two."""
    c, usual = config.resolved(), ModelConfig()
    changes: dict[str, Any] = {
        "norm_eps": c.norm_eps or {"layer": 1e-5, "rms": 1e-6}[c.normalization],
        "score_scale": c.score_scale or c.head_width**-0.5,
    }
    if c.depth in ("checkpoint", "sqrt"):
        changes["depth"] = "stored"
    if c.depth != "momentum":
        changes["momentum"] = usual.momentum
    if c.memory == "none":
        changes |= {
            n: getattr(usual, n) for n in ("segment", "memory_length", "compressed", "compression", "compressor")
        }
    if c.position != "rotary":
        changes |= {n: getattr(usual, n) for n in ("rope_layout", "rope_base", "rope_share")}
    if c.rope_scaling == "ntk":
        changes |= {"rope_base": rope_described(c)["rope_theta"], "rope_scaling": "none"}
    if c.rope_scaling in ("none", "ntk"):
        changes["rope_factor"] = usual.rope_factor
    if c.rope_scaling in ("none", "ntk", "pi"):
        changes["rope_context"] = c.context
    if c.rope_scaling != "yarn":
        changes["rope_ramp"] = usual.rope_ramp
    return replace(c, **changes)
