"""Does the depth of a sequence make sense: a plausible distance, and the same scale as its poses."""

from __future__ import annotations

import numpy as np

from d4rt_ros.evaluation.sequence import DataError, Sequence
from d4rt_ros.evaluation.static_tracks import lift, project, sample_depth

_PLAUSIBLE_M = (0.05, 200.0)
_LOOKED_AT = 5
_STRIDE = 8
_FACTORS = np.geomspace(0.05, 20, 41)
_TOLERATED = 2.0  # a scale that is off by less is not told from noise
_CLEARLY_BETTER = 0.6
_MOTION = 0.05  # camera motion over depth at which a wrong scale shows well
_REACH = 60  # frames to look ahead for it
_EXACT = 1e-4  # disagreement, of the depth, below which there is none: a camera at rest leaves but rounding


def check_depth(sequence: Sequence) -> None:
    """Refuse depth that cannot be metres.

    The middle depth has to lie in 0.05..200 m. In a static scene with poses, depth is also carried from frame
    to frame: with the right scale it lands on the depth there; if another scale makes it agree clearly
    better, the depth (or the poses) are in other units.

    Raises:
        DataError: naming the sequence, and the factor by which the scale looks wrong.
    """
    if sequence.depth is None:
        return
    chosen = np.unique(np.linspace(0, len(sequence) - 1, _LOOKED_AT).astype(int))
    depths = [sequence.depth[i] for i in chosen]
    size = sequence.images[int(chosen[0])].shape[:2]
    if depths[0].shape != size:
        raise DataError(
            f"{sequence.name}: refused, depth is {depths[0].shape}, images are {size} (rows, columns)"
        )
    known = np.concatenate([d[np.isfinite(d)] for d in depths])
    if known.size == 0:
        raise DataError(f"{sequence.name}: refused, no depth in frames {chosen.tolist()}")
    middle = float(np.median(known))
    if not _PLAUSIBLE_M[0] <= middle <= _PLAUSIBLE_M[1]:
        raise DataError(
            f"{sequence.name}: refused, wrong depth scale: the middle depth would be {middle:.3g} m, "
            f"expected {_PLAUSIBLE_M[0]:g}..{_PLAUSIBLE_M[1]:g} m"
        )
    if sequence.static and sequence.world_from_camera is not None and sequence.intrinsics is not None:
        factor = _better_factor(sequence, middle)
        if factor is not None:
            raise DataError(
                f"{sequence.name}: refused, wrong depth scale: the poses fit depth multiplied by "
                f"about {factor:.2g}"
            )


def _better_factor(sequence: Sequence, middle: float) -> float | None:
    """The factor on depth that makes frames agree clearly better than 1 does, if there is one."""
    assert (
        sequence.depth is not None
        and sequence.world_from_camera is not None
        and sequence.intrinsics is not None
    )
    poses, errors = sequence.world_from_camera, []
    for a in np.unique(np.linspace(0, len(sequence) - 2, _LOOKED_AT).astype(int)):
        moved = np.linalg.norm(poses[a : a + _REACH, :3, 3] - poses[a, :3, 3], axis=1)
        far = np.flatnonzero(moved > _MOTION * middle)
        b = a + int(far[0] if len(far) else moved.argmax())
        depths, pair = (sequence.depth[a], sequence.depth[b]), (poses[a], poses[b])
        errors.append([_disagreement(depths, pair, sequence.intrinsics, factor) for factor in _FACTORS])
    table = np.array(errors) + _EXACT  # [pairs, factors], NaN where frames do not overlap at that scale
    ratios = []
    for column in table.T:
        both = np.isfinite(column) & np.isfinite(table[:, len(_FACTORS) // 2])
        ratios.append(column[both].mean() / table[both, len(_FACTORS) // 2].mean() if both.any() else np.inf)
    best = int(np.argmin(ratios))
    off = max(_FACTORS[best], 1 / _FACTORS[best])
    return float(_FACTORS[best]) if off > _TOLERATED and ratios[best] < _CLEARLY_BETTER else None


def _disagreement(
    depths: tuple[np.ndarray, np.ndarray], poses: tuple[np.ndarray, np.ndarray], k: np.ndarray, factor: float
) -> float:
    """Median of |z carried over - z measured| / z from one frame to the other, with depth times `factor`."""
    height, width = depths[0].shape
    rows, columns = np.mgrid[_STRIDE // 2 : height : _STRIDE, _STRIDE // 2 : width : _STRIDE]
    uv = np.stack([(columns.ravel() + 0.5) / width, (rows.ravel() + 0.5) / height], -1)
    points = factor * lift(uv, depths[0], k)
    second_from_first = np.linalg.inv(poses[1]) @ poses[0]
    carried = points @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    measured = factor * sample_depth(depths[1], project(carried, k, (height, width)))
    known = np.isfinite(measured) & np.isfinite(carried[:, 2])
    if known.sum() < max(0.1 * len(uv), 20):
        return float("nan")
    return float(np.median(np.abs(carried[known, 2] - measured[known]) / measured[known]))
