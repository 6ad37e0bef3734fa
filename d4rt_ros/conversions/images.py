"""Images to arrays and arrays to images."""

from __future__ import annotations

from typing import Any

import numpy as np

from d4rt_ros.conversions.common import MessageTypes, header
from d4rt_ros.images import decode_compressed, decode_depth, decode_rgb


def _bytes(data: Any) -> np.ndarray:
    """Bytes of a message (array.array, bytes or numpy) as a writable-if-possible [N] uint8 view."""
    return data.view(np.uint8) if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)


def image_array(message: Any) -> np.ndarray:
    """sensor_msgs/Image to [H, W, 3] uint8 RGB. Raises ValueError as ``images.decode_rgb`` does."""
    m = message
    return decode_rgb(m.encoding, m.height, m.width, m.step, bool(m.is_bigendian), _bytes(m.data))


def compressed_image_array(message: Any) -> np.ndarray:
    """sensor_msgs/CompressedImage to [H, W, 3] uint8 RGB. Raises as ``images.decode_compressed`` does."""
    return decode_compressed(message.format, _bytes(message.data))


def depth_array(message: Any) -> np.ndarray:
    """sensor_msgs/Image 16UC1 (mm) or 32FC1 (m) to [H, W] float32 metres, NaN invalid. Raises ValueError."""
    m = message
    return decode_depth(m.encoding, m.height, m.width, m.step, bool(m.is_bigendian), _bytes(m.data))


def depth_image(types: MessageTypes, stamp: int, frame_id: str, depth: np.ndarray) -> Any:
    """[H, W] metres (NaN: unknown) to sensor_msgs/Image 32FC1 (REP-118)."""
    return _image(types, stamp, frame_id, "32FC1", np.ascontiguousarray(depth, "<f4"))


def rgb_image(types: MessageTypes, stamp: int, frame_id: str, image: np.ndarray) -> Any:
    """[H, W, 3] uint8 RGB to sensor_msgs/Image rgb8."""
    return _image(types, stamp, frame_id, "rgb8", np.ascontiguousarray(image, np.uint8))


def _image(types: MessageTypes, stamp: int, frame_id: str, encoding: str, pixels: np.ndarray) -> Any:
    return types.make(
        "sensor_msgs/msg/Image",
        header=header(types, stamp, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=types.array("B", pixels.view(np.uint8)),
    )
