"""Track errors against hand-computed values and the numbers of the benchmark's own code."""

from __future__ import annotations

import numpy as np
import pytest

from d4rt_ros.evaluation.track_metrics import (
    metric_intrinsics,
    tapvid3d_scores,
    track_pixel_errors,
    visibility_accuracy,
)

K = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])


def test_agrees_with_the_benchmark() -> None:
    # Expected values: compute_tapvid3d_metrics(scaling='median', order='t n') of google-deepmind/tapnet,
    # tapnet/tapvid3d/evaluation/metrics.py at c2cbab81, run on these very arrays.
    draw = np.random.RandomState(7)
    shape = (6, 40)
    truth = np.stack([draw.uniform(-2, 2, shape), draw.uniform(-1, 1, shape), draw.uniform(1, 6, shape)], -1)
    estimate = (truth + draw.standard_cauchy((6, 40, 1)) * draw.randn(6, 40, 3) * 0.02) * 0.37
    truth_visible = draw.rand(*shape) < 0.7
    estimate_visible = np.where(draw.rand(*shape) < 0.85, truth_visible, ~truth_visible)
    intrinsics = np.array([[300.0, 0, 160], [0, 290, 128], [0, 0, 1]])
    scores = tapvid3d_scores(estimate, estimate_visible, truth, truth_visible, intrinsics)
    assert scores.average_jaccard == pytest.approx(0.27238353, abs=1e-8)
    assert scores.average_within == pytest.approx(0.40229885, abs=1e-8)
    assert scores.occlusion_accuracy == pytest.approx(0.85833333, abs=1e-8)
    assert scores.jaccard == pytest.approx((0, 0.00296736, 0.21146953, 0.48245614, 0.66502463), abs=1e-8)
    assert scores.within == pytest.approx((0, 0.01149425, 0.37931034, 0.73563218, 0.88505747), abs=1e-8)


def test_thresholds_by_hand() -> None:
    truth = np.array([[[0.0, 0, 2.0], [0.0, 0, 4.0]]])  # a pixel is 2 cm wide at 2 m and 4 cm at 4 m
    estimate = truth + [[[0.05, 0, 0], [0.05, 0, 0]]]  # 2.5 and 1.25 pixels
    seen = np.ones((1, 2), bool)
    scores = tapvid3d_scores(estimate, seen, truth, seen, K, rescale=False)
    assert scores.within == (0.0, 0.5, 1.0, 1.0, 1.0)
    # At 2 pixels: one hit, and the other point is both missed and a false alarm: 1 / (2 + 1).
    assert scores.jaccard == pytest.approx((0, 1 / 3, 1, 1, 1))
    assert scores.average_jaccard == pytest.approx((1 / 3 + 3) / 5)


def test_hidden_points_and_false_alarms_by_hand() -> None:
    truth = np.tile([0.0, 0, 1.0], (1, 4, 1))
    truth_visible = np.array([[True, True, False, False]])
    estimate_visible = np.array([[True, False, True, False]])
    scores = tapvid3d_scores(truth, estimate_visible, truth, truth_visible, K)
    assert scores.average_within == 1
    assert scores.occlusion_accuracy == 0.5
    assert scores.average_jaccard == pytest.approx(1 / (2 + 1))
    known = np.array([[True, True, False, True]])
    assert tapvid3d_scores(truth, estimate_visible, truth, truth_visible, K, known).average_jaccard == 0.5


def test_scale_is_taken_over_points_visible_in_both() -> None:
    truth = np.array([[[0.0, 0, 1], [0, 0, 2], [0, 0, 3]]])
    estimate = truth * [[[0.5], [0.5], [0.1]]]
    seen = np.ones((1, 3), bool)
    assert tapvid3d_scores(estimate, np.array([[True, True, False]]), truth, seen, K).within[
        0
    ] == pytest.approx(2 / 3)
    assert tapvid3d_scores(estimate, seen, truth, seen, K, rescale=False).average_within == 0


def test_unanswered_points_are_misses() -> None:
    truth = np.array([[[0.0, 0, 1], [0, 0, 2]]])
    estimate = truth.copy()
    estimate[0, 1] = np.nan
    seen = np.ones((1, 2), bool)
    scores = tapvid3d_scores(estimate, seen, truth, seen, K)
    assert scores.average_within == 0.5
    assert scores.average_jaccard == pytest.approx(1 / 3)


def test_tracks_that_cannot_be_scored_are_refused() -> None:
    truth = np.ones((1, 2, 3))
    seen = np.ones((1, 2), bool)
    with pytest.raises(ValueError, match="no point of the truth is visible"):
        tapvid3d_scores(truth, seen, truth, ~seen, K)
    with pytest.raises(ValueError, match=r"tracks \(1, 1, 3\)"):
        tapvid3d_scores(truth[:, :1], seen, truth, seen, K)


def test_benchmark_resolution_is_256_on_the_shorter_side() -> None:
    scaled = metric_intrinsics(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), (480, 640))
    assert scaled[0, 0] == pytest.approx(500 * 256 / 480)
    assert scaled[1, 2] == pytest.approx(128)
    assert scaled[2, 2] == 1


def test_pixel_error_is_of_a_256_wide_image() -> None:
    found = np.array([[[0.5, 0.5], [0.25, 0.5], [np.nan, 0.5], [0.9, 0.9]]])
    true = np.array([[[0.5, 0.25], [0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]])
    counted = np.array([[True, True, True, False]])
    # 0.25 of the height of a 480x640 image is 0.25 * 192 pixels at width 256.
    assert track_pixel_errors(found, true, counted, 640 / 480) == pytest.approx([48, 64, np.inf])


def test_visibility_accuracy_by_hand() -> None:
    probability = np.array([[0.9, 0.2, 0.6, 0.1]])
    truth = np.array([[True, True, False, False]])
    assert visibility_accuracy(probability, truth, np.array([[True] * 4])) == 0.5
    assert visibility_accuracy(probability, truth, np.array([[True, False, False, True]])) == 1
    with pytest.raises(ValueError, match="no point"):
        visibility_accuracy(probability, truth, np.zeros((1, 4), bool))
