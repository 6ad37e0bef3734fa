"""Metric scale from every source, with what it says about its own certainty."""

from __future__ import annotations

import numpy as np
import pytest

from d4rt_ros.stream.scale import MIN_PATH, ScaleEstimator

RNG = np.random.default_rng(0)


def test_none_is_not_metric() -> None:
    """Lengths stay units of the segment."""
    scale = ScaleEstimator("none").get()
    assert not scale.metric and scale.metres_per_unit == 1.0 and scale.state.startswith("none:")


def test_fixed_is_what_it_says() -> None:
    """The given factor, with no doubt."""
    scale = ScaleEstimator("fixed", 2.5).get()
    assert scale.metric and scale.metres_per_unit == 2.5 and scale.state == "fixed: 1 unit is 2.5 m"


def test_depth_ratio_is_robust() -> None:
    """30 % nonsense, holes and noise: the ratio comes back to 1 %, and the state says how sure it is."""
    estimator = ScaleEstimator("depth")
    predicted = RNG.uniform(1, 5, 500)
    measured = 0.4 * predicted * RNG.normal(1, 0.03, 500)
    measured[:150] = RNG.uniform(0.1, 10, 150)
    measured[150:200] = np.nan
    measured[200:220] = 0.0
    estimator.depth(predicted, measured, np.ones(500))
    scale = estimator.get()
    assert scale.metric and scale.metres_per_unit == pytest.approx(0.4, rel=0.01)
    assert 0 < scale.error < 0.05 and "depth: 1 unit is 0.4" in scale.state and "%" in scale.state


def test_unsure_points_count_less() -> None:
    """The weighted median follows the sure ones."""
    estimator = ScaleEstimator("depth")
    ratio = np.where(np.arange(100) < 40, 2.0, 7.0)
    estimator.depth(np.ones(100), ratio, np.where(np.arange(100) < 40, 0.9, 0.1))
    assert estimator.get().metres_per_unit == pytest.approx(2.0)


def test_too_few_depths_say_so() -> None:
    """Not metric, with the counts; later windows without depth hold the value and say so."""
    estimator = ScaleEstimator("depth")
    assert "no depth image came yet" in estimator.get().state
    measured = np.full(100, np.nan)
    measured[:5] = 1.0
    estimator.depth(np.ones(100), measured, np.ones(100))
    assert (
        not estimator.get().metric and "5 of 100 points have a depth, 20 are needed" in estimator.get().state
    )
    estimator.depth(np.ones(100), np.full(100, 3.0), np.ones(100))
    sure = estimator.get()
    estimator.missing("this window has no depth image")
    held = estimator.get()
    assert held.metric and held.metres_per_unit == pytest.approx(3.0)
    assert "held for 1 window: this window has no depth image" in held.state and held.error > sure.error


def test_the_value_is_smoothed_and_follows() -> None:
    """Noise from window to window shrinks; a lasting change is taken over."""
    estimator, values = ScaleEstimator("depth"), []
    for i in range(60):
        true = 1.0 if i < 30 else 1.2
        ratio = true * RNG.normal(1, 0.05) * RNG.normal(1, 0.1, 200)
        estimator.depth(np.ones(200), np.maximum(ratio, 0.1), np.ones(200))
        values.append(estimator.get().metres_per_unit)
    assert np.std(values[10:30]) < 0.035
    assert np.mean(values[50:]) == pytest.approx(1.2, rel=0.04)


def path(count: int, speed: float, first: int = 0) -> tuple[tuple[int, ...], np.ndarray]:
    """Stamps and positions in metres on a bent path, 10 a second."""
    time = (first + np.arange(count)) / 10
    positions = np.stack([speed * time, np.sin(speed * time), 0 * time], -1)
    return tuple(int(t * 1e9) for t in time), positions


def test_odometry_gives_the_ratio_of_path_lengths() -> None:
    """Whatever the odometry frame's attitude; with 2 % noise in our path; overlapping windows count once."""
    estimator, scales = ScaleEstimator("odometry"), []
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for first in range(0, 80, 4):
        stamps, metres = path(8, 0.8, first)
        ours = metres / 0.3 + RNG.normal(0, 0.004, metres.shape)
        estimator.odometry(stamps, ours, list(metres @ turn.T + 5))
        scales.append(estimator.get())
    assert scales[-1].metric and scales[-1].metres_per_unit == pytest.approx(0.3, rel=0.02)
    assert scales[-1].error < 0.05


def test_odometry_without_enough_motion_says_so() -> None:
    """A camera that stands: no scale, whatever the noise; nor without odometry."""
    estimator = ScaleEstimator("odometry")
    stamps, _ = path(8, 0.0)
    estimator.odometry(stamps, np.zeros((8, 3)), [None] * 8)
    assert "no odometry came yet" in estimator.get().state
    for first in range(0, 40, 4):
        stamps, metres = path(8, 0.0, first)
        estimator.odometry(stamps, RNG.normal(0, 0.01, (8, 3)), list(metres + RNG.normal(0, 0.002, (8, 3))))
    scale = estimator.get()
    assert not scale.metric and f"{MIN_PATH:.2f} m are needed" in scale.state


def test_the_same_motion_does_not_count_twice() -> None:
    """Odometry that goes on without new frames makes it no surer."""
    estimator = ScaleEstimator("odometry")
    stamps, metres = path(8, 1.0)
    estimator.odometry(stamps, metres, list(metres))
    before = estimator.get()
    estimator.odometry(stamps, metres, list(metres))
    assert before.metric and estimator.get().error >= before.error


def test_a_short_path_is_not_enough() -> None:
    """Many steps that are long enough, but 0.15 m in all."""
    estimator = ScaleEstimator("odometry")
    stamps, metres = path(6, 0.21)
    estimator.odometry(stamps, metres, list(metres))
    assert not estimator.get().metric and "the camera moved 0.1" in estimator.get().state


def test_odometry_that_moves_alone_is_not_believed() -> None:
    """The wheels turn, the images stand still."""
    estimator = ScaleEstimator("odometry")
    stamps, metres = path(8, 1.0)
    estimator.odometry(stamps, np.zeros((8, 3)), list(metres))
    assert not estimator.get().metric and "not in the images" in estimator.get().state


def test_reset_forgets_and_state_goes_on() -> None:
    """After a reset nothing is known; a restored estimator goes on as the first one."""
    one, two = ScaleEstimator("odometry"), ScaleEstimator("odometry")
    stamps, metres = path(8, 1.0)
    one.odometry(stamps, metres / 0.5, list(metres))
    two.restore(one.state())
    stamps, metres = path(12, 1.0, 6)
    for estimator in (one, two):
        estimator.odometry(stamps, metres / 0.52, list(metres))
    assert one.get() == two.get() and one.get().metric
    one.reset()
    assert not one.get().metric
