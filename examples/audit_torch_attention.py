"""PyTorch's attention under the laws of minilong. It needs torch (`pip install torch`):

    minilong audit --on examples/audit_torch_attention.py --as attention

The laws call with NumPy arrays; PyTorch refuses them, and then receives float64 tensors of the same numbers.
"""

import torch


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """q (..., t, d), k (..., s, d), v (..., s, e), boolean mask (t, s): True = may attend -> (..., t, e)."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
