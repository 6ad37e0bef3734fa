"""Posed RGB-D clips of a tilted, textured plane, in closed form: cheap truth for tests of training."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from d4rt_ros.training.datasets.lifted import LiftedClips, RgbdClip

FOCAL = 0.8


def plane_clip(seed: int, frames: int = 4, size: int = 16) -> RgbdClip:
    """A camera that glides in front of the plane z = z0 + tilt * x, looking along z."""
    g = torch.Generator().manual_seed(seed)
    texture = torch.rand(1, 3, 40, 40, generator=g)
    z0, tilt = 2 + 2 * float(torch.rand((), generator=g)), float(torch.rand((), generator=g)) - 0.5
    velocity = (torch.rand(3, generator=g) - 0.5) * 0.1
    axis = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    x, y = (u - 0.5) / FOCAL, (v - 0.5) / FOCAL
    images, depths, poses = [], [], []
    for t in range(frames):
        eye = velocity * t
        depth = (z0 + tilt * eye[0] - eye[2]) / (1 - tilt * x)
        place = torch.stack([eye[0] + depth * x, eye[1] + depth * y], -1) / 4
        colour = F.grid_sample(texture, place[None], align_corners=False, padding_mode="reflection")[0]
        images.append((colour * 255).to(torch.uint8))
        depths.append(depth)
        pose = torch.eye(4)
        pose[:3, 3] = eye
        poses.append(pose)
    camera = torch.tensor([FOCAL, FOCAL, 0.5, 0.5]).expand(frames, 4)
    return RgbdClip(torch.stack(images), torch.stack(depths), camera, torch.stack(poses), 1.0)


def plane_clips(seeds: list[int], frames: int = 4, size: int = 16) -> LiftedClips:
    """One clip for every seed."""
    return LiftedClips([plane_clip(seed, frames, size) for seed in seeds])
