"""Images as they go over the wire (CDR), read and written in one copy: rclpy would make two more."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

_LITTLE_ENDIAN = {1, 7}  # second byte of the encapsulation: CDR and CDR2, least significant byte first
_BIG_ENDIAN = {0, 6}


@dataclass(frozen=True)
class Stamp:
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


@dataclass(frozen=True)
class WireHeader:
    """std_msgs/Header."""

    stamp: Stamp
    frame_id: str


@dataclass(frozen=True)
class WireImage:
    """sensor_msgs/Image, field by field; ``data`` is a view [N] uint8 that is not to be written to."""

    header: WireHeader
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: np.ndarray


def read_image(data: bytes) -> WireImage:
    """A serialized sensor_msgs/Image.

    Raises:
        ValueError: bytes that are no such message.
    """
    if len(data) < 4 or data[1] not in _LITTLE_ENDIAN | _BIG_ENDIAN:
        raise ValueError(f"an image of {len(data)} bytes is not in CDR")
    order, place = "<" if data[1] in _LITTLE_ENDIAN else ">", 4

    def numbers(kinds: str) -> tuple[int, ...]:
        """Numbers of 4 bytes each, aligned to 4 behind the encapsulation's 4 bytes."""
        nonlocal place
        place += -place % 4
        found: tuple[int, ...] = struct.unpack_from(order + kinds, data, place)
        place += 4 * len(kinds)
        return found

    def text() -> str:
        """A string with its length in front and a zero behind."""
        nonlocal place
        (length,) = numbers("I")
        start, place = place, place + length
        return data[start : place - 1].decode()

    try:
        sec, nanosec = numbers("iI")
        frame_id = text()
        height, width = numbers("II")
        encoding = text()
        is_bigendian = data[place]
        place += 1
        step, size = numbers("II")
        pixels = np.frombuffer(data, np.uint8, size, place)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"an image of {len(data)} bytes is cut off or damaged: {error}") from None
    return WireImage(
        WireHeader(Stamp(sec, nanosec), frame_id), height, width, encoding, is_bigendian, step, pixels
    )


def image_bytes(message: Any) -> bytes:
    """A sensor_msgs/Image to its serialized form, least significant byte first, for ``publish``."""
    head = bytearray(b"\0\1\0\0")

    def put(kinds: str, *values: Any) -> None:
        """Numbers aligned to 4 bytes, as in `read_image`."""
        head.extend(bytes(-len(head) % 4) + struct.pack("<" + kinds, *values))

    def text(value: str) -> None:
        coded = value.encode() + b"\0"
        put(f"I{len(coded)}s", len(coded), coded)

    put("iI", message.header.stamp.sec, message.header.stamp.nanosec)
    text(message.header.frame_id)
    put("II", message.height, message.width)
    text(message.encoding)
    head.append(message.is_bigendian)
    put("II", message.step, len(message.data))
    return b"".join((head, message.data))
