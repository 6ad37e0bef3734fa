"""A window of frames with the truth that its scores need, wherever it comes from.

Intrinsics of a clip are for an image of unit width and height: u = fx * x / z + cx, v = fy * y / z + cy. So
they fit the frames at any resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d4rt_ros.evaluation.sequence import DataError, Sequence
from d4rt_ros.evaluation.static_tracks import StaticTracks, project, static_tracks

ROTATION_SPAN = 15
DEPTH_POINTS = 512
_TRACK_GRID = (12, 16)
_GAP = 3.0  # times the usual frame interval: a longer silence is not bridged by a window
_UNIT = (1, 1)


@dataclass(frozen=True, eq=False)
class Clip:
    """T frames for the model, the first F of them real (the rest repeats the last one), and their truth.

    Attributes:
        name: what it was cut from, and where.
        video: [T, 3, H, W] uint8.
        stamps: T nanoseconds, strictly rising.
        aspect_ratio: width / height of the image before any resizing.
        frames: F.
        span: the two frames between which rotation is measured.
        intrinsics: [3, 3] for a unit image, or None.
        depth_uv: F arrays [M, 2], pixels with a true depth; or None.
        depth: F arrays [M], their depth; or None.
        world_from_camera: [F, 4, 4] or None.
        tracks: points given in frame 0 (where `uv[0]` says) through the F frames; or None.
    """

    name: str
    video: Tensor
    stamps: tuple[int, ...]
    aspect_ratio: float
    frames: int
    span: tuple[int, int]
    intrinsics: np.ndarray | None = None
    depth_uv: list[np.ndarray] | None = None
    depth: list[np.ndarray] | None = None
    world_from_camera: np.ndarray | None = None
    tracks: StaticTracks | None = None


def unit_intrinsics(intrinsics: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """K [3, 3] in pixels of an image (H, W), for the image taken as 1 x 1."""
    return np.diag([1 / image_size[1], 1 / image_size[0], 1.0]) @ np.asarray(intrinsics, np.float64)


def window_frames(stamps: np.ndarray, length: int, span: int = ROTATION_SPAN) -> list[np.ndarray]:
    """Frames of the windows that cut a sequence up: [length] indices each, or fewer if there are not so many.

    A model with fewer than span + 1 frames gets every few of them, so that first and last are `span` apart
    (or as far as the sequence goes); a longer one gets frames in a row. Windows do not overlap, and none
    bridges a gap.

    Args:
        stamps: [N] rising.
        length: the model's frames, T.
        span: frames between first and last.
    """
    reach = max(min(span, len(stamps) - 1), min(length, len(stamps)) - 1)
    interval = float(np.median(np.diff(stamps)))
    windows = []
    for start in range(0, len(stamps) - reach, reach + 1):
        chosen = start + np.unique(np.round(np.linspace(0, reach, min(length, reach + 1))).astype(int))
        if np.diff(stamps[start : start + reach + 1]).max(initial=0) <= _GAP * interval:
            windows.append(chosen)
    return windows


def cut_clips(
    sequence: Sequence, length: int, most: int | None = None, span: int = ROTATION_SPAN
) -> Iterator[Clip]:
    """Clips of a model's length, T, evenly spread over a sequence where there are more than `most`."""
    windows = window_frames(sequence.stamps, length, span)
    if most is not None and len(windows) > most:
        windows = [windows[i] for i in np.linspace(0, len(windows) - 1, most).round().astype(int)]
    for chosen in windows:
        yield _cut(sequence, chosen, length, span)


def _cut(sequence: Sequence, chosen: np.ndarray, length: int, span: int) -> Clip:
    images = [sequence.images[int(i)] for i in chosen]
    if len({image.shape for image in images}) > 1:
        raise DataError(f"{sequence.name}: images of different sizes from frame {chosen[0]} to {chosen[-1]}")
    height, width = images[0].shape[:2]
    stamps = [int(sequence.stamps[i]) for i in chosen]
    frames = len(chosen)
    while len(images) < length:
        images.append(images[-1])
        stamps.append(stamps[-1] + max(stamps[-1] - stamps[-2], 1))
    last = int(np.abs(chosen - chosen[0] - min(span, int(chosen[-1] - chosen[0]))).argmin())
    k = None if sequence.intrinsics is None else unit_intrinsics(sequence.intrinsics, (height, width))
    poses = None if sequence.world_from_camera is None else sequence.world_from_camera[chosen]
    maps = None if sequence.depth is None else [sequence.depth[int(i)] for i in chosen]
    sampled = None if maps is None else [_some_pixels(m, int(i)) for m, i in zip(maps, chosen)]
    tracks = None
    if sequence.tracks is not None and k is not None:
        tracks = _annotated(sequence, chosen, k)
    elif sequence.static and maps is not None and poses is not None and sequence.intrinsics is not None:
        tracks = _seen_first(static_tracks(grid(*_TRACK_GRID), 0, maps, poses, sequence.intrinsics))
    return Clip(
        name=f"{sequence.name}[{chosen[0]}..{chosen[-1]}]",
        video=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        stamps=tuple(stamps),
        aspect_ratio=width / height,
        frames=frames,
        span=(0, last),
        intrinsics=k,
        depth_uv=None if sampled is None else [uv for uv, _ in sampled],
        depth=None if sampled is None else [z for _, z in sampled],
        world_from_camera=poses,
        tracks=tracks,
    )


def grid(rows: int, columns: int) -> np.ndarray:
    """Centres [rows * columns, 2] of the cells of a grid over the image."""
    v, u = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    return np.stack([u.ravel(), v.ravel()], -1)


def _some_pixels(depth: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to DEPTH_POINTS pixels with depth, uv [M, 2] and depth [M]; the same for the same seed."""
    rows, columns = np.nonzero(np.isfinite(depth) & (depth > 0))
    if len(rows) > DEPTH_POINTS:
        chosen = np.random.RandomState(seed).choice(len(rows), DEPTH_POINTS, replace=False)
        rows, columns = rows[chosen], columns[chosen]
    uv = np.stack([(columns + 0.5) / depth.shape[1], (rows + 0.5) / depth.shape[0]], -1)
    return uv, depth[rows, columns].astype(np.float64)


def _annotated(sequence: Sequence, chosen: np.ndarray, k: np.ndarray) -> StaticTracks | None:
    """The annotated points that are seen in the window's first frame."""
    assert sequence.tracks is not None
    xyz, visible = sequence.tracks.xyz[chosen], sequence.tracks.visible[chosen]
    known = np.isfinite(xyz).all(-1)
    uv = project(xyz, k, _UNIT)
    return _seen_first(StaticTracks(uv, xyz, visible & known, known))


def _seen_first(tracks: StaticTracks) -> StaticTracks | None:
    """Those that are visible in frame 0; None if there are none."""
    inside = np.isfinite(tracks.uv[0]).all(-1) & (tracks.uv[0] >= 0).all(-1) & (tracks.uv[0] <= 1).all(-1)
    keep = tracks.visible[0] & inside
    if not keep.any():
        return None
    return StaticTracks(
        tracks.uv[:, keep], tracks.xyz[:, keep], tracks.visible[:, keep], tracks.valid[:, keep]
    )
