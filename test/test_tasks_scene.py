"""Depth, points, tracks and cameras from exact answers, and from answers with noise and outliers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic import WALL_NORMAL, WALL_POINT, AnalyticScene

from d4rt_ros.model import Answers, Queries
from d4rt_ros.tasks import camera_track, depth_at, depth_map, extrinsics, intrinsics, point_cloud, tracks
from d4rt_ros.tasks.geometry import invert, rotation_angle, transform_points


def wall_depth(scene: AnalyticScene, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Depth of the wall from camera 0, on paper."""
    ray = np.stack([(u - 0.5) / scene.focal[0], (v - 0.5) / scene.focal[1], np.ones_like(u)], -1)
    return float(WALL_POINT @ WALL_NORMAL) / (ray @ WALL_NORMAL.numpy())


def test_depth_map_is_the_wall_where_no_ball_is() -> None:
    scene = AnalyticScene(ball_velocity=(0, 0, 0))
    depth = depth_map(scene, 0, size=(5, 9))
    assert depth.ok and depth.depth.shape == depth.valid.shape == (5, 9)
    v, u = np.meshgrid((np.arange(5) + 0.5) / 5, (np.arange(9) + 0.5) / 9, indexing="ij")
    far = depth.depth.numpy() > 4.0
    assert far.sum() > 20
    np.testing.assert_allclose(depth.depth.numpy()[far], wall_depth(scene, u, v)[far], rtol=1e-4)


def test_depth_at_pixels_agrees_with_the_map_at_the_image_size() -> None:
    scene = AnalyticScene()
    whole = depth_map(scene, 3)
    assert whole.depth.shape == scene.image_size
    point = depth_at(scene, 3, torch.tensor([2.5 / 16, 8.5 / 16]), torch.tensor([7.5 / 12, 6.5 / 12]))
    torch.testing.assert_close(point.depth, whole.depth[[7, 6], [2, 8]], rtol=1e-5, atol=0)


def test_answers_below_the_wanted_confidence_do_not_count() -> None:
    depth = depth_map(AnalyticScene(), 0, size=(2, 2), min_confidence=0.95)
    assert not depth.ok and "frame 0" in depth.reason
    u = torch.tensor([0.3])
    assert not point_cloud(AnalyticScene(), min_confidence=0.95).ok
    assert not tracks(AnalyticScene(), u, u, 0, min_confidence=0.95).answered.any()
    assert torch.isfinite(depth.depth).all() and torch.isnan(depth.with_nan()).all()


def test_points_of_all_frames_lie_on_the_wall_and_carry_their_colours() -> None:
    scene = AnalyticScene(ball_velocity=(0, 0, 0))
    cloud = point_cloud(scene, frames=(1, 4), stride=3, camera=0)
    assert cloud.ok and len(cloud.xyz) == 2 * 4 * 5
    off = (cloud.xyz.double() - WALL_POINT) @ WALL_NORMAL
    ball = ((cloud.xyz.double() - torch.tensor([-0.3, 0.1, 3.0])) ** 2).sum(-1).sqrt()
    assert 0 < (off.abs() > 1e-3).sum() < 20
    assert torch.minimum(off.abs(), (ball - 0.6).abs()).max() < 1e-4
    np.testing.assert_array_equal(cloud.rgb[:, 0].numpy() + 0.5, np.round(cloud.u.numpy() * 16, 4))
    np.testing.assert_array_equal(cloud.rgb[:, 1].numpy() + 0.5, np.round(cloud.v.numpy() * 12, 4))
    np.testing.assert_array_equal(cloud.rgb[:, 2], cloud.t_src)


def test_world_tracks_stand_still_on_the_wall_and_move_with_the_ball() -> None:
    scene = AnalyticScene()
    u, v = torch.tensor([0.1, 0.41]), torch.tensor([0.8, 0.54])
    world = tracks(scene, u, v, 0, frame="world", reference=0)
    assert world.ok and world.xyz.shape == (8, 2, 3) and world.reference == 0
    moved = (world.xyz - world.xyz[:1]).numpy()
    np.testing.assert_allclose(moved[:, 0], 0, atol=1e-5)
    np.testing.assert_allclose(moved[:, 1], np.arange(8)[:, None] * [[0.1, 0, 0]], atol=1e-5)


def test_camera_tracks_are_world_tracks_seen_from_each_camera() -> None:
    scene = AnalyticScene()
    u, v = torch.tensor([0.1, 0.41]), torch.tensor([0.8, 0.54])
    order = (6, 0, 3)
    camera = tracks(scene, u, v, torch.tensor([2, 0]), frames=order)
    world = tracks(scene, u, v, torch.tensor([2, 0]), frames=order, frame="world")
    assert camera.reference is None and camera.frames == order
    np.testing.assert_allclose(
        transform_points(scene.poses[list(order)], camera.xyz.numpy()),
        world.xyz.numpy(),
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(camera.uv, world.uv)


def test_a_point_behind_the_ball_keeps_its_track_but_is_not_visible() -> None:
    scene = AnalyticScene(ball_velocity=(0.3, 0, 0), step=(0, 0, 0))
    track = tracks(scene, torch.tensor([0.65]), torch.tensor([0.5]), 0)
    hidden = track.visibility[:, 0] < 0.5
    assert hidden.any() and not hidden[0] and not hidden[-1]
    assert track.answered.all() and track.ok


@pytest.mark.parametrize("grid", [4, 8])
def test_exact_answers_give_exact_cameras(grid: int) -> None:
    scene = AnalyticScene()
    track = camera_track(scene, reference=2, grid=grid)
    assert track.ok and track.posed.all() and scene.asked == [8 * grid * grid]
    truth = invert(scene.poses[2]) @ scene.poses
    np.testing.assert_allclose(track.reference_from_camera, truth, atol=1e-4 * np.abs(truth[:, :3, 3]).max())
    pair = extrinsics(scene, 5, 1, grid)
    assert pair.ok
    np.testing.assert_allclose(pair.i_from_j, invert(scene.poses[5]) @ scene.poses[1], atol=3e-5)


def test_exact_answers_give_exact_intrinsics() -> None:
    scene = AnalyticScene()
    estimate = intrinsics(scene)
    assert estimate.ok and not estimate.known and max(estimate.deviation) < 1e-5
    np.testing.assert_allclose(estimate.matrix, scene.matrix, rtol=1e-4)


def test_known_intrinsics_are_used_and_nothing_is_asked() -> None:
    scene = AnalyticScene()
    given = intrinsics(scene, known=2 * scene.matrix)
    assert given.known and given.ok and scene.asked == []
    np.testing.assert_array_equal(given.matrix, 2 * scene.matrix)


def test_noise_and_outliers_leave_the_cameras_in_place() -> None:
    scene = AnalyticScene(noise=0.01, outliers=0.2, step=(0.25, -0.08, 0.1))
    track = camera_track(scene, grid=24)
    truth = scene.poses
    path = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    turn = rotation_angle(np.swapaxes(truth[:, :3, :3], 1, 2) @ track.reference_from_camera[:, :3, :3])
    shift = np.linalg.norm((track.reference_from_camera - truth)[:, :3, 3], axis=1)
    assert track.posed.all()
    assert np.degrees(turn).max() < 0.5
    assert shift.max() < 0.01 * path
    assert track.inlier_share[1:].min() > 0.5 and track.inlier_share[1:].max() < 0.9
    focal = intrinsics(scene, grid=24).matrix
    np.testing.assert_allclose(focal, scene.matrix, rtol=5e-3)


def test_doubtful_answers_are_refused_everywhere_with_a_reason() -> None:
    scene = AnalyticScene(doubtful=True)
    u = torch.tensor([0.3, 0.6])
    results = (
        depth_map(scene, 0),
        depth_at(scene, 0, u, u),
        point_cloud(scene, stride=4),
        tracks(scene, u, u, 0),
        extrinsics(scene, 0, 1),
        camera_track(scene),
        intrinsics(scene),
    )
    for result in results:
        assert not result.ok and len(result.reason) > 10, result
    track = results[5]
    np.testing.assert_array_equal(track.reference_from_camera, np.tile(np.eye(4), (8, 1, 1)))
    assert not track.posed.any() and "zero" in track.reason and np.isfinite(track.covariance).all()


def test_invisible_points_are_refused_but_cameras_need_no_visibility() -> None:
    scene = AnalyticScene(hidden=True)
    track = tracks(scene, torch.tensor([0.3]), torch.tensor([0.3]), 0)
    assert not track.ok and "visible" in track.reason
    assert camera_track(scene).ok


def test_one_frame_has_depth_and_focal_length_but_no_motion() -> None:
    scene = AnalyticScene(num_frames=1)
    assert depth_map(scene, 0).ok and intrinsics(scene).ok
    track = camera_track(scene)
    assert not track.ok and "one frame" in track.reason


class Unsure(AnalyticScene):
    """Seven of ten answers are off by one and the same shift, and know that they are not to be trusted."""

    def decode(self, queries: Queries) -> Answers:
        """Spoil the answers of the left part of the image."""
        answers = super().decode(queries)
        left = queries.u < 0.7
        off = torch.where((queries.t_cam != queries.t_src) & left, 2.0, 0.0)
        confidence = torch.where(left, 0.002, 0.9)
        return replace(answers, xyz=answers.xyz + off[:, None], confidence=confidence)


def test_confidence_decides_whom_the_camera_believes() -> None:
    scene = Unsure()
    np.testing.assert_allclose(camera_track(scene, grid=10).reference_from_camera, scene.poses, atol=0.01)


class Broken(AnalyticScene):
    """Answers with holes: the first half of every decode is not a number."""

    def decode(self, queries: Queries) -> Answers:
        """Spoil the first half."""
        answers = super().decode(queries)
        xyz = answers.xyz.clone()
        xyz[: len(xyz) // 2] = torch.nan
        return replace(answers, xyz=xyz)


def test_answers_that_are_no_numbers_never_come_through() -> None:
    scene = Broken()
    depth = depth_map(scene, 0)
    assert depth.ok and torch.isfinite(depth.depth).all() and int(depth.valid.sum()) == 6 * 16
    track = tracks(scene, torch.tensor([0.3]), torch.tensor([0.3]), 0)
    assert torch.isfinite(track.xyz).all() and track.answered[:, 0].tolist() == [False] * 4 + [True] * 4
    cameras = camera_track(scene)
    assert not cameras.ok and np.isfinite(cameras.reference_from_camera).all()
    assert len(point_cloud(scene, frames=(0,)).xyz) == 6 * 16


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: depth_map(s, 8), "frame is 8"),
        (lambda s: depth_map(s, 2.0), "frame is 2.0, but frames are counted in integers"),
        (lambda s: tracks(s, torch.tensor([0.5]), torch.tensor([0.5]), 2.7), "integers, not torch.float32"),
        (lambda s: point_cloud(s, frames=(0.9, 1.5)), "frames is 0.9"),
        (lambda s: depth_map(s, 0, size=(0, 4)), "size is 0x4"),
        (lambda s: depth_at(s, 0, torch.tensor([1.5]), torch.tensor([0.5])), "u is 1.5"),
        (lambda s: depth_at(s, 0, torch.tensor([0.5]), torch.tensor([torch.nan])), "v is nan"),
        (lambda s: point_cloud(s, frames=()), "frames is empty"),
        (lambda s: point_cloud(s, stride=0), "stride is 0"),
        (lambda s: point_cloud(s, camera=-1), "camera is -1"),
        (lambda s: tracks(s, torch.tensor([0.5]), torch.tensor([0.5]), 0, frame="map"), "'map'"),
        (lambda s: extrinsics(s, 0, 9), "j is 9"),
        (lambda s: camera_track(s, grid=1), "grid is 1"),
        (lambda s: intrinsics(s, known=np.zeros((3, 3))), "known"),
    ],
)
def test_wrong_requests_name_the_field_and_the_value(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(AnalyticScene())  # type: ignore[operator]
