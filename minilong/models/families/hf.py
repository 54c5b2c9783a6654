"""A config.json of the library `transformers`, read strictly: what changes numbers is known, or refused by its name.

Keys that are missing have that library's own defaults, which the readers of the families repeat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from minilong.errors import UserError
from minilong.models.fields import show
from minilong.positions.scaling import LLAMA3

ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
"""Theirs -> ours. What has several names there is written by the first that is not `_python`."""

GATES = {"silu": "swiglu", "gelu": "geglu", "gelu_tanh": "geglu_tanh"}
"""Our activation of a gate -> our name of the gated network."""

THEIR_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new", "silu": "silu"}
"""Ours -> theirs."""

ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")
SCALINGS = {"default": "none", "linear": "pi", "dynamic": "dynamic", "yarn": "yarn", "llama3": "llama3"}


class HF:
    """The values of a config.json. Errors name key and value."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is missing or null."""
        value = self.values.get(key)
        return default if value is None else value

    def whole(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """An integer of at least `least`. Without a default the key must be there."""
        value = self.get(key, default)
        if value is None:
            raise UserError(f"config.json has no {key}; fetch the model again")
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"config.json has {key} = {show(value)}, which must be a whole number from {least} on")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0. Without a default the key must be there."""
        value = self.get(key, default)
        if value is None:
            raise UserError(f"config.json has no {key}; fetch the model again")
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise UserError(f"config.json has {key} = {show(value)}, which must be a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise UserError(f"config.json has {key} = {show(value)}, which must be true or false")
        return value

    def word(self, key: str, default: str, known: Mapping[str, str]) -> str:
        """What a word stands for."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in known:
            raise UserError(f"config.json has {key} = {show(value)}; minilong knows {', '.join(known)}")
        return known[value]

    def only(self, key: str, *usual: Any) -> None:
        """Refuse a key whose value is none of the usual ones (the first also stands for a missing key)."""
        value = self.get(key, usual[0])
        if not any(value == u and type(value) is type(u) for u in usual):
            some = " or ".join(show(u) for u in usual)
            raise UserError(f"config.json has {key} = {show(value)}, which minilong does not compute; it knows {some}")

    def gate(self, key: str, default: str) -> str:
        """The gated network of an activation's name."""
        return self.word(key, default, {theirs: GATES[ours] for theirs, ours in ACTIVATIONS.items() if ours in GATES})

    def architecture(self, known: Sequence[str]) -> str:
        """The first architecture, which must be known; where none is named, the first of those."""
        named = self.get("architectures", [known[0]])
        if not isinstance(named, list) or len(named) != 1 or named[0] not in known:
            raise UserError(
                f"config.json has architectures = {show(named)}; of this model_type minilong opens {', '.join(known)}"
            )
        return str(named[0])

    def rope(self, context: int, *, share: float | None) -> dict[str, Any]:
        """Our settings of rotary positions: from `rope_parameters`, or from `rope_theta` and `rope_scaling` before.
        share: of a head that is turned where nothing is said; None where all of it always is."""
        given = self.get("rope_scaling") or self.get("rope_parameters") or {}
        if not isinstance(given, dict):
            raise UserError(f"config.json has rope_scaling = {show(given)}, which must be an object")
        rope = HF({"rope_theta": self.get("rope_theta"), "partial_rotary_factor": self.get("partial_rotary_factor")})
        rope = HF({**rope.values, **{key: value for key, value in given.items() if value is not None}})
        kind = rope.get("rope_type", rope.get("type", "default"))
        if not isinstance(kind, str) or kind not in SCALINGS:
            raise UserError(
                f"config.json has rope_scaling of type {show(kind)}, which minilong does not compute; it knows "
                f"{', '.join(SCALINGS)}"
            )
        found: dict[str, Any] = {
            "position": "rotary",
            "rope_base": rope.number("rope_theta", 10000.0),
            "rope_share": 1.0 if share is None else rope.number("partial_rotary_factor", share),
            "rope_scaling": SCALINGS[kind],
        }
        if share is None:
            rope.only("partial_rotary_factor", 1.0, 1)
        if kind != "default":
            found["rope_factor"] = rope.number("factor")
        if kind == "dynamic":
            found["rope_context"] = context
        if kind in ("yarn", "llama3"):
            before = self.whole("original_max_position_embeddings", context)
            found["rope_context"] = rope.whole("original_max_position_embeddings", before)
        if kind == "llama3":
            rope.only("low_freq_factor", 1.0, 1)
            rope.only("high_freq_factor", 4.0, 4)
        if kind == "yarn":
            self._yarn(rope, found["rope_factor"])
        return found

    def _yarn(self, rope: HF, factor: float) -> None:
        """Refuse what is not our own choice."""
        rope.only("beta_fast", 32, 32.0)
        rope.only("beta_slow", 1, 1.0)
        rope.only("truncate", True)
        usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        asked = usual
        if rope.get("mscale") and rope.get("mscale_all_dim"):
            by, of_all = (0.1 * rope.number(key, 1.0) * math.log(factor) + 1 for key in ("mscale", "mscale_all_dim"))
            asked = by / of_all
        asked = rope.number("attention_factor", asked)
        if abs(asked - usual) > 1e-9:
            raise UserError(
                f"config.json has attention_factor (or mscale) = {asked:g} for YaRN's queries and keys, which minilong "
                f"does not compute; it knows 0.1 ln(factor) + 1 = {usual:g}"
            )


def rope_described(c: Any) -> dict[str, Any]:
    """The keys of rotary positions (`ROPE_KEYS`) that say what our settings say. c: resolved."""
    kinds = {ours: theirs for theirs, ours in SCALINGS.items()}
    base, scaling = c.rope_base, None
    if c.rope_scaling == "ntk":  # the same as another base (`eq:ntk-scaling`)
        turned = int(c.head_width * c.rope_share)
        base *= c.rope_factor ** (turned / (turned - 2)) if turned > 2 else 1.0
    elif c.rope_scaling != "none":
        scaling = {"rope_type": kinds[c.rope_scaling], "factor": c.rope_factor}
        if c.rope_scaling in ("yarn", "llama3"):
            scaling["original_max_position_embeddings"] = c.rope_context
        if c.rope_scaling == "llama3":
            scaling |= {"low_freq_factor": LLAMA3[0], "high_freq_factor": LLAMA3[1]}
    found = {"rope_theta": base, "rope_scaling": scaling}
    return found | ({"partial_rotary_factor": c.rope_share} if c.rope_share != 1 else {})
