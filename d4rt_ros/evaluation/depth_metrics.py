"""Depth and point cloud errors, as the video depth literature measures them.

A monocular model knows depth up to a scale, so one scale (or one scale and one shift) is fitted for a whole
clip before the error is taken: "per-sequence scale" and "scale and shift" of MonST3R, CUT3R and D4RT
(Table 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_IRLS_ROUNDS = 50


@dataclass(frozen=True)
class DepthScores:
    """AbsRel (a fraction) and the share of `pixels` pixels whose ratio to the truth is below 1.25."""

    absrel: float
    delta125: float
    pixels: int


def _valid_pairs(estimate: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 copies of the pixels where the truth is a positive depth and the estimate is a number."""
    estimate, truth = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    if estimate.shape != truth.shape:
        raise ValueError(f"estimate {estimate.shape} and truth {truth.shape} differ in shape")
    keep = np.isfinite(truth) & (truth > 0) & np.isfinite(estimate)
    if not keep.any():
        raise ValueError("no pixel has both a true and an estimated depth")
    return estimate[keep], truth[keep]


def median_scale(estimate: np.ndarray, truth: np.ndarray) -> float:
    """The factor that gives the estimate the truth's median, over all pixels of the clip that have both.

    Raises:
        ValueError: no common pixel, or an estimate whose median is not positive.
    """
    estimate, truth = _valid_pairs(estimate, truth)
    middle = float(np.median(estimate))
    if middle <= 0:
        raise ValueError(f"the estimated depth's median is {middle:g}, it has to be above 0")
    return float(np.median(truth)) / middle


def least_squares_scale_shift(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Scale s and shift t (units of the truth) that minimise the sum of (s * estimate + t - truth)^2."""
    estimate, truth = _valid_pairs(estimate, truth)
    return _weighted_line(estimate, truth, np.ones_like(truth))


def robust_scale_shift(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Scale s and shift t that minimise the sum of |s * estimate + t - truth| (reweighted least squares)."""
    estimate, truth = _valid_pairs(estimate, truth)
    scale, shift = _weighted_line(estimate, truth, np.ones_like(truth))
    floor = 1e-6 * float(np.median(truth))
    for _ in range(_IRLS_ROUNDS):
        weight = 1 / np.maximum(np.abs(scale * estimate + shift - truth), floor)
        previous, (scale, shift) = (scale, shift), _weighted_line(estimate, truth, weight)
        if np.allclose(previous, (scale, shift), rtol=1e-9, atol=1e-12):
            break
    return scale, shift


def _weighted_line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the weighted line through (x, y); slope 0 where x does not vary."""
    total = weight.sum()
    mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
    variance = (weight * (x - mean_x) ** 2).sum() / total
    if variance <= 1e-12 * max(mean_x**2, 1e-30):
        return 0.0, float(mean_y)
    slope = (weight * (x - mean_x) * (y - mean_y)).sum() / total / variance
    return float(slope), float(mean_y - slope * mean_x)


def depth_scores(estimate: np.ndarray, truth: np.ndarray) -> DepthScores:
    """AbsRel and delta < 1.25 of depths that are already in the truth's scale.

    Pixels with an unknown truth are left out; estimates at or below 0 (a shift can do that) fail delta.

    Args:
        estimate: any shape, NaN where there is none.
        truth: the same shape, NaN or 0 where unknown.

    Raises:
        ValueError: shapes differ or no pixel has both.
    """
    estimate, truth = _valid_pairs(estimate, truth)
    absrel = float(np.mean(np.abs(estimate - truth) / truth))
    ratio = np.maximum(truth / np.maximum(estimate, 1e-12), estimate / truth)
    return DepthScores(absrel, float(np.mean(ratio < 1.25)), truth.size)


def scaled_depth_scores(estimate: np.ndarray, truth: np.ndarray, align: str = "scale") -> DepthScores:
    """`depth_scores` after one fit for the whole clip: `align` is scale, scale_shift or none.

    Raises:
        ValueError: another `align`, or nothing to compare.
    """
    if align == "scale":
        return depth_scores(np.asarray(estimate, np.float64) * median_scale(estimate, truth), truth)
    if align == "scale_shift":
        scale, shift = robust_scale_shift(estimate, truth)
        return depth_scores(np.asarray(estimate, np.float64) * scale + shift, truth)
    if align == "none":
        return depth_scores(estimate, truth)
    raise ValueError(f"align is '{align}', it has to be scale, scale_shift or none")


def point_cloud_l1(estimate: np.ndarray, truth: np.ndarray, rescale: bool = True) -> float:
    """Mean over points of |dx| + |dy| + |dz|, divided by 3, after both clouds are moved to a common mean.

    Args:
        estimate: [..., 3], NaN where there is none, in the order of `truth`.
        truth: [..., 3], NaN where unknown.
        rescale: first give the estimate the truth's median distance from its mean (clouds without metric
            scale).

    Raises:
        ValueError: shapes differ or no point has both.
    """
    estimate, truth = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    if estimate.shape != truth.shape or truth.shape[-1] != 3:
        raise ValueError(f"clouds of shapes {estimate.shape} and {truth.shape} cannot be compared")
    keep = np.isfinite(estimate).all(-1) & np.isfinite(truth).all(-1)
    if not keep.any():
        raise ValueError("no point is in both clouds")
    estimate, truth = estimate[keep], truth[keep]
    estimate, truth = estimate - estimate.mean(0), truth - truth.mean(0)
    if rescale:
        spread = float(np.median(np.linalg.norm(estimate, axis=-1)))
        if spread > 0:
            estimate = estimate * (float(np.median(np.linalg.norm(truth, axis=-1))) / spread)
    return float(np.mean(np.abs(estimate - truth)))


def focal_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean over fx and fy of |estimate - truth| / truth, of two 3x3 matrices in the same pixels."""
    found = np.array([estimate[0][0], estimate[1][1]], np.float64)
    true = np.array([truth[0][0], truth[1][1]], np.float64)
    return float(np.mean(np.abs(found - true) / true))
