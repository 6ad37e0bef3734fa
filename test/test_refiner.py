"""Convolutions that look at depth once more, knowing what a window's motion says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_network import SMALL
from torch import Tensor, nn

from d4rt_ros.model import D4RT, ModelConfig
from d4rt_ros.model.pyramid import Conv
from d4rt_ros.model.refiner import HINTS, Refiner


def small_refiner() -> Refiner:
    torch.manual_seed(0)
    refiner = Refiner(4).eval().requires_grad_(False)
    for module in refiner.modules():
        if isinstance(module, Conv):
            nn.init.normal_(module.weight, std=0.2)  # nothing begins at zero here
    return refiner


def given() -> tuple[Tensor, Tensor]:
    """Pixels and hints of a window that is not square."""
    torch.manual_seed(1)
    return torch.rand(1, 4, 64, 48, 4), torch.rand(1, 4, HINTS, 32, 32)


def test_before_anything_is_learnt_nothing_is_changed() -> None:
    found = Refiner(4)(*given())
    assert found.shape == (1, 4, 64, 48)
    assert found.dtype == torch.float32
    assert found.abs().max() == 0


@pytest.mark.parametrize("index", range(HINTS))
def test_a_hint_changes_depth_where_it_is_given(index: int) -> None:
    refiner, (pixels, hints) = small_refiner(), given()
    before = refiner(pixels, hints)
    hints[0, 2, index, 30:, 30:] += 1.0
    moved = (refiner(pixels, hints) - before).abs()[0]
    assert moved.amax((1, 2)).gt(0).tolist() == [False, False, True, False]
    assert moved[2, 48:, 36:].mean() > 4 * moved[2, :16, :12].mean()


@pytest.mark.parametrize("channel", range(4))
def test_colours_and_the_guess_are_looked_at(channel: int) -> None:
    refiner, (pixels, hints) = small_refiner(), given()
    before = refiner(pixels, hints)
    pixels[0, 1, 10, 20, channel] += 1.0
    moved = (refiner(pixels, hints) - before).abs()[0, 1]
    assert moved[8:13, 18:23].max() > 1e-3
    assert moved[4:16, 14:26].mean() > 3 * moved[40:].mean()


def test_the_scale_of_the_guess_does_not_matter() -> None:
    refiner, (pixels, hints) = small_refiner(), given()
    before = refiner(pixels, hints)
    pixels[..., 3] += 2.0
    torch.testing.assert_close(refiner(pixels, hints), before, atol=1e-4, rtol=1e-4)


def test_windows_of_a_batch_are_looked_at_each_by_itself() -> None:
    refiner, (pixels, hints) = small_refiner(), given()
    both = refiner(torch.cat((pixels, 2 * pixels)), torch.cat((hints, hints)))
    torch.testing.assert_close(both[:1], refiner(pixels, hints), atol=1e-5, rtol=1e-5)


def test_a_network_has_one_if_it_is_asked_for() -> None:
    pixels, hints = torch.rand(1, 8, 64, 64, 4), torch.rand(1, 8, HINTS, 32, 32)
    model = D4RT(replace(SMALL, refiner=0))
    assert model.refiner is None
    assert torch.equal(model.refine(pixels, hints), torch.zeros(1, 8, 64, 64))
    model = D4RT(replace(SMALL, refiner=4)).eval().requires_grad_(False)
    assert model.refiner is not None
    nn.init.normal_(model.refiner.change.weight)
    plain = model.refine(pixels, hints)
    assert plain.abs().max() > 0.01
    with torch.inference_mode():
        torch.testing.assert_close(model.refine(pixels, hints), plain)
    low = model.set_precision(torch.bfloat16).refine(pixels, hints)
    assert low.dtype == torch.float32
    assert (low - plain).abs().max() < 0.1 * plain.abs().max()


@pytest.mark.parametrize("changes", [{"flow": False}, {"pyramid": 0}, {"refiner": -1}])
def test_what_it_needs_is_asked_for(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="refiner of .* channels"):
        ModelConfig(**changes)  # type: ignore[arg-type]
