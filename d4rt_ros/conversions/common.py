"""What all conversions need: message classes from outside, time and header."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

_NS = 1_000_000_000


class MessageTypes(Protocol):
    """Makes messages of one ROS library."""

    def make(self, name: str, /, **fields: Any) -> Any:
        """A message of type ``name`` (``sensor_msgs/msg/Image``); other fields keep their defaults."""

    def array(self, typecode: str, values: np.ndarray, /) -> Any:
        """The values, flat, as this library wants an unbounded field; typecode as in ``array.array``."""

    def buffer(self, size: int, /) -> Any:
        """An unbounded uint8 field of so many bytes, of any content, to be written through ``memoryview``."""


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time (or Duration) to integer nanoseconds."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def time_message(types: MessageTypes, stamp: int) -> Any:
    """Integer nanoseconds to builtin_interfaces/Time."""
    return types.make("builtin_interfaces/msg/Time", sec=int(stamp // _NS), nanosec=int(stamp % _NS))


def header(types: MessageTypes, stamp: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    return types.make("std_msgs/msg/Header", stamp=time_message(types, stamp), frame_id=frame_id)
