"""Settings of the pipeline, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

SCALE_SOURCES = ("none", "fixed", "depth", "odometry")

# Least and greatest value of every number, both allowed. The node's parameter ranges are read from here.
RANGES: dict[str, tuple[float, float]] = {
    "window_length": (2, 256),
    "window_stride": (1, 256),
    "frame_step": (1, 1000),
    "max_gap": (0.001, 3600.0),
    "history_windows": (1, 64),
    "points_stride": (1, 64),
    "points_min_confidence": (0.0, 1.0),
    "dynamic_min_speed": (0.0, 1000.0),
    "map_voxel_size": (0.0001, 1000.0),
    "map_max_points": (1, 10_000_000),
    "tracks_grid": (0, 256),
    "tracks_max_points": (1, 65_536),
    "pose_grid": (2, 128),
    "scale_value": (1e-6, 1e6),
    "query_max_points": (1, 10_000_000),
    "query_queue": (1, 10_000),
}


@dataclass(frozen=True)
class StreamSettings:
    """All settings of the pipeline that have nothing to do with ROS.

    Attributes:
        window_length: frames in a window, even.
        window_stride: new frames between two windows; at most the length, and less for windows to be joined.
        frame_step: every n-th frame is used.
        max_gap: a longer silence of the camera, or time going back by more, starts over; seconds.
        history_windows: windows kept for services.
        points_stride: pixels between points of the clouds.
        points_min_confidence: less sure points and depths are left out, 0..1.
        dynamic_min_speed: slower points count as still, metres (units without a metric scale) per second.
        map_voxel_size: one map point is kept per cube with this side, metres or units.
        map_max_points: map points kept at most, oldest given up first.
        tracks_grid: points followed without being asked for, per image side; 0: none.
        tracks_max_points: points followed at most.
        pose_grid: points per image side that poses are solved from.
        scale_source: none, fixed, depth or odometry.
        scale_value: metres per unit for scale_source fixed.
        query_max_points: points in one request at most.
        query_queue: requests waiting at most.

    Raises:
        ValueError: a value is out of range; the message names field, value and range.
    """

    window_length: int = 8
    window_stride: int = 4
    frame_step: int = 1
    max_gap: float = 1.0
    history_windows: int = 4
    points_stride: int = 8
    points_min_confidence: float = 0.3
    dynamic_min_speed: float = 0.1
    map_voxel_size: float = 0.05
    map_max_points: int = 200_000
    tracks_grid: int = 8
    tracks_max_points: int = 1024
    pose_grid: int = 8
    scale_source: str = "none"
    scale_value: float = 1.0
    query_max_points: int = 100_000
    query_queue: int = 64

    def __post_init__(self) -> None:
        """Check every field."""
        for field in fields(self):
            if field.name not in RANGES:
                continue
            value, (low, high) = getattr(self, field.name), RANGES[field.name]
            whole = field.type == "int"
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"{field.name} is {value!r}; it must be {kind} from {low} to {high}")
        if self.window_length % 2:
            raise ValueError(f"window_length is {self.window_length}; it must be even, from 2 to 256")
        if self.window_stride > self.window_length:
            raise ValueError(
                f"window_stride is {self.window_stride}; it must be from 1 to window_length, "
                f"which is {self.window_length}"
            )
        if self.scale_source not in SCALE_SOURCES:
            raise ValueError(
                f"scale_source is {self.scale_source!r}; it must be one of {', '.join(SCALE_SOURCES)}"
            )
