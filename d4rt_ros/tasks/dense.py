"""Every pixel of every frame, tracked: Algorithm 1 of the paper over an occupancy grid.

A track that is visible in a cell of a frame speaks for that cell, so no track has to start there. The naive
way starts one in every cell: T x H x W tracks of T queries each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from d4rt_ros.model import SceneLike
from d4rt_ros.model.pixels import pixel_to_uv
from d4rt_ros.tasks.ask import chosen_frames
from d4rt_ros.tasks.tracks import VISIBLE, PointTracks, TrackFrame, tracks

BATCH_QUERIES = 16384
"""Queries a batch: enough to fill a GPU, and a small part of what a window's cells need."""


@dataclass(frozen=True)
class DenseProgress:
    """How far it is. Queries of the naive way are T^2 x H x W of the grid."""

    covered: int
    cells: int
    tracks: int
    queries: int
    naive_queries: int

    @property
    def coverage(self) -> float:
        """Share of the cells that are covered, 0..1."""
        return self.covered / self.cells


@dataclass(frozen=True)
class DenseChunk:
    """Tracks of one batch (on the scene's device), and the state after it."""

    tracks: PointTracks
    progress: DenseProgress


@dataclass(frozen=True)
class DenseTracks:
    """All tracks of a window, on the CPU.

    Attributes:
        ok: every cell is covered.
        reason: why not, as a sentence; empty when ok.
        tracks: what there is, also when not ok; None when not one batch was decoded.
        progress: the final counts; None when not one batch was decoded.
    """

    ok: bool
    reason: str
    tracks: PointTracks | None
    progress: DenseProgress | None


def dense_chunks(
    scene: SceneLike,
    frames: Sequence[int] | None = None,
    frame: TrackFrame = "camera",
    reference: int = 0,
    stride: int = 1,
    min_confidence: float = 0.0,
    batch_queries: int = BATCH_QUERIES,
) -> Iterator[DenseChunk]:
    """Track all cells, a batch at a time; memory stays bounded, and to cancel is to stop iterating.

    The grid has one cell for stride x stride pixels of each frame. A batch of cells that are not covered yet
    start tracks; then the cells in which a track is visible (probability of 1/2 or more), and always those in
    which one starts, are covered. So at the end, whatever the order, every cell of every frame has a track
    that passes through it in sight or starts there. Cells are drawn frame by frame, in the order middle,
    quarters, eighths and so on, and all over the frame: tracks that start in one frame do not repeat one
    another. If the first batch is seen nowhere, not even where it starts, that is all there is.

    Args:
        scene: the encoded window.
        frames: the frames whose pixels are tracked, and through which; all by default.
        frame: see ``tracks``.
        reference: see ``tracks``.
        stride: pixels a cell in each direction; 1 is every pixel.
        min_confidence: see ``tracks``.
        batch_queries: queries decoded at once; at least one track and at most one frame's cells are.

    Yields:
        DenseChunk; the last one has a coverage of 1.

    Raises:
        ValueError: an index outside the window or given twice, stride or batch_queries below 1, an unknown
            ``frame``.
    """
    chosen = chosen_frames(scene, frames)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"frames has an index twice: {chosen}")
    if stride < 1:
        raise ValueError(f"stride is {stride}, it must be at least 1")
    if batch_queries < 1:
        raise ValueError(f"batch_queries is {batch_queries}, it must be at least 1")
    height, width = (max(1, round(extent / stride)) for extent in scene.image_size)
    area, count = height * width, len(chosen)
    cells = count * area
    batch = min(max(1, batch_queries // count), area)  # more than a frame would repeat its tracks
    index_of = torch.tensor(chosen, device=scene.device)
    start_of = area * torch.arange(count, device=scene.device)[:, None]
    covered = torch.zeros(cells + 1, dtype=torch.bool, device=scene.device)  # the last one is a bin
    waiting = _drawing_order(count, height, width).to(scene.device)
    done = 0
    while len(waiting):
        source = waiting[:batch]
        pixel = source % area
        found = tracks(
            scene,
            pixel_to_uv((pixel % width).float(), width),
            pixel_to_uv((pixel // width).float(), height),
            index_of[source // area],
            chosen,
            frame,
            reference,
            min_confidence,
        )
        u, v = found.uv.unbind(-1)
        seen = (found.visibility >= VISIBLE) & (u >= 0.0) & (u < 1.0) & (v >= 0.0) & (v < 1.0)
        column = (torch.where(seen, u, 0.0) * width).long().clamp(max=width - 1)
        row = (torch.where(seen, v, 0.0) * height).long().clamp(max=height - 1)
        covered[torch.where(seen, start_of + row * width + column, cells)] = True
        covered[source] = True
        waiting = waiting[~covered[waiting]]
        done += len(source)
        yield DenseChunk(found, DenseProgress(cells - len(waiting), cells, done, done * count, cells * count))
        if done == len(source) and not found.ok:
            return


def dense_tracks(
    scene: SceneLike,
    frames: Sequence[int] | None = None,
    frame: TrackFrame = "camera",
    reference: int = 0,
    stride: int = 1,
    min_confidence: float = 0.0,
    batch_queries: int = BATCH_QUERIES,
    progress: Callable[[DenseProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> DenseTracks:
    """Collect ``dense_chunks`` on the CPU; the arguments up to ``batch_queries`` are the same.

    Args:
        scene: the encoded window.
        frames: see ``dense_chunks``.
        frame: see ``tracks``.
        reference: see ``tracks``.
        stride: see ``dense_chunks``.
        min_confidence: see ``tracks``.
        batch_queries: see ``dense_chunks``.
        progress: called after each batch.
        cancelled: asked before each batch; True ends it with what there is.

    Returns:
        DenseTracks.

    Raises:
        ValueError: as ``dense_chunks``.
    """
    parts: list[PointTracks] = []
    last: DenseProgress | None = None
    chunks = dense_chunks(scene, frames, frame, reference, stride, min_confidence, batch_queries)
    stopped = False
    while not (stopped := cancelled is not None and cancelled()) and (chunk := next(chunks, None)):
        parts.append(_on_cpu(chunk.tracks))
        last = chunk.progress
        if progress is not None:
            progress(last)
    if last is None:
        return DenseTracks(False, "cancelled before the first batch", None, None)
    reason = ""
    if last.covered < last.cells:
        share = f"{100 * last.coverage:.0f}% of the cells covered"
        reason = f"cancelled with {share}" if stopped else f"{parts[-1].reason}; given up with {share}"
    return DenseTracks(not reason, reason, _joined(parts), last)


def _drawing_order(count: int, height: int, width: int) -> Tensor:
    """All cell numbers (frame, row, column; row-major) in the order in which they may start tracks."""
    pixels = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))
    return (_far_apart(count)[:, None] * (height * width) + pixels).reshape(-1)


def _far_apart(count: int) -> Tensor:
    """0..count-1, each far from those before it: the middle, the quarters, the eighths, ..."""
    bits = max(1, (count - 1).bit_length())
    number = torch.arange(1, 2**bits + 1)
    turned = torch.zeros_like(number)
    for bit in range(bits):
        turned |= (number >> bit & 1) << (bits - 1 - bit)
    return turned[turned < count]


def _on_cpu(part: PointTracks) -> PointTracks:
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    moved: dict[str, Any] = {k: value.cpu() for k, value in values.items() if isinstance(value, Tensor)}
    return replace(part, **moved)


def _joined(parts: list[PointTracks]) -> PointTracks:
    first = parts[0]
    ok = any(p.ok for p in parts)
    whole: dict[str, Any] = {}
    for name in (f.name for f in fields(first) if isinstance(getattr(first, f.name), Tensor)):
        pieces = [getattr(part, name) for part in parts]
        whole[name] = torch.cat(pieces, dim=0 if pieces[0].ndim == 1 else 1)
    return replace(first, ok=ok, reason="" if ok else first.reason, **whole)
