"""What cameras do to a node: wrong encodings, changes in mid-stream, silence, and time that jumps."""

import re
import struct
import threading
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from node_rig import FRAMES, TYPES, Rig, stamp, wait
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from room import SIZE
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from d4rt_ros import conversions
from d4rt_ros.node import supervision
from d4rt_ros.node.gaps import Gaps
from d4rt_ros.node.supervision import PATIENCE
from d4rt_ros.node.wire import image_bytes, read_image
from d4rt_ros.srv import Query


def trouble(rig, subject):
    return rig.session.supervision.troubles.get(subject, "")


def ends(rig, subject):
    """Whether a trouble does, while the camera goes on."""
    deadline = time.monotonic() + 10
    while trouble(rig, subject) and time.monotonic() < deadline:
        rig.play(1)
    return not trouble(rig, subject)


def test_an_unknown_encoding_is_refused_by_name_and_the_stream_goes_on(rig):
    bad = rig.image()
    bad.encoding = "8UC3"
    windows, refused = rig.session.worker.counters.windows_done, rig.session.inputs.counters.refused
    for _ in range(3):
        rig.show(bad)
    assert rig.session.inputs.counters.refused == refused + 3
    assert wait(lambda: trouble(rig, "image"))
    assert "encoding '8UC3' is not supported; supported are rgb8, bgr8" in trouble(rig, "image")
    rig.play(FRAMES)
    assert rig.session.worker.counters.windows_done > windows
    assert wait(lambda: not trouble(rig, "image"))


def test_truncated_and_unstamped_images_are_refused(rig):
    for change, words in (
        (lambda image: image.data.pop(), "data is truncated"),
        (
            lambda image: setattr(image.header, "stamp", Time()),
            "header.stamp is zero; the camera driver must stamp",
        ),
        (lambda image: setattr(image.header, "stamp", Time(sec=-4)), "header.stamp is zero"),
        (lambda image: setattr(image, "height", 4_000_000_000), "data is truncated"),
        (lambda image: setattr(image, "width", 0), "0x24 pixels"),
    ):
        image, before = rig.image(), rig.session.inputs.counters.refused
        change(image)
        rig.show(image)
        assert rig.session.inputs.counters.refused == before + 1
        assert words in rig.session.inputs.counters.refusals["image"][0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": (12, 16)}, "image size changed from 32x24 to 16x12"),
        ({"frame_id": "other_camera"}, "camera frame changed from 'camera' to 'other_camera'"),
    ],
)
def test_a_change_in_mid_stream_starts_over_and_says_so(rig, fields, reason):
    rig.play(FRAMES)
    rig.show(rig.image(**fields))
    assert rig.session.window.restarts == reason
    rig.play(1)  # and back again
    rig.play(FRAMES - 1)
    assert rig.session.newest.window.starts_segment


def test_late_and_double_frames_are_counted_and_a_loop_starts_over(rig):
    rig.play(FRAMES)
    counters = rig.session.window.counters
    before = counters.duplicates, counters.out_of_order
    newest = rig.next - 1
    rig.show(rig.image(newest))
    rig.show(rig.image(newest - 3))
    assert (counters.duplicates, counters.out_of_order) == (before[0] + 1, before[1] + 1)
    rig.show(rig.image(0))
    assert rig.session.window.restarts.startswith("time jumped back by")
    rig.play(FRAMES - 1)
    assert rig.session.newest.stamps == tuple(stamp(k) for k in range(FRAMES))
    answer = rig.call(Query, "query", u=[1.0], v=[1.0])
    assert answer.success and conversions.stamp_ns(answer.window_end) == stamp(FRAMES - 1)


def test_a_calibration_that_cannot_be_used_is_named_and_images_go_on(rig):
    k = np.array([[20.0, 0, 16], [0, 22, 12], [0, 0, 1]])
    for size, model, coefficients, words in (
        ((48, 64), "plumb_bob", (0.0,) * 5, "camera_info is for 64x48 pixels, the image has 32x24"),
        (SIZE, "cylinder", (0.1,), "distortion_model 'cylinder' is not supported"),
    ):
        rig.tell(
            conversions.camera_info(TYPES, 0, "camera", size, k, model, coefficients),
            "camera_info",
            lambda: "camera_info" in rig.session.inputs.counters.heard,
        )
        rig.play(FRAMES)
        assert wait(lambda words=words: words in trouble(rig, "camera_info")), trouble(rig, "camera_info")
        assert rig.session.newest.intrinsics_known is False
        rig.session.inputs.counters.heard.pop("camera_info")
    rig.tell(
        conversions.camera_info(TYPES, 0, "camera", SIZE, k),
        "camera_info",
        lambda: rig.session.inputs.camera is not None,
    )
    assert wait(lambda: not trouble(rig, "camera_info"))


def test_silence_names_the_topic_and_what_to_do():
    rig = Rig(image_reliability="reliable", scale__source="odometry")
    try:
        assert wait(lambda: trouble(rig, "image"), PATIENCE + 3)
        assert (
            "no message on /image for 2 s: nobody publishes it; start the camera, or remap 'image'"
            in trouble(rig, "image")
        )
        rig.node.create_publisher(Image, "image", 5)
        assert wait(lambda: "1 publisher(s) that send nothing" in trouble(rig, "image"), 5)
    finally:
        rig.close()


def test_images_that_are_lost_on_the_way_are_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(supervision, "LOOK_BACK", 1.0)
    rig = Rig()
    try:
        rig.play(FRAMES)
        inputs, held = rig.session.inputs, threading.Event()
        take = inputs._on_frame
        monkeypatch.setattr(inputs, "_on_frame", lambda frame: (held.wait(10), take(frame)))
        for _ in range(45):  # the middleware keeps ten while nobody takes any
            rig.publisher(Image, "image").publish(rig.image())
        time.sleep(0.5)
        held.set()
        if inputs.counters.gaps.newest is None:
            inputs.counters.dropped += 35  # it numbers nothing: it reports losses, but not what it overwrites
        assert wait(lambda: inputs.counters.lost > 20)
        assert wait(lambda: trouble(rig, "image"), PATIENCE + 3)
        told = re.match(r"(\d+) of (\d+) images on /image were lost", trouble(rig, "image"))
        assert told and 20 < int(told[1]) <= inputs.counters.lost
        assert int(told[1]) < int(told[2]) <= inputs.counters.images + inputs.counters.lost
        assert "FASTDDS_DEFAULT_PROFILES_FILE" in trouble(rig, "image")
        assert "FASTRTPS_DEFAULT_PROFILES_FILE" in trouble(rig, "image")
        assert ends(rig, "image")
    finally:
        rig.close()


@pytest.mark.parametrize("numbered", [True, False])
def test_two_cameras_on_one_topic_are_named_and_lose_nothing_of_each_other(monkeypatch, numbered):
    monkeypatch.setattr(supervision, "LOOK_BACK", 1.0)
    if not numbered:  # as over Cyclone DDS, and on Humble
        monkeypatch.setattr(Gaps, "take", lambda gaps, number: None)
    rig = Rig()
    other = Node("other_camera", context=rig.context)
    try:
        rig.play(2 * FRAMES)
        publisher = other.create_publisher(Image, "image", 5)
        assert wait(lambda: rig.node.count_publishers("/image") == 2)
        lost, counters = rig.session.inputs.counters.lost, rig.session.inputs.counters
        deadline = time.monotonic() + 10
        while not trouble(rig, "image") and time.monotonic() < deadline:
            images = counters.images
            publisher.publish(rig.image(frame_id="other"))
            assert wait(lambda images=images: counters.images > images)
            rig.play(1)
        assert "2 publishers send images on /image in turn" in trouble(rig, "image")
        assert counters.lost == lost
        assert ends(rig, "image")
    finally:
        other.destroy_node()
        rig.close()


def test_a_quality_of_service_that_does_not_fit_is_named():
    rig = Rig(image_reliability="reliable")
    try:
        rig.node.create_publisher(
            Image, "image", QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        assert wait(lambda: rig.session.inputs.counters.mismatched.get("image"), 10)
        assert wait(lambda: "set image_reliability to best_effort" in trouble(rig, "image"), PATIENCE + 3)
    finally:
        rig.close()


def test_a_publisher_of_camera_info_that_says_nothing_is_named():
    rig = Rig()
    try:
        rig.node.create_publisher(CameraInfo, "camera_info", 5)
        assert wait(lambda: trouble(rig, "camera_info"), PATIENCE + 3)
        assert "until then intrinsics are estimated" in trouble(rig, "camera_info")
    finally:
        rig.close()


def test_a_simulated_clock_that_stands_still_is_named_and_one_that_jumps_back_starts_over():
    rig = Rig(use_sim_time=True)
    try:
        assert wait(lambda: "nothing arrives on /clock" in trouble(rig, "clock"), PATIENCE + 3)
        rig.play(FRAMES - 1)
        now = rig.d4rt.get_clock()
        rig.tell(Clock(clock=Time(sec=50)), "/clock", lambda: now.now().nanoseconds == 50 * 10**9)
        before = rig.session.window.counters.restarts
        rig.tell(Clock(clock=Time(sec=20)), "/clock", lambda: now.now().nanoseconds == 20 * 10**9)
        assert wait(lambda: rig.session.window.counters.restarts == before + 1)
        assert rig.session.window.restarts == "time jumped back"
        rig.play(1)
        assert rig.session.worker.counters.windows_in == 0  # the frames from before do not count
        assert wait(lambda: not trouble(rig, "clock"))
    finally:
        rig.close()


def test_parameters_are_refused_over_the_wire_with_field_value_and_range():
    rig = Rig()

    def change(name, value):
        parameters = [Parameter(name, value=value).to_parameter_msg()]
        return rig.call(SetParameters, "set_parameters", parameters=parameters).results[0]

    try:
        for name, value, words in (
            ("points.min_confidence", 1.5, ("points.min_confidence", "1.5", "1")),
            ("window.length", 100_000, ("window.length", "100000", "256")),
            ("window.length", 8.0, ("type",)),
            ("tf.mode", "sideways", ("tf.mode can be set while the node is inactive",)),
            (
                "model.checkpoint",
                "x",
                ("model.checkpoint needs another network", "unconfigured; it is active now"),
            ),
            ("query.queue", 3, ("read-only", "query.queue")),
        ):
            result = change(name, value)
            assert not result.successful and all(word in result.reason for word in words), result.reason
        assert change("tf.mode", "none").successful, "`ros2 param load` sets what is so already, too"
        rig.d4rt.trigger_deactivate()
        result = change("tf.mode", "odom_to_base")
        assert (
            not result.successful
            and result.reason == "tf.mode is 'odom_to_base', which needs frames.base; it is empty"
        )
        result = change("tf.mode", "sideways")
        assert "it must be one of 'none', 'world_to_camera'" in result.reason
        assert change("points.stride", 2).successful
        rig.d4rt.trigger_activate()
        assert rig.session.settings.points_stride == 2
        shown = rig.call(
            DescribeParameters, "describe_parameters", names=["points.min_confidence"]
        ).descriptors[0]
        assert shown.description and shown.floating_point_range[0].to_value == 1.0
    finally:
        rig.close()


def test_frames_are_checked_together_at_start_and_when_they_are_set():
    with pytest.raises(ValueError, match="frames.odom is '/odom'; tf2 takes no name that begins"):
        Rig(start=False, frames__odom="/odom")
    rig = Rig(start=False, frames__base="base_link")

    def change(**wanted):
        parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in wanted.items()
        ]
        return rig.call(SetParametersAtomically, "set_parameters_atomically", parameters=parameters).result

    try:
        result = change(frames__world="odom", tf__mode="map_to_odom")
        assert result.reason == "tf.mode is 'map_to_odom', but frames.world and frames.odom both are 'odom'"
        assert rig.d4rt.get_parameter("tf.mode").value == "none" and not result.successful
        assert change(frames__world="odom", tf__mode="odom_to_base").successful
        assert not change(tf__mode="map_to_odom").successful
        assert "it would be read from this node's own poses" in change(scale__source="odometry").reason
        assert change(frames__world="map", tf__mode="map_to_odom").successful
        assert "frames.base is 'map', which frames.world is, too" in change(frames__base="map").reason
        assert change(frames__base="map", frames__world="earth").successful
    finally:
        rig.close()


@pytest.mark.parametrize("frame_id", ["", "a", "cam", "camera_optical_frame", "caméra"])
@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bayer_rggb8"])
def test_an_image_is_written_to_its_bytes_and_read_from_them(frame_id, encoding):
    """Whatever lengths come before its numbers; cut off or damaged anywhere it is refused."""
    message = Image(height=2, width=5, encoding=encoding, is_bigendian=1, step=15)
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = -7, 2**32 - 1
    message.data.frombytes(bytes(range(30)))
    assert deserialize_message(image_bytes(message), Image) == message
    data = serialize_message(message)
    read = read_image(data)
    assert (read.header.stamp.sec, read.header.stamp.nanosec) == (-7, 2**32 - 1)
    for name in ("height", "width", "encoding", "is_bigendian", "step"):
        assert getattr(read, name) == getattr(message, name)
    assert read.header.frame_id == frame_id and read.data.tobytes() == bytes(range(30))
    whole = len(data) - (-(len(data) - 4) % 4)
    for cut in range(min(whole, data.index(bytes(range(30))) + 30)):
        with pytest.raises(ValueError, match="cut off or damaged|not in CDR"):
            read_image(data[:cut])


def test_an_image_of_a_machine_with_the_other_byte_order_is_read():
    """CDR says in its first bytes which order its numbers have."""
    parts = [struct.pack(">iII", 5, 6, 4), b"cam\0", struct.pack(">III", 1, 2, 6), b"mono8\0\1\0"]
    data = b"\0\0\0\0" + b"".join(parts) + struct.pack(">II", 2, 2) + b"ab"
    read = read_image(data)
    assert (read.header.stamp.sec, read.header.stamp.nanosec, read.header.frame_id) == (5, 6, "cam")
    assert (read.height, read.width, read.encoding, read.is_bigendian, read.step) == (1, 2, "mono8", 1, 2)
    assert read.data.tobytes() == b"ab"
