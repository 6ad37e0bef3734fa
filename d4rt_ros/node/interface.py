"""What other nodes see of this one, in words. Needs no ROS; docs/ROS.md is generated from it."""

from __future__ import annotations

# Topics that are listened to: type, and what for.
INPUTS: dict[str, tuple[str, str]] = {
    "image": (
        "sensor_msgs/msg/Image",
        "The camera, with image_transport raw: rgb8, bgr8, rgba8, bgra8, mono8, mono16, yuv422 (uyvy), "
        "yuv422_yuy2 "
        "(yuyv), bayer_* of 8 or 16 bits. Other encodings are refused by name.",
    ),
    "image/compressed": (
        "sensor_msgs/msg/CompressedImage",
        "The camera, with image_transport compressed: JPEG or PNG.",
    ),
    "camera_info": (
        "sensor_msgs/msg/CameraInfo",
        "Optional; the newest one is kept. With it intrinsics are known and images are undistorted "
        "(plumb_bob, "
        "rational_polynomial, equidistant); without it intrinsics are estimated.",
    ),
    "depth": (
        "sensor_msgs/msg/Image",
        "Only for scale.source depth: 16UC1 (mm) or 32FC1 (m), registered to the image, stamps within 20 ms.",
    ),
    "/tf": (
        "tf2_msgs/msg/TFMessage",
        "Only for frames.base and scale.source odometry; with /tf_static.",
    ),
    "/clock": ("rosgraph_msgs/msg/Clock", "Only with use_sim_time. Time that jumps back starts over."),
}

# Topics that are published: what they hold. Types are those of d4rt_ros/outputs.py.
OUTPUTS: dict[str, str] = {
    "depth/image": "Depth of the newest frame, 32FC1 (REP-118); NaN where the confidence is too low.",
    "depth/camera_info": "Intrinsics that belong to it, without distortion.",
    "points": "Points of the newest frame in the camera's frame: x y z rgb confidence.",
    "dynamic_points": "Only what moves in the world: x y z vx vy vz confidence, in the camera's frame.",
    "map_points": "Still points of the joined windows in frames.world: x y z rgb; bounded, one per voxel.",
    "tracks": "Followed points over the window.",
    "tracks/points": "Their newest positions: x y z id visibility confidence vx vy vz u v.",
    "tracks/markers": "Their trails as lines.",
    "odometry": "The camera, or frames.base, in frames.world, with covariance; the twist is unknown.",
    "path": "The same over time, at most 1024 poses.",
    "camera_info": "Intrinsics of the newest frame, given or estimated.",
    "/tf": "One edge, as tf.mode says, with the image's stamp.",
}

# Services: type and what they answer. Fields are explained in srv/.
SERVICES: dict[str, tuple[str, str]] = {
    "query": (
        "d4rt_ros/srv/Query",
        "Where is the point of a pixel, at any time, in any camera of a held window?",
    ),
    "track_points": ("d4rt_ros/srv/TrackPoints", "Where do the points of these pixels go over a span?"),
    "get_depth": ("d4rt_ros/srv/GetDepth", "Depth of a frame, at any size or at single pixels."),
    "get_point_cloud": ("d4rt_ros/srv/GetPointCloud", "Coloured points of all frames of a span."),
    "get_camera": ("d4rt_ros/srv/GetCamera", "Poses of the camera over a span, and its intrinsics."),
    "follow_points": (
        "d4rt_ros/srv/FollowPoints",
        "Have ~/tracks carry points until they are given up.",
    ),
    "unfollow_points": ("d4rt_ros/srv/UnfollowPoints", "Give followed points up."),
    "reset": ("std_srvs/srv/Trigger", "Forget all windows and start a new world."),
    "pause": (
        "std_srvs/srv/SetBool",
        "Stop (true) or resume (false) encoding; requests go on being answered.",
    ),
}

ACTIONS: dict[str, tuple[str, str]] = {
    "track_all": (
        "d4rt_ros/action/TrackAll",
        "A track for every pixel of a held window (D4RT, Algorithm 1), with progress; can be cancelled.",
    ),
}
