"""Followed points: identity, occlusion, window borders, lost worlds."""

from __future__ import annotations

import numpy as np
import pytest
from room import SIZE, Ball, K, Room, camera_path, stamps

from d4rt_ros.stream.follow import Follower
from d4rt_ros.stream.join import WORLD_FROM_FIRST, Joiner, Placed
from d4rt_ros.stream.results import Tracks
from d4rt_ros.tasks.geometry import invert, transform_points

STILL = 0.05


class Walk:
    """Windows of the room, joined, with points followed through them."""

    def __init__(self, grid: int = 0, most: int = 100, **room: object) -> None:
        """Begin with the first window placed."""
        self.room, self.joiner, self.follower, self.number = room, Joiner(), Follower(grid, most), 0
        self.scene, self.placed = self.window(0)

    def window(self, first: int) -> tuple[Room, Placed]:
        """The window that begins with this frame, with a scale of its own."""
        scene = Room(stamps(first, 8), unit=1 + 0.5 * np.sin(first), **self.room)  # type: ignore[arg-type]
        placed = self.joiner.place(scene)
        assert isinstance(placed, Placed)
        return scene, placed

    def add(self, frame: int, uv: list[list[float]]) -> np.ndarray:
        """Follow pixels of a frame of the current window."""
        u, v = np.array(uv).T
        return self.follower.add(u, v, frame, self.scene, self.placed, STILL)

    def step(self, first: int, fill: bool = False) -> Tracks:
        """Go to another window."""
        self.scene, self.placed = self.window(first)
        tracks, self.note = self.follower.follow(self.scene, self.placed, K, STILL, fill)
        return tracks

    def in_world(self, tracks: Tracks) -> np.ndarray:
        """[T, N, 3] positions in the true world, metres (so is the segment's unit: scene 0 has unit 1)."""
        world = transform_points(self.placed.poses[-1], tracks.xyz.reshape(-1, 3))
        back = camera_path(np.zeros(1))[0] @ invert(WORLD_FROM_FIRST)
        return transform_points(back, world).reshape(tracks.xyz.shape)


def hit(scene: Room, frame: int, u: float, v: float) -> np.ndarray:
    """The true point [3] seen at a pixel."""
    ray = scene.poses[frame, :3, :3] @ np.linalg.inv(K) @ np.array([u * SIZE[1], v * SIZE[0], 1.0])
    distance, _ = scene.cast(scene.poses[frame, :3, 3][None], ray[None], scene.time[frame : frame + 1])
    return np.asarray(scene.poses[frame, :3, 3] + distance[0] * ray)


def test_points_keep_id_and_place_over_window_borders() -> None:
    """Five windows on: the same id on the same point of the wall, to a millimetre."""
    walk = Walk()
    ids = walk.add(7, [[0.4, 0.5], [0.6, 0.45]])
    truth = np.stack([hit(walk.scene, 7, 0.4, 0.5), hit(walk.scene, 7, 0.6, 0.45)])
    for first in range(4, 24, 4):
        tracks = walk.step(first)
        assert tracks.ids.tolist() == ids.tolist() and tracks.stamps == walk.scene.stamps
        assert np.allclose(walk.in_world(tracks), truth, atol=2e-3)
        assert (tracks.visibility > 0.5).all() and np.abs(tracks.velocity).max() < 1e-2


def test_a_moving_point_is_followed_with_its_velocity() -> None:
    """A point of a ball: place and metres per second in the newest camera's axes."""
    walk = Walk(balls=(Ball((0.7, -0.25, 3), (0.4, 0.1, 0), 0.7),))
    walk.add(7, [[0.5, 0.5]])
    start = hit(walk.scene, 7, 0.5, 0.5)
    assert start[2] < 3  # on the ball
    for first in (4, 8):
        tracks = walk.step(first)
        moved = start + np.array([0.4, 0.1, 0]) * (walk.scene.time[:, None] - 0.7)
        assert np.allclose(walk.in_world(tracks)[:, 0], moved, atol=2e-3)
        velocity = walk.scene.poses[-1, :3, :3] @ tracks.velocity[0]
        assert np.allclose(velocity, [0.4, 0.1, 0], atol=5e-3)


def test_a_hidden_point_is_carried_and_found_again() -> None:
    """A ball passes in front for more than a window: unseen with visibility 0, then seen again."""
    walk = Walk(balls=(Ball((-2.2, 0, 2.5), (1.6, 0, 0), 0.9),))
    ids = walk.add(0, [[0.5, 0.5]])
    truth = hit(walk.scene, 0, 0.5, 0.5)
    assert truth[2] == pytest.approx(6.0)  # on the far wall
    seen = []
    for first in range(2, 40, 2):
        tracks = walk.step(first)
        assert tracks.ids.tolist() == ids.tolist() and walk.note == ""
        assert np.allclose(walk.in_world(tracks)[:, 0], truth, atol=0.02)
        seen.append(bool((tracks.visibility[:, 0] > 0.5).any()))
        if not seen[-1]:
            assert (tracks.confidence == 0).all() and np.isnan(tracks.uv).all()
    assert seen[0] and not all(seen) and seen[-1]
    # Once it is gone it comes back and stays.
    assert seen == sorted(seen[: seen.index(False)], reverse=True) + sorted(seen[seen.index(False) :])


def test_a_point_behind_the_camera_for_a_while_is_found_again() -> None:
    """Windows that share no frame with the one that saw it: looked for where it should be."""
    walk = Walk()
    walk.add(0, [[0.5, 0.5]])
    truth = hit(walk.scene, 0, 0.5, 0.5)
    for first in (4, 8, 12):
        walk.window(first)  # joined, but the points were not followed meanwhile
    tracks = walk.step(16)
    assert np.allclose(walk.in_world(tracks)[:, 0], truth, atol=0.02)
    assert (tracks.visibility[:, 0] > 0.5).any()


def test_a_moving_point_out_of_sight_is_found_where_it_went() -> None:
    """Nobody saw it for a while: it is expected to go on as it went."""
    walk = Walk(balls=(Ball((0.7, -0.25, 3), (0.4, 0.1, 0), 0.7),))
    walk.add(7, [[0.5, 0.5]])
    start = hit(walk.scene, 7, 0.5, 0.5)
    for first in (4, 8):
        walk.window(first)
    tracks = walk.step(10)
    moved = start + np.array([0.4, 0.1, 0]) * (walk.scene.time[:, None] - 0.7)
    assert np.allclose(walk.in_world(tracks)[:, 0], moved, atol=0.02)
    assert (tracks.visibility[:, 0] > 0.5).any()


def test_giving_up() -> None:
    """Ids given up are not followed; others are. Unknown ids are not in the answer."""
    walk = Walk()
    one, two, three = walk.add(0, [[0.4, 0.5], [0.5, 0.5], [0.6, 0.5]])
    assert walk.follower.remove(np.array([two, 999])).tolist() == [two]
    assert walk.step(4).ids.tolist() == [one, three]
    walk.follower.clear()
    assert len(walk.step(8)) == 0
    assert walk.add(0, [[0.5, 0.5]])[0] not in (one, two, three)


def test_the_limit_is_refused_in_a_sentence() -> None:
    """Points that nobody asked for make room for those that somebody asked for."""
    walk = Walk(grid=3, most=10)
    assert len(walk.step(0, fill=True)) == 9
    walk.add(7, [[0.1 * i, 0.5] for i in range(1, 6)])
    assert len(walk.follower) == 10 and walk.follower.asked == 5
    with pytest.raises(
        ValueError, match="6 more points cannot be followed: 5 are, and tracks.max_points is 10"
    ):
        walk.add(7, [[0.1 * i, 0.5] for i in range(1, 7)])
    with pytest.raises(ValueError, match="u is 1.5"):
        walk.add(7, [[1.5, 0.5]])
    assert walk.follower.asked == 5


def test_the_grid_stays_filled_and_ids_are_kept() -> None:
    """Every cell of the newest image holds a point in sight; most points live on from window to window."""
    walk = Walk(grid=4)
    before = set(walk.step(0, fill=True).ids.tolist())
    assert len(before) == 16
    for first in range(4, 40, 4):
        tracks = walk.step(first, fill=True)
        sight = tracks.visibility[-1] > 0.5
        cells = np.floor(tracks.uv[-1, sight] * 4).astype(int)
        assert len({tuple(c) for c in cells}) == 16
        now = set(tracks.ids.tolist())
        assert len(now & before) > 8 and len(now) == len(tracks.ids)
        before = now


def test_nobody_listens_nothing_is_filled() -> None:
    """Without fill, only what was asked for."""
    walk = Walk(grid=4)
    walk.add(0, [[0.5, 0.5]])
    assert len(walk.step(4)) == 1


def test_a_lost_segment_loses_what_is_out_of_sight_and_says_so() -> None:
    """A point in a shared frame goes on; one whose place was known in the old world only is given up."""
    walk = Walk()
    ids = walk.add(0, [[0.5, 0.5]])
    walk.follower.leave_segment()
    tracks = walk.step(4)
    assert tracks.ids.tolist() == ids.tolist() and walk.note == ""
    walk.follower.leave_segment()
    assert len(walk.step(40)) == 0
    assert walk.note == "1 followed points were lost: they were out of sight when the segment ended"


def test_without_camera_motion_points_go_on_in_the_camera() -> None:
    """An unplaced window: answers in scene units where the frame is shared, NaN where it is not."""
    walk = Walk()
    walk.add(7, [[0.5, 0.5]])
    scene = Room(stamps(4, 8))
    tracks, note = walk.follower.follow(scene, None, K, STILL, False)
    assert np.isfinite(tracks.xyz).all() and note == ""


def test_nothing_visible_gives_nothing_false() -> None:
    """A scene in which everything is hidden: points are carried, seen never."""
    walk = Walk()
    walk.add(7, [[0.5, 0.5]])
    walk.room["hidden"] = True
    tracks = walk.step(4)
    assert (tracks.visibility == 0).all() and np.isfinite(tracks.xyz).all()


def test_state_goes_on() -> None:
    """A follower restored from a state goes on as the first one."""
    walk = Walk(grid=2)
    walk.add(0, [[0.5, 0.5]])
    walk.step(4, fill=True)
    other = Follower(2, 100)
    other.restore(walk.follower.state())
    scene, placed = walk.window(8)
    one, _ = walk.follower.follow(scene, placed, K, STILL, True)
    two, _ = other.follow(scene, placed, K, STILL, True)
    assert one.ids.tolist() == two.ids.tolist() and np.array_equal(one.xyz, two.xyz)
