"""Algorithm 1 covers every cell of every frame, and says what it spent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from analytic import AnalyticScene
from hypothesis import given, settings
from hypothesis import strategies as st

from d4rt_ros.tasks import DenseProgress, PointTracks, dense, dense_chunks, dense_tracks, tracks

SMALL = AnalyticScene(num_frames=5, image_size=(6, 8), ball_velocity=(0.3, 0, 0), step=(0.2, 0, 0.1))


def cells_spoken_for(found: PointTracks, height: int, width: int) -> set[tuple[int, int, int]]:
    """By brute force: where a track starts, or passes in sight."""
    place = {frame: k for k, frame in enumerate(found.frames)}
    cells = set()
    for n in range(len(found.u)):
        cells.add((place[int(found.t_src[n])], int(found.v[n] * height), int(found.u[n] * width)))
        for k in range(len(found.frames)):
            u, v = found.uv[k, n].tolist()
            if found.visibility[k, n] >= 0.5 and 0 <= u < 1 and 0 <= v < 1:
                cells.add((k, int(v * height), int(u * width)))
    return cells


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6), batch=st.integers(1, 400), motion=st.floats(0, 0.5), stride=st.integers(1, 3)
)
def test_every_cell_is_covered_whatever_the_order(seed: int, batch: int, motion: float, stride: int) -> None:
    scene = replace(SMALL, ball_velocity=(motion, 0, 0), step=(motion / 2, 0, -motion / 3))
    order = dense._drawing_order
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            dense,
            "_drawing_order",
            lambda *size: order(*size)[
                torch.randperm(size[0] * size[1] * size[2], generator=torch.Generator().manual_seed(seed))
            ],
        )
        result = dense_tracks(scene, stride=stride, batch_queries=batch)
    height, width = round(6 / stride), round(8 / stride)
    assert result.ok and result.tracks is not None and result.progress is not None
    assert len(cells_spoken_for(result.tracks, height, width)) == 5 * height * width
    assert result.progress.covered == result.progress.cells == 5 * height * width
    assert result.progress.naive_queries == 25 * height * width
    assert result.progress.queries == 5 * len(result.tracks.u) <= result.progress.naive_queries


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 6, 8), (48, 3, 1), (7, 16, 16)])
def test_the_drawing_order_holds_each_cell_once(size: tuple[int, int, int]) -> None:
    order = dense._drawing_order(*size)
    assert torch.equal(order.sort().values, torch.arange(size[0] * size[1] * size[2]))


def test_a_still_world_needs_one_track_a_pixel() -> None:
    scene = replace(SMALL, ball_velocity=(0, 0, 0), step=(0, 0, 0))
    scene = type("Still", (AnalyticScene,), {"poses": torch.eye(4).double().repeat(5, 1, 1).numpy()})(
        num_frames=5, image_size=(6, 8), ball_velocity=(0, 0, 0)
    )
    result = dense_tracks(scene)
    assert result.progress == DenseProgress(240, 240, 48, 240, 1200)


def test_occluded_cells_get_their_own_tracks() -> None:
    scene = AnalyticScene(num_frames=6, image_size=(12, 12), ball_velocity=(0.3, 0, 0), step=(0, 0, 0))
    result = dense_tracks(scene)
    assert result.tracks is not None
    passes_unseen = (result.tracks.visibility < 0.5).any()
    assert result.ok and passes_unseen and len(result.tracks.u) > 144


def test_chunks_are_the_tracks_asked_for_and_report_their_progress() -> None:
    seen = []
    for chunk in dense_chunks(SMALL, frames=(1, 4, 2), frame="world", reference=2, batch_queries=30):
        part = chunk.tracks
        assert part.frames == (1, 4, 2) and part.xyz.shape[:2] == (3, len(part.u)) and len(part.u) <= 10
        again = tracks(SMALL, part.u, part.v, part.t_src, (1, 4, 2), "world", 2)
        torch.testing.assert_close(part.xyz, again.xyz)
        seen.append(chunk.progress)
    assert all(a.covered < b.covered and a.queries < b.queries for a, b in zip(seen, seen[1:], strict=False))
    assert seen[-1].coverage == 1.0 and seen[-1].cells == 3 * 48 and seen[-1].naive_queries == 9 * 48


def test_batches_are_full_until_the_last() -> None:
    sizes = [len(c.tracks.u) for c in dense_chunks(SMALL, batch_queries=50)]
    assert sizes[:-1] == [10] * (len(sizes) - 1) and 1 <= sizes[-1] <= 10


def test_it_can_be_cancelled_and_keeps_what_it_has() -> None:
    calls: list[DenseProgress] = []
    result = dense_tracks(SMALL, batch_queries=50, progress=calls.append, cancelled=lambda: len(calls) == 2)
    assert not result.ok and "cancelled with" in result.reason and len(calls) == 2
    assert result.tracks is not None and len(result.tracks.u) == 20 and result.progress == calls[-1]
    nothing = dense_tracks(SMALL, cancelled=lambda: True)
    assert not nothing.ok and nothing.tracks is None and "before" in nothing.reason


@pytest.mark.parametrize("trouble", ["hidden", "doubtful"])
def test_an_unusable_scene_ends_after_the_first_batch(trouble: str) -> None:
    result = dense_tracks(replace(SMALL, **{trouble: True}, asked=[]), batch_queries=50)
    assert not result.ok and "visible" in result.reason and result.progress is not None
    assert result.progress.tracks == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": (0, 0)}, "twice"),
        ({"frames": (0, 5)}, "frames is 5"),
        ({"stride": 0}, "stride is 0"),
        ({"batch_queries": 0}, "batch_queries is 0"),
        ({"frame": "map"}, "'map'"),
    ],
)
def test_wrong_requests_name_the_field_and_the_value(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dense_tracks(SMALL, **change)  # type: ignore[arg-type]
