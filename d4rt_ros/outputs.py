"""What one window's result becomes as messages: the same for the live node and for `d4rt bag`.

Imports no ROS, as `conversions`. Topic names here lack the node's prefix ("depth/image" is ~/depth/image,
and only "/tf" is absolute).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from d4rt_ros import conversions
from d4rt_ros.conversions import MessageTypes
from d4rt_ros.stream.results import WindowResult
from d4rt_ros.tasks.geometry import carried_covariance

# Topic: message type, and the part of the pipeline that is computed for it ("" where it always is).
TOPICS: dict[str, tuple[str, str]] = {
    "depth/image": ("sensor_msgs/msg/Image", "depth"),
    "depth/camera_info": ("sensor_msgs/msg/CameraInfo", ""),
    "points": ("sensor_msgs/msg/PointCloud2", "points"),
    "dynamic_points": ("sensor_msgs/msg/PointCloud2", "dynamic"),
    "map_points": ("sensor_msgs/msg/PointCloud2", "map"),
    "tracks": ("d4rt_ros/msg/Tracks", "tracks"),
    "tracks/points": ("sensor_msgs/msg/PointCloud2", "tracks"),
    "tracks/markers": ("visualization_msgs/msg/MarkerArray", "tracks"),
    "odometry": ("nav_msgs/msg/Odometry", ""),
    "path": ("nav_msgs/msg/Path", ""),
    "camera_info": ("sensor_msgs/msg/CameraInfo", ""),
    "/tf": ("tf2_msgs/msg/TFMessage", ""),
}
EARLY_PARTS = frozenset({"", "depth", "points"})  # what the pipeline hands over before the rest is computed
LATCHED = frozenset({"map_points"})  # transient local: late subscribers get the newest one
TF_MODES = ("none", "world_to_camera", "odom_to_base", "map_to_odom")
PATH_LENGTH = 1024


def parts_for(topics: Collection[str]) -> frozenset[str]:
    """Parts that the pipeline must compute for these topics."""
    return frozenset(TOPICS[topic][1] for topic in topics) - {""}


class Outputs:
    """Turns results into messages; remembers only the path.

    Args:
        types: message classes of one ROS library.
        world: name of the fixed frame of poses and map.
        base: frame of the robot that odometry is about; empty: the camera.
        tf_mode: one of TF_MODES.

    Raises:
        ValueError: unknown mode, or one that needs a base frame and has none.
    """

    def __init__(self, types: MessageTypes, world: str, base: str = "", tf_mode: str = "none") -> None:
        """Start with an empty path."""
        if tf_mode not in TF_MODES:
            raise ValueError(f"tf.mode is '{tf_mode}'; it must be one of {', '.join(TF_MODES)}")
        if tf_mode in ("odom_to_base", "map_to_odom") and not base:
            raise ValueError(f"tf.mode is '{tf_mode}', which needs frames.base")
        self.types, self.world, self.base, self.tf_mode = types, world, base, tf_mode
        self._path: deque[tuple[int, np.ndarray, Any]] = deque(
            maxlen=PATH_LENGTH
        )  # stamp, pose, message once wanted
        self._segment = -1

    def state(self) -> dict[str, np.ndarray]:
        """What is remembered: stamps [N] and poses [N, 4, 4] of the path, and its segment."""
        return {
            "path_stamps": np.array([stamp for stamp, _, _ in self._path], np.int64),
            "path_poses": np.array([pose for _, pose, _ in self._path]).reshape(-1, 4, 4),
            "path_segment": np.array(self._segment),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what state() gave."""
        self._path.clear()
        self._segment = int(state["path_segment"])
        for stamp, pose in zip(state["path_stamps"].tolist(), state["path_poses"], strict=True):
            self._path.append((stamp, pose, None))

    def build(
        self,
        result: WindowResult,
        topics: Collection[str],
        camera_from_base: np.ndarray | None = None,
        odom: tuple[str, np.ndarray] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Messages of a window, made one kind after the other, so that depth can leave before poses are made.

        Args:
            result: of the pipeline.
            topics: keys of TOPICS that are wanted.
            camera_from_base: [4, 4] pose of the base frame in the camera's optical frame at the newest stamp;
                None where it is not known: what is about the base is then left out.
            odom: name of the odometry frame and [4, 4] odom_from_base at the newest stamp, for map_to_odom.

        Yields:
            (topic, message) of every wanted topic that this result has an answer for: depth, then clouds,
            tracks, poses.
        """
        kinds: tuple[Callable[[], dict[str, Any]], ...] = (
            lambda: self._depth(result, topics),
            lambda: self._clouds(result, topics),
            lambda: self._tracks(result, topics),
            lambda: self._poses(result, camera_from_base, odom, topics),
        )
        for kind in kinds:
            messages = kind()
            yield from ((topic, messages[topic]) for topic in TOPICS if topic in topics and topic in messages)

    def _depth(self, result: WindowResult, topics: Collection[str]) -> dict[str, Any]:
        at = result.stamps[-1], result.frame_id
        messages: dict[str, Any] = {}
        if result.intrinsics is not None and {"camera_info", "depth/camera_info"} & set(topics):
            messages["camera_info"] = conversions.camera_info(
                self.types, *at, result.image_size, result.intrinsics
            )
        if result.depth is not None and "depth/image" in topics:
            messages["depth/image"] = conversions.depth_image(self.types, *at, result.depth)
        if "camera_info" in messages:
            messages["depth/camera_info"] = messages["camera_info"]
        return messages

    def _clouds(self, result: WindowResult, topics: Collection[str]) -> dict[str, Any]:
        messages: dict[str, Any] = {}
        stamp, points, dynamic, still = result.stamps[-1], result.points, result.dynamic, result.map_points
        if points is not None and "points" in topics:
            messages["points"] = conversions.point_cloud(
                self.types, stamp, result.frame_id, points.xyz, rgb=points.rgb, confidence=points.confidence
            )
        if dynamic is not None and "dynamic_points" in topics:
            messages["dynamic_points"] = conversions.point_cloud(
                self.types,
                stamp,
                result.frame_id,
                dynamic.xyz,
                vx_vy_vz=dynamic.velocity,
                confidence=dynamic.confidence,
            )
        if still is not None and "map_points" in topics:
            messages["map_points"] = conversions.point_cloud(
                self.types, stamp, self.world, still.xyz, rgb=still.rgb
            )
        return messages

    def _tracks(self, result: WindowResult, topics: Collection[str]) -> dict[str, Any]:
        tracks = result.tracks
        if tracks is None or not {"tracks", "tracks/points", "tracks/markers"} & set(topics):
            return {}
        stamp, frame_id = tracks.stamps[-1], result.frame_id if tracks.frame == "camera" else self.world
        xyz, velocity = tracks.xyz, tracks.velocity
        pixels = published_pixels(tracks.uv, result)
        messages = {
            "tracks": conversions.tracks_message(
                self.types,
                frame_id,
                tracks.stamps,
                tracks.ids,
                xyz,
                pixels,
                tracks.visibility,
                tracks.confidence,
                tracks.metric,
            )
        }
        answered = np.isfinite(xyz[-1]).all(axis=-1)
        messages["tracks/points"] = conversions.point_cloud(
            self.types,
            stamp,
            frame_id,
            xyz[-1][answered],
            id=tracks.ids[answered],
            visibility=tracks.visibility[-1][answered],
            confidence=tracks.confidence[-1][answered],
            vx_vy_vz=velocity[answered],
            u_v=pixels[-1][answered],
        )
        if "tracks/markers" in topics:  # slow to build
            depth = np.nanmedian(xyz[-1][answered, 2]) if answered.any() else 1.0
            messages["tracks/markers"] = conversions.trail_markers(
                self.types, stamp, frame_id, tracks.ids, xyz, width=0.003 * float(depth)
            )
        return messages

    def _poses(
        self,
        result: WindowResult,
        camera_from_base: np.ndarray | None,
        odom: tuple[str, np.ndarray] | None,
        topics: Collection[str],
    ) -> dict[str, Any]:
        if result.segment != self._segment:
            self._path.clear()
            self._segment = result.segment
        if result.poses is None or result.covariance is None or (self.base and camera_from_base is None):
            return {}
        offset = camera_from_base if self.base and camera_from_base is not None else np.eye(4)
        child, stamp = self.base or result.frame_id, result.stamps[-1]
        poses = result.poses @ offset
        for when, pose in zip(result.stamps, poses, strict=True):
            if not self._path or when > self._path[-1][0]:
                self._path.append((when, pose, None))
        messages = {}
        if "odometry" in topics:
            arm = poses[-1, :3, 3] - result.poses[-1, :3, 3]
            (covariance,) = carried_covariance(result.covariance[-1], arm[None])
            messages["odometry"] = conversions.odometry_message(
                self.types, stamp, self.world, child, poses[-1], covariance
            )
        if "path" in topics:
            messages["path"] = conversions.path_message(self.types, self.world, self._path_messages())
        edge = self._edge(result, poses[-1], odom) if "/tf" in topics else None
        if edge is not None:
            parent, below, pose = edge
            transform = conversions.transform_message(self.types, stamp, parent, below, pose)
            messages["/tf"] = self.types.make("tf2_msgs/msg/TFMessage", transforms=[transform])
        return messages

    def _path_messages(self) -> list[Any]:
        """A message for every pose of the path; each is made once, when somebody listens."""
        for place, (stamp, pose, message) in enumerate(self._path):
            if message is None:
                self._path[place] = stamp, pose, conversions.pose_stamped(self.types, stamp, self.world, pose)
        return [message for _, _, message in self._path]

    def _edge(
        self, result: WindowResult, pose: np.ndarray, odom: tuple[str, np.ndarray] | None
    ) -> tuple[str, str, np.ndarray] | None:
        """(parent, child, parent_from_child) of the one edge that the mode asks for (REP-105)."""
        if self.tf_mode == "world_to_camera" and result.poses is not None:
            named = not frame_problem(result.frame_id, self.world)
            return (self.world, result.frame_id, result.poses[-1]) if named else None
        if self.tf_mode == "odom_to_base":
            return self.world, self.base, pose
        if self.tf_mode == "map_to_odom" and odom is not None:
            name, odom_from_base = odom
            return self.world, name, pose @ np.linalg.inv(odom_from_base)
        return None


def frame_problem(frame_id: str, world: str) -> str:
    """Why tf2 can place no image of this frame in the world; empty where it can."""
    if not frame_id:
        return "is empty"
    if frame_id.startswith("/"):
        return f"is '{frame_id}', and tf2 takes no name that begins with a slash"
    return f"is '{frame_id}', which frames.world is, too" if frame_id == world else ""


def published_pixels(uv: np.ndarray, result: WindowResult) -> np.ndarray:
    """Uv [..., 2] of a window's undistorted images to pixels of those published, centres at integers."""
    if result.camera is not None:
        uv = result.camera.to_published(uv.reshape(-1, 2)).reshape(uv.shape)
    return conversions.uv_to_pixels(uv, result.image_size)
