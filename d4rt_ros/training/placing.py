"""Objects in motion: templates placed in the world along their own trajectories."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training import objects, shapes
from d4rt_ros.training.raycast import inverse3
from d4rt_ros.training.rigid import Random, affine, chain, turn, turn_z, unit


@dataclass(frozen=True)
class Parts:
    """Solids in frames of their own; M a clip."""

    kind: Tensor  # [B, M]
    pose: Tensor  # [B, T, M, 3, 4]
    half: Tensor  # [B, M, 3]
    half_length: Tensor  # [B, M]
    wave: Tensor  # [B, T, M, 12]
    paint: Tensor  # [B, M]
    picture: Tensor  # [B, M]
    solid: Tensor  # [B, M] bool, must not contain the camera


def _wave(amount: Tensor, rate: Tensor, phase: Tensor, time: Tensor) -> Tensor:
    """A sine of time, [B, S, T], from amount, rate and phase [B, S] and time [B, T]."""
    return amount[..., None] * torch.sin(rate[..., None] * time[:, None] + phase[..., None])


def build(r: Random, template: Tensor, base: Tensor, time: Tensor, still: Tensor, first_paint: int) -> Parts:
    """Objects of templates [B, S] (-1: none) placed by base [B, S, T, 3, 4]; hinges rest where `still`."""
    b, s = template.shape
    m = objects.PARTS
    blank = objects.Bodies(b * s)
    for index, make in enumerate(objects.TEMPLATES):
        rows = (template.reshape(-1) == index).nonzero()[:, 0]
        made = make(len(rows), r)
        for name in ("kind", "pose", "half", "half_length", "paint", "pivot", "axis", "angle", "wave"):
            getattr(blank, name)[rows] = getattr(made, name)
    swing, rate, phase, spin, rest = blank.angle.view(b, s, m, 2, 5).unbind(-1)
    seconds = torch.where(still[..., None], 0.0, time[:, None])[..., None, None]  # [B, S, T, 1, 1]

    def over(x: Tensor) -> Tensor:
        return x[:, :, None]

    angle = over(swing) * torch.sin(over(rate) * seconds + over(phase)) + over(spin) * seconds + over(rest)
    rotation = turn(unit(blank.axis.view(b, s, 1, m, 2, 3)).expand(b, s, time.shape[1], m, 2, 3), angle)
    pivot = blank.pivot.view(b, s, 1, m, 2, 3)
    hinge = affine(rotation, pivot - (rotation @ pivot[..., None])[..., 0])
    part = chain(hinge[..., 1, :, :], blank.pose.view(b, s, 1, m, 3, 4))
    pose = chain(base[:, :, :, None], chain(hinge[..., 0, :, :], part))
    scale = torch.linalg.vector_norm(base[:, :, 0, :, 0], dim=-1)  # uniform size of the object
    paint = first_paint + 2 * torch.arange(s)[:, None] + blank.paint.view(b, s, m)
    return Parts(
        kind=blank.kind.view(b, s * m),
        pose=pose.transpose(1, 2).reshape(b, -1, s * m, 3, 4),
        half=(blank.half.view(b, s, m, 3) * scale[..., None, None]).view(b, s * m, 3),
        half_length=blank.half_length.view(b, s * m),
        wave=_waves(blank.wave.view(b, s, m, -1, 5), seconds[..., 0]).reshape(b, -1, s * m, 4 * shapes.WAVES),
        paint=paint.view(b, s * m),
        picture=torch.zeros(b, s * m, dtype=torch.bool),
        solid=torch.ones(b, s * m, dtype=torch.bool),
    )


def _waves(wave: Tensor, seconds: Tensor) -> Tensor:
    """[B, T, S, M, WAVES, 4] at times `seconds` [B, S, T, 1] of waves [B, S, M, WAVES, 5]."""
    phase = wave[:, :, None, ..., 3] + wave[:, :, None, ..., 4] * seconds[..., None]  # [B, S, T, M, WAVES]
    still = wave[:, :, None, ..., :3].expand(*phase.shape, 3)
    return torch.cat((still, phase[..., None]), -1).transpose(1, 2)


def trajectory(
    r: Random,
    time: Tensor,
    place: Tensor,
    yaw: Tensor,
    size: Tensor,
    speed: Tensor,
    moves: Tensor,
    flying: Tensor,
) -> Tensor:
    """Object-to-world over time, [B, S, T, 3, 4]: walks, turning, tumbling, soft stretching."""
    b, s = yaw.shape
    moved = moves.float()
    turning = moved * r.uniform(-1.2, 1.2, b, s) * r.chance(0.6, b, s)
    heading = yaw[..., None] + turning[..., None] * time[:, None]
    half = 0.5 * turning[..., None] * time[:, None]
    chord = speed[..., None] * time[:, None] * torch.sinc(half / math.pi)
    bearing = yaw[..., None] + half
    bob = _wave(
        moved * r.uniform(0, 0.25, b, s) * (flying | r.chance(0.2, b, s)),
        r.uniform(1, 6, b, s),
        r.uniform(0, 6, b, s),
        time,
    )
    offset = torch.stack((chord * bearing.cos(), chord * bearing.sin(), bob.abs()), -1) + place[:, :, None]
    tumble = turn(
        unit(r.normal(b, s, 1, 3)).expand(b, s, time.shape[1], 3),
        (flying * r.uniform(-3, 3, b, s))[..., None] * time[:, None],
    )
    soft = moved * r.uniform(0, 0.35, b, s) * r.chance(0.35, b, s)
    stretch = 1 + _wave(soft, r.uniform(1, 7, b, s), r.uniform(0, 6, b, s), time)
    scale = torch.stack((stretch.rsqrt(), stretch.rsqrt(), stretch), -1) * size[..., None, None]
    return affine((turn_z(heading) @ tumble) * scale[..., None, :], offset)


def without_blocked(parts: Parts, eyes: Tensor, margin: float) -> Tensor:
    """Kinds [B, M] without the objects (groups of PARTS) that come within `margin` metres of a camera."""
    inverse = inverse3(parts.pose[..., :3])
    local = (inverse @ (eyes[:, :, None] - parts.pose[..., 3])[..., None])[..., 0].abs()
    reach = torch.ones_like(parts.half)
    reach[..., 2] += parts.half_length
    gap = ((local - reach[:, None]) * parts.half[:, None]).amax(-1)
    hit = (gap < margin).any(1) & parts.solid & (parts.kind != shapes.EMPTY)
    b = len(hit)
    blocked = hit.view(b, -1, objects.PARTS).any(-1, keepdim=True).expand(b, -1, objects.PARTS).reshape(b, -1)
    return torch.where(blocked, shapes.EMPTY, parts.kind)
