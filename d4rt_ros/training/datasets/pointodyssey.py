"""PointOdyssey: long synthetic videos with annotated tracks of deforming characters.

scene/rgbs/rgb_00000.jpg  scene/depths/depth_00000.png (65535 stands for 1000 m)
scene/anno.npz: trajs_3d [T, N, 3] world, visibs [T, N], valids [T, N], intrinsics [T, 3, 3],
extrinsics [T, 4, 4] world to camera
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

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
from d4rt_ros.training.datasets.tracked import TrackClip

_MOST_TRACKS = 4096  # a clip; more say little new
_KEYS = ("trajs_3d", "visibs", "intrinsics", "extrinsics")


def find(root: Path) -> list[Path]:
    """Folders with annotations."""
    return [p.parent for p in below(root, "anno.npz")]


class PointOdysseySequence:
    """One scene. Its annotations are read anew for every clip: they are too large to keep."""

    def __init__(self, path: Path) -> None:
        """Check the cameras and count the frames. Raises BrokenSequence."""
        self._path = path
        with self._annotations() as values:
            missing = [key for key in _KEYS if key not in values]
            if missing:
                raise BrokenSequence(f"anno.npz has no {missing[0]}")
            extrinsics = values["extrinsics"].astype(float)
            self._k = values["intrinsics"].astype(float)
        if not np.isfinite(extrinsics).all():
            raise BrokenSequence(f"pose {int((~np.isfinite(extrinsics)).any((1, 2)).argmax())} is not finite")
        self._poses = check_pose(np.linalg.inv(extrinsics))
        self.length = len(self._poses)
        for kind in ("rgbs/rgb_*.jpg", "depths/depth_*.png"):
            found = len(list(path.glob(kind)))
            if found != self.length:
                raise BrokenSequence(f"{found} of {self.length} frames of {kind}")
        self.clip([0], (32, 32))

    def _annotations(self) -> np.lib.npyio.NpzFile:
        try:
            return np.load(self._path / "anno.npz")
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise BrokenSequence(f"anno.npz is unreadable: {error}") from error

    def clip(self, frames: Sequence[int], size: tuple[int, int]) -> TrackClip:
        """See `PosedSequence`."""
        chosen = list(frames)
        images = [read_image(self._path / "rgbs" / f"rgb_{i:05d}.jpg") for i in chosen]
        depths = [
            read_image(self._path / "depths" / f"depth_{i:05d}.png", cv2.IMREAD_UNCHANGED) for i in chosen
        ]
        with self._annotations() as values:
            tracks = values["trajs_3d"][chosen].astype(np.float32)
            seen = values["visibs"][chosen].astype(bool)
            if "valids" in values:
                tracks[~values["valids"][chosen].astype(bool)] = np.nan
        useful = np.flatnonzero(seen.any(0))
        none = f"no track is seen in frames {chosen[0]} to {chosen[-1]}"
        if not len(useful):
            raise BrokenSequence(none)
        useful = useful[:: -(-len(useful) // _MOST_TRACKS)]
        height, width = images[0].shape[:2]
        clip = TrackClip(
            video=stack_video(images, size),
            depth=check_depth(stack_nearest([_metres(d) for d in depths], size)),
            camera=camera_of(self._k[chosen], width, height),
            world_from_camera=torch.from_numpy(self._poses[chosen]),
            aspect_ratio=width / height,
            tracks=torch.from_numpy(tracks[:, useful]),
            seen=torch.from_numpy(seen[:, useful]),
        )
        if not torch.isfinite(clip.anchors()).any():  # marked as seen, but not known or not in the image
            raise BrokenSequence(none)
        return clip


def _metres(depth: np.ndarray) -> np.ndarray:
    """Depth [H, W] of 1,000 m in 16 bits; NaN for what is further, as the sky: it has the last number."""
    return np.where(depth < np.iinfo(np.uint16).max, depth.astype(np.float32) / 65.535, np.nan)
