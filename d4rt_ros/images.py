"""Pixels of camera drivers to arrays: RGB bytes for the network, metres for depth.

Encodings are those of ``sensor_msgs/image_encodings.hpp``. Every function refuses what it does not
understand with a ``ValueError`` whose text names the field, the value and what is accepted.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two.
_BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
_YUV422 = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}
# encoding -> (bytes of one channel, channels)
_LAYOUT = {
    "rgb8": (1, 3),
    "bgr8": (1, 3),
    "rgba8": (1, 4),
    "bgra8": (1, 4),
    "mono8": (1, 1),
    "mono16": (2, 1),
    **dict.fromkeys(_YUV422, (1, 2)),
    **{name + "8": (1, 1) for name in _BAYER},
    **{name + "16": (2, 1) for name in _BAYER},
}
ENCODINGS = tuple(_LAYOUT)
MAX_PIXELS = 1 << 26
_PNG = b"\x89PNG\r\n\x1a\n"
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")


def _rows(height: int, width: int, step: int, data: np.ndarray, item: np.dtype, channels: int) -> np.ndarray:
    """The pixels as a view [H, W, C] (or [H, W]), row padding left out, in the byte order of ``item``."""
    used = width * channels * item.itemsize
    if height < 1 or width < 1:
        raise ValueError(f"image of {width}x{height} pixels has no content")
    if step < used:
        raise ValueError(f"step {step} is below the {used} bytes that a row of {width} pixels needs")
    if data.size < step * height:
        raise ValueError(
            f"data is truncated: {data.size} bytes, but step {step} times height {height} is {step * height}"
        )
    rows = data[: step * height].reshape(height, step)[:, :used]
    if item.itemsize > 1:
        # A view as wider items needs contiguous rows; without padding this copies nothing.
        rows = np.ascontiguousarray(rows).view(item)
    return rows.reshape(height, width, channels) if channels > 1 else rows


def _as_8_bits(values: np.ndarray) -> np.ndarray:
    """16-bit intensities to 8 bits, full range onto full range, as cv_bridge does."""
    return cv2.convertScaleAbs(np.ascontiguousarray(values, np.uint16), alpha=1.0 / 257.0)


def decode_rgb(
    encoding: str, height: int, width: int, step: int, big_endian: bool, data: np.ndarray
) -> np.ndarray:
    """Turns raw image bytes into RGB.

    Args:
        encoding: one of ``ENCODINGS``.
        height: rows in pixels.
        width: columns in pixels.
        step: bytes from one row to the next, padding included.
        big_endian: byte order of 16-bit channels.
        data: [step * height] uint8.

    Returns:
        [H, W, 3] uint8; for unpadded rgb8 a view of ``data``, else a new array.

    Raises:
        ValueError: unknown encoding, impossible step or size, or too few bytes.
    """
    if encoding not in _LAYOUT:
        raise ValueError(f"encoding '{encoding}' is not supported; supported are {', '.join(ENCODINGS)}")
    size, channels = _LAYOUT[encoding]
    item = np.dtype(np.uint8) if size == 1 else np.dtype(">u2" if big_endian else "<u2")
    if encoding in _YUV422 and width % 2:
        raise ValueError(f"width {width} is odd, but {encoding} holds pixels in pairs")
    if encoding.startswith("bayer_") and (width < 3 or height < 3):
        raise ValueError(f"image of {width}x{height} pixels is too small for {encoding}: 3x3 at least")
    pixels = _rows(height, width, step, data, item, channels)
    if encoding == "rgb8":
        return np.ascontiguousarray(pixels)
    if encoding == "bgr8":
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if encoding == "rgba8":
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    if encoding == "bgra8":
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
    if encoding in _YUV422:
        return cv2.cvtColor(pixels, _YUV422[encoding])
    if size == 2:
        pixels = _as_8_bits(pixels)
    if encoding.startswith("mono"):
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(pixels, _BAYER[encoding.rstrip("0123456789")])


def _announced_size(data: bytes) -> tuple[int, int]:
    """(H, W) that a JPEG or PNG file says it has. Raises ValueError for anything else."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # padding
            place += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return height, width
        else:
            place += 2 + max(2, struct.unpack(">H", data[place + 2 : place + 4])[0])
    raise ValueError(
        f"compressed image of {len(data)} bytes is neither JPEG nor PNG, or is cut off in its head"
    )


def _check_chunks(data: bytes) -> None:
    """Raises ValueError for a PNG file with a chunk that ends behind its end.

    OpenCV makes room for what a chunk announces, up to 4 GiB, before it looks for it.
    """
    place, kind = 8, b""
    while kind != b"IEND" and place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        place += 12 + length
    if place > len(data):
        raise ValueError(f"compressed image of {len(data)} bytes is cut off: a part of it ends at {place}")


def decode_compressed(image_format: str, data: np.ndarray) -> np.ndarray:
    """Decodes a JPEG or PNG file held in memory.

    Orientation tags are ignored, so that pixels stay where the camera's calibration has them.

    Args:
        image_format: the message's ``format``, as image_transport writes it (``rgb8; jpeg compressed bgr8``).
        data: the file's bytes [N] uint8.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        ValueError: compressed depth, no decodable image, or one of more than ``MAX_PIXELS``.
    """
    if "compressedDepth" in image_format:
        raise ValueError(f"format '{image_format}' is compressed depth, not a camera image")
    file = data.tobytes()
    height, width = _announced_size(file)
    if height * width > MAX_PIXELS:  # before a small file unfolds into gigabytes
        raise ValueError(
            f"compressed image of {width}x{height} pixels; at most {MAX_PIXELS} pixels are allowed"
        )
    if file.startswith(_PNG):
        _check_chunks(file)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(f"compressed image cannot be decoded: {error}") from None
    if pixels is None:
        raise ValueError(f"compressed image of {data.size} bytes cannot be decoded")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def decode_depth(
    encoding: str, height: int, width: int, step: int, big_endian: bool, data: np.ndarray
) -> np.ndarray:
    """Turns a depth image into metres along the optical axis (REP-118).

    Args:
        encoding: ``16UC1`` (or ``mono16``) in millimetres with 0 for no measurement, or ``32FC1`` in metres.
        height: rows in pixels.
        width: columns in pixels.
        step: bytes from one row to the next.
        big_endian: byte order.
        data: [step * height] uint8.

    Returns:
        [H, W] float32 metres, NaN where nothing was measured (REP-117's infinities included).

    Raises:
        ValueError: another encoding, impossible step or size, or too few bytes.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise ValueError(f"depth encoding '{encoding}' is not supported; supported are 16UC1 and 32FC1")
    order = ">" if big_endian else "<"
    if encoding == "32FC1":
        metres = _rows(height, width, step, data, np.dtype(order + "f4"), 1).astype(np.float32)
        metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
        return metres
    raw = _rows(height, width, step, data, np.dtype(order + "u2"), 1)
    metres = raw.astype(np.float32)
    metres *= np.float32(1e-3)
    metres[raw == 0] = np.nan
    return metres
