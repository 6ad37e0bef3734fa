"""Still points of the segment, thinned to one a cube and bounded in number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_REACH = 1 << 20  # cubes from the origin along an axis; what lies beyond is not kept
_REKEY = 1.1  # a cube's side that changed by more than this factor is worth sorting all points anew


class VoxelMap:
    """The newest point of every cube; beyond the limit those seen longest ago are given up.

    Args:
        max_points: points kept.
    """

    def __init__(self, max_points: int) -> None:
        """An empty map."""
        self._max_points = max_points
        self._side = 0.0
        self.clear()

    def __len__(self) -> int:
        """Number of points."""
        return len(self._keys)

    @property
    def xyz(self) -> np.ndarray:
        """[N, 3] float64 in units of the segment, oldest first."""
        return self._xyz

    @property
    def rgb(self) -> np.ndarray:
        """[N, 3] uint8."""
        return self._rgb

    def clear(self) -> None:
        """Give up all points."""
        self._keys = np.zeros(0, np.int64)
        self._xyz = np.zeros((0, 3))
        self._rgb = np.zeros((0, 3), np.uint8)

    def add(self, xyz: np.ndarray, rgb: np.ndarray, side: float) -> None:
        """Add points.

        Args:
            xyz: [N, 3] in units of the segment; points that are not finite are left out.
            rgb: [N, 3] uint8.
            side: of the cubes, units of the segment.
        """
        if not self._side or not 1 / _REKEY <= side / self._side <= _REKEY:
            self._side = side
            self._keys = self._cubes(self._xyz)
        keys = np.concatenate([self._keys, self._cubes(xyz)])
        inside = keys >= 0
        keys = keys[inside]
        xyz = np.concatenate([self._xyz, np.asarray(xyz, np.float64)])[inside]
        rgb = np.concatenate([self._rgb, rgb])[inside]
        # The last of equal keys is the newest: unique finds the first one from behind.
        _, first = np.unique(keys[::-1], return_index=True)
        kept = np.sort(len(keys) - 1 - first)[-self._max_points :]
        self._keys, self._xyz, self._rgb = keys[kept], xyz[kept], rgb[kept]

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window."""
        return {"map_xyz": self._xyz, "map_rgb": self._rgb, "map_side": np.array(self._side)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state."""
        self._xyz, self._rgb, self._side = state["map_xyz"], state["map_rgb"], float(state["map_side"])
        self._keys = self._cubes(self._xyz) if self._side else np.zeros(0, np.int64)

    def _cubes(self, xyz: np.ndarray) -> np.ndarray:
        """[N] number of each point's cube; negative for points out of reach or not finite."""
        with np.errstate(invalid="ignore"):
            index = np.floor(np.asarray(xyz, np.float64) / self._side)
            ok: np.ndarray = np.asarray((np.abs(index) < _REACH).all(-1))
        whole = np.where(ok[:, None], index, 0).astype(np.int64) + _REACH
        return np.where(ok, (whole[:, 0] << 42) | (whole[:, 1] << 21) | whole[:, 2], -1)
