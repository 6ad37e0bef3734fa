"""Camera paths as robots and hands make them, with lenses of 45 to 110 degrees. World: z up, metres."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training.rigid import Random

ROOM, CORRIDOR, TABLE, OUTDOOR = range(4)
FORWARD, TURNING, HANDHELD, ORBIT, STILL = range(5)
_PITCH = ((-35.0, 5.0), (-18.0, 5.0), (-55.0, -15.0), (-15.0, 4.0))  # degrees, per place


@dataclass(frozen=True)
class Path:
    """Cameras of B clips."""

    position: Tensor  # [B, T, 3]
    rotation: Tensor  # [B, T, 3, 3] world from optical camera frame
    yaw: Tensor  # [B, T] heading about z, 0 is +x
    time: Tensor  # [B, T] seconds, 0 in the middle of the clip
    focal: Tensor  # [B, 2] in image widths and heights
    aspect_ratio: Tensor  # [B] width / height of the original image


def look(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """World-from-optical rotations [..., 3, 3] for heading, elevation and roll in radians."""
    zero = torch.zeros_like(yaw)
    forward = torch.stack((pitch.cos() * yaw.cos(), pitch.cos() * yaw.sin(), pitch.sin()), -1)
    right = torch.stack((yaw.sin(), -yaw.cos(), zero), -1)
    down = torch.linalg.cross(forward, right)
    cos, sin = roll.cos()[..., None], roll.sin()[..., None]
    return torch.stack((cos * right + sin * down, cos * down - sin * right, forward), -1)


def _sway(r: Random, time: Tensor, rate: Tensor, axes: int) -> Tensor:
    """Smooth wandering [B, T, axes] whose speed is about `rate` [B] a second; 0 in the mean of its phase."""
    batch = len(time)
    total = torch.zeros(batch, time.shape[1], axes)
    for low, high in ((0.8, 2.0), (2.0, 5.0), (5.0, 12.0)):
        omega = r.uniform(low, high, batch, 1, axes)
        amount = rate[:, None, None] * r.uniform(0, 0.8, batch, 1, axes) / omega
        total = total + amount * torch.sin(
            omega * time[..., None] + r.uniform(0, 2 * math.pi, batch, 1, axes)
        )
    return total


def camera_paths(r: Random, place: Tensor, frames: int, motion: float, fps: tuple[float, float]) -> Path:
    """Draw one camera path and lens a clip.

    Args:
        r: randomness.
        place: [B] ROOM, CORRIDOR, TABLE or OUTDOOR; decides heights, speeds and pitch.
        frames: T.
        motion: factor on all speeds; 0 stands still.
        fps: range of frames a second.
    """
    b = len(place)
    outdoor = place == OUTDOOR
    dt = 1 / r.log_uniform(*fps, b)
    time = (torch.arange(frames) - (frames - 1) / 2) * dt[:, None]
    kind = torch.where(
        place == TABLE, r.choice([0.1, 0.1, 0.4, 0.3, 0.1], b), r.choice([0.35, 0.2, 0.25, 0.1, 0.1], b)
    )
    # most footage is calm: a handheld camera turns about 0.3 degrees and shifts 5 mm between frames at 30 Hz
    moving = torch.where(kind == STILL, 0.0, motion * r.log_uniform(0.12, 1.2, b))
    speed = moving * torch.where(outdoor, r.log_uniform(0.4, 10, b), r.log_uniform(0.1, 1.2, b))
    speed = torch.where((kind == HANDHELD) | (place == TABLE), torch.minimum(speed, 0.6 * moving), speed)
    side = torch.where(r.chance(0.5, b), 1.0, -1.0)
    rate = (
        moving * side * torch.deg2rad(torch.where(kind == TURNING, r.uniform(15, 70, b), r.uniform(0, 12, b)))
    )
    # along an arc: heading turns evenly, so the chord's direction is half of the turn
    half = 0.5 * rate[:, None] * time
    chord = speed[:, None] * time * torch.sinc(half / math.pi)
    xy = torch.stack((chord * half.cos(), chord * half.sin()), -1)
    yaw = 2 * half
    distance = torch.where(outdoor, r.log_uniform(4, 12, b), r.log_uniform(0.7, 3, b))
    angle = (speed / distance * side)[:, None] * time
    ring = distance[:, None, None] * torch.stack((1 - angle.cos(), -angle.sin()), -1)
    orbit = (kind == ORBIT)[:, None]
    xy, yaw = torch.where(orbit[..., None], ring, xy), torch.where(orbit, angle, yaw)
    sideways = r.chance(0.2, b) & (kind == HANDHELD)
    yaw_offset = torch.where(sideways, r.uniform(-1.5, 1.5, b), 0.0)
    low = r.chance(0.5, b)
    height = torch.where(low, r.uniform(0.25, 0.9, b), r.uniform(0.9, 1.8, b))
    height = torch.where(place == TABLE, r.uniform(0.9, 1.6, b), height)
    shake = torch.where(kind == HANDHELD, moving * r.uniform(0.1, 0.6, b), moving * r.uniform(0, 0.08, b))
    position = torch.cat((xy, height[:, None, None].expand(b, frames, 1)), -1)
    position = position + _sway(r, time, shake, 3) * torch.tensor((1, 1, 0.5))
    position[..., 2].clamp_min_(0.15)
    wobble = torch.where(kind == HANDHELD, moving * r.uniform(0.1, 0.9, b), moving * r.uniform(0, 0.1, b))
    angles = _sway(r, time, wobble, 3)
    bounds = torch.tensor(_PITCH)[place]
    pitch = torch.deg2rad(bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * r.uniform(0, 1, b))
    pitch = torch.where(low & (place != TABLE), 0.4 * pitch, pitch)[:, None] + angles[..., 0]
    roll = torch.deg2rad(r.normal(b) * 2)[:, None] + 0.5 * angles[..., 1]
    yaw = yaw + yaw_offset[:, None] + angles[..., 2]
    tangent = torch.tan(torch.deg2rad(r.uniform(45, 110, b)) / 2)
    aspects = torch.tensor((1.0, 4 / 3, 4 / 3, 16 / 9, 16 / 9, 1.25, 3.31, 0.75))
    aspect = aspects[r.integer(len(aspects), b)]
    focal = torch.stack((0.5 / tangent, 0.5 * aspect / tangent), -1)
    return Path(position, look(yaw, pitch, roll), yaw, time, focal, aspect)
