"""The map: one point a cube, the newest; never more than the limit."""

from __future__ import annotations

import numpy as np

from d4rt_ros.stream.map import VoxelMap


def grey(count: int, value: int = 128) -> np.ndarray:
    """Colours."""
    return np.full((count, 3), value, np.uint8)


def test_one_point_a_cube_and_it_is_the_newest() -> None:
    """A thousand points in two cubes leave two, of the last colour."""
    box, rng = VoxelMap(100), np.random.default_rng(0)
    box.add(rng.uniform(0, 1, (1000, 3)), grey(1000, 1), 1.0)
    newest = np.array([[0.5, 0.5, 0.5], [-0.5, 0.5, 0.5]])
    box.add(newest, grey(2, 2), 1.0)
    assert np.allclose(box.xyz, newest) and (box.rgb == 2).all()


def test_a_negative_coordinate_is_another_cube() -> None:
    """Cubes do not fold at zero."""
    box = VoxelMap(100)
    box.add(np.array([[0.1, 0.1, 0.1], [-0.1, 0.1, 0.1], [0.1, -0.1, 0.1], [0.1, 0.1, -0.1]]), grey(4), 1.0)
    assert len(box) == 4


def test_the_oldest_are_given_up_beyond_the_limit() -> None:
    """Of three rows of ten points the last two stay; a point that is seen again is new."""
    box = VoxelMap(20)
    rows = [np.stack([np.arange(10.0), np.full(10, float(y)), np.zeros(10)], -1) + 0.5 for y in range(3)]
    box.add(rows[0], grey(10), 1.0)
    box.add(rows[1], grey(10), 1.0)
    box.add(rows[0], grey(10), 1.0)
    box.add(rows[2], grey(10), 1.0)
    assert len(box) == 20 and sorted(set(box.xyz[:, 1])) == [0.5, 2.5]


def test_memory_stays_bounded() -> None:
    """Many clouds everywhere: never more than the limit."""
    box, rng = VoxelMap(500), np.random.default_rng(0)
    for _ in range(50):
        box.add(rng.normal(0, 100, (400, 3)), grey(400), 0.05)
        assert len(box) <= 500
    assert len(box) == 500 == len(box.rgb)


def test_points_that_are_not_finite_or_out_of_reach_are_left_out() -> None:
    """NaN, infinity and far away."""
    box = VoxelMap(10)
    box.add(np.array([[np.nan, 0, 0], [np.inf, 0, 0], [1e30, 0, 0], [1, 2, 3]]), grey(4), 0.1)
    assert np.allclose(box.xyz, [[1, 2, 3]])


def test_another_size_of_cubes_thins_what_is_there() -> None:
    """Eight small cubes become one large one; a change of some percent is not worth it."""
    corners = np.stack(np.meshgrid([0.25, 0.75], [0.25, 0.75], [0.25, 0.75]), -1).reshape(-1, 3)
    box = VoxelMap(100)
    box.add(corners, grey(8), 0.5)
    box.add(np.zeros((0, 3)), grey(0), 0.53)
    assert len(box) == 8
    box.add(np.zeros((0, 3)), grey(0), 1.0)
    assert len(box) == 1


def test_state_goes_on() -> None:
    """A map restored from a state goes on as the first one does."""
    one, two, rng = VoxelMap(50), VoxelMap(50), np.random.default_rng(0)
    one.add(rng.normal(0, 1, (80, 3)), grey(80), 0.5)
    two.restore(one.state())
    more = rng.normal(0, 1, (80, 3))
    one.add(more, grey(80), 0.5)
    two.add(more, grey(80), 0.5)
    assert np.array_equal(one.xyz, two.xyz) and len(one) > 10
    one.clear()
    assert len(one) == 0
