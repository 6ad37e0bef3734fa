"""Stand-in for sensor_msgs_py.point_cloud2: point clouds between messages and numpy arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_DATATYPES = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype:
    """Returns the structured type of one point."""
    names, formats, offsets = [], [], []
    for field in fields:
        for index in range(field.count):
            names.append(field.name if field.count == 1 else f"{field.name}_{index}")
            formats.append(_DATATYPES[field.datatype])
            offsets.append(field.offset + index * formats[-1].itemsize)
    layout = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def read_points(
    cloud: PointCloud2,
    field_names: list[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """Returns [N] points as a structured array, a view of the message where nothing is left out.

    Args:
        cloud: the message.
        field_names: fields wanted, in that order. None: all.
        skip_nans: leave out points with a NaN.
        uvs: flat indices, or (column, row) pairs, of the points wanted. None: all.
        reshape_organized_cloud: return [width, height] where height is not 1, as the original does.
    """
    points = np.ndarray(
        (cloud.width * cloud.height,), dtype_from_fields(cloud.fields, cloud.point_step), cloud.data
    )
    if bool(sys.byteorder != "little") != bool(cloud.is_bigendian):
        points = points.byteswap()
    if field_names is not None:
        points = points[list(field_names)]
    if skip_nans:
        nan = np.any([np.isnan(points[name]) for name in points.dtype.names], axis=0)
        points = points[~nan]
    if uvs is not None:
        wanted = np.asarray(list(uvs), dtype=np.int64)
        points = points[wanted[:, 1] * cloud.width + wanted[:, 0] if wanted.ndim == 2 else wanted]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: list[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """Returns [N, fields] as a plain array; the fields must be of one type. Arguments as in read_points."""
    points = read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud)
    kinds = {points.dtype[name] for name in points.dtype.names}
    if len(kinds) > 1:
        raise AssertionError("All fields need to have the same datatype. Use `read_points()` otherwise.")
    return structured_to_unstructured(points)


def create_cloud(
    header: Header, fields: Iterable[PointField], points: Iterable, point_step: int | None = None
) -> PointCloud2:
    """Returns a cloud of the points: a structured array, an [N, fields] array, or an iterable of tuples."""
    fields = list(fields)
    dtype = dtype_from_fields(fields, point_step)
    if not isinstance(points, np.ndarray):
        points = np.array([tuple(point) for point in points], dtype)
    elif points.dtype.names is None:
        points = unstructured_to_structured(points, dtype)
    elif points.dtype != dtype:
        raise AssertionError("PointFields and structured NumPy array dtype do not match for all fields!")
    message = PointCloud2(
        header=header,
        height=points.shape[1] if points.ndim == 2 else 1,  # the original's order, for an organised cloud too
        width=points.shape[0],
        fields=fields,
        is_bigendian=sys.byteorder != "little",
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * points.shape[0],
    )
    message.data.frombytes(points.tobytes())
    return message


def create_cloud_xyz32(header: Header, points: Iterable) -> PointCloud2:
    """Returns a cloud with float32 x, y, z of [N, 3] points."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)
