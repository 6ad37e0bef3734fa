"""Depth and cloud errors against values worked out by hand and by a linear programme."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from d4rt_ros.evaluation.depth_metrics import (
    depth_scores,
    focal_error,
    least_squares_scale_shift,
    median_scale,
    point_cloud_l1,
    robust_scale_shift,
    scaled_depth_scores,
)


def test_absrel_and_delta_by_hand() -> None:
    truth = np.array([[1.0, 2.0], [4.0, np.nan]])
    estimate = np.array([[1.1, 1.0], [4.0, 7.0]])
    scores = depth_scores(estimate, truth)
    assert scores.absrel == pytest.approx((0.1 + 0.5 + 0.0) / 3)
    assert scores.delta125 == pytest.approx(2 / 3)
    assert scores.pixels == 3


def test_delta_is_symmetric_and_strict() -> None:
    truth = np.array([1.0, 1.25, 1.0, 1.0])
    estimate = np.array([1.25, 1.0, 1.2499, -1.0])
    assert depth_scores(estimate, truth).delta125 == pytest.approx(1 / 4)


def test_zero_truth_is_unknown() -> None:
    assert depth_scores(np.array([5.0, 2.0]), np.array([0.0, 1.0])).absrel == pytest.approx(1.0)


def test_scale_is_the_ratio_of_medians_over_common_pixels() -> None:
    truth = np.array([2.0, 4.0, 6.0, np.nan, 100.0])
    estimate = np.array([1.0, 1.0, 3.0, 50.0, np.nan])
    assert median_scale(estimate, truth) == pytest.approx(4.0)
    assert scaled_depth_scores(estimate, truth).absrel == pytest.approx((1 + 0 + 1) / 3)


def test_scaled_scores_forget_the_scale_of_the_whole_clip_only() -> None:
    truth = np.stack([np.full((2, 2), 2.0), np.full((2, 2), 3.0)])
    assert scaled_depth_scores(truth * 7, truth).absrel == pytest.approx(0)
    per_frame = truth * np.array([7.0, 1.0])[:, None, None]
    assert scaled_depth_scores(per_frame, truth).absrel > 0.3


def test_scale_and_shift_come_back() -> None:
    estimate = np.linspace(1, 5, 50)
    for fit in (least_squares_scale_shift, robust_scale_shift):
        scale, shift = fit(estimate, 0.5 * estimate + 2)
        assert (scale, shift) == (pytest.approx(0.5), pytest.approx(2))
    assert scaled_depth_scores(estimate, 0.5 * estimate + 2, "scale_shift").absrel == pytest.approx(
        0, abs=1e-9
    )
    assert scaled_depth_scores(estimate, 0.5 * estimate + 2, "none").absrel > 0.1


def test_robust_fit_is_the_least_absolute_deviation() -> None:
    draw = np.random.RandomState(3)
    estimate = draw.uniform(1, 5, 41)
    truth = 2 * estimate + 1 + 0.1 * draw.randn(41)
    truth[:8] += 20
    # min sum(e) with -e <= s x + t - y <= e
    count = len(truth)
    columns = np.stack([estimate, np.ones(count)], 1)
    rows = np.block([[columns, -np.eye(count)], [-columns, -np.eye(count)]])
    solved = linprog(
        np.r_[0, 0, np.ones(count)],
        rows,
        np.r_[truth, -truth],
        bounds=[(None, None)] * 2 + [(0, None)] * count,
    )
    scale, shift = robust_scale_shift(estimate, truth)
    assert np.abs(scale * estimate + shift - truth).sum() == pytest.approx(solved.fun, rel=1e-4)
    assert scale == pytest.approx(2, abs=0.1)
    assert abs(least_squares_scale_shift(estimate, truth)[1] - 1) > 1


def test_constant_estimate_gets_a_shift_only() -> None:
    truth = np.array([1.0, 2.0, 9.0])
    assert robust_scale_shift(np.ones(3), truth)[0] == 0
    assert scaled_depth_scores(np.full(3, 0.1), truth).absrel == pytest.approx((1 + 0 + 7 / 9) / 3)


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [(np.ones(3), np.ones(4)), (np.full(3, np.nan), np.ones(3)), (np.ones(3), np.zeros(3))],
)
def test_nothing_to_compare_is_refused(estimate: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shape|no pixel"):
        depth_scores(estimate, truth)


def test_unknown_alignment_and_negative_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="align is 'shift'"):
        scaled_depth_scores(np.ones(3), np.ones(3), "shift")
    with pytest.raises(ValueError, match="median is -1"):
        median_scale(-np.ones(3), np.ones(3))


def test_cloud_l1_by_hand() -> None:
    truth = np.array([[0.0, 0, 0], [2, 0, 0], [np.nan, 0, 0]])
    estimate = np.array([[10.0, 5, 0], [12, 5, 3], [0, 0, 0]])
    # Means (1, 0, 0) and (11, 5, 1.5): what is left is 1.5 in z on both points.
    assert point_cloud_l1(estimate, truth, rescale=False) == pytest.approx(1.5 / 3)


def test_cloud_l1_forgets_place_and_scale() -> None:
    truth = np.random.RandomState(0).randn(30, 3)
    assert point_cloud_l1(0.2 * truth + [1, 2, 3], truth) == pytest.approx(0, abs=1e-12)
    assert point_cloud_l1(0.2 * truth + [1, 2, 3], truth, rescale=False) > 0.1
    with pytest.raises(ValueError, match="no point"):
        point_cloud_l1(np.full((2, 3), np.nan), truth[:2])
    with pytest.raises(ValueError, match="shapes"):
        point_cloud_l1(truth[:4], truth[:5])


def test_focal_error_by_hand() -> None:
    truth = np.array([[100.0, 0, 50], [0, 200, 50], [0, 0, 1]])
    estimate = np.array([[110.0, 0, 9], [0, 180, 9], [0, 0, 1]])
    assert focal_error(estimate, truth) == pytest.approx(0.1)
    assert focal_error(truth * 2, truth) == pytest.approx(1.0)
