"""What the network refuses in a sentence: windows, colours, lenses, queries and sizes that do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from test_network import SMALL, small_model, some_queries
from torch import Tensor

from d4rt_ros.model import Queries


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [(7, "not a multiple"), (10, "more than the network's 8"), (0, "not a multiple")],
)
def test_refuses_windows_that_do_not_fit(frames: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small_model().encode(torch.rand(frames, 3, 64, 64))


@pytest.mark.parametrize("shape", [(7, 3, 64, 64), (10, 3, 64, 64), (8, 3, 60, 64)])
def test_training_refuses_windows_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the network takes up to 8, a multiple of 2, of 64 x 64"):
        small_model()(torch.rand(1, *shape), torch.ones(1), some_queries(3, 6, batch=1))


@pytest.mark.parametrize("index", [-1, 8])
@pytest.mark.parametrize("which", ["t_src", "t_tgt", "t_cam"])
def test_refuses_times_out_of_range(index: int, which: str) -> None:
    encoded = small_model().encode(torch.rand(8, 3, 64, 64))
    queries = dataclasses.replace(some_queries(3, 8), **{which: torch.tensor([0, index, 0])})
    with pytest.raises(ValueError, match=r"outside 0\.\.7"):
        encoded.decode(queries)


def test_refuses_what_is_not_finite_or_misshapen() -> None:
    encoded = small_model().encode(torch.rand(8, 3, 64, 64))
    with pytest.raises(ValueError, match="not finite"):
        encoded.decode(Queries.make(float("nan"), torch.rand(3), 0, 0, 0))
    with pytest.raises(ValueError, match="integers, not torch.float32"):
        Queries.make(torch.rand(3), 0.5, 0, 0.5, 0)
    with pytest.raises(ValueError, match="queries must be"):
        encoded.decode(some_queries(3, 8, batch=2))
    with pytest.raises(ValueError, match="video must be"):
        small_model().encode(torch.rand(8, 64, 64))
    with pytest.raises(ValueError, match="rising stamps"):
        small_model().encode(torch.rand(8, 3, 64, 64), stamps=[0, 1, 2, 3, 4, 5, 6, 6])
    with pytest.raises(ValueError, match="not finite"):
        small_model().encode(torch.full((8, 3, 64, 64), float("nan")))
    short = dataclasses.replace(some_queries(3, 8), t_cam=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="must have one shape"):
        encoded.decode(short)
    with pytest.raises(ValueError, match="t_tgt: .* integers, not torch.float64"):
        encoded.decode(dataclasses.replace(some_queries(3, 8), t_tgt=torch.zeros(3, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (lambda video: video * 255, "values from 0 to 255; as floating point they must be in 0..1"),
        (lambda video: video * 2 - 1, "values from -1 to 1"),
        (lambda video: (video * 255).int(), "video is torch.int32; uint8 or floating point"),
        (lambda video: video > 0.5, "video is torch.bool"),
    ],
)
def test_refuses_colours_of_another_range(changed: Callable[[Tensor], Tensor], sentence: str) -> None:
    video = torch.linspace(0, 1, 8 * 3 * 64 * 64).reshape(8, 3, 64, 64)
    with pytest.raises(ValueError, match=sentence):
        small_model().encode(changed(video))


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf")])
def test_refuses_lenses_and_aspect_ratios_that_nothing_has(wrong: float) -> None:
    model, video = small_model(), torch.rand(8, 3, 64, 64)
    with pytest.raises(ValueError, match="aspect_ratio is .* must be above 0"):
        model.encode(video, aspect_ratio=wrong)
    with pytest.raises(ValueError, match="focal is .* must be above 0"):
        model.encode(video).with_focal(wrong)
    with pytest.raises(ValueError, match=r"aspect_ratio is \[3\]"):
        model.encode(video, aspect_ratio=torch.ones(3))
    with pytest.raises(ValueError, match="stamps are integers"):
        model.encode(video, stamps=[t + 0.1 for t in range(8)])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_size": (60, 64)}, "height 60 is not a multiple"),
        ({"frames": 7}, "frames 7 is not a multiple"),
        ({"vit_heads": 5}, "not a multiple of vit_heads"),
        ({"position": "none"}, "position"),
        ({"corner_pixels": True}, "relative read-outs .* not corner_pixels"),
        ({"vit_width": 0}, "vit_width is 0"),
        ({"vit_depth": 0}, "vit_depth is 0"),
        ({"vit_depth": -1}, "vit_depth is -1"),
        ({"vit_depth": "8"}, "vit_depth is '8'"),
        ({"vit_depth": 8.0}, "vit_depth is 8.0"),
        ({"vit_mlp_ratio": 0}, "vit_mlp_ratio is 0"),
        ({"vit_mlp_ratio": 1e-9}, "leaves none of 48 channels"),
        ({"dec_mlp_ratio": -1}, "dec_mlp_ratio is -1"),
        ({"uv_bands": -1}, "uv_bands is -1"),
        ({"uv_bands": 1.5}, "uv_bands is 1.5"),
        ({"flow": "no"}, "flow is 'no', must be true or false"),
        ({"frames": None}, "frames is None"),
        ({"image_size": 64}, "image_size is 64, must be 2 whole numbers"),
        ({"image_size": [64, 64, 3]}, r"image_size is \[64, 64, 3\]"),
        ({"image_size": (64.0, 64)}, r"image_size is \(64.0, 64\)"),
        ({"patch": (2, True, 8)}, r"patch is \(2, True, 8\), must be 3"),
        ({"patch": (2, 16, 16)}, "a pyramid of 8 channels needs"),
        ({"original_patches": True}, "colours from the network's input"),
    ],
)
def test_refuses_sizes_that_do_not_fit(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(SMALL, **change)
