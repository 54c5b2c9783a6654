"""What the special ids of a pretrained tokenizer are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from minilong.errors import UserError

ENDS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)
"""Special tokens that end a text or an answer in every model that has them, whatever its files call its end."""


@dataclass(frozen=True)
class Roles:
    """Ids by what they are for; None where a tokenizer has none. ends: all that end a text."""

    pad: int | None = None
    bos: int | None = None
    eos: int | None = None
    separator: int | None = None
    unk: int | None = None
    mask: int | None = None
    ends: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The roles as JSON values."""
        return {**vars(self), "ends": list(self.ends)}

    @staticmethod
    def from_dict(data: Mapping[str, object], source: str) -> Roles:
        """What `to_dict` wrote; UserError for anything else."""
        known = {field.name for field in fields(Roles)}
        single = known - {"ends"}
        ends = data.get("ends")
        whole = set(data) == known and isinstance(ends, list)
        if not whole or not all(data[name] is None or _is_id(data[name]) for name in single):
            raise UserError(
                f"{source} does not hold the roles {', '.join(sorted(known))} of special ids; it is damaged"
            )
        if not isinstance(ends, list) or not all(_is_id(end) for end in ends):
            raise UserError(f"{source} has ends that are no ids; it is damaged")
        return Roles(**{name: data[name] for name in single}, ends=tuple(ends))  # type: ignore[arg-type]


def _is_id(value: object) -> bool:
    return type(value) is int and value >= 0


def ends_of(names: Mapping[str, int], *own: int | None) -> tuple[int, ...]:
    """The ids that end a text: those that the files name, and those of `ENDS` among the special tokens."""
    return tuple(sorted({end for end in own if end is not None} | {names[end] for end in ENDS if end in names}))
