"""Calibrations, and pixels as messages count them: ROS has their centres at integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from d4rt_ros.camera import Camera
from d4rt_ros.conversions.common import MessageTypes, header


def camera(message: Any, rectified: bool = False) -> Camera | None:
    """sensor_msgs/CameraInfo to a ``Camera`` for images as they are published.

    Binning and region of interest are applied, as the message's comments ask.

    Args:
        message: the CameraInfo.
        rectified: the images had their distortion taken out already (image_proc's ``image_rect``): the
            intrinsics are then those of the projection matrix, without distortion.

    Returns:
        the camera, or None for an uncalibrated one (k[0] is 0).

    Raises:
        ValueError: values that no camera has; the text names them.
    """
    k = np.array(message.k, np.float64).reshape(3, 3)
    p = np.array(message.p, np.float64).reshape(3, 4)
    if rectified and p[0, 0] != 0:
        k = p[:, :3].copy()
    if k[0, 0] == 0:
        return None
    height, width = int(message.height), int(message.width)
    if message.roi.width and message.roi.height:
        height, width = int(message.roi.height), int(message.roi.width)
    k[0, 2] += 0.5 - message.roi.x_offset
    k[1, 2] += 0.5 - message.roi.y_offset
    bins = max(int(message.binning_x), 1), max(int(message.binning_y), 1)
    k[0] /= bins[0]
    k[1] /= bins[1]
    coefficients = () if rectified else tuple(float(value) for value in message.d)
    return Camera((height // bins[1], width // bins[0]), k, message.distortion_model, coefficients)


def camera_info(
    types: MessageTypes,
    stamp: int,
    frame_id: str,
    image_size: tuple[int, int],
    intrinsics: np.ndarray,
    model: str = "plumb_bob",
    coefficients: Sequence[float] = (0.0,) * 5,
) -> Any:
    """Intrinsics of this package to sensor_msgs/CameraInfo.

    Args:
        types: message classes.
        stamp: nanoseconds.
        frame_id: optical frame.
        image_size: (H, W).
        intrinsics: [3, 3], pixel centres at integer + 0.5.
        model: distortion model's name.
        coefficients: of the model; zeros for an ideal lens.
    """
    k = np.array(intrinsics, np.float64)
    k[:2, 2] -= 0.5
    return types.make(
        "sensor_msgs/msg/CameraInfo",
        header=header(types, stamp, frame_id),
        height=int(image_size[0]),
        width=int(image_size[1]),
        distortion_model=model,
        d=types.array("d", np.asarray(coefficients, np.float64)),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.concatenate([k, np.zeros((3, 1))], axis=1).ravel(),
    )


def pixels_to_uv(u: Any, v: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels as in messages (centres at integers) to uv.

    Args:
        u: N columns, a sequence of float.
        v: N rows.
        image_size: (H, W).

    Returns:
        [N, 2] float32 in 0..1 over the image.

    Raises:
        ValueError: unequal lengths, or a pixel that is not finite or lies outside the image; the text names
            it.
    """
    if len(u) != len(v):
        raise ValueError(f"u has {len(u)} values and v has {len(v)}; both need one for every point")
    uv = np.empty((2, len(u)), np.float32)  # column by column, as the network takes them
    uv[0], uv[1] = u, v
    height, width = image_size
    uv += np.float32(0.5)
    # NaN spreads, and fails here too.
    if uv.size and not (uv.min() >= 0.0 and uv[0].max() <= width and uv[1].max() <= height):
        inside = (uv >= 0.0) & (uv <= np.array([[width], [height]], np.float32))
        axis = int(np.argmin(inside.all(axis=1)))
        first = int(np.argmin(inside[axis]))
        raise ValueError(
            f"{'uv'[axis]}[{first}] is {(u, v)[axis][first]:g}, outside the image: from -0.5 to "
            f"{image_size[1 - axis] - 0.5:g} is allowed"
        )
    uv[0] /= np.float32(width)
    uv[1] /= np.float32(height)
    return uv.T


def uv_to_pixels(uv: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Uv [..., 2] to pixels as in messages (centres at integers), float32; outside and NaN stay so."""
    uv = np.asarray(uv, np.float32)
    pixels = np.empty_like(uv)
    for axis, extent in enumerate(image_size[::-1]):  # numpy takes four times as long over a last axis of 2
        np.multiply(uv[..., axis], np.float32(extent), out=pixels[..., axis])
    pixels -= np.float32(0.5)
    return pixels
