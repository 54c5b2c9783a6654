"""JSON of a file that nobody vouches for: one object, each key once, of bounded size, and errors of one line."""

from __future__ import annotations

import json
from typing import Any

from minilong.errors import UserError
from minilong.models.fields import show


def strict_object(data: bytes, source: str, most: int) -> dict[str, Any]:
    """The object that UTF-8 text holds. `source` is how errors name the text.

    UserError for more than `most` bytes, other text, another value, a key that an object has twice, and NaN or
    infinities, which JSON lacks. Reading takes up to some thirty times the text's size, so `most` bounds memory.
    """
    if len(data) > most:
        raise UserError(f"{source} has {len(data)} bytes, and {most} are read at most; it is no text of a checkpoint")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_each_key_once, parse_constant=_no_number)
    except _Refused as error:
        raise UserError(f"{source} {error}; it is damaged, fetch it again") from None
    except (ValueError, RecursionError):
        raise UserError(f"{source} is no JSON text; it is damaged, fetch it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{source} holds no JSON object; it is damaged, fetch it again")
    return value


class _Refused(Exception):
    """JSON in form, but not what a checkpoint may hold."""


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"holds the key {show(twice)} twice")
    return table


def _no_number(name: str) -> None:
    raise _Refused(f"holds {name}, which is no number")
