"""Placing one point set on another: robust weighted Umeyama, rigid or Sim(3).

All of it is float64 numpy on the CPU: a window has some thousand points, and one copy from the
device costs less than dozens of small kernels. A Sim(3) is a 4x4 matrix ``[s R, t; 0, 1]``, so
composition is ``a @ b``. Impossible requests are answered with a sentence, not with an exception.

Source: Umeyama (PAMI 1991) for the closed form, with the symmetric scale of Horn (JOSA A 1987),
which noise in the source does not shrink; D4RT section 3 for its use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d4rt_ros.tasks.consensus import Array, Fit, plain_fit, robust_fit

UNKNOWN_VARIANCE = 1e6
"""Variance (any unit) given to what could not be determined: large, but finite for consumers."""

_MIN_POINTS = 3
_LINE_RATIO = 1e-3  # second over first standard deviation of a point set: below this it is a line
_POINT_RATIO = 1e-6  # extent over distance from the origin: near float32's precision it is a point
_MAX_ROTATION_SD = 0.5  # rad; a rotation known no better than this is not known
_MAX_RESIDUAL = 0.5  # deviation over the extent of the points that agree; above it they do not agree


@dataclass(frozen=True)
class Alignment:
    """``target = scale * rotation @ source + translation``, with what is known of its error.

    Attributes:
        ok: False when the points do not determine the transform; then the matrix is the identity
            and every variance is UNKNOWN_VARIANCE.
        reason: why not, as a sentence; empty when ok.
        matrix: [4, 4] ``[s R, t; 0, 1]``.
        covariance: [6, 6] of (x, y, z, rx, ry, rz): translation in target units, then a rotation
            vector in rad about the target's axes, applied on the left (as geometry_msgs has it).
        scale_variance: variance of ``scale``; 0 for a rigid fit.
        residual: robust standard deviation per axis, target units, of a point of mean weight.
        inlier_share: share of the usable points within 4 standard deviations.
        weights: [N] final weights, 0..1: given weights over their maximum, times the robust weight.
    """

    ok: bool
    reason: str
    matrix: Array
    covariance: Array
    scale_variance: float
    residual: float
    inlier_share: float
    weights: Array

    @property
    def scale(self) -> float:
        """Scale of target over source."""
        return sim3_parts(self.matrix)[0]

    @property
    def rotation(self) -> Array:
        """[3, 3] rotation."""
        return sim3_parts(self.matrix)[1]

    @property
    def translation(self) -> Array:
        """[3] translation in target units."""
        return np.array(self.matrix[:3, 3])


def sim3_matrix(scale: float, rotation: ArrayLike, translation: ArrayLike) -> Array:
    """[4, 4] matrix ``[s R, t; 0, 1]``."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.asarray(rotation, dtype=np.float64)
    matrix[:3, 3] = translation
    return matrix


def sim3_parts(matrix: ArrayLike) -> tuple[float, Array, Array]:
    """Scale, rotation [3, 3] and translation [3] of a [4, 4] similarity."""
    m = np.asarray(matrix, dtype=np.float64)
    scale = float(np.cbrt(np.linalg.det(m[:3, :3])))
    return scale, m[:3, :3] / scale, np.array(m[:3, 3])


def invert(matrix: ArrayLike) -> Array:
    """Inverse of SE(3) or Sim(3) matrices [..., 4, 4], in closed form."""
    m = np.asarray(matrix, dtype=np.float64)
    squared_scale = np.cbrt(np.linalg.det(m[..., :3, :3])) ** 2
    block = np.swapaxes(m[..., :3, :3], -1, -2) / squared_scale[..., None, None]
    out = np.zeros_like(m)
    out[..., :3, :3] = block
    out[..., :3, 3] = -np.einsum("...ij,...j->...i", block, m[..., :3, 3])
    out[..., 3, 3] = 1.0
    return out


def transform_points(matrix: ArrayLike, points: ArrayLike) -> Array:
    """Points [..., N, 3] moved by matrices [..., 4, 4] of matching leading shape."""
    m = np.asarray(matrix, dtype=np.float64)
    p = np.asarray(points, dtype=np.float64)
    moved: Array = p @ np.swapaxes(m[..., :3, :3], -1, -2) + m[..., None, :3, 3]
    return moved


def transform_poses(similarity: ArrayLike, poses: ArrayLike) -> Array:
    """Rigid poses [..., 4, 4] moved by one Sim(3): positions scale, rotations stay rotations."""
    sim = np.asarray(similarity, dtype=np.float64)
    moved: Array = sim @ np.asarray(poses, dtype=np.float64)
    moved[..., :3, :3] /= np.cbrt(np.linalg.det(sim[:3, :3]))
    return moved


def transform_covariance(similarity: ArrayLike, covariance: ArrayLike) -> Array:
    """Pose covariances [..., 6, 6] seen after ``transform_poses`` by one Sim(3)."""
    scale, rotation, _ = sim3_parts(similarity)
    turn = np.zeros((6, 6))
    turn[:3, :3] = scale * rotation
    turn[3:, 3:] = rotation
    return np.asarray(turn @ np.asarray(covariance, dtype=np.float64) @ turn.T)


def carried_covariance(covariance: Array, arms: Array) -> Array:
    """A pose's covariance [6, 6] seen at arms [N, 3] from it, [N, 6, 6]: its rotation moves what is far."""
    lever = np.tile(np.eye(6), (len(arms), 1, 1))
    x, y, z = arms.T
    lever[:, 0, 4], lever[:, 0, 5] = z, -y
    lever[:, 1, 3], lever[:, 1, 5] = -z, x
    lever[:, 2, 3], lever[:, 2, 4] = y, -x
    return np.asarray(lever @ covariance @ np.swapaxes(lever, 1, 2))


def rotation_angle(rotation: ArrayLike) -> Array:
    """Angle in rad, 0..pi, of rotations [..., 3, 3]; exact to float64 for small angles too."""
    r = np.asarray(rotation, dtype=np.float64)
    trace = np.trace(r, axis1=-2, axis2=-1)
    axis = np.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1
    )
    angle: Array = np.arctan2(np.linalg.norm(axis, axis=-1), trace - 1.0)
    return angle


def align(
    source: ArrayLike,
    target: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    with_scale: bool = False,
    robust: bool = True,
) -> Alignment:
    """Find the transform that carries ``source`` onto ``target``.

    Args:
        source: [N, 3] points.
        target: [N, 3] the same points in the other frame.
        weights: [N] >= 0, proportional to each point's inverse variance (a confidence will do);
            0 leaves a point out, and so does any non-finite number. All equal by default.
        with_scale: Sim(3) instead of a rigid transform.
        robust: down-weight points that disagree; holds up to 40% gross outliers and often more
            (``consensus.robust_fit``).

    Returns:
        An Alignment; look at ``ok`` first.

    Raises:
        ValueError: shapes do not match.
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if source.ndim != 2 or source.shape != target.shape or source.shape[-1] != 3:
        raise ValueError(f"source and target must both be [N, 3], got {source.shape} and {target.shape}")
    batch = None if weights is None else np.asarray(weights, dtype=np.float64)[None]
    return align_many(source[None], target[None], batch, with_scale=with_scale, robust=robust)[0]


def align_many(
    source: ArrayLike,
    target: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    with_scale: bool = False,
    robust: bool = True,
) -> list[Alignment]:
    """``align`` for B independent pairs of point sets at once.

    Args:
        source: [B, N, 3], or anything that broadcasts with ``target`` to it.
        target: [B, N, 3].
        weights: [B, N] or None.
        with_scale: as in ``align``.
        robust: as in ``align``.

    Returns:
        B Alignments.

    Raises:
        ValueError: shapes do not match.
    """
    src, tgt = np.broadcast_arrays(np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64))
    if src.ndim != 3 or src.shape[-1] != 3:
        raise ValueError(f"source and target must both be [B, N, 3], got {src.shape}")
    given = np.ones(src.shape[:2]) if weights is None else np.asarray(weights, dtype=np.float64)
    given = np.broadcast_to(given, src.shape[:2])
    finite = np.isfinite(src).all(-1) & np.isfinite(tgt).all(-1) & np.isfinite(given)
    prior = np.where(finite, np.maximum(np.where(finite, given, 0.0), 0.0), 0.0)
    peak = prior.max(-1, initial=0.0)
    prior = prior / np.where(peak > 0.0, peak, 1.0)[:, None]
    src = np.where(finite[..., None], src, 0.0)
    tgt = np.where(finite[..., None], tgt, 0.0)

    reasons = _degenerate(src, tgt, prior, finite)
    good = np.array([not reason for reason in reasons], dtype=bool)
    results = [refusal(reason, prior.shape[1]) for reason in reasons]
    if good.any():
        part = src[good], tgt[good], prior[good]
        described = _describe((robust_fit if robust else plain_fit)(*part, with_scale), *part, with_scale)
        for index, found in zip(np.flatnonzero(good), described, strict=True):
            results[index] = found
    return results


def _degenerate(source: Array, target: Array, weights: Array, finite: NDArray[np.bool_]) -> list[str]:
    """Why the points of each set cannot fix a transform, or an empty string."""
    count, usable, sound = weights.shape[1], (weights > 0.0).sum(-1), finite.sum(-1)
    total = weights.sum(-1, keepdims=True)
    share = (weights / np.where(total > 0.0, total, 1.0))[:, None]
    point, line = _shape(np.concatenate([share, share]), np.concatenate([source, target]))
    sets = len(weights)
    reasons = []
    for b, n in enumerate(usable.tolist()):
        reason = ""
        if sound[b] < _MIN_POINTS <= count:
            reason = f"only {sound[b]} of {count} points are finite, at least {_MIN_POINTS} are needed"
        elif count and n == 0:
            reason = f"the weights of all {count} points are zero"
        elif n < _MIN_POINTS:
            reason = f"only {n} of {count} points are usable, at least {_MIN_POINTS} are needed"
        for name, at in (("source", b), ("target", b + sets)):
            if not reason and point[at]:
                reason = f"the {name} points that count coincide ({n} of {count})"
            elif not reason and line[at]:
                reason = f"the {name} points that count lie on a line ({n} of {count})"
        reasons.append(reason)
    return reasons


def _shape(share: Array, points: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the sets are as good as a point, and which as good as a line."""
    mean = share @ points
    centred = points - mean
    _, second, first = np.linalg.eigvalsh((np.swapaxes(centred, 1, 2) * share) @ centred).T
    return first <= _POINT_RATIO**2 * (mean**2).sum((1, 2)), second <= _LINE_RATIO**2 * first


def refusal(reason: str, count: int) -> Alignment:
    """Of `count` points, for a reason in a sentence."""
    unknown = UNKNOWN_VARIANCE
    return Alignment(False, reason, np.eye(4), unknown * np.eye(6), unknown, 0.0, 0.0, np.zeros(count))


def _describe(fit: Fit, source: Array, target: Array, prior: Array, with_scale: bool) -> list[Alignment]:
    """Covariances by the sandwich rule, and the checks that only the finished fit allows."""
    model = fit.scale[:, None, None] * (source @ np.swapaxes(fit.rotation, 1, 2))
    error = target - model - fit.translation[:, None]
    weights = prior * fit.kernel
    usable = prior > 0.0
    count = prior.shape[1]
    total = weights.sum(-1)
    effective = total**2 / (weights**2).sum(-1)
    lost = _degenerate(model, model + error, weights, usable)
    full = _covariances(model, error, weights, fit.ratio, 7 if with_scale else 6)
    turn = np.sqrt(np.trace(full[:, 3:6, 3:6], axis1=1, axis2=2))
    residual = fit.deviation / np.sqrt(prior.sum(-1) / usable.sum(-1))
    share = (weights / total[:, None])[:, None]
    extent = np.sqrt((share @ (target - share @ target) ** 2).sum((1, 2)) / 3.0)
    inliers = ((fit.ratio <= 1.0) & usable).sum(-1) / usable.sum(-1)
    results = []
    for b, reason in enumerate(lost):
        if effective[b] < _MIN_POINTS - 0.5:
            reason = f"only about {effective[b]:.1f} points agree, {_MIN_POINTS} are needed"
        elif reason:
            reason = f"after leaving out what disagrees, {reason}"
        elif turn[b] > _MAX_ROTATION_SD:
            reason = "the points leave the rotation undetermined"
        elif residual[b] > _MAX_RESIDUAL * extent[b]:
            reason = "the two point sets do not agree"
        found = Alignment(
            ok=True,
            reason="",
            matrix=sim3_matrix(fit.scale[b], fit.rotation[b], fit.translation[b]),
            covariance=full[b, :6, :6],
            scale_variance=float(full[b, 6, 6] * fit.scale[b] ** 2) if with_scale else 0.0,
            residual=float(residual[b]),
            inlier_share=float(inliers[b]),
            weights=weights[b],
        )
        results.append(refusal(reason, count) if reason else found)
    return results


def _covariances(model: Array, error: Array, weights: Array, ratio: Array, freedom: int) -> Array:
    """[B, freedom, freedom] of (translation, rotation vector, log scale)."""
    sets, count = weights.shape
    x, y, z = np.moveaxis(model, 2, 0)
    jacobian = np.zeros((sets, 7, 3, count))  # d error / d parameters
    jacobian[:, (0, 1, 2), (0, 1, 2)] = 1.0
    jacobian[:, 3, 1], jacobian[:, 3, 2] = -z, y
    jacobian[:, 4, 0], jacobian[:, 4, 2] = z, -x
    jacobian[:, 5, 0], jacobian[:, 5, 1] = -y, x
    jacobian[:, 6] = np.swapaxes(model, 1, 2)
    jacobian = jacobian[:, :freedom]
    flat = jacobian.reshape(sets, freedom, 3 * count)
    weighted = (jacobian * weights[:, None, None]).reshape(flat.shape)
    inverse = np.linalg.pinv(weighted @ np.swapaxes(flat, 1, 2), hermitian=True)
    # A point that steers the fit hides its own error: divide by 1 - leverage (HC3).
    leverage = ((inverse @ weighted) * flat).reshape(jacobian.shape).sum((1, 2)) / 3.0
    trust = weights / np.maximum(1.0 - leverage, 0.1)
    score = (jacobian * (np.swapaxes(error, 1, 2) * trust[:, None])[:, None]).sum(2)
    # The kernel bends the residuals, so the true curvature is smaller than the weights say
    # (mean of d(w(r) r)/dr over w for a 3-D residual).
    bend = (weights * (1.0 - 4.0 * ratio / (3.0 * (1.0 + ratio)))).sum(-1) / weights.sum(-1)
    spread = inverse @ (score @ np.swapaxes(score, 1, 2)) @ inverse
    return np.asarray(spread / np.maximum(bend, 0.1)[:, None, None] ** 2)
