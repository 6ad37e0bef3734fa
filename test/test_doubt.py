"""Deviations of optical flow against the errors that it makes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from d4rt_ros.model.doubt import doubts
from d4rt_ros.model.flow import fine_paths

SIZE, CELLS, FRAMES = 128, 32, 4
WAY = np.array([1.7, -0.6])  # pixels a frame
INNER = slice(6, 26)  # cells that the border does not touch


def texture(seed: int) -> np.ndarray:
    """Structure at some scales, [256, 256] float32 with a standard deviation of 1."""
    noise = np.random.default_rng(seed).normal(0, 1, (256, 256)).astype(np.float32)
    image = sum(cv2.GaussianBlur(noise, (0, 0), s) * s for s in (1.5, 3.0, 6.0))
    return np.asarray(image / image.std())


def sliding(contrast: np.ndarray, noise: float, seed: int = 0) -> torch.Tensor:
    """Frames [T, 3, H, W] of a texture that moves by WAY; its contrast [H, W] and noise in grey levels."""
    rng, picture = np.random.default_rng(seed + 100), texture(seed)
    v, u = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    frames = []
    for t in range(FRAMES):
        x, y = (u + 64 - np.float32(t * WAY[0])), (v + 64 - np.float32(t * WAY[1]))
        grey = 128 + contrast * cv2.remap(picture, x, y, cv2.INTER_CUBIC) + rng.normal(0, noise, (SIZE, SIZE))
        frames.append(np.repeat(grey.clip(0, 255).round()[None], 3, 0))
    return torch.from_numpy(np.stack(frames)).to(torch.uint8)


def errors(paths: torch.Tensor) -> np.ndarray:
    """How far paths from frame to frame lead from where the texture goes, [T, h, w, T], pixels an axis."""
    step = np.arange(FRAMES)
    true = (step[None, :] - step[:, None])[:, None, None, :, None] * WAY
    apart = paths[..., :2].numpy() * SIZE - true
    return np.asarray(np.sqrt((apart**2).mean(-1)))


def off_diagonal(values: np.ndarray) -> np.ndarray:
    """What concerns two frames, of the inner cells."""
    apart = ~np.eye(FRAMES, dtype=bool)
    return np.concatenate([values[i][INNER, INNER][..., apart[i]].ravel() for i in range(FRAMES)])


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_deviations_are_as_large_as_errors_and_larger_where_texture_is_faint(noise: float) -> None:
    contrast = np.full((SIZE, SIZE), 40.0, np.float32)
    contrast[:, SIZE // 2 :] = 8.0
    frames = sliding(contrast, noise)
    paths = fine_paths(frames, CELLS)[0]
    told, made = doubts(frames, paths).numpy() * SIZE, errors(paths)
    strong, faint = slice(6, 14), slice(18, 26)
    for part in (strong, faint):
        seen = np.isfinite(told[:, INNER, part]) & (told[:, INNER, part] > 0)
        assert seen.mean() > 0.9
        deviation = np.median(told[:, INNER, part][seen])
        error = np.sqrt(np.mean(made[:, INNER, part][seen] ** 2))
        assert error < 2.5 * deviation, "no error is far beyond its deviation"
    ratio = np.median(told[:, INNER, faint]) / np.median(told[:, INNER, strong])
    assert 2.5 < ratio < 9.0, "a fifth of the contrast holds a fifth as well"


def test_noise_tells_more_doubt_in_proportion() -> None:
    contrast = np.full((SIZE, SIZE), 40.0, np.float32)
    found = {}
    for noise in (3.0, 12.0):
        frames = sliding(contrast, noise)
        told = off_diagonal(doubts(frames, fine_paths(frames, CELLS)[0]).numpy())
        found[noise] = float(np.median(told[np.isfinite(told)]))
    assert found[12.0] / found[3.0] == pytest.approx(4.0, rel=0.35)


def test_what_is_hidden_is_mostly_not_followed() -> None:
    """A patch of one frame that another one does not show has no way there; others keep theirs.

    Mostly: flow looks for what is alike, and finds some.
    """
    contrast = np.full((SIZE, SIZE), 40.0, np.float32)
    frames = sliding(contrast, 1.0)
    other = sliding(contrast, 1.0, seed=7)
    frames[2, :, 40:88, 40:88] = other[0, :, 40:88, 40:88]
    told = doubts(frames, fine_paths(frames, CELLS)[0])
    inside, outside = (slice(13, 19),) * 2, (slice(6, 8), slice(6, 26))
    assert bool(torch.isinf(told[2][inside][..., [0, 1, 3]]).float().mean() > 0.5)
    assert bool(torch.isinf(told[1][inside][..., 2]).float().mean() > 0.5)
    assert bool(torch.isfinite(told[1][inside][..., 0]).float().mean() > 0.9)
    assert bool(torch.isfinite(told[2][outside][..., 1]).float().mean() > 0.9)


def test_frames_of_noise_or_of_one_colour_show_nothing_twice() -> None:
    torch.manual_seed(0)
    for frames in (torch.randint(256, (FRAMES, 3, SIZE, SIZE)), torch.full((FRAMES, 3, SIZE, SIZE), 90)):
        frames = (frames + torch.randint(3, frames.shape)).to(torch.uint8)
        told = off_diagonal(doubts(frames, fine_paths(frames, CELLS)[0]).numpy())
        assert np.isfinite(told).mean() < 0.1


def test_a_change_of_light_is_no_doubt() -> None:
    contrast = np.full((SIZE, SIZE), 30.0, np.float32)
    frames = sliding(contrast, 1.0)
    paths = fine_paths(frames, CELLS)[0]
    brighter = frames.clone()
    brighter[1] = (brighter[1].float() + 25).clamp(max=255).to(torch.uint8)
    plain, changed = (off_diagonal(doubts(video, paths).numpy()) for video in (frames, brighter))
    assert np.median(changed) == pytest.approx(np.median(plain), rel=0.15)


def test_sums_that_cancel_are_no_trouble() -> None:
    """Where one half is burnt out beside the strongest contrast, running sums end a little below nothing."""
    for seed, edge in enumerate((30, 51, 72, 90)):
        frames = sliding(np.full((SIZE, SIZE), 120.0, np.float32), 30.0, seed)
        frames[:, :, :, edge:] = 255
        told = doubts(frames, fine_paths(frames, CELLS)[0])
        assert not bool(torch.isnan(told).any())
        assert bool(torch.isinf(told[0, :, -4:, 1:]).all()), "nothing is seen in what is burnt out"
