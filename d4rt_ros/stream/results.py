"""What the pipeline says about one window: plain numpy, ready to become messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from d4rt_ros.camera import Camera
from d4rt_ros.stream.frames import Window

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike


class Forgotten(RuntimeError):
    """All windows were forgotten while this one was being processed."""


@dataclass(frozen=True)
class Cloud:
    """Points with optional colour, confidence and velocity, in request or raster order.

    Attributes:
        xyz: [N, 3] float32, metres when the result is metric, else scene units; finite.
        rgb: [N, 3] uint8.
        confidence: [N] float32 in 0..1.
        velocity: [N, 3] float32, units of xyz per second, axes of xyz.
    """

    xyz: np.ndarray
    rgb: np.ndarray | None = None
    confidence: np.ndarray | None = None
    velocity: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of points."""
        return len(self.xyz)


@dataclass(frozen=True)
class Tracks:
    """N points over the T frames of a window.

    Attributes:
        stamps: T stamps, nanoseconds.
        ids: [N] int64 in 0..2**32-1, the same for the same point in every window.
        xyz: [T, N, 3] float32, in one frame for all stamps (see frame); NaN where unanswered.
        uv: [T, N, 2] float32, 0..1 over the image; outside 0..1 or NaN where the point is not in the image.
        visibility: [T, N] float32, probability that the point is seen in the frame.
        confidence: [T, N] float32 in 0..1.
        velocity: [N, 3] float32, over the window, relative to the world, axes and units of xyz per second;
            NaN where unanswered.
        metric: True where xyz is in metres.
        frame: "camera" (the optical frame of the window's newest image) or "world".
    """

    stamps: tuple[int, ...]
    ids: np.ndarray
    xyz: np.ndarray
    uv: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray
    velocity: np.ndarray
    metric: bool
    frame: str

    def __len__(self) -> int:
        """Number of points."""
        return len(self.ids)


@dataclass(frozen=True)
class WindowResult:
    """Everything that one window gave. Nothing in it is changed after it was made.

    Attributes:
        scene: the encoded window; answers further queries in its own units (see scale).
        window: the frames.
        stamps: stamps of the frames, nanoseconds.
        frame_id: optical frame of the newest frame.
        image_size: (H, W) of the images.
        intrinsics: [3, 3] float64 K in pixels of the images, pixel centres at integer + .5.
        intrinsics_known: True where they were given, False where they were estimated.
        poses: [T, 4, 4] float64 world_from_camera; world: x forward, z up, from the first camera after a
            start or a break of the stream, with the axes of the robot's base where that is known, else of
            that camera (REP-103); camera: optical. None where not found; notes say why.
        covariance: [T, 6, 6] float64 in the order x, y, z, rotation about x, y, z in the world's axes, units
            of poses and radians; None without poses.
        segment: counts up when windows could not be joined. After a break of the stream the new one begins at
            the origin, after a lost join where the camera was last seen; its units are new in both cases.
        join_residual: median distance of the joined points over their depth; None where nothing was joined.
        metric: True where all lengths are metres, else they are units of the segment.
        scale: factor from the scene's units to the units of this result.
        scale_state: source of the scale and how sure it is, in words.
        depth: [H, W] float32 of the newest frame, NaN below the least confidence; asked for at points_stride
            and interpolated in between, but not over edges.
        points: the newest frame's points in its camera frame, rgb and confidence.
        dynamic: points that move in the world, in the newest camera's frame, velocity and confidence.
        map_points: still points of the segment in the world, rgb.
        tracks: followed points over the window, in the newest camera's frame.
        notes: refusals and events in sentences.
        seconds: time spent by name of the step, what others did in between left out; "total" with it.
    """

    scene: SceneLike | None
    window: Window
    stamps: tuple[int, ...]
    frame_id: str
    image_size: tuple[int, int]
    intrinsics: np.ndarray | None = None
    intrinsics_known: bool = False
    poses: np.ndarray | None = None
    covariance: np.ndarray | None = None
    segment: int = 0
    join_residual: float | None = None
    metric: bool = False
    scale: float = 1.0
    scale_state: str = ""
    depth: np.ndarray | None = None
    points: Cloud | None = None
    dynamic: Cloud | None = None
    map_points: Cloud | None = None
    tracks: Tracks | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def camera(self) -> Camera | None:
        """Calibration of the images as they were published; None: unknown."""
        return self.window.newest.camera
