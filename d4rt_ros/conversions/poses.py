"""Poses, transforms, odometry and paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from d4rt_ros.conversions.common import MessageTypes, header, stamp_ns


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
