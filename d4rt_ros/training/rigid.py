"""Small batched helpers for random numbers, rigid motion and dataclasses of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Random:
    """Random tensors from one generator, on the CPU: a seed gives the same scene on every device."""

    def __init__(self, generator: torch.Generator) -> None:
        """Draw from `generator`, a CPU generator."""
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in low..high."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Log-uniform in low..high, both positive."""
        return low * (high / low) ** torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.generator)

    def integer(self, count: int, *shape: int) -> Tensor:
        """Integers 0..count-1."""
        return torch.randint(0, count, shape, generator=self.generator)

    def chance(self, share: float, *shape: int) -> Tensor:
        """True with probability `share`."""
        return torch.rand(shape, generator=self.generator) < share

    def choice(self, weights: list[float], *shape: int) -> Tensor:
        """Indices into `weights`, drawn in their proportion."""
        edges = torch.tensor(weights).cumsum(0)
        return torch.bucketize(self.uniform(0, float(edges[-1]), *shape), edges[:-1], right=True)


def convert(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """A dataclass of tensors, nested or not, with `function` (a move, a cast) applied to each tensor."""
    changed: Any = value
    if isinstance(value, Tensor):
        changed = function(value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: convert(getattr(value, f.name), function) for f in fields(value)}
        changed = replace(changed, **parts)
    return changed


def double(value: T) -> T:
    """A dataclass of tensors with its floating-point tensors in double precision."""
    return convert(value, lambda x: x.double() if x.is_floating_point() else x)


def turn(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] about unit axes [..., 3] by angles [...] in radians (Rodrigues)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(*x.shape, 3, 3)
    sin, cos = angle.sin()[..., None, None], angle.cos()[..., None, None]
    return torch.eye(3, dtype=axis.dtype, device=axis.device) + sin * cross + (1 - cos) * (cross @ cross)


def turn_z(angle: Tensor) -> Tensor:
    """Rotations [..., 3, 3] about z."""
    axis = torch.zeros(*angle.shape, 3, dtype=angle.dtype, device=angle.device)
    axis[..., 2] = 1
    return turn(axis, angle)


def affine(linear: Tensor, offset: Tensor) -> Tensor:
    """[..., 3, 4] from [..., 3, 3] and [..., 3], broadcast."""
    shape = torch.broadcast_shapes(linear.shape[:-2], offset.shape[:-1])
    return torch.cat((linear.expand(*shape, 3, 3), offset.expand(*shape, 3)[..., None]), -1)


def chain(outer: Tensor, inner: Tensor) -> Tensor:
    """Composition of affine transforms [..., 3, 4]: first `inner`, then `outer`."""
    linear = outer[..., :3] @ inner[..., :3]
    offset = (outer[..., :3] @ inner[..., 3:])[..., 0] + outer[..., 3]
    return torch.cat((linear, offset[..., None]), -1)


def move(transform: Tensor, points: Tensor) -> Tensor:
    """Apply affine transforms [..., 3, 4] to points [..., 3]."""
    return (transform[..., :3] @ points[..., None])[..., 0] + transform[..., 3]


def dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    """Inner product of vectors kept as tuples of [N]."""
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = torch.addcmul(total, x, y)
    return total


def unit3(v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Unit vectors of vectors kept as tuples of [N]."""
    inverse = dot(v, v).clamp_min(1e-24).rsqrt()
    return tuple(c * inverse for c in v)


def unit(vector: Tensor) -> Tensor:
    """Unit vectors along the last axis; zero stays zero."""
    return vector / vector.norm(dim=-1, keepdim=True).clamp_min(1e-12)
