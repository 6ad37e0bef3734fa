"""Calibrations that come late, drift, change or cannot be read, and depth that goes with them."""

import numpy as np
import pytest
from node_rig import FRAMES, TYPES, Rig, RoomModel, stamp, wait, xyz_of
from rclpy.qos import ReliabilityPolicy
from room import SIZE
from sensor_msgs.msg import CameraInfo

from d4rt_ros import conversions
from d4rt_ros.camera import Camera, differ
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.node.run import autostart
from d4rt_ros.srv import GetCamera, Query

K = np.array([[20.0, 0, 16], [0, 22, 12], [0, 0, 1]])
LENS = "plumb_bob", (-0.3, 0.1, 0.0, 0.0, 0.0)


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.close()


def info(k=K, *lens):
    return conversions.camera_info(TYPES, 0, "camera", SIZE, k, *lens)


def tell(rig, message):
    """Publish a calibration until the node has heard it."""
    heard = rig.session.inputs.counters.heard
    heard.pop("camera_info", None)
    rig.tell(message, "camera_info", lambda: "camera_info" in heard)


def test_a_lens_that_drifts_a_little_starts_nothing_over(rig):
    tell(rig, info())
    rig.show(rig.image())
    starts = rig.session.window.counters.restarts
    for n in range(FRAMES):
        message = info(K + np.diag([1e-3 * n, 0, 0]))
        message.p[3] = float("nan")  # of no use here, and not equal to itself
        tell(rig, message)
        rig.show(rig.image())
    assert rig.settle()
    assert rig.session.window.counters.restarts == starts
    assert rig.session.worker.counters.windows_done == 1
    np.testing.assert_allclose(rig.session.newest.intrinsics, K, atol=0.01)


def test_another_lens_starts_over_and_one_that_never_rests_is_named(rig):
    tell(rig, info())
    rig.play(FRAMES)
    tell(rig, info(K + np.diag([1.0, 1.0, 0])))
    assert rig.session.window.restarts == "camera_info changed"
    assert wait(lambda: rig.session.supervision._frames.windows == 1)
    for n in range(8):
        tell(rig, info(K + np.diag([2.0 + n, 2.0 + n, 0])))
        rig.show(rig.image())
    assert wait(lambda: "window" in rig.session.supervision.troubles)
    said = rig.session.supervision.troubles["window"]
    assert "no window can be made" in said
    assert said.endswith("because: camera_info changed")
    rig.play(FRAMES)
    assert wait(lambda: "window" not in rig.session.supervision.troubles)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (0, "had a stamp no newer than the last one's"),
        (11, "for a camera as slow as that raise window.max_gap"),
    ],
)
def test_images_of_which_no_window_can_be_made_are_named(rig, step, words):
    for n in range(8):
        rig.show(rig.image(number=step * n))
    assert wait(lambda: words in rig.session.supervision.troubles.get("window", ""))


def test_a_window_is_read_by_the_lens_that_it_was_seen_through(rig):
    rig.play(FRAMES)
    corner = {"u": [0.0], "v": [0.0], "source": [stamp(FRAMES - 1)]}
    before, camera = rig.call(Query, "query", **corner), rig.call(GetCamera, "get_camera")
    tell(rig, info(K, *LENS))
    after, again = rig.call(Query, "query", **corner), rig.call(GetCamera, "get_camera")
    assert before.success
    assert after.success
    assert after.points.data == before.points.data
    assert again.camera_info == camera.camera_info
    rig.play(FRAMES)
    assert list(rig.call(GetCamera, "get_camera").camera_info.d) == list(LENS[1])
    answer = rig.call(Query, "query", u=[0.0, 16.0, 31.0], v=[0.0, 12.0, 23.0])
    assert answer.success
    lost = [not np.isfinite(point).all() for point in xyz_of(answer.points)]
    assert lost == [True, False, True]
    assert answer.message.startswith("2 of 3 pixels lie outside the undistorted image")


def test_only_images_are_asked_for_reliably():
    rig = Rig(image_reliability="reliable")
    try:
        publisher = rig.publisher(CameraInfo, "camera_info", ReliabilityPolicy.BEST_EFFORT)
        assert publisher.get_subscription_count() == 1
        tell(rig, info())
        rig.play(FRAMES)
        assert rig.session.newest.intrinsics_known
    finally:
        rig.close()


def test_depth_that_cannot_be_read_is_named_and_holds_nothing_up():
    rig = Rig(RoomModel(unit=0.4), scale__source="depth")
    try:
        bad = conversions.depth_image(TYPES, stamp(0), "camera", np.ones(SIZE, np.float32))
        bad.encoding = "8UC1"
        for n in range(FRAMES + 8):
            bad.header.stamp = conversions.time_message(TYPES, stamp(n))
            rig.session.inputs.counters.heard.pop("depth", None)
            rig.tell(bad, "depth", lambda: "depth" in rig.session.inputs.counters.heard)
            rig.show(rig.image())
        assert wait(lambda: rig.session.worker.counters.windows_done >= 1)
        inputs = rig.session.inputs
        assert inputs.counters.refused == 0
        assert inputs.counters.alone >= FRAMES
        assert len(inputs._waiting) < 8
        assert wait(lambda: "depth" in rig.session.supervision.troubles)
        assert "depths are refused: depth: depth encoding '8UC1'" in rig.session.supervision.troubles["depth"]
        assert "image" not in rig.session.supervision.troubles
    finally:
        rig.close()


def test_compressed_images_come_from_beside_the_image_that_was_remapped():
    rig = Rig(start=False)
    told = ["--ros-args", "-r", "image:=/cam/image_raw", "-p", "image_transport:=compressed"]
    node = D4RTNode(lambda values: rig.model, context=rig.node_context, namespace="other", cli_args=told)
    try:
        assert autostart(node)
        assert node.session.inputs.topics["image"] == "/cam/image_raw/compressed"
    finally:
        node.close()
        node.destroy_node()
        rig.close()


def test_calibrations_are_apart_by_what_differs():
    one = Camera(SIZE, K, *LENS)
    assert one.apart(Camera(SIZE, K + np.diag([0.2, 0, 0]), *LENS)) == pytest.approx(0.01)
    assert one.apart(Camera(SIZE, K, "plumb_bob", (-0.35, 0.1, 0.0, 0.0, 0.0))) == pytest.approx(0.05)
    assert one.apart(Camera(SIZE, K)) == one.apart(Camera((25, 32), K, *LENS)) == np.inf
    assert not differ(None, None, 0.0)
    assert differ(one, None, 1.0)
    assert not differ(one, one, 0.0)
