"""What a camera's own motion tells of it and of depth: the small network's answers are made to agree with it.

A small network tells depth by what things look like, so it errs alike in all frames, and poses that align its
points err with it. Where things were seen from several places says it better. This is not part of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import CubicSpline
from torch import Tensor

from d4rt_ros.model.agreement import Agreement
from d4rt_ros.model.bundle import Array, Cameras, Views, adjust, misfit, triangulate, unexplained
from d4rt_ros.model.doubt import doubts
from d4rt_ros.model.neighbours import OWN, guess_error
from d4rt_ros.model.parallel import over_cores
from d4rt_ros.model.refiner import HINTS

CELLS = 32  # of a frame, each way, whose depth is looked at
_EVERY = 4  # cells, each way, of which one helps to place cameras
_LEAST, _OF_WAY = 5e-4, 0.02  # deviation of flow, in image widths: at least, and of the way that it leads
# Deviation of log depth where cameras are placed by it: at first as if it were right.
_KNOWN = (0.02, 0.2, 0.2)
_GUESSED, _FREE = 0.3, 1.0  # the same in itself, and if next to nothing were known of it
_EVEN = 2.0  # one over the misfit, in deviations, of a window whose views are as good as expected
_LOST = 2.2  # misfit, in deviations, of views that are not of one world that stands still
_TOLD = 0.25  # share of a resting camera's misfit that is left where these still tell how it moved
_SEEN = 0.1  # share of views without which a window shows nothing twice
_CLEAR = 2.0  # of log depth: as much as hints tell
_EXPECTED = 0.2  # deviation of the logarithm of a lens's length that the encoder tells
_WITH_LENS = (0.1, 0.2)  # deviation of log depth where cameras are placed to compare lenses
_REACH, _TRIED = 0.4, 6  # how far from it others are tried, each way, in its logarithm, and how many in all
_TELLING = 12.0  # by how much a length is likelier that leaves half of the views unexplained: 2 to this power
_BETWEEN = 161  # lengths in all that are weighed, by a spline through those that are tried
_SURE = 0.02  # share that is left unexplained with any lens
_OFF_AXIS = 0.1  # image widths; rays closer to the axis say little about the lens


@dataclass(frozen=True)
class Structure:
    """Of one window of T frames.

    Attributes:
        log_depth: [T, H, W] float32 on the CPU.
        hints: [T, HINTS, CELLS, CELLS] float32 on the CPU, for `Refiner`.
        poses: [T, 4, 4] float64, where cameras are in camera 0, in the scale of `log_depth`; None where the
            window does not say.
        focal: length of the lens in image widths: as given, or nearer to what the views say.
        agreement: by which frames tell of each other's depth; None where `poses` is or fits badly.
    """

    log_depth: Tensor
    hints: Tensor
    poses: Array | None
    focal: float
    agreement: Agreement | None = None

    def refined(self, change: Tensor) -> Structure:
        """With log depth changed by what `Refiner` says, [T, H, W], on which frames agree once more."""
        log_depth = self.log_depth + change.float().cpu()
        if self.agreement is not None:
            log_depth = self.agreement.settle(log_depth)
        return replace(self, log_depth=log_depth)


def find_structure(
    frames: Tensor, paths: Tensor, log_depth: Tensor, aspect: float, focal: float, known: bool = True
) -> Structure:
    """Look at where the parts of a window's frames are seen in all of them.

    Args:
        frames: [T, 3, H, W] uint8.
        paths: [T, CELLS, CELLS, T, 3] of `fine_paths` of these frames.
        log_depth: [T, h, w] float32, a guess.
        aspect: width / height of the original image.
        focal: length of the lens in image widths.
        known: the length is known; otherwise it is a guess, too.
    """
    guess = log_depth.cpu()
    ways = paths.cpu().numpy()
    views = _views(ways, doubts(frames, paths).numpy(), aspect)
    mean = float(guess.mean())
    expected = _in_cells(guess) - mean
    chosen = _chosen()
    some = Views(*(part[:, chosen].astype(float) for part in (views.rays, views.seen, views.deviation)))
    guessed = depths = expected[:, chosen].astype(float)
    nothing = Structure(guess, torch.zeros(len(guess), HINTS, CELLS, CELLS), None, focal)
    nothing.hints[:, -1] = torch.from_numpy(expected).view(-1, CELLS, CELLS).clamp(-_CLEAR, _CLEAR)
    if np.isfinite(views.deviation).mean() < _SEEN:
        return nothing
    if not known:
        focal = _likely_focal(some, guessed, focal)
    views, some = views.through(focal), some.through(focal)
    cameras, blur, left = None, 1.0, 0.0
    for sure in _KNOWN:  # depths that views have told place cameras better
        cameras = adjust(some, depths, sure, cameras)
        if cameras is None:
            return nothing
        # What moves in the world, or is followed badly, fits nowhere: then views are believed less, or not.
        left = misfit(some, cameras, triangulate(some, cameras, guessed, _GUESSED, 1.0).log_depth)
        blur = max(1.0, _EVEN * left) ** 2
        depths = triangulate(some, cameras, guessed, _GUESSED, blur).log_depth
    assert cameras is not None
    poses = cameras.poses()
    poses[:, :3, 3] *= np.exp(mean)
    if left > _LOST:
        moved = left < _TOLD * misfit(some, Cameras.at_rest(len(guess)), guessed)
        return replace(nothing, poses=poses, focal=focal) if moved else nothing
    agreement = Agreement(views, cameras, _ends(ways), mean)
    guess = agreement.settle(guess)
    expected = _in_cells(guess) - mean
    free = triangulate(views, cameras, expected, _FREE, blur)
    likely = expected + guess_error(expected, free.log_depth, free.precision)
    change = triangulate(views, cameras, likely, OWN, blur).log_depth - expected
    hints = np.stack(
        (
            change,
            (free.log_depth - expected).clip(-_CLEAR, _CLEAR),
            np.log1p(free.precision) / 4,
            free.apart / 2,
            expected.clip(-_CLEAR, _CLEAR),
        ),
        1,
    )
    maps = torch.from_numpy(hints.reshape(len(guess), HINTS, CELLS, CELLS)).float()
    told = F.interpolate(maps[None, :, 0], guess.shape[-2:], mode="bilinear", align_corners=False)[0]
    return Structure(guess + told, maps, poses, focal, agreement)


def _likely_focal(views: Views, log_depth: Array, focal: float) -> float:
    """The length of the lens, near an expected one, with which `views` of a lens of 1 fit log depths best.

    Depth that is guessed by looks says how far parallax may go, and so tells turns from ways.
    """

    def unlikely(step: float) -> float:
        """Up to a constant, minus the logarithm of what views say of a length, `step` from the expected."""
        seen, cameras, depths = views.through(focal * float(np.exp(step))), None, log_depth
        for sure in _WITH_LENS:
            cameras = adjust(seen, depths, sure, cameras)
            if cameras is None:
                break
            depths = triangulate(seen, cameras, log_depth, _GUESSED, 1.0).log_depth
        left = 1.0 if cameras is None else unexplained(seen, cameras, depths)
        return float(_TELLING * np.log(left + _SURE))

    tried = np.linspace(-_REACH, _REACH, _TRIED)
    between = np.linspace(-_REACH, _REACH, _BETWEEN)
    cost = CubicSpline(tried, over_cores(unlikely, tried))(between) + 0.5 * (between / _EXPECTED) ** 2
    return focal * float(np.exp(between[int(np.argmin(cost))]))


def _views(paths: Array, doubt: Array, aspect: float) -> Views:
    """All cells of all frames and where `paths` [T, h, w, T, 3] lead, to deviations of [T, h, w, T].

    As a lens of a length of one image width sees them.
    """
    frames, cells = paths.shape[:2]
    start = _middles(cells) - np.float32(0.5)
    lens = np.array((1.0, 1.0 / aspect), paths.dtype)
    ends = start + paths[..., :2]
    deviation = _LEAST + _OF_WAY * np.hypot(paths[..., 0], paths[..., 1]) + paths[..., 2]
    deviation = np.hypot(deviation, doubt)
    deviation[(np.abs(ends) >= 0.5).any(-1)] = np.inf
    own = np.arange(frames)
    deviation[own, :, :, own] = np.inf
    rays = np.concatenate((start * lens, np.ones_like(start[..., :1])), -1).reshape(1, -1, 3)
    return Views(
        np.tile(rays, (frames, 1, 1)),
        (ends * lens).reshape(frames, -1, frames, 2),
        deviation.reshape(frames, -1, frames),
    )


def _middles(cells: int) -> Array:
    """(u, v) of the middles of cells, [cells, cells, 1, 2] float32."""
    line = (np.arange(cells, dtype=np.float32) + 0.5) / cells
    return np.stack(np.meshgrid(line, line), -1)[:, :, None]


def _ends(paths: Array) -> Array:
    """Where `paths` [T, h, w, T, 3] lead, [T, h * w, T, 2]."""
    return (_middles(paths.shape[1]) + paths[..., :2]).reshape(len(paths), -1, len(paths), 2)


def _in_cells(maps: Tensor) -> Array:
    """Means [T, CELLS * CELLS] of maps [T, h, w]."""
    return np.asarray(F.adaptive_avg_pool2d(maps[None], CELLS)[0].flatten(1).numpy())


def _chosen() -> Array:
    """Indices of the cells that help to place cameras."""
    line = np.arange(_EVERY // 2, CELLS, _EVERY)
    return np.asarray((line[:, None] * CELLS + line).ravel())


def lens_focal(points: Array, aspect: float) -> float | None:
    """Length in image widths of a lens with square pixels, from points [T, n, n, 3] seen at a grid.

    None where no point says.
    """
    count = points.shape[1]
    grid = (np.arange(count) + 0.5) / count - 0.5
    tilt = np.stack(np.broadcast_arrays(grid[None, :], grid[:, None] / aspect), -1)
    across = points[..., :2]
    ratio = tilt * points[..., 2:] / np.where(across == 0.0, np.nan, across)
    usable = ratio[(np.abs(tilt) > _OFF_AXIS) & (ratio > 0)]
    return float(np.median(usable)) if len(usable) else None
