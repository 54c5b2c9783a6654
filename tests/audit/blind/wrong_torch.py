"""The same sort of faults in PyTorch. `test_blind.py` says which law finds each."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_of_dimension_one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """`dim=1` is the keys' dimension as long as there is no batch."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=1) * mask.any(-1, keepdim=True)
    return weights @ v


def queries_scaled_in_place(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """`mul_` changes the caller's queries."""
    scores = q.mul_(q.size(-1) ** -0.5) @ k.transpose(-2, -1)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return torch.nan_to_num(weights) @ v


def rms_by_normalize(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """`F.normalize` takes the larger of norm and eps: eps is no term of the mean square."""
    return F.normalize(x, dim=-1, eps=eps) * x.shape[-1] ** 0.5 * gain


def nan_without_tokens(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """PyTorch's own mean is 0 / 0 where every token is ignored."""
    return F.cross_entropy(logits, targets, ignore_index=ignore_index)


def adamw_with_its_default(
    param: Tensor, grad: Tensor, m: Tensor, v: Tensor, step: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """AdamW decays by 0.01 unless told otherwise."""
    p = torch.nn.Parameter(param)
    optimizer = torch.optim.AdamW([p], lr=lr, betas=(beta1, beta2), eps=eps)
    optimizer.state[p] = {"step": torch.tensor(float(step - 1)), "exp_avg": m, "exp_avg_sq": v}
    p.grad = grad
    optimizer.step()
    return p.detach(), m, v


def layer_norm_of_the_whole(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalises over the last two dimensions of a batch of sequences."""
    normed = F.layer_norm(x, x.shape[-2:] if x.dim() > 2 else x.shape[-1:], eps=eps)
    return normed * gain + bias


def rotated_half_interleaved(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Angles laid out for neighbours, components for halves."""
    d = x.size(-1)
    inv_freq = 1.0 / base ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = torch.outer(positions.double(), inv_freq).repeat_interleave(2, dim=-1)
    x1, x2 = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-x2, x1], dim=-1) * angles.sin()


def half_precision_positions(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Angles in half precision: positions above 2048 fall together."""
    d = x.size(-1)
    inv_freq = 1.0 / base ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = (positions.half().double()[:, None] * inv_freq).repeat(1, 2)
    x1, x2 = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-x2, x1], dim=-1) * angles.sin()


def clipped_by_torch(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """PyTorch adds 1e-6 to the norm: what is clipped ends below the limit, and what is just within it shrinks too."""
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(parameters, grads, strict=True):
        p.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return [p.grad for p in parameters if p.grad is not None]
