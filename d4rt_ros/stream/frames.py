"""Frames that go into the pipeline and windows of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d4rt_ros.camera import Camera


@dataclass(frozen=True)
class Frame:
    """One image with what came with it.

    Attributes:
        stamp: time of exposure, integer nanoseconds.
        image: [H, W, 3] uint8, RGB.
        frame_id: name of the camera's optical frame, from the image's header.
        intrinsics: [3, 3] K in pixels, centres at integer + .5, of this (undistorted) image; None: unknown.
        depth: [H, W] float32 metres along the optical axis, NaN where invalid; None: not given.
        odometry: [4, 4] odom_from_camera (optical frame), metres; None: not given.
        camera: calibration of the image as it was published, before it was undistorted; None: unknown.
    """

    stamp: int
    image: np.ndarray
    frame_id: str = ""
    intrinsics: np.ndarray | None = None
    depth: np.ndarray | None = None
    odometry: np.ndarray | None = None
    camera: Camera | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return int(self.image.shape[0]), int(self.image.shape[1])


@dataclass(frozen=True)
class Window:
    """Frames with strictly rising stamps and one image size, oldest first.

    Attributes:
        frames: the frames; their number is the window's length.
        starts_segment: True for the first window after a start, a clear or a break in the stream.
        reason: why the stream started over, in a sentence; empty where it did not.
    """

    frames: tuple[Frame, ...]
    starts_segment: bool = False
    reason: str = ""

    @property
    def stamps(self) -> tuple[int, ...]:
        """Stamps of the frames, nanoseconds, strictly rising."""
        return tuple(frame.stamp for frame in self.frames)

    @property
    def newest(self) -> Frame:
        """The newest frame."""
        return self.frames[-1]
