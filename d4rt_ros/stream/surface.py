"""What the newest frame of a window shows: one decode for depth image, cloud, moving points and map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from d4rt_ros.stream.results import Cloud
from d4rt_ros.tasks.ask import ask, asked_grid, usable
from d4rt_ros.tasks.motion import moving_points

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike

MOTION_SAMPLES = 4  # frames in which a point's motion is judged
SMOOTH = 0.05  # relative step of depth between asked pixels that still is one surface


@dataclass(frozen=True)
class Surface:
    """A grid of pixels over the newest frame; lengths in the scene's units.

    Attributes:
        shape: rows and columns of the grid, rows x columns = N.
        u: [N] 0..1 on the scene's device.
        v: [N].
        xyz: [N, 3] float32 in the newest camera, finite.
        confidence: [N] float32.
        valid: [N] bool, confidence high enough and in front of the camera.
        rgb: [N, 3] uint8.
    """

    shape: tuple[int, int]
    u: torch.Tensor
    v: torch.Tensor
    xyz: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    rgb: np.ndarray

    def depth(self, size: tuple[int, int], factor: float) -> tuple[np.ndarray, np.ndarray]:
        """Depth and confidence [H, W] float32 of the whole image; NaN where not valid.

        Between the asked pixels depth is interpolated on a surface; at an edge it is the nearest pixel's.
        """
        depth = np.where(self.valid, self.xyz[:, 2] * np.float32(factor), np.nan).astype(np.float32)
        depth, sure = depth.reshape(self.shape), self.confidence.reshape(self.shape)
        if self.shape == size:
            return depth, sure
        full = size[::-1]
        nearest = cv2.resize(depth, full, interpolation=cv2.INTER_NEAREST_EXACT)
        smooth = cv2.resize(depth, full, interpolation=cv2.INTER_LINEAR)
        # OpenCV's way needs a fifth of numpy's time. A comparison with NaN is False.
        apart = cv2.absdiff(smooth, nearest)
        cv2.copyTo(smooth, cv2.compare(apart, nearest * np.float32(SMOOTH), cv2.CMP_LE), nearest)
        return nearest, cv2.resize(sure, full, interpolation=cv2.INTER_LINEAR)

    def cloud(self, factor: float) -> Cloud:
        """The valid points."""
        keep = self.valid
        return Cloud(self.xyz[keep] * np.float32(factor), self.rgb[keep], self.confidence[keep])


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


def newest_surface(scene: SceneLike, image: np.ndarray, stride: int, min_confidence: float) -> Surface:
    """Ask for the pixels of the newest frame.

    Args:
        scene: the window.
        image: [H, W, 3] uint8, the newest frame.
        stride: pixels of the image per point, in both directions.
        min_confidence: points below it are not valid.
    """
    height, width = scene.image_size
    shape = -(-height // stride), -(-width // stride)
    u, v = asked_grid(*shape, scene.device)
    newest = scene.num_frames - 1
    answers = ask(scene, u, v, newest, newest, newest)
    valid = usable(answers.confidence, min_confidence) & (answers.xyz[:, 2] > 0)
    row, column = (
        ((np.arange(n) + 0.5) * (size / n)).astype(np.int64) for n, size in zip(shape, (height, width))
    )
    return Surface(
        shape,
        u,
        v,
        answers.xyz.float().cpu().numpy(),
        answers.confidence.float().cpu().numpy(),
        valid.cpu().numpy(),
        image[row[:, None], column].reshape(-1, 3),
    )


def judge(scene: SceneLike, surface: Surface, min_speed: float, min_confidence: float) -> Moving:
    """Tell moving from still points of a surface.

    Args:
        scene: the window.
        surface: of its newest frame.
        min_speed: slower points are still, scene units per second.
        min_confidence: answers below it do not count.
    """
    newest = scene.num_frames - 1
    found = moving_points(
        scene, surface.u, surface.v, newest, newest, MOTION_SAMPLES, min_speed, min_confidence
    )
    judged, moving = (part.cpu().numpy() & surface.valid for part in (found.judged, found.moving))
    velocity = found.velocity.float().cpu().numpy()
    return Moving(moving, judged & ~moving, velocity, "" if found.ok else f"motion: {found.reason}")
