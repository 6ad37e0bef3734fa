"""The two blocks that the network is made of: self-attention (encoder) and cross-attention (decoder).

Parameter names follow OpenD4RT's checkpoints, which follow torch.nn.MultiheadAttention. The residual stream
and the norms stay in float32; matrix products run in the precision of their weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeysValues = list[tuple[Tensor, Tensor]]  # a memory's, [B, heads, tokens, d] each, for every decoder block


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over split heads [B, heads, N, d] by the fastest way for where the tensors lie."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        # The fused kernel runs bfloat16 at float32 speed on a CPU; two products are 1.6 times as fast.
        split = q.shape
        q, k, v = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
        return torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(dim=-1), v).view(split)
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head attention with one fused projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        """`width` channels in `heads` heads."""
        super().__init__()
        self.width, self.heads = width, heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """[B, N, width] to [B, heads, N, width / heads]."""
        return x.reshape(*x.shape[:2], self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over split heads, then the output projection: [B, N, width]."""
        mixed = attention(q, k, v)  # [B, heads, N, d]
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention over [B, N, width]."""
        q, k, v = self._project(x).chunk(3, dim=-1)
        return self.attend(self.split(q), self.split(k), self.split(v))

    def query(self, x: Tensor) -> Tensor:
        """Project [B, N, width] to split queries."""
        return self.split(self._project(x, last=self.width))

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project a memory [B, M, width] to split keys and values, each [B, heads, M, width / heads]."""
        k, v = self._project(memory, first=self.width).chunk(2, dim=-1)
        # Contiguous: read again by every decode, so the copy is paid once.
        return self.split(k).contiguous(), self.split(v).contiguous()

    def _project(self, x: Tensor, first: int | None = None, last: int | None = None) -> Tensor:
        """Rows `first` up to `last` of the fused projection, of x [..., width] in the weight's precision."""
        rows = slice(first, last)
        return F.linear(x.to(self.in_proj_weight.dtype), self.in_proj_weight[rows], self.in_proj_bias[rows])


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear. The empty places keep the checkpoint's numbering."""

    def __init__(self, width: int, hidden: int) -> None:
        """`width` in and out, `hidden` between."""
        super().__init__(
            nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width), nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return super().forward(x.to(next(self.parameters()).dtype))


class SelfBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        """`width` channels, `heads` heads, MLP of `hidden`."""
        super().__init__()
        self.norm_attn = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm_ff = nn.LayerNorm(width)
        self.ff = FeedForward(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] to [B, N, width]."""
        x = x + self.attn(self.norm_attn(x))
        return x + self.ff(self.norm_ff(x))


class CrossBlock(nn.Module):
    """Pre-norm cross-attention to the memory and MLP; queries never see one another (paper section 2)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        """`width` channels, `heads` heads, MLP of `hidden`."""
        super().__init__()
        self.norm_q = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        self.cross_attn = Attention(width, heads)
        self.norm_ff = nn.LayerNorm(width)
        self.ff = FeedForward(width, hidden)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What this block needs of the memory; computed once a scene."""
        return self.cross_attn.keys_values(self.norm_kv(memory))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries [B, N, width] against the memory's keys and values."""
        x = x + self.cross_attn.attend(self.cross_attn.query(self.norm_q(x)), keys, values)
        return x + self.ff(self.norm_ff(x))
