"""What all data sets share: sequences on disk, what makes one broken, and clips drawn from them by seed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from d4rt_ros.training.datasets.lifted import LiftedClips, RgbdClip
from d4rt_ros.training.datasets.tracked import TrackClip, TrackedClips
from d4rt_ros.training.truth import ClipBatch

log = logging.getLogger(__name__)

NEAREST, FARTHEST = 0.05, 500.0  # metres within which the median depth of a real scene lies


class BrokenSequence(ValueError):
    """A sequence cannot be used; the message says why."""


class PosedSequence(Protocol):
    """A sequence of a data set."""

    length: int

    def clip(self, frames: Sequence[int], size: tuple[int, int]) -> RgbdClip | TrackClip:
        """Frames by index, resized to (H, W). Raises BrokenSequence."""
        ...


class FolderSource:
    """Clips from all sequences of a folder that are sound; the others are named and counted."""

    def __init__(
        self,
        root: str | Path,
        find: Callable[[Path], list[Path]],
        open_sequence: Callable[[Path], PosedSequence],
        frames: int,
        size: tuple[int, int],
        max_stride: int = 3,
    ) -> None:
        """Open every sequence under `root`.

        Raises FileNotFoundError if there is none, BrokenSequence with every reason if none is sound.
        """
        self._frames, self._size, self._max_stride = frames, size, max_stride
        self.shape = (frames, *size)
        self.refused: dict[str, str] = {}
        self._sequences: dict[str, PosedSequence] = {}  # by their folders under `root`
        paths = find(Path(root)) if Path(root).is_dir() else []
        if not paths:
            raise FileNotFoundError(f"no sequences of this data set's layout under {root}")
        for path in paths:
            name = str(path.relative_to(root))
            try:
                sequence = open_sequence(path)
                if sequence.length < frames:
                    raise BrokenSequence(f"{sequence.length} frames are fewer than the {frames} of a clip")
                self._sequences[name] = sequence
            except Exception as error:  # files of others can be wrong in any way
                self._refuse(name, _reason(error))
        if not self._sequences:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.refused.items())
            raise BrokenSequence(f"all {len(self.refused)} sequences under {root} are broken: {reasons}")

    def _refuse(self, name: str, why: str) -> None:
        self.refused[name] = why
        log.warning("refused sequence %s: %s (%d refused so far)", name, why, len(self.refused))

    def make(self, seeds: list[int]) -> ClipBatch:
        """One clip a seed. A sequence found broken on reading is refused and another one drawn.

        Raises BrokenSequence when none is left.
        """
        clips = [self._draw(np.random.default_rng(seed)) for seed in seeds]
        if isinstance(clips[0], TrackClip):
            return TrackedClips([clip for clip in clips if isinstance(clip, TrackClip)])
        return LiftedClips([clip for clip in clips if isinstance(clip, RgbdClip)])

    def _draw(self, random: np.random.Generator) -> RgbdClip | TrackClip:
        names = list(self._sequences)
        for choice in random.permutation(len(names)):
            name, sequence = names[choice], self._sequences[names[choice]]
            if name in self.refused:
                continue
            widest = min(self._max_stride, (sequence.length - 1) // (self._frames - 1))
            stride = int(random.integers(1, widest + 1))
            first = int(random.integers(0, sequence.length - stride * (self._frames - 1)))
            try:
                return sequence.clip([first + stride * i for i in range(self._frames)], self._size)
            except Exception as error:
                self._refuse(name, _reason(error))
        raise BrokenSequence(f"all sequences are broken: {self.refused}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BrokenSequence) else f"{type(error).__name__}: {error}"


def below(root: Path, name: str) -> list[Path]:
    """What is called `name` anywhere below a folder, in order; links are followed, and no folder twice."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if name in folders or name in files:
            found.append(Path(folder) / name)
    return sorted(found)


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Read an image, colours as RGB, as it lies in the file. Raises BrokenSequence naming the file."""
    # a tag that tells how to hold it is left alone: depth, poses and lens have none
    image = cv2.imread(str(path), flags | cv2.IMREAD_IGNORE_ORIENTATION) if path.is_file() else None
    if image is None:
        raise BrokenSequence(f"{path.name} is missing or unreadable")
    return image[..., ::-1] if flags == cv2.IMREAD_COLOR else image


def stack_video(images: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Images [H, W, 3] to [T, 3, h, w] uint8, averaged down."""
    small = [cv2.resize(np.ascontiguousarray(i), size[::-1], interpolation=cv2.INTER_AREA) for i in images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def stack_nearest(maps: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Maps [H, W] to [T, h, w], each cell the value at its centre: depth and labels must not be mixed."""
    height, width = maps[0].shape
    rows = ((np.arange(size[0]) + 0.5) / size[0] * height).astype(int)
    columns = ((np.arange(size[1]) + 0.5) / size[1] * width).astype(int)
    return torch.from_numpy(np.stack([m[rows[:, None], columns] for m in maps]))


def check_depth(depth: Tensor) -> Tensor:
    """Depth with NaN where it is not positive and finite. Raises BrokenSequence if it cannot be in metres."""
    depth = torch.where(torch.isfinite(depth) & (depth > 0), depth.float(), torch.nan)
    known = depth[torch.isfinite(depth)]
    if known.numel() < 0.1 * depth.numel():
        raise BrokenSequence(f"only {known.numel() / depth.numel():.0%} of the depth is known")
    median = float(known.median())
    if not NEAREST <= median <= FARTHEST:
        raise BrokenSequence(f"median depth is {median:.4g} m: wrong depth scale")
    return depth


def check_pose(poses: np.ndarray) -> np.ndarray:
    """Camera-to-world poses [N, 4, 4]. Raises BrokenSequence unless all are finite and rigid."""
    for index, pose in enumerate(poses):
        if not np.isfinite(pose).all():
            raise BrokenSequence(f"pose {index} is not finite")
        if np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() > 1e-2 or np.linalg.det(pose[:3, :3]) < 0:
            raise BrokenSequence(f"pose {index} is not a rigid motion")
    return poses


def camera_of(k: np.ndarray, width: int, height: int) -> Tensor:
    """fx, fy, cx, cy over the image's extent from a matrix [..., 3, 3] with pixel centres at integers."""
    values: Any = [k[..., 0, 0] / width, k[..., 1, 1] / height]
    values += [(k[..., 0, 2] + 0.5) / width, (k[..., 1, 2] + 0.5) / height]
    return torch.from_numpy(np.stack(values, -1)).float()
