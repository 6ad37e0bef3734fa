"""Coloured point clouds in one camera (paper Table 1: t_tgt = t_src, t_cam fixed)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.model import SceneLike
from d4rt_ros.model.pixels import pixel_to_uv
from d4rt_ros.tasks.ask import ask, check_frame, chosen_frames, usable


@dataclass(frozen=True)
class PointCloud:
    """N points, one a pixel, each at the instant of the frame that saw it.

    Attributes:
        ok: False when there is no point.
        reason: why not, as a sentence; empty when ok.
        camera: index of the frame whose camera the coordinates are in.
        xyz: [N, 3] float32, scene units, optical frame of ``camera``.
        rgb: [N, 3] uint8, the pixel's colour.
        confidence: [N] 0..1.
        u: [N] 0..1, where the point was seen.
        v: [N].
        t_src: [N] int64, the frame it was seen in.
    """

    ok: bool
    reason: str
    camera: int
    xyz: Tensor
    rgb: Tensor
    confidence: Tensor
    u: Tensor
    v: Tensor
    t_src: Tensor


def strided_pixels(size: tuple[int, int], stride: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns [N] int64 of every ``stride``-th pixel, centred; row-major.

    Raises:
        ValueError: stride below 1.
    """
    if stride < 1:
        raise ValueError(f"stride is {stride}, it must be at least 1")
    first = [min(stride // 2, (extent - 1) // 2) for extent in size]
    rows, columns = (torch.arange(f, n, stride, device=device) for f, n in zip(first, size, strict=True))
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    return row.reshape(-1), column.reshape(-1)


def point_cloud(
    scene: SceneLike,
    frames: Sequence[int] | None = None,
    stride: int = 1,
    camera: int = 0,
    min_confidence: float = 0.0,
) -> PointCloud:
    """Points of one or more frames in one camera.

    Args:
        scene: the encoded window.
        frames: indices of the frames whose pixels are asked; all by default.
        stride: every stride-th pixel in each direction.
        camera: index of the frame whose camera the points are given in.
        min_confidence: points below it are left out.

    Returns:
        PointCloud on the scene's device.

    Raises:
        ValueError: an index outside the window, or stride below 1.
    """
    chosen = chosen_frames(scene, frames)
    check_frame(scene, "camera", camera)
    height, width = scene.image_size
    row, column = strided_pixels((height, width), stride, scene.device)
    u = pixel_to_uv(column.float(), width).repeat(len(chosen))
    v = pixel_to_uv(row.float(), height).repeat(len(chosen))
    t_src = torch.tensor(chosen, device=scene.device).repeat_interleave(len(row))
    answers = ask(scene, u, v, t_src, t_src, camera)
    images = scene.frames
    rgb = torch.cat([images[f][:, row.to(images.device), column.to(images.device)].T for f in chosen])
    keep = usable(answers.confidence, min_confidence)
    ok = bool(keep.any())
    reason = "" if ok else f"none of the {len(keep)} points is confident enough (minimum {min_confidence:g})"
    return PointCloud(
        ok=ok,
        reason=reason,
        camera=camera,
        xyz=answers.xyz[keep],
        rgb=rgb.to(scene.device)[keep],
        confidence=answers.confidence[keep],
        u=u[keep],
        v=v[keep],
        t_src=t_src[keep],
    )
