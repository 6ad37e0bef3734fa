"""Tracks of a still scene against the geometry that made it."""

from __future__ import annotations

import numpy as np
import pytest
import sequences_on_disk as disk

from d4rt_ros.evaluation.static_tracks import lift, project, sample_depth, static_tracks


def test_lift_and_project_by_hand() -> None:
    depth = np.full((4, 8), 2.0)
    k = np.array([[8.0, 0, 4], [0, 4, 2], [0, 0, 1]])
    # u .75 is 2 pixels right of the middle: x = 2 / 8 * 2.
    uv = np.array([[0.75, 0.25], [0.5, 0.5], [1.0, 0.5]])
    points = lift(uv, depth, k)
    np.testing.assert_allclose(points[:2], [[0.5, -0.5, 2], [0, 0, 2]])
    assert np.isnan(points[2]).all()  # the right edge is outside
    np.testing.assert_allclose(project(points[:2], k, (4, 8)), uv[:2])
    assert np.isnan(project(np.array([[0.0, 0, -1]]), k, (4, 8))).all()


def test_depth_is_read_where_the_pixel_lies() -> None:
    depth = np.arange(6.0).reshape(2, 3)
    uv = np.array([[0.0, 0.0], [0.34, 0.49], [0.99, 0.99], [0.5, -0.1], [np.nan, 0.5]])
    np.testing.assert_array_equal(sample_depth(depth, uv), [0, 1, 5, np.nan, np.nan])


def test_tracks_follow_box_and_wall() -> None:
    depths, poses = disk.depths(), disk.poses()
    v, u = np.mgrid[3:48:6, 3:64:6]
    uv = np.stack([(u.ravel() + 0.5) / 64, (v.ravel() + 0.5) / 48], -1)
    tracks = static_tracks(uv, 0, list(depths), poses, disk.K)
    np.testing.assert_allclose(tracks.uv[0], uv, atol=1e-9)
    assert tracks.visible[0].all() and tracks.valid[0].all()
    # The same points from the world's side: the first camera is turned by WORLD and stands at (1, 2, 3).
    world = tracks.xyz[0] @ disk.WORLD.T + [1, 2, 3]
    last = (world - poses[7, :3, 3]) @ poses[7, :3, :3]
    np.testing.assert_allclose(tracks.xyz[7], last, atol=1e-6)
    pixel = last @ disk.K.T
    np.testing.assert_allclose(tracks.uv[7], pixel[:, :2] / pixel[:, 2:] / [64, 48], atol=1e-6)


def test_hidden_and_lost_points_are_told_apart() -> None:
    depths, poses = disk.depths(), disk.poses()
    # In the last frame the camera went 0.42 m right, so the box covers wall that was seen left of it.
    last = project_point([-0.75, 0.0, 3.0], poses[7])
    assert sample_depth(depths[7], last[None])[0] < 2
    start = project_point([-0.75, 0.0, 3.0], poses[0])
    left_out = np.array([0.99, 0.5])  # the camera turns left
    tracks = static_tracks(np.stack([start, left_out]), 0, list(depths), poses, disk.K)
    assert tracks.visible[:, 0].tolist()[0] and not tracks.visible[7, 0] and tracks.valid[7, 0]
    assert not tracks.visible[7, 1] and tracks.valid[7, 1]


def test_unknown_depth_is_not_an_answer() -> None:
    depths, poses = disk.depths().copy(), disk.poses()
    depths[0, 24, 32] = np.nan
    depths[3] = np.nan
    depths[4] *= 2  # contradicts: points would float before the surface
    uv = np.array([[32.5 / 64, 24.5 / 48], [0.9, 0.9]])
    tracks = static_tracks(uv, 0, list(depths), poses, disk.K)
    assert not tracks.valid[:, 0].any() and np.isnan(tracks.uv[:, 0]).all()
    assert tracks.valid[:, 1].tolist()[:3] == [True] * 3
    assert not tracks.valid[3, 1] and not tracks.valid[4, 1]


def project_point(local: list[float], pose: np.ndarray) -> np.ndarray:
    """uv [2] of a point given in the first camera's frame."""
    world = disk.WORLD @ np.array(local) + [1, 2, 3]
    camera = pose[:3, :3].T @ (world - pose[:3, 3])
    return np.asarray(project(camera, disk.K, disk.SIZE))


@pytest.mark.parametrize("source", [0, 4])
def test_any_frame_can_be_the_source(source: int) -> None:
    uv = np.array([[0.5, 0.5]])
    tracks = static_tracks(uv, source, list(disk.depths()), disk.poses(), disk.K)
    np.testing.assert_allclose(tracks.uv[source], uv, atol=1e-9)
    assert tracks.xyz[source, 0, 2] == pytest.approx(disk.depths()[source][24, 32])
