"""How blockwise attention sees its arrays: batch axes to walk over, and query heads that share a key head as one stack.

Only views are made, whatever axes broadcast: a key head that serves many query heads is never repeated in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minilong.backend import Array


@dataclass(frozen=True, eq=False)
class Layout:
    """Views: q (*outer, r, t, d), k (*outer, s, d), v (*outer, s, e); values (..., r, m) or None broadcasts to them.

    outer: the batch axes, key heads last. r: the query heads of a key head. batch: the leading axes of the result.
    """

    q: Array
    k: Array
    v: Array
    values: Array | None
    batch: tuple[int, ...]

    @classmethod
    def of(cls, xp: Any, q: Array, k: Array, v: Array, values: Array | None) -> Layout:
        """The layout of arrays with leading axes that broadcast, as an operation receives them."""
        leads = [x.shape[:-2] for x in (q, k, v)] + ([] if values is None else [values.shape[:-1]])
        batch = xp.broadcast_shapes(*leads)
        wide = batch or (1,)
        if all(x.ndim == 2 or x.shape[-3] == 1 for x in (k, v)):  # one key head for all of the last axis
            k, v = (x[..., 0, :, :] if x.ndim > 2 else x for x in (k, v))
            outer, r = wide[:-1], wide[-1]
        else:
            q = q[..., None, :, :]
            values = None if values is None else values[..., None, :]
            outer, r = wide, 1
        return cls(
            xp.broadcast_to(q, (*outer, r, *q.shape[-2:])),
            xp.broadcast_to(k, (*outer, *k.shape[-2:])),
            xp.broadcast_to(v, (*outer, *v.shape[-2:])),
            values,
            batch,
        )

    @property
    def outer(self) -> tuple[int, ...]:
        """The batch axes with key heads of their own."""
        return tuple(self.k.shape[:-2])

    def stacked(self, xp: Any, x: Array) -> Array:
        """An array of the result's leading axes (*batch, ...) as (*outer, r, ...): a view."""
        return x.reshape(*self.outer, self.q.shape[-3], *x.shape[len(self.batch) :])
