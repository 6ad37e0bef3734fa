"""Which queries to ask of a clip (paper, section 2 and appendix A).

A share of the sources lies at depth and motion edges, t_tgt = t_cam with a set probability, and a curriculum
keeps times near the source early on, because matching between neighbouring frames has to be learnt first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from d4rt_ros.model import Queries
from d4rt_ros.model.checks import NOT_NEGATIVE, SHARE, at_least, check_fields
from d4rt_ros.training.truth import ClipBatch


@dataclass(frozen=True)
class SamplingSettings:
    """How queries are drawn; shares and probabilities in 0..1."""

    count: int = 1024  # queries a clip
    edge_share: float = 0.3
    same_time: float = 0.4  # probability of forcing t_tgt = t_cam
    near_share_start: float = 0.6  # share of queries whose times stay within one frame of the source
    near_share_end: float = 0.2
    curriculum_steps: int = 0  # steps from the first share to the second; 0: the second from the start

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        shares = ("edge_share", "same_time", "near_share_start", "near_share_end")
        check_fields(
            self,
            "sampling.",
            **dict.fromkeys(shares, SHARE),
            count=at_least(1),
            curriculum_steps=NOT_NEGATIVE,
        )

    def near_share(self, step: int) -> float:
        """Share of queries near their source time at a training step."""
        part = min(1.0, step / self.curriculum_steps) if self.curriculum_steps else 1.0
        return self.near_share_start + part * (self.near_share_end - self.near_share_start)


def sobel(maps: Tensor) -> Tensor:
    """Gradient magnitude of `maps` [..., H, W] by Sobel, edges replicated."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=maps.device) / 8
    flat = F.pad(maps.reshape(-1, 1, *maps.shape[-2:]), (1, 1, 1, 1), mode="replicate")
    gradient = F.conv2d(flat, torch.stack([kernel, kernel.T])[:, None])
    return gradient.square().sum(1).sqrt().reshape(maps.shape)


def edge_map(depth: Tensor, motion: Tensor) -> Tensor:
    """Strength of depth and motion edges for clips [B, T, H, W], each map relative to its own mean.

    Depth counts as inverse depth, where sky and holes (NaN, inf) are 0, so a skyline is an edge as well.
    """
    inverse = torch.where(torch.isfinite(depth) & (depth > 0), 1 / depth, 0.0)
    total = torch.zeros_like(inverse)
    for values in (inverse, motion.nan_to_num(0.0, 0.0, 0.0)):
        edges = sobel(values / values.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6))
        total += edges / edges.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    return total


def sample_times(
    source: Tensor, frames: int, settings: SamplingSettings, near_share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Target and camera times for source times [N]."""

    def near() -> Tensor:
        return (source + torch.randint(-1, 2, source.shape, generator=generator)).clamp(0, frames - 1)

    def anywhere() -> Tensor:
        return torch.randint(0, frames, source.shape, generator=generator)

    close = torch.rand(source.shape, generator=generator) < near_share
    target = torch.where(close, near(), anywhere())
    camera = torch.where(close, near(), anywhere())
    same = torch.rand(source.shape, generator=generator) < settings.same_time
    return target, torch.where(same, target, camera)


def sample_queries(
    clips: ClipBatch, settings: SamplingSettings, near_share: float, generators: list[torch.Generator]
) -> Queries:
    """Draw queries [B, N] for a batch of clips on the CPU; clip b uses only `generators[b]`.

    Where clips answer only at `anchors` (data sets of tracks) every source is an anchor of its frame.
    """
    batch, frames, height, width = clips.depth.shape
    edges = edge_map(clips.depth, clips.motion).reshape(batch, -1)
    hard = round(settings.edge_share * settings.count)
    columns: list[tuple[Tensor, ...]] = []
    for row, generator in enumerate(generators):
        cells = torch.randint(0, frames * height * width, (settings.count,), generator=generator)
        if hard and edges[row].sum() > 0:
            cells[:hard] = torch.multinomial(edges[row], hard, replacement=True, generator=generator)
        jitter = torch.rand((2, settings.count), generator=generator)
        source = cells // (height * width)
        u = (cells % width + jitter[0]) / width
        v = (cells // width % height + jitter[1]) / height
        anchors = getattr(clips, "anchors", None)
        if anchors is not None:
            u, v, source = sample_anchors(anchors[row], settings.count, generator)
        columns.append((u, v, source, *sample_times(source, frames, settings, near_share, generator)))
    u, v, source, target, camera = (torch.stack(column) for column in zip(*columns))
    return Queries.make(u, v, source, target, camera)


def sample_anchors(anchors: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Sources among `anchors` [T, M, 2] (u, v; NaN where not seen): u, v, t_src, each [count]."""
    seen = torch.isfinite(anchors).all(-1).flatten().nonzero()[:, 0]
    if not len(seen):
        raise ValueError("a clip has no visible track to ask about")
    cells = seen[torch.randint(0, len(seen), (count,), generator=generator)]
    u, v = anchors.flatten(0, 1)[cells].unbind(-1)
    return u, v, cells // anchors.shape[1]
