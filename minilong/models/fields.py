"""Checked settings: what a configuration key means, which values it takes, and the one line that refuses others.

A configuration section is a frozen dataclass whose fields are declared with `setting`; its `__post_init__` calls
`check_fields`, which verifies type and range of every field and names the key, the fact and the remedy.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any

from minilong.errors import UserError, did_you_mean

EXPECTED = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of strings",
}


@dataclass(frozen=True)
class Rule:
    """What a key means and which values it takes: `least <= v <= most`, `above < v < below`, one of `choices`."""

    about: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def refusal(self, value: Any) -> str | None:
        """The reason why a value of the right type is refused (`fact; remedy` without the key), or None."""
        if self.choices and value not in self.choices:
            return f"is {show(value)}; choose one of {', '.join(self.choices)}{did_you_mean(value, self.choices)}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"is {value}; choose a finite number"
        if self.least is not None and value < self.least:
            return f"is {value}; choose {self.least} or more"
        if self.most is not None and value > self.most:
            return f"is {value}; choose {self.most} or less"
        if self.above is not None and value <= self.above:
            return f"is {value}; choose a value above {self.above:g}"
        if self.below is not None and value >= self.below:
            return f"is {value}; choose a value below {self.below:g}"
        return None


def setting(
    default: Any,
    about: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a default and the `Rule` that its values obey."""
    return field(default=default, metadata={"rule": Rule(about, choices, least, most, above, below)})


def rule_of(entry: Field[Any]) -> Rule:
    """The rule of a field that was declared with `setting`."""
    rule: Rule = entry.metadata["rule"]
    return rule


def check_fields(section: str, config: Any) -> None:
    """Verify type and range of every field of a frozen section, and store integers given for numbers as floats.

    Raises `UserError` that names the key as `section.field`.
    """
    for entry in fields(config):
        key = f"{section}.{entry.name}"
        value = _typed(key, str(entry.type), getattr(config, entry.name), entry.default)
        reason = rule_of(entry).refusal(value)
        if reason is not None:
            raise UserError(f"{key} {reason}")
        object.__setattr__(config, entry.name, value)


def show(value: object) -> str:
    """A value for an error message: quoted, on one line, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _typed(key: str, kind: str, value: Any, default: object) -> Any:
    if kind == "tuple[str, ...]" and isinstance(value, str):
        value = (value,)  # one file is the common case: `text = "book.txt"` means a list of one
    if kind == "tuple[str, ...]" and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(_encodable(key, item) for item in value)
    if kind == "str" and isinstance(value, str):
        return _encodable(key, value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{key} is larger than any floating-point number; choose a smaller one") from None
    shown = '["book.txt"]' if isinstance(default, tuple) else str(default).lower() if kind == "bool" else show(default)
    raise UserError(f"{key} must be {EXPECTED[kind]}, but is {show(value)}; write for example {key} = {shown}")


def _encodable(key: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{key} is {show(text)}, which is not valid Unicode; rename the file or the value") from None
    if "\0" in text:
        raise UserError(f"{key} is {show(text)}, which holds a NUL character; leave it out")
    return text
