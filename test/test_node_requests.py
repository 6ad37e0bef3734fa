"""Requests that wait for a busy device: how many may, what the others are told, and whose asker is gone."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
from node_rig import FRAMES, Client, Rig, stamp, wait
from std_srvs.srv import SetBool, Trigger

from d4rt_ros import conversions
from d4rt_ros.srv import FollowPoints, GetCamera, GetDepth, GetPointCloud, Query, TrackPoints

QUEUE = 2
REFUSAL = "2 requests are waiting already, query.queue allows 2; ask again later"
POINT = {"u": [1.0], "v": [1.0]}
SERVICES = {
    "query": (Query, POINT),
    "track_points": (TrackPoints, POINT),
    "get_depth": (GetDepth, {}),
    "get_point_cloud": (GetPointCloud, {}),
    "get_camera": (GetCamera, {}),
    "follow_points": (FollowPoints, POINT),
    "pause": (SetBool, {}),
    "reset": (Trigger, {}),
}
ASKER = """
import sys, time, rclpy
from d4rt_ros.srv import Query
rclpy.init(domain_id=int(sys.argv[1]))
node = rclpy.create_node("asker")
client = node.create_client(Query, "/d4rt/query")
assert client.wait_for_service(30)
time.sleep(0.5)
for _ in range(int(sys.argv[2])):
    client.call_async(Query.Request(u=[1.0], v=[1.0]))
rclpy.spin(node)
"""


@pytest.fixture(scope="module")
def rig():
    rig = Rig(query__queue=QUEUE)
    rig.play(FRAMES)
    yield rig
    rig.close()


@contextmanager
def busy(rig):
    """The device encodes a window and does not come to an end with it."""
    rig.model.gate.clear()
    try:
        for _ in range(FRAMES // 2):
            rig.show(rig.image())
        yield
    finally:
        rig.model.gate.set()
        assert rig.settle()


def full(rig, seconds=10.0):
    """Whether the queue comes to be full."""
    return wait(lambda: rig.session.worker.queued["service"] == QUEUE, seconds)


def test_who_asks_when_the_queue_is_full_is_told_so_at_once_by_every_service(rig):
    for name, (kind, _) in SERVICES.items():  # found before the device is busy
        rig.client(kind, f"/d4rt/{name}")
    newest = rig.next - 1
    with busy(rig):
        futures = [rig.send(Query, "query", **POINT) for _ in range(QUEUE)]
        assert full(rig)
        for name, (kind, fields) in SERVICES.items():
            answer = rig.call(kind, name, 3.0, **fields)
            assert not answer.success and answer.message == REFUSAL
            if hasattr(answer, "window_end"):
                assert conversions.stamp_ns(answer.window_end) == stamp(newest)
        assert not any(future.done() for future in futures) and not rig.session.paused
    assert wait(lambda: all(future.done() for future in futures))
    assert all(future.result().success for future in futures)


def test_requests_that_fail_give_their_places_back(rig):
    for _ in range(2 * QUEUE):
        assert not rig.call(Query, "query", u=[-9.0], v=[1.0]).success
    with busy(rig):
        futures = [rig.send(Query, "query", **POINT) for _ in range(QUEUE)]
        assert full(rig)
    assert wait(lambda: all(future.done() for future in futures))
    assert all(future.result().success for future in futures)


@contextmanager
def leaving(rig):
    """A client that shuts down as it should."""
    other = Client("leaving", rig.domain)
    try:
        for _ in range(QUEUE):
            other.send(Query, "query", **POINT)
        yield
    finally:
        other.close()


@contextmanager
def killed(rig):
    """A client in a process that is killed."""
    process = subprocess.Popen([sys.executable, "-c", ASKER, str(rig.domain), str(QUEUE)])
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("vanishing", [leaving, killed])
def test_a_client_that_vanishes_while_it_waits_leaves_nothing_behind(rig, vanishing, capfd):
    """Its requests are worked off; others then find the places free and the service as quick as before."""
    rig.client(Query, "/d4rt/query")
    done = rig.session.worker.counters.jobs_done
    with busy(rig):
        with vanishing(rig):
            assert full(rig, 40.0)
        assert rig.call(Query, "query", 3.0, **POINT).message == REFUSAL
    assert wait(lambda: rig.d4rt._requests._running == 0)
    assert rig.session.worker.counters.jobs_done >= done + QUEUE
    for _ in range(2 * QUEUE):
        answer = rig.call(Query, "query", 3.0, **POINT)
        assert answer.success, answer.message
    said = "".join(capfd.readouterr())
    assert "a request failed" not in said and "a callback failed" not in said and "Traceback" not in said
