"""Depth images as recordings keep them: 16-bit PNG, plain or in the transport `compressedDepth`."""

from __future__ import annotations

import struct

import cv2
import numpy as np

# compressed_depth_image_transport puts this before the PNG: kind, and A, B of the quantisation of 32FC1.
_HEADER = struct.Struct("<iff")


def decode_compressed_depth(image_format: str, data: np.ndarray) -> np.ndarray:
    """Turn compressed depth into metres along the optical axis.

    Args:
        image_format: the message's format: `16UC1; compressedDepth png`, `32FC1; compressedDepth png`, or
            that of a plain 16-bit PNG in millimetres.
        data: [N] uint8.

    Returns:
        [H, W] float32 metres, NaN where nothing was measured.

    Raises:
        ValueError: another compression (RVL), or bytes that cannot be decoded.
    """
    a = b = 0.0
    body = data
    if "compressedDepth" in image_format:
        if "rvl" in image_format.lower():
            raise ValueError(f"depth format '{image_format}' is not supported; supported is PNG")
        if data.size <= _HEADER.size:
            raise ValueError(f"compressed depth holds {data.size} bytes, not even its header")
        _, a, b = _HEADER.unpack(data[: _HEADER.size].tobytes())
        body = data[_HEADER.size :]
    raw = cv2.imdecode(np.ascontiguousarray(body), cv2.IMREAD_UNCHANGED) if body.size else None
    if raw is None or raw.dtype != np.uint16 or raw.ndim != 2:
        raise ValueError(f"depth of format '{image_format}' is no 16-bit PNG")
    metres = np.full(raw.shape, np.nan, np.float32)
    known = raw > 0
    if image_format.startswith("32FC1"):
        metres[known] = a / (
            raw[known].astype(np.float32) - b
        )  # inverse depth, as the transport quantises it
        metres[~(metres > 0)] = np.nan
    else:
        metres[known] = raw[known] * np.float32(1e-3)
    return metres
