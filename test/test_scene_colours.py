"""Colours of procedural scenes: textures stick to surfaces, shadows fall, rooms have floors and ceilings."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d4rt_ros.model import Queries
from d4rt_ros.training import scenes as scenes_module
from d4rt_ros.training import shapes
from d4rt_ros.training.layout import Layout
from d4rt_ros.training.raycast import World
from d4rt_ros.training.rigid import Random
from d4rt_ros.training.scenes import ProceduralScenes, SceneRecipe
from d4rt_ros.training.sensor import SensorSettings, capture, jpeg_blocks
from d4rt_ros.training.shading import Lamp, Light, Materials, hsv
from d4rt_ros.training.textures import TextureBank

CLEAN = SensorSettings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
RECIPE = SceneRecipe(frames=4, size=(48, 48), sensor=CLEAN)


@pytest.fixture(scope="module")
def scenes() -> ProceduralScenes:
    return ProceduralScenes(RECIPE)


def colour_at(video: torch.Tensor, frame: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Bilinear brightness [B, N] of a video at uv [B, N, 2] of frames [B, N]."""
    grey = video.float().mean(2)
    found = torch.zeros(uv.shape[:2])
    for t in range(video.shape[1]):
        values = F.grid_sample(
            grey[:, t, None], uv[:, :, None] * 2 - 1, align_corners=False, padding_mode="border"
        )
        found = torch.where(frame == t, values[:, 0, :, 0], found)
    return found


def test_colours_move_with_the_points(scenes: ProceduralScenes) -> None:
    batch = scenes.sample(10, torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    u, v = torch.rand(2, 10, 600, generator=g)
    source, target = torch.randint(0, 4, (2, 10, 600), generator=g)
    truth = batch.answer(Queries.make(u, v, source, target, target))
    shift = (truth.uv - torch.stack((u, v), -1)).norm(dim=-1) * 48
    use = (truth.visibility > 0) & (shift > 3)
    before = colour_at(batch.video, source, torch.stack((u, v), -1))
    after, stayed = (
        colour_at(batch.video, target, truth.uv),
        colour_at(batch.video, target, torch.stack((u, v), -1)),
    )
    followed, unmoved = (before - after)[use].abs().mean(), (before - stayed)[use].abs().mean()
    assert use.sum() > 300
    assert followed < 0.5 * unmoved


def test_floor_walls_and_ceiling_have_paints_of_their_own(
    scenes: ProceduralScenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = scenes_module.paint

    def plain(r: Random, layout: Layout, bank: TextureBank) -> Materials:
        made = original(r, layout, bank)
        colour = torch.full_like(made.dark, 0.0)
        for slot in range(3):  # walls red, floor green, ceiling blue
            colour[:, slot, slot] = 1.0
        return replace(made, dark=colour, bright=colour, gloss=torch.zeros_like(made.gloss))

    monkeypatch.setattr(scenes_module, "paint", plain)
    recipe = replace(RECIPE, places=(1.0, 1.0, 0.0, 0.0))
    batch = scenes.sample(8, torch.Generator().manual_seed(2), recipe)
    v, u = torch.meshgrid(*[(torch.arange(48) + 0.5) / 48] * 2, indexing="ij")
    truth = batch.answer(Queries.make(u.reshape(1, -1).expand(8, -1), v.reshape(1, -1), 1, 1, 1))
    pose = batch.world_from_camera[:, 1]
    normal = truth.normal @ pose[:, :3, :3].mT
    height = (truth.xyz @ pose[:, :3, :3].mT + pose[:, None, :3, 3])[..., 2]
    floor = (normal[..., 2] > 0.99) & (height.abs() < 1e-3)
    top = 2 * batch.layout.half[:, :1, 2]
    ceiling = (normal[..., 2] < -0.99) & ((height - top).abs() < 1e-2)
    video = batch.video[:, 1].permute(0, 2, 3, 1).reshape(8, -1, 3).float()
    for mask, channel in ((floor, 1), (ceiling, 2)):
        seen = video[mask]
        assert len(seen) > 100
        others = [c for c in range(3) if c != channel]
        assert seen[:, channel].mean() > 20 and seen[:, others].max() == 0


def test_a_box_throws_a_shadow_on_the_floor_below() -> None:
    pose = torch.eye(3, 4).repeat(1, 1, 2, 1, 1)
    pose[..., 0, :, :3] = torch.diag(torch.tensor((10.0, 10.0, 0.1)))  # floor, its top at z = .1
    pose[..., 1, :, :3] *= 0.3
    pose[..., 1, 2, 3] = 1.5  # box of side .6 whose middle is 1.5 m up
    world = World(torch.tensor([[shapes.BOX, shapes.BOX]]), pose, torch.zeros(1, 2), torch.zeros(1, 1, 2, 12))
    white = torch.ones(1, 3)
    lamp = Lamp(
        position=torch.tensor([[0.0, 0.0, 3.0]]), target=torch.zeros(1, 3), sun=torch.tensor([False]),
        strength=white, ambient=0.2 * white, reach=torch.tensor([5.0]), zenith=white, horizon=white,
        cloud=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    light = Light(lamp, world)
    x = torch.tensor((0.0, 0.3, 1.0, 2.0))
    point = (x, torch.zeros(4), torch.full((4,), 0.1))
    index = torch.zeros(4, dtype=torch.int64)
    # the box hides the lamp from the floor up to x = .3 / 1.2 * 2.9 = .725
    torch.testing.assert_close(light.shadow(index, index, point), torch.tensor((0.0, 0.0, 1.0, 1.0)))
    up = (torch.zeros(4), torch.zeros(4), torch.ones(4))
    away = (x, torch.zeros(4), torch.full((4,), -2.0))
    half = torch.full((4,), 0.5)
    red, _, _ = light.shade(index, index, point, up, away, (half, half, half), torch.zeros(4))
    torch.testing.assert_close(red[:2], torch.full((2,), 0.5 * 0.2))  # sky light alone
    distance2 = 2.9**2 + 1.0
    lit = 2.9 / distance2**0.5 / (1 + distance2 / 25)
    assert float(red[2]) == pytest.approx(0.5 * (lit + 0.2), rel=1e-4)


def test_hsv_of_known_colours() -> None:
    hue, one = torch.tensor((0.0, 1 / 3, 2 / 3, 0.5)), torch.ones(4)
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])
    torch.testing.assert_close(hsv(hue, one, one), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(hsv(hue, 0 * one, 0.4 * one), torch.full((4, 3), 0.4))


@pytest.mark.parametrize("effect", ["exposure_drift", "flicker", "noise", "blur", "vignette", "jpeg"])
def test_each_effect_of_the_sensor_changes_the_video_alone(effect: str) -> None:
    g = torch.Generator().manual_seed(0)
    colour = torch.rand(6, 3, 3, 16, 16, generator=g) * 0.5 + 0.1

    def shoot(settings: SensorSettings) -> torch.Tensor:
        return capture(colour, settings, Random(torch.Generator().manual_seed(3))).float()

    clean, changed = shoot(CLEAN), shoot(replace(CLEAN, **{effect: 1.0}))
    change = (changed - clean).abs().mean((1, 2, 3, 4))
    assert change.max() > 1
    if effect == "exposure_drift":
        brightness = changed.mean((2, 3, 4)) / clean.mean((2, 3, 4))
        assert (brightness[:, 0] - brightness[:, -1]).abs().max() > 0.05
    if effect == "vignette":
        corner, middle = (changed / clean.clamp_min(1))[..., 0, 0], (changed / clean.clamp_min(1))[..., 8, 8]
        assert (corner.mean((1, 2)) < middle.mean((1, 2)) - 0.05).any()
    if effect == "blur":
        assert (changed.std((3, 4)) < clean.std((3, 4))).all()


def test_photographs_become_textures(tmp_path, scenes: ProceduralScenes) -> None:  # noqa: ANN001
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30, 3), (0, 0, 255), np.uint8))
    bank = ProceduralScenes(replace(RECIPE, photographs=tmp_path)).bank
    assert bank.count == scenes.bank.count + 1
    index = torch.full((5,), bank.count - 1)
    rgb = torch.stack(bank.sample(index, torch.rand(5), torch.rand(5), torch.full((5,), 0.01)), -1)
    torch.testing.assert_close(rgb, torch.tensor([1.0, 0, 0]).expand(5, 3))
    (tmp_path / "b.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"b\.jpg is not a readable picture"):
        ProceduralScenes(replace(RECIPE, photographs=tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no pictures"):
        ProceduralScenes(replace(RECIPE, photographs=empty))


def test_textures_fade_to_their_mean_with_distance(scenes: ProceduralScenes) -> None:
    n = 64
    index = torch.full((n,), 30)
    u = torch.rand(n, generator=torch.Generator().manual_seed(0))
    near = scenes.bank.sample(index, u, u.flip(0), torch.full((n,), 1 / 128))[0]
    far = scenes.bank.sample(index, u, u.flip(0), torch.full((n,), 3.0))[0]
    assert near.std() > 0.1 and far.std() < 1e-6
    seam, left, right = (
        scenes.bank.sample(index, torch.full((n,), at), u, torch.full((n,), 1 / 128))[0]
        for at in (1.0, 1 - 0.5 / 128, 1 + 0.5 / 128)
    )
    torch.testing.assert_close(seam, 0.5 * (left + right), atol=2e-3, rtol=0)  # it tiles without a seam
    period = scenes.bank.sample(index, u + 3, u.flip(0), torch.full((n,), 1 / 128))[0]
    torch.testing.assert_close(period, near, atol=1e-3, rtol=0)


def test_jpeg_blocks_round_coefficients_and_keep_flat_images() -> None:
    image = torch.rand(2, 3, 20, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(jpeg_blocks(image, torch.full((2,), 1e-6)), image, atol=1e-4, rtol=0)
    coarse = jpeg_blocks(image, torch.full((2,), 0.2))
    assert coarse.shape == image.shape and 0.02 < (coarse - image).abs().mean() < 0.3
    flat = torch.full((1, 3, 16, 16), 0.5)
    torch.testing.assert_close(jpeg_blocks(flat, torch.tensor([0.25])), flat)
