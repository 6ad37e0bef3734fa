"""The action ~/track_all: every pixel of the room, feedback, cancel at any stage, services meanwhile."""

import time

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from node_rig import FRAMES, Rig, RoomModel, stamp, time_of, wait
from rclpy.action import ActionClient, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from room import SIZE, Room

from d4rt_ros import conversions
from d4rt_ros.action import TrackAll
from d4rt_ros.model import Queries
from d4rt_ros.node.action import MAX_GOALS
from d4rt_ros.srv import Query


class Track:
    """One goal and what becomes of it."""

    def __init__(self, client, **goal):
        self.feedback = []
        sent = client.send_goal_async(
            TrackAll.Goal(**goal), feedback_callback=lambda message: self.feedback.append(message.feedback)
        )
        assert wait(sent.done)
        self.handle = sent.result()
        self.ended = self.handle.get_result_async() if self.handle.accepted else None

    def result(self):
        assert wait(self.ended.done, 20), "the goal never ended"
        return self.ended.result()


@pytest.fixture(scope="module")
def rig():
    rig = Rig(RoomModel())
    rig.play(FRAMES)
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def client(rig):
    client = ActionClient(rig.node, TrackAll, "/d4rt/track_all")
    assert client.wait_for_server(10)
    return client


def test_every_pixel_gets_a_track_with_fewer_queries_than_the_naive_way(rig, client):
    track = Track(client, stride=2, start=time_of(1), end=time_of(6))
    found = track.result()
    assert found.status == GoalStatus.STATUS_SUCCEEDED and found.result.success, found.result.message
    result = found.result
    count = len(result.tracks.ids)
    assert [conversions.stamp_ns(one) for one in result.tracks.stamps] == [stamp(k) for k in range(1, 7)]
    assert result.naive_queries == 6 * 6 * (SIZE[0] // 2) * (SIZE[1] // 2)
    assert result.queries == 6 * count < result.naive_queries / 2
    assert track.feedback[-1].covered == 1.0 and track.feedback[-1].tracks == count
    shares = [one.covered for one in track.feedback]
    assert shares == sorted(shares)
    # A track that starts in the last frame: its pixel's point, in the camera of that frame.
    xyz = np.reshape(result.tracks.xyz, (6, count, 3))
    uv = np.reshape(result.tracks.uv, (6, count, 2))[-1]
    inside = ((uv > 0) & (uv < np.array(SIZE[::-1]) - 1)).all(-1) & (
        np.reshape(result.tracks.visibility, (6, -1))[-1] > 0.5
    )
    u, v = (uv[inside] + 0.5).T / np.array([[SIZE[1]], [SIZE[0]]])
    import torch

    room = Room(tuple(stamp(k) for k in range(FRAMES)))
    truth = room.decode(Queries.make(torch.from_numpy(u.copy()), torch.from_numpy(v.copy()), 6, 6, 6)).xyz
    np.testing.assert_allclose(xyz[-1][inside], truth, atol=5e-3)


def test_unsure_tracks_are_left_out(rig, client):
    assert len(Track(client, stride=8, min_confidence=0.95).result().result.tracks.ids) == 0


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({"frame": "moon"}, "frame is 'moon'"),
        ({"stride": 4_000_000_000}, "stride is 4000000000; it must be from 1 to 1024"),
        ({"min_confidence": float("nan")}, "min_confidence is nan"),
        ({"start": time_of(99)}, "is not in a held window"),
        ({"start": time_of(5), "end": time_of(3)}, "is after end"),
    ],
)
def test_a_wrong_goal_is_aborted_with_a_sentence(client, goal, words):
    found = Track(client, **goal).result()
    assert found.status == GoalStatus.STATUS_ABORTED and words in found.result.message
    assert conversions.stamp_ns(found.result.window_end) > 0


def test_services_are_answered_and_windows_encoded_while_it_runs_and_a_cancel_ends_it(
    rig, client, monkeypatch
):
    slow_down(rig, monkeypatch)
    windows = rig.session.worker.counters.windows_done
    track = Track(client, stride=1)
    assert wait(lambda: track.feedback)
    assert rig.call(Query, "query", u=[1.0], v=[1.0], seconds=5).success
    for _ in range(FRAMES):
        rig.show(rig.image())
    assert wait(lambda: rig.session.worker.counters.windows_done > windows)
    assert not track.ended.done()
    track.handle.cancel_goal_async()
    found = track.result()
    assert found.status == GoalStatus.STATUS_CANCELED
    assert not found.result.success and found.result.queries > 0 and len(found.result.tracks.ids) > 0
    assert "cancelled" in found.result.message


def test_a_goal_that_is_cancelled_before_it_starts_ends_as_well(rig, client, monkeypatch):
    slow_down(rig, monkeypatch)
    first, second = Track(client, stride=1), Track(client, stride=1)
    second.handle.cancel_goal_async()
    found = second.result()
    assert found.result.message == "cancelled before it began"
    assert conversions.stamp_ns(found.result.window_end) > 0
    assert not first.ended.done(), "who waits does not wait for those before"
    first.handle.cancel_goal_async()
    assert {first.result().status, second.result().status} == {GoalStatus.STATUS_CANCELED}


def test_a_goal_that_is_cancelled_just_as_it_begins_ends_as_well(rig, client, monkeypatch):
    real, raced = ServerGoalHandle.execute, []

    def execute(handle, *callback):
        if not raced:  # rclpy has looked for a cancel before this one came
            raced.append(handle)
            assert wait(lambda: handle.is_cancel_requested)
            handle._update_state(_rclpy.GoalEvent.EXECUTE)
        real(handle, *callback)

    monkeypatch.setattr(ServerGoalHandle, "execute", execute)
    track = Track(client, stride=1)
    track.handle.cancel_goal_async()
    assert track.result().status == GoalStatus.STATUS_CANCELED
    assert raced


def test_more_goals_than_are_allowed_are_rejected(rig, client, monkeypatch):
    slow_down(rig, monkeypatch)
    tracks = [Track(client, stride=1) for _ in range(5)]
    assert [track.handle.accepted for track in tracks] == [True] * 4 + [False]
    for track in tracks[:4]:
        track.handle.cancel_goal_async()
    for track in tracks[:4]:
        assert track.result().status == GoalStatus.STATUS_CANCELED


def test_goals_that_never_begin_give_their_places_back(rig, client, monkeypatch):
    """Rclpy asks for a goal to be accepted, and gives it up where its client has vanished meanwhile."""
    accept = rig.d4rt._action._accept
    answers = [accept(TrackAll.Goal()) for _ in range(MAX_GOALS + 1)]
    assert answers == [GoalResponse.ACCEPT] * MAX_GOALS + [GoalResponse.REJECT]
    assert not Track(client, stride=8).handle.accepted
    now = time.monotonic()
    monkeypatch.setattr("d4rt_ros.node.action.time.monotonic", lambda: now + 60)
    assert Track(client, stride=8).result().status == GoalStatus.STATUS_SUCCEEDED


def test_a_goal_ends_when_the_node_is_deactivated(rig, client, monkeypatch):
    slow_down(rig, monkeypatch)
    track = Track(client, stride=1)
    assert wait(lambda: track.feedback)
    rig.d4rt.trigger_deactivate()
    found = track.result()
    assert found.status == GoalStatus.STATUS_ABORTED and "stop" in found.result.message
    found = Track(client, stride=1).result()
    assert "the node is inactive; it answers while it is active" in found.result.message
    rig.d4rt.trigger_activate()


def slow_down(rig, monkeypatch):
    """Batches of a few tracks, so that a goal takes long."""
    from d4rt_ros import tasks

    if rig.session.pipeline.history.newest is None:
        rig.play(FRAMES)
    real = tasks.dense_tracks
    monkeypatch.setattr(
        tasks, "dense_tracks", lambda *args, **kw: real(*args, **{**kw, "batch_queries": FRAMES})
    )
