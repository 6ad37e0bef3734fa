"""Windows to results: units, frames, refusals, memory, history, and the real network behind real threads."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from room import SIZE, STEP_NS, WALLS, Ball, K, Room, camera_path, frames

from d4rt_ros.model import D4RT, Answers, ModelConfig, Queries
from d4rt_ros.stream import (
    OUTPUTS,
    DeviceOutOfMemory,
    Frame,
    NotHeld,
    Pipeline,
    StreamSettings,
    Window,
    WindowResult,
    Worker,
)
from d4rt_ros.stream.join import WORLD_FROM_FIRST
from d4rt_ros.stream.thrift import LEAST_BATCH
from d4rt_ros.tasks.geometry import invert

NOTHING: frozenset[str] = frozenset()
BALL = Ball((0.7, -0.25, 3), (0.4, 0.1, 0), 0.7)


class Rooms:
    """A model whose scenes are exact; fields of Room are set from the test."""

    def __init__(self, **room: object) -> None:
        """Every window has a scale of its own, the first one a metre."""
        self.room = room
        self.change: Callable[[Room], Room] = lambda room: room
        self.fail: list[Exception] = []

    def encode(self, video: torch.Tensor, stamps: tuple[int, ...]) -> Room:
        """The room at these stamps."""
        assert video.dtype == torch.uint8 and video.shape == (len(stamps), 3, *SIZE)
        if self.fail:
            raise self.fail.pop(0)
        unit = 1 + 0.5 * np.sin(5 * stamps[0] / 1e9)
        return self.change(Room(stamps, **{"unit": unit, **self.room}))  # type: ignore[arg-type]


def make(model: object = None, **settings: object) -> Pipeline:
    """A pipeline with every pixel a point and a coarse map."""
    values = {"points_stride": 1, "map_voxel_size": 0.2, "tracks_grid": 3, "pose_grid": 8, **settings}
    return Pipeline(model or Rooms(), StreamSettings(**values))  # type: ignore[arg-type]


def window(first: int, starts: bool = False, reason: str = "", **fields: object) -> Window:
    """Eight frames from this one on."""
    return Window(frames(first, 8, **fields), starts, reason)


def truth(result: WindowResult) -> np.ndarray:
    """[T, 4, 4] true poses in metres in the world of the first camera."""
    return WORLD_FROM_FIRST @ invert(camera_path(np.zeros(1))) @ camera_path(np.array(result.stamps) / 1e9)


def check_sound(result: WindowResult) -> None:
    """Nothing that is said to be finite is not."""
    for cloud in (result.points, result.dynamic, result.map_points):
        if cloud is not None:
            assert np.isfinite(cloud.xyz).all() and cloud.xyz.dtype == np.float32
    if result.poses is not None:
        assert np.isfinite(result.poses).all() and result.covariance is not None
        assert np.isfinite(result.covariance).all()
    assert result.intrinsics is None or np.isfinite(result.intrinsics).all()
    assert np.isfinite(result.scale)


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
        assert result.depth_confidence.shape == SIZE and result.points.rgb.shape == (len(grid), 3)
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


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """u, v [H, W] of the pixel centres."""
    v, u = np.meshgrid(
        (np.arange(SIZE[0]) + 0.5) / SIZE[0], (np.arange(SIZE[1]) + 0.5) / SIZE[1], indexing="ij"
    )
    return u.astype(np.float32), v.astype(np.float32)


def test_what_is_known_early_is_final() -> None:
    """Camera, depth and points come before motion, map and tracks are asked for, in the final units."""
    pipeline = make(scale_source="fixed", scale_value=2.0)
    for first in (0, 4):
        heard: list[tuple[WindowResult, frozenset[str]]] = []
        result = pipeline.process(window(first), early=lambda *what: heard.append(what))  # noqa: B023
        (shown, parts), (early, more) = heard
        assert (parts, more) == ({"depth"}, {"", "points"})
        assert shown.depth is result.depth and shown.intrinsics is result.intrinsics
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


def test_given_intrinsics_correct_the_networks_lens() -> None:
    """A network that believes in twice the focal length: z is kept, x and y are those of the true lens."""
    wrong = np.array(K)
    wrong[:2, :2] *= 2
    result = make(Rooms(intrinsics=wrong)).process(window(0, intrinsics=K))
    assert result.intrinsics_known and np.allclose(result.intrinsics, K)
    exact = make().process(window(0))
    assert np.allclose(result.points.xyz, exact.points.xyz, rtol=1e-3, atol=1e-3)
    assert np.allclose(result.poses, exact.poses, atol=1e-3)
    without = make(Rooms(intrinsics=wrong)).process(window(0))
    assert np.allclose(without.intrinsics[0, 0], wrong[0, 0], rtol=1e-3)


def test_an_off_centre_lens_is_kept_too() -> None:
    """The principal point of the given K counts for points and tracks alike."""
    centred = np.array(K)
    off = np.array(K)
    off[:2, 2] += [3.0, -2.0]
    result = make(Rooms(intrinsics=centred)).process(window(0, intrinsics=off))
    x = (result.points.xyz[:, :2] / result.points.xyz[:, 2:]) * off[[0, 1], [0, 1]] + off[:2, 2]
    u, v = pixels()
    assert np.allclose(x, np.stack([u * SIZE[1], v * SIZE[0]], -1).reshape(-1, 2), atol=1e-3)
    tracks = result.tracks
    newest = tracks.xyz[-1, :, :2] / tracks.xyz[-1, :, 2:] * off[[0, 1], [0, 1]] + off[:2, 2]
    assert np.allclose(newest, tracks.uv[-1] * np.array([SIZE[1], SIZE[0]]), atol=0.02)


def test_useless_intrinsics_are_refused_in_a_note() -> None:
    """The estimate is used instead."""
    bad = np.array(K)
    bad[0, 0] = np.nan
    result = make().process(window(0, intrinsics=bad))
    assert not result.intrinsics_known and np.allclose(result.intrinsics, K, rtol=1e-3)
    assert any("the given intrinsics are not used" in note for note in result.notes)


def true_depth(first: int) -> Window:
    """A window whose frames carry depth images."""
    u, v = pixels()
    made = []
    for i, frame in enumerate(frames(first, 8)):
        room = Room(tuple(frame.stamp + k * STEP_NS for k in range(2)))
        answers = room.decode(Queries.make(torch.from_numpy(u.ravel()), torch.from_numpy(v.ravel()), 0, 0, 0))
        depth = answers.xyz[:, 2].numpy().reshape(SIZE).copy()
        depth[i % 4 :: 4] = np.nan
        made.append(replace(frame, depth=depth))
    return Window(tuple(made))


def test_a_depth_image_makes_it_metric_at_once() -> None:
    """Whatever the network's unit: metres in the first window."""
    pipeline = make(Rooms(unit=0.2), scale_source="depth")
    for first in (0, 4):
        result = pipeline.process(true_depth(first))
        assert result.metric and "depth: 1 unit is 5 m" in result.scale_state
        assert np.allclose(result.poses[:, :3, 3], truth(result)[:, :3, 3], atol=5e-3)
    held = pipeline.process(window(8))
    assert held.metric and "held for 1 windows: this window has no depth image" in held.scale_state


def test_odometry_makes_it_metric_once_the_camera_has_moved() -> None:
    """Units at first, with the reason; then metres, and the camera's place does not jump when it changes."""
    pipeline = make(Rooms(unit=0.2), scale_source="odometry")
    seen, last = [], None
    for first in range(0, 24, 2):
        plain = frames(first, 8)
        poses = camera_path(np.array([f.stamp for f in plain]) / 1e9)
        given = [replace(f, odometry=p) if f.stamp > 1.0e9 else f for f, p in zip(plain, poses)]
        result = pipeline.process(Window(tuple(given)))
        seen.append(result.metric)
        if last is not None and seen[-1] != seen[-2]:
            at = result.stamps.index(last.stamps[-1])
            assert np.linalg.norm(result.poses[at, :3, 3] - last.poses[-1, :3, 3]) < 1e-3
        last = result
    assert not seen[0] and seen[-1] and "odometry: 1 unit is" in result.scale_state
    step = np.linalg.norm(np.diff(result.poses[:, :3, 3], axis=0), axis=-1)
    assert np.allclose(step, np.linalg.norm(np.diff(truth(result)[:, :3, 3], axis=0), axis=-1), rtol=0.05)


def test_standing_odometry_is_not_metric_and_says_why() -> None:
    """The state names what is missing."""
    pipeline = make(scale_source="odometry")
    result = pipeline.process(window(0, odometry=np.eye(4)))
    assert not result.metric and "moved 0.00 m by odometry" in result.scale_state


def test_a_break_starts_a_segment_with_its_reason() -> None:
    """Segment, map and history start anew where time goes back."""
    pipeline = make()
    for first in (100, 104):
        before = pipeline.process(window(first))
    result = pipeline.process(window(0, True, "time jumped back by 10.400 s"))
    assert result.segment == before.segment + 1 and np.allclose(result.poses[0], WORLD_FROM_FIRST, atol=1e-5)
    assert "new segment: time jumped back by 10.400 s" in result.notes
    assert len(result.map_points) < len(before.map_points)
    assert len(pipeline.history) == 1 and pipeline.history.span == (result.stamps[0], result.stamps[-1])


def test_dropped_windows_do_not_tear_the_world() -> None:
    """A device that misses windows links the next one to the last by some of its frames, and says so."""
    pipeline = make()
    pipeline.process(window(0))
    result = pipeline.process(window(20))
    assert result.segment == 0 and result.join_residual is not None
    assert result.stamps[:2] == tuple(f.stamp for f in frames(6, 2)) and len(result.stamps) == 8
    assert any("slower than the camera" in note for note in result.notes)
    assert np.allclose(result.poses, truth(result), atol=1e-3)


def test_reset_forgets_everything() -> None:
    """Followed points, history, world."""
    pipeline = make()
    pipeline.process(window(0))
    (followed,) = pipeline.follow(np.array([0.5]), np.array([0.5]), 0)
    pipeline.reset()
    assert pipeline.history.newest is None
    result = pipeline.process(window(4))
    assert result.segment == 1 and np.allclose(result.poses[0], WORLD_FROM_FIRST, atol=1e-5)
    assert len(result.tracks) == 9 and result.tracks.ids.min() > followed


def nan_answers(room: Room) -> Room:
    """Answers that are not numbers."""
    exact = room.decode

    def decode(queries: Queries) -> Answers:
        return exact(queries).apply(lambda x: x * torch.nan)

    room.decode = decode  # type: ignore[method-assign]
    return room


def one_line(room: Room) -> Room:
    """All points on a line."""
    exact = room.decode

    def decode(queries: Queries) -> Answers:
        answers = exact(queries)
        return replace(answers, xyz=answers.xyz[:, 2:] * torch.tensor([0.1, 0.2, 1.0]))

    room.decode = decode  # type: ignore[method-assign]
    return room


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Rooms(confidence=0.0), "weights of all"),
        (Rooms(confidence=float("nan")), "camera motion not found"),
        ("nan", "camera motion not found"),
        ("line", "lie on a line"),
    ],
)
def test_refusals_are_notes(model: Rooms | str, words: str) -> None:
    """No exception, no pose, nothing that is not a number, and the next good window is answered."""
    if isinstance(model, str):
        change = {"nan": nan_answers, "line": one_line}[model]
        model = Rooms()
        model.change = change
    pipeline = make(model)
    result = pipeline.process(window(0))
    check_sound(result)
    assert result.poses is None and result.covariance is None and not result.metric
    assert any(words in note for note in result.notes)
    assert "not placed in the world" in result.scale_state
    model.change, model.room = (lambda room: room), {}
    good = pipeline.process(window(4))
    check_sound(good)
    assert good.poses is not None


def test_all_points_hidden_gives_no_false_tracks() -> None:
    """Depth and pose need no visibility; tracks say that nothing is seen, motion that nothing is judged."""
    result = make(Rooms(hidden=True)).process(window(0))
    check_sound(result)
    assert result.poses is not None and (result.tracks.visibility < 0.5).all()
    assert any(note.startswith("motion: none of the") for note in result.notes)
    assert len(result.dynamic) == 0 and len(result.map_points) == 0


def test_one_frame_only_is_a_note() -> None:
    """A window of one frame has no camera motion; its depth is answered."""
    result = make().process(Window(frames(0, 1)))
    check_sound(result)
    assert result.poses is None and np.isfinite(result.depth).all()
    assert any("one frame" in note for note in result.notes)


def test_a_decode_that_raises_is_a_note_and_the_rest_is_answered() -> None:
    """The surface's decode fails: depth is missing, pose and tracks are there."""
    model = Rooms()

    def breaking(room: Room) -> Room:
        exact = room.decode

        def decode(queries: Queries) -> Answers:
            if len(queries.u) == SIZE[0] * SIZE[1]:
                raise RuntimeError("the device said no")
            return exact(queries)

        room.decode = decode  # type: ignore[method-assign]
        return room

    model.change = breaking
    result = make(model).process(window(0))
    assert "points failed: RuntimeError: the device said no" in result.notes
    assert result.depth is None and result.poses is not None and result.tracks is not None


def limited(most: int) -> Callable[[Room], Room]:
    """A device that takes at most so many queries at once."""

    def change(room: Room) -> Room:
        exact = room.decode

        def decode(queries: Queries) -> Answers:
            if len(queries.u) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return exact(queries)

        room.decode = decode  # type: ignore[method-assign]
        return room

    return change


def test_out_of_memory_in_decode_makes_smaller_batches_and_recovers() -> None:
    """The answers are the same; later larger batches are tried again."""
    model = Rooms()
    model.change = limited(200)
    pipeline = make(model)
    result = pipeline.process(window(0))
    assert result.notes == ()
    assert np.allclose(result.depth, make().process(window(0)).depth)
    assert max(result.scene.scene.decoded) <= 200
    model.change = lambda room: room
    for first in range(4, 60, 4):
        result = pipeline.process(window(first))
    assert max(result.scene.scene.decoded) > 2000


def test_out_of_memory_for_the_smallest_batch_is_a_clear_note() -> None:
    """Not even the least batch fits: sentences, no pose, and the next window is answered."""
    model = Rooms()
    model.change = limited(LEAST_BATCH - 1)
    pipeline = make(model)
    result = pipeline.process(window(0))
    assert result.poses is None and result.depth is None
    assert any("cpu is out of memory: not enough to decode" in note for note in result.notes)
    model.change = lambda room: room
    assert pipeline.process(window(4)).poses is not None


def test_out_of_memory_in_encode_makes_room_then_fails_clearly_then_recovers() -> None:
    """Once: the history is shortened and it is tried again. Twice: an error that names the window."""
    model = Rooms()
    pipeline = make(model, history_windows=4)
    for first in (0, 4, 8):
        pipeline.process(window(first))
    memory = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    model.fail = [memory]
    alive = weakref.WeakSet(result.scene.scene for result in pipeline.history)
    gone: list[int] = []
    model.change = lambda room: gone.append(len(alive)) or room
    assert pipeline.process(window(12)).poses is not None
    assert gone == [1]  # the scene that the next window is joined to
    assert len(pipeline.history) == 2
    model.fail = [memory, torch.cuda.OutOfMemoryError("CUDA out of memory")]
    with pytest.raises(DeviceOutOfMemory, match="not enough for a window of 8 frames of 32x24"):
        pipeline.process(window(16))
    assert pipeline.process(window(16)).segment == 0


def test_a_break_is_not_forgotten_when_its_window_fails() -> None:
    """The window after one that could not be encoded starts the segment instead."""
    model = Rooms()
    pipeline = make(model)
    pipeline.process(window(0))
    model.fail = [ValueError("no such window")]
    with pytest.raises(ValueError, match="no such window"):
        pipeline.process(window(20, True, "image size changed"))
    result = pipeline.process(window(24))
    assert result.segment == 1 and result.stamps == window(24).stamps
    assert np.allclose(result.poses[0], WORLD_FROM_FIRST, atol=1e-5)


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
