"""A device that runs out of memory, raises, or talks nonsense, and recovers."""

import time

import numpy as np
import pytest
from field import FRAMES, PATIENCE, finite
from node_rig import points, wait
from rclpy.action import ActionClient

from d4rt_ros.action import TrackAll
from d4rt_ros.srv import GetCamera, GetDepth, Query

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def well_again(node):
    """After every fault: windows, answers, and no complaint."""
    yield
    node.suffer()
    node.next += 100
    assert node.play(2 * FRAMES).success
    assert node.call(Query, "query", u=[1.0] * 3000, v=[1.0] * 3000).success
    assert node.shows(lambda f: "running" in f["says"]), node.figures()["says"]


def refused(node, sentence):
    """Many points and a whole depth image are refused with a sentence."""
    for kind, name, fields in (
        (Query, "query", {"u": [1.0] * 99, "v": [1.0] * 99}),
        (GetDepth, "get_depth", {}),
    ):
        answer = node.call(kind, name, PATIENCE, **fields)
        assert not answer.success and sentence in answer.message


def feed(node, count):
    """Frames that nobody waits for."""
    for _ in range(count):
        node.camera().publish(node.image())
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("encode_memory", "cpu is out of memory: not enough for a window of 8 frames of 32x24"),
        ("encode_raises", "a window failed: RuntimeError: device-side assert triggered"),
    ],
)
def test_windows_that_cannot_be_encoded_are_told_while_services_go_on(node, trouble, words):
    before = node.play(FRAMES).window_end
    node.suffer(trouble)
    feed(node, 2 * FRAMES)
    assert node.shows(lambda f: words in f["says"]), node.figures()["says"]
    assert node.count("windows failed") > 0
    answer = node.call(Query, "query", u=[1.0], v=[1.0])
    assert answer.success and answer.window_end == before  # the last good window answers


def test_one_shortage_of_memory_is_not_even_noticed(node):
    failed = node.count("windows failed")
    for _ in range(3):
        node.suffer("encode_memory_once")
        node.play(FRAMES)
    assert node.count("windows failed") == failed


@pytest.mark.parametrize("limit", [1000, 200, 65])
def test_a_decode_without_memory_is_done_in_smaller_batches(node, limit):
    whole = points(node.call(Query, "query", u=[1.0] * 3000, v=[1.0] * 3000).points)
    failed = node.count("windows failed")
    node.suffer(f"decode_memory {limit}")
    answer = node.call(Query, "query", PATIENCE, u=[1.0] * 3000, v=[1.0] * 3000)
    assert answer.success, answer.message
    np.testing.assert_array_equal(points(answer.points), whole)
    node.play(FRAMES)
    assert node.count("windows failed") == failed


def test_a_decode_with_no_memory_at_all_is_an_error_that_names_it(node):
    node.suffer("decode_memory 10")
    refused(node, "cpu is out of memory: not enough to decode")
    assert node.call(Query, "query", u=[1.0] * 9, v=[1.0] * 9).success  # that much there is
    feed(node, 2 * FRAMES)
    assert node.shows(lambda f: "out of memory" in f["says"])


def test_a_decode_that_raises_is_an_answer_and_not_the_end(node):
    client = ActionClient(node.node, TrackAll, "/d4rt/track_all")
    assert client.wait_for_server(PATIENCE)
    node.suffer("decode_raises")
    refused(node, "device-side assert triggered")
    sent = client.send_goal_async(TrackAll.Goal())
    assert wait(sent.done, PATIENCE)
    ended = sent.result().get_result_async()
    assert wait(ended.done, PATIENCE) and "device-side assert" in ended.result().result.message
    feed(node, 2 * FRAMES)
    assert node.shows(lambda f: "device-side assert triggered" in f["says"])


def test_answers_that_are_no_numbers_make_no_pose_and_no_point(node):
    node.suffer("decode_nonsense")
    node.next += 100  # starts over, so that nothing is held that is good
    node.heard["depth/image"].clear()
    feed(node, 2 * FRAMES)
    assert wait(lambda: node.heard["depth/image"], PATIENCE)
    assert not np.isfinite(np.frombuffer(node.heard["depth/image"][-1].data, "<f4")).any()
    answer = node.call(GetCamera, "get_camera")
    assert finite(answer) and (answer.success or "not known" in answer.message), answer.message
    found = points(node.call(Query, "query", u=[1.0] * 9, v=[1.0] * 9).points)
    assert np.isnan(found["x"]).all() and not found["confidence"].any()
    assert node.crooked == []
