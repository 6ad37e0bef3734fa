"""Windows to results: units, frames, history, memory, and the real network behind real threads."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from pipelines import BALL, NOTHING, Rooms, check_sound, make, pixels, true_depth, truth, window
from room import SIZE, STEP_NS, WALLS, K, Room, camera_path, frames

from d4rt_ros.model import D4RT, ModelConfig, Queries
from d4rt_ros.stream import (
    OUTPUTS,
    Frame,
    NotHeld,
    Pipeline,
    StreamSettings,
    Window,
    WindowResult,
    Worker,
)
from d4rt_ros.stream.join import WORLD_FROM_FIRST
from d4rt_ros.tasks.geometry import invert


def test_a_window_gives_everything_in_metres() -> None:
    """Fixed scale of 2: every length is twice the room's, in the frames that the contract names."""
    pipeline = make(Rooms(balls=(BALL,)), scale_source="fixed", scale_value=2.0)
    for first in (0, 4, 8):
        result = pipeline.process(window(first))
        check_sound(result)
        assert result.notes == () and result.metric and result.segment == 0 and result.frame_id == "cam"
        true = truth(result)
        assert np.allclose(result.poses[:, :3, 3], 2 * true[:, :3, 3], atol=1e-3)
        assert np.allclose(result.poses[:, :3, :3], true[:, :3, :3], atol=1e-4)
        assert np.allclose(result.intrinsics, K, rtol=1e-3) and not result.intrinsics_known
        room = Room(result.stamps, (BALL,))
        grid = room.decode(
            Queries.make(*(torch.from_numpy(a.ravel()) for a in pixels()), room.num_frames - 1, 7, 7)
        ).xyz.numpy()
        assert np.allclose(result.depth, 2 * grid[:, 2].reshape(SIZE), rtol=1e-4)
        assert np.allclose(result.points.xyz, 2 * grid, rtol=1e-4, atol=1e-4)
        assert result.points.rgb.shape == (len(grid), 3)
        # The map holds still points only: all on the walls.
        back = invert(WORLD_FROM_FIRST @ invert(camera_path(np.zeros(1))))[0]
        walls = np.abs(result.map_points.xyz / 2 @ back[:3, :3].T + back[:3, 3]) / WALLS
        assert np.allclose(walls.max(-1), 1, atol=1e-3) and len(walls) > 300
        # What moves is the ball, twice as fast as it is in the room.
        camera = room.poses[-1, :3, :3]
        centre = np.array(BALL.centre) + np.array(BALL.velocity) * room.time[-1]
        away = result.dynamic.xyz / 2 @ camera.T + room.poses[-1, :3, 3] - centre
        assert np.allclose(np.linalg.norm(away, axis=-1), BALL.radius, atol=1e-3)
        away = grid @ camera.T + room.poses[-1, :3, 3] - centre
        assert len(result.dynamic) > 0.8 * (np.linalg.norm(away, axis=-1) < 1.001 * BALL.radius).sum() > 50
        assert np.allclose(result.dynamic.velocity @ camera.T, 2 * np.array(BALL.velocity), atol=1e-2)
        assert result.tracks.metric and result.tracks.frame == "camera" and len(result.tracks) >= 9
        assert {"encode", "pose", "points", "motion", "map", "tracks"} <= set(result.seconds)


def test_what_is_known_early_is_final() -> None:
    """Camera, depth and points come before motion, map and tracks are asked for, in the final units."""
    pipeline = make(scale_source="fixed", scale_value=2.0)
    for first in (0, 4):
        heard: list[tuple[WindowResult, frozenset[str]]] = []
        result = pipeline.process(window(first), early=lambda *what: heard.append(what))  # noqa: B023
        (shown, parts), (early, more) = heard
        assert (parts, more) == ({"depth"}, {"", "points"})
        assert shown.depth is result.depth and shown.intrinsics is None
        assert (shown.scale, shown.metric, shown.segment) == (result.scale, True, result.segment)
        assert shown.poses is shown.points is None
        for name in ("depth", "points", "poses", "covariance", "intrinsics", "scale", "scene"):
            assert getattr(early, name) is getattr(result, name) is not None
        assert early.metric and result.metric and early.scale_state == result.scale_state
        assert early.dynamic is early.map_points is early.tracks is None
        assert None not in (result.dynamic, result.map_points, result.tracks)


def test_only_what_is_wanted_is_computed() -> None:
    """Nobody listens: the camera alone is asked for; one listener costs one output."""
    pipeline = make()
    result = pipeline.process(window(0), NOTHING)
    assert result.poses is not None
    assert all(
        getattr(result, name) is None for name in ("depth", "points", "dynamic", "map_points", "tracks")
    )
    asked = sum(result.scene.scene.decoded)
    depth = pipeline.process(window(4), frozenset({"depth"}))
    assert depth.depth is not None and depth.points is None
    assert sum(depth.scene.scene.decoded) <= 2 * asked + SIZE[0] * SIZE[1]


def test_a_coarser_stride_still_gives_a_depth_of_every_pixel() -> None:
    """Stride 4 asks 16 times fewer pixels; depth stays within some percent away from edges."""
    fine = make().process(window(0)).depth
    result = make(points_stride=4).process(window(0))
    assert result.depth.shape == SIZE and len(result.points) == SIZE[0] * SIZE[1] // 16
    assert np.median(np.abs(result.depth / fine - 1)) < 0.02


def test_edges_are_not_smeared() -> None:
    """Between the ball and the walls behind it there is no depth, at any stride."""
    for stride in (1, 4):
        depth = make(Rooms(balls=(BALL,)), points_stride=stride).process(window(0)).depth
        assert (depth < 3.05).sum() > 50 and (depth > 3.5).sum() > 50
        assert not ((depth > 3.05) & (depth < 3.5)).any()


def test_covariance_has_the_units_of_the_poses() -> None:
    """Twice the metres: four times the variance of the position, twice what couples it to the attitude."""
    plain, twice = (
        make(Rooms(noise=0.01), scale_source=source, scale_value=2.0)
        .process(window(0), NOTHING)
        .covariance[-1]
        for source in ("none", "fixed")
    )
    assert np.allclose(twice[:3, :3], 4 * plain[:3, :3]) and np.allclose(twice[:3, 3:], 2 * plain[:3, 3:])
    assert np.allclose(twice[3:, 3:], plain[3:, 3:]) and (np.diag(plain) > 0).all()


def test_unsure_pixels_are_nan_and_left_out() -> None:
    """Below the least confidence: NaN in the image, no points, and a note."""
    result = make(Rooms(confidence=0.2), points_min_confidence=0.3).process(window(0))
    check_sound(result)
    assert np.isnan(result.depth).all() and len(result.points) == 0 and len(result.dynamic) == 0
    assert any("none of the 768 points is as sure as 0.3" in note for note in result.notes)
    assert result.poses is not None


def test_the_history_answers_for_the_window_that_holds_a_stamp() -> None:
    """The newest of those; 0 is the newest frame; refusals name the held span."""
    pipeline = make(history_windows=2)
    with pytest.raises(NotHeld, match="no window is held yet"):
        pipeline.history.find(5)
    results = [pipeline.process(window(first), NOTHING) for first in (0, 4, 8)]
    stamp = frames(9, 1)[0].stamp
    found, (index,) = pipeline.history.find(stamp)
    assert found is results[2] and index == 1
    assert pipeline.history.find(frames(4, 1)[0].stamp)[0] is results[1]
    assert pipeline.history.find(0) == (results[2], (7,))
    spans = r"held are 2 windows from 0\.400000000 to 1\.500000000"
    with pytest.raises(NotHeld, match=rf"stamp 0\.300000000 is not in a held window; {spans}"):
        pipeline.history.find(frames(3, 1)[0].stamp)
    with pytest.raises(NotHeld, match=rf"the nearest is 0\.900000000; {spans}"):
        pipeline.history.find(stamp + 5)
    with pytest.raises(NotHeld, match="are not in one held window of 8 frames"):
        pipeline.history.find(frames(4, 1)[0].stamp, frames(15, 1)[0].stamp)


def test_followed_points_live_on_while_nobody_listens() -> None:
    """Asked for at a stamp of an older window; seen again when somebody subscribes."""
    pipeline = make(tracks_grid=0)
    pipeline.process(window(0), NOTHING)
    pipeline.process(window(4), NOTHING)
    ids = pipeline.follow(np.array([0.5, 0.6]), np.array([0.5, 0.5]), frames(2, 1)[0].stamp)
    pipeline.process(window(8), NOTHING)
    result = pipeline.process(window(12))
    assert result.tracks.ids.tolist() == ids.tolist() and (result.tracks.visibility[-1] > 0.5).all()
    assert pipeline.unfollow(ids[:1]).tolist() == ids[:1].tolist()
    assert pipeline.process(window(16)).tracks.ids.tolist() == ids[1:].tolist()
    with pytest.raises(NotHeld):
        pipeline.follow(np.array([0.5]), np.array([0.5]), 1)


def test_a_restored_pipeline_goes_on_as_if_nothing_had_happened() -> None:
    """State after the third window, another process, the fourth window: the same result."""
    settings = {"scale_source": "depth", "tracks_grid": 2}
    one = make(Rooms(balls=(BALL,)), **settings)
    for first in (0, 4, 8):
        one.process(true_depth(first))
    one.follow(np.array([0.5]), np.array([0.5]), 0)
    two = make(Rooms(balls=(BALL,)), **settings)
    two.restore(one.state(), true_depth(8))
    a, b = one.process(true_depth(12)), two.process(true_depth(12))
    assert (
        np.allclose(a.poses, b.poses, atol=1e-9) and a.segment == b.segment and a.scale_state == b.scale_state
    )
    assert np.allclose(a.map_points.xyz, b.map_points.xyz) and a.tracks.ids.tolist() == b.tracks.ids.tolist()
    assert np.allclose(a.covariance, b.covariance, atol=1e-12) and a.notes == b.notes


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_flat_over_many_windows() -> None:
    """Every output wanted, 150 windows: memory, map, tracks and scenes stay bounded."""
    alive: weakref.WeakSet[Room] = weakref.WeakSet()
    model = Rooms(balls=(BALL,))
    model.change = lambda room: alive.add(room) or room  # type: ignore[func-returns-value]
    pipeline = make(model, map_max_points=2000, history_windows=2)
    memory = []
    for first in range(0, 600, 4):
        result = pipeline.process(window(first))
        check_sound(result)
        assert len(alive) <= 3 and len(result.map_points) <= 2000 and len(result.tracks) < 200
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert result.segment == 0
    assert np.median(memory[-30:]) < 1.05 * np.median(memory[30:60])


def test_the_network_runs_behind_the_worker() -> None:
    """Random weights: what it says means nothing, but has its shape, and services are answered from it."""
    torch.manual_seed(0)
    config = ModelConfig(frames=8, image_size=(16, 16), vit_width=32, vit_depth=2, dec_width=32, dec_depth=1)
    pipeline = Pipeline(D4RT(config).eval(), StreamSettings(points_stride=4, points_min_confidence=0.0))
    results: list[WindowResult] = []
    errors: list[str] = []
    worker = Worker(pipeline, results.append, errors.append)
    worker.start()
    rng = np.random.default_rng(0)
    for number in range(3):
        images = [rng.integers(0, 255, (24, 32, 3), np.uint8) for _ in range(8)]
        made = tuple(Frame((number * 4 + i) * STEP_NS, image) for i, image in enumerate(images))
        worker.submit_window(Window(made, number == 0))
        worker.submit(lambda: None).result(60)
        while len(results) + len(errors) <= number:
            worker.submit(lambda: None).result(60)
    assert errors == [] and len(results) == 3
    for result in results:
        check_sound(result)
        assert result.depth is not None and result.depth.shape == (24, 32) and result.seconds["total"] > 0
    scene = pipeline.history.newest.scene  # type: ignore[union-attr]
    asked = [Queries.make(torch.rand(n), torch.rand(n), 0, 7, 7) for n in (3, 5)]
    answers = [worker.submit_decode(scene, queries) for queries in asked]
    for queries, answer in zip(asked, answers):
        assert torch.allclose(answer.result(60).xyz, scene.decode(queries).xyz, atol=1e-5)
    assert worker.stop()
    assert frozenset({"depth"}) < OUTPUTS
