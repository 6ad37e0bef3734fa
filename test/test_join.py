"""Windows joined into one world, with exact and with bad answers in the network's place."""

from __future__ import annotations

import resource
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from room import Ball, Room, camera_path, stamps

from d4rt_ros.model import Answers, Queries
from d4rt_ros.stream.join import WORLD_FROM_FIRST, Joiner, Placed, Unplaced
from d4rt_ros.tasks.geometry import Array, invert, rotation_angle
from d4rt_ros.training.oracle import oracle_windows
from d4rt_ros.training.scenes import ProceduralScenes, SceneRecipe


def walk(joiner: Joiner, windows: int, length: int = 8, stride: int = 4, **room: object) -> list[Placed]:
    """Place windows of the walk round the room, each with a scale of its own."""
    placed = []
    for i in range(windows):
        scene = Room(stamps(i * stride, length), unit=1.0 + 0.5 * np.sin(i), seed=i, **room)  # type: ignore[arg-type]
        one = joiner.place(scene)
        assert isinstance(one, Placed) and one.note == ""
        placed.append(one)
    return placed


def errors(placed: list[Placed]) -> tuple[float, float]:
    """Largest errors: of position over the path's length, of attitude in degrees."""
    first = WORLD_FROM_FIRST @ invert(camera_path(np.zeros(1)))
    path: dict[int, Array] = {}
    worst_position = worst_attitude = 0.0
    for one in placed:
        truth = first @ camera_path(np.asarray(one.scene.stamps) / 1e9)
        path.update(zip(one.scene.stamps, truth))
        worst_position = max(
            worst_position, np.linalg.norm(one.poses[:, :3, 3] - truth[:, :3, 3], axis=-1).max()
        )
        turn = np.swapaxes(truth[:, :3, :3], 1, 2) @ one.poses[:, :3, :3]
        worst_attitude = max(worst_attitude, float(np.degrees(rotation_angle(turn).max())))
    positions = np.stack([path[s][:3, 3] for s in sorted(path)])
    return worst_position / np.linalg.norm(np.diff(positions, axis=0), axis=-1).sum(), worst_attitude


def test_exact_answers_give_the_exact_path_over_ten_windows() -> None:
    """Windows of different scales, something moving in them: one path, to 1e-4 of its length."""
    placed = walk(Joiner(), 10, balls=(Ball((0, 0, 3), (0.5, 0, 0)),))
    position, attitude = errors(placed)
    assert position < 1e-4 and attitude < 1e-2
    assert {one.segment for one in placed} == {0}
    assert placed[0].residual is None and max(one.residual or 0.0 for one in placed[1:]) < 1e-4
    for i, one in enumerate(placed):
        assert one.scale * (1.0 + 0.5 * np.sin(i)) == pytest.approx(1.0, rel=1e-4)


def test_noise_and_outliers_stay_within_half_a_degree_and_a_hundredth_of_the_path() -> None:
    """1 % noise and 20 % nonsense in every answer, ten windows."""
    placed = walk(Joiner(grid=32), 10, noise=0.01, outliers=0.2)
    position, attitude = errors(placed)
    assert position < 0.01 and attitude < 0.5
    assert 0.005 < placed[-1].residual < 0.05  # type: ignore[operator]


@pytest.mark.parametrize(
    ("noise", "outliers", "grid", "percent", "degrees"), [(0, 0, 8, 0.01, 0.001), (0.01, 0.2, 32, 1, 0.5)]
)
def test_a_procedural_scene_comes_back_over_ten_windows(
    noise: float, outliers: float, grid: int, percent: float, degrees: float
) -> None:
    """Moving objects, occlusions, windows of scales between 0.3 and 3."""
    recipe = SceneRecipe(frames=44, size=(24, 32), objects=3, clutter=2)
    clip = ProceduralScenes(recipe).sample(1, torch.Generator().manual_seed(2))
    windows = oracle_windows(clip, 8, 4, noise=noise, outliers=outliers)
    assert len(windows) == 10
    joiner, unit, path, worst, turned = Joiner(grid), windows[0].scale, {}, 0.0, 0.0
    for scene in windows:
        placed = joiner.place(scene)
        assert isinstance(placed, Placed) and placed.note == ""
        truth = scene.world_from_camera.numpy().copy()
        truth[:, :3, 3] *= unit / scene.scale
        if not path:
            first = WORLD_FROM_FIRST @ invert(truth[0])
        truth = first @ truth
        path.update(zip(scene.stamps, truth[:, :3, 3]))
        worst = max(worst, np.linalg.norm(placed.poses[:, :3, 3] - truth[:, :3, 3], axis=-1).max())
        turn = np.swapaxes(truth[:, :3, :3], 1, 2) @ placed.poses[:, :3, :3]
        turned = max(turned, float(np.degrees(rotation_angle(turn).max())))
    length = np.linalg.norm(np.diff([path[s] for s in sorted(path)], axis=0), axis=-1).sum()
    assert 100 * worst / length < percent and turned < degrees


def test_covariance_matches_the_errors_and_grows() -> None:
    """Errors are of the size of the stated deviations, and every join adds to them."""
    first = WORLD_FROM_FIRST @ invert(camera_path(np.zeros(1)))
    ratios = []
    for seed in range(4):
        joiner = Joiner(grid=16)
        for i in range(6):
            one = joiner.place(Room(stamps(i * 4, 8), noise=0.01, outliers=0.1, seed=100 * seed + i))
            assert isinstance(one, Placed)
            if i == 1:
                early = np.trace(one.covariance[-1, :3, :3])
        error = (
            one.poses[-1, :3, 3] - (first @ camera_path(np.asarray(one.scene.stamps[-1:]) / 1e9))[0, :3, 3]
        )
        ratios.append(error / np.sqrt(np.diag(one.covariance[-1])[:3]))
        assert np.trace(one.covariance[-1, :3, :3]) > early
        assert (np.linalg.eigvalsh(one.covariance) > -1e-12).all()
    assert 0.2 < np.sqrt(np.mean(np.square(ratios))) < 3.0


def test_the_world_is_x_forward_z_up_from_the_first_camera() -> None:
    """REP-103: the first pose is at the origin, its z axis is the world's x, its -y axis the world's z."""
    pose = walk(Joiner(), 1)[0].poses[0]
    assert np.allclose(pose[:3, 3], 0, atol=1e-6)
    assert np.allclose(pose[:3, 2], [1, 0, 0], atol=1e-6) and np.allclose(-pose[:3, 1], [0, 0, 1], atol=1e-6)


def test_frames_of_two_windows_have_one_pose() -> None:
    """No jump at a border: the shared frames stand where they stood."""
    placed = walk(Joiner(), 3)
    for a, b in zip(placed, placed[1:]):
        assert np.allclose(a.poses[4:], b.poses[:4], atol=1e-4)


def test_no_shared_frame_begins_a_segment_where_the_camera_was() -> None:
    """The note says so, and the path does not jump to the origin."""
    joiner = Joiner()
    last = walk(joiner, 2)[-1]
    after = joiner.place(Room(stamps(40, 8)))
    assert isinstance(after, Placed) and after.segment == 1 and after.residual is None
    assert after.note == "new segment: no frame is shared with the last window"
    assert np.allclose(after.poses[0], last.poses[-1], atol=1e-6)
    again = joiner.place(Room(stamps(44, 8)))
    assert isinstance(again, Placed) and again.segment == 1 and again.note == ""


def test_a_break_in_the_stream_begins_at_the_origin() -> None:
    """starts_segment wins over shared frames."""
    joiner = Joiner()
    walk(joiner, 2)
    after = joiner.place(Room(stamps(8, 8)), starts_segment=True)
    assert isinstance(after, Placed) and after.segment == 1 and after.note == "" and after.residual is None
    assert np.allclose(after.poses[0], WORLD_FROM_FIRST, atol=1e-6)


class Nonsense(Room):
    """Points that have nothing to do with those of other windows; its own cameras are sound."""

    def decode(self, queries: Queries) -> Answers:
        """Every pixel's depth is its own random number, the same whenever it is asked."""
        answers = super().decode(queries)
        factor = 1 + 0.95 * torch.sin(1e3 * queries.u + 2e3 * queries.v + 50 * queries.t_src)
        same = queries.t_src == queries.t_src[0]
        return (
            answers
            if bool(same.all())
            else answers.apply(lambda x: x if x.ndim == 1 else x * factor[:, None] ** 3)
        )


def test_a_join_that_does_not_fit_is_lost_and_says_so() -> None:
    """Overlapping windows that disagree: a new segment, and why."""
    joiner = Joiner()
    walk(joiner, 1)
    after = joiner.place(Nonsense(stamps(4, 8)))
    assert isinstance(after, Placed) and after.segment == 1
    assert after.note == "new segment: the windows could not be joined: the two point sets do not agree"


def test_a_residual_above_the_limit_loses_the_join_and_names_both() -> None:
    """2 % of noise where 1 % is allowed."""
    joiner = Joiner(max_residual=0.01)
    joiner.place(Room(stamps(0, 8), noise=0.02))
    after = joiner.place(Room(stamps(4, 8), noise=0.02))
    assert isinstance(after, Placed) and after.segment == 1 and after.residual is None
    assert "new segment: the join is lost, points differ by" in after.note and "(at most 1 %)" in after.note


def collinear(scene: Room) -> Room:
    """All points of the scene on one line."""
    exact = scene.decode

    def decode(queries: Queries) -> Answers:
        answers = exact(queries)
        line = answers.xyz[:, 2:] * torch.tensor([0.1, 0.2, 1.0])
        return Answers(**{**answers.__dict__, "xyz": line})

    scene.decode = decode  # type: ignore[method-assign]
    return scene


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (Room(stamps(0, 8), confidence=0.0), "weights of all"),
        (collinear(Room(stamps(0, 8))), "lie on a line"),
        (Room(stamps(0, 1)), "one frame"),
    ],
)
def test_windows_without_camera_motion_are_refused_in_a_sentence(scene: Room, words: str) -> None:
    """No exception and no pose; the next good window begins a segment and says why."""
    joiner = Joiner()
    last = walk(joiner, 1)[0]
    refused = joiner.place(scene)
    assert isinstance(refused, Unplaced) and words in refused.note
    after = joiner.place(Room(stamps(4, 8)))
    assert isinstance(after, Placed) and after.segment == 1 and "no camera motion" in after.note
    assert np.allclose(after.poses[0], last.poses[-1], atol=1e-6)


def test_a_frame_without_a_pose_of_its_own_has_that_of_its_neighbour() -> None:
    """And a variance that says that it is not known; the others stand where they should."""

    class Blind(Room):
        def decode(self, queries: Queries) -> Answers:
            answers = super().decode(queries)
            return Answers(
                **{
                    **answers.__dict__,
                    "confidence": torch.where(queries.t_cam == 5, 0.0, answers.confidence),
                }
            )

    placed = Joiner().place(Blind(stamps(0, 8)))
    assert isinstance(placed, Placed)
    assert np.array_equal(placed.poses[5], placed.poses[4])
    variance = np.trace(placed.covariance, axis1=1, axis2=2)
    assert variance[5] > 1e5 and np.isfinite(variance).all() and np.delete(variance, 5).max() < 1e-6
    truth = WORLD_FROM_FIRST @ invert(camera_path(np.zeros(1))) @ camera_path(np.arange(8) / 10)
    assert np.allclose(np.delete(placed.poses, 5, 0), np.delete(truth, 5, 0), atol=1e-4)


def test_unsure_points_do_not_decide() -> None:
    """The least sure 15 % may be all wrong."""

    class HalfSure(Room):
        def decode(self, queries: Queries) -> Answers:
            answers = super().decode(queries)
            bad = (queries.u * 7919 + queries.v * 104729).frac() < 0.1
            confidence = torch.where(bad, 0.2, answers.confidence)
            return Answers(
                **{
                    **answers.__dict__,
                    "xyz": torch.where(bad[:, None], 3 * answers.xyz, answers.xyz),
                    "confidence": confidence,
                }
            )

    joiner = Joiner()
    placed = [joiner.place(HalfSure(stamps(4 * i, 8))) for i in range(4)]
    assert all(isinstance(one, Placed) for one in placed)
    assert errors(placed)[0] < 1e-3  # type: ignore[arg-type]


def test_depth_and_place_have_one_scale() -> None:
    """That of the link, which comes first, whether lengths agree or a fit has to find it."""
    for outliers, fitted in ((0.0, False), (0.2, True)):
        joiner = Joiner(grid=16)
        joiner.place(Room(stamps(0, 8), seed=1, noise=0.01, outliers=outliers))
        link = joiner.link(Room(stamps(4, 8), unit=1.5, seed=2, noise=0.01, outliers=outliers))
        placed = joiner.settle(link)
        assert (link.fit is not None) == fitted and isinstance(placed, Placed) and placed.note == ""
        assert abs(placed.scale * 1.5 - 1) < 0.01 and abs(placed.scale / link.scale - 1) < 1e-12


def test_a_place_that_is_lost_after_depth_keeps_its_units() -> None:
    """Lengths agree well enough for depth, points not for a join: the new segment has the same units."""
    joiner = Joiner(max_residual=0.01)
    last = joiner.place(Room(stamps(0, 8), noise=0.02))
    link = joiner.link(Room(stamps(4, 8), unit=2.0, noise=0.02))
    after = joiner.settle(link)
    assert isinstance(last, Placed) and isinstance(after, Placed) and link.last is last and link.fit is None
    assert after.segment == 1 and after.note.startswith("new segment: the join is lost")
    assert np.allclose(after.poses[0], last.poses[-1], atol=1e-6)
    assert abs(after.scale / 0.5 - 1) < 0.02 and abs(after.scale / link.scale - 1) < 1e-12


def seen_at(i: int) -> Room:
    """The i-th of windows that go on by 2 frames."""
    return Room(stamps(2 * i, 4), noise=0.001)


def memory_growth(joiner: Joiner, windows: int) -> float:
    """Resident memory at the end over that in the second fifth; 1 MB of ballast in each scene."""
    memory = np.zeros(windows)
    alive: weakref.WeakSet[Room] = weakref.WeakSet()
    for i in range(windows):
        scene = seen_at(i)
        scene.frames = torch.ones(1_000_000, dtype=torch.uint8)
        alive.add(scene)
        joiner.place(scene)
        memory[i] = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        assert len(alive) <= 2, "the joiner keeps more than the last window"
    part = windows // 5
    return float(np.median(memory[-part:]) / np.median(memory[part : 2 * part]))


def test_memory_is_flat() -> None:
    """60 windows."""
    assert memory_growth(Joiner(grid=4), 60) < 1.05


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_and_time_are_flat_over_a_thousand_windows() -> None:
    """Time beside a joiner that has just begun, in turn: machines have slow minutes."""
    old, new, windows = Joiner(grid=4), Joiner(grid=4), 1000
    assert memory_growth(old, windows) < 1.05
    seconds = np.zeros((100, 2))
    for row in range(len(seconds)):
        for column, joiner, i in ((0, old, windows + row), (1, new, row)):
            scene = seen_at(i)
            started = time.thread_time()
            joiner.place(scene)
            seconds[row, column] = time.thread_time() - started
    last, first = np.median(seconds, axis=0)
    assert last < 1.5 * first
