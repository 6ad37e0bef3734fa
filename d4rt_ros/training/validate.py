"""Figures on held-out clips during training, each beside its trivial baseline.

`d4rt_ros.evaluation` and `bench/accuracy.py` measure the finished model; this is the quick look for the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from d4rt_ros.model import Queries
from d4rt_ros.training.truth import ClipBatch, Truth

Predict = Callable[[Tensor, Tensor, Queries], Mapping[str, Tensor]]


def grid(size: int) -> tuple[Tensor, Tensor]:
    """Centres of `size` x `size` cells over the image: u, v, each [size * size]."""
    axis = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return u.flatten(), v.flatten()


def rotation_between(a: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    """Least-squares rotation that takes points `a` [N, 3] to `b` [N, 3] where `keep` [N]."""
    a, b = a[keep].double(), b[keep].double()
    u, _, vt = torch.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
    sign = torch.linalg.det(u @ vt).sign()
    return u @ torch.diag(torch.stack([sign.new_tensor(1.0), sign.new_tensor(1.0), sign])) @ vt


def angle_deg(rotation: Tensor) -> float:
    """Angle of a rotation matrix in degrees."""
    return float(torch.rad2deg(torch.arccos(((rotation.trace() - 1) / 2).clamp(-1, 1))))


def _depth(predict: Predict, clips: ClipBatch, cells: int) -> dict[str, list[float]]:
    batch, frames = clips.video.shape[:2]
    u, v = grid(cells)
    time = torch.arange(frames).repeat_interleave(len(u))
    queries = Queries.make(u.repeat(frames), v.repeat(frames), time, time, time)
    queries = queries.apply(lambda x: x.expand(batch, -1))
    truth = clips.answer(queries)
    guess = predict(clips.video, clips.aspect_ratio, queries)["xyz"]
    found: dict[str, list[float]] = {"absrel": [], "absrel_constant": [], "focal_err": []}
    for row in range(batch):
        keep = truth.xyz_valid[row] & (truth.xyz[row, :, 2] > 0)
        if keep.sum() < 16:
            continue
        z, z_true = guess[row, keep, 2], truth.xyz[row, keep, 2]
        scaled = z * (z_true.median() / z.median().clamp(min=1e-6))
        found["absrel"].append(float(((scaled - z_true).abs() / z_true).mean()))
        found["absrel_constant"].append(float(((z_true.median() - z_true).abs() / z_true).mean()))
        focal = _focal(guess[row, keep], queries.u[row, keep])
        true_focal = _focal(truth.xyz[row, keep], queries.u[row, keep])
        found["focal_err"].append(abs(focal / true_focal - 1))
    return found


def _focal(xyz: Tensor, u: Tensor) -> float:
    side = (u - 0.5).abs() > 0.1
    return float((xyz[side, 2] * (u[side] - 0.5) / xyz[side, 0]).nanmedian())


def _tracks(predict: Predict, clips: ClipBatch, cells: int) -> dict[str, list[float]]:
    batch, frames = clips.video.shape[:2]
    u, v = grid(cells)
    target = torch.arange(1, frames).repeat_interleave(len(u))
    queries = Queries.make(u.repeat(frames - 1), v.repeat(frames - 1), 0, target, target)
    queries = queries.apply(lambda x: x.expand(batch, -1))
    truth = clips.answer(queries)
    raw = predict(clips.video, clips.aspect_ratio, queries)
    size = torch.tensor([clips.video.shape[-1], clips.video.shape[-2]])
    seen = truth.visibility_valid & truth.uv_valid & (truth.visibility > 0.5)
    stay = torch.stack([queries.u, queries.v], -1)
    error = ((raw["uv"] - truth.uv) * size).norm(dim=-1)
    still = ((stay - truth.uv) * size).norm(dim=-1)
    right = ((raw["visibility"] > 0) == (truth.visibility > 0.5))[truth.visibility_valid]
    share = (truth.visibility > 0.5)[truth.visibility_valid].float().mean()
    return {
        "track_px": error[seen].tolist(),
        "track_px_still": still[seen].tolist(),
        "visibility_acc": [float(right.float().mean())],
        "visibility_constant": [float(torch.maximum(share, 1 - share))],
    }


def _rotation(predict: Predict, clips: ClipBatch, cells: int) -> dict[str, list[float]]:
    """Camera of frame 0 against that of the last frame, from the same points in both (paper, table 1)."""
    batch, frames = clips.video.shape[:2]
    u, v = grid(cells)
    queries = [Queries.make(u, v, 0, 0, t).apply(lambda x: x.expand(batch, -1)) for t in (0, frames - 1)]
    truths: list[Truth] = [clips.answer(q) for q in queries]
    both = Queries(*(torch.cat([getattr(q, f.name) for q in queries], 1) for f in fields(Queries)))
    guess = predict(clips.video, clips.aspect_ratio, both)["xyz"].split(len(u), 1)
    found: dict[str, list[float]] = {"rot_deg": [], "rot_deg_still": []}
    for row in range(batch):
        keep = truths[0].xyz_valid[row] & truths[1].xyz_valid[row]
        if keep.sum() < 8:
            continue
        true = rotation_between(truths[0].xyz[row], truths[1].xyz[row], keep)
        mine = rotation_between(guess[0][row], guess[1][row], keep)
        found["rot_deg"].append(angle_deg(mine @ true.T))
        found["rot_deg_still"].append(angle_deg(true))
    return found


@torch.no_grad()
def validate(predict: Predict, clips: list[ClipBatch], cells: int = 12) -> dict[str, float]:
    """Depth, tracks, visibility and rotation over held-out clips.

    Args:
        predict: (video uint8 [B, T, 3, H, W], aspect ratio [B], queries [B, N]) to raw heads, on the CPU.
        clips: the held-out batches.
        cells: side of the grid of points.

    Returns:
        absrel (scale per clip) and absrel_constant; track_px and track_px_still, medians over visible points,
        in pixels of the clip; visibility_acc and that of the better constant; rot_deg and rot_deg_still over
        the window, means; focal_err, median relative error.
    """
    found: dict[str, list[float]] = {}
    for batch in clips:
        for part in (_depth, _tracks, _rotation):
            for name, values in part(predict, batch, cells).items():
                found.setdefault(name, []).extend(values)
    medians = ("track_px", "track_px_still", "focal_err")
    result = {}
    for name, values in found.items():
        series = torch.tensor(values, dtype=torch.float64)
        result[name] = float(series.nanmedian() if name in medians else series.nanmean())
    return result
