"""Laws of a training step: accumulation and replicas, types, recomputed passes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any

import numpy as np

from minilong.attention import Mask
from minilong.audit.device import mapped
from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.audit.laws.models import VOCABULARY, weights
from minilong.audit.laws.updates import clipped, updated
from minilong.autodiff import checkpoint, ops, value_and_grad, vjp
from minilong.autodiff.tree import leaves, named
from minilong.backend import array_module, to_host
from minilong.data.batches import IGNORE, LanguageBatch
from minilong.keys import Key
from minilong.nn import Dropout, LanguageModel, Layout, flatten
from minilong.nn.flat import view
from minilong.nn.models import plain_view
from minilong.objectives import causal_loss
from minilong.optim import Adam
from minilong.train.replicas import Replicas
from minilong.train.worker import DeviceWorker, device_of

kind("accumulation", "accumulate(model, batches, threads)", "Mean loss over all tokens, and its flat gradient.")
kind(
    "training-step", "training_step(model, batch)", "Every array of one step in float32, by name, new weights included."
)
kind(
    "recomputed", "recomputed(block, x, key)", "block(x, key) whose inner arrays are computed again when it is pulled."
)


def our_accumulation(model: Any, batches: Sequence[LanguageBatch], threads: int) -> tuple[float, np.ndarray]:
    """Our replicas."""
    layout, device = Layout.of(model), device_of(model)
    if not device.is_cpu:
        worker = DeviceWorker(device, layout)
        worker.flat = worker.flat.astype(np.float64)
        return worker.gradient(causal_loss, model, mapped(to_host, batches), None)
    with Replicas(threads, layout, np.float64) as replicas:
        value, gradient = replicas.gradient(causal_loss, model, batches, None)
        return value, gradient.copy()


def our_step(model: Any, batch: LanguageBatch) -> dict[str, Any]:
    """Forward, backward, clipping and Adam on our flat vector."""
    layout, xp = Layout.of(model), array_module(*leaves(model))
    vector = layout.gather(model, xp.empty(layout.size, np.float32))
    own = view(model, vector, layout)
    logits = own(batch.inputs, key=Key.of(1))
    loss, gradient = value_and_grad(lambda m: causal_loss(m, batch, key=Key.of(1)))(own)
    flat = clipped(layout.gather(gradient, xp.empty_like(vector)), 0.5)
    optimizer = Adam(weight_decay=0.1, decoupled=True)
    state = optimizer.init(vector)
    updated(optimizer, state, vector, flat, 1e-3, layout.decayed)
    arrays = {"logits": logits, "loss": xp.asarray(loss), "clipped": flat, "first": state.first, "second": state.second}
    return arrays | named(gradient) | {f"new {name}": a for name, a in layout.slices(vector).items()}


def our_recomputation(block: Any, x: Any, key: Key) -> Any:
    """Our checkpoint; the key is a constant of the function."""
    return checkpoint(lambda h: block(h, key))(x)


subject("accumulation", "Replicas", code=Replicas.gradient, equation="eq:causal-loss")(our_accumulation)
subject("training-step", "a step in float32", code=value_and_grad, equation="eq:causal-loss")(our_step)
subject("recomputed", "checkpoint", code=checkpoint, equation="eq:dropout")(our_recomputation)


# Accumulation and replicas


def ragged(n: Numbers, *, rows: int, t: int, threads: int, norm: str) -> dict[str, Any]:
    """A batch with very different numbers of targets in its rows, and the rows at which it is cut."""
    kept = np.arange(t) < n.integers(0, t + 1, rows)[:, None]
    cuts = np.flatnonzero(n.chance(0.5, rows - 1)) + 1
    return {
        "inputs": n.integers(0, VOCABULARY, rows, t),
        "targets": np.where(kept, n.integers(0, VOCABULARY, rows, t), IGNORE),
        "cuts": [int(i) for i in cuts],
        "threads": threads,
        "norm": norm,
    }


RAGGED = cases(ragged, rows=(2, 1, 3, 5), t=(2, 1, 3, 5), threads=(1, 2, 3), norm=("pre", "post"))


def cut(c: Case) -> list[LanguageBatch]:
    """The batch in parts."""
    bounds = [0, *c["cuts"], len(c["inputs"])]
    return [LanguageBatch(c["inputs"][a:b], c["targets"][a:b]) for a, b in pairwise(bounds)]


@law("accumulation", "is-the-full-batch", serves=("eq:causal-loss", "claim:code-accumulation"), cases=RAGGED, share=0.3)
def is_the_full_batch(f: F, c: Case, measure: Measure) -> None:
    """Parts of a batch, however cut and however many targets each has, give the loss and gradient of the whole."""
    model = weights("decoder", c["norm"], "rotary")
    layout = Layout.of(model)
    batch = LanguageBatch(c["inputs"], c["targets"])
    value, gradient = value_and_grad(lambda m: causal_loss(m, batch))(model)
    whole = layout.gather(gradient, np.empty(layout.size))
    found, flat = f(model, cut(c), c["threads"])
    measure.close(found, value, bound(1 + abs(value), 100), "the loss")
    measure.close(flat, whole, bound(1 + largest(whole), 1000), "the gradient")


@law("accumulation", "replicas-do-not-matter", serves="claim:code-accumulation", cases=RAGGED, share=0.2)
def replicas_do_not_matter(f: F, c: Case, measure: Measure) -> None:
    """One thread or several, more than there are rows too, give the same loss and gradient to rounding."""
    model = weights("decoder", c["norm"], "rotary")
    one, many = f(model, cut(c), 1), f(model, cut(c), c["threads"] + 1)
    measure.close(many[0], one[0], bound(1 + abs(one[0]), 100), "the loss")
    measure.close(many[1], one[1], bound(1 + largest(one[1]), 1000), "the gradient")


@mutant(
    "accumulation",
    "mean of means",
    kills="is-the-full-batch",
    met="transformers 34191 and 35203, torchtune 1875, axolotl 1100, trl 2175, nanoGPT 168 and 206",
)
def mean_of_means(model: Any, batches: Sequence[LanguageBatch], threads: int) -> tuple[float, np.ndarray]:
    """Each part's own mean, averaged."""
    found = [our_accumulation(model, [batch], threads) for batch in batches]
    return float(np.mean([v for v, _ in found])), np.asarray(np.mean([g for _, g in found], axis=0))


@mutant(
    "accumulation",
    "rows that do not divide are dropped",
    kills="replicas-do-not-matter",
    met="plausible: rows // threads for each replica; PyTorch's samplers drop or repeat rows in the same place",
)
def dropped_rows(model: Any, batches: Sequence[LanguageBatch], threads: int) -> tuple[float, np.ndarray]:
    """Each replica takes rows // threads rows."""
    kept = [len(b.inputs) // threads * threads for b in batches]
    cut_short = [LanguageBatch(b.inputs[:n], b.targets[:n]) for b, n in zip(batches, kept, strict=True) if n]
    return our_accumulation(model, cut_short, 1) if cut_short else (0.0, np.zeros(Layout.of(model).size))


# Types


def batch(n: Numbers, *, t: int, position: str, norm: str) -> dict[str, Any]:
    """One row."""
    return {"tokens": n.integers(0, VOCABULARY, 1, t + 1), "position": position, "norm": norm}


STEPS = cases(batch, t=(1, 2, 5), position=("none", "sinusoidal", "learned", "cas", "rotary"), norm=("pre", "post"))


@law("training-step", "single-precision", serves=("claim:dtypes", "eq:causal-loss", "eq:input"), cases=STEPS, share=0.3)
def single_precision(f: F, c: Case, measure: Measure) -> None:
    """A step of a float32 model has no array of another type: logits, loss, gradients, moments, new weights."""
    model = weights("decoder", c["norm"], c["position"])
    vector, model, _ = flatten(model, np.float32)
    found = f(model, LanguageBatch(c["tokens"][:, :-1], c["tokens"][:, 1:]))
    wrong = {name: str(a.dtype) for name, a in found.items() if a.dtype != np.float32}
    measure.holds(not wrong, f"in float32 there are {wrong}")
    moved = np.concatenate([a.ravel() for name, a in found.items() if name.startswith("new ")])
    measure.holds(moved.size == vector.size and np.all(np.isfinite(moved)), "new weights are missing, or not finite")


@mutant(
    "training-step",
    "np.sqrt of the width",
    kills="single-precision",
    met="netket PR 1218; picoGPT: NumPy 2 keeps the scalar's float64, and the whole model follows it",
)
def promoted(model: LanguageModel, batch: LanguageBatch) -> dict[str, Any]:
    """The embedding times `np.sqrt`, not `math.sqrt`, of the width. (Rotary turns refuse what follows.)"""
    if model.input.position == "rotary":
        return our_step(model, batch)
    x = model.input.tokens(batch.inputs) * np.sqrt(model.input.tokens.table.shape[1])
    logits = model.input.tokens.logits(model.stack(x, view=plain_view(model.scheme, Mask(causal=True), x)))
    return our_step(model, batch) | {"logits": logits}


# Recomputation


def block_case(n: Numbers, *, t: int, width: int, rate: float) -> dict[str, Any]:
    """An input, weights, and a seed of the dropout."""
    return {
        "x": n.normal(t, width),
        "weight": n.normal(width, width),
        "g": n.nonzero(t, width),
        "rate": rate,
        "seed": int(n.integers(0, 2**31)),
    }


BLOCKS = cases(block_case, t=(1, 2, 5), width=(2, 3, 8), rate=(0.5, 0.1, 0.0))


@law("recomputed", "bit-identical", serves="eq:dropout", cases=BLOCKS)
def bit_identical(f: F, c: Case, measure: Measure) -> None:
    """Computing a block with dropout a second time for the backward pass changes no bit of value or cotangent."""
    drop, weight = Dropout(c["rate"]), c["weight"]

    def block(x: Any, key: Key) -> Any:
        return drop(ops.tanh(drop(ops.matmul(x, weight), key.fold("inner"))), key.fold("outer"))

    key = Key.of(c["seed"])
    value, pull = vjp(lambda x: block(x, key), c["x"])
    found, pull_again = vjp(lambda x: f(block, x, key), c["x"])
    measure.close(found, value, 0.0, "the value")
    measure.close(pull_again(c["g"])[0], pull(c["g"])[0], 0.0, "the cotangent")


@mutant(
    "recomputed",
    "a new dropout mask",
    kills="bit-identical",
    met="OLMo-core PR 828 (loss 2.495 for 2.195 on a real run), guided-diffusion 167, pytorch 190717",
)
def new_mask(block: Any, x: Any, key: Key) -> Any:
    """A generator that has moved on when the block is computed again."""
    times = count()
    return checkpoint(lambda h: block(h, key if not (n := next(times)) else key.fold(n)))(x)
