"""Messages without ROS: the classes of `rosbags`, made as `conversions` wants them, and our own message."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

TRACKS = "d4rt_ros/msg/Tracks"


def tracks_definition() -> str:
    """Text of msg/Tracks.msg: of the source tree, or as pip or colcon installed it.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for folder in Path(__file__).resolve().parents:
        for file in (folder / "msg" / "Tracks.msg", folder / "share" / "d4rt_ros" / "msg" / "Tracks.msg"):
            if file.is_file():
                return file.read_text()
    raise FileNotFoundError(
        "share/d4rt_ros/msg/Tracks.msg is not installed beside this package; install it again"
    )


class BagMessages:
    """conversions.MessageTypes for `rosbags`, and the way to and from bytes.

    The definitions are those of Humble; all messages used here are the same up to Lyrical.
    """

    def __init__(self) -> None:
        """Load the definitions, ours included."""
        self.store: Typestore = get_typestore(Stores.ROS2_HUMBLE)
        self.store.register(get_types_from_msg(tracks_definition(), TRACKS))
        self._fields = lru_cache(maxsize=None)(self._fields_of)

    def make(self, name: str, /, **fields: Any) -> Any:
        """A message of type `name`; fields not given are zero, empty or false."""
        defaults = self._fields(name)
        return self.store.types[name](
            **{key: fields[key] if key in fields else defaults[key]() for key in defaults}
        )

    def array(self, typecode: str, values: np.ndarray, /) -> np.ndarray:
        """The values, flat, in the type that `array.array` calls `typecode`."""
        return np.ascontiguousarray(values, np.dtype(typecode)).ravel()

    def buffer(self, size: int, /) -> np.ndarray:
        """A field of `size` bytes of any content, to be written through memoryview."""
        return np.empty(size, np.uint8)

    def serialize(self, message: Any, name: str) -> bytes:
        """CDR bytes of a message."""
        return bytes(self.store.serialize_cdr(message, name))

    def deserialize(self, data: bytes, name: str) -> Any:
        """A message from CDR bytes.

        Raises:
            rosbags.serde.SerdeError: the bytes are no such message.
        """
        return self.store.deserialize_cdr(data, name)

    def _fields_of(self, name: str) -> dict[str, Any]:
        """Function that makes the default of every field."""
        return {field: self._default(kind) for field, kind in self.store.fielddefs[name][1]}

    def _default(self, kind: Any) -> Any:
        node, detail = kind
        if node == Nodetype.NAME:
            return lambda: self.make(detail)
        if node == Nodetype.BASE:
            value: Any = "" if detail[0] == "string" else np.dtype(detail[0]).type(0).item()
            return lambda: value
        (inner_node, inner), length = detail
        length = length if node == Nodetype.ARRAY else 0
        if inner_node == Nodetype.BASE and inner[0] != "string":
            return lambda: np.zeros(length, inner[0])
        default = self._default((inner_node, inner))
        return lambda: [default() for _ in range(length)]
