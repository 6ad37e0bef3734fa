"""Frames of a video file or a folder of images, as if a camera had sent them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from d4rt_ros.bag.sources import Arrival
from d4rt_ros.stream import Frame

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
FIRST_STAMP = 1_000_000_000  # the first frame is at 1 s: a zero stamp means "the newest" to ROS


class VideoFrames:
    """Frames of a video file, or of a folder's images in the order of the numbers in their names.

    Args:
        path: file or folder.
        fps: frames per second; 0: those of the video file, 30 for a folder.
        frame_id: name of the camera's optical frame.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: it is no video and holds no images, or fps is not above 0.
    """

    def __init__(self, path: Path, fps: float = 0.0, frame_id: str = "camera_optical_frame") -> None:
        """Open it."""
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        self.path, self.frame_id = path, frame_id
        self.damage = ""
        self.unreadable: list[str] = []
        self.images: list[Path] = []
        self.total: int | None
        if path.is_dir():
            shown = (file for file in path.iterdir() if not file.name.startswith("."))  # macOS hides twins
            images = (file for file in shown if file.suffix.lower() in SUFFIXES)
            self.images = sorted(images, key=lambda file: _order(file.name))
            if not self.images:
                raise ValueError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))})")
            _refuse_twins(self.images)
            self.total, own = len(self.images), 30.0
        else:
            capture = cv2.VideoCapture(str(path))
            opened, own = capture.isOpened(), capture.get(cv2.CAP_PROP_FPS)
            self.total = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
            capture.release()
            if not opened:
                raise ValueError(f"{path} is no video that OpenCV can read")
        self.fps = fps or own
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"frames per second are {self.fps:g}; give a number above 0 with --fps")

    def frames(self) -> Iterator[Arrival]:
        """All frames in order; stamps count from FIRST_STAMP."""
        images = self._from_folder() if self.images else self._from_video()
        for number, image in images:
            stamp = FIRST_STAMP + round(number * 1e9 / self.fps)
            yield Arrival(stamp, Frame(stamp, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.frame_id))

    def _from_folder(self) -> Iterator[tuple[int, np.ndarray]]:
        for number, file in enumerate(self.images):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                self.unreadable.append(f"{file} is no image that OpenCV can read")
                continue
            yield number, image

    def _from_video(self) -> Iterator[tuple[int, np.ndarray]]:
        capture = cv2.VideoCapture(str(self.path))
        try:
            number = 0
            while True:
                good, image = capture.read()
                if not good:
                    break
                yield number, image
                number += 1
        finally:
            capture.release()
        # Containers often promise a frame or two more than they hold.
        if self.total is not None and number < 0.9 * self.total:
            self.damage = f"{self.path} is damaged: {number} of its {self.total} frames could be read"


def _order(name: str) -> list[str | int]:
    """Key that puts frame2 before frame10; words and numbers take turns in it."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _refuse_twins(images: list[Path]) -> None:
    """Raise ValueError where several images have one number, as colour and depth of a frame."""
    seen: dict[tuple[str, ...], Path] = {}
    for image in images:
        numbers = tuple(re.findall(r"\d+", image.name))
        twin = seen.setdefault(numbers, image)
        if numbers and twin is not image:
            raise ValueError(
                f"{twin.name} and {image.name} have one number; put the images of one camera in a folder of "
                "their own"
            )
