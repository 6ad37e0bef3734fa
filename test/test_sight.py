"""Poses from directions and depths of different accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d4rt_ros.tasks.geometry import align_many, rotation_angle, transform_points
from d4rt_ros.tasks.sight import refine_poses


def views(seed: int, poses: int = 6, points: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses own_from_other [B, 4, 4], and the same points in both cameras, each [B, N, 3]."""
    r = np.random.default_rng(seed)
    own = np.concatenate([r.uniform(-0.7, 0.7, (poses, points, 2)), np.ones((poses, points, 1))], -1)
    own = own * np.exp(r.uniform(0.0, 1.5, (poses, points, 1)))
    pose = np.tile(np.eye(4), (poses, 1, 1))
    pose[:, :3, :3] = Rotation.from_rotvec(r.normal(0, 0.1, (poses, 3))).as_matrix()
    pose[:, :3, 3] = r.normal(0, 0.1, (poses, 3))
    return pose, own, transform_points(np.linalg.inv(pose), own)


def angles(found: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Errors of rotation in degrees."""
    return np.degrees(rotation_angle(found[:, :3, :3] @ np.swapaxes(pose[:, :3, :3], 1, 2)))


def test_exact_points_give_the_exact_pose_from_a_wrong_one() -> None:
    pose, own, other = views(0)
    start = pose.copy()
    start[:, :3, :3] = Rotation.from_euler("y", 3, degrees=True).as_matrix() @ start[:, :3, :3]
    start[:, :3, 3] += 0.05
    found = refine_poses(start, own, other, np.ones(own.shape[:2]))
    np.testing.assert_allclose(found, pose, atol=1e-8)


def test_bad_depths_turn_the_camera_less_and_wrong_points_do_no_harm() -> None:
    pose, own, other = views(1)
    r = np.random.default_rng(2)
    for points in (own, other):
        points *= np.exp(r.normal(0, 0.15, (*points.shape[:2], 1)))
    other[..., :2] += other[..., 2:] * r.normal(0, 0.003, other[..., :2].shape)
    other[:, :40] = own[:, 200:240]
    weights = np.ones(own.shape[:2])
    before = np.stack([fit.matrix for fit in align_many(other, own, weights)])
    after = refine_poses(before, own, other, weights)
    assert angles(after, pose).mean() < 0.4 * angles(before, pose).mean()
    assert np.allclose(after[:, :3, :3] @ np.swapaxes(after[:, :3, :3], 1, 2), np.eye(3), atol=1e-9)


def test_points_that_err_alike_in_all_directions_are_left_to_the_alignment() -> None:
    pose, own, other = views(4)
    r = np.random.default_rng(5)
    for points in (own, other):
        points += 0.01 * points[..., 2:] * r.normal(0, 1, points.shape)
    np.testing.assert_array_equal(refine_poses(pose, own, other, np.ones(own.shape[:2])), pose)


@pytest.mark.parametrize("damage", ["behind", "weightless", "infinite"])
def test_what_cannot_be_refined_stays_as_it_was(damage: str) -> None:
    pose, own, other = views(3, poses=1)
    weights = np.ones(own.shape[:2])
    if damage == "behind":
        other[..., 2] *= -1
    elif damage == "weightless":
        weights[:] = 0
    else:
        own[:] = np.inf
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(refine_poses(pose, own, other, weights), pose)
