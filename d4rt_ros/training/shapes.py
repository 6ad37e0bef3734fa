"""Canonical solids: where a ray meets them, and their normals, in the solid's own coordinates.

Every solid is given in unit coordinates and placed by an affine transform; a box is [-1, 1]^3, an ellipsoid the unit
ball, a cylinder has radius 1 and |z| <= 1, a capsule has radius 1 round the segment |z| <= half_length, a shell is a
box seen from inside. A ray is origin + s * direction; s is the same number in every frame because the transforms are
affine, so with camera directions (x, y, 1) it is the depth along the optical axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY, BOX, ELLIPSOID, CYLINDER, CAPSULE, SHELL = range(6)
KINDS = (BOX, ELLIPSOID, CYLINDER, CAPSULE, SHELL)

NEAR = 0.02  # metres along the optical axis; nothing nearer is seen
_TINY = 1e-20  # keeps 1 / d finite without moving any other direction

Vec = tuple[Tensor, Tensor, Tensor]


def _slab(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of s inside |x| <= 1."""
    inverse = (direction + _TINY).reciprocal()
    middle = -origin * inverse
    half = inverse.abs()
    return middle - half, middle + half


def _disc(o: tuple[Tensor, ...], d: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Middle and half width of the interval of s inside the unit disc or ball, and whether it is met at all.

    The distance of the line from the centre is computed directly; b^2 - ac would lose half of the digits far away.
    """
    dd = sum(x * x for x in d) + _TINY
    middle = -sum(x * y for x, y in zip(o, d, strict=True)) / dd
    inside = 1 - sum((x + middle * y) ** 2 for x, y in zip(o, d, strict=True))
    return middle, (inside.clamp_min(0) / dd).sqrt(), inside > 0


def intersect(kind: int, o: Vec, d: Vec, half_length: Tensor) -> Tensor:
    """First s > NEAR at which rays enter a solid (leave it, for a shell); inf where they do not.

    Args:
        kind: BOX, ELLIPSOID, CYLINDER, CAPSULE or SHELL.
        o: origins, three tensors [N] in the solid's coordinates.
        d: directions, likewise; any length.
        half_length: [N], used by capsules only.

    Returns:
        [N], in units of the directions' length.
    """
    if kind in (BOX, SHELL):
        x0, x1 = _slab(o[0], d[0])
        y0, y1 = _slab(o[1], d[1])
        z0, z1 = _slab(o[2], d[2])
        enter = torch.maximum(torch.maximum(x0, y0), z0)
        leave = torch.minimum(torch.minimum(x1, y1), z1)
        s, hit = (enter if kind == BOX else leave), enter <= leave
    elif kind == ELLIPSOID:
        middle, half, hit = _disc(o, d)
        s = middle - half
    elif kind == CYLINDER:
        middle, half, hit = _disc(o[:2], d[:2])
        z0, z1 = _slab(o[2], d[2])
        s = torch.maximum(middle - half, z0)
        hit = hit & (s <= torch.minimum(middle + half, z1))
    elif kind == CAPSULE:
        middle, half, hit = _disc(o[:2], d[:2])
        s = middle - half
        z = o[2] + s * d[2]
        cap = z.clamp(-half_length, half_length)
        end_middle, end_half, end_hit = _disc((o[0], o[1], o[2] - cap), d)
        beyond = z != cap
        s = torch.where(beyond, end_middle - end_half, s)
        hit = hit & (end_hit | ~beyond)
    else:
        raise ValueError(f"kind {kind} is none of {KINDS}")
    return torch.where(hit & (s > NEAR), s, torch.inf)


def local_normal(kind: Tensor, x: Tensor, half_length: Tensor) -> Tensor:
    """Outward gradient (not unit) at surface points x [N, 3] of solids of several kinds [N]; [N, 3]."""
    normal = x.clone()
    size = x.abs()
    flat = (kind == BOX) | (kind == SHELL)
    largest = size == size.amax(-1, keepdim=True)
    radius2 = x[:, 0] ** 2 + x[:, 1] ** 2
    cap = x[:, 2] ** 2 > radius2
    zero = torch.zeros_like(radius2)
    normal = torch.where(flat[:, None], torch.where(largest, x, 0), normal)
    cylinder = kind == CYLINDER
    normal[:, 0] = torch.where(cylinder & cap, zero, normal[:, 0])
    normal[:, 1] = torch.where(cylinder & cap, zero, normal[:, 1])
    normal[:, 2] = torch.where(cylinder & ~cap, zero, normal[:, 2])
    core = torch.minimum(torch.maximum(x[:, 2], -half_length), half_length)
    normal[:, 2] = torch.where(kind == CAPSULE, x[:, 2] - core, normal[:, 2])
    return normal
