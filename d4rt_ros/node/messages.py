"""conversions.MessageTypes for rclpy, and the quality of service of our topics."""

from __future__ import annotations

import array as arrays
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

OUTPUT = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)

# The default of 10 would lose requests without a word when a crowd asks at once.
REQUESTS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)


def camera_qos(reliability: str) -> QoSProfile:
    """Sensor data (REP-2003) with the reliability that the parameter image_reliability names."""
    chosen = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=10, reliability=chosen)


@cache
def message_class(name: str) -> Any:
    """Class of ``package/msg/Name``."""
    package, kind, message = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), message)


def _bytes(values: np.ndarray) -> memoryview:
    """The bytes of an array, of an empty one too: a memoryview casts none with a 0 in its shape."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


class RclpyMessages:
    """Messages of rclpy. Fast into a numeric field is ``array.array``; lists and numpy are slow."""

    def make(self, name: str, /, **fields: Any) -> Any:
        """A message of type ``name``; fields not given keep the message's defaults."""
        fast = {key: value for key, value in fields.items() if isinstance(value, (arrays.array, memoryview))}
        message = message_class(name)(**{key: value for key, value in fields.items() if key not in fast})
        for key, value in fast.items():
            # From Kilted on the constructor and the property each copy an array; its slot takes it as it is.
            setattr(message, f"_{key}", value)
            if getattr(message, key) is not value:
                setattr(message, key, value)
        return message

    def array(self, typecode: str, values: np.ndarray, /) -> arrays.array[Any]:
        """The values, flat; ``values`` already has the type that ``typecode`` names."""
        field = arrays.array(typecode)
        field.frombytes(_bytes(values))
        return field

    def buffer(self, size: int, /) -> memoryview:
        """Bytes of any content: rclpy reads any buffer, and an ``array.array`` would be filled with zeros."""
        return np.empty(size, np.uint8).data


class TopicMessages(RclpyMessages):
    """Messages for our publishers, which send images as bytes: pixels stay where they are."""

    def array(self, typecode: str, values: np.ndarray, /) -> Any:
        """As in the base class; bytes are a view of ``values``."""
        if typecode == "B":
            return _bytes(values)
        return super().array(typecode, values)
