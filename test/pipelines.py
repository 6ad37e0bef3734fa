"""Pipelines over the room of room.py, and what is true of their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from room import SIZE, STEP_NS, Ball, Room, camera_path, frames

from d4rt_ros.model import Queries
from d4rt_ros.stream import (
    Pipeline,
    StreamSettings,
    Window,
    WindowResult,
)
from d4rt_ros.stream.join import WORLD_FROM_FIRST
from d4rt_ros.tasks.geometry import invert

NOTHING: frozenset[str] = frozenset()
BALL = Ball((0.7, -0.25, 3), (0.4, 0.1, 0), 0.7)


class Rooms:
    """A model whose scenes are exact; fields of Room are set from the test."""

    def __init__(self, **room: object) -> None:
        """Every window has a scale of its own, the first one a metre."""
        self.room = room
        self.change: Callable[[Room], Room] = lambda room: room
        self.fail: list[Exception] = []

    def encode(self, video: torch.Tensor, stamps: tuple[int, ...]) -> Room:
        """The room at these stamps."""
        assert video.dtype == torch.uint8 and video.shape == (len(stamps), 3, *SIZE)
        if self.fail:
            raise self.fail.pop(0)
        unit = 1 + 0.5 * np.sin(5 * stamps[0] / 1e9)
        return self.change(Room(stamps, **{"unit": unit, **self.room}))  # type: ignore[arg-type]


def make(model: object = None, **settings: object) -> Pipeline:
    """A pipeline with every pixel a point and a coarse map."""
    values = {"points_stride": 1, "map_voxel_size": 0.2, "tracks_grid": 3, "pose_grid": 8, **settings}
    return Pipeline(model or Rooms(), StreamSettings(**values))  # type: ignore[arg-type]


def window(first: int, starts: bool = False, reason: str = "", **fields: object) -> Window:
    """Eight frames from this one on."""
    return Window(frames(first, 8, **fields), starts, reason)


def truth(result: WindowResult) -> np.ndarray:
    """[T, 4, 4] true poses in metres in the world of the first camera."""
    return WORLD_FROM_FIRST @ invert(camera_path(np.zeros(1))) @ camera_path(np.array(result.stamps) / 1e9)


def check_sound(result: WindowResult) -> None:
    """Nothing that is said to be finite is not."""
    for cloud in (result.points, result.dynamic, result.map_points):
        if cloud is not None:
            assert np.isfinite(cloud.xyz).all() and cloud.xyz.dtype == np.float32
    if result.poses is not None:
        assert np.isfinite(result.poses).all() and result.covariance is not None
        assert np.isfinite(result.covariance).all()
    assert result.intrinsics is None or np.isfinite(result.intrinsics).all()
    assert np.isfinite(result.scale)


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """u, v [H, W] of the pixel centres."""
    v, u = np.meshgrid(
        (np.arange(SIZE[0]) + 0.5) / SIZE[0], (np.arange(SIZE[1]) + 0.5) / SIZE[1], indexing="ij"
    )
    return u.astype(np.float32), v.astype(np.float32)


def true_depth(first: int) -> Window:
    """A window whose frames carry depth images."""
    u, v = pixels()
    made = []
    for i, frame in enumerate(frames(first, 8)):
        room = Room(tuple(frame.stamp + k * STEP_NS for k in range(2)))
        answers = room.decode(Queries.make(torch.from_numpy(u.ravel()), torch.from_numpy(v.ravel()), 0, 0, 0))
        depth = answers.xyz[:, 2].numpy().reshape(SIZE).copy()
        depth[i % 4 :: 4] = np.nan
        made.append(replace(frame, depth=depth))
    return Window(tuple(made))
