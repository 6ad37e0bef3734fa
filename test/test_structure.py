"""Depth and cameras of a window from its own motion: rendered walls, a guess that is wrong."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_network import SMALL, on_lens, small_model, some_queries

from d4rt_ros.model import Queries, Scene, structure
from d4rt_ros.model.flow import fine_paths
from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.model.structure import CELLS, Structure, find_structure, lens_focal
from d4rt_ros.stream.encoding import Encoding
from d4rt_ros.stream.frames import Frame, Window
from d4rt_ros.stream.lens import CalibratedScene
from d4rt_ros.tasks import camera_track, extrinsics

HEIGHT, WIDTH, FRAMES, FOCAL = 96, 128, 8, 0.8
NEAR, FAR = 1.5, 3.0


def camera(t: int, way: float, turn: float) -> np.ndarray:
    """World from camera: sideways and a little up, turning to the side, degrees a frame."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", turn * t, degrees=True).as_matrix()
    pose[:3, 3] = way * t, -0.3 * way * t, 0.0
    return pose


def walls(way: float = 0.03, turn: float = 0.4) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Frames [T, 3, H, W], depth [T, H, W], poses [T, 4, 4]: a near wall on the left, a far one behind."""
    noise = np.random.default_rng(0).random((512, 512)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    v, u = np.meshgrid((np.arange(HEIGHT) + 0.5), (np.arange(WIDTH) + 0.5), indexing="ij")
    f = FOCAL * WIDTH
    rays = np.stack(((u - WIDTH / 2) / f, (v - HEIGHT / 2) / f, np.ones_like(u)), -1)
    frames, depths, poses = [], [], []
    for t in range(FRAMES):
        pose = camera(t, way, turn)
        directions = rays @ pose[:3, :3].T
        near, far = (directions * ((z - pose[2, 3]) / directions[..., 2:]) + pose[:3, 3] for z in (NEAR, FAR))
        hit = np.where(near[..., :1] < 0, near, far)
        at = ((hit[..., :2] + 3) * 80 + (hit[..., 2:] > 2) * 7).astype(np.float32)
        image = cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        frames.append(np.repeat(image[None], 3, 0))
        depths.append(((hit - pose[:3, 3]) @ pose[:3, :3])[..., 2])
        poses.append(pose)
    return torch.from_numpy(np.stack(frames)).to(torch.uint8), np.stack(depths), np.stack(poses)


def pixels(depth: np.ndarray, size: int) -> torch.Tensor:
    """Points [T, size, size, 3] of the true depth."""
    small = np.stack([cv2.resize(z, (size, size), interpolation=cv2.INTER_AREA) for z in depth])
    grid = (np.arange(size) + 0.5) / size - 0.5
    v, u = np.meshgrid(grid, grid, indexing="ij")
    rays = np.stack((u / FOCAL, v / FOCAL * HEIGHT / WIDTH, np.ones_like(u)), -1)
    return torch.from_numpy(rays * small[..., None]).float()


def found_in(frames: torch.Tensor, guess: torch.Tensor, focal: float = FOCAL) -> Structure:
    return find_structure(frames, fine_paths(frames, CELLS)[0], guess, WIDTH / HEIGHT, focal)


def error(log_depth: torch.Tensor, truth: np.ndarray) -> float:
    """Mean relative error after one scale."""
    size = (truth.shape[2], truth.shape[1])
    found = np.stack([cv2.resize(z.exp().numpy(), size) for z in log_depth])
    return float(np.mean(np.abs(found * np.median(truth / found) / truth - 1)))


def test_a_guess_that_errs_in_each_frame_otherwise_becomes_two_walls() -> None:
    frames, depth, poses = walls()
    torch.manual_seed(0)
    wrong = torch.nn.functional.interpolate(torch.randn(1, FRAMES, 6, 6), (64, 64), mode="bicubic")[0]
    guess = pixels(depth, 64)[..., 2].log() + 0.25 * wrong
    found = found_in(frames, guess)
    assert error(guess, depth) > 0.15
    assert error(found.log_depth, depth) < 0.075
    assert found.poses is not None
    turn = Rotation.from_matrix(np.swapaxes(poses[:, :3, :3], 1, 2) @ found.poses[:, :3, :3])
    assert np.degrees(turn.magnitude()).max() < 1.2
    way, goal = found.poses[-1, :3, 3], poses[-1, :3, 3]
    assert way @ goal / np.linalg.norm(way) / np.linalg.norm(goal) > 0.95


def test_views_say_which_lens_they_went_through() -> None:
    """Where depth is known to tell turns from ways; a lens that is known stays as it is."""
    frames, depth, _ = walls(0.05, 2.0)
    guess, paths = pixels(depth, 64)[..., 2].log(), fine_paths(frames, CELLS)[0]
    for off in (0.68, 0.8, 1.25, 1.45):
        expected = off * FOCAL
        found = find_structure(frames, paths, guess, WIDTH / HEIGHT, expected, known=False).focal
        assert abs(np.log(found / FOCAL)) < 0.06, off
        assert find_structure(frames, paths, guess, WIDTH / HEIGHT, expected).focal == expected
    at_rest = walls(0.0, 0.0)[0]
    found = find_structure(at_rest, fine_paths(at_rest, CELLS)[0], guess, WIDTH / HEIGHT, 0.9, known=False)
    assert found.focal == pytest.approx(0.9, rel=0.05), "nothing moves, so nothing is said of it"


def test_a_right_guess_stays_right_and_gives_the_scale() -> None:
    frames, depth, poses = walls()
    found = found_in(frames, pixels(depth, 64)[..., 2].log() + 0.5)
    assert error(found.log_depth, depth) < 0.03
    assert found.poses is not None
    np.testing.assert_allclose(found.poses[-1, :3, 3], np.exp(0.5) * poses[-1, :3, 3], atol=0.03)


def test_hints_say_what_views_see_how_surely_and_what_was_guessed() -> None:
    frames, depth, _ = walls()
    truth = pixels(depth, 64)[..., 2].log()
    change, free, precision, apart, guess = found_in(frames, truth).hints.unbind(1)
    small = torch.nn.functional.adaptive_avg_pool2d(truth[None], CELLS)[0]
    assert (guess - small + small.mean()).abs().median() < 0.01, "what all frames guess together"
    assert change.abs().max() < 1
    assert precision.min() >= 0
    assert precision[:, 8:24, 8:24].median() > 0.8
    assert 0 <= apart.min() <= apart.max() <= 2.5
    flatter = found_in(frames, 0.7 * truth).hints[:, :2, 8:24]
    change, free = (flatter[..., 20:28] - flatter[..., 4:12]).mean((0, 2, 3))
    assert 0.02 < change < free < 0.3 * np.log(FAR / NEAR) + 0.05, "the far wall is farther than was guessed"
    still = found_in(walls(0, 0)[0], truth).hints
    assert still[:, 2].max() < 0.3, "a camera that stands still tells nothing"


def test_a_camera_that_stands_still_tells_no_depth_but_what_all_frames_guess() -> None:
    frames, _, _ = walls(0, 0)
    guess = torch.rand(1, 64, 64).expand(FRAMES, -1, -1)
    found = found_in(frames, guess)
    torch.testing.assert_close(found.log_depth, guess, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.poses, np.tile(np.eye(4), (FRAMES, 1, 1)), atol=1e-6)


def test_noise_says_nothing() -> None:
    """Frames that have nothing in common: depth stays the guess, and nobody knows where cameras are."""
    guess = torch.rand(FRAMES, 64, 64)
    found = found_in(torch.randint(256, (FRAMES, 3, HEIGHT, WIDTH)).to(torch.uint8), guess)
    assert torch.equal(found.log_depth, guess)
    assert found.poses is None
    assert found.hints[:, :-1].abs().max() == 0
    small = torch.nn.functional.adaptive_avg_pool2d(guess[None], CELLS)[0]
    torch.testing.assert_close(found.hints[:, -1], small - small.mean())


def test_views_that_fit_no_still_world_tell_no_depth_but_how_the_camera_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, depth, poses = walls()
    guess = pixels(depth, 64)[..., 2].log()
    monkeypatch.setattr(structure, "_LOST", 0.0)
    found = found_in(frames, guess)
    assert torch.equal(found.log_depth, guess)
    assert found.hints[:, :-1].abs().max() == 0
    assert found.poses is not None
    turn = Rotation.from_matrix(np.swapaxes(poses[:, :3, :3], 1, 2) @ found.poses[:, :3, :3])
    assert np.degrees(turn.magnitude()).max() < 1.2
    monkeypatch.setattr(structure, "_TOLD", 0.0)
    assert found_in(frames, guess).poses is None


def test_a_window_is_judged_by_its_last_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is guessed badly fits badly until its depth has been read from the views."""
    frames, depth, _ = walls(0.06)
    guess = pixels(depth, 64)[..., 2].log() + 0.5 * torch.linspace(0, 4 * np.pi, 64).sin()[:, None]
    monkeypatch.setattr(structure, "_LOST", 1.0)
    assert not torch.equal(found_in(frames, guess).log_depth, guess)
    monkeypatch.setattr(structure, "_KNOWN", structure._KNOWN[:1])
    assert torch.equal(found_in(frames, guess).log_depth, guess)


def test_the_lens_is_read_from_points() -> None:
    _, depth, _ = walls()
    assert lens_focal(pixels(depth, 6).double().numpy(), WIDTH / HEIGHT) == pytest.approx(FOCAL, rel=1e-5)
    behind = -np.ones((1, 6, 6, 3))
    behind[..., :2] = 0
    assert lens_focal(behind, 1.0) is None, "no ray says"


def test_a_scene_starts_its_answers_there() -> None:
    frames, _, _ = walls()
    scene = small_model().encode(frames)
    images, paths = scene.settled
    assert paths is not None
    assert paths.shape == (1, FRAMES, CELLS, CELLS, FRAMES, 4)
    assert not torch.equal(images, scene.images)
    queries = some_queries(30, FRAMES)
    one = queries.apply(lambda x: x[None])
    with torch.inference_mode():
        expected = scene.model.answer(one, images, scene.memory, paths)["xyz"][0]
    torch.testing.assert_close(scene.decode(queries).xyz, on_lens(scene, expected), atol=1e-5, rtol=1e-5)
    track = camera_track(scene, 2)
    assert scene.solved_poses is not None
    for pose, posed, solved in zip(track.reference_from_camera, track.posed, scene.solved_poses):
        if posed:
            expected_pose = np.linalg.inv(scene.solved_poses[2]) @ solved
            np.testing.assert_allclose(pose, expected_pose, atol=1e-9)


def test_where_no_world_stands_still_no_camera_is_placed() -> None:
    """Not by answers, either: they find some camera in anything. A wrong pose is worse than none."""
    torch.manual_seed(0)
    noise = small_model().encode(torch.randint(256, (FRAMES, 3, HEIGHT, WIDTH)).to(torch.uint8))
    lens = np.array([[100.0, 0, WIDTH / 2], [0, 100.0, HEIGHT / 2], [0, 0, 1]])
    for scene in (noise, CalibratedScene(noise, lens, lens)):
        assert scene.solved_poses is None
        track, pair = camera_track(scene, 2), extrinsics(scene, 0, 5)
        assert not track.ok and not track.posed.any() and not pair.ok
        assert "world that stands still" in track.reason and pair.reason == noise.unposed
    assert not small_model().encode(walls()[0]).unposed


def test_windows_of_a_batch_are_settled_each_by_itself() -> None:
    model, frames = small_model(), torch.stack([walls()[0], walls(0.0, 0.6)[0]])
    batch, queries = model.encode(frames), some_queries(20, FRAMES, batch=2)
    together = batch.decode(queries)
    for index in range(2):
        alone = model.encode(frames[index]).decode(queries.apply(lambda x, i=index: x[i]))
        torch.testing.assert_close(together.xyz[index], alone.xyz, atol=1e-5, rtol=1e-5)
    assert batch.solved_poses is None


def test_a_known_lens_is_used() -> None:
    frames, _, _ = walls(0.0, 0.5)
    turns = {}
    for focal in (FOCAL, 2 * FOCAL):
        poses = small_model().encode(frames).with_focal(focal).solved_poses
        assert poses is not None
        turns[focal] = Rotation.from_matrix(poses[-1, :3, :3]).magnitude()
    assert np.degrees(turns[FOCAL]) == pytest.approx(3.5, abs=0.4)
    assert abs(turns[2 * FOCAL] / turns[FOCAL] - 1) > 0.2


def test_answers_keep_to_a_lens() -> None:
    """Of the model's own or a known one; in a batch as alone."""
    model, frames = small_model(), torch.stack([walls()[0], walls(0.0, 0.6)[0]])
    u, v = pixel_grid(6, 6, torch.device("cpu"))
    time = torch.tensor([0, 3, 7])[:, None]
    queries = Queries.make(u, v, time, time, time).apply(lambda x: x.reshape(-1))
    own = model.encode(frames[0]).lens
    assert own is not None
    for focal in (None, 0.5, 1.1):
        scene, batch = (model.encode(video) for video in (frames[0], frames))
        if focal is not None:
            scene, batch = scene.with_focal(focal), batch.with_focal(focal)
        points = scene.decode(queries).xyz
        found = lens_focal(points.reshape(3, 6, 6, 3).double().numpy(), WIDTH / HEIGHT)
        assert found == pytest.approx(focal or float(own), rel=1e-4)
        together = batch.decode(queries.apply(lambda x: x.expand(2, -1))).xyz[0]
        torch.testing.assert_close(together, points, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("given", "expected"), [(FOCAL * WIDTH, FOCAL), (-1.0, None), (None, None)])
def test_a_camera_info_tells_a_live_window_its_lens(given: float | None, expected: float | None) -> None:
    k = None if given is None else np.array([[given, 0, WIDTH / 2], [0, given, HEIGHT / 2], [0, 0, 1.0]])
    images = walls()[0].permute(0, 2, 3, 1).numpy()
    window = Window(tuple(Frame(1 + t, image, intrinsics=k) for t, image in enumerate(images)))
    scene = Encoding(small_model(), lambda: None).scene(window).scene
    assert isinstance(scene, Scene)
    assert scene.focal is not None
    if expected is None:
        expected = float(small_model().encode(walls()[0]).focal)
    assert float(scene.focal) == pytest.approx(expected)


@pytest.mark.parametrize("change", [{"flow": False, "refiner": 0}, {"pyramid": 0, "refiner": 0}])
def test_other_networks_are_left_alone(change: dict[str, int]) -> None:
    scene = small_model(replace(SMALL, **change)).encode(walls()[0])
    assert scene.settled == (scene.images, scene.paths)
    assert scene.solved_poses is None and not scene.unposed
    scene.decode(Queries.make(torch.tensor([0.5]), torch.tensor([0.5]), 0, 0, 0))


def test_poses_have_the_scale_of_answers() -> None:
    ways = []
    for deeper in (1.0, 2.0):
        model = small_model()
        model.heads.xyz_head.weight.data.zero_()  # type: ignore[union-attr]
        model.heads.xyz_head.bias.data[:] = torch.tensor((0.0, 0.0, np.log(deeper)))  # type: ignore[union-attr, index]
        poses = model.encode(walls()[0]).with_focal(FOCAL).solved_poses
        assert poses is not None
        ways.append(poses[1:, :3, 3])
    assert np.linalg.norm(ways[0][-1]) > 0.01
    np.testing.assert_allclose(ways[1], 2 * ways[0], rtol=1e-3)
