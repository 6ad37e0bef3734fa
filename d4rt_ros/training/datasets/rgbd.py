"""Static RGB-D scans with poses, in the layout that ScanNet's own exporter writes.

scene/color/0.jpg  scene/depth/0.png (millimetres, 16 bit)  scene/pose/0.txt (4 x 4, camera to world)
scene/intrinsic/intrinsic_color.txt (4 x 4)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from d4rt_ros.training.datasets.lifted import RgbdClip
from d4rt_ros.training.datasets.sequences import (
    BrokenSequence,
    below,
    camera_of,
    check_depth,
    check_pose,
    read_image,
    stack_nearest,
    stack_video,
)

_MOST_LOST = 0.5  # share of frames without a pose above which tracking failed


def find(root: Path) -> list[Path]:
    """Folders with a pose folder."""
    return [p.parent for p in below(root, "pose") if p.is_dir()]


class RgbdSequence:
    """One scan. Frames without a finite pose (lost tracking) are left out."""

    def __init__(self, path: Path) -> None:
        """Read poses and intrinsics. Raises BrokenSequence."""
        self._path = path
        numbers = sorted(int(p.stem) for p in (path / "color").glob("*.jpg") if p.stem.isdigit())
        step = numbers[1] - numbers[0] if len(numbers) > 1 else 1  # exports may leave out frames evenly
        if not numbers or numbers != list(range(numbers[0], numbers[-1] + 1, step)):
            raise BrokenSequence(f"colour frames are missing: {len(numbers)} found")
        poses = [_matrix(path / "pose" / f"{n}.txt") for n in numbers]
        kept = [i for i, pose in enumerate(poses) if np.isfinite(pose).all()]
        self.lost = len(numbers) - len(kept)
        if self.lost > _MOST_LOST * len(numbers):
            raise BrokenSequence(f"{self.lost} of {len(numbers)} poses are not finite")
        self._numbers = [numbers[i] for i in kept]
        self._poses = check_pose(np.stack([poses[i] for i in kept]))
        self._k = _matrix(path / "intrinsic" / "intrinsic_color.txt")
        self.length = len(self._numbers)
        self.clip([0], (32, 32))  # one look at colours and depth scale

    def clip(self, frames: Sequence[int], size: tuple[int, int]) -> RgbdClip:
        """See `PosedSequence`."""
        numbers = [self._numbers[i] for i in frames]
        images = [read_image(self._path / "color" / f"{n}.jpg") for n in numbers]
        depths = [read_image(self._path / "depth" / f"{n}.png", cv2.IMREAD_UNCHANGED) for n in numbers]
        height, width = images[0].shape[:2]
        return RgbdClip(
            video=stack_video(images, size),
            depth=check_depth(stack_nearest([d.astype(np.float32) / 1000 for d in depths], size)),
            camera=camera_of(self._k, width, height).expand(len(numbers), 4),
            world_from_camera=torch.from_numpy(self._poses[list(frames)]),
            aspect_ratio=width / height,
        )


def _matrix(path: Path) -> np.ndarray:
    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise BrokenSequence(f"{path.parent.name}/{path.name} is missing or unreadable") from error
    if matrix.shape != (4, 4):
        raise BrokenSequence(f"{path.parent.name}/{path.name} has shape {matrix.shape}, not (4, 4)")
    return matrix
