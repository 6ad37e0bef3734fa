"""Which points to believe: least squares, and re-weighting until the points that disagree count for nothing.

Everything works on B point sets at once: source, target [B, N, 3] and prior weights [B, N], float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

KERNEL_WIDTH = 4.0
"""Standard deviations at which a residual's weight has fallen to a quarter, and an inlier ends."""

_QUANTILE = 0.3  # of the residuals, gives the scale: holds while so much of the weight is right
_CHI3_QUANTILE = 1.1932  # the same quantile of a 3-D normal vector's length
_RANKED = 5  # with fewer points than this below the quantile, this many give the scale
_L1_STEPS = 10
_KERNEL_STEPS = 20
_DOUBT = 0.75  # inlier share below which fits to triples are tried as other starts,
_COARSE = 0.15  # as they are where the deviation is more of the points' extent than this
_TRIPLES = 96


@dataclass(frozen=True)
class Fit:
    """Transforms of B sets: target = scale * rotation @ source + translation.

    Attributes:
        scale: [B].
        rotation: [B, 3, 3], determinant +1.
        translation: [B, 3].
        kernel: [B, N] robust weights 0..1, to be multiplied by the prior.
        ratio: [B, N] squared residual over the squared kernel width.
        deviation: [B] standard deviation per axis of a point of prior 1.
    """

    scale: Array
    rotation: Array
    translation: Array
    kernel: Array
    ratio: Array
    deviation: Array


def umeyama(source: Array, target: Array, weights: Array, with_scale: bool) -> tuple[Array, Array, Array]:
    """Weighted least squares in closed form (Umeyama 1991), with Horn's symmetric scale.

    Args:
        source: [B, N, 3].
        target: [B, N, 3].
        weights: [B, N] >= 0, each row with a positive sum.
        with_scale: estimate the scale; else it is 1.

    Returns:
        scale [B], rotation [B, 3, 3] with determinant +1, translation [B, 3].
    """
    share = (weights / weights.sum(-1, keepdims=True))[..., None]
    mean_s = (share * source).sum(1)
    mean_t = (share * target).sum(1)
    centred_s = source - mean_s[:, None]
    centred_t = target - mean_t[:, None]
    u, _, vt = np.linalg.svd(np.swapaxes(share * centred_t, 1, 2) @ centred_s)
    fix = np.ones((len(u), 1, 3))
    fix[:, 0, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))  # a reflection is not a rotation
    rotation = (u * fix) @ vt
    scale = np.ones(len(u))
    if with_scale:
        extent_s = np.maximum((share * centred_s**2).sum((1, 2)), np.finfo(np.float64).tiny)
        scale = np.sqrt((share * centred_t**2).sum((1, 2)) / extent_s)
    translation = mean_t - scale[:, None] * np.einsum("bij,bj->bi", rotation, mean_s)
    return scale, rotation, translation


def plain_fit(source: Array, target: Array, prior: Array, with_scale: bool) -> Fit:
    """Least squares; every point is believed as its prior says."""
    solved = umeyama(source, target, prior, with_scale)
    deviation = _deviation(_lengths(source, target, prior, *solved), prior, _floor(target, prior))
    return Fit(*solved, np.ones_like(prior), np.zeros_like(prior), deviation)


def robust_fit(source: Array, target: Array, prior: Array, with_scale: bool) -> Fit:
    """Geman-McClure on residuals over their scale, from an L1 fit, or from a triple of points if that fails.

    An L1 fit has one optimum to speak of and bears up to some 45% of wrong points; only where it leaves few
    points in agreement are triples worth their time.
    """
    floor = _floor(target, prior)
    kernel = np.ones_like(prior)
    for _ in range(_L1_STEPS):
        length = _lengths(source, target, prior, *umeyama(source, target, prior * kernel, with_scale))
        deviation = _deviation(length, prior, floor)[:, None]
        kernel = deviation / np.maximum(length, 0.1 * deviation)
    fit = _refined(source, target, prior, kernel, with_scale, floor)
    coarse = fit.deviation > _COARSE * _extent(target, prior)
    doubtful = np.flatnonzero(coarse | (_inlier_share(fit, prior) < _DOUBT))
    if not len(doubtful):
        return fit
    part = (source[doubtful], target[doubtful], prior[doubtful])
    length = _best_triple(*part, with_scale)
    deviation = _deviation(length, part[2], floor[doubtful])
    better = deviation < fit.deviation[doubtful]
    if not better.any():
        return fit
    doubtful, part = doubtful[better], (part[0][better], part[1][better], part[2][better])
    kernel = _kernel(length[better], deviation[better])[0]
    other = _refined(*part, kernel, with_scale, floor[doubtful])
    for name in Fit.__dataclass_fields__:
        getattr(fit, name)[doubtful] = getattr(other, name)
    return fit


def _refined(
    source: Array, target: Array, prior: Array, kernel: Array, with_scale: bool, floor: Array
) -> Fit:
    """Re-weight from a start until nothing changes."""
    for _ in range(_KERNEL_STEPS):
        solved = umeyama(source, target, prior * kernel, with_scale)
        length = _lengths(source, target, prior, *solved)
        deviation = _deviation(length, prior, floor)
        before, (kernel, ratio) = kernel, _kernel(length, deviation)
        if np.abs(kernel - before).max() < 1e-6:
            break
    return Fit(*solved, kernel, ratio, deviation)


def _kernel(length: Array, deviation: Array) -> tuple[Array, Array]:
    ratio = (length / (KERNEL_WIDTH * deviation[:, None])) ** 2
    return (1.0 + ratio) ** -2, ratio


def _best_triple(source: Array, target: Array, prior: Array, with_scale: bool) -> Array:
    """Lengths of the residuals [B, N] under the best of some transforms fitted to three points each."""
    sets, count, _ = source.shape
    draw = -np.log(np.random.default_rng(0).random((_TRIPLES, count)))
    best = np.full_like(prior, np.inf)
    for b in range(sets):
        usable = np.flatnonzero(prior[b] > 0.0)
        # three without replacement, in proportion to the prior (Efraimidis and Spirakis)
        triple = usable[np.argsort(draw[:, usable] / prior[b, usable], axis=1)[:, :3]]
        solved = umeyama(source[b][triple], target[b][triple], np.ones((_TRIPLES, 3)), with_scale)
        shape = (_TRIPLES, count)
        length = _lengths(source[b], target[b], np.broadcast_to(prior[b], shape), *solved)
        score = _deviation(length, np.broadcast_to(prior[b], shape), np.zeros(_TRIPLES))
        best[b] = length[score.argmin()]
    return best


def _lengths(
    source: Array, target: Array, prior: Array, scale: Array, rotation: Array, shift: Array
) -> Array:
    """[B, N] lengths of the residuals in units of their prior deviation."""
    moved = scale[:, None, None] * (source @ np.swapaxes(rotation, 1, 2)) + shift[:, None]
    return np.linalg.norm(target - moved, axis=-1) * np.sqrt(prior)


def _deviation(length: Array, prior: Array, floor: Array) -> Array:
    """[B] standard deviation per axis, from a low quantile of each row's residuals, weighted by the prior."""
    order = np.argsort(np.where(prior > 0.0, length, np.inf), axis=-1)
    believed = np.cumsum(np.take_along_axis(prior, order, axis=-1), axis=-1)
    place = (believed < _QUANTILE * believed[:, -1:]).sum(-1)
    place = np.minimum(np.maximum(place, _RANKED - 1), (prior > 0.0).sum(-1) - 1)
    chosen = np.take_along_axis(length, np.take_along_axis(order, place[:, None], axis=-1), axis=-1)[:, 0]
    return np.maximum(chosen / _CHI3_QUANTILE, floor)


def _floor(target: Array, prior: Array) -> Array:
    """[B] a deviation that keeps exact data from dividing by zero."""
    return 1e-12 * _extent(target, prior) + np.finfo(np.float64).tiny


def _extent(target: Array, prior: Array) -> Array:
    """[B] standard deviation per axis of the points themselves, as the prior weighs them."""
    share = prior / prior.sum(-1, keepdims=True)
    centred = target - np.einsum("bn,bnc->bc", share, target)[:, None]
    return np.asarray(np.sqrt(np.einsum("bn,bnc->b", share, centred**2) / 3.0))


def _inlier_share(fit: Fit, prior: Array) -> Array:
    usable = prior > 0.0
    return ((fit.ratio <= 1.0) & usable).sum(-1) / np.maximum(usable.sum(-1), 1)
