"""The oracle scene: exact, repeatable, noisy as told; windows of one long path."""

import numpy as np
import pytest
import torch

from d4rt_ros.model import Answers, Queries
from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.training.oracle import OracleScene, oracle_windows
from d4rt_ros.training.scenes import ProceduralScenes, SceneBatch, SceneRecipe

FRAMES = 20


@pytest.fixture(scope="module")
def batch() -> SceneBatch:
    recipe = SceneRecipe(frames=FRAMES, size=(16, 24), places=(1.0, 0.0, 1.0, 0.0))
    return ProceduralScenes(recipe).sample(2, torch.Generator().manual_seed(4))


def random_queries(n: int, frames: int = FRAMES) -> Queries:
    g = torch.Generator().manual_seed(0)
    return Queries.make(*torch.rand(2, n, generator=g), *torch.randint(0, frames, (3, n), generator=g))


def difference(a: Answers, b: Answers) -> torch.Tensor:
    """Distance of xyz relative to the distance from the camera, [N]."""
    return (a.xyz - b.xyz).norm(dim=-1) / b.xyz.norm(dim=-1)


def test_the_face_of_a_scene(batch: SceneBatch) -> None:
    scene = OracleScene(batch, clip=1)
    assert torch.equal(scene.frames, batch.video[1]) and scene.num_frames == FRAMES
    assert scene.image_size == (16, 24) and scene.device.type == "cpu"
    assert len(scene.stamps) == FRAMES and all(b > a for a, b in zip(scene.stamps, scene.stamps[1:]))
    seconds = (scene.stamps[-1] - scene.stamps[0]) * 1e-9
    assert seconds == pytest.approx(float(batch.time[1, -1] - batch.time[1, 0]), abs=1e-6)
    answers = scene.decode(random_queries(40_000))
    shapes = {k: tuple(v.shape) for k, v in vars(answers).items()}
    assert shapes == {
        "xyz": (40_000, 3), "uv": (40_000, 2), "visibility": (40_000,), "displacement": (40_000, 3),
        "normal": (40_000, 3), "confidence": (40_000,),
    }  # fmt: skip
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in vars(answers).values())
    assert len(scene.decode(random_queries(0)).xyz) == 0


def test_depth_intrinsics_and_poses_come_back(batch: SceneBatch) -> None:
    scene = OracleScene(batch, scale=2.5)
    u, v = pixel_grid(16, 24)
    local = scene.decode(Queries.make(u, v, 7, 7, 7)).xyz.double()
    torch.testing.assert_close(local[:, 2].view(16, 24).float(), 2.5 * batch.depth[0, 7], rtol=1e-4, atol=0)
    fx = (local[:, 2] * (u - 0.5) / local[:, 0]).median() * 24
    fy = (local[:, 2] * (v - 0.5) / local[:, 1]).median() * 16
    expected = scene.intrinsics
    assert fx == pytest.approx(float(expected[0, 0]), rel=1e-5)
    assert fy == pytest.approx(float(expected[1, 1]), rel=1e-5)
    assert expected[:2, 2].tolist() == [12.0, 8.0]
    for other in (0, 19):
        moved = scene.decode(Queries.make(u, v, 7, 7, other)).xyz.double().numpy()
        relative = np.linalg.inv(scene.world_from_camera[other].numpy()) @ scene.world_from_camera[7].numpy()
        expected_xyz = local.numpy() @ relative[:3, :3].T + relative[:3, 3]
        np.testing.assert_allclose(moved, expected_xyz, rtol=1e-5, atol=1e-5)


def test_answers_are_those_of_the_batch(batch: SceneBatch) -> None:
    q = random_queries(500)
    exact = batch.answer(q.apply(lambda x: x.expand(2, -1)))
    answers = OracleScene(batch, clip=1, scale=2.0).decode(q)
    use = exact.xyz_valid[1]
    torch.testing.assert_close(answers.confidence, use.float())
    same = (answers.xyz - 2 * exact.xyz[1]).norm(dim=-1)[use] < 1e-3 * answers.xyz.norm(dim=-1)[use]
    moved = answers.displacement - 2 * exact.displacement[1]
    assert (moved.norm(dim=-1)[use] < 1e-3).float().mean() > 0.98
    assert same.float().mean() > 0.99  # single precision may choose the other side of an edge
    assert (answers.visibility == exact.visibility[1])[use].float().mean() > 0.98


def test_noise_and_outliers_have_the_size_asked_for(batch: SceneBatch) -> None:
    q = random_queries(4000)
    exact, noisy = OracleScene(batch).decode(q), OracleScene(batch, noise=0.01, seed=1).decode(q)
    error = difference(noisy, exact)
    assert float(error.square().mean().sqrt()) == pytest.approx(0.01 * 3**0.5, rel=0.05)
    assert float((noisy.uv - exact.uv).std()) == pytest.approx(0.01, rel=0.05)
    torch.testing.assert_close(noisy.normal.norm(dim=-1), torch.ones(4000))
    wild = OracleScene(batch, outliers=0.2, seed=1).decode(q)
    wrong = difference(wild, exact) > 1e-6
    assert float(wrong.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float(difference(wild, exact)[wrong].median()) > 0.5
    assert torch.equal(wild.confidence, exact.confidence)


def test_a_query_has_one_answer_whatever_is_asked_with_it(batch: SceneBatch) -> None:
    q = random_queries(300)
    scene = OracleScene(batch, noise=0.02, outliers=0.1, seed=3)
    whole = scene.decode(q)
    alone = scene.decode(q.apply(lambda x: x[100:110].flip(0)))
    assert torch.equal(alone.xyz.flip(0), whole.xyz[100:110])
    other = OracleScene(batch, noise=0.02, outliers=0.1, seed=4).decode(q)
    assert not torch.equal(other.xyz, whole.xyz)


def test_windows_share_their_world_up_to_scale(batch: SceneBatch) -> None:
    windows = oracle_windows(batch, length=8, stride=4)
    assert [w.num_frames for w in windows] == [8, 8, 8, 8]
    assert len({round(w.scale, 6) for w in windows}) == 4 and all(0.3 <= w.scale <= 3 for w in windows)
    assert windows[1].stamps[:4] == windows[0].stamps[4:]
    assert torch.equal(windows[1].frames[:4], windows[0].frames[4:])
    u, v = pixel_grid(4, 4)
    for a, b in zip(windows, windows[1:]):
        one = a.decode(Queries.make(u, v, 5, 6, 4)).xyz / a.scale
        two = b.decode(Queries.make(u, v, 1, 2, 0)).xyz / b.scale
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_the_sky_is_far_and_not_trusted() -> None:
    recipe = SceneRecipe(frames=4, size=(8, 8), places=(0.0, 0.0, 0.0, 1.0))
    clips = ProceduralScenes(recipe).sample(8, torch.Generator().manual_seed(0))
    share = clips.depth[:, 0].isinf().float().mean((1, 2))
    scene = OracleScene(clips, clip=int((share - 0.4).abs().argmin()))
    answers = scene.decode(Queries.make(*pixel_grid(24, 24), 0, 2, 1))
    sky = answers.confidence == 0
    assert 0.05 < sky.float().mean() < 0.95
    assert (answers.xyz[sky].norm(dim=-1) > 900).all() and answers.visibility[sky].any()
    assert (answers.displacement[sky] == 0).all()


def test_wrong_arguments_and_queries_are_refused(batch: SceneBatch) -> None:
    with pytest.raises(ValueError, match=r"0\.\.19"):
        OracleScene(batch, first=15, count=6)
    with pytest.raises(ValueError, match="scale"):
        OracleScene(batch, scale=0.0)
    scene = OracleScene(batch, first=2, count=5)
    with pytest.raises(ValueError, match=r"0\.\.4"):
        scene.decode(Queries.make(torch.zeros(1), 0.0, 5, 0, 0))
    with pytest.raises(ValueError, match="finite"):
        scene.decode(Queries.make(torch.full((1,), torch.inf), 0.0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"\[N\]"):
        scene.decode(Queries.make(torch.zeros(2, 2), 0.0, 0, 0, 0))
