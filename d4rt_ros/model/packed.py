"""Products with weights in oneDNN's blocked layout: what inference in bfloat16 on a CPU runs on.

A plain product lays its weights out anew in every call, which for a few rows costs as much as the product
itself, and adds the bias and applies GELU in passes of their own. Here the layout is made once, and bias and
GELU are part of the product. Elsewhere (training, GPU, float32, a torch without these operators) it is the
plain product. The price is a second copy of the weights of the encoder's and decoder's products.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Packed:
    """A blocked copy of some rows of one weight, made when first needed and again when the weight changes."""

    def __init__(self, first: int | None = None, last: int | None = None) -> None:
        """Rows `first` up to `last` of the weight and bias that come with the calls; all by default."""
        self._rows = slice(first, last)
        self._made: tuple[tuple[int, ...], Tensor, Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
        """Multiply x [..., in] by weight [out, in], add bias [out], maybe GELU; in the weight's precision."""
        x = x.to(weight.dtype)
        if not _fits(x):
            y = F.linear(x, weight[self._rows], bias[self._rows])
            return F.gelu(y) if gelu else y
        state = (weight.data_ptr(), bias.data_ptr(), 0 if weight.is_inference() else weight._version)
        made = self._made
        if made is None or made[0] != state:
            blocked = _block(weight[self._rows].detach().contiguous())
            # Holding on to the source keeps its address from being used again.
            self._made = made = (state, weight.detach(), blocked, bias[self._rows].detach())
        return _product(x, made[2], made[3], gelu)

    def __reduce__(self) -> tuple[type[Packed], tuple[int | None, int | None]]:
        """A copied or pickled network makes its own."""
        return Packed, (self._rows.start, self._rows.stop)


class Linear(nn.Linear):
    """nn.Linear by way of `Packed`; `gelu` applies the activation too."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """With bias."""
        super().__init__(inputs, outputs)
        self.packed = Packed()

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """[..., inputs] in any precision to [..., outputs] in the weight's."""
        return self.packed(x, self.weight, self.bias, gelu)


def _fits(x: Tensor) -> bool:
    """Whether the blocked product is there for x, and no gradient is asked for."""
    return (
        x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.numel() > 0
        and _available()
    )


@lru_cache(maxsize=1)
def _available() -> bool:
    """Whether this torch on this processor has the operators; tried once."""
    x, weight = torch.ones(2, 32, dtype=torch.bfloat16), torch.ones(32, 32, dtype=torch.bfloat16)
    try:
        blocked = _product(x, _block(weight), weight[0], True)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(blocked, F.gelu(F.linear(x, weight, weight[0])))


def _block(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight.default(weight, None)


def _product(x: Tensor, blocked: Tensor, bias: Tensor, gelu: bool) -> Tensor:
    activation = "gelu" if gelu else "none"
    return torch.ops.mkldnn._linear_pointwise.default(x, blocked, bias, activation, [], "none")
