"""What is known about the answers of queries: truth with one mask a term."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from d4rt_ros.model import Queries


@dataclass(frozen=True)
class Truth:
    """Exact answers for queries of shape [..., N], with masks where they are known.

    Frames and units are those of `d4rt_ros.model.Answers`: `xyz` of the point at time t_tgt in camera t_cam,
    `uv` its projection into frame t_tgt (0..1, may lie outside), `displacement` = P(t_tgt) - P(t_src) in
    camera t_cam, `normal` unit at t_tgt in camera t_cam. Values under a false mask may be anything, also NaN.
    """

    xyz: Tensor  # [..., N, 3] scene units
    uv: Tensor  # [..., N, 2]
    visibility: Tensor  # [..., N] float, 1 where the point is seen in frame t_tgt
    displacement: Tensor  # [..., N, 3]
    normal: Tensor  # [..., N, 3]
    xyz_valid: Tensor  # [..., N] bool; also stands for displacement
    uv_valid: Tensor  # [..., N] bool; false behind the camera of t_tgt
    visibility_valid: Tensor  # [..., N] bool
    normal_valid: Tensor  # [..., N] bool

    def to(self, device: torch.device | str) -> Truth:
        """The same truth on another device."""
        return Truth(*(getattr(self, field.name).to(device) for field in fields(self)))

    @staticmethod
    def stack(items: list[Truth]) -> Truth:
        """Stack truths of shape [N] into one of shape [len(items), N]."""
        return Truth(*(torch.stack([getattr(item, f.name) for item in items]) for f in fields(Truth)))


class ClipBatch(Protocol):
    """A batch of clips that knows the answer to any query; procedural scenes and data sets alike."""

    video: Tensor  # [B, T, 3, H, W] uint8
    aspect_ratio: Tensor  # [B] float, W/H of the original images
    depth: Tensor  # [B, T, H, W] float, z in scene units; NaN or inf where there is none (sky, holes)
    motion: Tensor  # [B, T, H, W] float >= 0, speed of the surface in the world (0 where it stands)

    def answer(self, queries: Queries) -> Truth:
        """Truth for queries [B, N]."""
        ...
