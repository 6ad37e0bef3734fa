"""What the layouts share: images and depth from files, poses that are poses, and frames left out by name.

Texts may begin with the mark that editors on Windows put there (utf-8-sig).
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from d4rt_ros.camera import Camera
from d4rt_ros.evaluation.sequence import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".bmp")
_HALF_PIXEL = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
_MAX_SKIPPED_SHARE = 0.5
_NAMES_SHOWN = 3


def opencv_matrix(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K [3, 3] in this package's convention out of numbers that count pixel centres at integers."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]) + _HALF_PIXEL


def vga_matrix(fx: float, fy: float, cx: float, cy: float, size: tuple[int, int]) -> np.ndarray:
    """The same out of numbers for 640x480, for images that were made (H, W) = size of such ones."""
    height, width = size
    return np.diag([width / 640, height / 480, 1.0]) @ opencv_matrix(fx, fy, cx, cy)


def read_numbers(path: Path, columns: int | None = None) -> np.ndarray:
    """Rows of numbers [N, C] float64, `#` lines and header words left out.

    Raises:
        DataError: missing, unreadable, or (when `columns` is given) rows shorter than that.
    """
    try:
        lines = [line.replace(",", " ").split() for line in path.read_text("utf-8-sig").splitlines()]
        rows = [[float(word) for word in line] for line in lines if line and not line[0].startswith("#")]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    counts = sorted({len(row) for row in rows})
    if len(counts) > 1:  # as where a file was cut off
        raise DataError(f"{path}: rows of {' and '.join(map(str, counts))} numbers")
    table = np.array(rows, np.float64)
    if table.ndim != 2 or (columns is not None and table.shape[1] < columns):
        raise DataError(f"{path}: expected rows of {columns or 'equally many'} numbers")
    return table


def read_yaml(path: Path) -> Any:
    """A YAML file; the line "%YAML:1.0" that OpenCV's own begin with, which no YAML has, is left out.

    Raises OSError, UnicodeDecodeError or yaml.YAMLError.
    """
    text = path.read_text("utf-8-sig")
    return yaml.safe_load(text.split("\n", 1)[-1] if text.startswith("%YAML:") else text)


def read_rgb(path: Path, camera: Camera | None = None) -> np.ndarray:
    """[H, W, 3] uint8 RGB, undistorted if a camera is given. Raises DataError with the path."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise DataError(f"{path}: not a readable image")
    return _undistorted(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), path, camera, nearest=False)


def read_depth(path: Path, per_metre: float, camera: Camera | None = None) -> np.ndarray:
    """[H, W] float32 metres out of a 16-bit image with `per_metre` units a metre; 0 and 65535 become NaN.

    Raises:
        DataError: unreadable, or not one channel of 16 bits (an 8-bit picture of depth is no depth).
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise DataError(f"{path}: not a readable depth image")
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise DataError(
            f"{path}: depth has to be one channel of 16 bits, this is {raw.dtype} {list(raw.shape)}"
        )
    metres = raw.astype(np.float32) / np.float32(per_metre)
    metres[(raw == 0) | (raw == 65535)] = np.nan
    return _undistorted(metres, path, camera, nearest=True)


def _undistorted(image: np.ndarray, path: Path, camera: Camera | None, nearest: bool) -> np.ndarray:
    if camera is None:
        return image
    try:
        return camera.undistort(image, nearest)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file. Raises DataError."""
    height, width = read_rgb(path).shape[:2]
    return height, width


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, numbers in their order (2 before 10); not those that macOS hides."""
    files = folder.iterdir() if folder.is_dir() else ()
    found = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(found, key=lambda p: (len(p.stem), p.stem))


def is_pose(matrix: np.ndarray) -> bool:
    """True for a finite rigid motion [4, 4] (rotation within 1e-2, printed digits being few)."""
    if not np.isfinite(matrix).all():
        return False
    turn = matrix[:3, :3]
    return bool(np.abs(turn @ turn.T - np.eye(3)).max() < 1e-2 and np.linalg.det(turn) > 0)


def nearest(stamps: np.ndarray, wanted: np.ndarray, within: float) -> np.ndarray:
    """For each wanted time the index of the nearest of the rising `stamps`, or -1 if none is `within`."""
    if len(stamps) == 0:
        return np.full(len(wanted), -1)
    right = np.clip(np.searchsorted(stamps, wanted), 1, max(len(stamps) - 1, 1))
    right = np.minimum(right, len(stamps) - 1)
    left = np.maximum(right - 1, 0)
    best = np.where(np.abs(stamps[left] - wanted) <= np.abs(stamps[right] - wanted), left, right)
    return np.where(np.abs(stamps[best] - wanted) <= within, best, -1)


def missing_numbers(numbers: Seq[int]) -> int:
    """How many frames are missing in a run of frame numbers with one step (the most frequent one)."""
    steps = np.diff(numbers)
    if len(steps) == 0:
        return 0
    step = int(np.bincount(steps).argmax())
    return int(sum(max(round(s / step) - 1, 0) for s in steps))


@dataclass
class Skipped:
    """Frames of one sequence that are left out: how many, why, and which."""

    sequence: str
    total: int
    frames: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, frame: str) -> None:
        """Leave out one frame."""
        self.frames.setdefault(reason, []).append(frame)

    def notes(self) -> tuple[str, ...]:
        """One sentence a reason. Raises DataError when at least half of the frames are left out."""
        out = []
        for reason, names in self.frames.items():
            shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
            out.append(f"{len(names)} of {self.total} frames skipped: {reason} ({shown})")
        gone = sum(map(len, self.frames.values()))
        if gone >= self.total * _MAX_SKIPPED_SHARE or self.total - gone < 2:
            raise DataError(f"{self.sequence}: refused, {'; '.join(out) or f'only {self.total} frames'}")
        return tuple(out)
