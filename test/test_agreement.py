"""Depth as the frames of a window say it together, and how far they are to be believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_bundle import World
from test_network import SMALL, small_model, some_queries
from test_structure import CELLS, FRAMES, error, found_in, pixels, walls

from d4rt_ros.model import Queries
from d4rt_ros.model.agreement import Agreement
from d4rt_ros.model.bundle import Cameras, Views, depth_ratios
from d4rt_ros.model.pixels import pixel_grid

SIDE = 8


def in_place(seen: np.ndarray, forward: float = 0.0) -> Agreement:
    """Three cameras, each `forward` of the one before; flow leads nowhere. seen: [3, 3] who sees whom."""
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    middles = np.stack(np.meshgrid(line, line), -1).reshape(1, -1, 1, 2)
    rays = np.concatenate((np.zeros((3, SIDE**2, 2)), np.ones((3, SIDE**2, 1))), -1).astype(np.float32)
    deviation = np.broadcast_to(np.where(seen, 0.01, np.inf)[:, None], (3, SIDE**2, 3)).astype(np.float32)
    views = Views(rays, np.zeros((3, SIDE**2, 3, 2), np.float32), deviation)
    shift = np.array([[0, 0, -forward * t] for t in range(3)])
    cameras = Cameras(np.tile(np.eye(3), (3, 1, 1)), shift)
    return Agreement(views, cameras, np.broadcast_to(middles, (3, SIDE**2, 3, 2)).astype(np.float32), 0.0)


ALL = ~np.eye(3, dtype=bool)


def flat(*depths: float) -> torch.Tensor:
    """Log depth [T, 16, 16] of frames that see a wall each."""
    return torch.tensor(depths).log()[:, None, None].expand(-1, 16, 16)


def test_frames_that_differ_a_little_meet() -> None:
    settled = in_place(ALL).settle(flat(2.0, 2.1, 2.2))
    assert settled.exp().std((1, 2)).max() < 1e-5
    assert settled.exp()[:, 0, 0].tolist() == pytest.approx([2.1, 2.1, 2.1], rel=0.01)


def test_a_frame_that_differs_much_hardly_counts_and_one_that_is_not_seen_does_not() -> None:
    settled = in_place(ALL).settle(flat(2.0, 2.0, 200.0)).exp()[:, 0, 0]
    assert settled[:2].tolist() == pytest.approx([2.0, 2.0], rel=0.05)
    unseen = ALL.copy()
    unseen[:, 2] = False
    settled = in_place(unseen).settle(flat(2.0, 2.0, 2.4)).exp()[:, 0, 0]
    assert settled[:2].tolist() == pytest.approx([2.0, 2.0])
    assert 2.0 < settled[2] < 2.2, "it sees the others"


def test_a_camera_that_goes_forward_is_expected_to_see_things_nearer() -> None:
    right = flat(2.0, 1.5, 1.0)
    torch.testing.assert_close(in_place(ALL, 0.5).settle(right), right)
    assert (in_place(ALL, 0.0).settle(right) - right).abs().min() > 0.0


def test_how_deep_points_are_elsewhere() -> None:
    world = World(0)
    rotation, shift = world.cameras.between()
    points = world.views.rays * np.exp(world.log_depth)[..., None]
    moved = np.einsum("ijab,imb->imja", rotation, points) + shift[:, None]
    expected = np.maximum(moved[..., 2] / points[..., 2:], 0.01)
    np.testing.assert_allclose(depth_ratios(world.views, world.cameras, world.log_depth), expected)


def test_errors_that_every_frame_makes_otherwise_become_less() -> None:
    frames, depth, _ = walls()
    torch.manual_seed(1)
    wrong = F.interpolate(torch.randn(1, FRAMES, 6, 6), (64, 64), mode="bicubic")[0]
    truth = pixels(depth, 64)[..., 2].log()
    agreement = found_in(frames, truth).agreement
    assert agreement is not None
    guess = truth + 0.2 * wrong
    settled = agreement.settle(guess)
    assert settled.shape == guess.shape
    assert error(settled, depth) < 0.65 * error(guess, depth)


def test_confidence_is_less_where_frames_differ_and_where_none_looks() -> None:
    agreeing = in_place(ALL).confidence(flat(2.0, 2.0, 2.0))
    assert agreeing.shape == (3, SIDE, SIDE)
    differing = in_place(ALL).confidence(flat(2.0, 2.1, 2.0))
    alone = in_place(np.zeros((3, 3), bool)).confidence(flat(2.0, 2.1, 2.0))
    assert 0.6 > agreeing.min() > differing.max() > 0.2
    assert agreeing.min() > alone.max() > 0.3, "above the node's default"
    assert alone.std() < 1e-6


def test_a_scene_answers_with_it_alone_and_in_a_batch() -> None:
    """Of the source pixel, whatever time and camera is asked for."""
    model, frames = small_model(), torch.stack([walls()[0], walls(0.0, 0.6)[0]])
    batch, queries = model.encode(frames), some_queries(50, FRAMES, batch=2)
    together = batch.decode(queries).confidence
    for index in range(2):
        scene = model.encode(frames[index])
        asked = queries.apply(lambda x, i=index: x[i])
        own = scene.decode(asked).confidence
        torch.testing.assert_close(together[index], own)
        elsewhere = Queries(asked.u, asked.v, asked.t_src, *2 * [torch.zeros_like(asked.t_cam)])
        assert torch.equal(scene.decode(elsewhere).confidence, own)
        assert own.std() > 0
    u, v = pixel_grid(CELLS, CELLS, torch.device("cpu"))
    scene = model.encode(frames[0])
    found = scene._structure
    assert found is not None and found.agreement is not None
    time = torch.full(u.shape, 3)
    answers = scene.decode(Queries(u, v, time, time, time).apply(lambda x: x.reshape(-1)))
    expected = found.agreement.confidence(found.log_depth)[3]
    torch.testing.assert_close(answers.confidence.reshape(CELLS, CELLS), expected)


def test_a_window_without_structure_is_as_sure_as_a_single_frame() -> None:
    torch.manual_seed(0)
    noise = small_model().encode(torch.randint(256, (FRAMES, 3, 96, 128)).to(torch.uint8))
    alone = in_place(np.zeros((3, 3), bool)).confidence(flat(2.0, 2.0, 2.0))[0, 0, 0]
    found = noise.decode(some_queries(20, FRAMES)).confidence
    torch.testing.assert_close(found, alone.expand(20))


def test_a_network_that_compares_no_frames_tells_its_own() -> None:
    scene = small_model(replace(SMALL, flow=False, refiner=0)).encode(walls()[0])
    queries = some_queries(20, FRAMES)
    expected = scene.decode_raw(queries)["confidence"].sigmoid()
    torch.testing.assert_close(scene.decode(queries).confidence, expected)


def test_structure_begins_and_refined_depth_ends_with_it() -> None:
    frames, depth, _ = walls()
    torch.manual_seed(1)
    wrong = 0.2 * F.interpolate(torch.randn(1, FRAMES, 6, 6), (64, 64), mode="bicubic")[0]
    guess = pixels(depth, 64)[..., 2].log() + wrong
    found = found_in(frames, guess)
    assert found.agreement is not None
    small = F.adaptive_avg_pool2d(found.agreement.settle(guess)[None], CELLS)[0]
    torch.testing.assert_close(found.hints[:, -1], small - guess.mean())
    expected = found.agreement.settle(found.log_depth + wrong)
    torch.testing.assert_close(found.refined(wrong).log_depth, expected)
