"""Canonical solids: where a ray meets them, and their normals, in the solid's own coordinates.

Every solid is given in unit coordinates and placed by an affine transform: a box is [-1, 1]^3, an ellipsoid
the unit ball, a cylinder has radius 1 and |z| <= 1, a capsule radius 1 round the segment |z| <= half_length;
a shell is a box seen from inside. A sheet is the surface z = sum of a sin(p x + q y + f) over |x|, |y| <= 1,
the sum of |a| at most 1: rough ground, or cloth when the phases f run with time.

A ray is origin + s * direction; s is the same number in every frame because the transforms are affine, so
with camera directions (x, y, 1) it is the depth along the optical axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from d4rt_ros.training.rigid import dot

EMPTY, BOX, ELLIPSOID, CYLINDER, CAPSULE, SHELL, SHEET = range(7)
KINDS = (BOX, ELLIPSOID, CYLINDER, CAPSULE, SHELL, SHEET)
WAVES = 3

NEAR = 0.02  # metres along the optical axis; nothing nearer is seen
MISS = 1e10  # depths beyond this are no hit
_TINY = 1e-20  # keeps 1 / d finite without moving any other direction
_STEPS, _HALVINGS = 16, 7  # on a sheet
_HUGE = 1e30  # arithmetic instead of masks: on a CPU a select costs ten multiplications

Vec = tuple[Tensor, ...]


def _slab(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of s inside |x| <= 1."""
    inverse = (direction + _TINY).reciprocal()
    middle = -origin * inverse
    half = inverse.abs()
    return middle - half, middle + half


def _disc(o: Vec, d: Vec) -> tuple[Tensor, Tensor, Tensor]:
    """Middle and half width of the interval inside the unit disc or ball; and 1 - distance^2 of the line.

    The distance of the line from the centre is computed directly; b^2 - ac would lose half of the digits.
    """
    dd = dot(d, d) + _TINY
    middle = -dot(o, d) / dd
    foot = tuple(torch.addcmul(x, middle, y) for x, y in zip(o, d, strict=True))
    inside = 1 - dot(foot, foot)
    return middle, (inside.clamp_min(0) / dd).sqrt(), inside


def _positive(value: Tensor) -> Tensor:
    """0 where value <= 0, huge where it is not."""
    return value.clamp_min(0) * _HUGE


def ripple(x: Tensor, y: Tensor, wave: Vec) -> Vec:
    """Height of a sheet at (x, y) [N], and its slopes along x and y; `wave` is (a, p, q, f) three times."""
    height, along_x, along_y = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    for a, p, q, f in zip(*(wave[i::4] for i in range(4)), strict=True):
        angle = p * x + q * y + f
        height = torch.addcmul(height, a, angle.sin())
        slope = a * angle.cos()
        along_x, along_y = torch.addcmul(along_x, slope, p), torch.addcmul(along_y, slope, q)
    return height, along_x, along_y


def _sheet(o: Vec, d: Vec, wave: Vec) -> Tensor:
    """First s on a sheet; steps far finer than its waves find the side, bisection and Newton the place."""
    x0, x1 = _slab(o[0], d[0])
    y0, y1 = _slab(o[1], d[1])
    z0, z1 = _slab(o[2], d[2])
    enter = torch.maximum(torch.maximum(x0, y0), z0).clamp_min(NEAR)
    leave = torch.minimum(torch.minimum(x1, y1), z1)
    start = tuple(p * o[0] + q * o[1] + f for p, q, f in zip(wave[1::4], wave[2::4], wave[3::4], strict=True))
    rate = tuple(p * d[0] + q * d[1] for p, q in zip(wave[1::4], wave[2::4], strict=True))

    def above(s: Tensor) -> Tensor:
        value = o[2] + s * d[2]
        for a, c, e in zip(wave[0::4], start, rate, strict=True):
            value = value - a * torch.sin(c + s * e)
        return value

    step = (leave - enter).clamp(0, MISS) / _STEPS
    first = above(enter)
    index = torch.full_like(first, _STEPS + 1.0)  # of the first step that ends on the other side
    for i in range(1, _STEPS + 1):
        same = (above(enter + i * step) * first > 0).to(first.dtype)
        index = torch.minimum(index, i + 2 * _STEPS * same)
    missed = (index - _STEPS).clamp_min(0)
    low = enter + (index - 1) * step
    for _ in range(_HALVINGS):
        step = 0.5 * step
        same = (above(low + step) * first > 0).to(first.dtype)
        low = torch.addcmul(low, same, step)
    high = low + step
    s = low + 0.5 * step
    for _ in range(2):
        slope = d[2] - sum(
            a * e * torch.cos(c + s * e) for a, c, e in zip(wave[0::4], start, rate, strict=True)
        )
        change = above(s) / torch.where(slope == 0, 1.0, slope)
        s = torch.minimum(torch.maximum(s - change, low), high)
    return s + (_positive(enter - leave) + missed * _HUGE)


def intersect(kind: int, o: Vec, d: Vec, half_length: Tensor | None = None, wave: Vec = ()) -> Tensor:
    """First s > NEAR at which rays enter a solid (leave it, for a shell); above MISS where they do not.

    Args:
        kind: one of KINDS.
        o: origins, three tensors [N] in the solid's coordinates.
        d: directions, likewise; any length.
        half_length: [N], of capsules.
        wave: twelve [N], of sheets; see `ripple`.

    Returns:
        [N], in units of the directions' length.
    """
    if kind in (BOX, SHELL):
        x0, x1 = _slab(o[0], d[0])
        y0, y1 = _slab(o[1], d[1])
        z0, z1 = _slab(o[2], d[2])
        enter = torch.maximum(torch.maximum(x0, y0), z0)
        leave = torch.minimum(torch.minimum(x1, y1), z1)
        s, outside = (enter if kind == BOX else leave), _positive(enter - leave)
    elif kind == ELLIPSOID:
        middle, half, inside = _disc(o, d)
        s, outside = middle - half, _positive(-inside)
    elif kind == CYLINDER:
        middle, half, inside = _disc(o[:2], d[:2])
        z0, z1 = _slab(o[2], d[2])
        s = torch.maximum(middle - half, z0)
        outside = _positive(-inside) + _positive(s - torch.minimum(middle + half, z1))
    elif kind == SHEET:
        return _sheet(o, d, wave)
    elif kind == CAPSULE and half_length is not None:
        middle, half, inside = _disc(o[:2], d[:2])
        outside = _positive(-inside)
        s = middle - half
        z = o[2] + s * d[2]
        cap = z.clamp(-half_length, half_length)
        middle, half, inside = _disc((o[0], o[1], o[2] - cap), d)
        beyond = z != cap
        s = torch.where(beyond, middle - half, s)
        outside = outside + beyond * _positive(-inside).clamp_max(_HUGE)
    else:
        raise ValueError(f"kind {kind} is none of {KINDS}")
    return s + (outside + _positive(NEAR - s))


def local_normal(kind: Tensor, x: Vec, half_length: Tensor) -> Vec:
    """Outward gradient (not unit) at surface points x (three [N]) of solids of several kinds [N]; three [N].

    Sheets are not among them: `sheet_normal` is theirs.
    """
    size = tuple(c.abs() for c in x)
    largest = torch.maximum(torch.maximum(size[0], size[1]), size[2])
    flat = (kind == BOX) | (kind == SHELL)
    cylinder = kind == CYLINDER
    cap = x[2] * x[2] > x[0] * x[0] + x[1] * x[1]
    side = ~(cylinder & cap)
    core = torch.minimum(torch.maximum(x[2], -half_length), half_length)
    return (
        x[0] * ((~flat | (size[0] == largest)) & side),
        x[1] * ((~flat | (size[1] == largest)) & side),
        (x[2] - core * (kind == CAPSULE)) * ((~flat | (size[2] == largest)) & ~(cylinder & ~cap)),
    )
