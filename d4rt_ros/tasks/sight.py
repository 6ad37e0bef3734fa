"""Poses that believe directions and depths each as far as they deserve.

A network places a point well across its line of sight and badly along it. Aligned point sets (Umeyama) count
both alike, so errors of depth turn the camera. Here the two get a scale each, estimated from the residuals.
"""

from __future__ import annotations

import numpy as np

from d4rt_ros.tasks.consensus import KERNEL_WIDTH, Array

_STEPS = 6
_QUANTILE = 0.3  # of the residuals, gives the scales: holds while so much of the weight is right
_ACROSS, _ALONG = 0.8446, 0.3853  # the same quantile of a 2-D and of a 1-D normal's length
_EXACT = 1e-9  # residuals (rad, relative depth) below this are rounding
_UNEVEN = (
    1.5  # times; where depths are hardly worse than directions, aligned point sets are the better estimate
)
_IN_FRONT = 1e-3  # of the mean depth; nearer points, or behind the camera, say nothing


def refine_poses(poses: Array, own: Array, other: Array, weights: Array) -> Array:
    """Gauss-Newton on the directions and log depths of the same points in two cameras.

    Args:
        poses: [B, 4, 4] rigid, own = pose(other), to start from.
        own: [B, N, 3] points in the camera that the poses lead to.
        other: [B, N, 3] the same points in the other cameras, z along the optical axis.
        weights: [B, N] >= 0, proportional to inverse variances.

    Returns:
        [B, 4, 4]; as given where depths are about as good as directions, or no finite pose comes out.
    """
    size = np.maximum(np.abs(own[..., 2]).mean(-1), np.finfo(np.float64).tiny)[:, None, None]
    own, other = own / size, other / size
    rotation = np.swapaxes(poses[:, :3, :3], 1, 2).copy()
    shift = -(rotation @ (poses[:, :3, 3:] / size))[..., 0]  # from here on: other = rotation(own) + shift
    seen = (other[..., 2] > _IN_FRONT) & (own[..., 2] > _IN_FRONT)
    depth = np.where(seen, other[..., 2], 1.0)
    rays, prior = other[..., :2] / depth[..., None], weights * seen
    for _ in range(_STEPS):
        points = own @ np.swapaxes(rotation, 1, 2) + shift[:, None]
        z = np.maximum(points[..., 2], _IN_FRONT)
        across = points[..., :2] / z[..., None]
        error = np.concatenate((across - rays, np.log(z / depth)[..., None]), -1)
        across_length, along_length = np.hypot(error[..., 0], error[..., 1]), np.abs(error[..., 2])
        across_scale = _scale(across_length, prior) / _ACROSS
        along_scale = _scale(along_length, prior) / _ALONG
        ratio = (across_length / across_scale) ** 2 + (along_length / along_scale) ** 2
        kernel = prior * (1.0 + ratio / KERNEL_WIDTH**2) ** -2
        slope = np.zeros((*z.shape, 3, 3))  # of the error in the point
        slope[..., 0, 0] = slope[..., 1, 1] = slope[..., 2, 2] = 1.0 / z
        slope[..., :2, 2] = -across / z[..., None]
        slope = np.concatenate((slope, -slope @ _cross(points)), -1)
        inverse = np.stack((1 / across_scale, 1 / across_scale, 1 / along_scale), -1)
        root = np.sqrt(kernel)[..., None] * inverse
        rows = (slope * root[..., None]).reshape(len(own), -1, 6)
        turned = np.swapaxes(rows, 1, 2)
        normal, gradient = turned @ rows, turned @ (error * root).reshape(len(own), -1, 1)
        unit = np.sqrt(np.einsum("bii->bi", normal)) + np.finfo(np.float64).tiny
        normal = normal / unit[:, :, None] / unit[:, None] + 1e-9 * np.eye(6)
        step = -np.linalg.solve(normal, gradient / unit[..., None])[..., 0] / unit
        turn = _rotation(step[:, 3:])
        rotation, shift = turn @ rotation, (turn @ shift[..., None])[..., 0] + step[:, :3]
    found = poses.copy()
    found[:, :3, :3] = np.swapaxes(rotation, 1, 2)
    found[:, :3, 3:] = -(found[:, :3, :3] @ shift[..., None]) * size
    sound = np.isfinite(found).all((1, 2)) & (prior.sum(-1) > 0.0)
    sound &= (along_scale > _UNEVEN * across_scale)[:, 0]
    return np.where(sound[:, None, None], found, poses)


def _scale(length: Array, prior: Array) -> Array:
    """Weighted quantile of lengths [B, N], as [B, 1]."""
    order = np.argsort(length, axis=-1)
    believed = np.cumsum(np.take_along_axis(prior, order, -1), axis=-1)
    place = np.minimum((believed < _QUANTILE * believed[:, -1:]).sum(-1), length.shape[1] - 1)
    chosen = np.take_along_axis(length, np.take_along_axis(order, place[:, None], -1), -1)
    return np.maximum(chosen, _EXACT)


def _cross(v: Array) -> Array:
    """Matrices [..., 3, 3] of the cross product with v [..., 3]."""
    out = np.zeros((*v.shape, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    return out - np.swapaxes(out, -1, -2)


def _rotation(vector: Array) -> Array:
    """Rotations [B, 3, 3] by vectors [B, 3] in rad (Rodrigues)."""
    angle = np.linalg.norm(vector, axis=-1)[:, None, None]
    cross = _cross(vector)
    return (
        np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross
    )
