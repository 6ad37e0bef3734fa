"""Tasks on procedural scenes that answer exactly, and with the noise and outliers that poses must bear."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.tasks import camera_track, depth_map, extrinsics, intrinsics, point_cloud, tracks
from d4rt_ros.tasks.geometry import Array, invert, rotation_angle, transform_points
from d4rt_ros.training.oracle import OracleScene
from d4rt_ros.training.scenes import ProceduralScenes, SceneBatch, SceneRecipe

CLIPS = range(4)
SCALE = 0.37


@pytest.fixture(scope="module")
def batch() -> SceneBatch:
    recipe = SceneRecipe(frames=8, size=(24, 32), places=(0.4, 0.3, 0.3, 0.0))
    return ProceduralScenes(recipe).sample(len(CLIPS), torch.Generator().manual_seed(11))


def relative(scene: OracleScene, reference: int) -> Array:
    poses = scene.world_from_camera.numpy()
    return np.asarray(invert(poses[reference]) @ poses)


@pytest.mark.parametrize("clip", CLIPS)
def test_depth_is_the_rendered_depth(batch: SceneBatch, clip: int) -> None:
    depth = depth_map(OracleScene(batch, clip, scale=SCALE), 3)
    assert depth.ok and depth.valid.all()
    torch.testing.assert_close(depth.depth, SCALE * batch.depth[clip, 3], rtol=1e-4, atol=0)


@pytest.mark.parametrize("clip", CLIPS)
def test_points_of_all_frames_are_where_the_true_cameras_put_them(batch: SceneBatch, clip: int) -> None:
    scene = OracleScene(batch, clip)
    cloud = point_cloud(scene, frames=(0, 5), stride=4, camera=2)
    rows, columns = (cloud.v * 24 - 0.5).round().long(), (cloud.u * 32 - 0.5).round().long()
    depth = batch.depth[clip][cloud.t_src, rows, columns].double().numpy()
    pixel = np.stack([cloud.u.numpy() * 32, cloud.v.numpy() * 24, np.ones(len(cloud.u))], -1)
    own = (pixel @ np.linalg.inv(scene.intrinsics.numpy()).T) * depth[:, None]
    truth = np.concatenate(
        [transform_points(relative(scene, 2)[f], own[cloud.t_src.numpy() == f]) for f in (0, 5)]
    )
    assert len(truth) == 2 * 6 * 8
    np.testing.assert_allclose(cloud.xyz.numpy(), truth, atol=1e-4 * np.abs(truth).max())


@pytest.mark.parametrize("clip", CLIPS)
def test_tracks_in_cameras_and_in_the_world_are_one_path(batch: SceneBatch, clip: int) -> None:
    scene = OracleScene(batch, clip, scale=SCALE)
    u, v = pixel_grid(5, 5)
    camera, world = tracks(scene, u, v, 1), tracks(scene, u, v, 1, frame="world", reference=4)
    moved = transform_points(relative(scene, 4), camera.xyz.numpy())
    np.testing.assert_allclose(moved, world.xyz.numpy(), atol=1e-4 * float(world.xyz.norm(dim=-1).max()))
    assert (camera.visibility[1] == 1).all()


@pytest.mark.parametrize("clip", CLIPS)
def test_cameras_and_focal_lengths_come_back(batch: SceneBatch, clip: int) -> None:
    scene = OracleScene(batch, clip, scale=SCALE)
    truth = relative(scene, 3)
    far = max(float(np.abs(truth[:, :3, 3]).max()), SCALE * float(batch.depth[clip].median()))
    track = camera_track(scene, reference=3)
    assert track.ok and track.posed.all()
    np.testing.assert_allclose(track.reference_from_camera[:, :3, :3], truth[:, :3, :3], atol=1e-4)
    np.testing.assert_allclose(track.reference_from_camera[:, :3, 3], truth[:, :3, 3], atol=1e-4 * far)
    np.testing.assert_allclose(extrinsics(scene, 3, 6).i_from_j, truth[6], atol=1e-4 * max(far, 1))
    np.testing.assert_allclose(intrinsics(scene).matrix, scene.intrinsics.numpy(), rtol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_poses_bear_noise_and_outliers(batch: SceneBatch, clip: int) -> None:
    scene = OracleScene(batch, clip, noise=0.01, outliers=0.2)
    truth = relative(scene, 0)
    track = camera_track(scene, grid=32)
    found = track.reference_from_camera
    turn = rotation_angle(np.swapaxes(truth[:, :3, :3], 1, 2) @ found[:, :3, :3])
    shift = np.linalg.norm((found - truth)[:, :3, 3], axis=1)
    path = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    assert track.posed.all() and np.degrees(turn).max() < 0.5
    # A camera that hardly moves beside what it sees is held to the noise of the points instead.
    assert np.sqrt((shift**2).mean()) < 0.01 * max(path, float(batch.depth[clip].median()))
    deviation = np.sqrt(np.trace(track.covariance[1:, :3, :3], axis1=1, axis2=2))
    assert 0.2 < np.sqrt(np.mean((shift[1:] / deviation) ** 2)) < 3.0
