"""Which queries training asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from d4rt_ros.training.sampling import SamplingSettings, edge_map, sample_queries, sobel

FRAMES, SIZE = 8, 32


def step_clips(batch: int = 1, anchors: Any = None) -> Any:
    """Depth jumps between columns 15 and 16; motion between rows 7 and 8; one corner is sky."""
    depth = torch.ones(batch, FRAMES, SIZE, SIZE)
    depth[..., 16:] = 4.0
    motion = torch.zeros(batch, FRAMES, SIZE, SIZE)
    motion[..., :8, :] = 0.5
    return SimpleNamespace(depth=depth, motion=motion, anchors=anchors)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_sobel_of_a_ramp_is_its_slope() -> None:
    ramp = torch.arange(6.0).expand(6, 6) * 0.5
    torch.testing.assert_close(sobel(ramp)[1:-1, 1:-1], torch.full((4, 4), 0.5))


def test_edges_lie_where_depth_or_motion_jumps() -> None:
    clips = step_clips()
    clips.depth[..., 20:, :4] = torch.inf
    edges = edge_map(clips.depth, clips.motion)[0, 0]
    assert torch.isfinite(edges).all()
    assert min(edges[20, 15], edges[20, 16], edges[7, 2], edges[19, 1]) > 0.1
    assert edges[12, 8] < 1e-3 and edges[28, 28] < 1e-3


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_share_of_sources_at_edges(share: float) -> None:
    settings = SamplingSettings(count=4000, edge_share=share)
    q = sample_queries(step_clips(), settings, 0.0, generators(1))
    column, row = (q.u * SIZE).floor(), (q.v * SIZE).floor()
    at_edge = ((column == 15) | (column == 16) | (row == 7) | (row == 8)).float().mean()
    by_chance = 1 - (1 - 2 / SIZE) ** 2
    assert float(at_edge) == pytest.approx(share + (1 - share) * by_chance, abs=0.03)
    assert float(q.u.min()) >= 0 and float(q.u.max()) < 1 and float(q.v.min()) >= 0 and float(q.v.max()) < 1


def test_target_is_camera_as_often_as_asked_and_times_are_uniform() -> None:
    settings = SamplingSettings(count=20_000)
    q = sample_queries(step_clips(), settings, 0.0, generators(2))
    same = float((q.t_tgt == q.t_cam).float().mean())
    assert same == pytest.approx(0.4 + 0.6 / FRAMES, abs=0.015)
    for times in (q.t_src, q.t_tgt, q.t_cam):
        shares = torch.bincount(times.flatten(), minlength=FRAMES) / times.numel()
        assert len(shares) == FRAMES and float((shares - 1 / FRAMES).abs().max()) < 0.02


def test_near_queries_stay_within_one_frame() -> None:
    q = sample_queries(step_clips(), SamplingSettings(count=2000), 1.0, generators(3))
    assert int((q.t_tgt - q.t_src).abs().max()) == 1
    assert int((q.t_cam - q.t_src).abs().max()) == 1


def test_curriculum_goes_from_near_to_far() -> None:
    settings = SamplingSettings(near_share_start=0.6, near_share_end=0.2, curriculum_steps=100)
    shares = [settings.near_share(step) for step in (0, 50, 100, 1000)]
    assert shares == pytest.approx([0.6, 0.4, 0.2, 0.2])
    assert SamplingSettings(near_share_end=0.3).near_share(0) == 0.3


def test_a_row_depends_on_its_own_generator_only() -> None:
    settings = SamplingSettings(count=64)
    both = sample_queries(step_clips(2), settings, 0.5, generators(4, 5))
    alone = sample_queries(step_clips(1), settings, 0.5, generators(5))
    for name in ("u", "v", "t_src", "t_tgt", "t_cam"):
        assert torch.equal(getattr(both, name)[1], getattr(alone, name)[0]), name
    assert not torch.equal(both.u[0], both.u[1])


def test_sources_are_anchors_where_a_clip_has_them() -> None:
    anchors = torch.full((1, FRAMES, 5, 2), torch.nan)
    anchors[0, 2, 1] = torch.tensor([0.25, 0.75])
    anchors[0, 6, 4] = torch.tensor([0.5, 0.125])
    q = sample_queries(step_clips(anchors=anchors), SamplingSettings(count=200), 0.5, generators(6))
    early = q.t_src == 2
    assert set(q.t_src.flatten().tolist()) == {2, 6}
    assert set(q.u[early].tolist()) == {0.25} and set(q.v[~early].tolist()) == {0.125}
    with pytest.raises(ValueError, match="no visible track"):
        nothing = torch.full_like(anchors, torch.nan)
        sample_queries(step_clips(anchors=nothing), SamplingSettings(count=2), 0.5, generators(6))


@pytest.mark.parametrize(
    ("field", "value"), [("count", 0), ("edge_share", 1.5), ("same_time", -0.1), ("curriculum_steps", -1)]
)
def test_impossible_settings_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"sampling\.{field} is {value}"):
        SamplingSettings(**{field: value})
