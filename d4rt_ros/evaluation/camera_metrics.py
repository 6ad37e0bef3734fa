"""Camera track errors: ATE and RPE after Sim(3) alignment (by `evo`), and rotation over a span of frames.

Poses are world_from_camera, [T, 4, 4]. Translations come out in the reference's unit, rotations in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from evo.core.metrics import APE, RPE, PoseRelation, StatisticsType, Unit
from evo.core.trajectory import PosePath3D
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class CameraScores:
    """RMS errors after Sim(3): of the position, and of the relative translation and rotation of a step."""

    ate: float
    rpe_translation: float
    rpe_rotation_deg: float


def camera_scores(estimate: np.ndarray, truth: np.ndarray, delta: int = 1) -> CameraScores:
    """ATE and RPE (over `delta` frames) of an estimated camera track of unknown scale, rotation and origin.

    An estimate that stands still has no scale to fit; it is placed at the truth's mean position, the limit of
    the alignment, with the rotation of its first pose.

    Args:
        estimate: world_from_camera [T, 4, 4].
        truth: world_from_camera [T, 4, 4] of the same frames, in metres or scene units.
        delta: frames between the two poses of a relative error.

    Raises:
        ValueError: shapes differ, fewer than 3 frames, `delta` out of range, or NaN.
    """
    estimate, truth = _checked(estimate), _checked(truth)
    if estimate.shape != truth.shape:
        raise ValueError(f"estimate {estimate.shape} and truth {truth.shape} differ in shape")
    if len(truth) < 3:
        raise ValueError(f"{len(truth)} frames: Sim(3) alignment needs at least 3")
    if not 1 <= delta < len(truth):
        raise ValueError(f"delta is {delta}, it has to be in 1..{len(truth) - 1}")
    aligned, reference = (
        PosePath3D(poses_se3=list(align_sim3(estimate, truth))),
        PosePath3D(poses_se3=list(truth)),
    )
    ape = APE(PoseRelation.translation_part)
    ape.process_data((reference, aligned))
    relative = []
    for relation in (PoseRelation.translation_part, PoseRelation.rotation_angle_deg):
        rpe = RPE(relation, delta=delta, delta_unit=Unit.frames, all_pairs=True)
        rpe.process_data((reference, aligned))
        relative.append(float(rpe.get_statistic(StatisticsType.rmse)))
    return CameraScores(float(ape.get_statistic(StatisticsType.rmse)), relative[0], relative[1])


def align_sim3(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The estimated poses [T, 4, 4] after the Sim(3) that brings their positions closest to the truth's.

    Where positions do not fix the rotation (still or on a line) it comes from the mean of the orientations.
    """
    spread = np.linalg.svd(estimate[:, :3, 3] - estimate[:, :3, 3].mean(0), compute_uv=False)
    true_spread = np.linalg.svd(truth[:, :3, 3] - truth[:, :3, 3].mean(0), compute_uv=False)
    if min(spread[1] / max(spread[0], 1e-300), true_spread[1] / max(true_spread[0], 1e-300)) > 1e-6:
        path = PosePath3D(poses_se3=list(estimate))
        path.align(PosePath3D(poses_se3=list(truth)), correct_scale=True)
        return np.stack(path.poses_se3)
    turn = Rotation.from_matrix(truth[:, :3, :3] @ estimate[:, :3, :3].transpose(0, 2, 1)).mean().as_matrix()
    moved = (estimate[:, :3, 3] - estimate[:, :3, 3].mean(0)) @ turn.T
    centred = truth[:, :3, 3] - truth[:, :3, 3].mean(0)
    energy = float((moved**2).sum())
    scale = max(float((moved * centred).sum()) / energy, 0.0) if energy > 1e-18 else 0.0
    out = np.tile(np.eye(4), (len(truth), 1, 1))
    out[:, :3, :3] = turn @ estimate[:, :3, :3]
    out[:, :3, 3] = scale * moved + truth[:, :3, 3].mean(0)
    return out


def rotation_between_deg(first: np.ndarray, second: np.ndarray) -> float:
    """Angle in degrees between the rotations of two poses (3x3 or 4x4)."""
    relative = np.asarray(first, np.float64)[:3, :3].T @ np.asarray(second, np.float64)[:3, :3]
    return float(np.degrees(Rotation.from_matrix(relative).magnitude()))


def span_rotation_deg(estimate: np.ndarray, truth: np.ndarray, start: int, end: int) -> tuple[float, float]:
    """Error of the rotation from frame `start` to `end`, degrees, and that of a camera that stands still.

    Both tracks are [T, 4, 4]; only relative rotations enter, so no alignment is needed.
    """
    estimate, truth = _checked(estimate), _checked(truth)
    found = estimate[start, :3, :3].T @ estimate[end, :3, :3]
    true = truth[start, :3, :3].T @ truth[end, :3, :3]
    return rotation_between_deg(found, true), rotation_between_deg(np.eye(3), true)


def _checked(poses: np.ndarray) -> np.ndarray:
    poses = np.asarray(poses, np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ValueError(f"poses have shape {poses.shape}, expected [T, 4, 4]")
    if not np.isfinite(poses).all():
        raise ValueError(
            f"{int((~np.isfinite(poses).all((1, 2))).sum())} of {len(poses)} poses hold NaN or inf"
        )
    # Printed poses are rotations to a few digits only, which is too few for evo.
    poses = poses.copy()
    poses[:, :3, :3] = Rotation.from_matrix(poses[:, :3, :3]).as_matrix()
    return poses
