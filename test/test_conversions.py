"""Times, clouds, tracks, poses and markers to messages, through real bytes (CDR)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from on_the_wire import TYPES, points, sent

from d4rt_ros import conversions


def turned():
    """A pose: 90 degrees about z, at (1, 2, 3)."""
    return np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], np.float64)


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
def test_times_keep_every_nanosecond(stamp):
    assert conversions.stamp_ns(conversions.time_message(TYPES, stamp)) == stamp


def test_clouds_hold_every_column_in_order():
    xyz = np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)
    rgb = np.array([[255, 128, 1], [0, 2, 3]], np.uint8)
    message = sent(
        conversions.point_cloud(
            TYPES,
            7,
            "camera",
            xyz,
            rgb=rgb,
            confidence=np.array([0.5, 1], np.float64),
            left_out=None,
            vx_vy=np.array([[7, 8], [9, 10.0]]),
            id=np.array([3_000_000_000, 5]),
        )
    )
    assert (message.height, message.width, message.row_step, message.is_dense) == (
        1,
        2,
        2 * message.point_step,
        False,
    )
    found = points(message)
    assert found.dtype.names == ("x", "y", "z", "rgb", "confidence", "vx", "vy", "id")
    np.testing.assert_array_equal(np.stack([found[name] for name in "xyz"], 1), xyz)
    np.testing.assert_array_equal(found["rgb"].view("<u4"), [0xFF8001, 0x000203])
    np.testing.assert_array_equal(found["confidence"], [0.5, 1])
    np.testing.assert_array_equal(found["vy"], [8, 10])
    np.testing.assert_array_equal(found["id"], [3_000_000_000, 5])
    with pytest.raises(ValueError, match="column confidence has 1 rows, xyz has 2"):
        conversions.point_cloud(TYPES, 7, "camera", xyz, confidence=np.ones(1))


@pytest.mark.parametrize(
    ("values", "dense"), [([3e38, 3e38], True), ([np.inf, -np.inf], False), ([np.nan, 1.0], False)]
)
def test_a_cloud_is_dense_where_all_its_numbers_are_finite(values, dense):
    """Large ones too, whose sum is more than float32 holds."""
    xyz = np.ones((4, 3), np.float32)
    xyz[1:3, 2] = values
    for part in (xyz, xyz.astype(np.float64), np.repeat(xyz, 2, 0)[::2]):
        assert conversions.point_cloud(TYPES, 7, "camera", part).is_dense is dense


def test_a_cloud_of_no_points_is_a_message():
    empty = np.zeros((0, 3), np.float32)
    message = sent(
        conversions.point_cloud(
            TYPES, 7, "camera", empty, rgb=empty.astype(np.uint8), vx_vy_vz=empty, id=empty[:, 0]
        )
    )
    assert message.width == 0 and len(message.data) == 0 and len(message.fields) == 8


def test_tracks_are_row_major_and_say_where_nothing_is_known():
    xyz = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    xyz[1, 0] = np.nan
    message = sent(
        conversions.tracks_message(
            TYPES,
            "camera",
            [1, 2_000_000_000],
            np.array([4, 9]),
            xyz,
            np.ones((2, 2, 2)),
            np.ones((2, 2)),
            np.ones((2, 2)),
            True,
        )
    )
    assert conversions.stamp_ns(message.header.stamp) == 2_000_000_000
    assert [conversions.stamp_ns(stamp) for stamp in message.stamps] == [1, 2_000_000_000]
    np.testing.assert_array_equal(np.reshape(message.xyz, (2, 2, 3)), xyz)
    np.testing.assert_array_equal(message.visibility, [1, 1, 0, 1])
    np.testing.assert_array_equal(message.confidence, [1, 1, 0, 1])
    assert np.isnan(np.reshape(message.uv, (2, 2, 2))[1, 0]).all()
    assert message.metric and list(message.ids) == [4, 9]


def test_poses_survive_as_quaternions():
    transform = sent(conversions.transform_message(TYPES, 9, "map", "camera", turned()))
    q = transform.transform.rotation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, 0.5**0.5, 0.5**0.5], atol=1e-12)
    parent, child, stamp, pose = conversions.transform_edge(transform)
    assert (parent, child, stamp) == ("map", "camera", 9)
    np.testing.assert_allclose(pose, turned(), atol=1e-12)


def test_odometry_says_that_its_twist_is_unknown():
    covariance = np.diag([1.0, 2, 3, 4, 5, 6])
    message = sent(conversions.odometry_message(TYPES, 9, "world", "base", turned(), covariance))
    assert (message.header.frame_id, message.child_frame_id) == ("world", "base")
    assert message.pose.pose.position.y == 2
    np.testing.assert_array_equal(np.reshape(message.pose.covariance, (6, 6)), covariance)
    assert message.twist.covariance[0] == -1


def test_a_path_ends_with_its_newest_pose():
    poses = [conversions.pose_stamped(TYPES, stamp, "world", turned()) for stamp in (1, 2, 3)]
    message = sent(conversions.path_message(TYPES, "world", poses))
    assert len(message.poses) == 3 and conversions.stamp_ns(message.header.stamp) == 3


def test_trails_join_known_positions_only_and_keep_their_colours():
    xyz = np.random.default_rng(0).random((3, 2, 3)).astype(np.float32)
    xyz[2, 1] = np.nan
    marker = sent(conversions.trail_markers(TYPES, 4, "camera", np.array([5, 6]), xyz, 0.01)).markers[0]
    assert len(marker.points) == len(marker.colors) == 2 * 3  # point 5 makes two steps, point 6 makes one
    ends = np.array([[p.x, p.y, p.z] for p in marker.points], np.float32)
    np.testing.assert_array_equal(ends[:2], xyz[:2, 0])
    again = sent(conversions.trail_markers(TYPES, 5, "camera", np.array([6, 5]), xyz[:, ::-1], 0.01)).markers[
        0
    ]
    assert marker.colors[0] == again.colors[2] != again.colors[0]  # of points 5, 5 and 6
    none = conversions.trail_markers(TYPES, 4, "camera", np.zeros(0, int), xyz[:, :0], 0.01).markers[0]
    assert none.action == 2 and not none.points
