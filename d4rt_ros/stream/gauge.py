"""From the units of a segment to those of the results, without a jump of the camera."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Gauge:
    """From the units of the segment to those of the results: x -> offset + factor x."""

    factor: float = 1.0
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def change(self, factor: float, fixed: np.ndarray) -> None:
        """Another factor, with one position [3] of the segment staying where it is."""
        self.offset = self.offset + (self.factor - factor) * fixed
        self.factor = factor

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """[..., 3] points."""
        return np.asarray(self.offset + self.factor * xyz)

    def poses(self, poses: np.ndarray) -> np.ndarray:
        """[T, 4, 4] poses."""
        moved = np.array(poses)
        moved[:, :3, 3] = self.points(moved[:, :3, 3])
        return moved

    def covariance(self, covariance: np.ndarray) -> np.ndarray:
        """[T, 6, 6] covariances of poses."""
        unit = np.array([self.factor] * 3 + [1.0] * 3)
        return np.asarray(covariance * unit * unit[:, None])
