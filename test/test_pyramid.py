"""The convolutions beside the transformer: what they see, where depth starts, and how they are trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import pytest
import torch
from test_network import some_queries
from torch import Tensor, nn

from d4rt_ros.model import D4RT, ModelConfig, Queries
from d4rt_ros.model.flow import with_depth
from d4rt_ros.model.pixels import pixel_to_uv
from d4rt_ros.model.pyramid import USUAL_FOCAL, Conv, Pyramid, Residual, levelled
from d4rt_ros.training.losses import map_error, relative_error

SMALL = ModelConfig(
    vit_width=48,
    vit_heads=2,
    vit_depth=2,
    dec_width=32,
    dec_heads=2,
    dec_depth=2,
    pyramid=8,
    flow=False,
    refiner=0,
)


def small_pyramid() -> Pyramid:
    torch.manual_seed(0)
    pyramid = Pyramid(8, token_width=12, slot=2, flow=True).eval().requires_grad_(False)
    for module in pyramid.modules():
        if isinstance(module, Conv):
            nn.init.normal_(module.weight, std=0.1)  # nothing begins at zero here
    return pyramid


@pytest.mark.parametrize(("row", "column"), [(0, 1), (1, 0), (2, 2)])
def test_a_kernel_lies_row_by_row_and_channels_side_by_side(row: int, column: int) -> None:
    conv, x = Conv(2, 1, zero=True).requires_grad_(False), torch.rand(1, 2, 5, 7)
    conv.weight[0, (row * 3 + column) * 2 + 1] = 1.0
    around = nn.functional.pad(x, (1, 1, 1, 1))
    assert torch.equal(conv(x), around[:, 1:, row : row + 5, column : column + 7])


def test_before_anything_is_learnt_depth_is_one_in_any_precision() -> None:
    residual, x = Residual(3), torch.randn(2, 3, 4, 5)
    assert torch.equal(residual(x), x.relu())
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = D4RT(SMALL).eval().requires_grad_(False).set_precision(precision)
        raw = model(torch.rand(1, 8, 3, 64, 64), torch.ones(1), some_queries(3, 8, batch=1))
        guess = raw["log_depth"]
        assert guess.dtype == torch.float32
        assert guess.abs().max() == 0


def test_exposure_and_contrast_of_a_window_are_levelled_out() -> None:
    torch.manual_seed(0)
    video = torch.rand(2, 4, 3, 16, 16) * torch.linspace(0.8, 1.0, 4).view(1, 4, 1, 1, 1)
    level = levelled(video)
    grey = level.mean(2).flatten(1)
    assert grey.mean(1).tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
    assert grey.std(1).tolist() == pytest.approx([0.15, 0.15], rel=1e-3)
    darker = torch.stack((video[0] * 0.3 + 0.1, video[1] * 0.5))
    torch.testing.assert_close(levelled(darker), level, atol=1e-4, rtol=0)
    frames = level.mean((2, 3, 4))
    assert bool((frames.diff(dim=1) > 0.01).all())  # what changes within a window stays


def test_noise_of_a_flat_window_is_not_blown_up() -> None:
    flat = torch.full((1, 2, 3, 8, 8), 0.9)
    assert torch.equal(levelled(flat), torch.full_like(flat, 0.5))
    assert (levelled(flat + 0.001 * torch.randn_like(flat)) - 0.5).abs().max() < 0.03


def test_answers_do_not_depend_on_the_exposure() -> None:
    torch.manual_seed(0)
    model = D4RT(SMALL).eval().requires_grad_(False)
    nn.init.normal_(cast("Conv", model.encoder.pyramid.guess.coarse).weight, std=0.1)  # type: ignore[union-attr]
    video, queries = torch.rand(1, 8, 3, 64, 64), some_queries(5, 8, batch=1)
    bright, dark = (model(v, torch.ones(1), queries) for v in (video, 0.4 * video + 0.2))
    assert bright["log_depth"].std() > 0.01
    for name in ("log_depth", "xyz", "uv", "visibility"):
        torch.testing.assert_close(dark[name], bright[name], atol=1e-3, rtol=1e-3)


def test_convolutions_know_how_far_down_and_how_far_right_they_are() -> None:
    pyramid, seen = small_pyramid(), []
    pyramid.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pyramid.down(torch.rand(1, 2, 3, 64, 48), None)
    down, right = torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 48)
    assert torch.equal(seen[0][:, 3], down[:, None].expand(2, 64, 48))
    assert torch.equal(seen[0][:, 4], right.expand(2, 64, 48))


def told(pyramid: Pyramid, video: Tensor, paths: Tensor | None = None) -> Tensor:
    return pyramid.told(pyramid.down(video, paths), len(video))


def test_halves_of_a_token_are_those_of_its_two_frames() -> None:
    pyramid, video = small_pyramid(), torch.rand(1, 6, 3, 64, 48)
    pyramid.to_tokens.weight[:, :32] = 0.0  # deaf to first frames
    before = told(pyramid, video)
    video[:, ::2] = 0.5
    torch.testing.assert_close(told(pyramid, video), before)
    video[:, 1::2] = 0.5
    assert (told(pyramid, video) - before).abs().max() > 0.01


def test_the_transformer_hears_what_convolutions_tell() -> None:
    torch.manual_seed(0)
    model, video = D4RT(SMALL).eval().requires_grad_(False), torch.rand(1, 4, 3, 64, 64)
    before = model.encoded(video, torch.ones(1)).memory
    assert model.encoder.pyramid is not None
    model.encoder.pyramid.to_tokens.weight.mul_(2.0)
    assert (model.encoded(video, torch.ones(1)).memory - before).abs().max() > 0.01


def test_the_transformer_tells_each_frame_and_cell_of_its_own() -> None:
    pyramid, video = small_pyramid(), torch.rand(1, 6, 3, 64, 48)
    nn.init.normal_(pyramid.from_tokens.weight)
    nn.init.zeros_(pyramid.from_tokens.bias)
    maps, tokens = pyramid.down(video, None), torch.zeros(1, 3 * 8 * 6, 12)
    assert torch.equal(pyramid.joined(maps, tokens).eighth, maps.eighth)
    tokens[0, 2 * 48 + 3 * 6 + 4] = 1.0  # third slot, fourth row, fifth column
    joined = pyramid.joined(maps, tokens)
    cells = (joined.eighth != maps.eighth).any(1).nonzero().tolist()
    assert cells == [[4, 3, 4], [5, 3, 4]]
    assert joined.half is maps.half
    assert (joined.eighth[4, :, 3, 4] - maps.eighth[4, :, 3, 4]).std() > 0.1
    halves = [(joined.eighth - maps.eighth)[frame, :, 3, 4] for frame in (4, 5)]
    assert not torch.allclose(*halves)


def test_depth_and_lens_hear_the_transformer() -> None:
    torch.manual_seed(0)
    model, video = D4RT(SMALL).eval().requires_grad_(False), torch.rand(1, 4, 3, 64, 64)
    assert model.encoder.pyramid is not None
    for part in (model.encoder.pyramid.guess.coarse, model.encoder.pyramid.lens.out):
        nn.init.normal_(part.weight, std=0.1)

    def found() -> tuple[Tensor, Tensor]:
        encoded = model.encoded(video, torch.ones(1))
        assert encoded.pixels is not None
        assert encoded.log_focal is not None
        return encoded.pixels[..., 3], encoded.log_focal

    before = found()
    nn.init.normal_(model.encoder.pyramid.from_tokens.weight, std=0.1)
    assert all((after - value).abs().max() > 1e-3 for after, value in zip(found(), before))


def test_depth_is_read_from_all_maps() -> None:
    pyramid = small_pyramid()
    maps = pyramid.down(torch.rand(1, 6, 3, 64, 48), None)
    before = pyramid.depth(maps, 1)
    assert before.shape == (1, 6, 64, 48)
    for name in maps._fields:
        moved = pyramid.depth(maps._replace(**{name: getattr(maps, name) + 0.1}), 1) - before
        assert moved.abs().amax((0, 2, 3)).min() > 0.01, name


def test_a_frame_has_its_own_depth_and_a_pixel_its_place() -> None:
    pyramid, video = small_pyramid(), torch.rand(1, 6, 3, 64, 48)
    before = pyramid.depth(pyramid.down(video, None), 1)
    video[0, 4, :, 30:34, 20:24] += 0.5
    moved = (pyramid.depth(pyramid.down(video, None), 1) - before).abs()[0]
    assert moved.amax((1, 2)).gt(0).tolist() == [False] * 4 + [True, False]
    assert moved[4, 24:40, 14:30].mean() > 4 * moved[4, :8].mean()


def test_a_token_is_told_of_its_own_frames() -> None:
    pyramid, video = small_pyramid(), torch.rand(1, 6, 3, 64, 48)
    before = told(pyramid, video)
    assert before.shape == (1, 3 * 8 * 6, 12)
    video[0, 3, :, :8, 40:] += 0.5
    moved = (told(pyramid, video) - before).abs().sum(-1).reshape(3, 8, 6)
    assert moved[0].max() == moved[2].max() == 0
    assert moved[1, :4, 3:].mean() > 4 * moved[1, 4:, :3].mean()  # most in the upper right


def test_flow_is_read_to_neighbours() -> None:
    pyramid, video = small_pyramid(), torch.rand(1, 6, 3, 64, 64)
    paths = torch.zeros(1, 6, 16, 16, 6, 3)
    before = told(pyramid, video, paths).reshape(6 // 2, -1)
    for there, slots in ((4, {1, 2}), (5, {2}), (0, {0}), (2, {0, 1})):
        changed = paths.clone()
        changed[..., there, 0] = 0.1
        moved = (told(pyramid, video, changed).reshape(3, -1) - before).abs().amax(-1) > 0
        assert set(moved.nonzero()[:, 0].tolist()) == slots, there


def test_every_frame_and_the_shape_of_images_tell_of_the_lens() -> None:
    pyramid, video, ratio = small_pyramid(), torch.rand(2, 6, 3, 64, 48), torch.tensor([0.75, 2.0])

    def told_by(frames: Tensor, ratio: Tensor) -> Tensor:
        return pyramid.lens(pyramid.down(frames, None).eighth, ratio)

    def lens() -> Tensor:
        return told_by(video, ratio)

    before = lens()
    assert before.shape == (2,)
    alone = torch.cat([told_by(video[:1, t : t + 1], ratio[:1]) for t in range(6)])
    torch.testing.assert_close(alone.mean(), before[0])
    video[1, 3, :, :20, :20] = 0.0
    assert lens()[0] == before[0]
    assert (lens()[1] - before[1]).abs() > 1e-5
    ratio[0] = 1.5
    assert (lens()[0] - before[0]).abs() > 1e-4


def test_a_network_begins_with_a_usual_lens() -> None:
    scene = D4RT(SMALL).eval().requires_grad_(False).encode(torch.rand(4, 3, 64, 64))
    torch.testing.assert_close(scene.focal, torch.tensor([USUAL_FOCAL]))


def with_known_guess(config: ModelConfig) -> tuple[D4RT, Tensor]:
    """A network whose guess is the same pattern of 4 x 4 pixels everywhere and which adds nothing to it."""
    torch.manual_seed(0)
    model = D4RT(config).eval().requires_grad_(False)
    assert model.encoder.pyramid is not None
    pattern = torch.linspace(-1, 1, 16)
    last = model.encoder.pyramid.guess.coarse
    last.weight.zero_()
    last.bias.copy_(pattern)
    xyz = cast("nn.Linear", model.heads.xyz_head)
    xyz.weight.zero_()
    xyz.bias.zero_()
    return model, pattern.reshape(4, 4).repeat(16, 16)


@pytest.mark.parametrize("flow", [False, True])
def test_depth_starts_from_the_guess_at_the_query_s_pixel(flow: bool) -> None:
    model, guess = with_known_guess(replace(SMALL, flow=flow))
    scene = model.encode(torch.rand(1, 3, 64, 64).expand(8, -1, -1, -1))  # still: see test_structure
    columns, rows = torch.tensor([0, 13, 30, 63]), torch.tensor([0, 22, 7, 63])
    u, v = pixel_to_uv(columns.float(), 64), pixel_to_uv(rows.float(), 64)
    depth = scene.decode(Queries.make(u, v, 3, 5, 6)).xyz[:, 2]
    torch.testing.assert_close(depth, guess[rows, columns].exp())
    between = scene.decode(Queries.make(pixel_to_uv(torch.tensor([12.5]), 64), v[1:2], 3, 5, 6)).xyz[0, 2]
    assert float(between) == pytest.approx(math.exp(float(guess[22, 12:14].mean())), rel=1e-5)


def test_a_query_is_told_the_shape_round_it_but_not_the_scale() -> None:
    model, _ = with_known_guess(SMALL)
    scene = model.encode(torch.rand(8, 3, 64, 64))
    u, v, t = (torch.full((1, 1), x) for x in (0.3, 0.4, 2))
    patches, own = model.query_embedder.patches(scene.images, u, v, t.long())
    deeper = scene.images + torch.tensor([0.0, 0.0, 0.0, 3.0])
    again, own_again = model.query_embedder.patches(deeper, u, v, t.long())
    torch.testing.assert_close(again, patches)
    assert own is not None
    assert own_again is not None
    assert float(own_again - own) == pytest.approx(3.0, abs=1e-5)
    assert float(patches.reshape(4, 9, 9)[3].std()) > 0.1


def test_paths_tell_how_much_deeper_they_end() -> None:
    paths = torch.zeros(2, 3, 4, 4, 3, 3)
    paths[0, 0, :, :, 2, 0] = 0.25  # a cell to the right
    depth = torch.zeros(2, 3, 8, 8)
    depth[0, 2] = torch.arange(8.0)
    depth[1, 1] = 5.0
    deeper = with_depth(paths, depth)
    assert deeper.shape == (2, 3, 4, 4, 3, 4)
    assert torch.equal(deeper[..., :3], paths)
    torch.testing.assert_close(deeper[0, 0, :, :3, 2, 3], torch.tensor([2.5, 4.5, 6.5]).expand(4, 3))
    torch.testing.assert_close(deeper[0, 1, :, :, 2, 3], torch.tensor([0.5, 2.5, 4.5, 6.5]).expand(4, 4))
    torch.testing.assert_close(deeper[1, 1, :, :, :, 3], torch.tensor([-5.0, 0.0, -5.0]).expand(4, 4, 3))


def test_map_error_by_hand_and_at_any_scale() -> None:
    depth = torch.tensor([[[[1.0, 2.0, 4.0], [8.0, torch.nan, torch.inf]]]])
    guess = torch.tensor([[[[0.0, 1.0, 2.0], [4.0, 9.0, -9.0]]]]) * math.log(2)
    torch.testing.assert_close(map_error(guess, depth), torch.tensor([math.log(2) / 4]))
    torch.testing.assert_close(map_error(guess + 3, depth), map_error(guess, depth))
    assert map_error(guess, torch.full_like(depth, torch.nan)) == 0


@pytest.mark.parametrize(("last", "expected"), [(16.0, 1.0), (4.0, 0.5), (8.0 * math.e**3, 3 * math.e - 1)])
def test_relative_error_is_absrel_but_for_what_is_far_too_large(last: float, expected: float) -> None:
    depth = torch.tensor([[[[1.0, 2.0, 4.0], [8.0, torch.nan, torch.inf]]]])
    guess = torch.tensor([[[[1.0, 2.0, 4.0], [last, 9.0, 1.0]]]]).log()
    torch.testing.assert_close(relative_error(guess, depth), torch.tensor([expected / 4]))
    torch.testing.assert_close(relative_error(guess - 2, depth), relative_error(guess, depth))
    assert relative_error(guess, torch.full_like(depth, torch.nan)) == 0


def test_relative_error_pushes_no_scale() -> None:
    torch.manual_seed(0)
    guess = torch.randn(2, 3, 5, 5, requires_grad=True)
    relative_error(guess, torch.ones(2, 3, 5, 5)).sum().backward()
    assert guess.grad is not None
    assert guess.grad.abs().max() > 0
    torch.testing.assert_close(guess.grad.sum((1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
