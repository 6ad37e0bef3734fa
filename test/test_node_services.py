"""Services of the node over DDS, against a room whose answers are known exactly."""

import sys
import threading

import numpy as np
import pytest
from node_rig import FRAMES, Rig, RoomModel, points, stamp, time_of, wait, xyz_of
from room import SIZE, Ball, Room, camera_path
from std_srvs.srv import SetBool, Trigger

from d4rt_ros import conversions
from d4rt_ros.model import Queries
from d4rt_ros.msg import Tracks
from d4rt_ros.srv import FollowPoints, GetCamera, GetDepth, GetPointCloud, Query, TrackPoints, UnfollowPoints

BALLS = (Ball((0.8, 0.0, 3.0), (0.4, 0.0, 0.0), 0.8),)
U, V = np.array([3.0, 16.0, 20.25, 30.0]), np.array([4.0, 12.0, 10.5, 22.0])


@pytest.fixture(scope="module")
def rig():
    rig = Rig(RoomModel(balls=BALLS))
    rig.play(FRAMES)
    yield rig
    rig.close()


def room():
    return Room(tuple(stamp(k) for k in range(FRAMES)), balls=BALLS)


def truth(source, target, camera):
    """The room's own answers for U, V."""
    return room().decode(Queries.make((U + 0.5) / SIZE[1], (V + 0.5) / SIZE[0], source, target, camera))


def test_what_computes_lets_requests_through(rig):
    """Python's own 5 ms would be waited for at every change of threads."""
    assert sys.getswitchinterval() <= 1e-3


def test_a_query_is_answered_in_the_order_and_the_terms_of_its_request(rig):
    times = [np.array(k) for k in ([0, 1, 2, 7], [7, 6, 0, 3], [4, 4, 1, 0])]
    answer = rig.call(
        Query,
        "query",
        u=U.tolist(),
        v=V.tolist(),
        source=[stamp(k) for k in times[0]],
        target=[stamp(k) for k in times[1]],
        camera=[stamp(k) for k in times[2]],
    )
    assert answer.success, answer.message
    wanted, found = truth(*times), points(answer.points)
    np.testing.assert_allclose(xyz_of(answer.points), wanted.xyz, atol=1e-4)
    shift = np.stack([found[name] for name in ("dx", "dy", "dz")], -1)
    np.testing.assert_allclose(shift, wanted.displacement, atol=1e-4)
    assert np.abs(shift[1]).max() > 0.1  # the ball moved
    np.testing.assert_allclose(found["u"], wanted.uv[:, 0] * SIZE[1] - 0.5, atol=1e-3)
    np.testing.assert_allclose(found["v"], wanted.uv[:, 1] * SIZE[0] - 0.5, atol=1e-3)
    np.testing.assert_allclose(found["visibility"], wanted.visibility)
    np.testing.assert_allclose(np.stack([found[f"n{axis}"] for axis in "xyz"], -1), wanted.normal, atol=1e-4)
    assert not answer.metric and answer.points.header.frame_id == "camera"
    assert conversions.stamp_ns(answer.window_start) == stamp(0)
    assert conversions.stamp_ns(answer.window_end) == stamp(FRAMES - 1)


def test_one_stamp_or_none_stands_for_all(rig):
    newest = FRAMES - 1
    answer = rig.call(Query, "query", u=U.tolist(), v=V.tolist(), target=[stamp(2)])
    np.testing.assert_allclose(xyz_of(answer.points), truth(newest, 2, newest).xyz, atol=1e-4)
    assert conversions.stamp_ns(answer.points.header.stamp) == stamp(newest)


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({"u": [1.0], "v": [24.0]}, r"v\[0\] is 24, outside the image: from -0.5 to 23.5"),
        ({"u": [float("nan")], "v": [1.0]}, r"u\[0\] is nan, outside the image"),
        ({"u": [1.0, 2.0], "v": [1.0]}, "u has 2 values and v has 1"),
        ({"u": [], "v": []}, "no point is asked for"),
        (
            {"u": [1.0], "v": [1.0], "source": [1, 2]},
            "source has 2 stamps for 1 points; 0, 1 or 1 are allowed",
        ),
        (
            {"u": [1.0], "v": [1.0], "target": [5]},
            r"stamp 0.000000005 is not in a held window; held are 1 windows from 1.0000",
        ),
        (
            {"u": [1.0], "v": [1.0], "camera": [stamp(0) + 1]},
            "is not that of a held frame, the nearest is 1.000000000",
        ),
        ({"u": [1.0], "v": [1.0], "camera": [-5]}, "stamp -0.000000005 is not in a held window"),
        (
            {"u": [1.0] * 100_001, "v": [1.0] * 100_001},
            "100001 points are asked for; query.max_points allows 1 to 100000",
        ),
    ],
)
def test_a_wrong_query_is_refused_in_a_sentence(rig, request_fields, words):
    answer = rig.call(Query, "query", **request_fields)
    assert not answer.success and answer.points.width == 0
    import re

    assert re.search(words, answer.message), answer.message
    assert conversions.stamp_ns(answer.window_end) == stamp(FRAMES - 1)


@pytest.mark.parametrize("frame", ["", "camera", "world"])
def test_points_are_tracked_over_a_span(rig, frame):
    first, last, source = 1, 5, 3
    answer = rig.call(
        TrackPoints,
        "track_points",
        u=U.tolist(),
        v=V.tolist(),
        stamp=time_of(source),
        start=time_of(first),
        end=time_of(last),
        frame=frame,
    )
    assert answer.success, answer.message
    tracks = answer.tracks
    assert [conversions.stamp_ns(one) for one in tracks.stamps] == [stamp(k) for k in range(first, last + 1)]
    found = np.reshape(tracks.xyz, (last - first + 1, len(U), 3))
    wanted = np.stack([truth(source, k, last).xyz.numpy() for k in range(first, last + 1)])
    if frame == "world":
        poses = camera_path(np.array([stamp(0), stamp(last)]) / 1e9)
        optical = np.array(
            [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]
        )  # world: x forward, z up
        matrix = optical @ np.linalg.inv(poses[0]) @ poses[1]
        wanted = wanted @ matrix[:3, :3].T + matrix[:3, 3]
    assert tracks.header.frame_id == ("world" if frame == "world" else "camera")
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert list(tracks.ids) == [0, 1, 2, 3]


def test_a_span_that_runs_backwards_and_an_unknown_frame_are_refused(rig):
    answer = rig.call(TrackPoints, "track_points", u=[1.0], v=[1.0], start=time_of(5), end=time_of(2))
    assert not answer.success and "is after end" in answer.message
    answer = rig.call(TrackPoints, "track_points", u=[1.0], v=[1.0], frame="map")
    assert (
        not answer.success and "frame is 'map'; it must be 'camera' (or empty) or 'world'" in answer.message
    )


def test_depth_of_a_frame_at_any_size(rig):
    room_depth = (
        room().decode(Queries.make(0.5 / 4, 0.5 / 3, 2, 2, 2).apply(lambda x: x.reshape(1))).xyz[0, 2]
    )
    answer = rig.call(GetDepth, "get_depth", stamp=time_of(2), width=4, height=3)
    assert answer.success, answer.message
    depth = conversions.depth_array(answer.depth)
    assert depth.shape == (3, 4)
    assert depth[0, 0] == pytest.approx(float(room_depth), rel=1e-4)
    assert (answer.camera_info.width, answer.camera_info.height) == (4, 3)
    whole = rig.call(GetDepth, "get_depth")
    assert conversions.depth_array(whole.depth).shape == SIZE
    assert whole.camera_info.k[0] == pytest.approx(20, rel=0.02)
    assert answer.camera_info.k[0] == pytest.approx(whole.camera_info.k[0] * 4 / SIZE[1])


def test_depth_at_pixels(rig):
    answer = rig.call(GetDepth, "get_depth", u=U.tolist(), v=V.tolist())
    np.testing.assert_allclose(answer.depths, truth(7, 7, 7).xyz[:, 2], rtol=1e-4)
    assert answer.depth.width == 0
    refused = rig.call(GetDepth, "get_depth", u=[1.0], v=[1.0], width=3, height=3)
    assert not refused.success and "both must be 0 where u and v are given" in refused.message
    refused = rig.call(GetDepth, "get_depth", width=3)
    assert not refused.success and "give both, or 0 for both" in refused.message
    refused = rig.call(GetDepth, "get_depth", width=4_000_000_000, height=4_000_000_000)
    assert not refused.success and "query.max_points allows" in refused.message


def test_a_cloud_of_a_span_lies_on_the_walls_of_the_room(rig):
    answer = rig.call(
        GetPointCloud, "get_point_cloud", start=time_of(0), end=time_of(3), stride=4, frame="world"
    )
    assert answer.success, answer.message
    assert answer.points.width == 4 * 6 * 8 and answer.points.header.frame_id == "world"
    near = rig.call(GetPointCloud, "get_point_cloud", start=time_of(2), end=time_of(2), stride=8)
    wanted = room().decode(Queries.make(4.5 / 32, 4.5 / 24, 2, 2, 2).apply(lambda x: x.reshape(1))).xyz
    np.testing.assert_allclose(xyz_of(near.points)[:1], wanted, atol=1e-3)
    none = rig.call(GetPointCloud, "get_point_cloud", min_confidence=0.95)
    assert none.success and none.points.width == 0 and "minimum 0.95" in none.message
    refused = rig.call(GetPointCloud, "get_point_cloud", min_confidence=2.0)
    assert not refused.success and "min_confidence is 2; it must be from 0 to 1" in refused.message


def test_the_camera_is_where_it_was(rig):
    answer = rig.call(GetCamera, "get_camera", start=time_of(0))
    assert answer.success, answer.message
    assert [conversions.stamp_ns(one.header.stamp) for one in answer.poses] == [
        stamp(k) for k in range(FRAMES)
    ]
    poses = camera_path(np.array([stamp(k) for k in range(FRAMES)]) / 1e9)
    moved = np.linalg.inv(poses[0]) @ poses[-1]
    last = answer.poses[-1].pose.position
    # World axes: forward, left, up of the first camera.
    np.testing.assert_allclose([last.x, last.y, last.z], [moved[2, 3], -moved[0, 3], -moved[1, 3]], atol=1e-3)
    assert not answer.intrinsics_known and not answer.metric
    assert answer.camera_info.k[2] == pytest.approx(15.5, abs=0.1)


def test_followed_points_keep_their_ids_until_they_are_given_up(rig):
    heard = rig.listen(Tracks, "tracks")
    assert wait(lambda: rig.d4rt._outputs.wanted("none"))
    first = rig.call(FollowPoints, "follow_points", u=[16.0, 8.0], v=[12.0, 6.0])
    assert first.success and len(first.ids) == 2, first.message
    rig.play(4)
    assert wait(lambda: heard) and set(first.ids) <= set(heard[-1].ids)
    refused = rig.call(UnfollowPoints, "unfollow_points", ids=[first.ids[0], 4_000_000_000])
    assert (
        not refused.success and "ids has 4000000000, which is not followed; 2 points are" in refused.message
    )
    left = rig.call(UnfollowPoints, "unfollow_points", ids=[first.ids[0]])
    assert list(left.ids) == [first.ids[1]]
    rig.play(4)
    assert (
        wait(lambda: len(heard) > 1) and first.ids[0] not in heard[-1].ids and first.ids[1] in heard[-1].ids
    )
    assert list(rig.call(UnfollowPoints, "unfollow_points").ids) == []


def test_an_id_means_no_other_point_after_a_deactivation(rig):
    first = rig.call(FollowPoints, "follow_points", u=[16.0], v=[12.0])
    assert first.success, first.message
    rig.d4rt.trigger_deactivate()
    rig.d4rt.trigger_activate()
    rig.play(FRAMES)
    second = rig.call(FollowPoints, "follow_points", u=[8.0], v=[6.0])
    assert second.success and second.ids[0] > first.ids[0]
    assert "not followed" in rig.call(UnfollowPoints, "unfollow_points", ids=first.ids).message
    rig.call(UnfollowPoints, "unfollow_points")


def test_requests_are_answered_while_encoding_is_paused_and_forgotten_on_reset(rig):
    assert rig.call(SetBool, "pause", data=True).message == "paused"
    before = rig.session.worker.counters.windows_in
    rig.play(2 * FRAMES)
    assert rig.session.worker.counters.windows_in == before
    assert rig.call(Query, "query", u=[1.0], v=[1.0]).success
    assert rig.call(SetBool, "pause", data=False).message == "running"
    followed = rig.call(FollowPoints, "follow_points", u=[9.0], v=[9.0]).ids[0]
    assert rig.call(Trigger, "reset").success
    assert (
        "is not followed; 0 points are" in rig.call(UnfollowPoints, "unfollow_points", ids=[followed]).message
    )
    answer = rig.call(Query, "query", u=[1.0], v=[1.0])
    assert not answer.success and "no window is held yet" in answer.message
    rig.play(FRAMES)
    assert rig.call(Query, "query", u=[1.0], v=[1.0]).success


def test_concurrent_calls_share_a_decode_and_more_than_the_queue_holds_are_refused_at_once():
    rig = Rig(query__queue=4)
    try:
        rig.play(FRAMES)
        rig.model.gate.clear()  # the device is busy with the next window
        for _ in range(FRAMES // 2):
            rig.show(rig.image())
        futures = [rig.send(Query, "query", u=[1.0], v=[1.0]) for _ in range(4)]
        assert wait(lambda: rig.session.worker.queued["service"] == 4)
        refused = rig.call(Query, "query", u=[1.0], v=[1.0], seconds=2.0)
        assert not refused.success and "query.queue allows 4; ask again later" in refused.message
        rig.model.gate.set()
        assert wait(lambda: all(future.done() for future in futures))
        assert all(future.result().success for future in futures)
        assert rig.session.worker.counters.decodes_merged == 4
    finally:
        rig.close()


def test_a_decode_that_raises_is_an_answer_and_the_next_one_works(rig, monkeypatch):
    rig.play(FRAMES)
    scene = rig.session.pipeline.history.newest.scene
    broken = threading.Event()
    broken.set()
    decode = type(scene).decode

    def fail(self, queries):
        if broken.is_set():
            raise RuntimeError("the device is on fire")
        return decode(self, queries)

    monkeypatch.setattr(type(scene), "decode", fail)
    answer = rig.call(Query, "query", u=[1.0], v=[1.0])
    assert not answer.success and answer.message == "RuntimeError: the device is on fire"
    broken.clear()
    assert rig.call(Query, "query", u=[1.0], v=[1.0]).success
