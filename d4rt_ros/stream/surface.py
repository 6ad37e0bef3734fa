"""What the newest frame of a window shows: one decode for depth image, cloud, moving points and map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from d4rt_ros.stream.glance import Glance, Grid
from d4rt_ros.stream.results import Cloud
from d4rt_ros.tasks.ask import asked_grid
from d4rt_ros.tasks.motion import moving_points

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike

MOTION_SAMPLES = 4  # frames in which a point's motion is judged
SMOOTH = 0.05  # relative step of depth between asked pixels that still is one surface
BAND = 40_960  # pixels of an image that are worked on at once


@dataclass(frozen=True)
class Surface:
    """A grid of pixels over the newest frame; lengths in the scene's units.

    Attributes:
        shape: rows and columns of the grid, rows x columns = N.
        xyz: [N, 3] float32 in the newest camera, finite.
        confidence: [N] float32.
        valid: [N] bool, confidence high enough and in front of the camera.
        image: [H, W, 3] uint8, the frame.
    """

    shape: tuple[int, int]
    xyz: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    image: np.ndarray

    @cached_property
    def rgb(self) -> np.ndarray:
        """[N, 3] uint8 colours of the pixels."""
        row, column = (
            ((np.arange(n) + 0.5) * (size / n)).astype(np.int64)
            for n, size in zip(self.shape, self.image.shape)
        )
        return np.asarray(self.image[row[:, None], column].reshape(-1, 3))

    def depth(self, size: tuple[int, int], factor: float) -> np.ndarray:
        """Depth [H, W] float32 of the whole image; NaN where not valid.

        Between the asked pixels depth is interpolated on a surface; at an edge it is the nearest pixel's.
        """
        depth = np.where(self.valid, self.xyz[:, 2] * np.float32(factor), np.float32(np.nan))
        depth = depth.reshape(self.shape)
        if self.shape == size:
            return depth
        height, width = size
        image = cv2.resize(depth, (width, height), interpolation=cv2.INTER_LINEAR)
        wide = cv2.resize(depth, (width, len(depth)), interpolation=cv2.INTER_NEAREST_EXACT)
        _sharpen(image, wide, wide * np.float32(SMOOTH), _nearest_rows(len(depth), height))
        return image

    def cloud(self, factor: float) -> Cloud:
        """The valid points."""
        keep = self.valid
        return Cloud(self.xyz[keep] * np.float32(factor), self.rgb[keep], self.confidence[keep])


def _sharpen(image: np.ndarray, rows: np.ndarray, margin: np.ndarray, index: np.ndarray) -> None:
    """Put rows' values into an image where it differs from them by more than a margin, or is NaN; in place.

    In bands that stay in the cache: memory that is written anew takes most of the time. OpenCV's way needs
    two thirds of numpy's.

    Args:
        image: [H, W] float32.
        rows: [R, W] float32.
        margin: [R, W] float32.
        index: [H] of the row that belongs to each of the image's.
    """
    width = image.shape[1]
    size = max(1, BAND // width)
    values, margins, apart = (np.empty((size, width), np.float32) for _ in range(3))
    far = np.empty((size, width), np.uint8)
    for start in range(0, len(image), size):
        which, band = index[start : start + size], image[start : start + size]
        count = len(band)
        value, least, off, mask = values[:count], margins[:count], apart[:count], far[:count]
        rows.take(which, 0, value, "clip")
        margin.take(which, 0, least, "clip")
        cv2.absdiff(band, value, off)
        cv2.bitwise_not(cv2.compare(off, least, cv2.CMP_LE, mask), mask)  # also where a NaN compares as false
        cv2.copyTo(value, mask, band)


@lru_cache(maxsize=8)
def _nearest_rows(count: int, height: int) -> np.ndarray:
    """[height] which of so many rows is nearest to each row of an image, as OpenCV has it."""
    index = np.arange(count, dtype=np.float32)[:, None]
    return np.asarray(cv2.resize(index, (1, height), interpolation=cv2.INTER_NEAREST_EXACT)[:, 0], np.int64)


@dataclass(frozen=True)
class Moving:
    """Which points of a surface move in the world.

    Attributes:
        moving: [N] bool.
        still: [N] bool; what could not be judged is neither.
        velocity: [N, 3] float32 in the newest camera's axes, scene units per second.
        note: why nothing could be judged, in a sentence; empty if something was.
    """

    moving: np.ndarray
    still: np.ndarray
    velocity: np.ndarray
    note: str


def surface_grid(scene: SceneLike, stride: int) -> Grid:
    """What `newest_surface` asks: every `stride`-th pixel of the newest frame, in both directions."""
    height, width = scene.image_size
    newest = scene.num_frames - 1
    return Grid(-(-height // stride), -(-width // stride), (newest,), newest)


def newest_surface(glance: Glance, image: np.ndarray, stride: int, min_confidence: float) -> Surface:
    """Ask for the pixels of the newest frame.

    Args:
        glance: asks the window.
        image: [H, W, 3] uint8, the newest frame.
        stride: pixels of the image per point, in both directions.
        min_confidence: points below it are not valid.
    """
    grid = surface_grid(glance.scene, stride)
    found = glance.points(grid)
    sure = found.confidence
    valid = (sure > 0.0) & (sure >= min_confidence) & (found.xyz[:, 2] > 0.0)
    return Surface((grid.rows, grid.columns), found.xyz, sure, valid, image)


def judge(scene: SceneLike, surface: Surface, min_speed: float, min_confidence: float) -> Moving:
    """Tell moving from still points of a surface.

    Args:
        scene: the window.
        surface: of its newest frame.
        min_speed: slower points are still, scene units per second.
        min_confidence: answers below it do not count.
    """
    newest = scene.num_frames - 1
    u, v = asked_grid(*surface.shape, scene.device)
    found = moving_points(scene, u, v, newest, newest, MOTION_SAMPLES, min_speed, min_confidence)
    judged, moving = (part.cpu().numpy() & surface.valid for part in (found.judged, found.moving))
    velocity = found.velocity.float().cpu().numpy()
    return Moving(moving, judged & ~moving, velocity, "" if found.ok else f"motion: {found.reason}")
