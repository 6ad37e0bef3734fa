"""Bundle adjustment: cameras and depths against those that the views were made with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d4rt_ros.model.bundle import Cameras, Views, adjust, misfit, rotations, triangulate, unexplained

FRAMES, POINTS = 6, 48


def seen_by(cameras: Cameras, depth: np.ndarray, seed: int) -> Views:
    """What cameras see of points [T, M] of this depth, in random directions of each."""
    r = np.random.default_rng(seed)
    rays = np.concatenate((r.uniform(-0.6, 0.6, (*depth.shape, 2)), np.ones((*depth.shape, 1))), -1)
    rotation, shift = cameras.between()
    moved = np.einsum("ijab,imb->imja", rotation, rays * depth[..., None]) + shift[:, None]
    deviation = np.full((FRAMES, depth.shape[1], FRAMES), 1e-3)
    deviation[np.arange(FRAMES), :, np.arange(FRAMES)] = np.inf
    return Views(rays, moved[..., :2] / moved[..., 2:], deviation)


class World:
    """Cameras on a winding path and the points that each of them began with."""

    def __init__(self, seed: int, way: float = 0.1) -> None:
        r = np.random.default_rng(seed)
        turn = rotations(np.cumsum(r.normal(0, 0.03, (FRAMES, 3)), 0))
        shift = np.cumsum(r.normal(0, way, (FRAMES, 3)), 0)
        self.cameras = Cameras(turn @ turn[0].T, shift - (turn @ turn[0].T @ shift[0]))
        self.log_depth = r.uniform(-0.7, 0.7, (FRAMES, POINTS))
        self.views = seen_by(self.cameras, np.exp(self.log_depth), seed)

    def degrees_off(self, found: Cameras) -> float:
        """Largest error of a rotation."""
        between = Rotation.from_matrix(found.rotation @ np.swapaxes(self.cameras.rotation, 1, 2))
        return float(np.degrees(between.magnitude()).max())


def test_a_rotation_by_a_vector() -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (20, 3))
    vectors[0] = 0
    np.testing.assert_allclose(rotations(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_what_is_unexplained_of_right_and_of_wrong_cameras() -> None:
    world = World(0)
    assert unexplained(world.views, world.cameras, world.log_depth) < 1e-3
    assert unexplained(world.views, Cameras.at_rest(FRAMES), world.log_depth) > 0.8
    longer = world.views.through(1.3)
    np.testing.assert_allclose(longer.seen, world.views.seen / 1.3)
    found = triangulate(longer, world.cameras, world.log_depth, 0.3, 1.0).log_depth
    assert 0.05 < unexplained(longer, world.cameras, found) < 1.0


def test_true_depths_give_the_true_cameras() -> None:
    world = World(0)
    cameras = adjust(world.views, world.log_depth, 0.03)
    assert cameras is not None
    assert world.degrees_off(cameras) < 1e-3
    np.testing.assert_allclose(cameras.shift, world.cameras.shift, atol=1e-4)
    assert misfit(world.views, cameras, world.log_depth) < 1e-2
    poses = cameras.poses()
    point = np.array([0.3, -0.2, 2.0])
    for t in range(FRAMES):
        there = cameras.rotation[t] @ point + cameras.shift[t]
        np.testing.assert_allclose(poses[t, :3, :3] @ there + poses[t, :3, 3], point, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_wrong_depths_and_lost_points_turn_cameras_little(seed: int) -> None:
    world, r = World(seed), np.random.default_rng(seed)
    lost = r.random((FRAMES, POINTS, FRAMES)) < 0.2
    world.views.seen[:] += r.normal(0, 1e-3, world.views.seen.shape) + lost[..., None] * r.normal(
        0, 0.1, world.views.seen.shape
    )
    found = adjust(world.views, world.log_depth + r.normal(0, 0.1, world.log_depth.shape), 0.1)
    assert found is not None
    assert world.degrees_off(found) < 0.3


def test_a_frame_that_shows_nothing_turns_as_those_round_it() -> None:
    """And a jolt that views do see stays one."""
    turn = rotations(np.outer(np.arange(FRAMES), [0.0, 0.06, 0.0]))
    turn[4] = rotations(np.array([[0.05, 0.24, 0.0]]))
    log_depth = np.random.default_rng(3).uniform(-0.7, 0.7, (FRAMES, POINTS))
    cameras = Cameras(turn, np.zeros((FRAMES, 3)))
    views = seen_by(cameras, np.exp(log_depth), 3)
    views.deviation[2], views.deviation[:, :, 2] = np.inf, np.inf
    found = adjust(views, log_depth, 0.03)
    assert found is not None
    off = Rotation.from_matrix(found.rotation @ np.swapaxes(turn, 1, 2)).magnitude()
    assert np.degrees(off[[0, 1, 3, 4, 5]]).max() < 0.02
    assert np.degrees(off[2]) < 2.0, "it would stand still otherwise, 7 degrees off"


def test_a_misfit_is_in_deviations() -> None:
    world, r = World(4), np.random.default_rng(4)
    world.views.seen[:] += r.normal(0, 3e-3, world.views.seen.shape)  # three times what is expected
    found = misfit(world.views, world.cameras, world.log_depth)
    assert found == pytest.approx(3 * np.sqrt(2 * np.log(2)), rel=0.1)


def test_triangles_give_depth_where_the_camera_has_moved() -> None:
    world, r = World(5), np.random.default_rng(5)
    guess = world.log_depth + r.normal(0, 0.3, world.log_depth.shape)
    found = triangulate(world.views, world.cameras, guess, 0.3, 1.0).log_depth
    assert np.median(np.abs(found - world.log_depth)) < 0.02
    blurred = triangulate(world.views, world.cameras, guess, 0.3, 1e5).log_depth
    np.testing.assert_allclose(blurred, guess, atol=1e-3)


def test_a_camera_that_stands_still_tells_no_depth() -> None:
    world = World(6, way=0.0)
    guess = world.log_depth * 0.0
    found = adjust(world.views, guess, 0.03)
    assert found is not None
    assert world.degrees_off(found) < 1e-3
    assert np.abs(found.shift).max() < 1e-4
    np.testing.assert_allclose(triangulate(world.views, found, guess, 0.3, 1.0).log_depth, guess, atol=1e-2)


def test_what_nobody_sees_stays_as_it_was() -> None:
    world = World(7)
    world.views.deviation[0, :5] = np.inf
    guess = world.log_depth + 0.2
    found = triangulate(world.views, world.cameras, guess, 0.3, 1.0).log_depth
    np.testing.assert_array_equal(found[0, :5], guess[0, :5])
    world.views.deviation[:] = np.inf
    placed = adjust(world.views, guess, 0.03)
    assert placed is not None
    np.testing.assert_allclose(placed.poses(), np.tile(np.eye(4), (FRAMES, 1, 1)), atol=1e-9)


def test_what_is_not_finite_gives_nothing() -> None:
    world = World(8)
    world.log_depth[2, 3] = np.nan
    assert adjust(world.views, world.log_depth, 0.03) is None
