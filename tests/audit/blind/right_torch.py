"""Right implementations in PyTorch, which all laws must let pass."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Queries that see nothing are zeroed whatever the kernel makes of them."""
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return torch.where(mask.any(-1)[:, None], out, torch.zeros_like(out))


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.matmul(q, k.transpose(-2, -1)) * q.size(-1) ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return torch.nan_to_num(weights) @ v


def softmax_of_logs(x: Tensor) -> Tensor:
    return F.log_softmax(x, dim=-1).exp()


def layer_norm_functional(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, (x.size(-1),), gain, bias, eps)


class RMSNorm(torch.nn.Module):
    """A module without parameters of its own."""

    def forward(self, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        return gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


rms_norm_module = RMSNorm()


def cross_entropy_sum(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    total = F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="sum")
    return total / (targets != ignore_index).sum().clamp(min=1)


def adam_of_torch(
    param: Tensor, grad: Tensor, m: Tensor, v: Tensor, step: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The optimiser writes into what it holds, so it holds copies."""
    p, m, v = torch.nn.Parameter(param.clone()), m.clone(), v.clone()
    optimizer = torch.optim.Adam([p], lr=lr, betas=(beta1, beta2), eps=eps)
    optimizer.state[p] = {"step": torch.tensor(float(step - 1)), "exp_avg": m, "exp_avg_sq": v}
    p.grad = grad
    optimizer.step()
    return p.detach(), m, v


def clip_of_torch(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    """The clamped factor without PyTorch's 1e-6 in the denominator."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
    return [g * torch.clamp(max_norm / norm, max=1.0) for g in grads]


def sinusoidal_torch(length: int, width: int) -> Tensor:
    position = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    angles = position / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)


def rotary_torch(x: Tensor, positions: Tensor, base: float) -> Tensor:
    inv_freq = 1.0 / base ** (torch.arange(0, x.size(-1), 2, dtype=torch.float64) / x.size(-1))
    turns = torch.polar(torch.ones(()).double(), torch.outer(positions.double(), inv_freq))
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def alibi_torch(heads: int, t: int, s: int) -> Tensor:
    """As in BLOOM: slopes times the key's position."""
    closest = 2 ** ((heads).bit_length() - 1)
    base = torch.tensor(2.0 ** (-8.0 / closest), dtype=torch.float64)
    slopes = base ** torch.arange(1, 1 + closest)
    if closest != heads:
        extra = torch.tensor(2.0 ** (-4.0 / closest), dtype=torch.float64)
        slopes = torch.cat([slopes, extra ** torch.arange(1, 1 + 2 * min(closest, heads - closest), 2)])
    return slopes[:, None, None] * torch.arange(s)[None, None, :].expand(heads, t, s)
