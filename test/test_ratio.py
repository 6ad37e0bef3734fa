"""Units of one window in another's, from lengths between points."""

from __future__ import annotations

import numpy as np
import pytest

from d4rt_ros.stream.ratio import length_ratio, surest_weights
from d4rt_ros.tasks.geometry import Array


def test_the_surest_85_percent_weigh_and_far_points_less() -> None:
    """The rest weighs nothing, nor does what has no confidence."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(1000, 3))
    sure = np.concatenate([np.zeros(200), np.linspace(0.1, 0.9, 800)])
    weights = surest_weights(points, sure)
    assert (weights[:319] == 0).all() and (weights[321:] > 0).all()
    near, far = np.array([[0, 0, 1.0]] * 5), np.array([[0, 0, 9.0]] * 5)
    weights = surest_weights(np.concatenate([near, far]), np.ones(10))
    assert weights[0] > 3 * weights[-1] > 0


@pytest.mark.parametrize(("noise", "wrong", "allowed"), [(0, 0, 1e-9), (0.02, 0, 0.005), (0.02, 0.2, 0.02)])
def test_lengths_give_the_ratio_of_units_however_points_are_turned(
    noise: float, wrong: float, allowed: float
) -> None:
    """As exact as the fit, and nearly so with a fifth of the points wrong."""
    rng = np.random.default_rng(0)
    z = rng.uniform(1, 5, 256)
    exact = np.stack([*(rng.uniform(-0.6, 0.6, (2, 256)) * z), z], -1)
    source, target = (exact * (1 + noise * rng.normal(size=(256, 1))) for _ in range(2))
    bad = rng.random(256) < wrong
    target[bad] *= rng.uniform(0.4, 1.6, (bad.sum(), 1))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    ratio, spread = length_ratio(source, 1.7 * target @ turn.T + 3.0, surest_weights(source, np.ones(256)))
    assert ratio == pytest.approx(1.7, rel=allowed) and spread < 0.1 and (spread > 1e-3) == (noise > 0)


@pytest.mark.parametrize("points", [np.zeros((256, 3)), np.zeros((1, 3)), np.zeros((0, 3))])
def test_points_without_distances_have_no_ratio(points: Array) -> None:
    """No warning, no division by zero: the spread says that nothing is known."""
    ratio, spread = length_ratio(points, points, np.ones(len(points)))
    assert np.isnan(ratio) and spread == np.inf
