"""One recorded sequence with its ground truth, whatever data set it came from."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


class DataError(ValueError):
    """A sequence that cannot be used; the text names it and says why."""


class Frames(collections.abc.Sequence[np.ndarray]):
    """Arrays that are read when they are asked for, one per frame, and not kept."""

    def __init__(self, items: collections.abc.Sequence[Any], load: Callable[[Any], np.ndarray]) -> None:
        """Frame i is `load(items[i])`."""
        self._items = list(items)
        self._load = load

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        """Read one frame. Raises IndexError out of range, DataError if the file is broken."""
        if isinstance(index, slice):
            return Frames(self._items[index], self._load)
        return self._load(self._items[index])


@dataclass(frozen=True, eq=False)
class TrueTracks:
    """Annotated 3D point tracks.

    Attributes:
        xyz: [T, N, 3] float, metres, in the camera frame of each time; NaN where unknown.
        visible: bool [T, N].
        query_uv: [N, 2], 0..1 over the image, where each point is given.
        query_t: [N] int64, the frame that it is given in.
    """

    xyz: np.ndarray
    visible: np.ndarray
    query_uv: np.ndarray
    query_t: np.ndarray


@dataclass(frozen=True, eq=False)
class Sequence:
    """N frames and what is known of them.

    Attributes:
        name: short, unique within what was opened.
        layout: the data set layout that it was read as.
        images: [H, W, 3] uint8 RGB each, lens distortion taken out.
        stamps: [N] int64 nanoseconds, strictly rising.
        intrinsics: [3, 3] float64 in pixels, centres at integer + 0.5; None if unknown.
        depth: [H, W] float32 metres along the optical axis each, NaN where nothing was measured; or None.
        world_from_camera: [N, 4, 4] float64 metres, optical frames; or None.
        tracks: annotated tracks, or None.
        static: nothing but the camera moves, so that tracks follow from depth and poses.
        notes: what was skipped, assumed or corrected, in sentences.
    """

    name: str
    layout: str
    images: Frames
    stamps: np.ndarray
    intrinsics: np.ndarray | None = None
    depth: Frames | None = None
    world_from_camera: np.ndarray | None = None
    tracks: TrueTracks | None = None
    static: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together. Raises DataError naming the sequence."""
        count = len(self.images)
        lengths = {
            "stamps": len(self.stamps),
            "depth": count if self.depth is None else len(self.depth),
            "poses": count if self.world_from_camera is None else len(self.world_from_camera),
            "tracks": count if self.tracks is None else len(self.tracks.xyz),
        }
        for part, length in lengths.items():
            if length != count:
                raise DataError(f"{self.name}: {length} {part} for {count} images")
        if count > 1 and int(np.diff(self.stamps).min()) <= 0:
            raise DataError(f"{self.name}: stamps do not rise")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.images)
