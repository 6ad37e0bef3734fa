"""Clouds and tracks to messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from scipy.linalg.blas import sasum

from d4rt_ros.conversions.common import MessageTypes, header, time_message
from d4rt_ros.conversions.poses import pose_message

_FLOAT32, _UINT32 = 7, 6  # sensor_msgs/PointField


def _words(values: np.ndarray, dtype: type) -> np.ndarray:
    """[N] or [N, K] to [1, N, K] int32 holding the bits of ``dtype`` (4 bytes)."""
    parts = 1 if values.ndim == 1 else values.shape[1]
    return np.ascontiguousarray(values, dtype).view(np.int32).reshape(1, len(values), parts)


def _packed(rgb: np.ndarray) -> np.ndarray:
    """[N, 3] uint8 to [1, N, 1] int32, 0x00RRGGBB, as PCL and RViz read it."""
    if len(rgb) == 0:
        return np.zeros((1, 0, 1), np.int32)
    wide = cv2.cvtColor(np.ascontiguousarray(rgb, np.uint8)[None], cv2.COLOR_RGB2BGRA).view(np.int32)
    wide &= 0x00FFFFFF
    return wide


def _all_finite(values: np.ndarray) -> bool:
    """Whether no number of [N, K] is NaN or infinite as float32.

    Mostly a sum by BLAS says so, in half of the time of other ways; what float32 cannot add up is looked at.
    """
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return flat.size == 0 or math.isfinite(sasum(flat)) or bool(np.isfinite(flat).all())


@lru_cache(maxsize=64)
def _layout(
    types: Any, names: tuple[str, ...], kinds: tuple[int, ...]
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Descriptions of a cloud's columns, 4 bytes each, and which goes where, as OpenCV wants to be told.

    Every cloud of the kind has the same.
    """
    fields = tuple(
        types.make("sensor_msgs/msg/PointField", name=name, offset=4 * index, datatype=kind, count=1)
        for index, (name, kind) in enumerate(zip(names, kinds, strict=True))
    )
    return fields, tuple(np.repeat(np.arange(len(names)), 2).tolist())


def point_cloud(
    types: MessageTypes, stamp: int, frame_id: str, xyz: np.ndarray, **columns: np.ndarray | None
) -> Any:
    """Points to an unorganised sensor_msgs/PointCloud2, every field 4 bytes.

    Args:
        types: message classes.
        stamp: nanoseconds.
        frame_id: frame of the coordinates.
        xyz: [N, 3] float32.
        **columns: further fields in this order, None left out: [N] float32; [N] integers (uint32); ``rgb``
            [N, 3] uint8, packed as PCL and RViz expect it; or [N, K] float32 under a name of K parts joined
            by ``_`` (``vx_vy_vz``), one field each.

    Raises:
        ValueError: a column has another length than ``xyz``.
    """
    count = len(xyz)
    given = {name: np.asarray(values) for name, values in columns.items() if values is not None}
    names, kinds = ["x", "y", "z"], [_FLOAT32] * 3
    sources = [_words(xyz, np.float32)]
    for name, values in given.items():
        if len(values) != count:
            raise ValueError(f"column {name} has {len(values)} rows, xyz has {count}")
        integer = values.dtype.kind in "iu" and name != "rgb"
        parts = [name] if values.ndim == 1 or name == "rgb" else name.split("_")
        names += parts
        kinds += [_UINT32 if integer else _FLOAT32] * len(parts)
        sources.append(
            _packed(values) if name == "rgb" else _words(values, np.uint32 if integer else np.float32)
        )
    step = 4 * len(names)
    fields, places = _layout(cast(Any, types), tuple(names), tuple(kinds))
    data = types.buffer(step * count)
    if count:
        # One pass over the memory; numpy would need one for every column.
        table = np.frombuffer(memoryview(data), np.int32).reshape(1, count, len(names))
        cv2.mixChannels(sources, [table], places)
    return types.make(
        "sensor_msgs/msg/PointCloud2",
        header=header(types, stamp, frame_id),
        height=1,
        width=count,
        fields=list(fields),
        is_bigendian=False,
        point_step=step,
        row_step=step * count,
        data=data,
        is_dense=_all_finite(xyz),
    )


def tracks_message(
    types: MessageTypes,
    frame_id: str,
    stamps: Sequence[int],
    ids: np.ndarray,
    xyz: np.ndarray,
    pixels: np.ndarray,
    visibility: np.ndarray,
    confidence: np.ndarray,
    metric: bool,
) -> Any:
    """N points over T frames to d4rt_ros/Tracks.

    Args:
        types: message classes.
        frame_id: the one frame of ``xyz``.
        stamps: T nanoseconds, rising; the newest stands in the header.
        ids: [N].
        xyz: [T, N, 3], NaN where unanswered; there visibility and confidence become 0 and pixels NaN.
        pixels: [T, N, 2] of the published image, centres at integers.
        visibility: [T, N].
        confidence: [T, N].
        metric: True where xyz is in metres.
    """
    unanswered = ~np.isfinite(xyz).all(axis=-1)
    return types.make(
        "d4rt_ros/msg/Tracks",
        header=header(types, stamps[-1], frame_id),
        stamps=[time_message(types, stamp) for stamp in stamps],
        ids=types.array("I", np.asarray(ids).astype(np.uint32)),
        xyz=types.array("f", np.where(unanswered[..., None], np.nan, xyz).astype(np.float32)),
        uv=types.array("f", np.where(unanswered[..., None], np.nan, pixels).astype(np.float32)),
        visibility=types.array("f", np.where(unanswered, 0.0, visibility).astype(np.float32)),
        confidence=types.array("f", np.where(unanswered, 0.0, confidence).astype(np.float32)),
        metric=bool(metric),
    )


def trail_markers(
    types: MessageTypes, stamp: int, frame_id: str, ids: np.ndarray, xyz: np.ndarray, width: float
) -> Any:
    """Tracks as lines for RViz: visualization_msgs/MarkerArray with one LINE_LIST that replaces the last one.

    Args:
        types: message classes.
        stamp: nanoseconds.
        frame_id: frame of ``xyz``.
        ids: [N]; a point keeps its colour as long as it keeps its id.
        xyz: [T, N, 3]; pieces with a NaN end are left out.
        width: of the lines, in units of ``xyz``.
    """
    steps = np.stack([xyz[:-1], xyz[1:]], axis=2)  # [T-1, N, 2, 3]
    good = np.isfinite(steps).all(axis=(2, 3))
    hue = (np.asarray(ids, np.uint64) * 2654435761 % 360).astype(np.float64) / 360.0
    rgb = np.clip(np.abs((hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    colours = [
        types.make("std_msgs/msg/ColorRGBA", **dict(zip("rgba", map(float, (*one, 1.0)), strict=True)))
        for one in rgb
    ]
    points = [
        types.make("geometry_msgs/msg/Point", x=x, y=y, z=z)
        for x, y, z in steps[good].reshape(-1, 3).astype(np.float64).tolist()
    ]
    owner = np.broadcast_to(np.arange(xyz.shape[1]), good.shape)[good]
    marker = types.make(
        "visualization_msgs/msg/Marker",
        header=header(types, stamp, frame_id),
        ns="tracks",
        id=0,
        type=5,  # LINE_LIST
        action=0 if points else 2,  # ADD, or DELETE where there is nothing to draw
        pose=pose_message(types, np.eye(4)),
        scale=types.make("geometry_msgs/msg/Vector3", x=float(width), y=0.0, z=0.0),
        color=types.make("std_msgs/msg/ColorRGBA", r=1.0, g=1.0, b=1.0, a=1.0),
        points=points,
        colors=[colours[index] for index in np.repeat(owner, 2)],
    )
    return types.make("visualization_msgs/msg/MarkerArray", markers=[marker])
