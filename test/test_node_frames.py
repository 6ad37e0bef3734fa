"""Transforms and metric scale: all tf modes, scale from odometry and from a depth camera."""

import time

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from node_rig import FRAMES, TYPES, Rig, RoomModel, stamp, wait
from room import SIZE, Room, camera_path
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from d4rt_ros import conversions
from d4rt_ros.model import Queries
from d4rt_ros.node import transforms
from d4rt_ros.node.supervision import PATIENCE
from d4rt_ros.srv import GetCamera

UNIT = 0.4  # units of the network per metre
BASE_FROM_CAMERA = np.array([[0, 0, 1, 0.3], [-1, 0, 0, 0.1], [0, -1, 0, 0.5], [0, 0, 0, 1]], float)
# World axes (x forward, z up) from the optical axes of the first camera.
OPTICAL = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)


def world_from_camera(number, first=0):
    poses = camera_path(np.array([stamp(first), stamp(number)]) / 1e9)
    return OPTICAL @ np.linalg.inv(poses[0]) @ poses[1]


def odom_from_base(number):
    """What wheel odometry says: true motion, in an odom frame of its own."""
    pose = camera_path(np.array([stamp(number)]) / 1e9)[0]
    origin = np.array([[0, -1, 0, 5], [1, 0, 0, -2], [0, 0, 1, 0.2], [0, 0, 0, 1]], float)
    return origin @ OPTICAL @ pose @ np.linalg.inv(BASE_FROM_CAMERA)


def tell_transforms(rig, moving=(), base_from_camera=BASE_FROM_CAMERA):
    """Static base to camera, and odom to base at the stamps of these frames."""
    still = conversions.transform_message(TYPES, stamp(0), "base_link", "camera", base_from_camera)
    buffer = rig.session.transforms
    if "/tf_static" not in rig._cameras:
        from rclpy.qos import DurabilityPolicy, QoSProfile

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        rig._cameras["/tf_static"] = rig.node.create_publisher(TFMessage, "/tf_static", latched)
        rig._cameras["/tf_static"].publish(TFMessage(transforms=[still]))
        assert wait(lambda: buffer.lookup("base_link", "camera", stamp(0)) is not None)
    for number in moving:
        edge = conversions.transform_message(
            TYPES, stamp(number), "odom", "base_link", odom_from_base(number)
        )
        rig.tell(
            TFMessage(transforms=[edge]),
            "/tf",
            lambda n=number: buffer.lookup("odom", "base_link", stamp(n)) is not None,
        )


def matrix_of(edge):
    assert isinstance(edge, TransformStamped)
    return conversions.transform_edge(edge)[3]


def test_odometry_of_the_base_is_broadcast_as_an_odometry_source_does():
    rig = Rig(tf__mode="odom_to_base", frames__base="base_link", frames__world="odom")
    try:
        edges, poses = rig.listen(TFMessage, "/tf"), rig.listen(Odometry, "odometry")
        tell_transforms(rig)
        rig.play(FRAMES)
        assert wait(lambda: edges and poses)
        edge = edges[-1].transforms[0]
        assert (edge.header.frame_id, edge.child_frame_id) == ("odom", "base_link")
        wanted = world_from_camera(FRAMES - 1) @ np.linalg.inv(BASE_FROM_CAMERA)
        np.testing.assert_allclose(matrix_of(edge), wanted, atol=2e-3)
        assert poses[-1].child_frame_id == "base_link"
        assert wait(lambda: "scale" in rig.session.supervision.troubles)
        assert "units that are no metres; set scale.source" in rig.session.supervision.troubles["scale"]
        assert conversions.stamp_ns(edge.header.stamp) == stamp(FRAMES - 1)
    finally:
        rig.close()


def test_the_world_has_the_axes_of_the_base_and_not_of_a_camera_that_looks_down():
    down = np.eye(4)
    down[:3, :3] = Rotation.from_euler("y", 30, degrees=True).as_matrix()
    base_from_camera = down @ BASE_FROM_CAMERA
    rig = Rig(tf__mode="odom_to_base", frames__base="base_link", frames__world="odom")
    try:
        edges = rig.listen(TFMessage, "/tf")
        tell_transforms(rig, base_from_camera=base_from_camera)
        rig.play(FRAMES)
        assert wait(lambda: edges)
        poses = camera_path(np.array([stamp(0), stamp(FRAMES - 1)]) / 1e9)
        turned = np.eye(4)
        turned[:3, :3] = base_from_camera[:3, :3]
        wanted = turned @ np.linalg.inv(poses[0]) @ poses[1] @ np.linalg.inv(base_from_camera)
        np.testing.assert_allclose(matrix_of(edges[-1].transforms[0]), wanted, atol=2e-3)
        seen = rig.call(GetCamera, "get_camera").poses[0].pose.orientation
        seen = Rotation.from_quat([seen.x, seen.y, seen.z, seen.w]).as_matrix()
        np.testing.assert_allclose(seen, turned[:3, :3], atol=2e-3)
    finally:
        rig.close()


def test_a_localizer_broadcasts_map_to_odom_so_that_the_chain_is_right():
    rig = Rig(tf__mode="map_to_odom", frames__base="base_link", frames__world="map")
    try:
        edges = rig.listen(TFMessage, "/tf")
        tell_transforms(rig, range(FRAMES))
        rig.play(FRAMES)
        assert wait(lambda: any(one.transforms[0].header.frame_id == "map" for one in edges))
        edge = next(one.transforms[0] for one in edges if one.transforms[0].header.frame_id == "map")
        assert edge.child_frame_id == "odom"
        chain = matrix_of(edge) @ odom_from_base(FRAMES - 1) @ BASE_FROM_CAMERA
        np.testing.assert_allclose(chain, world_from_camera(FRAMES - 1), atol=2e-3)
    finally:
        rig.close()


@pytest.mark.parametrize(
    ("frame_id", "words"),
    [
        ("", "header.frame_id of the images is empty: nobody can place what is in it"),
        ("/camera", "is '/camera', and tf2 takes no name that begins with a slash"),
        ("world", "is 'world', which frames.world is, too"),
    ],
)
def test_a_camera_whose_frame_has_no_place_is_named_and_not_broadcast(frame_id, words):
    rig = Rig(tf__mode="world_to_camera")
    try:
        edges, poses = rig.listen(TFMessage, "/tf"), rig.listen(Odometry, "odometry")
        rig.play(FRAMES, frame_id=frame_id)
        assert wait(lambda: poses and words in rig.session.supervision.troubles.get("frame_id", ""))
        assert not edges
        rig.play(FRAMES)
        assert wait(lambda: edges and "frame_id" not in rig.session.supervision.troubles)
        assert edges[0].transforms[0].child_frame_id == "camera"
    finally:
        rig.close()


def test_a_missing_transform_is_named_and_comes_right():
    rig = Rig(tf__mode="odom_to_base", frames__base="base_link")
    try:
        for _ in range(FRAMES):
            rig.show(rig.image())
        assert rig.settle()
        assert wait(lambda: "tf" in rig.session.supervision.troubles, PATIENCE + 3)
        text = rig.session.supervision.troubles["tf"]
        assert "tf.mode 'odom_to_base' and frames.base 'base_link' needs" in text and "camera" in text
        tell_transforms(rig)
        rig.play(FRAMES)
        assert wait(lambda: "tf" not in rig.session.supervision.troubles)
    finally:
        rig.close()


def test_the_transform_of_a_camera_that_is_gone_is_no_trouble_any_more(monkeypatch):
    monkeypatch.setattr(transforms, "UNASKED", 0.5)
    rig = Rig(scale__source="odometry")
    try:
        tell_transforms(rig, range(100))
        rig.show(rig.image(frame_id="gone"))
        assert wait(lambda: "gone" in rig.session.supervision.troubles.get("tf", ""), PATIENCE + 3)
        deadline = time.monotonic() + 10
        while "tf" in rig.session.supervision.troubles and time.monotonic() < deadline and rig.next < 100:
            rig.show(rig.image())
            time.sleep(0.05)
        assert "tf" not in rig.session.supervision.troubles
        assert rig.session.transforms.lookup("odom", "gone", stamp(0)) is None
        assert not rig.session.transforms.problem(PATIENCE), "it has the same patience when it comes back"
    finally:
        rig.close()


def test_a_transform_that_slow_windows_miss_stays_a_trouble_between_them(monkeypatch):
    monkeypatch.setattr(transforms, "UNASKED", 0.1)
    rig = Rig(scale__source="odometry")
    try:
        heard = rig.session.transforms
        tell_transforms(rig)
        assert heard.lookup("nobody", "camera", stamp(0)) is None
        time.sleep(0.2)
        assert heard.lookup("base_link", "camera", stamp(0)) is not None
        assert "nobody" in heard.problem(0.1)
        heard.clear()
        assert not heard.problem(0.0)
    finally:
        rig.close()


@pytest.mark.parametrize("late", [False, True])
def test_odometry_makes_the_scale_metric_also_when_it_arrives_after_the_image(late):
    rig = Rig(RoomModel(unit=UNIT), scale__source="odometry")
    try:
        tell_transforms(rig)
        for number in range(3 * FRAMES):
            if not late:
                tell_transforms(rig, [number])
            rig.show(rig.image())
            if late:
                tell_transforms(rig, [number])
        tell_transforms(rig, [3 * FRAMES])
        rig.show(rig.image())
        assert rig.settle()
        assert rig.session.inputs.counters.alone == 0
        check_metric(rig)
    finally:
        rig.close()


def test_a_depth_camera_makes_the_scale_metric():
    rig = Rig(RoomModel(unit=UNIT), scale__source="depth")
    try:
        for number in range(2 * FRAMES):
            rig.show(rig.image())
            v, u = np.meshgrid(
                (np.arange(SIZE[0]) + 0.5) / SIZE[0], (np.arange(SIZE[1]) + 0.5) / SIZE[1], indexing="ij"
            )
            import torch

            queries = Queries.make(torch.from_numpy(u.ravel()), torch.from_numpy(v.ravel()), 0, 0, 0)
            depth = Room((stamp(number),)).decode(queries).xyz[:, 2].reshape(SIZE).numpy()
            message = conversions.depth_image(TYPES, stamp(number) + 5_000_000, "camera", depth)
            assert isinstance(message, Image)
            before = rig.session.window.counters.received
            rig.tell(message, "depth", lambda before=before: rig.session.window.counters.received > before)
        assert rig.settle() and rig.session.inputs.counters.alone == 0
        check_metric(rig)
    finally:
        rig.close()


def test_the_nearest_depth_image_belongs_to_an_image():
    rig = Rig(scale__source="depth")
    try:
        frames = []
        rig.session.inputs._on_frame = frames.append
        for count, late in enumerate((-9, 2, 15)):
            depth = np.full(SIZE, float(late + 20), np.float32)
            message = conversions.depth_image(TYPES, stamp(0) + late * 1_000_000, "camera", depth)
            rig.tell(message, "depth", lambda n=count: len(rig.session.inputs._depths) > n)
        rig.show(rig.image(0))
        assert wait(lambda: frames)
        assert frames[0].depth[0, 0] == 22.0
    finally:
        rig.close()


def test_frames_that_nothing_comes_for_go_on_alone_and_are_counted():
    rig = Rig(RoomModel(unit=UNIT), scale__source="depth")
    try:
        for _ in range(FRAMES + 4):
            rig.show(rig.image())
        assert rig.session.inputs.counters.alone >= FRAMES
        assert rig.settle() and rig.session.newest is not None and not rig.session.newest.metric
    finally:
        rig.close()


def test_a_fixed_scale_is_used():
    rig = Rig(RoomModel(unit=UNIT), scale__source="fixed", scale__value=1 / UNIT)
    try:
        rig.play(FRAMES)
        check_metric(rig)
    finally:
        rig.close()


def check_metric(rig):
    """Poses are those of the room, in metres."""
    result = rig.session.newest
    assert result.metric, result.scale_state
    answer = rig.call(GetCamera, "get_camera")
    assert answer.metric
    ends = [np.array([p.pose.position.x, p.pose.position.y, p.pose.position.z]) for p in answer.poses]
    stamps = [conversions.stamp_ns(answer.poses[index].header.stamp) for index in (0, -1)]
    path = camera_path(np.array(stamps) / 1e9)[:, :3, 3]
    assert np.linalg.norm(ends[-1] - ends[0]) == pytest.approx(np.linalg.norm(path[1] - path[0]), rel=0.02)
