"""What queries mean: depth, points, tracks and cameras as functions of a scene (paper Table 1)."""

from d4rt_ros.tasks.camera import CameraTrack, Extrinsics, Intrinsics, camera_track, extrinsics, intrinsics
from d4rt_ros.tasks.depth import Depth, depth_at, depth_map
from d4rt_ros.tasks.geometry import Alignment, align, align_many
from d4rt_ros.tasks.points import PointCloud, point_cloud
from d4rt_ros.tasks.tracks import PointTracks, tracks

__all__ = [
    "Alignment",
    "CameraTrack",
    "Depth",
    "Extrinsics",
    "Intrinsics",
    "PointCloud",
    "PointTracks",
    "align",
    "align_many",
    "camera_track",
    "depth_at",
    "depth_map",
    "extrinsics",
    "intrinsics",
    "point_cloud",
    "tracks",
]
