"""Training beside a PyTorch twin from the same weights on the same batches: `python -m bench.twin` prints the table.

Both sides take each step on their own: gradient, clipping, AdamW (decay on matrices only), schedule. Compared are the
loss and every parameter's gradient at every step, and the parameters at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from minilong.autodiff import IGNORE
from minilong.data.batches import LanguageBatch, PairBatch, pair_batch
from minilong.keys import Key
from minilong.models.build import build
from minilong.models.config import ModelConfig
from minilong.nn import flatten
from minilong.objectives import causal_loss, sequence_loss
from minilong.optim import Adam, Schedule, clip
from minilong.train.replicas import Replicas

from .torch_peer import Model, by_field_path, gradients, load

VOCABULARY = 19
PAD, BOS, EOS = 0, 1, 2
MAX_NORM = 0.7


@dataclass(frozen=True)
class Case:
    """A model and how it is trained. rows and length: of a batch; accumulate: batches of a step."""

    name: str
    model: ModelConfig
    threads: int = 1
    accumulate: int = 1
    rows: int = 5
    length: int = 11
    segments: bool = False
    schedule: str = "cosine"


@dataclass
class Differences:
    """The worst differences of a run: absolute for losses, relative norms for gradients and final parameters.

    zero: the largest norm, relative to the whole gradient, of a gradient that is zero by symmetry (see `vanishes`).
    """

    case: Case
    losses: list[tuple[float, float]] = field(default_factory=list)
    gradient: float = 0.0
    gradient_name: str = ""
    zero: float = 0.0
    parameters: float = 0.0
    clipped: int = 0

    @property
    def loss(self) -> float:
        """The worst difference of two losses of one step."""
        return max(abs(a - b) for a, b in self.losses)


def lockstep(case: Case, *, dtype: Any, steps: int, lr: float, peer_model: ModelConfig | None = None) -> Differences:
    """Train both sides for `steps` and measure how far they part. peer_model: a wrong twin, to see it found out."""
    config = case.model
    vector, model, layout = flatten(build(config, VOCABULARY, Key.of(7)), dtype)
    # Zero biases and gains of one would hide mistakes.
    vector += (0.05 * np.random.default_rng(3).standard_normal(vector.size)).astype(dtype)
    peer = Model(peer_model or config, VOCABULARY).to(torch.float64 if dtype == np.float64 else torch.float32)
    load(peer, layout.slices(vector))

    loss = sequence_loss if config.kind == "encoder-decoder" else causal_loss
    schedule = Schedule(lr, steps, warmup=max(2, steps // 10), kind=case.schedule, final=0.1)
    adam = Adam(beta2=0.99, weight_decay=0.1, decoupled=True)
    state = adam.init(vector)
    peer_adam = torch.optim.AdamW(groups(peer), lr=lr, betas=(0.9, 0.99), eps=1e-8)
    peer_schedule = torch.optim.lr_scheduler.LambdaLR(peer_adam, lambda step: factor(step, steps, case.schedule))

    found = Differences(case)
    with one_torch_thread(), Replicas(case.threads, layout, dtype) as replicas:
        for step in range(steps):
            batches = [batch(case, step, i) for i in range(case.accumulate)]
            ours, gradient = replicas.gradient(loss, model, batches, None)

            peer_adam.zero_grad()
            tokens = sum(int((b.targets != IGNORE).sum()) for b in batches)
            theirs = 0.0
            for b in batches:
                part = peer_loss(peer, b) / tokens
                part.backward()
                theirs += float(part.detach())

            found.losses.append((ours, theirs))
            compare(found, config, layout.slices(gradient), gradients(peer))
            found.clipped += clip(gradient, MAX_NORM) > MAX_NORM
            adam.step(state, vector, gradient, schedule(step), decayed=layout.decayed)
            peer_clip(peer)
            peer_adam.step()
            peer_schedule.step()
    final = {n: (p.detach().T if t else p.detach()).numpy() for n, (p, t) in by_field_path(peer).items()}
    own = layout.slices(vector)
    found.parameters = max(relative(own[name], final[name]) for name in final)
    return found


def compare(
    found: Differences, config: ModelConfig, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> None:
    """Record the worst relative difference of the parameters' gradients."""
    whole = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in theirs.values()))
    for name, g in theirs.items():
        if vanishes(name, config):
            size = max(float(np.linalg.norm(g)), float(np.linalg.norm(ours[name])))
            found.zero = max(found.zero, size / whole)
        elif (difference := relative(ours[name], g)) > found.gradient:
            found.gradient, found.gradient_name = difference, name


def vanishes(name: str, config: ModelConfig) -> bool:
    """Whether a gradient is zero by symmetry, and so is rounding alone on both sides.

    A key bias adds one number to all scores of a query, which the softmax ignores; but not where positions turn the
    keys, each by another angle.
    """
    return name.endswith(".key.bias") and not (config.position == "rotary" and name.endswith(".attention.key.bias"))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """|a - b| / |b|; 0 where both are zero, infinite where only b is."""
    difference, size = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return difference / size if size else (math.inf if difference else 0.0)


def peer_loss(peer: Model, b: LanguageBatch | PairBatch) -> torch.Tensor:
    """Sum of negative log-likelihoods in PyTorch."""
    if isinstance(b, PairBatch):
        logits = peer.translate(ids(b.source), ids(b.source_lengths), ids(b.inputs))
    else:
        logits = peer.language(ids(b.inputs), None if b.segments is None else ids(b.segments))
    return F.cross_entropy(logits.flatten(0, 1), ids(b.targets).flatten(), ignore_index=IGNORE, reduction="sum")


def peer_clip(peer: Model) -> None:
    """Pascanu et al. 2013. (`torch.nn.utils.clip_grad_norm_` divides by the norm + 1e-6, which would show here.)"""
    found = [p.grad for p in peer.parameters() if p.grad is not None]
    size = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in found]))
    if size > MAX_NORM:
        for g in found:
            g.mul_(MAX_NORM / size)


def groups(peer: Model) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices decay, vectors do not."""
    parameters = list(peer.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def factor(step: int, steps: int, kind: str) -> float:
    """Learning rate over its maximum: linear warm-up over a tenth of the steps, then `kind` to a tenth."""
    warmup = max(2, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup) / (steps - 1 - warmup))
    return {
        "cosine": 0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2,
        "linear": 1 - 0.9 * share,
        "constant": 1.0,
    }[kind]


def batch(case: Case, step: int, part: int) -> LanguageBatch | PairBatch:
    """Rows that a model can learn in part; ragged, with targets that do not count."""
    rng = np.random.default_rng([step, part, case.rows, case.length])
    if case.model.kind == "encoder-decoder":
        lengths = rng.integers(1, case.length + 1, case.rows)
        pairs = []
        for n in lengths:
            source = rng.integers(3, VOCABULARY, n).astype(np.int32)
            pairs.append((source, source[::-1][: rng.integers(0, n + 1)]))
        return pair_batch(pairs, pad=PAD, bos=BOS, eos=EOS)
    rows = rng.integers(0, VOCABULARY, (case.rows, case.length + 1)).astype(np.int32)
    for t in range(1, case.length + 1):  # mostly a function of the token before
        rows[:, t] = np.where(rng.random(case.rows) < 0.85, (5 * rows[:, t - 1] + 3) % VOCABULARY, rows[:, t])
    targets = rows[:, 1:].copy()
    targets[rng.random(targets.shape) < 0.1] = IGNORE
    for row, n in enumerate(rng.integers(0, case.length + 1, case.rows)):
        targets[row, n:] = IGNORE if row % 2 else targets[row, n:]
    segments = np.cumsum(rng.random((case.rows, case.length)) < 0.2, axis=1).astype(np.int32)
    return LanguageBatch(rows[:, :-1].copy(), targets, segments if case.segments else None)


def ids(x: np.ndarray) -> torch.Tensor:
    """Integers as PyTorch's indices."""
    return torch.from_numpy(x.astype(np.int64))


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """PyTorch on one thread meanwhile: the other threads are minilong's replicas."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tiny(kind: str, norm: str, **settings: Any) -> ModelConfig:
    """A model for float64: two layers, odd sizes where they are allowed."""
    sizes: dict[str, Any] = {"layers": 2, "width": 24, "heads": 4, "feed_forward": 37, "context": 16}
    return ModelConfig(kind=kind, norm=norm, **(sizes | settings))


def exact_cases() -> list[Case]:
    """Every choice of the configuration with both stacks and both norms somewhere, for float64."""
    cases = []
    for kind in ("decoder", "encoder-decoder"):
        for norm in ("pre", "post"):
            name = f"{kind} {norm}"
            cases += [
                Case(f"{name}, rotary, GELU tanh, tied", tiny(kind, norm)),
                Case(
                    f"{name}, sinusoidal, ReLU, untied, 2 threads",
                    tiny(kind, norm, position="sinusoidal", activation="relu", tied=False),
                    threads=2,
                    schedule="linear",
                ),
                Case(
                    f"{name}, learned, GELU, grouped heads, accumulate 3",
                    tiny(kind, norm, position="learned", activation="gelu", kv_heads=2),
                    accumulate=3,
                    segments=True,
                ),
                Case(
                    f"{name}, rotary, SwiGLU, RMS, multi-query, 2 threads x 2",
                    tiny(kind, norm, activation="swiglu", normalization="rms", kv_heads=1, tied=False, bias=False),
                    threads=2,
                    accumulate=2,
                    segments=True,
                    schedule="constant",
                ),
            ]
    odd = tiny("encoder", "pre", position="cas", activation="silu", normalization="rms")
    cases.append(Case("encoder pre, cas, SiLU, RMS", odd))
    cases.append(Case("encoder post, no positions", tiny("encoder", "post", position="none"), segments=True, threads=3))
    return cases


def single_cases() -> list[Case]:
    """Four models of about 0.8M parameters for float32."""
    return [
        Case(
            f"{kind} {norm}, {parameters}",
            ModelConfig(kind=kind, norm=norm, layers=4 if kind == "decoder" else 2, width=128, heads=4, context=32),
            threads=2,
            rows=4,
            length=16,
        )
        for kind, parameters in (("decoder", "0.8M"), ("encoder-decoder", "0.9M"))
        for norm in ("pre", "post")
    ]


def exact(case: Case, peer_model: ModelConfig | None = None) -> Differences:
    """Float64, 20 steps: what is left is rounding."""
    return lockstep(case, dtype=np.float64, steps=20, lr=3e-3, peer_model=peer_model)


def single(case: Case) -> Differences:
    """Float32, 200 steps. At twice this rate roundings are amplified from step to step (6e-4 in the final loss)."""
    return lockstep(case, dtype=np.float32, steps=200, lr=5e-4)


def exact_line(d: Differences) -> str:
    """A row of the first table."""
    ends = f"{d.losses[0][0]:.3f} -> {d.losses[-1][0]:.3f}"
    return f"{d.case.name:76} {d.loss:8.1e} {d.gradient:10.1e} {d.zero:10.1e} {d.parameters:12.1e}   {ends}"


def single_line(d: Differences) -> str:
    """A row of the second table."""
    ours, theirs = d.losses[-1]
    return f"{d.case.name:76} {abs(ours - theirs):8.1e} {d.loss:10.1e}   {ours:.5f} {theirs:.5f}"


EXACT_HEAD = f"{'float64, 20 steps: worst differences':76}     loss   gradient  zero ones   parameters   loss"
SINGLE_HEAD = f"{'float32, 200 steps':76}    final    largest   minilong PyTorch"


def table() -> None:
    """Print the worst differences of all cases."""
    print(EXACT_HEAD)
    for case in exact_cases():
        print(exact_line(exact(case)), flush=True)
    print(f"\n{SINGLE_HEAD}")
    for case in single_cases():
        print(single_line(single(case)), flush=True)


if __name__ == "__main__":
    table()
