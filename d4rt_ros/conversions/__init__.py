"""Messages to arrays and arrays to messages: the only place that touches the fields of common messages.

It imports no ROS. Whoever calls it hands over a ``MessageTypes``: the node gives rclpy's classes with
``array.array`` (d4rt_ros/node/messages.py), the offline tool gives those of ``rosbags`` with numpy.
Units are metres, radians and integer nanoseconds; ``uv`` is 0..1 over the image as in
d4rt_ros/model/pixels.py. ROS counts pixel centres at integers, this package at integer + 0.5; that half pixel
is handled here.
"""

from __future__ import annotations

from d4rt_ros.conversions.common import MessageTypes, header, stamp_ns, time_message
from d4rt_ros.conversions.images import (
    compressed_image_array,
    depth_array,
    depth_image,
    image_array,
    rgb_image,
)
from d4rt_ros.conversions.lens import camera, camera_info, pixels_to_uv, uv_to_pixels
from d4rt_ros.conversions.points import point_cloud, tracks_message, trail_markers
from d4rt_ros.conversions.poses import (
    odometry_message,
    path_message,
    pose_message,
    pose_stamped,
    transform_edge,
    transform_message,
)

__all__ = [
    "MessageTypes",
    "camera",
    "camera_info",
    "compressed_image_array",
    "depth_array",
    "depth_image",
    "header",
    "image_array",
    "odometry_message",
    "path_message",
    "pixels_to_uv",
    "point_cloud",
    "pose_message",
    "pose_stamped",
    "rgb_image",
    "stamp_ns",
    "time_message",
    "tracks_message",
    "trail_markers",
    "transform_edge",
    "transform_message",
    "uv_to_pixels",
]
