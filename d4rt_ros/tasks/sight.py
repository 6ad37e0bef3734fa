"""Poses by reprojection, for scenes whose tracks are truer than their points.

A small network follows points well across the image and tells their depth badly, and alike in both cameras:
two point sets then agree along the lines of sight, and turn the camera to make up for what they do not agree
on across them. Here the points of one camera are moved until they are seen where the tracks lead.
"""

from __future__ import annotations

import numpy as np

from d4rt_ros.tasks.consensus import KERNEL_WIDTH, Array
from d4rt_ros.tasks.geometry import rotation_angle

_STEPS = 8
_QUANTILE = 0.3  # of the residuals, gives their scale: holds while so much of the weight is right
_LENGTH = 0.8446  # the same quantile of a 2-D normal's length
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
    size = max(float(np.abs(own[:, 2]).mean()), np.finfo(np.float64).tiny)
    slope, offset = _lens(own, uv)
    depth = own[:, 2] / size
    points = np.concatenate((uv * slope + offset, np.ones((len(uv), 1))), 1) * depth[:, None]
    goals = tracks * slope + offset
    believed = weights * (depth > _IN_FRONT)
    rotation = np.swapaxes(poses[:, :3, :3], 1, 2).copy()  # from here on: other = rotation(own) + shift
    shift = -(rotation @ (poses[:, :3, 3:] / size))[..., 0]
    seen = other[..., :2] / np.where(other[..., 2:] > 0, other[..., 2:], np.nan)
    aligned = _scale(np.nan_to_num(_length(rotation, shift, own / size, seen), nan=np.inf), believed)
    for _ in range(_STEPS):
        moved = points @ np.swapaxes(rotation, 1, 2) + shift[:, None]
        z = np.maximum(moved[..., 2], _IN_FRONT)
        x, y = moved[..., 0] / z, moved[..., 1] / z
        error = np.stack((x, y), -1) - goals
        length = np.hypot(error[..., 0], error[..., 1])
        scale = _scale(length, believed)
        ratio = (length / (KERNEL_WIDTH * scale[:, None])) ** 2
        kernel = believed * (1.0 + ratio) ** -2
        zero, one = np.zeros_like(z), 1.0 / z
        rows = np.stack(
            (
                np.stack((one, zero, -x / z, -x * y, 1 + x * x, -y), -1),
                np.stack((zero, one, -y / z, -1 - y * y, x * y, x), -1),
            ),
            -2,
        )
        weighted = rows * kernel[..., None, None]
        normal = np.einsum("bnki,bnkj->bij", weighted, rows)
        gradient = np.einsum("bnki,bnk->bi", weighted, error)
        still = (scale / _WAY) ** 2 * kernel.sum(-1)
        normal[:, (0, 1, 2), (0, 1, 2)] += still[:, None]
        gradient[:, :3] += still[:, None] * shift
        if not np.isfinite(normal).all():
            return poses
        step = -(np.linalg.pinv(normal, hermitian=True) @ gradient[..., None])[..., 0]
        turn = _rotation(step[:, 3:])
        rotation, shift = turn @ rotation, (turn @ shift[..., None])[..., 0] + step[:, :3]
    tracked = _scale(_length(rotation, shift, points, goals), believed)
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


def _lens(own: Array, uv: Array) -> tuple[Array, Array]:
    """Slope and offset [2] of x / z and y / z over u and v: an L1 line, like the paper's focal length."""
    rays = own[:, :2] / np.where(own[:, 2:] > 0, own[:, 2:], np.nan)
    slopes, offsets = np.empty(2), np.empty(2)
    for axis, (ray, place) in enumerate(zip(rays.T, uv.T)):
        place, ray = place[np.isfinite(ray)], ray[np.isfinite(ray)]
        line, weight = np.stack((place, np.ones_like(place)), -1), np.ones_like(place)
        for _ in range(_STEPS):
            root = np.sqrt(weight)
            slopes[axis], offsets[axis] = np.linalg.lstsq(line * root[:, None], ray * root, rcond=None)[0]
            weight = 1.0 / np.maximum(np.abs(ray - line @ (slopes[axis], offsets[axis])), 1e-3)
    return slopes, offsets


def _length(rotation: Array, shift: Array, points: Array, goals: Array) -> Array:
    """Residuals [B, N] of points [N, 3], moved to the other cameras, from directions [B, N, 2]."""
    moved = points @ np.swapaxes(rotation, 1, 2) + shift[:, None]
    error = moved[..., :2] / np.maximum(moved[..., 2:], _IN_FRONT) - goals
    return np.asarray(np.hypot(error[..., 0], error[..., 1]))


def _scale(length: Array, prior: Array) -> Array:
    """Deviations per axis [B], from a low weighted quantile of lengths [B, N]."""
    order = np.argsort(length, axis=-1)
    believed = np.cumsum(np.take_along_axis(prior, order, -1), axis=-1)
    place = np.minimum((believed < _QUANTILE * believed[:, -1:]).sum(-1), length.shape[1] - 1)
    chosen = np.take_along_axis(length, np.take_along_axis(order, place[:, None], -1), -1)
    return np.maximum(chosen[:, 0] / _LENGTH, 1e-9)


def _rotation(vector: Array) -> Array:
    """Rotations [B, 3, 3] by vectors [B, 3] in rad (Rodrigues)."""
    cross = np.zeros((*vector.shape, 3))
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -vector[..., 2], vector[..., 1], -vector[..., 0]
    cross = cross - np.swapaxes(cross, -1, -2)
    angle = np.linalg.norm(vector, axis=-1)[:, None, None]
    return (
        np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross
    )
