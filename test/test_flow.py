"""Optical flow chained over a window: against images that move as told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from d4rt_ros.model import Queries
from d4rt_ros.model.flow import flow_paths, follow

STEP = (1.5, -0.75)  # pixels a frame


def sliding(frames: int = 8, size: int = 64) -> Tensor:
    """[1, T, 3, size, size]: a texture that moves by STEP from frame to frame."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).random((160, 160)).astype(np.float32), (0, 0), 2.5)
    texture = (texture - texture.min()) / np.ptp(texture)
    images = []
    for t in range(frames):
        shift = np.float32([[1, 0, STEP[0] * t - 48], [0, 1, STEP[1] * t - 48]])
        images.append(cv2.warpAffine(texture, shift, (size, size), flags=cv2.INTER_CUBIC))
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
