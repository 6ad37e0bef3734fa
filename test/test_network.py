"""The network agrees with OpenD4RT's numbers, with a second implementation, and with itself."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference_network import ReferenceNetwork
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from d4rt_ros.model import D4RT, ModelConfig, Queries, Scene, load_model, named_config, scene
from d4rt_ros.model.config import NAMES, read_config
from d4rt_ros.model.embedding import from_network
from d4rt_ros.model.flops import encode_flops, query_flops
from d4rt_ros.model.pixels import pixel_grid, pixel_to_uv, uv_to_pixel
from d4rt_ros.model.weights_command import compare

GOLDEN = Path(__file__).parent / "golden" / "opend4rt_tiny"
SMALL = ModelConfig(
    vit_width=48, vit_heads=2, vit_depth=2, dec_width=32, dec_heads=2, dec_depth=2, pyramid=8, refiner=4
)


def on_lens(scene: Scene, xyz: torch.Tensor) -> torch.Tensor:
    """The network's own [..., 3] as the scene answers it: with the rays of its lens."""
    return xyz * torch.stack((*2 * [scene._across[0]], torch.ones(())))


def small_model(config: ModelConfig = SMALL) -> D4RT:
    torch.manual_seed(0)
    return D4RT(config).eval().requires_grad_(False)


def some_queries(count: int, frames: int, batch: int | None = None) -> Queries:
    shape = (count,) if batch is None else (batch, count)
    times = (torch.randint(frames, shape) for _ in range(3))
    return Queries(torch.rand(shape), torch.rand(shape), *times)


@pytest.fixture(scope="module")
def golden() -> D4RT:
    return load_model(GOLDEN / "model.safetensors", config=read_config(GOLDEN / "config.json"))


def test_agrees_with_opend4rt(golden: D4RT) -> None:
    errors = compare(golden, GOLDEN / "io.safetensors")
    assert set(errors) == {"memory", "xyz", "uv", "visibility", "displacement", "normal", "confidence"}
    assert max(errors.values()) < 1e-4


def random_sizes(seed: int) -> ModelConfig:
    pick = random.Random(seed)
    t, h, w = pick.choice((1, 2, 3)), pick.choice((4, 8, 16)), pick.choice((4, 8, 16))
    vit_heads, dec_heads = pick.choice((1, 2, 3)), pick.choice((2, 4))
    return ModelConfig(
        frames=t * pick.randint(1, 4),
        image_size=(h * pick.randint(1, 4), w * pick.randint(1, 4)),
        patch=(t, h, w),
        vit_width=vit_heads * pick.choice((8, 16)),
        vit_heads=vit_heads,
        vit_depth=pick.randint(1, 4),
        vit_mlp_ratio=pick.choice((2.0, 4.0, 48 / 11)),
        dec_width=dec_heads * pick.choice((6, 10)),
        dec_heads=dec_heads,
        dec_depth=pick.randint(1, 3),
        dec_mlp_ratio=pick.choice((3.5, 2.3)),
        uv_bands=pick.choice((4, 8)),
        rgb_patch=pick.choice((3, 9)),
        position="flat",
        corner_pixels=True,
        relative=False,
        anchored=False,
        flow=False,
        pyramid=0,
        refiner=0,
    )


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_a_second_implementation_at_random_sizes(seed: int) -> None:
    torch.manual_seed(seed)
    config = random_sizes(seed)
    reference = ReferenceNetwork(config).eval()
    model = D4RT(config).eval()
    model.load_state_dict(reference.state_dict())
    video, aspect = torch.rand(2, config.frames, 3, *config.image_size), torch.tensor([0.75, 1.8])
    own = torch.rand(2, 17, 2)  # in the network's counting
    times = torch.randint(config.frames, (3, 2, 17))
    u, v = from_network(own, config.image_size, True).unbind(-1)
    with torch.no_grad():
        expected = reference(video, aspect, *own.unbind(-1), times)
    got = model.encode(video, aspect_ratio=aspect).decode_raw(Queries(u, v, *times))
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_bfloat16_stays_within_two_percent(golden: D4RT) -> None:
    queries = some_queries(200, 8)
    video = torch.rand(8, 3, 64, 64)
    exact = golden.encode(video).decode_raw(queries)
    rough = golden.set_precision(torch.bfloat16).encode(video).decode_raw(queries)
    golden.set_precision(torch.float32)
    for name, value in exact.items():
        assert float((rough[name] - value).norm() / value.norm()) < 2e-2, name


def test_the_split_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = small_model().encode(torch.rand(8, 3, 64, 64))
    queries = some_queries(500, 8)
    whole = encoded.decode(queries)
    monkeypatch.setattr(scene, "CHUNK_CPU", 7)
    parts = encoded.decode(queries)
    for field in dataclasses.fields(whole):
        one, other = getattr(whole, field.name), getattr(parts, field.name)
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_queries_do_not_see_one_another() -> None:
    encoded = small_model().encode(torch.rand(8, 3, 64, 64))
    queries = some_queries(50, 8)
    alone = encoded.decode(queries.apply(lambda x: x[:1]))
    torch.testing.assert_close(encoded.decode(queries).xyz[:1], alone.xyz, atol=2e-6, rtol=1e-5)


def test_a_batch_of_windows_is_each_of_them() -> None:
    model = small_model()
    videos, queries = torch.rand(3, 8, 3, 40, 56), some_queries(20, 8, batch=3)
    batch = model.encode(videos)
    together = batch.decode(queries)
    for index in range(3):
        alone = model.encode(videos[index]).decode(queries.apply(lambda x, i=index: x[i]))
        again = batch[index].decode(queries.apply(lambda x, i=index: x[i]))
        torch.testing.assert_close(together.xyz[index], alone.xyz, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(again.uv, alone.uv, atol=2e-6, rtol=1e-5)


def test_forward_for_training_is_the_cached_path() -> None:
    model = small_model()
    video, queries = torch.rand(1, 8, 3, 64, 64), some_queries(20, 8, batch=1)
    raw = model(video, torch.ones(1), queries)
    scene = model.encode(video)
    with torch.inference_mode():
        cached = model.answer_quickly(queries, scene.images, scene.memory, scene.paths)
    assert raw.keys() - cached.keys() == {"log_depth", "log_focal"}
    for name, value in cached.items():
        torch.testing.assert_close(raw[name], value, atol=2e-6, rtol=1e-5)


def test_patches_come_from_the_original_where_asked() -> None:
    config = dataclasses.replace(SMALL, original_patches=True, pyramid=0, refiner=0)
    assert small_model(config).encode(torch.rand(8, 3, 100, 200)).images.shape[2:4] == (100, 200)
    assert small_model(SMALL).encode(torch.rand(8, 3, 100, 200)).images.shape[2:4] == (64, 64)


def test_colour_patch_by_hand() -> None:
    embed = small_model().query_embedder
    images = torch.arange(2 * 3 * 20 * 30, dtype=torch.float32).reshape(1, 2, 3, 20, 30)
    u = torch.tensor([[pixel_to_uv(12.0, 30), pixel_to_uv(12.25, 30), 0.0]])
    v = torch.tensor([[pixel_to_uv(9.0, 20), pixel_to_uv(9.0, 20), 0.0]])
    patches, depth = embed.patches(images.movedim(2, -1), u, v, torch.tensor([[1, 0, 0]]))
    assert depth is None
    patches = patches.reshape(3, 3, 9, 9)
    assert torch.equal(patches[0], images[0, 1, :, 5:14, 8:17])
    torch.testing.assert_close(patches[1], images[0, 0, :, 5:14, 8:17] + 0.25)
    assert torch.equal(patches[2][:, :4, :4], images[0, 0, :, 0, 0][:, None, None].expand(3, 4, 4))


def test_pixel_convention_by_hand() -> None:
    assert pixel_to_uv(0.0, 4) == 0.125
    assert pixel_to_uv(3.0, 4) == 0.875
    assert uv_to_pixel(1.0, 4) == 3.5  # the right edge, half a pixel beyond the last centre
    u, v = pixel_grid(2, 4)
    assert u.tolist() == [0.125, 0.375, 0.625, 0.875] * 2
    assert v.tolist() == [0.25] * 4 + [0.75] * 4
    # Between pixel centres, 0 is the first centre and 1 the last.
    ends = from_network(torch.tensor([[0.0, 1.0]]), (4, 4), True)
    torch.testing.assert_close(ends, torch.tensor([[0.125, 0.875]]))


def test_shorter_windows_are_fine() -> None:
    assert small_model().encode(torch.rand(4, 3, 64, 64)).decode(some_queries(5, 4)).xyz.shape == (5, 3)


@pytest.mark.parametrize("width", [2, 4, 6, 10])
def test_tokens_of_few_channels_have_places(width: int) -> None:
    """Time comes before row and column where there are too few channels for all three."""
    config = ModelConfig(frames=4, image_size=(16, 24), vit_width=width, vit_heads=1)
    place = D4RT(config).encoder.position
    assert place.shape == (12, width) and place.isfinite().all()
    assert len(place[:, :2].unique(dim=0)) == 2


def test_answers_belong_to_who_asks() -> None:
    encoded = small_model().encode(torch.rand(8, 3, 64, 64))
    weight = torch.ones(1, requires_grad=True)
    answers = encoded.decode(dataclasses.replace(some_queries(3, 8), u=torch.rand(3, dtype=torch.float64)))
    (answers.xyz * weight).sum().backward()
    for field in dataclasses.fields(answers):
        getattr(answers, field.name)[0] = float("nan")
    assert bool(torch.isfinite(encoded.decode(some_queries(3, 8)).xyz).all())


def test_no_queries_no_answers() -> None:
    answers = small_model().encode(torch.rand(8, 3, 64, 64)).decode(some_queries(0, 8))
    assert answers.xyz.shape == (0, 3)
    assert answers.visibility.shape == (0,)


def test_flops_agree_with_torch() -> None:
    for config in (SMALL, random_sizes(3)):
        model = small_model(config)
        video = torch.rand(1, config.frames, 3, *config.image_size)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as encode:
            encoded = model.encoded(video, torch.ones(1))
            memory = model.decoder.keys_values(encoded.memory)
        assert encode.get_total_flops() == encode_flops(config)
        pixels = video.movedim(2, -1) if encoded.pixels is None else encoded.pixels
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as decode:
            model.answer(some_queries(10, config.frames, batch=1), pixels, memory, encoded.paths)
        assert decode.get_total_flops() == 10 * query_flops(config)


def test_named_sizes_have_the_paper_s_parameter_counts() -> None:
    counts = {}
    for name in NAMES:
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in D4RT(named_config(name)).parameters()) / 1e6
    assert counts["giant"] == pytest.approx(1150, rel=0.02)
    assert counts["builtin"] < 16  # 32 MB in 16 bits
    assert sorted(counts, key=counts.__getitem__)[:4] == ["builtin", "base", "large", "huge"]
    with torch.device("meta"):
        assert len(D4RT(named_config("opend4rt-48")).state_dict()) == 627
    with pytest.raises(ValueError, match="unknown model size 'small'"):
        named_config("small")


def test_scene_face() -> None:
    video = torch.randint(256, (8, 3, 30, 40), dtype=torch.uint8)
    encoded = small_model().encode(video, stamps=range(100, 108))
    assert isinstance(encoded, Scene)
    assert torch.equal(encoded.frames, video)
    assert encoded.stamps == tuple(range(100, 108))
    assert (encoded.num_frames, encoded.image_size) == (8, (30, 40))
    assert encoded
    assert encoded != dataclasses.replace(encoded)  # each is itself alone
    assert len({encoded, dataclasses.replace(encoded)}) == 2
    with pytest.raises(TypeError, match="one window"):
        list(encoded)
    assert [len(one.frames) for one in small_model().encode(torch.stack((video, video)))] == [8, 8]
    answers = encoded.decode(some_queries(9, 8))
    torch.testing.assert_close(answers.normal.norm(dim=-1), torch.ones(9))
    assert bool(((answers.confidence > 0) & (answers.confidence < 1)).all())


_FAULTS = """
import resource, torch
from d4rt_ros.model.allocator import keep_freed_memory

assert keep_freed_memory()
for _ in range(5):  # small objects may settle in the first ones' places
    several = [torch.ones(4 << 20) for _ in range(6)]  # 16 MiB each
    del several
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    several = [torch.ones(4 << 20) for _ in range(6)]
    del several
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_kept() -> None:
    """Large buffers that are freed and asked for again soon cost no page faults any more."""
    # in a process of its own: faults of other tests' threads would count as well
    said = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    assert int(said.stdout) < 4096, "one such buffer has 4,096 pages"
