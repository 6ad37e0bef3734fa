"""Procedural scenes that no training run sees, as clips with truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from d4rt_ros.evaluation.clip import DEPTH_POINTS, Clip, grid, unit_intrinsics
from d4rt_ros.evaluation.static_tracks import StaticTracks
from d4rt_ros.model import ModelConfig, Queries
from d4rt_ros.training.procedural import ProceduralSource
from d4rt_ros.training.scenes import SceneBatch

# Training draws its seeds above 2^32.
FIRST_SEED = 1_000_000
_BATCH = 8
_GRID = (16, 16)
_FINER = 2  # times the pixels of the network's input, each way: a camera's frames have more than it, too
_INTERVAL_NS = 100_000_000


def held_out_clips(config: ModelConfig, count: int) -> Iterator[Clip]:
    """`count` clips of a model's length and twice its input size, always the same ones for the same size."""
    for batch, row, name in held_out(config, count):
        yield batch_clip(batch, row, name)


def held_out(config: ModelConfig, count: int) -> Iterator[tuple[SceneBatch, int, str]]:
    """The scenes of these clips: a batch, which of its rows, and the clip's name."""
    height, width = config.image_size
    source = ProceduralSource(config, size=(_FINER * height, _FINER * width))
    for first in range(0, count, _BATCH):
        # Whole batches are drawn, so that a shorter run sees the first clips of a longer one.
        batch = source.make(list(range(FIRST_SEED + first, FIRST_SEED + first + _BATCH)))
        assert isinstance(batch, SceneBatch)
        for row in range(min(_BATCH, count - first)):
            yield batch, row, f"procedural[{FIRST_SEED + first}:{row}]"


def batch_clip(batch: SceneBatch, row: int, name: str) -> Clip:
    """One clip of a batch, with exact depth, cameras, and tracks of a grid of points of its first frame."""
    frames, _, height, width = batch.video[row].shape
    depth_uv, depth = [], []
    for frame in range(frames):
        z = batch.depth[row, frame].double().numpy()
        rows, columns = np.nonzero(np.isfinite(z))
        if len(rows) > DEPTH_POINTS:
            chosen = np.random.RandomState(frame).choice(len(rows), DEPTH_POINTS, replace=False)
            rows, columns = rows[chosen], columns[chosen]
        depth_uv.append(np.stack([(columns + 0.5) / width, (rows + 0.5) / height], -1))
        depth.append(z[rows, columns])
    return Clip(
        name=name,
        video=batch.video[row],
        stamps=tuple(_INTERVAL_NS * t for t in range(frames)),
        aspect_ratio=float(batch.aspect_ratio[row]),
        frames=frames,
        span=(0, frames - 1),
        intrinsics=unit_intrinsics(batch.intrinsics[row].double().numpy(), (height, width)),
        depth_uv=depth_uv,
        depth=depth,
        world_from_camera=batch.world_from_camera[row].double().numpy(),
        tracks=_tracks(batch, row, frames),
    )


def _tracks(batch: SceneBatch, row: int, frames: int) -> StaticTracks | None:
    """Points on a grid of frame 0 through all frames; None if all of them look at the sky."""
    points = grid(*_GRID)
    u, v = torch.tensor(points, dtype=torch.float32).T
    time = torch.arange(frames)[:, None]
    one = Queries.make(u, v, 0, time, time).apply(lambda x: x.reshape(-1))
    count = batch.video.shape[0]
    truth = batch.answer(one.apply(lambda x: x.expand(count, -1)))
    shape = (frames, len(points))
    xyz, uv = truth.xyz[row].reshape(*shape, 3), truth.uv[row].reshape(*shape, 2)
    valid = (truth.visibility_valid & truth.xyz_valid)[row].reshape(shape)
    keep = valid.all(0)
    if not bool(keep.any()):
        return None
    visible = (truth.visibility[row].reshape(shape) > 0.5) & truth.uv_valid[row].reshape(shape)
    return StaticTracks(
        uv[:, keep].double().numpy(),
        xyz[:, keep].double().numpy(),
        visible[:, keep].numpy(),
        valid[:, keep].numpy(),
    )
