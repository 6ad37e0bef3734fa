"""Muon for processors that only emulate bfloat16: torch's own, in bfloat16, is six times as slow there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Muon32(torch.optim.Muon):
    """`torch.optim.Muon` with its defaults, the same steps taken in the parameters' own precision."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
            self._init_group(group, *found)
            for parameter, gradient, mean in zip(*found):
                mean.lerp_(gradient, 1 - group["momentum"])
                towards = _orthogonal(gradient.lerp(mean, group["momentum"]), group)
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(towards, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))


def _orthogonal(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """About the nearest matrix whose singular values are 1, by Newton and Schulz's iteration."""
    a, b, c = group["ns_coefficients"]
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
