"""Messages to arrays and arrays to messages: the only file that touches the fields of common messages.

It imports no ROS. Whoever calls it hands over a ``MessageTypes``: the node gives rclpy's classes with
``array.array`` (d4rt_ros/node/messages.py), the offline tool gives those of ``rosbags`` with numpy.
Units are metres, radians and integer nanoseconds; ``uv`` is 0..1 over the image as in
d4rt_ros/model/pixels.py. ROS counts pixel centres at integers, this package at integer + 0.5; that half pixel
is handled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from d4rt_ros.camera import Camera
from d4rt_ros.images import decode_compressed, decode_depth, decode_rgb

_NS = 1_000_000_000
_FLOAT32, _UINT32 = 7, 6  # sensor_msgs/PointField


class MessageTypes(Protocol):
    """Makes messages of one ROS library."""

    def make(self, name: str, /, **fields: Any) -> Any:
        """A message of type ``name`` (``sensor_msgs/msg/Image``); other fields keep their defaults."""

    def array(self, typecode: str, values: np.ndarray, /) -> Any:
        """The values, flat, as this library wants an unbounded field; typecode as in ``array.array``."""

    def buffer(self, size: int, /) -> Any:
        """An unbounded uint8 field of so many bytes, of any content, to be written through ``memoryview``."""


# --- time, header -------------------------------------------------------------------------------------------


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time (or Duration) to integer nanoseconds."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def time_message(types: MessageTypes, stamp: int) -> Any:
    """Integer nanoseconds to builtin_interfaces/Time."""
    return types.make("builtin_interfaces/msg/Time", sec=int(stamp // _NS), nanosec=int(stamp % _NS))


def header(types: MessageTypes, stamp: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    return types.make("std_msgs/msg/Header", stamp=time_message(types, stamp), frame_id=frame_id)


# --- camera in ----------------------------------------------------------------------------------------------


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


def camera(message: Any, rectified: bool = False) -> Camera | None:
    """sensor_msgs/CameraInfo to a ``Camera`` for images as they are published.

    Binning and region of interest are applied, as the message's comments ask.

    Args:
        message: the CameraInfo.
        rectified: the images had their distortion taken out already (image_proc's ``image_rect``): the
            intrinsics are then those of the projection matrix, without distortion.

    Returns:
        the camera, or None for an uncalibrated one (k[0] is 0).

    Raises:
        ValueError: values that no camera has; the text names them.
    """
    k = np.array(message.k, np.float64).reshape(3, 3)
    p = np.array(message.p, np.float64).reshape(3, 4)
    if rectified and p[0, 0] != 0:
        k = p[:, :3].copy()
    if k[0, 0] == 0:
        return None
    height, width = int(message.height), int(message.width)
    if message.roi.width and message.roi.height:
        height, width = int(message.roi.height), int(message.roi.width)
    k[0, 2] += 0.5 - message.roi.x_offset
    k[1, 2] += 0.5 - message.roi.y_offset
    bins = max(int(message.binning_x), 1), max(int(message.binning_y), 1)
    k[0] /= bins[0]
    k[1] /= bins[1]
    coefficients = () if rectified else tuple(float(value) for value in message.d)
    return Camera((height // bins[1], width // bins[0]), k, message.distortion_model, coefficients)


def pixels_to_uv(u: Any, v: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels as in messages (centres at integers) to uv.

    Args:
        u: N columns, a sequence of float.
        v: N rows.
        image_size: (H, W).

    Returns:
        [N, 2] float64 in 0..1 over the image.

    Raises:
        ValueError: unequal lengths, or a pixel that is not finite or lies outside the image; the text names
            it.
    """
    pixels = [np.asarray(values, np.float64).ravel() for values in (u, v)]
    if len(pixels[0]) != len(pixels[1]):
        raise ValueError(
            f"u has {len(pixels[0])} values and v has {len(pixels[1])}; both need one for every point"
        )
    for name, values, extent in (("u", pixels[0], image_size[1]), ("v", pixels[1], image_size[0])):
        inside = (values >= -0.5) & (values <= extent - 0.5)  # False for NaN
        if not inside.all():
            first = int(np.argmin(inside))
            raise ValueError(
                f"{name}[{first}] is {values[first]:g}, outside the image: from -0.5 to {extent - 0.5:g} "
                "is allowed"
            )
    extents = np.array([image_size[1], image_size[0]], np.float64)
    return (np.stack(pixels, axis=-1) + 0.5) / extents


def uv_to_pixels(uv: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Uv [..., 2] to pixels as in messages (centres at integers), float32; outside and NaN stay so."""
    extents = np.array([image_size[1], image_size[0]], np.float64)
    return (np.asarray(uv, np.float64) * extents - 0.5).astype(np.float32)


# --- images and camera out ----------------------------------------------------------------------------------


def depth_image(types: MessageTypes, stamp: int, frame_id: str, depth: np.ndarray) -> Any:
    """[H, W] metres (NaN: unknown) to sensor_msgs/Image 32FC1 (REP-118)."""
    height, width = depth.shape
    return types.make(
        "sensor_msgs/msg/Image",
        header=header(types, stamp, frame_id),
        height=height,
        width=width,
        encoding="32FC1",
        is_bigendian=0,
        step=4 * width,
        data=types.array("B", np.ascontiguousarray(depth, "<f4").view(np.uint8)),
    )


def rgb_image(types: MessageTypes, stamp: int, frame_id: str, image: np.ndarray) -> Any:
    """[H, W, 3] uint8 RGB to sensor_msgs/Image rgb8."""
    height, width = image.shape[:2]
    return types.make(
        "sensor_msgs/msg/Image",
        header=header(types, stamp, frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=types.array("B", np.ascontiguousarray(image, np.uint8)),
    )


def camera_info(
    types: MessageTypes,
    stamp: int,
    frame_id: str,
    image_size: tuple[int, int],
    intrinsics: np.ndarray,
    model: str = "plumb_bob",
    coefficients: Sequence[float] = (0.0,) * 5,
) -> Any:
    """Intrinsics of this package to sensor_msgs/CameraInfo.

    Args:
        types: message classes.
        stamp: nanoseconds.
        frame_id: optical frame.
        image_size: (H, W).
        intrinsics: [3, 3], pixel centres at integer + 0.5.
        model: distortion model's name.
        coefficients: of the model; zeros for an ideal lens.
    """
    k = np.array(intrinsics, np.float64)
    k[:2, 2] -= 0.5
    return types.make(
        "sensor_msgs/msg/CameraInfo",
        header=header(types, stamp, frame_id),
        height=int(image_size[0]),
        width=int(image_size[1]),
        distortion_model=model,
        d=types.array("d", np.asarray(coefficients, np.float64)),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.concatenate([k, np.zeros((3, 1))], axis=1).ravel(),
    )


# --- points -------------------------------------------------------------------------------------------------


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
        integer = np.issubdtype(values.dtype, np.integer) and name != "rgb"
        parts = [name] if values.ndim == 1 or name == "rgb" else name.split("_")
        names += parts
        kinds += [_UINT32 if integer else _FLOAT32] * len(parts)
        sources.append(
            _packed(values) if name == "rgb" else _words(values, np.uint32 if integer else np.float32)
        )
    step = 4 * len(names)
    data = types.buffer(step * count)
    if count:
        # One pass over the memory; numpy would need one for every column.
        table = np.frombuffer(memoryview(data), np.int32).reshape(1, count, len(names))
        cv2.mixChannels(sources, [table], np.repeat(np.arange(len(names)), 2).tolist())
    fields = [
        types.make("sensor_msgs/msg/PointField", name=name, offset=4 * index, datatype=kind, count=1)
        for index, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    return types.make(
        "sensor_msgs/msg/PointCloud2",
        header=header(types, stamp, frame_id),
        height=1,
        width=count,
        fields=fields,
        is_bigendian=False,
        point_step=step,
        row_step=step * count,
        data=data,
        is_dense=bool(np.isfinite(xyz).all()),
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


# --- poses --------------------------------------------------------------------------------------------------


def _parts(types: MessageTypes, pose: np.ndarray, point: str) -> tuple[Any, Any]:
    """[4, 4] to (geometry_msgs/``point``, geometry_msgs/Quaternion)."""
    x, y, z = (float(value) for value in pose[:3, 3])
    q = (float(value) for value in Rotation.from_matrix(pose[:3, :3]).as_quat())
    where = types.make(f"geometry_msgs/msg/{point}", x=x, y=y, z=z)
    return where, types.make("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", q, strict=True)))


def pose_message(types: MessageTypes, pose: np.ndarray) -> Any:
    """[4, 4] rigid transform to geometry_msgs/Pose."""
    position, orientation = _parts(types, pose, "Point")
    return types.make("geometry_msgs/msg/Pose", position=position, orientation=orientation)


def pose_stamped(types: MessageTypes, stamp: int, frame_id: str, pose: np.ndarray) -> Any:
    """[4, 4] rigid transform to geometry_msgs/PoseStamped."""
    return types.make(
        "geometry_msgs/msg/PoseStamped", header=header(types, stamp, frame_id), pose=pose_message(types, pose)
    )


def transform_message(types: MessageTypes, stamp: int, parent: str, child: str, pose: np.ndarray) -> Any:
    """[4, 4] parent_from_child to geometry_msgs/TransformStamped."""
    translation, rotation = _parts(types, pose, "Vector3")
    transform = types.make("geometry_msgs/msg/Transform", translation=translation, rotation=rotation)
    return types.make(
        "geometry_msgs/msg/TransformStamped",
        header=header(types, stamp, parent),
        child_frame_id=child,
        transform=transform,
    )


def transform_edge(message: Any) -> tuple[str, str, int, np.ndarray]:
    """geometry_msgs/TransformStamped to (parent, child, stamp in nanoseconds, [4, 4] parent_from_child).

    Raises:
        ValueError: a quaternion of length zero, or values that are not finite.
    """
    t, q = message.transform.translation, message.transform.rotation
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    pose[:3, 3] = t.x, t.y, t.z
    if not np.all(np.isfinite(pose)):
        raise ValueError(
            f"transform from {message.header.frame_id} to {message.child_frame_id} is not finite"
        )
    return message.header.frame_id, message.child_frame_id, stamp_ns(message.header.stamp), pose


def odometry_message(
    types: MessageTypes,
    stamp: int,
    parent: str,
    child: str,
    pose: np.ndarray,
    covariance: np.ndarray,
    twist: np.ndarray | None = None,
) -> Any:
    """A pose with its uncertainty to nav_msgs/Odometry.

    Args:
        types: message classes.
        stamp: nanoseconds.
        parent: fixed frame.
        child: moving frame.
        pose: [4, 4] parent_from_child.
        covariance: [6, 6]: x, y, z, then rotations about the fixed axes.
        twist: [6] linear and angular velocity in the child's axes, or None: zeros with the covariance's first
            entry at -1, by which ROS marks an unknown value.
    """
    linear, angular = (np.zeros(3), np.zeros(3)) if twist is None else (twist[:3], twist[3:])
    spread = np.zeros(36)
    if twist is None:
        spread[0] = -1.0
    vectors = [
        types.make("geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, part), strict=True)))
        for part in (linear, angular)
    ]
    return types.make(
        "nav_msgs/msg/Odometry",
        header=header(types, stamp, parent),
        child_frame_id=child,
        pose=types.make(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=pose_message(types, pose),
            covariance=np.array(covariance, np.float64).ravel(),
        ),
        twist=types.make(
            "geometry_msgs/msg/TwistWithCovariance",
            twist=types.make("geometry_msgs/msg/Twist", linear=vectors[0], angular=vectors[1]),
            covariance=spread,
        ),
    )


def path_message(types: MessageTypes, frame_id: str, poses: Sequence[Any]) -> Any:
    """geometry_msgs/PoseStamped messages, oldest first and at least one, to nav_msgs/Path."""
    newest = header(types, stamp_ns(poses[-1].header.stamp), frame_id)
    return types.make("nav_msgs/msg/Path", header=newest, poses=list(poses))


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
