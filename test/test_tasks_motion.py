"""Points that move are told from points that stand still, with their velocity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic import AnalyticScene

from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.tasks import judge_motion, moving_points, tracks

BALL = (0.06, 0.02, 0.04)  # metres a frame, ten frames a second


def on_ball(scene: AnalyticScene, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    first = tracks(scene, u, v, 0, frames=(0,)).xyz[0].double()
    return ((first - torch.tensor([-0.3, 0.1, 3.0])) ** 2).sum(-1) < 0.61**2


@pytest.mark.parametrize(("noise", "found"), [(0.0, 1.0), (0.01, 0.9)])
def test_the_ball_moves_and_the_wall_does_not(noise: float, found: float) -> None:
    scene = AnalyticScene(num_frames=16, ball_velocity=BALL, step=(0.02, 0, 0))
    u, v = pixel_grid(24, 24)
    ball = on_ball(scene, u, v)
    motion = moving_points(replace(scene, noise=noise), u, v, 0)
    assert motion.ok and motion.judged.float().mean() > 0.8
    assert ball.sum() > 50
    assert motion.moving[ball & motion.judged].float().mean() >= found
    assert motion.moving[~ball].float().mean() < 0.01
    velocity = motion.velocity[ball & motion.judged].numpy()
    np.testing.assert_allclose(np.median(velocity, axis=0), np.multiply(BALL, 10), atol=1e-4 + 3 * noise)


def test_exact_answers_give_the_exact_velocity_from_the_stamps() -> None:
    scene = AnalyticScene(ball_velocity=BALL)
    motion = moving_points(scene, torch.tensor([0.41, 0.1]), torch.tensor([0.54, 0.8]), 0)
    np.testing.assert_allclose(motion.velocity[0], np.multiply(BALL, 10), rtol=1e-4)
    np.testing.assert_allclose(motion.velocity[1], 0, atol=1e-4)
    assert motion.moving.tolist() == [True, False]


def test_nothing_moves_in_a_still_world() -> None:
    u, v = pixel_grid(16, 16)
    for noise in (0.0, 0.02):
        motion = moving_points(AnalyticScene(ball_velocity=(0, 0, 0), noise=noise), u, v, 4)
        assert motion.ok and motion.moving.float().mean() < 0.01


def test_an_error_that_all_points_share_is_not_motion() -> None:
    scene = AnalyticScene(num_frames=16, ball_velocity=BALL, step=(0, 0, 0))
    u, v = pixel_grid(24, 24)
    world = tracks(scene, u, v, 0, frame="world")
    drift = 1 + 0.003 * torch.arange(16)[:, None, None]
    motion = judge_motion(replace(world, xyz=world.xyz * drift), scene.stamps)
    assert motion.moving[~on_ball(scene, u, v)].float().mean() < 0.02
    assert motion.moving[on_ball(scene, u, v) & motion.judged].float().mean() > 0.9


def test_a_point_that_swings_and_comes_back_moves() -> None:
    scene = AnalyticScene(num_frames=16, ball_velocity=(0, 0, 0), noise=0.002)
    u, v = pixel_grid(8, 8)
    world = tracks(scene, u, v, 0, frame="world")
    xyz = world.xyz.clone()
    xyz[:, 5, 0] += 0.3 * torch.cos(torch.arange(16) * 2 * torch.pi / 15)
    motion = judge_motion(replace(world, xyz=xyz), scene.stamps)
    assert motion.moving.nonzero().flatten().tolist() == [5]


def test_slower_than_wanted_does_not_count() -> None:
    scene = AnalyticScene(ball_velocity=BALL)
    u, v = torch.tensor([0.41, 0.1]), torch.tensor([0.54, 0.8])
    speed = 10 * float(np.linalg.norm(BALL))
    assert moving_points(scene, u, v, 0, min_speed=0.9 * speed).moving.any()
    assert not moving_points(scene, u, v, 0, min_speed=1.1 * speed).moving.any()


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (AnalyticScene(num_frames=1), "1 frames were asked"),
        (AnalyticScene(num_frames=2), "2 frames were asked"),
        (AnalyticScene(hidden=True), "none of the 2 points"),
        (AnalyticScene(doubtful=True), "none of the 2 points"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_a_reason(scene: AnalyticScene, words: str) -> None:
    motion = moving_points(scene, torch.tensor([0.41, 0.1]), torch.tensor([0.54, 0.8]), 0)
    assert not motion.ok and words in motion.reason
    assert not motion.moving.any() and not motion.velocity.any()


def test_a_point_seen_in_two_frames_only_is_not_judged() -> None:
    scene = AnalyticScene()
    world = tracks(scene, torch.tensor([0.41, 0.1]), torch.tensor([0.54, 0.8]), 0, frame="world")
    visibility = world.visibility.clone()
    visibility[2:, 0] = 0.0
    motion = judge_motion(replace(world, visibility=visibility), scene.stamps)
    assert motion.judged.tolist() == [False, True]
    assert not motion.moving[0] and not motion.velocity[0].any()


def test_tracks_in_the_moving_camera_are_not_taken_for_the_world() -> None:
    scene = AnalyticScene()
    camera = tracks(scene, torch.tensor([0.4]), torch.tensor([0.5]), 0)
    with pytest.raises(ValueError, match="world"):
        judge_motion(camera, scene.stamps)
