"""TartanAir: static synthetic worlds, left camera.

P000/image_left/000000_left.png  P000/depth_left/000000_left_depth.npy (metres)
P000/pose_left.txt: x y z qx qy qz qw a line, in a north-east-down world and body
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

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

_K = np.array([[320.0, 0, 320], [0, 320, 240], [0, 0, 1]])  # of all 640 x 480 images
_SKY = 1000.0  # metres; beyond it is sky
# body axes (forward, right, down) of the optical x, y, z
_BODY_FROM_OPTICAL = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])


def find(root: Path) -> list[Path]:
    """Folders with a left trajectory."""
    return [p.parent for p in below(root, "pose_left.txt")]


class TartanAirSequence:
    """One trajectory."""

    def __init__(self, path: Path) -> None:
        """Read the trajectory and count the frames. Raises BrokenSequence."""
        self._path = path
        try:
            rows = np.loadtxt(path / "pose_left.txt", ndmin=2)
        except ValueError as error:
            raise BrokenSequence(f"pose_left.txt is unreadable: {error}") from error
        images = len(list((path / "image_left").glob("*_left.png")))
        depths = len(list((path / "depth_left").glob("*_left_depth.npy")))
        if not images == depths == len(rows) or rows.shape[1:] != (7,):
            raise BrokenSequence(f"{images} images, {depths} depth maps and poses {rows.shape} do not fit")
        if not np.isfinite(rows).all() or (np.linalg.norm(rows[:, 3:], axis=1) < 1e-6).any():
            raise BrokenSequence(f"pose {int((~np.isfinite(rows)).any(1).argmax())} is not finite")
        poses = np.tile(np.eye(4), (len(rows), 1, 1))
        poses[:, :3, :3] = Rotation.from_quat(rows[:, 3:]).as_matrix() @ _BODY_FROM_OPTICAL
        poses[:, :3, 3] = rows[:, :3]
        self._poses = check_pose(poses)
        self.length = len(rows)
        self.clip([0], (32, 32))

    def clip(self, frames: Sequence[int], size: tuple[int, int]) -> RgbdClip:
        """See `PosedSequence`."""
        images = [read_image(self._path / "image_left" / f"{i:06d}_left.png") for i in frames]
        depths = [_load(self._path / "depth_left" / f"{i:06d}_left_depth.npy") for i in frames]
        height, width = images[0].shape[:2]
        return RgbdClip(
            video=stack_video(images, size),
            depth=check_depth(stack_nearest([np.where(d < _SKY, d, np.nan) for d in depths], size)),
            camera=camera_of(_K, 640, 480).expand(len(images), 4),
            world_from_camera=torch.from_numpy(self._poses[list(frames)]),
            aspect_ratio=width / height,
        )


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path)
    except (OSError, ValueError) as error:
        raise BrokenSequence(f"{path.name} is missing or unreadable") from error
