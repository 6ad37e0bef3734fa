"""Poses by reprojection, where tracks are truer than points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d4rt_ros.tasks.geometry import align_many, rotation_angle, transform_points
from d4rt_ros.tasks.sight import _step, refine_poses

FOCAL, CENTRE = np.array([0.8, 1.1]), np.array([0.45, 0.52])


class Views:
    """Points of one camera in others: own [N, 3], other [B, N, 3], uv [N, 2], tracks [B, N, 2]."""

    def __init__(self, seed: int, poses: int = 6, points: int = 256) -> None:
        r = np.random.default_rng(seed)
        self.uv = r.uniform(0, 1, (points, 2))
        own = np.concatenate(((self.uv - CENTRE) / FOCAL, np.ones((points, 1))), -1)
        self.own = own * np.exp(r.uniform(0.0, 1.5, (points, 1)))
        self.pose = np.tile(np.eye(4), (poses, 1, 1))
        self.pose[:, :3, :3] = Rotation.from_rotvec(r.normal(0, 0.06, (poses, 3))).as_matrix()
        self.pose[:, :3, 3] = r.normal(0, 0.1, (poses, 3))
        self.other = transform_points(np.linalg.inv(self.pose), self.own)
        self.tracks = self.other[..., :2] / self.other[..., 2:] * FOCAL + CENTRE
        self.weights, self.deviation = np.ones(self.tracks.shape[:2]), np.full(poses, 0.002)

    def with_bad_points(self, seed: int) -> Views:
        """Depths that are wrong alike in all cameras, directions worse than tracks, and some lost tracks."""
        r = np.random.default_rng(seed)
        wrong = np.exp(r.normal(0, 0.15, (len(self.own), 1)))
        self.own, self.other = self.own * wrong, self.other * wrong
        turn = Rotation.from_rotvec(r.normal(0, 0.03, (len(self.pose), 3))).as_matrix()
        self.other = self.other @ turn  # all directions off by one rotation, and by noise of their own
        self.other[..., :2] += self.other[..., 2:] * r.normal(0, 0.02, self.other[..., :2].shape)
        self.tracks = self.tracks + r.normal(0, 0.002, self.tracks.shape)
        self.tracks[:, :40] = self.tracks[:, 200:240]
        return self

    def aligned(self) -> np.ndarray:
        return np.stack([fit.matrix for fit in align_many(self.other, self.own[None])])

    def refined(self, start: np.ndarray) -> np.ndarray:
        return refine_poses(start, self.deviation, self.own, self.other, self.uv, self.tracks, self.weights)

    def angles(self, found: np.ndarray) -> np.ndarray:
        """Errors of rotation in degrees."""
        return np.degrees(rotation_angle(found[:, :3, :3] @ np.swapaxes(self.pose[:, :3, :3], 1, 2)))


def test_true_tracks_turn_a_wrong_pose_right() -> None:
    views = Views(0)
    start = views.pose.copy()
    start[:, :3, :3] = Rotation.from_euler("y", 3, degrees=True).as_matrix() @ start[:, :3, :3]
    found = views.refined(start)
    assert views.angles(start).min() > 2.9
    np.testing.assert_allclose(found, views.pose, atol=1e-6)


def test_bad_points_turn_the_camera_less_and_lost_tracks_do_no_harm() -> None:
    views = Views(1).with_bad_points(2)
    before = views.aligned()
    after = views.refined(before)
    assert views.angles(after).mean() < 0.4 * views.angles(before).mean()
    assert np.allclose(after[:, :3, :3] @ np.swapaxes(after[:, :3, :3], 1, 2), np.eye(3), atol=1e-9)


def test_points_out_of_sight_do_not_count() -> None:
    views = Views(1).with_bad_points(2)
    once = views.refined(views.aligned())
    views.tracks[:, 40:80], views.weights[:, 40:80] = 0.5, 0.0
    np.testing.assert_allclose(views.angles(views.refined(views.aligned())), views.angles(once), atol=0.15)


def test_a_doubtful_alignment_is_not_contradicted() -> None:
    views = Views(1).with_bad_points(2)
    views.deviation[:] = 0.05
    np.testing.assert_array_equal(views.refined(views.aligned()), views.aligned())


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_tracks_no_truer_than_points_leave_the_alignment(noise: float) -> None:
    views, r = Views(4), np.random.default_rng(5)
    views.other += noise * views.other[..., 2:] * r.normal(0, 1, views.other.shape)
    views.tracks += noise * r.normal(0, 1, views.tracks.shape)
    np.testing.assert_array_equal(views.refined(views.aligned()), views.aligned())


@pytest.mark.parametrize("noise", [(0.01, 0.02), (0.0005, 0.0)])
def test_tracks_that_contradict_need_to_fit_better_than_points_that_are_not_fine_already(
    noise: tuple[float, float],
) -> None:
    views, r = Views(4), np.random.default_rng(5)
    turned = views.other @ Rotation.from_euler("y", 3, degrees=True).as_matrix()
    views.tracks = turned[..., :2] / turned[..., 2:] * FOCAL + CENTRE
    views.tracks += noise[1] * r.normal(0, 1, views.tracks.shape)
    views.other += noise[0] * views.other[..., 2:] * r.normal(0, 1, views.other.shape)
    np.testing.assert_array_equal(views.refined(views.aligned()), views.aligned())


def test_all_cameras_are_posed_the_same_way() -> None:
    views = Views(1).with_bad_points(2)
    aligned = views.aligned()
    views.deviation[1:] = 0.05
    np.testing.assert_array_equal(views.refined(aligned), aligned)
    views.deviation[:] = 0.002
    assert (views.refined(aligned) != aligned).any((1, 2)).all()
    views.weights[2] = 0.0
    np.testing.assert_array_equal(views.refined(aligned), aligned)


def test_most_points_may_lie_behind_the_camera() -> None:
    views = Views(0)
    views.own[64:, 2] *= -1
    start = views.pose.copy()
    start[:, :3, :3] = Rotation.from_euler("y", 3, degrees=True).as_matrix() @ start[:, :3, :3]
    np.testing.assert_allclose(views.refined(start), views.pose, atol=1e-5)


def test_a_lens_is_read_from_the_directions_that_agree() -> None:
    views = Views(0)
    views.own[:60, 0] += 2.0 * views.own[:60, 2]
    start = views.pose.copy()
    start[:, :3, :3] = Rotation.from_euler("y", 3, degrees=True).as_matrix() @ start[:, :3, :3]
    assert views.angles(views.refined(start)).max() < 0.02


def test_a_camera_that_went_some_way_is_drawn_back_by_what_it_does_not_know() -> None:
    r, shift = np.random.default_rng(0), np.array([[0.3, -0.2, 0.1]])
    seen = np.concatenate((r.normal(0, 0.4, (1, 50, 2)), r.uniform(1, 3, (1, 50, 1))), -1)
    error = r.normal(0, 0.01, (1, 50, 2))
    goals = np.concatenate((seen[..., :2] + error, seen[..., :2] - error), 1)  # nowhere, on the whole
    step = _step(np.tile(seen, (1, 2, 1)), goals, np.ones((1, 100)), shift)
    assert step is not None
    assert -1e-2 < float(step[0, :3] @ shift[0]) < -1e-6


@pytest.mark.parametrize("damage", ["behind", "weightless", "infinite"])
def test_what_cannot_be_refined_stays_as_it_was(damage: str) -> None:
    views = Views(3, poses=1).with_bad_points(4)
    start = views.pose
    if damage == "behind":
        views.own[..., 2] *= -1
    elif damage == "weightless":
        views.weights[:] = 0
    else:
        views.tracks[:] = np.inf
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(views.refined(start), start)
