"""Where each of our arrays lies in a published checkpoint: its name there, and which part of that array, how turned.

Everything is a view in one direction and a copy in the other. Published linear maps hold their weights (out, in), but
for GPT-2's; several maps may share one array, and RoBERTa's positions begin after two rows that no token uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Place:
    """An array of theirs. turned: theirs is ours transposed. part: begin and end of ours among the last axis of theirs
    (after turning), where maps are fused. after: rows of theirs before ours. backward: with outputs in reverse order.
    """

    name: str
    turned: bool = False
    part: tuple[int, int] | None = None
    after: int = 0
    backward: bool = False

    def of(self, theirs: np.ndarray) -> np.ndarray:
        """Our array, a view of theirs."""
        x = theirs.T if self.turned else theirs
        if self.part is not None:
            x = x[..., self.part[0] : self.part[1]]
        if self.backward:
            x = x[..., ::-1]
        return x[self.after :] if self.after else x


def linear(ours: str, theirs: str, *, bias: bool = True, part: tuple[int, int] | None = None) -> dict[str, Place]:
    """A map of ours whose weight lies turned in theirs, or in a part of it, and its bias where there is one."""
    found = {f"{ours}.weight": Place(f"{theirs}.weight", turned=True, part=part)}
    return found | {f"{ours}.bias": Place(f"{theirs}.bias", part=part)} if bias else found


def norm(ours: str, theirs: str, *, bias: bool = True) -> dict[str, Place]:
    """Gain and bias of a norm."""
    found = {f"{ours}.gain": Place(f"{theirs}.weight")}
    return found | {f"{ours}.bias": Place(f"{theirs}.bias")} if bias else found


def shapes_there(places: Mapping[str, Place], ours: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shape of each of their arrays, from the shapes of ours by field path."""
    found: dict[str, tuple[int, ...]] = {}
    for name, same in by_name(places).items():
        place, shape = places[same[0]], ours[same[0]]
        if place.part is not None:
            shape = (*shape[:-1], max(places[path].part[1] for path in same))  # type: ignore[index]
        shape = (shape[0] + place.after, *shape[1:])
        found[name] = shape[::-1] if place.turned else shape
    return found


def arrays_there(places: Mapping[str, Place], ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their arrays from ours: views where an array stands alone, copies of those that are fused or begin with rows that
    no token uses, which are zero."""
    found = {}
    for name, same in by_name(places).items():
        place = places[same[0]]
        parts = [ours[path] for path in sorted(same, key=lambda path: places[path].part or (0, 0))]
        x = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if place.after:
            x = np.concatenate([np.zeros((place.after, *x.shape[1:]), x.dtype), x])
        if place.backward:
            x = x[..., ::-1]
        found[name] = x.T if place.turned else x
    return found


def by_name(places: Mapping[str, Place]) -> dict[str, list[str]]:
    """Their name -> the field paths that lie in it."""
    found: dict[str, list[str]] = {}
    for path, place in places.items():
        found.setdefault(place.name, []).append(path)
    return found


def each_layer(names: Iterable[str], layers: int) -> list[str]:
    """Names with `{i}` written out for every layer."""
    return [name.replace("{i}", str(i)) for name in names for i in range(layers if "{i}" in name else 1)]
