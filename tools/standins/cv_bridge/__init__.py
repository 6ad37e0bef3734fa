"""Stand-in for cv_bridge: images between messages and numpy arrays."""

from __future__ import annotations

import re
import sys
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

_DTYPES = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}
# OpenCV names a Bayer pattern by its second row and column, ROS by its first.
_BAYER = {"rggb": "BayerBG", "bggr": "BayerRG", "gbrg": "BayerGR", "grbg": "BayerGB"}
_YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUY2", "yuyv": "YUY2"}
_COLOURS = {
    "mono": ("GRAY", 1),
    "rgb": ("RGB", 3),
    "bgr": ("BGR", 3),
    "rgba": ("RGBA", 4),
    "bgra": ("BGRA", 4),
}


class CvBridgeError(TypeError):
    """An image cannot be converted."""


def _colour(encoding: str) -> tuple[str, int] | None:
    """Returns OpenCV's name of the colour space and the bits; None of encodings without a meaning (32FC1)."""
    if encoding in _YUV:
        return _YUV[encoding], 8
    match = re.fullmatch(r"(mono|rgba|bgra|rgb|bgr)(8|16)|bayer_(rggb|bggr|gbrg|grbg)(8|16)", encoding)
    if match is None:
        return None
    plain, bits, pattern, pattern_bits = match.groups()
    return (_COLOURS[plain][0], int(bits)) if plain else (_BAYER[pattern], int(pattern_bits))


def _convert(image: np.ndarray, source: str, target: str) -> np.ndarray:
    """Converts colour space and depth; between 8 and 16 bits full range goes onto full range."""
    old, new = _colour(source), _colour(target)
    if source == target or new is None or old is None:
        if source != target and CvBridge().encoding_to_dtype_with_channels(target)[1] != (
            1 if image.ndim == 2 else image.shape[2]
        ):
            raise CvBridgeError(f"[{source}] and [{target}] do not have the same number of channels")
        return image
    (old_name, old_bits), (new_name, new_bits) = old, new
    if old_name != new_name:
        name = f"COLOR_YUV2{new_name}_{old_name}" if source in _YUV else f"COLOR_{old_name}2{new_name}"
        if not hasattr(cv2, name):
            raise CvBridgeError(f"[{source}] cannot be converted to [{target}]")
        image = cv2.cvtColor(image, getattr(cv2, name))
    if old_bits != new_bits:
        scale = (2**new_bits - 1) / (2**old_bits - 1)
        image = np.rint(image * scale).astype(np.uint8 if new_bits == 8 else np.uint16)
    return image


class CvBridge:
    """Converts between sensor_msgs images and OpenCV's arrays."""

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Returns numpy's name of the element type and the number of channels of an encoding."""
        match = re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)C([1-9][0-9]*)", encoding)
        if match:
            return _DTYPES[match.group(1)], int(match.group(2))
        if encoding in _YUV:
            return "uint8", 2
        colour = _colour(encoding)
        if colour is None:
            raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")
        channels = dict(_COLOURS.values()).get(colour[0], 1)
        return f"uint{colour[1]}", channels

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """Returns [H, W] or [H, W, C] of a message, in its own or another encoding.

        Raises:
            CvBridgeError: an encoding is unknown, or there is no conversion.
        """
        name, channels = self.encoding_to_dtype_with_channels(img_msg.encoding)
        dtype = np.dtype(name).newbyteorder(">" if img_msg.is_bigendian else "<")
        rows = np.ndarray((img_msg.height, img_msg.step // dtype.itemsize), dtype, buffer=img_msg.data)
        image = np.ascontiguousarray(rows[:, : img_msg.width * channels]).astype(np.dtype(name), copy=False)
        if channels > 1:
            image = image.reshape(img_msg.height, img_msg.width, channels)
        if desired_encoding == "passthrough":
            return image
        return _convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = "passthrough", header: Any = None) -> Image:
        """Returns a message with the array's values.

        Raises:
            CvBridgeError: the encoding does not fit the array.
        """
        if not isinstance(cvim, np.ndarray | np.generic):
            raise TypeError("Your input type is not a numpy array")
        channels = 1 if cvim.ndim < 3 else cvim.shape[2]
        code = {name: code for code, name in _DTYPES.items()}[cvim.dtype.name]
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=f"{code}C{channels}")
        if header is not None:
            message.header = header
        if encoding != "passthrough":
            if self.encoding_to_dtype_with_channels(encoding) != (cvim.dtype.name, channels):
                raise CvBridgeError(
                    f"encoding specified as {encoding}, but image has incompatible type {message.encoding}"
                )
            message.encoding = encoding
        message.is_bigendian = sys.byteorder == "big"
        message.data.frombytes(np.ascontiguousarray(cvim).data.cast("B"))
        message.step = len(message.data) // message.height
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> np.ndarray:
        """Returns the decoded image, bgr8 or mono8 where nothing else is asked for.

        Raises:
            CvBridgeError: the data is no image.
        """
        image = cv2.imdecode(np.frombuffer(cmprs_img_msg.data, np.uint8), cv2.IMREAD_ANYCOLOR)
        if image is None:
            raise CvBridgeError(f"cannot decode compressed image of format [{cmprs_img_msg.format}]")
        if desired_encoding == "passthrough":
            return image
        return _convert(image, "mono8" if image.ndim == 2 else "bgr8", desired_encoding)

    def cv2_to_compressed_imgmsg(self, cvim: np.ndarray, dst_format: str = "jpg") -> CompressedImage:
        """Returns a message with the image (bgr8 or mono8) as a file of that format."""
        done, data = cv2.imencode("." + dst_format, cvim)
        if not done:
            raise CvBridgeError(f"cannot encode as {dst_format}")
        message = CompressedImage(format=dst_format)
        message.data.frombytes(data.tobytes())
        return message
