"""Poses by reprojection, for scenes whose tracks are truer than their points.

A small network follows points well across the image and tells their depth badly, and alike in both cameras:
two point sets then agree along the lines of sight, and turn the camera to make up for what they do not agree
on across them. Here the points of one camera are moved until they are seen where the tracks lead.
"""

from __future__ import annotations

import numpy as np

from d4rt_ros.tasks.consensus import QUANTILE, Array, geman_mcclure, ranked
from d4rt_ros.tasks.geometry import rotation_angle

_STEPS = 8
_QUANTILE_LENGTH = 0.8446  # of a 2-D normal vector, at the quantile of the residuals that gives their scale
_CONTRADICTION = 5.0  # deviations of the aligned rotation by which tracks must say otherwise
_TRUER = 1.5  # times that tracks must fit better
_FINE = 2e-3  # rad; points that agree so well need no help
_WAY = 1.0  # mean depths that the camera is expected to go, where a turn would explain the tracks as well
_IN_FRONT = 1e-3  # of the mean depth; nearer points, or behind the camera, say nothing


def refine_poses(
    poses: Array, deviation: Array, own: Array, other: Array, uv: Array, tracks: Array, weights: Array
) -> Array:
    """Gauss-Newton on where points are seen, if the tracks contradict aligned points and fit better.

    A contradiction is many times the alignment's own deviation: then points err alike in both cameras, which
    an alignment cannot know.

    Args:
        poses: [B, 4, 4] rigid, own = pose(other), of aligned points.
        deviation: [B] of their rotation, rad.
        own: [N, 3] points in the camera that the poses lead to.
        other: [B, N, 3] the same points in the other cameras, z along the optical axis.
        uv: [N, 2] 0..1, where `own` is seen.
        tracks: [B, N, 2] where the same points are seen in the other cameras.
        weights: [B, N] >= 0, proportional to inverse variances of the tracks; 0 where out of sight.

    Returns:
        [B, 4, 4]; as given where tracks do not contradict it, or no finite pose comes out.
    """
    # All in mean depths; points lie on their pixels' rays, which is where the network is sure of them.
    size = max(float(np.abs(own[:, 2]).mean()), np.finfo(np.float64).tiny)
    slope, offset = _lens(own, uv)
    depth = own[:, 2] / size
    points = np.concatenate((uv * slope + offset, np.ones((len(uv), 1))), 1) * depth[:, None]
    goals = tracks * slope + offset
    believed = weights * (depth > _IN_FRONT)
    rotation = np.swapaxes(poses[:, :3, :3], 1, 2).copy()  # from here on: other = rotation(own) + shift
    shift = -(rotation @ (poses[:, :3, 3:] / size))[..., 0]
    answered = other[..., :2] / np.where(other[..., 2:] > 0, other[..., 2:], np.nan)
    apart = _length(_seen(rotation, shift, own / size)[..., :2] - answered)
    aligned = _scale(np.nan_to_num(apart, nan=np.inf), believed)
    for _ in range(_STEPS):
        step = _step(_seen(rotation, shift, points), goals, believed, shift)
        if step is None:
            return poses
        turn = _rotation(step[:, 3:])
        rotation, shift = turn @ rotation, (turn @ shift[..., None])[..., 0] + step[:, :3]
    tracked = _scale(_length(_seen(rotation, shift, points)[..., :2] - goals), believed)
    found = poses.copy()
    found[:, :3, :3] = np.swapaxes(rotation, 1, 2)
    found[:, :3, 3:] = -(found[:, :3, :3] @ shift[..., None]) * size
    if not np.isfinite(found).all() or not believed.any(-1).all():
        return poses
    # One way or the other for all cameras: a path that changes between them has a step in it.
    turned = rotation_angle(found[:, :3, :3] @ np.swapaxes(poses[:, :3, :3], 1, 2))
    contradicted = bool(np.median(turned - _CONTRADICTION * deviation) > 0.0)
    truer = np.median(aligned) > max(_FINE, _TRUER * float(np.median(tracked)))
    return found if contradicted and truer else poses


def _step(seen: Array, goals: Array, believed: Array, shift: Array) -> Array | None:
    """Gauss-Newton step [B, 6] (shift, then turn in rad) that leads points to their goals.

    Args:
        seen: [B, N, 3] of `_seen`.
        goals: [B, N, 2] directions in which they should be seen.
        believed: [B, N] weights.
        shift: [B, 3] of the cameras now, mean depths.

    Returns:
        None where the equations are not finite.
    """
    x, y, z = np.moveaxis(seen, -1, 0)
    error = seen[..., :2] - goals
    length = _length(error)
    scale = _scale(length, believed)
    kernel = believed * geman_mcclure(length, scale)[0]
    zero, one = np.zeros_like(z), 1.0 / z
    rows = np.stack(  # derivatives of x and y: a turn is one about the camera, after the shift
        (
            np.stack((one, zero, -x / z, -x * y, 1 + x * x, -y), -1),
            np.stack((zero, one, -y / z, -1 - y * y, x * y, x), -1),
        ),
        -2,
    )
    weighted = rows * kernel[..., None, None]
    normal = np.einsum("bnki,bnkj->bij", weighted, rows)
    gradient = np.einsum("bnki,bnk->bi", weighted, error)
    still = (scale / _WAY) ** 2 * kernel.sum(-1)  # a camera that stays is likelier than one that goes far
    normal[:, (0, 1, 2), (0, 1, 2)] += still[:, None]
    gradient[:, :3] += still[:, None] * shift
    if not np.isfinite(normal).all():
        return None
    return np.asarray(-(np.linalg.pinv(normal, hermitian=True) @ gradient[..., None])[..., 0])


def _lens(own: Array, uv: Array) -> tuple[Array, Array]:
    """Slope and offset [2] of x / z and y / z over u and v: an L1 line, like the paper's focal length."""
    rays = own[:, :2] / np.where(own[:, 2:] > 0, own[:, 2:], np.nan)
    slopes, offsets = np.empty(2), np.empty(2)
    for axis, (ray, place) in enumerate(zip(rays.T, uv.T)):
        finite = np.isfinite(ray)
        place, ray = place[finite], ray[finite]
        line, weight = np.stack((place, np.ones_like(place)), -1), np.ones_like(place)
        for _ in range(_STEPS):
            root = np.sqrt(weight)
            slopes[axis], offsets[axis] = np.linalg.lstsq(line * root[:, None], ray * root, rcond=None)[0]
            weight = 1.0 / np.maximum(np.abs(ray - line @ (slopes[axis], offsets[axis])), 1e-3)
    return slopes, offsets


def _seen(rotation: Array, shift: Array, points: Array) -> Array:
    """Points [N, 3] in the other cameras, [B, N, 3]: x / z and y / z, where they are seen, and z, above 0."""
    moved = points @ np.swapaxes(rotation, 1, 2) + shift[:, None]
    z = np.maximum(moved[..., 2:], _IN_FRONT)
    return np.concatenate((moved[..., :2] / z, z), -1)


def _length(error: Array) -> Array:
    """[..., 2] to [...]."""
    return np.asarray(np.hypot(error[..., 0], error[..., 1]))


def _scale(length: Array, prior: Array) -> Array:
    """Deviations per axis [B], from a low weighted quantile of lengths [B, N]."""
    chosen = ranked(length, prior, QUANTILE * prior.sum(-1, keepdims=True))
    return np.maximum(chosen / _QUANTILE_LENGTH, 1e-9)


def _rotation(vector: Array) -> Array:
    """Rotations [B, 3, 3] by vectors [B, 3] in rad (Rodrigues)."""
    cross = np.zeros((*vector.shape, 3))
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -vector[..., 2], vector[..., 1], -vector[..., 0]
    cross = cross - np.swapaxes(cross, -1, -2)
    angle = np.linalg.norm(vector, axis=-1)[:, None, None]
    return (
        np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross
    )
