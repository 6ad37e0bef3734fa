"""Windows to results: the lens that is known, and what makes lengths metric."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pipelines import Rooms, make, pixels, true_depth, truth, window
from room import SIZE, K, camera_path, frames

from d4rt_ros.stream import (
    Window,
)


def test_given_intrinsics_correct_the_networks_lens() -> None:
    """A network that believes in twice the focal length: z is kept, x and y are those of the true lens."""
    wrong = np.array(K)
    wrong[:2, :2] *= 2
    result = make(Rooms(intrinsics=wrong)).process(window(0, intrinsics=K))
    assert result.intrinsics_known and np.allclose(result.intrinsics, K)
    exact = make().process(window(0))
    assert np.allclose(result.points.xyz, exact.points.xyz, rtol=1e-3, atol=1e-3)
    assert np.allclose(result.poses, exact.poses, atol=1e-3)
    without = make(Rooms(intrinsics=wrong)).process(window(0))
    assert np.allclose(without.intrinsics[0, 0], wrong[0, 0], rtol=1e-3)


def test_an_off_centre_lens_is_kept_too() -> None:
    """The principal point of the given K counts for points and tracks alike."""
    centred = np.array(K)
    off = np.array(K)
    off[:2, 2] += [3.0, -2.0]
    result = make(Rooms(intrinsics=centred)).process(window(0, intrinsics=off))
    x = (result.points.xyz[:, :2] / result.points.xyz[:, 2:]) * off[[0, 1], [0, 1]] + off[:2, 2]
    u, v = pixels()
    assert np.allclose(x, np.stack([u * SIZE[1], v * SIZE[0]], -1).reshape(-1, 2), atol=1e-3)
    tracks = result.tracks
    newest = tracks.xyz[-1, :, :2] / tracks.xyz[-1, :, 2:] * off[[0, 1], [0, 1]] + off[:2, 2]
    assert np.allclose(newest, tracks.uv[-1] * np.array([SIZE[1], SIZE[0]]), atol=0.02)


def test_useless_intrinsics_are_refused_in_a_note() -> None:
    """The estimate is used instead."""
    bad = np.array(K)
    bad[0, 0] = np.nan
    result = make().process(window(0, intrinsics=bad))
    assert not result.intrinsics_known and np.allclose(result.intrinsics, K, rtol=1e-3)
    assert any("the given intrinsics are not used" in note for note in result.notes)


def test_a_depth_image_makes_it_metric_at_once() -> None:
    """Whatever the network's unit: metres in the first window."""
    pipeline = make(Rooms(unit=0.2), scale_source="depth")
    for first in (0, 4):
        result = pipeline.process(true_depth(first))
        assert result.metric and "depth: 1 unit is 5 m" in result.scale_state
        assert np.allclose(result.poses[:, :3, 3], truth(result)[:, :3, 3], atol=5e-3)
    held = pipeline.process(window(8))
    assert held.metric and "held for 1 window: this window has no depth image" in held.scale_state


def test_odometry_makes_it_metric_once_the_camera_has_moved() -> None:
    """Units at first, with the reason; then metres, and the camera's place does not jump when it changes."""
    pipeline = make(Rooms(unit=0.2), scale_source="odometry")
    seen, last = [], None
    for first in range(0, 24, 2):
        plain = frames(first, 8)
        poses = camera_path(np.array([f.stamp for f in plain]) / 1e9)
        given = [replace(f, odometry=p) if f.stamp > 1.0e9 else f for f, p in zip(plain, poses)]
        result = pipeline.process(Window(tuple(given)))
        seen.append(result.metric)
        if last is not None and seen[-1] != seen[-2]:
            at = result.stamps.index(last.stamps[-1])
            assert np.linalg.norm(result.poses[at, :3, 3] - last.poses[-1, :3, 3]) < 1e-3
        last = result
    assert not seen[0] and seen[-1] and "odometry: 1 unit is" in result.scale_state
    step = np.linalg.norm(np.diff(result.poses[:, :3, 3], axis=0), axis=-1)
    assert np.allclose(step, np.linalg.norm(np.diff(truth(result)[:, :3, 3], axis=0), axis=-1), rtol=0.05)


def test_standing_odometry_is_not_metric_and_says_why() -> None:
    """The state names what is missing."""
    pipeline = make(scale_source="odometry")
    result = pipeline.process(window(0, odometry=np.eye(4)))
    assert not result.metric and "moved 0.00 m by odometry" in result.scale_state
