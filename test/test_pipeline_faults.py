"""Windows to results when things go wrong: breaks, refusals, and memory that runs out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pipelines import BALL, Rooms, check_sound, make, truth, window
from room import SIZE, Room, frames

from d4rt_ros.model import Answers, Queries
from d4rt_ros.stream import DeviceOutOfMemory, Window, WindowResult
from d4rt_ros.stream.join import WORLD_FROM_FIRST
from d4rt_ros.stream.thrift import LEAST_BATCH


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


def test_windows_that_share_no_frames_by_choice_are_not_the_device_s_fault() -> None:
    """The note about the link names the parameter that leaves no frames to share."""
    pipeline = make(window_stride=8)
    pipeline.process(window(0))
    result = pipeline.process(window(8))
    assert result.join_residual is not None
    (note,) = (note for note in result.notes if "link this one" in note)
    assert "slower" not in note and "lower window.stride" in note


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


def test_a_joined_window_without_cameras_keeps_the_scale_of_its_join() -> None:
    """Depth has left in metres by then: points and tracks are in the same; the next window begins anew."""
    model = Rooms(balls=(BALL,))
    pipeline = make(model, scale_source="fixed", scale_value=2.0)
    pipeline.process(window(0))

    def lost(room: Room) -> Room:
        """Only what is asked in many cameras at once, as their track is, has no answer."""
        exact = room.decode

        def decode(queries: Queries) -> Answers:
            answers = exact(queries)
            same_time = queries.t_cam[queries.t_src == queries.t_tgt]
            if bool((queries.t_src == queries.t_src[0]).all()) and len(same_time.unique()) > 1:
                return answers.apply(lambda x: x * torch.nan)
            return answers

        room.decode = decode  # type: ignore[method-assign]
        return room

    model.change = lost
    heard: list[WindowResult] = []
    result = pipeline.process(window(4), early=lambda early, parts: heard.append(early))
    check_sound(result)
    assert result.poses is None and result.map_points is None and "not placed" in result.scale_state
    exact = make(Rooms(balls=(BALL,), unit=2.0)).process(window(4))  # twice the metres of the room
    assert result.metric and np.allclose(result.depth, exact.depth, rtol=1e-3)
    assert heard[0].metric and heard[0].depth is result.depth and heard[1].points is result.points
    assert np.allclose(result.points.xyz, exact.points.xyz, rtol=1e-3, atol=1e-3)
    newest = result.tracks.xyz[-1]
    row, column = ((result.tracks.uv[-1, :, k] * SIZE[1 - k]).astype(int) for k in (1, 0))
    assert result.tracks.metric
    assert np.median(np.abs(newest[:, 2] / result.depth[row, column] - 1.0)) < 0.02
    model.change = lambda room: room
    after = pipeline.process(window(8))
    assert after.segment == result.segment + 1 and after.poses is not None


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
