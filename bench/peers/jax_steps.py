"""JAX's training step: one compiled function of parameters, moments and tokens, its buffers donated.

Parameters are a flat table by minilong's field paths, with fused projections of queries, keys and values.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..case import Arrays, Settings, Side
from .arrays import BETAS, DECAY, EPS, GATE_STEPS, INPUTS, MAX_NORM, RATE, WEIGHTS, group

Table = dict[str, jax.Array]
FUSED = {"attention": ("query", "key", "value"), "cross": ("key", "value")}


def fuse(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Projections of the same input side by side, under `.fused`."""
    found = {}
    for name, array in weights.items():
        match = re.fullmatch(r"(.*\.(attention|cross))\.(query|key|value)\.(weight|bias)", name)
        if match is None or match[3] not in FUSED[match[2]]:
            found[name] = array
        elif match[3] == FUSED[match[2]][0]:
            parts = [weights[f"{match[1]}.{part}.{match[4]}"] for part in FUSED[match[2]]]
            found[f"{match[1]}.fused.{match[4]}"] = np.concatenate(parts, axis=-1)
    return found


def unfuse(table: Table) -> dict[str, np.ndarray]:
    """The inverse."""
    found = {}
    for name, array in table.items():
        match = re.fullmatch(r"(.*\.(attention|cross))\.fused\.(weight|bias)", name)
        if match is None:
            found[name] = np.array(array)
            continue
        names = FUSED[match[2]]
        for part, piece in zip(names, np.split(np.array(array), len(names), axis=-1), strict=True):
            found[f"{match[1]}.{part}.{match[3]}"] = piece
    return found


def norm(p: Table, at: str, x: jax.Array) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p[f"{at}.gain"] + p[f"{at}.bias"]


def affine(p: Table, at: str, x: jax.Array) -> jax.Array:
    return x @ p[f"{at}.weight"] + p[f"{at}.bias"]


def attention(p: Table, at: str, x: jax.Array, memory: jax.Array | None, h: int, causal: bool) -> jax.Array:
    b, t, d = x.shape
    if memory is None:
        q, k, v = jnp.split(affine(p, f"{at}.fused", x), 3, -1)
    else:
        q, (k, v) = affine(p, f"{at}.query", x), jnp.split(affine(p, f"{at}.fused", memory), 2, -1)
    q, k, v = (z.reshape(b, -1, h, d // h) for z in (q, k, v))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    return affine(p, f"{at}.output", y.reshape(b, t, d))


def stack(p: Table, at: str, m: Settings, x: jax.Array, *, causal: bool, memory: jax.Array | None = None) -> jax.Array:
    for i in range(m["layers"]):
        layer = f"{at}.layers.{i}"
        x = x + attention(p, f"{layer}.attention", norm(p, f"{layer}.attention_norm", x), None, m["heads"], causal)
        if memory is not None:
            y = norm(p, f"{layer}.cross_norm", x)
            x = x + attention(p, f"{layer}.cross", y, memory, m["heads"], False)
        y = affine(p, f"{layer}.feed_forward.up", norm(p, f"{layer}.feed_forward_norm", x))
        y = jax.nn.gelu(y, approximate=m["activation"] == "gelu_tanh")
        x = x + affine(p, f"{layer}.feed_forward.down", y)
    return norm(p, f"{at}.norm", x)


def embed(p: Table, m: Settings, tokens: jax.Array) -> jax.Array:
    t, d = tokens.shape[1], m["width"]
    if m["position"] == "learned":
        table = p["input.positions.table"][:t]
    else:
        angle = np.arange(t)[:, None] / 10000 ** (np.arange(0, d, 2) / d)
        table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(t, d).astype(np.float32)
    return p["input.tokens.table"][tokens] * np.float32(math.sqrt(d)) + table


def loss(p: Table, m: Settings, tokens: Table) -> jax.Array:
    """Mean cross-entropy."""
    x = embed(p, m, tokens["inputs"])
    if m["kind"] == "decoder":
        x = stack(p, "stack", m, x, causal=True)
    else:
        memory = stack(p, "encoder", m, embed(p, m, tokens["source"]), causal=False)
        x = stack(p, "decoder", m, x, causal=True, memory=memory)
    log_p = jax.nn.log_softmax(x @ p["input.tokens.table"].T)
    return -jnp.take_along_axis(log_p, tokens["targets"][..., None], -1).mean()


def step(
    m: Settings, p: Table, first: Table, second: Table, count: jax.Array, tokens: Table
) -> tuple[Table, Table, Table, jax.Array]:
    """Forward, backward, clipping, AdamW with decay on matrices."""
    value, g = jax.value_and_grad(loss)(p, m, tokens)
    size = jnp.sqrt(sum(jnp.vdot(a, a) for a in g.values()))
    shrink = jnp.minimum(1.0, MAX_NORM / size)
    map_ = jax.tree.map
    g = map_(lambda a: a * shrink, g)
    b1, b2 = BETAS
    first = map_(lambda a, b: b1 * a + (1 - b1) * b, first, g)
    second = map_(lambda a, b: b2 * a + (1 - b2) * b * b, second, g)

    def update(x: Any, a: Any, b: Any) -> Any:
        x = x * (1 - RATE * DECAY) if x.ndim >= 2 else x
        return x - RATE * (a / (1 - b1**count)) / (jnp.sqrt(b / (1 - b2**count)) + EPS)

    return map_(update, p, first, second), first, second, value


class Step(Side):
    """The step as one compiled function."""

    def __init__(self, settings: Settings, threads: int, shared: Arrays) -> None:
        super().__init__(settings, threads, shared)
        self.parameters = {name: jnp.asarray(a) for name, a in fuse(group(shared, WEIGHTS)).items()}
        self.tokens = {name: jnp.asarray(a) for name, a in group(shared, INPUTS).items()}
        self.shared = {}
        self.first = jax.tree.map(jnp.zeros_like, self.parameters)
        self.second = jax.tree.map(jnp.zeros_like, self.parameters)
        self.count = 0
        self.compiled = jax.jit(partial(step, dict(settings["model"])), donate_argnums=(0, 1, 2))

    def step(self) -> float:
        """One step, waited for; its loss."""
        self.count += 1
        self.parameters, self.first, self.second, value = self.compiled(
            self.parameters, self.first, self.second, jnp.float32(self.count), self.tokens
        )
        return float(value.block_until_ready())

    def gate(self) -> dict[str, np.ndarray]:
        losses = [self.step() for _ in range(GATE_STEPS)]
        after = unfuse(self.parameters)
        return {"loss": np.array(losses), **{f"parameters.{name}": a for name, a in after.items()}}

    def run(self) -> None:
        self.step()
