"""What a camera does to a node on a field day: stops, returns as another one, and loses its sense of time."""

import time

import numpy as np
import pytest
from field import FRAMES, PATIENCE
from node_rig import TYPES, stamp, wait

from d4rt_ros import conversions
from d4rt_ros.srv import Query

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def well_again(node):
    """After every fault: windows, answers, poses that are numbers, and no complaint."""
    yield
    node.next += 100
    for topic in ("odometry", "depth/image", "tracks"):
        node.heard[topic].clear()
    answer = node.play(2 * FRAMES)
    assert answer.success and len(answer.poses) == FRAMES, answer.message
    assert node.call(Query, "query", u=[1.0], v=[1.0]).success
    assert wait(lambda: all(node.heard[topic] for topic in ("odometry", "depth/image", "tracks")), PATIENCE)
    newest = stamp(node.next - 1)
    assert wait(lambda: conversions.stamp_ns(node.heard["odometry"][-1].header.stamp) == newest, PATIENCE)


def test_a_camera_that_stops_is_named_and_may_return(node):
    node.play(FRAMES)
    node.unplug()
    assert node.shows(lambda f: "no message on /image for 2 s: nobody publishes it" in f["says"])
    assert node.call(Query, "query", u=[1.0], v=[1.0]).success  # the last window goes on answering
    node.next += 300
    node.play(FRAMES)
    assert node.shows(lambda f: "no frame for 30" in f["started over because"] and f["says"].count("running"))


def test_a_camera_that_is_there_and_sends_nothing_is_named(node):
    node.play(FRAMES)
    assert node.shows(lambda f: "1 publisher(s) that send nothing" in f["says"])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": (30, 40)}, "image size changed from 32x24 to 40x30"),
        ({"frame_id": "rear_camera"}, "camera frame changed from 'camera' to 'rear_camera'"),
    ],
)
def test_another_camera_on_the_same_topic_starts_over_and_says_so(node, fields, reason):
    node.play(FRAMES)
    answer = node.play(FRAMES, **fields)
    assert node.shows(lambda f: f["started over because"] == reason)
    assert answer.camera_info.header.frame_id == fields.get("frame_id", "camera")
    assert (answer.camera_info.height, answer.camera_info.width) == fields.get("size", node.size)


@pytest.mark.parametrize("fields", [{"size": (30, 40)}, {"frame_id": "rear_camera"}])
def test_two_cameras_on_one_topic_leave_the_node_alive(node, fields):
    for index in range(6 * FRAMES):
        node.camera().publish(node.image(**(fields if index % 2 else {})))
        time.sleep(0.005)
    assert node.shows(lambda f: "changed from" in f["started over because"])


def test_an_encoding_may_change_in_mid_stream(node):
    starts = node.count("starts over")
    for encoding, channels in (
        ("bgr8", 3),
        ("mono8", 1),
        ("rgba8", 4),
        ("yuv422_yuy2", 2),
        ("bayer_rggb8", 1),
    ):
        for _ in range(FRAMES // 2):
            image = node.image()
            image.encoding, image.step = encoding, channels * image.width
            image.data = bytes(image.step * image.height)
            node.camera().publish(image)
            time.sleep(0.01)
    node.play(FRAMES)
    assert node.count("starts over") == starts


def test_an_encoding_that_nobody_knows_is_refused_by_name(node):
    refused = node.count("images refused")
    for _ in range(5):
        image = node.image()
        image.encoding = "8UC3"
        node.camera().publish(image)
    assert node.shows(lambda f: "encoding '8UC3' is not supported; supported are rgb8" in f["says"])
    assert node.count("images refused") == refused + 5


def test_frames_out_of_order_and_twice_are_dropped_and_counted(node):
    node.play(FRAMES)
    dropped, first = node.count("frames dropped as late or double"), node.next
    order = [0, 1, 1, 3, 2, 4, 4, 7, 6, 5, 8, 9, 10, 3, 11, 12, 13, 14, 15, 16]
    for number in order:
        node.camera().publish(node.image(first + number))
        time.sleep(0.01)
    newest = -1
    late = sum(number <= max(order[:index], default=-1) for index, number in enumerate(order))
    assert node.shows(lambda f: int(f["frames dropped as late or double"]) == dropped + late)
    for message in list(node.heard["tracks"]):
        stamps = [conversions.stamp_ns(one) for one in message.stamps]
        assert stamps == sorted(set(stamps)) and stamps[-1] >= newest
        newest = stamps[-1]
    node.next = first + 100


@pytest.mark.parametrize("when", [0, -1, -(2**31) * 10**9])
def test_an_image_without_a_stamp_is_refused_with_what_to_do(node, when):
    node.play(FRAMES)
    refused, starts = node.count("images refused"), node.count("starts over")
    for _ in range(3):
        image = node.image()
        image.header.stamp = conversions.time_message(TYPES, when)
        node.camera().publish(image)
    assert node.shows(lambda f: "header.stamp is zero; the camera driver must stamp" in f["says"])
    assert node.count("images refused") == refused + 3 and node.count("starts over") == starts


@pytest.mark.parametrize("when", [time.time_ns() + 3600 * 10**9, 2**31 * 10**9 - 1])
def test_an_image_from_the_future_does_not_take_the_present_along(node, when):
    node.play(FRAMES)
    image = node.image()
    image.header.stamp = conversions.time_message(TYPES, when)
    node.camera().publish(image)
    node.play(FRAMES)
    assert node.shows(lambda f: f["started over because"].startswith("time jumped back by"))


def test_a_camera_whose_clock_jumps_about_leaves_the_node_alive(node):
    rng = np.random.default_rng(0)
    for when in rng.integers(-(2**31) * 10**9, 2**31 * 10**9, 100):
        image = node.image()
        image.header.stamp = conversions.time_message(TYPES, int(when))
        node.camera().publish(image)
        time.sleep(0.002)
    assert node.call(Query, "query", u=[1.0], v=[1.0]).message != "none"
