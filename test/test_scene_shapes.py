"""Solids and ray casting against ray marching of implicit functions written a second time, in numpy."""

import numpy as np
import pytest
import torch

from d4rt_ros.model import Queries
from d4rt_ros.training import shapes
from d4rt_ros.training.raycast import Caster, View, World, inverse3
from d4rt_ros.training.scenes import ProceduralScenes, SceneRecipe, answer

HALF_LENGTH = 0.8
# a, p, q, f of three waves
WAVE = ((0.5, 3.0, 1.0, 0.3), (0.3, -2.0, 4.0, 1.0), (0.15, 5.0, 5.0, 2.0))


def implicit(kind: int, x: np.ndarray) -> np.ndarray:
    """Below 0 inside the solid (outside, for a shell), [...] from [..., 3]; independent of the library."""
    if kind == shapes.BOX:
        return np.abs(x).max(-1) - 1
    if kind == shapes.SHELL:
        return 1 - np.abs(x).max(-1)
    if kind == shapes.ELLIPSOID:
        return np.linalg.norm(x, axis=-1) - 1
    if kind == shapes.CYLINDER:
        return np.maximum(np.hypot(x[..., 0], x[..., 1]) - 1, np.abs(x[..., 2]) - 1)
    if kind == shapes.SHEET:
        height = sum(a * np.sin(p * x[..., 0] + q * x[..., 1] + f) for a, p, q, f in WAVE)
        return x[..., 2] - height
    end = np.zeros_like(x)
    end[..., 2] = np.clip(x[..., 2], -HALF_LENGTH, HALF_LENGTH)
    return np.linalg.norm(x - end, axis=-1) - 1


def march(kind: int, o: np.ndarray, d: np.ndarray) -> np.ndarray:
    """First s in 0..8 where rays [N, 3] get inside, by small steps and bisection; inf where they do not."""
    s = np.linspace(0, 8, 8001)
    x = o[:, None] + s[:, None] * d[:, None]
    inside = implicit(kind, x) < 0
    if kind == shapes.SHEET:  # a crossing from either side, within the border
        crossed = inside[:, 1:] != inside[:, :-1]
        within = np.abs(x[:, 1:, :2]).max(-1) <= 1
        inside = np.pad(crossed & within, ((0, 0), (1, 0)))
    first = inside.argmax(1)
    low, high = s[np.maximum(first - 1, 0)], s[first]
    for _ in range(50):
        middle = 0.5 * (low + high)
        within = implicit(kind, o + middle[:, None] * d) < 0
        if kind == shapes.SHEET:
            within = within == (implicit(kind, o + high[:, None] * d) < 0)
        low, high = np.where(within, low, middle), np.where(within, middle, high)
    return np.where(inside.any(1), high, np.inf)


def rays(kind: int, seed: int = 0, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    o = rng.normal(size=(n, 3))
    o *= rng.uniform(2.0, 4.0, (n, 1)) / np.linalg.norm(o, axis=1, keepdims=True)
    if kind == shapes.SHELL:
        o = rng.uniform(-0.9, 0.9, (n, 3))
    aim = rng.uniform(-1.3, 1.3, (n, 3))
    d = aim - o
    return o, d / np.linalg.norm(d, axis=1, keepdims=True) * rng.uniform(0.6, 1.5, (n, 1))


def columns(x: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(c.copy()) for c in x.T)


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_intersections_and_normals_match_ray_marching(kind: int) -> None:
    o, d = rays(kind)
    expected = march(kind, o, d)
    half_length = torch.full((len(o),), HALF_LENGTH, dtype=torch.float64)
    wave = tuple(torch.full_like(half_length, value) for row in WAVE for value in row)
    s = shapes.intersect(kind, columns(o), columns(d), half_length, wave).numpy()
    hit = s < shapes.MISS
    grazing = np.isfinite(expected) != hit  # marching steps over the thinnest chords
    assert grazing.mean() < 0.01 and hit.mean() > 0.2
    both = hit & np.isfinite(expected)
    np.testing.assert_allclose(s[both], expected[both], atol=1e-9)

    x = o[both] + s[both, None] * d[both]
    kinds = torch.full((len(x),), kind)
    if kind == shapes.SHEET:
        height, dx, dy = shapes.ripple(*columns(x)[:2], tuple(w[: len(x)] for w in wave))
        np.testing.assert_allclose(height.numpy(), x[:, 2], atol=1e-9)
        normal = torch.stack((-dx, -dy, torch.ones_like(dx)), -1).numpy()
    else:
        normal = torch.stack(shapes.local_normal(kinds, columns(x), half_length[: len(x)]), -1).numpy()
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    step = 1e-6
    gradient = np.stack(
        [implicit(kind, x + step * e) - implicit(kind, x - step * e) for e in np.eye(3)], -1
    ) / (2 * step)
    gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
    # a shell's normal is turned to the camera later, so the sign does not matter here
    smooth = np.abs((gradient * normal).sum(1)) > 0.9999
    assert smooth.mean() > 0.99  # all but points right on an edge


def test_an_unknown_kind_is_refused() -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match="kind 9"):
        shapes.intersect(9, (one,) * 3, (one,) * 3)


def test_rays_parallel_to_faces_and_axes_give_no_nan() -> None:
    o = torch.tensor([[0.0, 0.0, -3.0], [0.0, 1.0, -3.0], [1.0, 0.0, -3.0], [0.5, 0.5, 3.0]]).T
    d = torch.tensor([[0.0, 0.0, 1.0]] * 4).T
    expected = {shapes.BOX: 2.0, shapes.ELLIPSOID: 2.0, shapes.CYLINDER: 2.0, shapes.CAPSULE: 3 - 1.5}
    for kind, depth in expected.items():
        s = shapes.intersect(kind, tuple(o), tuple(d), torch.full((4,), 0.5))
        assert not s.isnan().any()
        assert s[0] == pytest.approx(depth)
        assert s[3] > shapes.MISS  # behind the ray's origin


def test_inverse3_is_the_inverse() -> None:
    m = torch.randn(50, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse3(m), torch.linalg.inv(m))


def brute_force(caster: Caster, clip: int, frame: int, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Depth [N] by meeting every primitive of the clip, in world coordinates and without bounding boxes."""
    world, view = caster.world, caster.view
    pose = view.world_from_camera[clip, frame].double()
    d = torch.stack(
        ((u - 0.5) / view.focal[clip, 0], (v - 0.5) / view.focal[clip, 1], torch.ones_like(u)), -1
    ).double()
    d = d @ pose[:3, :3].T
    best = torch.full(u.shape, torch.inf, dtype=torch.float64)
    for slot, kind in enumerate(world.kind[clip].tolist()):
        if kind != shapes.EMPTY:
            placed = torch.eye(4, dtype=torch.float64)
            placed[:3] = world.pose[clip, frame, slot].double()
            inverse = torch.linalg.inv(placed)
            o = (inverse[:3, :3] @ pose[:3, 3] + inverse[:3, 3]).expand(len(u), 3)
            core = world.half_length[clip, slot].double().expand(len(u))
            wave = tuple(w.double().expand(len(u)) for w in world.wave[clip, frame, slot])
            s = shapes.intersect(kind, tuple(o.T), tuple((d @ inverse[:3, :3].T).T), core, wave)
            best = torch.minimum(best, torch.where(s > shapes.MISS, torch.inf, s))
    return best


def test_image_and_points_find_the_nearest_of_all_primitives() -> None:
    batch = ProceduralScenes(SceneRecipe(frames=3, size=(20, 28))).sample(6, torch.Generator().manual_seed(5))
    u = ((torch.arange(28) + 0.5) / 28).repeat(20)
    v = ((torch.arange(20) + 0.5) / 20).repeat_interleave(28)
    wrong = 0
    for clip in range(6):
        expected = brute_force(batch.caster, clip, 2, u, v)
        image = batch.depth[clip, 2].flatten()
        index = torch.full((len(u),), clip)
        points, _ = batch.caster.points(index, torch.full_like(index, 2), u, v)
        for found in (image, points):
            same = (found == expected) | ((found - expected).abs() < 1e-4 * expected)
            wrong += int((~same).sum())
    assert wrong <= 6  # of 6720: rays that just touch an edge may differ by rounding


def test_bounds_hold_solids_that_reach_behind_the_camera() -> None:
    pose = torch.eye(3, 4).repeat(1, 1, 1, 1, 1)
    pose[..., :3, :3] = torch.diag(torch.tensor((30.0, 0.5, 30.0)))
    pose[..., 1, 3] = 2.0  # a floor 1.5 m below an optical frame, all round the camera
    world = World(torch.tensor([[shapes.BOX]]), pose, torch.zeros(1, 1), torch.zeros(1, 1, 1, 12))
    view = View(torch.eye(4).repeat(1, 1, 1, 1), torch.ones(1, 2), torch.full((1, 2), 0.5))
    depth, _ = Caster(world, view).image(8, 8)
    v = (torch.arange(8) + 0.5) / 8
    expected = torch.where(v > 0.55, 1.5 / (v - 0.5), torch.inf)
    torch.testing.assert_close(depth.view(8, 8)[:, 3], expected)


def hand_made(kinds: list[int], poses: torch.Tensor, wave: torch.Tensor | None = None) -> Caster:
    """A clip of 3 frames; the camera moves 0.5 m to its right a frame; focal .8 widths and 1 height."""
    eyes = torch.eye(4, dtype=torch.float64).repeat(1, 3, 1, 1)
    eyes[0, :, 0, 3] = torch.arange(3) * 0.5
    waves = torch.zeros(1, 3, len(kinds), 12) if wave is None else wave
    view = View(
        eyes, torch.tensor([[0.8, 1.0]], dtype=torch.float64), torch.full((1, 2), 0.5, dtype=torch.float64)
    )
    return Caster(World(torch.tensor([kinds]), poses[None], torch.zeros(1, len(kinds)), waves), view)


def test_a_ball_that_passes_before_a_wall_by_hand() -> None:
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(3, 2, 1, 1)
    poses[:, 0, 2, 3] = 5.0  # ball of radius 1 whose middle goes (0, 0, 5), (1, 0, 5), (2, 0, 5)
    poses[:, 0, 0, 3] = torch.arange(3)
    poses[:, 1, :, :3] = torch.diag(torch.tensor((50.0, 50.0, 1.0), dtype=torch.float64))
    poses[:, 1, 2, 3] = 10.0  # wall at z = 9
    caster = hand_made([shapes.ELLIPSOID, shapes.BOX], poses)
    u_wall = 0.5 + 0.8 * 2 / 9  # sees the wall at x = 2 from the first camera
    q = Queries.make(torch.tensor([[0.5, 0.5, u_wall, u_wall]]), 0.5, 0, torch.tensor([[0, 2, 0, 2]]), 1)
    truth = answer(caster, q)
    expected = torch.tensor([[[-0.5, 0, 4], [1.5, 0, 4], [1.5, 0, 9], [1.5, 0, 9]]], dtype=torch.float64)
    torch.testing.assert_close(truth.xyz, expected, atol=1e-6, rtol=0)
    moved = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]]], dtype=torch.float64)
    torch.testing.assert_close(truth.displacement, moved)
    towards = torch.tensor([0.0, 0, -1], dtype=torch.float64).expand(1, 4, 3)
    torch.testing.assert_close(truth.normal, towards)
    uv = torch.tensor([[0.5, 0.5 + 0.8 * 1 / 4, u_wall, 0.5 + 0.8 * 1 / 9]], dtype=torch.float64)
    torch.testing.assert_close(truth.uv[..., 0], uv, atol=1e-6, rtol=0)
    # at the end the ball is 1 m right of the camera: it shows its front point and covers x = 2 on the wall
    assert truth.visibility.tolist() == [[1, 1, 1, 0]]


def test_a_turning_ball_hides_what_turns_away() -> None:
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(3, 1, 1, 1)
    poses[:, 0, 2, 3] = 5.0
    poses[1, 0, :, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a quarter about y
    poses[2, 0, :, :3] = torch.diag(torch.tensor([-1.0, 1, -1], dtype=torch.float64))  # a half
    caster = hand_made([shapes.ELLIPSOID], poses)
    truth = answer(
        caster, Queries.make(torch.tensor([[0.5, 0.5, 0.5]]), 0.5, 0, torch.tensor([[0, 1, 2]]), 0)
    )
    expected = torch.tensor([[[0.0, 0, 4], [-1, 0, 5], [0, 0, 6]]], dtype=torch.float64)
    torch.testing.assert_close(truth.xyz, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(truth.normal, expected - torch.tensor([0.0, 0, 5], dtype=torch.float64))
    assert truth.visibility[0, 0] == 1 and truth.visibility[0, 2] == 0


def test_stretching_keeps_points_and_turns_normals() -> None:
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(3, 1, 1, 1)
    poses[:, 0, 2, 3] = 5.0
    poses[1:, 0, 0, 0] = 3.0  # the ball becomes three times as wide
    caster = hand_made([shapes.ELLIPSOID], poses)
    u = 0.5 + 0.8 * 0.6 / 4.2  # its point (0.6, 0, -0.8)
    truth = answer(caster, Queries.make(torch.tensor([[u]]), 0.5, 0, 1, 0))
    torch.testing.assert_close(
        truth.xyz[0, 0], torch.tensor([1.8, 0, 4.2], dtype=torch.float64), atol=1e-6, rtol=0
    )
    normal = np.array([0.6 / 3, 0, -0.8]) / np.hypot(0.2, 0.8)
    np.testing.assert_allclose(truth.normal[0, 0].numpy(), normal, atol=1e-6)


def test_a_sheet_whose_wave_runs_on() -> None:
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(3, 1, 1, 1)
    poses[:, 0, 2, 3] = 5.0  # the sheet's z is the camera's
    wave = torch.zeros(1, 3, 1, 12, dtype=torch.float64)
    wave[..., 0], wave[..., 1] = 0.5, 2.0  # z = .5 sin(2 x + f)
    wave[0, :, 0, 3] = torch.tensor([0.0, 0.5, 1.0]) * np.pi
    caster = hand_made([shapes.SHEET], poses, wave)
    truth = answer(caster, Queries.make(torch.tensor([[0.5, 0.5]]), 0.5, 0, torch.tensor([[0, 1]]), 0))
    # the point x = 0 is at z = 5 first and at 5.5 where the sine is at its top; then the slope is 0
    expected = torch.tensor([[[0.0, 0, 5], [0, 0, 5.5]]], dtype=torch.float64)
    torch.testing.assert_close(truth.xyz, expected, atol=1e-6, rtol=0)
    slope = np.array([1.0, 0, -1]) / np.sqrt(2)
    np.testing.assert_allclose(truth.normal[0].numpy(), [slope, [0, 0, -1]], atol=1e-6)
    np.testing.assert_allclose(truth.displacement[0, 1].numpy(), [0, 0, 0.5], atol=1e-6)
