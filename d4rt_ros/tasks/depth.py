"""Depth of one frame, everywhere or at some pixels (paper Table 1: t_src = t_tgt = t_cam, z only)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.model import SceneLike
from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.tasks.ask import ask, check_frame, check_pixels, usable


@dataclass(frozen=True)
class Depth:
    """Depth along the optical axis, in scene units; [H, W] for a map, [N] at pixels.

    Attributes:
        ok: False when not one depth is valid.
        reason: why not, as a sentence; empty when ok.
        frame: index of the frame in the window.
        depth: z in the camera of ``frame``, float32, always finite; use it only where ``valid``.
        confidence: 0..1.
        valid: bool, confidence high enough and in front of the camera.
    """

    ok: bool
    reason: str
    frame: int
    depth: Tensor
    confidence: Tensor
    valid: Tensor

    def with_nan(self) -> Tensor:
        """Return the depth with NaN where it is not valid (REP-118's mark for unknown)."""
        return torch.where(self.valid, self.depth, torch.nan)


def depth_map(
    scene: SceneLike, frame: int, size: tuple[int, int] | None = None, min_confidence: float = 0.0
) -> Depth:
    """Depth of every pixel of one frame.

    Args:
        scene: the encoded window.
        frame: index in the window.
        size: (H, W) of the map; the frame's own by default. Any size: (u, v) is continuous.
        min_confidence: below it a pixel is not valid.

    Returns:
        Depth of shape [H, W].

    Raises:
        ValueError: frame outside the window, or a size below 1.
    """
    height, width = scene.image_size if size is None else size
    if height < 1 or width < 1:
        raise ValueError(f"size is {height}x{width}, both must be at least 1")
    u, v = pixel_grid(height, width, scene.device)
    return _depth(scene, frame, u.reshape(height, width), v.reshape(height, width), min_confidence)


def depth_at(scene: SceneLike, frame: int, u: Tensor, v: Tensor, min_confidence: float = 0.0) -> Depth:
    """Depth at pixels u, v [N] (0..1) of one frame.

    Returns:
        Depth of shape [N], in the order asked.

    Raises:
        ValueError: frame outside the window, or u, v outside 0..1.
    """
    check_pixels(u, v)
    return _depth(scene, frame, u, v, min_confidence)


def _depth(scene: SceneLike, frame: int, u: Tensor, v: Tensor, min_confidence: float) -> Depth:
    check_frame(scene, "frame", frame)
    answers = ask(scene, u, v, frame, frame, frame)
    depth = answers.xyz[..., 2]
    valid = usable(answers.confidence, min_confidence) & (depth > 0.0)
    ok = bool(valid.any())
    reason = "" if ok else f"none of the {valid.numel()} depths of frame {frame} is confident and in front"
    return Depth(ok, reason, frame, depth, answers.confidence, valid)
