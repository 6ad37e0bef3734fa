"""Messages of a window, the same for the node and for recordings: transforms, path, pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bag_samples import START, STEP, StubPipeline, picture
from scipy.spatial.transform import Rotation

from d4rt_ros import conversions
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.camera import Camera
from d4rt_ros.outputs import LATCHED, TOPICS, Outputs, parts_for
from d4rt_ros.stream import Frame, Window, WindowResult

TYPES = BagMessages()


def moved(x: float, y: float, z: float, yaw: float = 0.0) -> np.ndarray:
    """[4, 4] pose."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    pose[:3, 3] = x, y, z
    return pose


def result(first: int = 0, **fields: object) -> WindowResult:
    """Result of four frames."""
    frames = tuple(Frame(START + n * STEP, picture(n), "optical") for n in range(first, first + 4))
    found = StubPipeline().process(Window(frames), frozenset({"tracks", "depth", "points", "dynamic", "map"}))
    return replace(found, **fields)


def edges(outputs: Outputs, found: WindowResult, **known: object) -> list[tuple[str, str, int, np.ndarray]]:
    """Transforms that are broadcast for a result."""
    built = dict(outputs.build(found, ["/tf"], **known))  # type: ignore[arg-type]
    transforms = built["/tf"].transforms if "/tf" in built else []
    return [conversions.transform_edge(transform) for transform in transforms]


def test_nothing_is_broadcast_unless_asked_for() -> None:
    assert edges(Outputs(TYPES, "world"), result()) == []


def test_world_to_camera_has_the_images_stamp_and_frame() -> None:
    poses = np.stack([moved(n, 2.0, 3.0, 0.1 * n) for n in range(4)])
    ((parent, child, stamp, pose),) = edges(
        Outputs(TYPES, "world", tf_mode="world_to_camera"), result(poses=poses)
    )
    assert (parent, child, stamp) == ("world", "optical", START + 3 * STEP)
    np.testing.assert_allclose(pose, poses[-1], atol=1e-12)


def test_base_and_odometry_edges_follow_rep_105() -> None:
    poses = np.stack([moved(5.0, 0.0, 0.0, 0.5)] * 4)
    camera_from_base, odom_from_base = moved(0.0, -1.0, 0.3, 0.2), moved(4.0, 1.0, 0.0, 0.6)
    world_from_base = poses[-1] @ camera_from_base
    outputs = Outputs(TYPES, "odom", "base_link", "odom_to_base")
    ((parent, child, _, pose),) = edges(outputs, result(poses=poses), camera_from_base=camera_from_base)
    assert (parent, child) == ("odom", "base_link")
    np.testing.assert_allclose(pose, world_from_base, atol=1e-12)
    outputs = Outputs(TYPES, "map", "base_link", "map_to_odom")
    known = {"camera_from_base": camera_from_base, "odom": ("odom", odom_from_base)}
    ((parent, child, _, pose),) = edges(outputs, result(poses=poses), **known)
    assert (parent, child) == ("map", "odom")
    np.testing.assert_allclose(pose @ odom_from_base, world_from_base, atol=1e-12)
    assert edges(outputs, result(poses=poses), camera_from_base=camera_from_base) == []  # odom is not known
    (odometry,) = (m for t, m in outputs.build(result(poses=poses), ["odometry"], camera_from_base))
    assert odometry.child_frame_id == "base_link"


def test_what_is_far_from_the_camera_is_moved_by_its_turns() -> None:
    covariance = np.zeros((4, 6, 6))
    covariance[:, 4, 4] = 1e-4  # rad^2 about y
    poses = np.stack([moved(5.0, 0.0, 0.0)] * 4)
    outputs = Outputs(TYPES, "odom", "base_link", "odom_to_base")
    found = result(poses=poses, covariance=covariance)
    (odometry,) = (m for _, m in outputs.build(found, ["odometry"], moved(2.0, 0.0, 0.0)))
    told = np.reshape(odometry.pose.covariance, (6, 6))
    np.testing.assert_allclose(np.diag(told), [0, 0, 4e-4, 0, 1e-4, 0], atol=1e-12)
    assert told[2, 4] == pytest.approx(-2e-4)  # up goes with a turn down by the same sign
    # A camera that is turned: its axis, on which the base is, shows along y of the world, x lies across.
    poses[:, :3, :3] = Rotation.from_euler("x", -90, degrees=True).as_matrix()
    found = result(poses=poses, covariance=covariance[:, [0, 1, 2, 4, 3, 5]][:, :, [0, 1, 2, 4, 3, 5]])
    (odometry,) = (m for _, m in outputs.build(found, ["odometry"], moved(0.0, 0.0, 2.0)))
    told = np.reshape(odometry.pose.covariance, (6, 6))
    np.testing.assert_allclose(np.diag(told), [0, 0, 4e-4, 1e-4, 0, 0], atol=1e-12)


def test_without_the_base_nothing_is_said_about_it() -> None:
    outputs = Outputs(TYPES, "odom", "base_link", "odom_to_base")
    topics = {topic for topic, _ in outputs.build(result(), list(TOPICS))}
    assert not topics & {"odometry", "path", "/tf"} and "tracks" in topics


def test_depth_leaves_before_poses_are_made() -> None:
    outputs = Outputs(TYPES, "world")
    messages = outputs.build(result(), ["path", "depth/image"])
    assert next(messages)[0] == "depth/image" and len(outputs.state()["path_stamps"]) == 0
    assert [topic for topic, _ in messages] == ["path"] and len(outputs.state()["path_stamps"]) == 4


def test_wrong_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="tf.mode is 'up'; it must be one of none, world_to_camera"):
        Outputs(TYPES, "world", tf_mode="up")
    with pytest.raises(ValueError, match="map_to_odom', which needs frames.base"):
        Outputs(TYPES, "world", tf_mode="map_to_odom")


def path_of(outputs: Outputs, found: WindowResult) -> list[int]:
    """Numbers of the frames in the path."""
    (message,) = (message for _, message in outputs.build(found, ["path"]))
    return [(conversions.stamp_ns(pose.header.stamp) - START) // STEP for pose in message.poses]


def test_the_path_has_every_frame_once_and_starts_over_with_the_segment() -> None:
    outputs = Outputs(TYPES, "world")
    assert path_of(outputs, result(0)) == [0, 1, 2, 3]
    assert path_of(outputs, result(2)) == [0, 1, 2, 3, 4, 5]
    later = Outputs(TYPES, "world")
    later.restore(outputs.state())
    assert path_of(later, result(4)) == path_of(outputs, result(4)) == list(range(8))
    assert path_of(outputs, result(6, segment=1)) == [6, 7, 8, 9]


def test_tracks_are_in_pixels_of_the_published_image() -> None:
    size = result().image_size
    lens = np.array([[30.0, 0, size[1] / 2], [0, 30, size[0] / 2], [0, 0, 1]])
    straight = Camera(size, lens)
    bent = Camera(size, lens, "plumb_bob", (-0.3, 0.1, 0.0, 0.0, 0.0))
    found = result()
    assert found.tracks is not None
    found = replace(found, tracks=replace(found.tracks, uv=np.full_like(found.tracks.uv, 0.9)))

    def pixels(camera: Camera | None) -> np.ndarray:
        frames = tuple(replace(frame, camera=camera) for frame in found.window.frames)
        seen = replace(found, window=replace(found.window, frames=frames))
        return dict(Outputs(TYPES, "world").build(seen, ["tracks"]))["tracks"].uv[:2]

    expected = [0.9 * size[1] - 0.5, 0.9 * size[0] - 0.5]
    for camera in (None, straight):
        np.testing.assert_allclose(pixels(camera), expected, rtol=1e-6)
    assert (pixels(bent) < np.array(expected) - 0.3).all()  # barrel distortion pulls the corner in


def test_topics_name_what_must_be_computed() -> None:
    assert parts_for(["odometry", "/tf", "camera_info"]) == frozenset()
    assert parts_for(TOPICS) == {"depth", "points", "dynamic", "map", "tracks"}
    assert set(TOPICS) >= LATCHED
