"""How long one window's units are in another's: from distances between points, which need no pose."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from d4rt_ros.tasks.geometry import Array

SUREST = 0.85  # share of the points that is used, by confidence (paper appendix B)
_PARTNERS = 2  # of every point; with 16 of them the ratio is better by a twentieth
_STEP = 0.382  # of all points, from one partner to the next: near the golden section, they spread evenly
_IQR = 1.349  # interquartile range of a normal distribution over its deviation


def surest_weights(points: Array, sure: Array) -> Array:
    """Weights [N] of points [N, 3]: the surest 85 % their confidence, far ones less, the others 0."""
    used = sure > 0.0
    if used.any():
        ranked = np.sort(sure[used])
        used &= sure >= ranked[int(np.ceil((1.0 - SUREST) * (len(ranked) - 1)))]
    # The error of an answer grows with distance, beyond the scene's mean depth in proportion to it.
    distance = np.sqrt(np.einsum("nc,nc->n", points, points))
    mean = max(float(distance.mean()), np.finfo(np.float64).tiny)
    return np.where(used, sure / (1.0 + distance / mean) ** 2, 0.0)


def length_ratio(source: Array, target: Array, weights: Array) -> tuple[float, float]:
    """Ratio of lengths of two sets of the same points, however they are turned and shifted.

    The weighted median over pairs of points, long ones counting more: about as exact as the scale of a robust
    Sim(3) fit, in a fraction of its time. It bears up to a fifth of wrong points well, and two fifths with
    twice the fit's error.

    Args:
        source: [N, 3].
        target: [N, 3].
        weights: [N] >= 0.

    Returns:
        Target's lengths over the source's, and the robust deviation of the pairs' logarithms of it; NaN, inf
        where no two points that count are apart.
    """
    other = _partners(len(source))
    lengths = []
    for points in (source, target):
        between = points[other] - points
        lengths.append(np.einsum("pnc,pnc->pn", between, between).ravel())
    ours, theirs = lengths
    weight = (weights[other] * weights).ravel() * np.sqrt(ours * theirs)
    counts = weight > 0.0
    if not counts.any():
        return float("nan"), float("inf")
    # log of a ratio of squares: half of it is that of the ratio
    logs, weight = np.log(theirs[counts] / ours[counts]), weight[counts]
    order = np.argsort(logs)
    ranks = np.cumsum(weight[order])
    low, middle, high = logs[order[np.searchsorted(ranks, ranks[-1] * np.array([0.25, 0.5, 0.75]))]]
    return float(np.exp(0.5 * middle)), float(0.5 * (high - low) / _IQR)


@lru_cache(maxsize=8)
def _partners(count: int) -> np.ndarray:
    """[_PARTNERS, N] index of the points that each of N is compared with."""
    steps = np.unique((_STEP * count * np.arange(1, _PARTNERS + 1)).round().astype(int) % max(1, count))
    return np.asarray((np.arange(count) + steps[:, None]) % max(1, count))
