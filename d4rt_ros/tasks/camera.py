"""The camera out of queries: its motion by aligning point sets, its focal lengths by similar triangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from d4rt_ros.model import SceneLike
from d4rt_ros.model.queries import camera_poses, why_unposed
from d4rt_ros.tasks.ask import ask, asked_grid, check_frame, chosen_frames, usable
from d4rt_ros.tasks.geometry import UNKNOWN_VARIANCE, Alignment, Array, align_many, invert, refusal

_AXIS_MARGIN = 0.05  # rays closer to the optical axis (in u or v) say little about the focal length
_MIN_RAYS = 8
_MAX_SPREAD = 0.5  # relative deviation of the rays' answers above which they do not share a focal length


@dataclass(frozen=True)
class Extrinsics:
    """Where camera j is, seen from camera i.

    Attributes:
        ok: False when the answers do not fix it; the pose is then the identity.
        reason: why not, as a sentence; empty when ok.
        i_from_j: [4, 4] float64, takes points of camera j to camera i; scene units.
        covariance: [6, 6] of (x, y, z, rx, ry, rz), scene units and rad, about the axes of camera i.
        residual: robust deviation per axis of the aligned points, scene units.
        inlier_share: share of the points that agree.
    """

    ok: bool
    reason: str
    i_from_j: Array
    covariance: Array
    residual: float
    inlier_share: float


@dataclass(frozen=True)
class CameraTrack:
    """The camera's path over a window of T frames, in the camera of the reference frame.

    Attributes:
        ok: False when no frame but the reference has a pose (with one frame: always).
        reason: why not, as a sentence; empty when ok.
        reference: index of the reference frame; its pose is the identity and exact by definition.
        reference_from_camera: [T, 4, 4] float64, scene units; the identity where not ``posed``.
        covariance: [T, 6, 6] as in ``Extrinsics``; UNKNOWN_VARIANCE on the diagonal where not ``posed``.
        posed: [T] bool.
        reasons: T sentences, empty where posed.
        residual: [T] robust deviation per axis of the aligned points, scene units.
        inlier_share: [T].
    """

    ok: bool
    reason: str
    reference: int
    reference_from_camera: Array
    covariance: Array
    posed: np.ndarray
    reasons: tuple[str, ...]
    residual: Array
    inlier_share: Array


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole with its principal point in the middle of the image (paper section 3), or a given one.

    Attributes:
        ok: False when the answers do not fix the focal lengths; the matrix is then the identity.
        reason: why not, as a sentence; empty when ok.
        matrix: [3, 3] float64, pixels of the original image, pixel centres at integer + 0.5.
        deviation: relative standard deviation of fx and fy, from the spread of the rays; 0 when known.
        known: it was given, not estimated.
    """

    ok: bool
    reason: str
    matrix: Array
    deviation: tuple[float, float]
    known: bool


def extrinsics(scene: SceneLike, i: int, j: int, grid: int = 8) -> Extrinsics:
    """Pose of camera j in camera i, from the same points at time i in both (so moving things do no harm).

    A scene that looked for its cameras by itself says where they are, or that it does not know (`unposed`).

    Args:
        scene: the encoded window.
        i: frame whose pixels are asked and whose camera is the parent.
        j: frame of the other camera.
        grid: grid x grid pixels are asked (8 is fast, 32 exact; the paper gives no number).

    Returns:
        Extrinsics.

    Raises:
        ValueError: an index outside the window, or a grid below 2.
    """
    check_frame(scene, "i", i)
    check_frame(scene, "j", j)
    fit = _align_cameras(scene, i, (j,), grid)[0]
    return Extrinsics(fit.ok, fit.reason, fit.matrix, fit.covariance, fit.residual, fit.inlier_share)


def camera_track(scene: SceneLike, reference: int = 0, grid: int = 8) -> CameraTrack:
    """Poses of all cameras of a window in one decode of T x grid x grid queries.

    Args:
        scene: the encoded window.
        reference: frame whose camera is the origin, and whose pixels are asked.
        grid: as in ``extrinsics``.

    Returns:
        CameraTrack.

    Raises:
        ValueError: reference outside the window, or a grid below 2.
    """
    check_frame(scene, "reference", reference)
    count = scene.num_frames
    fits = _align_cameras(scene, reference, tuple(range(count)), grid)
    poses = np.stack([fit.matrix for fit in fits])
    covariance = np.stack([fit.covariance for fit in fits])
    posed = np.array([fit.ok for fit in fits])
    if posed[reference]:
        poses[reference] = np.eye(4)
        covariance[reference] = 0.0
    others = [fit for k, fit in enumerate(fits) if k != reference]
    reason = ""
    if not others:
        reason = "one frame holds no camera motion, at least two are needed"
    elif not any(fit.ok for fit in others):
        reason = f"no frame could be placed: {others[0].reason}"
    return CameraTrack(
        ok=not reason,
        reason=reason,
        reference=reference,
        reference_from_camera=poses,
        covariance=covariance,
        posed=posed,
        reasons=tuple(fit.reason for fit in fits),
        residual=np.array([fit.residual for fit in fits]),
        inlier_share=np.array([fit.inlier_share for fit in fits]),
    )


def intrinsics(
    scene: SceneLike, grid: int = 8, frames: Sequence[int] | None = None, known: np.ndarray | None = None
) -> Intrinsics:
    """Focal lengths by the median over a grid of rays, f = z (u - 1/2) / x; or the ones that are given.

    The median is weighted by confidence and by the distance from the axis, which makes it the L1 fit of
    x / z to (u - 1/2) / f; rays next to the axis are dropped.

    Args:
        scene: the encoded window.
        grid: grid x grid rays a frame.
        frames: frames that are asked; all by default. One is enough.
        known: [3, 3] in the pixels of the original image: returned as it is, nothing is asked.

    Returns:
        Intrinsics.

    Raises:
        ValueError: an index outside the window, a grid below 2, or a known matrix that no camera has.
    """
    if known is not None:
        matrix = np.array(known, dtype=np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or min(matrix[0, 0], matrix[1, 1]) <= 0.0:
            raise ValueError(f"known must be finite [3, 3] with focal lengths above 0, not {matrix.tolist()}")
        return Intrinsics(True, "", matrix, (0.0, 0.0), True)
    chosen = chosen_frames(scene, frames)
    u, v = _grid(scene, grid)
    time = torch.tensor(chosen, device=scene.device)[:, None]
    answers = ask(scene, u, v, time, time, time)
    confidence = torch.where(usable(answers.confidence), answers.confidence, 0.0)
    x, y, z, weight = (
        part.double().cpu().numpy().reshape(-1) for part in (*answers.xyz.unbind(-1), confidence)
    )
    height, width = scene.image_size
    matrix = np.array([[1.0, 0.0, width / 2], [0.0, 1.0, height / 2], [0.0, 0.0, 1.0]])
    deviations = []
    for axis, (name, offset, across) in enumerate((("fx", u, x), ("fy", v, y))):
        tilt = np.tile(offset.double().cpu().numpy() - 0.5, len(chosen))
        focal, deviation, reason = _focal(tilt, across, z, weight)
        if reason:
            unknown = (UNKNOWN_VARIANCE, UNKNOWN_VARIANCE)
            return Intrinsics(False, f"{name}: {reason}", np.eye(3), unknown, False)
        matrix[axis, axis] = focal * (width, height)[axis]
        deviations.append(deviation)
    return Intrinsics(True, "", matrix, (deviations[0], deviations[1]), False)


def _grid(scene: SceneLike, grid: int) -> tuple[Tensor, Tensor]:
    if grid < 2:
        raise ValueError(f"grid is {grid}, it must be at least 2")
    return asked_grid(grid, grid, scene.device)


def _align_cameras(scene: SceneLike, source: int, cameras: tuple[int, ...], grid: int) -> list[Alignment]:
    """Align what camera ``source`` sees, as given in each of ``cameras``, with itself: source_from_camera."""
    u, v = _grid(scene, grid)
    if reason := why_unposed(scene):  # then answers only guess, and a wrong pose is worse than none
        return [refusal(reason, len(u))] * len(cameras)
    asked = cameras if source in cameras else (*cameras, source)
    camera = torch.tensor(asked, device=scene.device)[:, None]
    answers = ask(scene, u, v, source, source, camera)
    points = answers.xyz.double().cpu().numpy()
    confidence = torch.where(usable(answers.confidence), answers.confidence, 0.0).double().cpu().numpy()
    at = asked.index(source)
    own, other = points[at : at + 1], points[: len(cameras)]
    confident = np.minimum(confidence[at : at + 1], confidence[: len(cameras)])
    confident[:, own[0, :, 2] <= 0.0] = 0.0  # a pixel cannot show what lies behind its camera
    # The loss is an L1 in log(1 + x / mean x), so an answer's error grows with its distance like this.
    distance = np.linalg.norm(own, axis=-1) + np.linalg.norm(other, axis=-1)
    mean = distance.mean(-1, keepdims=True)
    spread = 1.0 + distance / np.where(mean > 0.0, mean, 1.0)
    weights = confident / spread**2
    fits = align_many(other, own, weights)
    poses = camera_poses(scene)
    if poses is None:
        return fits
    known = invert(poses[source]) @ poses[list(cameras)]
    return [replace(fit, matrix=matrix) if fit.ok else fit for fit, matrix in zip(fits, known)]


def _focal(tilt: Array, across: Array, z: Array, weight: Array) -> tuple[float, float, str]:
    """Focal length over image size, its relative deviation, and why there is none (or an empty string)."""
    use = (np.abs(tilt) >= _AXIS_MARGIN) & (z > 0.0) & (tilt * across > 1e-9 * z) & (weight > 0.0)
    if use.sum() < _MIN_RAYS:
        return 0.0, 0.0, f"only {int(use.sum())} of {len(use)} rays are usable, {_MIN_RAYS} are needed"
    ratio = z[use] * tilt[use] / across[use]
    share = weight[use] * np.abs(tilt[use])
    focal = _weighted_median(ratio, share)
    spread = 1.4826 * _weighted_median(np.abs(ratio / focal - 1.0), share)
    if spread > _MAX_SPREAD:
        return 0.0, 0.0, f"the rays disagree by {100 * spread:.0f}%"
    effective = share.sum() ** 2 / (share**2).sum()
    deviation = 1.2533 * spread / np.sqrt(effective)  # of a median, over that of a mean
    return focal, float(deviation), ""


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
