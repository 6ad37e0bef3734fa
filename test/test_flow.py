"""Optical flow chained over a window: against images that move as told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from d4rt_ros.model import Queries, flow
from d4rt_ros.model.flow import fine_paths, flow_paths, follow, scaled
from d4rt_ros.model.network import from_pixel

STEP = (1.5, -0.75)  # pixels a frame


def sliding(frames: int = 8, width: int = 64, step: tuple[float, float] = STEP) -> Tensor:
    """[1, T, 3, 64, width]: a texture that moves by `step` from frame to frame."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).random((160, 160)).astype(np.float32), (0, 0), 2.5)
    texture = (texture - texture.min()) / np.ptp(texture)
    images = []
    for t in range(frames):
        shift = np.float32([[1, 0, step[0] * t - 48], [0, 1, step[1] * t - 48]])
        images.append(cv2.warpAffine(texture, shift, (width, 64), flags=cv2.INTER_CUBIC))
    return torch.from_numpy(np.stack(images))[None, :, None].expand(-1, -1, 3, -1, -1).clamp(0, 1)


def test_paths_follow_a_moving_texture_forth_and_back() -> None:
    paths = flow_paths(sliding())
    assert paths.shape == (1, 8, 16, 16, 8, 3)
    inside = paths[0, :, 5:11, 5:11]
    for i in range(8):
        for j in range(8):
            way = inside[i, :, :, j, :2].reshape(-1, 2).median(0).values * 64
            assert way.tolist() == pytest.approx([STEP[0] * (j - i), STEP[1] * (j - i)], abs=0.35)
            assert inside[i, :, :, j, 2].median() * 64 < 0.3, "it comes back"


def test_ways_are_in_image_widths_and_heights() -> None:
    inside = flow_paths(sliding(2, width=128))[0, 0, 4:12, 8:24, 1]
    du, dv = inside[..., :2].reshape(-1, 2).median(0).values
    assert (float(du) * 128, float(dv) * 64) == pytest.approx(STEP, abs=0.35)


def known(monkeypatch: pytest.MonkeyPatch, way: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Tensor:
    """Paths [16, 16, 2, 3] of two frames, to which `way` (u, v) to (du, dv) is the flow."""
    axis = (np.arange(64, dtype=np.float32) + 0.5) / 64
    monkeypatch.setattr(flow, "_flows", lambda images: [way(*np.meshgrid(axis, axis)).astype(np.float32)])
    return flow_paths(torch.rand(1, 2, 3, 64, 64))[0]


def test_the_way_back_is_that_of_the_points_which_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a zoom by 1.25 what is here now was nearer to the middle before, where the flow was less."""
    paths = known(monkeypatch, lambda u, v: np.stack((u - 0.5, v - 0.5), -1) * 0.25)
    centre = (torch.arange(16) + 0.5) / 16 - 0.5
    for here, there, scale in ((0, 1, 1.25), (1, 0, 0.8)):
        du = paths[here, 3:13, 3:13, there, 0]
        torch.testing.assert_close(du, ((scale - 1) * centre[3:13]).expand(10, 10), atol=2e-3, rtol=0)
    assert paths[:, 4:12, 4:12, :, 2].max() < 2e-3


def test_who_ends_at_another_one_s_place_does_not_find_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The left half slides by a quarter, in part behind the right half, which stays."""
    paths = known(monkeypatch, lambda u, v: np.stack((0.25 * (u < 0.5), 0 * v), -1))
    missed = paths[0, 8, :, 1, 2]
    assert missed[:3].max() < 1e-3  # still in sight
    torch.testing.assert_close(missed[4:7], torch.full((3,), 0.25))  # behind: how far it is from the start
    assert missed[9:].max() < 1e-3


def test_threads_do_not_share_what_flow_is_computed_with() -> None:
    clips = [torch.rand(1, 4, 3, 96, 96) for _ in range(8)]
    alone = [flow_paths(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(flow_paths, clips), alone):
            assert torch.equal(found, expected)


def test_answers_start_where_flow_leads_the_pixel() -> None:
    """Its place in the asked frame at t_tgt, the ray through its place in the frame of the camera."""
    queries = Queries.make(torch.tensor([[0.5, 0.3]]), torch.tensor([[0.5, 0.6]]), 0, 1, 2)
    path = torch.zeros(1, 2, 3, 3)
    path[..., 1, :2], path[..., 2, :2] = torch.tensor([0.1, 0.2]), torch.tensor([-0.05, 0.03])
    raw = {"uv": torch.tensor([[[0.01, 0.0]] * 2]), "xyz": torch.zeros(1, 2, 3)}
    found = from_pixel(raw, queries, path, torch.full((1, 2), np.log(2.0)))
    torch.testing.assert_close(found["uv"], torch.tensor([[[0.61, 0.7], [0.41, 0.8]]]))
    rays = 1.4 * torch.tensor([[-0.05, 0.03], [-0.25, 0.13]])
    torch.testing.assert_close(found["xyz"][0], 2 * torch.cat((rays, torch.ones(2, 1)), 1))


def test_flow_out_of_the_image_tells_no_more_than_half_of_it() -> None:
    found = scaled(torch.tensor([0.02, 0.5, 0.9, -3.0]))
    torch.testing.assert_close(found, torch.tensor([0.2, 5.0, 5.0, -5.0]))


def test_a_still_camera_leads_nowhere() -> None:
    paths = flow_paths(sliding()[:, :1].expand(-1, 4, -1, -1, -1))
    assert paths.abs().max() < 1e-3


def test_points_between_cells_are_blended_and_borders_hold() -> None:
    paths = torch.zeros(2, 3, 4, 5, 3, 3)
    u = (torch.arange(5) + 0.5) / 5
    v = (torch.arange(4) + 0.5) / 4
    paths[1, 2, :, :, 1, 0] = u
    paths[1, 2, :, :, 1, 1] = v[:, None]
    queries = Queries.make(torch.tensor([[0.3, 0.0, 1.0]] * 2), torch.tensor([[0.6, 0.0, 1.0]] * 2), 2, 1, 0)
    found = follow(paths, queries)
    assert found.shape == (2, 3, 3, 3)
    expected = torch.tensor([[0.3, 0.6], [0.1, 0.125], [0.9, 0.875]])
    torch.testing.assert_close(found[1, :, 1, :2], expected)
    assert found[0].abs().max() == 0
    assert found[1, :, [0, 2]].abs().max() == 0


@pytest.mark.parametrize("shape", [(1, 1, 3, 64, 64), (2, 2, 3, 16, 8), (1, 4, 3, 8, 24), (1, 2, 3, 5, 7)])
def test_any_size_has_paths(shape: tuple[int, ...]) -> None:
    paths = flow_paths(torch.rand(shape))
    b, frames, _, height, width = shape
    assert paths.shape == (b, frames, -(-height // 4), -(-width // 4), frames, 3)
    assert bool(torch.isfinite(paths).all())


def test_a_clip_of_a_batch_is_followed_as_alone() -> None:
    clips = torch.cat((sliding(4), torch.rand(1, 4, 3, 64, 64)))
    torch.testing.assert_close(flow_paths(clips)[:1], flow_paths(clips[:1]))


def test_steps_that_err_alike_do_not_add_up_over_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    biased = np.broadcast_to(np.float32([STEP[0] + 0.3, STEP[1]]) / 64, (64, 64, 2))
    monkeypatch.setattr(flow, "_flows", lambda images, starts: [biased.copy() for _ in images[1:]])
    paths = fine_paths((sliding()[0] * 255).to(torch.uint8), 16)
    assert paths.shape == (1, 8, 16, 16, 8, 3)
    for i, j in ((0, 7), (7, 0), (2, 5), (6, 1)):
        way = paths[0, i, 5:11, 5:11, j, :2].reshape(-1, 2).median(0).values * 64
        assert way.tolist() == pytest.approx([STEP[0] * (j - i), STEP[1] * (j - i)], abs=0.35), (i, j)


def test_a_camera_that_turns_fast_is_followed() -> None:
    frames = (sliding(4, step=(15.0, -9.0))[0] * 255).to(torch.uint8)
    frames[2] = torch.randint(256, frames[2].shape, generator=torch.Generator().manual_seed(0))  # all noise
    paths = fine_paths(frames, 16)
    way = paths[0, 0, 4:12, 2:10, 1, :2].reshape(-1, 2).median(0).values * 64
    assert way.tolist() == pytest.approx([15.0, -9.0], abs=0.5)


def test_where_a_shift_is_not_clear_the_nearest_that_is_tells() -> None:
    frames = sliding(4, step=(15.0, -9.0))[0, :, 0].mul(255).byte().numpy()
    frames[3] = np.random.default_rng(0).integers(256, size=frames[3].shape)
    starts = flow._starts(frames)
    assert all(start is not None and start.shape == (64, 64, 2) for start in starts)
    for start in starts:
        np.testing.assert_allclose(start[0, 0], (15.0, -9.0), atol=1.0)
    assert flow._starts(sliding(3)[0, :, 0].mul(255).byte().numpy()) == [None, None], "slow"
    noise = np.random.default_rng(0).integers(256, size=(3, 64, 64)).astype(np.uint8)
    assert flow._starts(noise) == [None, None]


def test_frames_of_one_size_after_those_of_another() -> None:
    for size in ((96, 96), (128, 48), (40, 64), (256, 256), (16, 16)) * 2:
        assert bool(torch.isfinite(fine_paths(torch.randint(256, (4, 3, *size)).to(torch.uint8), 32)).all())
