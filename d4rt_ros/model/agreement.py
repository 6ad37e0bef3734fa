"""What the frames of a window say of each other's depth, once its cameras are known. Not part of the paper.

A guess by looks errs otherwise in every frame, so its mean over all frames that see a point is nearer to the
truth than any of them; and where they still differ after that, depth is further off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d4rt_ros.model.bundle import Array, Cameras, Views, depth_ratios

_SOFT = 0.3  # of log depth: a frame that differs by so much counts for half
_MOST = 1.0  # of log depth; who differs by more differs by this
_ALONE = 0.05  # deviation of log depth of what a single frame says; less by chance where several agree
_EVEN = 0.015  # deviation at which every second depth is within 10%, and
_FALL = 0.64  # the power of it by which the odds of that fall; both fitted to procedural scenes


@dataclass(frozen=True)
class Agreement:
    """Cells [n, n] of T frames, and where the others see them.

    Attributes:
        views: [T, n * n] points, their cells, of lenses of the right length.
        cameras: in the scale of log depths less `mean`.
        ends: [T, n * n, T, 2], (u, v) in frame j of cells of frame i.
        mean: of log depth.
    """

    views: Views
    cameras: Cameras
    ends: Array
    mean: float

    def settle(self, log_depth: Tensor) -> Tensor:
        """Log depth [T, H, W], each frame's moved towards the mean of what all frames say, cell by cell."""
        change, seen = self._differences(log_depth)
        weight = seen / (1.0 + (change / _SOFT) ** 2)
        moved = (weight * change).sum(-1) / (1.0 + weight.sum(-1))
        maps = torch.from_numpy(self._as_maps(moved)).to(log_depth)
        size = log_depth.shape[-2:]
        return log_depth + F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]

    def confidence(self, log_depth: Tensor) -> Tensor:
        """Share [T, n, n] of cells that agree as much whose depth is within 10%, on procedural scenes.

        Of log depth [T, H, W] that is settled. Told of the source pixel, whatever is asked of it.
        """
        change, seen = self._differences(log_depth)
        witnesses = 1.0 + seen.sum(-1)
        variance = ((seen * change**2).sum(-1) + _ALONE**2 / witnesses) / witnesses
        return torch.from_numpy(self._as_maps(_share(variance)))

    def _differences(self, log_depth: Tensor) -> tuple[Array, Array]:
        """By how much others put cells further off, in log depth, and whether they see them: [T, M, T]."""
        frames, count = self.views.rays.shape[:2]
        side = round(count**0.5)
        cells = F.adaptive_avg_pool2d(log_depth[None], side)[0] - self.mean
        own = cells.numpy().reshape(frames, count)
        where = torch.from_numpy(self.ends).movedim(2, 0).reshape(frames, 1, -1, 2) * 2 - 1
        found = F.grid_sample(cells[:, None], where, padding_mode="border", align_corners=False)
        there = found.reshape(frames, frames, count).permute(1, 2, 0).numpy()
        change = there - np.log(depth_ratios(self.views, self.cameras, own)) - own[..., None]
        return change.clip(-_MOST, _MOST), np.isfinite(self.views.deviation).astype(change.dtype)

    def _as_maps(self, values: Array) -> Array:
        side = round(values.shape[1] ** 0.5)
        return values.reshape(-1, side, side).astype(np.float32)


def unsupported(log_depth: Tensor, cells: int) -> Tensor:
    """`Agreement.confidence` [T, cells, cells] of log depth [T, H, W] that no other frame was asked about."""
    return torch.full((len(log_depth), cells, cells), float(_share(np.array(_ALONE**2))))


def _share(variance: Array) -> Array:
    return np.asarray(1.0 / (1.0 + (variance / _EVEN**2) ** (_FALL / 2)))
