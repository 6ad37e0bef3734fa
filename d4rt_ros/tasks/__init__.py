"""What queries mean: depth, points, tracks, cameras and motion as functions of a scene (paper Table 1)."""

from d4rt_ros.tasks.camera import CameraTrack, Extrinsics, Intrinsics, camera_track, extrinsics, intrinsics
from d4rt_ros.tasks.dense import DenseChunk, DenseProgress, DenseTracks, dense_chunks, dense_tracks
from d4rt_ros.tasks.depth import Depth, depth_at, depth_map
from d4rt_ros.tasks.geometry import Alignment, align, align_many
from d4rt_ros.tasks.motion import Motion, judge_motion, moving_points
from d4rt_ros.tasks.points import PointCloud, point_cloud
from d4rt_ros.tasks.tracks import PointTracks, tracks

__all__ = [
    "Alignment",
    "CameraTrack",
    "DenseChunk",
    "DenseProgress",
    "DenseTracks",
    "Depth",
    "Extrinsics",
    "Intrinsics",
    "Motion",
    "PointCloud",
    "PointTracks",
    "align",
    "align_many",
    "camera_track",
    "dense_chunks",
    "dense_tracks",
    "depth_at",
    "depth_map",
    "extrinsics",
    "intrinsics",
    "judge_motion",
    "moving_points",
    "point_cloud",
    "tracks",
]
