"""Point track errors: AJ, APD and OA as in TAPVid-3D, pixel error, visibility accuracy.

TAPVid-3D (Koppula et al. 2024, section 4): a point counts as found within k pixels where its 3D error is
below k * z / sqrt(fx * fy), z its true depth, k in 1, 2, 4, 8, 16 of an image whose shorter side is 256
pixels. The estimate is first brought to the truth's scale by the ratio of median distances from the camera
over the points that are visible in both. All frames are scored, the query's own included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PIXEL_THRESHOLDS = (1, 2, 4, 8, 16)
METRIC_SIDE = 256


@dataclass(frozen=True)
class TrackScores:
    """Average Jaccard, average share of points within the thresholds, occlusion accuracy, each 0..1."""

    average_jaccard: float
    average_within: float
    occlusion_accuracy: float
    jaccard: tuple[float, ...]
    within: tuple[float, ...]


def metric_intrinsics(intrinsics: np.ndarray, image_size: tuple[float, float]) -> np.ndarray:
    """K [3, 3] of an image (H, W) scaled to the benchmark's resolution, 256 pixels on the shorter side."""
    scaled = np.array(intrinsics, np.float64)
    scaled[:2] *= METRIC_SIDE / min(image_size)
    return scaled


def median_track_scale(estimate: np.ndarray, truth: np.ndarray, both: np.ndarray) -> float:
    """Ratio of the median distances from the camera over the points `both` [T, N]; 1 if there are none."""
    if not both.any():
        return 1.0
    found = float(np.median(np.linalg.norm(estimate[both], axis=-1)))
    return float(np.median(np.linalg.norm(truth[both], axis=-1))) / max(found, 1e-12)


def tapvid3d_scores(
    estimate: np.ndarray,
    estimate_visible: np.ndarray,
    truth: np.ndarray,
    truth_visible: np.ndarray,
    intrinsics: np.ndarray,
    valid: np.ndarray | None = None,
    rescale: bool = True,
) -> TrackScores:
    """AJ, APD and OA of one clip's tracks, each point in the camera frame of its own time.

    Args:
        estimate: xyz [T, N, 3]; NaN counts as far away.
        estimate_visible: bool [T, N].
        truth: xyz [T, N, 3] in metres.
        truth_visible: bool [T, N].
        intrinsics: K [3, 3] at the benchmark's resolution (see `metric_intrinsics`).
        valid: bool [T, N], where the truth is known (all, when left out).
        rescale: global median scaling, TAPVid-3D's default.

    Raises:
        ValueError: shapes differ, or no point is visible in the truth.
    """
    estimate, truth = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    estimate_visible, truth_visible = np.asarray(estimate_visible, bool), np.asarray(truth_visible, bool)
    if estimate.shape != truth.shape or not estimate_visible.shape == truth_visible.shape == truth.shape[:-1]:
        raise ValueError(
            f"tracks {estimate.shape} and {truth.shape}, "
            f"visibility {estimate_visible.shape} and {truth_visible.shape}"
        )
    known = np.ones(truth_visible.shape, bool) if valid is None else np.asarray(valid, bool)
    truth_visible = truth_visible & known
    if not truth_visible.any():
        raise ValueError("no point of the truth is visible")
    answered = np.isfinite(estimate).all(-1)
    if rescale:
        both = truth_visible & estimate_visible & answered
        estimate = estimate * median_track_scale(estimate, truth, both)
    error = np.where(answered, np.linalg.norm(estimate - truth, axis=-1), np.inf)
    metres_per_pixel = truth[..., 2] / np.sqrt(intrinsics[0, 0] * intrinsics[1, 1])
    jaccard, within = [], []
    for pixels in PIXEL_THRESHOLDS:
        # Squares on both sides, as the benchmark compares them: a point behind the camera has a negative
        # threshold.
        near = error**2 < (pixels * metres_per_pixel) ** 2
        within.append(float((near & truth_visible).sum() / truth_visible.sum()))
        hits = (near & truth_visible & estimate_visible).sum()
        false = (estimate_visible & known & ~(truth_visible & near)).sum()
        jaccard.append(float(hits / (truth_visible.sum() + false)))
    accuracy = float((estimate_visible == truth_visible)[known].mean())
    return TrackScores(
        float(np.mean(jaccard)), float(np.mean(within)), accuracy, tuple(jaccard), tuple(within)
    )


def track_pixel_errors(
    estimate_uv: np.ndarray, truth_uv: np.ndarray, counted: np.ndarray, aspect_ratio: float
) -> np.ndarray:
    """Distances [M] of the counted points in pixels of an image 256 wide; infinite where unanswered.

    Args:
        estimate_uv: [T, N, 2] in 0..1 of the full extent.
        truth_uv: the same.
        counted: bool [T, N], visible and known in the truth.
        aspect_ratio: width / height of the image.
    """
    gap = (np.asarray(estimate_uv, np.float64) - np.asarray(truth_uv, np.float64))[np.asarray(counted, bool)]
    error = np.linalg.norm(gap * [METRIC_SIDE, METRIC_SIDE / aspect_ratio], axis=-1)
    return np.where(np.isfinite(error), error, np.inf)


def visibility_accuracy(estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    """Share of the valid points [T, N] whose visibility (probability, cut at 0.5, or bool) is the truth's.

    Raises:
        ValueError: no point is valid.
    """
    valid = np.asarray(valid, bool)
    if not valid.any():
        raise ValueError("no point has a known visibility")
    return float(np.mean((np.asarray(estimate, np.float64)[valid] > 0.5) == np.asarray(truth, bool)[valid]))
