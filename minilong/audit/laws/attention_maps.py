"""Tiles and pictures of the attention map, from the log-sum-exp of blockwise attention (`specs/blockwise.md`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilong.attention import Blockwise, Mask, attention_picture, attention_row, attention_tile
from minilong.audit.draw import Numbers
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.blockwise import bias_of
from minilong.audit.laws.blockwise_cases import drawn, log_sum_exp, make, scores, size, weights
from minilong.audit.laws.common import F, bound
from minilong.backend import array_module

TILE = ("q", "k", "scale", "mask", "values", "least", "rows", "columns")
PICTURE = ("q", "k", "scale", "mask", "values", "least", "height", "width", "by")

kind(
    "attention-tile",
    f"attention_tile({', '.join(TILE)})",
    "q (b, h, t, d), k (b, g, s, d), mask a Mask, rows and columns as (start, stop) -> (b, h, rows, columns): weights.",
)
kind(
    "attention-picture",
    f"attention_picture({', '.join(PICTURE)})",
    "Arguments as attention-tile -> (b, h, height, width): mean or max of the weights in each cell of a grid.",
)


def lse_of(q: Any, k: Any, **options: Any) -> np.ndarray:
    """The log-sum-exp that a forward pass saves."""
    lse: np.ndarray = Blockwise(rows=3, columns=4).with_lse(q, k, k, **options)[1]
    return lse


@subject("attention-tile", "attention_tile", code=attention_tile, equation="eq:attention-tile")
def ours_tile(q: Any, k: Any, scale: float, mask: Mask, values: Any, least: int, rows: Any, columns: Any) -> Any:
    options: dict[str, Any] = {"mask": mask, "scale": scale, "bias": bias_of(values, least)}
    return attention_tile(q, k, lse_of(q, k, **options), rows, columns, **options)


@subject("attention-tile", "attention_row", code=attention_row, equation="eq:attention-tile")
def ours_row(q: Any, k: Any, scale: float, mask: Mask, values: Any, least: int, rows: Any, columns: Any) -> Any:
    options: dict[str, Any] = {"mask": mask, "scale": scale, "bias": bias_of(values, least)}
    lse = lse_of(q, k, **options)
    found = [attention_row(q, k, lse, i, **options)[..., columns[0] : columns[1]] for i in range(*rows)]
    xp = array_module(q)
    return xp.stack(found, axis=-2) if found else xp.zeros((*q.shape[:-2], 0, columns[1] - columns[0]))


@subject("attention-picture", "attention_picture", code=attention_picture, equation="eq:attention-picture")
def ours_picture(
    q: Any, k: Any, scale: float, mask: Mask, values: Any, least: int, height: int, width: int, by: str
) -> Any:
    options: dict[str, Any] = {"mask": mask, "scale": scale, "bias": bias_of(values, least)}
    return attention_picture(q, k, lse_of(q, k, **options), (height, width), by=by, **options)


def some_tile(r: Numbers, **choices: Any) -> Case:
    """A case with a tile of its map."""
    c = make(r, **choices)
    rows, columns = (
        tuple(int(i) for i in np.sort(r.integers(0, n + 1, 2))) for n in (c["q"].shape[-2], c["k"].shape[-2])
    )
    return {**c, "rows": rows, "columns": columns}


def some_grid(r: Numbers, *, height: int, width: int, by: str, **choices: Any) -> Case:
    """A case with a grid over its map."""
    return {**make(r, **choices), "height": height, "width": width, "by": by}


TILES = drawn(some_tile)
GRIDS = drawn(some_grid, height=(1, 2, 3, 5, 20), width=(1, 2, 3, 5, 20), by=("mean", "max"))


def asked(f: F, c: Case, names: tuple[str, ...]) -> np.ndarray:
    return np.asarray(f(*[c[name] for name in names]))


def rounding(c: Case) -> float:
    """Bound on the rounding of a weight, which is at most 1."""
    return bound(2 * size(c), c["k"].shape[-2] + c["q"].shape[-1])


@law("attention-tile", "definition", serves=("eq:attention-tile", "eq:attention"), cases=TILES)
def tile(f: F, c: Case, measure: Measure) -> None:
    """A tile computed alone is that part of the whole map."""
    whole = weights(c)[..., slice(*c["rows"]), slice(*c["columns"])]
    measure.close(asked(f, c, TILE), whole, rounding(c), "the tile")


@law("attention-tile", "row-sums", serves="eq:attention-tile", cases=TILES)
def row_sums(f: F, c: Case, measure: Measure) -> None:
    """Over all keys the weights of a query sum to 1, or to 0 where it sees none."""
    c = {**c, "columns": (0, c["k"].shape[-2])}
    total = asked(f, c, TILE).sum(axis=-1)
    right = (log_sum_exp(scores(c)) > -np.inf)[..., slice(*c["rows"])].astype(float)
    measure.close(total, right, rounding(c) * c["k"].shape[-2], "the sum of a query's weights")


@law("attention-picture", "definition", serves="eq:attention-picture", cases=GRIDS)
def picture(f: F, c: Case, measure: Measure) -> None:
    """Each cell is the mean, or the largest, of the weights of its queries and keys."""
    p = weights(c)
    cells = min(p.shape[-2], c["height"]), min(p.shape[-1], c["width"])
    edges = [[i * n // m for i in range(m + 1)] for n, m in zip(p.shape[-2:], cells, strict=True)]
    right = np.zeros((*p.shape[:-2], len(edges[0]) - 1, len(edges[1]) - 1))
    for a, b in np.ndindex(right.shape[-2:]):
        cell = p[..., edges[0][a] : edges[0][a + 1], edges[1][b] : edges[1][b + 1]]
        right[..., a, b] = cell.mean(axis=(-2, -1)) if c["by"] == "mean" else cell.max(axis=(-2, -1))
    measure.close(asked(f, c, PICTURE), right, rounding(c) * p.shape[-1], "the picture")


@law("attention-picture", "finest", serves="eq:attention-picture", cases=GRIDS)
def finest(f: F, c: Case, measure: Measure) -> None:
    """With a cell for each weight the picture is the map, by mean and by max."""
    found = asked(f, {**c, "height": 1000, "width": 1000}, PICTURE)
    measure.close(found, weights(c), rounding(c), "the finest picture")


# Mutants


@mutant("attention-tile", "mask forgotten", kills=("definition", "row-sums"),
        met="plausible: the log-sum-exp knows the mask, the tile does not")  # fmt: skip
def unmasked(q: Any, k: Any, scale: float, mask: Mask, values: Any, least: int, rows: Any, columns: Any) -> Any:
    lse = lse_of(q, k, mask=mask, scale=scale, bias=bias_of(values, least))
    bias = bias_of(values, least - mask.offset)
    return attention_tile(q, k, np.where(np.isinf(lse), 0, lse), rows, columns, scale=scale, bias=bias)


@mutant("attention-tile", "log-sum-exp of the first queries", kills="definition",
        met="plausible: the saved rows are taken from the start, not from the tile's")  # fmt: skip
def first_rows(q: Any, k: Any, scale: float, mask: Mask, values: Any, least: int, rows: Any, columns: Any) -> Any:
    options: dict[str, Any] = {"mask": mask, "scale": scale, "bias": bias_of(values, least)}
    return attention_tile(q, k, np.roll(lse_of(q, k, **options), rows[0], axis=-1), rows, columns, **options)


@mutant("attention-tile", "softmax within the tile", kills="definition",
        met="plausible: a crop of the scores normalised for itself, as tools that plot attention do")  # fmt: skip
def cropped(q: Any, k: Any, scale: float, mask: Mask, values: Any, least: int, rows: Any, columns: Any) -> Any:
    part = ours_tile(q, k, scale, mask, values, least, rows, columns)
    return part / np.maximum(part.sum(axis=-1, keepdims=True), 1e-300)


@mutant("attention-picture", "every cell the same size", kills="definition",
        met="plausible: the sum divided by the area of a whole cell, at the edges too")  # fmt: skip
def same_size(*arguments: Any) -> Any:
    q, k, *_, height, width, by = arguments
    t, s = q.shape[-2], k.shape[-2]
    h, w = min(height, t), min(width, s)
    area = np.outer(np.diff([i * t // h for i in range(h + 1)]), np.diff([i * s // w for i in range(w + 1)]))
    return ours_picture(*arguments) * (area / (-(-t // h) * -(-s // w)) if by == "mean" else 1.0)


@mutant("attention-picture", "one weight for each cell", kills="definition",
        met="plausible: every nth query and key drawn, which misses a narrow band")  # fmt: skip
def sampled(*arguments: Any) -> Any:
    *rest, height, width, by = arguments
    q, k = rest[:2]
    whole = ours_picture(*rest, q.shape[-2], k.shape[-2], by)
    h, w = min(height, q.shape[-2]), min(width, k.shape[-2])
    return whole[..., [i * q.shape[-2] // h for i in range(h)], :][..., [i * k.shape[-2] // w for i in range(w)]]


@mutant("attention-picture", "mean over the heads", kills=("definition", "finest"),
        met="plausible: plots of attention average the heads first")  # fmt: skip
def headless(*arguments: Any) -> Any:
    picture = ours_picture(*arguments)
    return np.broadcast_to(picture.mean(axis=1, keepdims=True), picture.shape)
