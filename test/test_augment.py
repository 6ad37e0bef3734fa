"""Colours of training clips change as cameras change them."""

from __future__ import annotations

import pytest
import torch

from d4rt_ros.training.augment import AugmentSettings, augment_colour

NOTHING = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "drop": 0.0, "blur": 0.0}


def ramp() -> torch.Tensor:
    """Two frames of grey from 96 to 159 along the rows."""
    return (96 + torch.arange(64)).to(torch.uint8).expand(2, 3, 8, 64).clone()


def changed(**settings: float) -> list[torch.Tensor]:
    """The ramp after forty draws of an augmentation."""
    wanted = AugmentSettings(**{**NOTHING, **settings})
    return [augment_colour(ramp(), wanted, torch.Generator().manual_seed(i)) for i in range(40)]


def test_nothing_changes_where_nothing_is_wanted() -> None:
    assert all(torch.equal(video, ramp()) for video in changed())


@pytest.mark.parametrize("most", [0.4, 1.5])
def test_contrast_grows_and_shrinks_by_the_same_factor_round_the_mean(most: float) -> None:
    factors = [(v[0, 0, 0, 40].float() - v[0, 0, 0, 24].float()) / 16 for v in changed(contrast=most)]
    smallest, largest = float(min(factors)), float(max(factors))
    assert 1 / (1 + most) - 0.05 < smallest < 1 / (1 + 0.7 * most)
    assert 1 + 0.7 * most < largest < 1 + most + 0.05
    assert all(abs(float(v.float().mean()) - 127.5) < 1 for v in changed(contrast=most))


def test_gamma_moves_the_middle_both_ways_and_keeps_black_and_white() -> None:
    settings = AugmentSettings(**{**NOTHING, "gamma": 0.5})
    video = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 3, 1, 3).clone()
    seen = [augment_colour(video, settings, torch.Generator().manual_seed(i))[0, 0, 0] for i in range(40)]
    assert all((int(v[0]), int(v[2])) == (0, 255) for v in seen)
    middles = [int(v[1]) / 255 for v in seen]
    assert 0.5**1.5 - 0.01 < min(middles) < 0.42
    assert 0.58 < max(middles) < 0.5 ** (1 / 1.5) + 0.01


def test_all_frames_of_a_clip_change_alike() -> None:
    settings = AugmentSettings(gamma=0.5)
    for seed in range(10):
        video = augment_colour(ramp(), settings, torch.Generator().manual_seed(seed))
        assert torch.equal(video[0], video[1])
