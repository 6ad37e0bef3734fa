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

QUANTILE = 0.3  # of the residuals, gives the scale: holds while so much of the weight is right
_CHI3_QUANTILE = 1.1932  # the same quantile of a 3-D normal vector's length
_RANKED = 5  # with fewer points than this below the quantile, this many give the scale
_L1_STEPS = 10
_SETTLED = 0.05  # an L1 step that lowers no deviation by more than this share was the last
_KERNEL_STEPS = 20
_STEADY = 1e-3  # change of the weights at which the kernel has settled
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
    share = (weights / weights.sum(-1, keepdims=True))[:, None]
    mean_s, mean_t = share @ source, share @ target
    centred_s, centred_t = source - mean_s, target - mean_t
    weighted_t = np.swapaxes(centred_t, 1, 2) * share
    u, _, vt = np.linalg.svd(weighted_t @ centred_s)
    rotation = u @ vt
    mirrored = np.linalg.det(rotation) < 0.0  # a reflection is not a rotation
    if mirrored.any():
        rotation = np.where(mirrored[:, None, None], rotation - 2.0 * u[:, :, 2:] @ vt[:, 2:], rotation)
    scale = np.ones(len(u))
    if with_scale:
        extent_s = np.maximum((share @ centred_s**2).sum((1, 2)), np.finfo(np.float64).tiny)
        scale = np.sqrt((share @ centred_t**2).sum((1, 2)) / extent_s)
    translation = mean_t - scale[:, None, None] * (mean_s @ np.swapaxes(rotation, 1, 2))
    return scale, rotation, translation[:, 0]


def plain_fit(source: Array, target: Array, prior: Array, with_scale: bool) -> Fit:
    """Least squares; every point is believed as its prior says."""
    sets = _Sets.of(source, target, prior, with_scale)
    solved = sets.solved(np.ones_like(prior))
    deviation = sets.deviation(sets.lengths(*solved))
    return Fit(*solved, np.ones_like(prior), np.zeros_like(prior), deviation)


def robust_fit(source: Array, target: Array, prior: Array, with_scale: bool) -> Fit:
    """Geman-McClure on residuals over their scale, from an L1 fit, or from a triple of points if that fails.

    An L1 fit has one optimum to speak of and bears up to some 45% of wrong points; only where it leaves few
    points in agreement are triples worth their time.
    """
    sets = _Sets.of(source, target, prior, with_scale)
    kernel, before = np.ones_like(prior), np.full(len(prior), np.inf)
    for _ in range(_L1_STEPS):
        length = sets.lengths(*sets.solved(kernel))
        deviation = sets.deviation(length)
        kernel = deviation[:, None] / np.maximum(length, 0.1 * deviation[:, None])
        if (deviation >= (1.0 - _SETTLED) * before).all():
            break
        before = deviation
    fit = _refined(sets, kernel)
    coarse = fit.deviation > _COARSE * sets.extent
    doubtful = np.flatnonzero(coarse | (_inlier_share(fit, prior) < _DOUBT))
    if not len(doubtful):
        return fit
    part = sets.take(doubtful)
    length = _best_triple(part)
    deviation = part.deviation(length)
    better = deviation < fit.deviation[doubtful]
    if not better.any():
        return fit
    other = _refined(part.take(better), geman_mcclure(length[better], deviation[better])[0])
    for name in Fit.__dataclass_fields__:
        getattr(fit, name)[doubtful[better]] = getattr(other, name)
    return fit


@dataclass(frozen=True)
class _Sets:
    """B pairs of point sets, and what every step of a fit needs to know of them."""

    source: Array
    target: Array
    prior: Array
    with_scale: bool
    root: Array  # [B, N] of the prior
    goal: Array  # [B, 1] prior below the quantile that gives the scale
    least: Array  # [B] least rank of that quantile, of all N
    extent: Array  # [B] standard deviation per axis of the target's points, as the prior weighs them

    @staticmethod
    def of(source: Array, target: Array, prior: Array, with_scale: bool) -> _Sets:
        total = prior.sum(-1, keepdims=True)
        share = (prior / total)[:, None]
        extent = np.sqrt((share @ (target - share @ target) ** 2).sum((1, 2)) / 3.0)
        unused = (prior <= 0.0).sum(-1)
        least = np.minimum(unused + _RANKED, prior.shape[1]) - 1
        return _Sets(source, target, prior, with_scale, np.sqrt(prior), QUANTILE * total, least, extent)

    def take(self, which: NDArray[np.generic]) -> _Sets:
        """Some of the pairs."""
        return _Sets.of(self.source[which], self.target[which], self.prior[which], self.with_scale)

    def solved(self, kernel: Array) -> tuple[Array, Array, Array]:
        """Least squares with robust weights [B, N]."""
        return umeyama(self.source, self.target, self.prior * kernel, self.with_scale)

    def lengths(self, scale: Array, rotation: Array, shift: Array) -> Array:
        """[B, N] lengths of the residuals in units of their prior deviation."""
        turn = scale[:, None, None] * np.swapaxes(rotation, 1, 2)
        error = self.target - self.source @ turn - shift[:, None]
        return np.asarray(np.sqrt(np.einsum("bnc,bnc->bn", error, error)) * self.root)

    def deviation(self, length: Array) -> Array:
        """[B] standard deviation per axis, from a low quantile of the residuals, weighted by the prior.

        At least what keeps exact data from dividing by zero.
        """
        # Points of prior 0 have length 0: they come first and add nothing to what is believed.
        chosen = ranked(length, self.prior, self.goal, self.least)
        return np.maximum(chosen / _CHI3_QUANTILE, 1e-12 * self.extent + np.finfo(np.float64).tiny)


def _refined(sets: _Sets, kernel: Array) -> Fit:
    """Re-weight from a start until nothing changes."""
    for _ in range(_KERNEL_STEPS):
        solved = sets.solved(kernel)
        length = sets.lengths(*solved)
        deviation = sets.deviation(length)
        before, (kernel, ratio) = kernel, geman_mcclure(length, deviation)
        if np.abs(kernel - before).max() < _STEADY:
            break
    return Fit(*solved, kernel, ratio, deviation)


def ranked(length: Array, prior: Array, goal: Array, least: Array | int = 0) -> Array:
    """The residual [B] of [B, N] at which priors add up to `goal` [B, 1], or that of rank `least`."""
    rows = np.arange(len(length))
    order = np.argsort(length, axis=-1)
    believed = np.cumsum(prior[rows[:, None], order], axis=-1)
    place = np.minimum((believed < goal).sum(-1), length.shape[1] - 1)
    return np.asarray(length[rows, order[rows, np.maximum(place, least)]])


def geman_mcclure(length: Array, deviation: Array) -> tuple[Array, Array]:
    """Robust weights of residuals [B, N] of deviations [B], and their squares over the squared width."""
    ratio = (length / (KERNEL_WIDTH * deviation[:, None])) ** 2
    return (1.0 + ratio) ** -2, ratio


def _best_triple(sets: _Sets) -> Array:
    """Lengths of the residuals [B, N] under the best of some transforms fitted to three points each."""
    draw = -np.log(np.random.default_rng(0).random((_TRIPLES, sets.prior.shape[1])))
    best = np.full_like(sets.prior, np.inf)
    for b, prior in enumerate(sets.prior):
        usable = np.flatnonzero(prior > 0.0)
        # three without replacement, in proportion to the prior (Efraimidis and Spirakis)
        triple = usable[np.argpartition(draw[:, usable] / prior[usable], 2, axis=1)[:, :3]]
        solved = umeyama(
            sets.source[b][triple], sets.target[b][triple], np.ones((_TRIPLES, 3)), sets.with_scale
        )
        tried = sets.take(np.full(_TRIPLES, b))
        length = tried.lengths(*solved)
        best[b] = length[tried.deviation(length).argmin()]
    return best


def _inlier_share(fit: Fit, prior: Array) -> Array:
    usable = prior > 0.0
    return ((fit.ratio <= 1.0) & usable).sum(-1) / np.maximum(usable.sum(-1), 1)
