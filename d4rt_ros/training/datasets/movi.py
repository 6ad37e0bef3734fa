"""Kubric and MOVi scenes as folders of frames: rigid objects that fall and roll.

    scene/rgba_00000.png  scene/depth_00000.tiff  scene/segmentation_00000.png  scene/metadata.json

Depth is the distance from the camera's centre, not z: metres as float, or 16 bit between the two values of
metadata.depth_range. Cameras look along -z with y up (Blender); quaternions are w, x, y, z.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from d4rt_ros.training.datasets.lifted import RgbdClip
from d4rt_ros.training.datasets.sequences import (
    BrokenSequence,
    below,
    check_depth,
    check_pose,
    read_image,
    stack_nearest,
    stack_video,
)

_SKY = 1000.0  # metres
_BLENDER_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0])


def find(root: Path) -> list[Path]:
    """Folders with metadata and frames."""
    return [p.parent for p in below(root, "metadata.json")]


def poses_of(positions: Any, quaternions: Any) -> np.ndarray:
    """[N, 4, 4] from positions [N, 3] and quaternions [N, 4], w first. Raises BrokenSequence."""
    place, turn = np.asarray(positions, dtype=float), np.asarray(quaternions, dtype=float)
    if (
        not np.isfinite(place).all()
        or not np.isfinite(turn).all()
        or (np.linalg.norm(turn, axis=-1) < 1e-6).any()
    ):
        raise BrokenSequence("a pose is not finite")
    poses = np.tile(np.eye(4), (len(place), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(turn[:, [1, 2, 3, 0]]).as_matrix()
    poses[:, :3, 3] = place
    return poses


class MoviSequence:
    """One scene."""

    def __init__(self, path: Path) -> None:
        """Read metadata and count the frames. Raises BrokenSequence."""
        self._path = path
        try:
            values = json.loads((path / "metadata.json").read_text())
            camera, instances = values["camera"], values["instances"]
            poses = poses_of(camera["positions"], camera["quaternions"])
            moving = [poses_of(i["positions"], i["quaternions"]) for i in instances]
            self._focal = float(camera["focal_length"]) / float(camera["sensor_width"])
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise BrokenSequence(f"metadata.json is unreadable: {error!r}") from error
        self._range = values.get("metadata", {}).get("depth_range")
        poses[:, :3, :3] = poses[:, :3, :3] @ _BLENDER_FROM_OPTICAL
        self._poses = check_pose(poses)
        static = np.tile(np.eye(4), (len(poses), 1, 1))
        if any(len(m) != len(poses) for m in moving):
            raise BrokenSequence("an instance has another number of poses than the camera")
        self._objects = np.stack([static, *moving], axis=1)  # segment 0 is the background
        self.length = len(poses)
        for kind in ("rgba_*.png", "depth_*.tiff", "segmentation_*.png"):
            found = len(list(path.glob(kind)))
            if found != self.length:
                raise BrokenSequence(f"{found} of {self.length} frames of {kind}")
        self.clip([0], (32, 32))

    def clip(self, frames: Sequence[int], size: tuple[int, int]) -> RgbdClip:
        """See `PosedSequence`."""
        images = [read_image(self._path / f"rgba_{i:05d}.png") for i in frames]
        height, width = images[0].shape[:2]
        fx, fy = self._focal, self._focal * width / height
        x = ((np.arange(width) + 0.5) / width - 0.5) / fx
        y = ((np.arange(height) + 0.5) / height - 0.5) / fy
        stretch = np.sqrt(1 + x**2 + y[:, None] ** 2)  # distance over z
        depths = [self._distance(i) / stretch for i in frames]
        segments = stack_nearest([self._labels(i) for i in frames], size)
        if int(segments.max()) >= self._objects.shape[1]:
            raise BrokenSequence(f"segment {int(segments.max())} has no instance in metadata.json")
        return RgbdClip(
            video=stack_video(images, size),
            depth=check_depth(stack_nearest(depths, size)),
            camera=torch.tensor([fx, fy, 0.5, 0.5]).expand(len(images), 4),
            world_from_camera=torch.from_numpy(self._poses[list(frames)]),
            aspect_ratio=width / height,
            segments=segments,
            world_from_object=torch.from_numpy(self._objects[list(frames)]),
        )

    def _labels(self, frame: int) -> np.ndarray:
        """[H, W] int64. Kubric writes them with a palette, of which OpenCV would make colours."""
        path = self._path / f"segmentation_{frame:05d}.png"
        try:
            with Image.open(path) as image:
                labels = np.array(image)
        except OSError as error:
            raise BrokenSequence(f"{path.name} is unreadable: {error}") from error
        if labels.ndim != 2:
            raise BrokenSequence(f"{path.name} holds colours, not numbers of segments")
        return labels.astype(np.int64)

    def _distance(self, frame: int) -> np.ndarray:
        raw = read_image(self._path / f"depth_{frame:05d}.tiff", cv2.IMREAD_UNCHANGED)
        if raw.dtype == np.uint16:
            if self._range is None:
                raise BrokenSequence("16-bit depth without metadata.depth_range")
            low, high = self._range
            raw = low + raw.astype(np.float64) / 65535 * (high - low)
        return np.where(raw < _SKY, raw, np.nan)
