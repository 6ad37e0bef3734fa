"""Bundle adjustment of a window: its cameras, and the depth of points, from where the points are seen.

Gauss-Newton on reprojection, depths eliminated (Triggs et al., Bundle Adjustment: A Modern Synthesis, 1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[Any]  # of float64, or of float32 throughout

_STEPS, _MORE_STEPS = 6, 3  # of cameras, from nothing and from others
_DEPTH_STEPS = 3
_SHARP = 1.0  # deviations at which a residual counts for a quarter
_WAY = 0.07  # units of depth that a camera is expected to go, where a turn would explain the views as well
_STEADY = 0.01  # rad by which its turn from frame to frame is expected to change, where views fit badly
_DOUBT = 3.0  # median error in deviations at most by whose square both are taken for less
_IN_FRONT = 1e-2  # of a depth; nearer points, or behind the camera, say nothing
_FAR = 5.0  # deviations at which something is surely not what it was taken for
_DONE = 1e-4  # rad and units of depth


@dataclass(frozen=True)
class Views:
    """Points of T cameras, M each, and where all T cameras see them.

    Attributes:
        rays: [T, M, 3], (x / z, y / z, 1) of the points in their own cameras.
        seen: [T, M, T, 2], x / z and y / z in camera j of the points of camera i.
        deviation: [T, M, T] of `seen`, per axis, infinite where not seen, and in the point's own camera.
    """

    rays: Array
    seen: Array
    deviation: Array

    def through(self, focal: float) -> Views:
        """The same image seen through a lens so many times as long."""
        rays = self.rays.copy()
        rays[..., :2] /= focal
        return Views(rays, self.seen / focal, self.deviation / focal)


@dataclass(frozen=True)
class Cameras:
    """Rotation [T, 3, 3] and shift [T, 3] that take points of camera 0 to cameras 0..T-1."""

    rotation: Array
    shift: Array

    @staticmethod
    def at_rest(frames: int) -> Cameras:
        """All at one place."""
        return Cameras(np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3)))

    def between(self) -> tuple[Array, Array]:
        """[i, j] takes points of camera i to camera j: rotations [T, T, 3, 3], shifts [T, T, 3]."""
        rotation = self.rotation[None] @ np.swapaxes(self.rotation, 1, 2)[:, None]
        return rotation, self.shift[None] - (rotation @ self.shift[:, None, :, None])[..., 0]

    def poses(self) -> Array:
        """[T, 4, 4], where the cameras are in camera 0."""
        poses = np.tile(np.eye(4), (len(self.shift), 1, 1))
        poses[:, :3, :3] = np.swapaxes(self.rotation, 1, 2)
        poses[:, :3, 3:] = -(poses[:, :3, :3] @ self.shift[..., None])
        return poses


@dataclass(frozen=True)
class Triangulated:
    """What views tell of points [T, M].

    Attributes:
        log_depth: [T, M].
        precision: [T, M], one over the variance that views leave to it.
        apart: [T, M], how far a point is seen from where it should be: mean, in deviations of at most 5.
    """

    log_depth: Array
    precision: Array
    apart: Array


def adjust(
    views: Views, log_depth: Array, deviation: float, cameras: Cameras | None = None
) -> Cameras | None:
    """Find the cameras. Log depths [T, M] are known to `deviation`, and their scale is the result's.

    Begins at `cameras`, or all at one place. None where nothing finite comes out.
    """
    steps = _MORE_STEPS
    if cameras is None:
        cameras, steps = Cameras.at_rest(len(views.rays)), _STEPS
    found = log_depth
    for _ in range(steps):
        step = _step(views, cameras, found, log_depth, deviation)
        if step is None:
            return None
        moved, deeper = step
        turn = rotations(moved[:, 3:])
        cameras = Cameras(turn @ cameras.rotation, (turn @ cameras.shift[..., None])[..., 0] + moved[:, :3])
        found = found + deeper
        if np.abs(moved).max() < _DONE:
            break
    return cameras


def misfit(views: Views, cameras: Cameras, log_depth: Array) -> float:
    """How far points of log depths [T, M] are seen from where they should be: median, in their deviations."""
    error = _errors(views, cameras, log_depth)[0]
    return _middle(np.hypot(error[..., 0], error[..., 1]) / views.deviation, views)


def unexplained(views: Views, cameras: Cameras, log_depth: Array) -> float:
    """Share of the views, 0 to 1, that points of log depths [T, M] leave unexplained."""
    error = _errors(views, cameras, log_depth)[0]
    ratio = (np.hypot(error[..., 0], error[..., 1]) / views.deviation)[np.isfinite(views.deviation)]
    return float((ratio**2 / (1.0 + ratio**2)).mean()) if len(ratio) else 1.0


def triangulate(
    views: Views, cameras: Cameras, log_depth: Array, deviation: float, blur: float
) -> Triangulated:
    """Read depths off the views of known cameras: log depths are expected at [T, M] with `deviation`.

    Deviations of where points are seen are taken `blur` times.
    """
    found = log_depth
    for _ in range(_DEPTH_STEPS):
        error, _, _, deeper = _errors(views, cameras, found)
        weight = _weights(error, views.deviation * blur, 2.0)[..., None]
        precision = (weight * deeper**2).sum((2, 3))
        gradient = (weight * deeper * error).sum((2, 3)) + (found - log_depth) * deviation**-2
        found = found - np.clip(gradient / (precision + deviation**-2), -0.5, 0.5)
    seen = np.isfinite(views.deviation)
    ratio = np.hypot(error[..., 0], error[..., 1]) / np.where(seen, views.deviation, np.inf)
    apart = np.minimum(ratio, _FAR).sum(-1) / np.maximum(seen.sum(-1), 1)
    return Triangulated(found, precision, apart)


def depth_ratios(views: Views, cameras: Cameras, log_depth: Array) -> Array:
    """How deep points of log depths [T, M] are in all cameras, over how deep in their own: [T, M, T]."""
    rotation, shift = (part.astype(views.rays.dtype)[:, :, 2] for part in cameras.between())
    z = views.rays @ np.swapaxes(rotation, 1, 2) + np.exp(-log_depth)[..., None] * shift[:, None]
    return np.asarray(np.maximum(z, _IN_FRONT))


def rotations(vector: Array) -> Array:
    """Rotations [N, 3, 3] by vectors [N, 3] in rad (Rodrigues)."""
    cross = _cross(vector)
    angle = np.linalg.norm(vector, axis=-1)[:, None, None]
    return (
        np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross
    )


def _errors(views: Views, cameras: Cameras, log_depth: Array) -> tuple[Array, Array, Array, Array]:
    """How far points are seen from where they should be, [T, M, T, 2], and why.

    Also returns where they should be, their depth there over that in their own camera, [T, M, T], and the
    derivative of the error to the log depth, [T, M, T, 2].
    """
    rotation, shift = (part.astype(views.rays.dtype) for part in cameras.between())
    moved = (views.rays[:, None] @ np.swapaxes(rotation, -1, -2)).swapaxes(1, 2)
    way = np.exp(-log_depth)[:, :, None, None] * shift[:, None]
    moved = moved + way
    z = np.maximum(moved[..., 2:], _IN_FRONT)
    at = moved[..., :2] / z
    return at - views.seen, at, z[..., 0], (at * way[..., 2:] - way[..., :2]) / z


def _step(
    views: Views, cameras: Cameras, log_depth: Array, expected: Array, deviation: float
) -> tuple[Array, Array] | None:
    """Gauss-Newton step: [T, 6] (shift, then turn in rad, about each camera) and [T, M] of log depth."""
    error, at, z, deeper = _errors(views, cameras, log_depth)
    frames, count = views.rays.shape[:2]
    ratio = np.hypot(error[..., 0], error[..., 1]) / views.deviation
    left = _middle(ratio, views)
    weight = _weights(error, views.deviation, max(_SHARP, 2.0 * left))
    x, y, inverse = (
        part.swapaxes(1, 2) for part in (at[..., 0], at[..., 1], np.exp(-log_depth)[..., None] / z)
    )
    # Derivatives of x and y by the motion of the camera that sees, [i, j, M, 2, 6].
    rows = np.zeros((frames, frames, count, 2, 6))
    rows[..., 0, 0] = rows[..., 1, 1] = inverse
    rows[..., 0, 2], rows[..., 1, 2] = -x * inverse, -y * inverse
    rows[..., 0, 3], rows[..., 1, 3] = -x * y, -1 - y * y
    rows[..., 0, 4], rows[..., 1, 4] = 1 + x * x, x * y
    rows[..., 0, 5], rows[..., 1, 5] = -y, x
    flat = rows.reshape(frames, frames, -1, 6)
    weighted = (rows * weight.swapaxes(1, 2)[..., None, None]).reshape(flat.shape)
    normal = weighted.swapaxes(-1, -2) @ flat
    slope = (weighted.swapaxes(-1, -2) @ error.transpose(0, 2, 1, 3).reshape(frames, frames, -1, 1))[..., 0]
    deepened = weighted.reshape(rows.shape) * deeper.swapaxes(1, 2)[..., None]
    mixed = deepened[..., 0, :] + deepened[..., 1, :]
    by_frame = (frames, count, frames * 6)  # so small products BLAS does not spread over threads, which wait
    coupling = mixed.swapaxes(1, 2).reshape(by_frame)
    # The camera of the points moves them the other way: carried over to the camera that sees.
    rotation, shift = cameras.between()
    carry = np.zeros((frames, frames, 6, 6))
    carry[..., :3, :3] = carry[..., 3:, 3:] = rotation
    carry[..., :3, 3:] = _cross(shift) @ rotation
    back = -carry.swapaxes(-1, -2)
    total = np.zeros((frames, 6, frames, 6))
    gradient = slope.sum(0) + (back @ slope[..., None])[..., 0].sum(1)
    own = np.arange(frames)
    total[own, :, own] = normal.sum(0) + (back @ normal @ back.swapaxes(-1, -2)).sum(1)
    cross = back @ normal
    total += cross.transpose(0, 2, 1, 3)
    total += cross.transpose(1, 3, 0, 2)
    turned = coupling @ back.swapaxes(-1, -2).reshape(frames, -1, 6)
    coupling.reshape(frames, count, frames, 6)[own, :, own] += turned
    point = (weight[..., None] * deeper**2).sum((2, 3)) + deviation**-2
    pull = (weight[..., None] * deeper * error).sum((2, 3)) + (log_depth - expected) * deviation**-2
    doubt = min(max(1.0, left), _DOUBT) ** 2
    still = (doubt / _WAY) ** 2  # what moves in the world is best fit by going far
    total[own, :3, own, :3] += still * np.eye(3)
    gradient[:, :3] += still * cameras.shift
    steady = ((doubt - 1.0) / _STEADY) ** 2 + 1.0
    slope_of_turns, bend_of_turns = _steadiness(cameras)
    total[:, 3:, :, 3:] += steady * np.einsum("ij,ab->iajb", bend_of_turns, np.eye(3))
    gradient[:, 3:] += steady * slope_of_turns
    # Depths out, the first camera stays.
    full = coupling.reshape(frames * count, frames * 6)
    share = full / point.reshape(-1, 1)
    told = (share.reshape(by_frame).swapaxes(1, 2) @ full.reshape(by_frame)).sum(0)
    system = (total.reshape(frames * 6, -1) - told)[6:, 6:]
    right = (gradient.reshape(-1) - share.T @ pull.reshape(-1))[6:]
    if not np.isfinite(system).all() or not np.isfinite(right).all():
        return None
    motion = np.zeros(frames * 6)
    motion[6:] = -np.linalg.lstsq(system, right, rcond=1e-12)[0]
    deeper_by = -(pull.reshape(-1) + full @ motion) / point.reshape(-1)
    return motion.reshape(frames, 6), np.clip(deeper_by, -1.0, 1.0).reshape(frames, count)


def _steadiness(cameras: Cameras) -> tuple[Array, Array]:
    """Half the squared changes of turning between steps: gradient [T, 3] and curvature [T, T] by turns."""
    step = cameras.rotation[1:] @ np.swapaxes(cameras.rotation[:-1], 1, 2)
    change = np.diff(Rotation.from_matrix(step).as_rotvec(), axis=0)
    second = np.diff(np.eye(len(cameras.rotation)), n=2, axis=0)
    return second.T @ change, second.T @ second


def _weights(error: Array, deviation: Array, sharp: float) -> Array:
    """Geman and McClure's: a quarter at `sharp` deviations."""
    ratio = np.hypot(error[..., 0], error[..., 1]) / deviation
    return np.asarray(deviation**-2 / (1.0 + (ratio / sharp) ** 2) ** 2)


def _middle(ratio: Array, views: Views) -> float:
    seen = ratio[np.isfinite(views.deviation)]
    return float(np.median(seen)) if len(seen) else 0.0


def _cross(vector: Array) -> Array:
    """[..., 3] to the matrices [..., 3, 3] of the product with it."""
    cross = np.zeros((*vector.shape, 3))
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -vector[..., 2], vector[..., 1], -vector[..., 0]
    return cross - np.swapaxes(cross, -1, -2)
