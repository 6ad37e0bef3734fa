"""How many metres a unit of the segment is, and how sure that is."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MIN_POINTS = 20  # depth pairs in a window below which it says nothing
MIN_STEP = 0.02  # metres between two camera positions that are compared; below it odometry's noise counts
MIN_PATH = 0.3  # metres of odometry before a ratio is believed
MIN_STEPS = 3
MAX_SAMPLES = 256  # camera positions kept for the ratio of path lengths
FLOOR = 0.005  # relative error that no single window's measurement goes below
DRIFT = 0.01  # relative change of the scale that a window may bring (drift of the joined units)
METRIC_ERROR = 0.2  # less sure than this is not called metric


@dataclass(frozen=True)
class Scale:
    """The scale after a window.

    Attributes:
        metric: True where metres_per_unit can be relied on to error.
        metres_per_unit: factor from units of the segment to metres; 1 where not metric.
        error: relative standard error, 0 for fixed; inf where unknown.
        state: source, value and error in words.
    """

    metric: bool
    metres_per_unit: float
    error: float
    state: str


class ScaleEstimator:
    """Smooths measurements of one source: a one-dimensional Kalman filter on the logarithm of the scale.

    Args:
        source: none, fixed, depth or odometry.
        value: metres per unit, for fixed.
    """

    def __init__(self, source: str, value: float = 1.0) -> None:
        """Know nothing yet."""
        self._source, self._value = source, value
        self.reset()

    def reset(self) -> None:
        """Forget everything: the units of a new segment have nothing to do with the old ones."""
        self._log, self._variance = 0.0, math.inf
        self._why = {"depth": "no depth image came yet", "odometry": "no odometry came yet"}.get(
            self._source, ""
        )
        self._silent = 0  # windows since the last measurement
        self._samples: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=MAX_SAMPLES)

    def missing(self, why: str) -> None:
        """A window said nothing about the scale, for this reason."""
        self._why = why
        self._silent += 1

    def depth(self, predicted: np.ndarray, measured: np.ndarray, weights: np.ndarray) -> None:
        """Compare depths of the same pixels.

        Args:
            predicted: [N] depth in units of the segment.
            measured: [N] depth in metres, NaN or 0 where invalid.
            weights: [N] confidence of the prediction.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.log(measured.astype(np.float64) / predicted)
        ok = np.isfinite(ratio) & (weights > 0) & (predicted > 0) & (measured > 0)
        if ok.sum() < MIN_POINTS:
            self.missing(f"{int(ok.sum())} of {len(ok)} points have a depth, {MIN_POINTS} are needed")
            return
        self._measure(ratio[ok], weights[ok])

    def odometry(
        self, stamps: tuple[int, ...], positions: np.ndarray, measured: list[np.ndarray | None]
    ) -> None:
        """Compare the lengths of the camera's path.

        Args:
            stamps: T stamps.
            positions: [T, 3] of the camera in units of the segment.
            measured: T positions [3] of the camera in the odometry frame in metres, None where not known.
        """
        last = self._samples[-1][0] if self._samples else None
        for stamp, ours, theirs in zip(stamps, positions, measured):
            if theirs is not None and np.isfinite(theirs).all() and (last is None or stamp > last):
                self._samples.append((stamp, np.asarray(ours, np.float64), np.asarray(theirs, np.float64)))
        ours, theirs = self._steps()
        path = float(theirs.sum())
        if path < MIN_PATH or len(theirs) < MIN_STEPS:
            moved = f"the camera moved {path:.2f} m by odometry, {MIN_PATH:.2f} m are needed"
            self.missing(moved if self._samples else "no odometry came yet")
            return
        # Long steps say more: the sum of the lengths is the ratio of the paths.
        with np.errstate(divide="ignore"):
            ratio = np.log(theirs / ours)
        ok = np.isfinite(ratio)
        if ok.sum() < MIN_STEPS:
            self.missing("the camera moved by odometry but not in the images")
            return
        spread = 1.4826 * float(np.median(np.abs(ratio[ok] - np.median(ratio[ok]))))
        value = math.log(path / float(ours.sum()))
        self._update(value, (spread**2 / int(ok.sum())) + FLOOR**2)
        # A used span is not used again; its last position begins the next one.
        while len(self._samples) > 1:
            self._samples.popleft()

    def get(self) -> Scale:
        """The scale as known now."""
        if self._source == "none":
            return Scale(False, 1.0, math.inf, "none: lengths are in units of the segment")
        if self._source == "fixed":
            return Scale(True, self._value, 0.0, f"fixed: 1 unit is {self._value:g} m")
        error = math.sqrt(self._variance + self._silent * DRIFT**2)
        if error > METRIC_ERROR:
            return Scale(False, 1.0, error, f"{self._source}: not known, {self._why}")
        value = math.exp(self._log)
        state = f"{self._source}: 1 unit is {value:.4g} m, error {100 * error:.1f} %"
        if self._silent:
            state += f", held for {self._silent} window{'s' * (self._silent > 1)}: {self._why}"
        return Scale(True, value, error, state)

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window."""
        stamps, ours, theirs = zip(*self._samples) if self._samples else ((), (), ())
        return {
            "scale_filter": np.array([self._log, self._variance, self._silent]),
            "scale_stamps": np.array(stamps, np.int64),
            "scale_paths": np.array([ours, theirs], np.float64).reshape(2, -1, 3),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state."""
        self.reset()
        self._log, self._variance, self._silent = (
            *map(float, state["scale_filter"][:2]),
            int(state["scale_filter"][2]),
        )
        ours, theirs = state["scale_paths"]
        self._samples.extend(zip(map(int, state["scale_stamps"]), ours, theirs))

    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of steps of at least MIN_STEP metres: ours in units, theirs in metres."""
        ours, theirs = [], []
        start = self._samples[0] if self._samples else None
        for sample in self._samples:
            assert start is not None
            length = float(np.linalg.norm(sample[2] - start[2]))
            if length >= MIN_STEP:
                ours.append(float(np.linalg.norm(sample[1] - start[1])))
                theirs.append(length)
                start = sample
        return np.asarray(ours), np.asarray(theirs)

    def _measure(self, ratio: np.ndarray, weights: np.ndarray) -> None:
        """Weighted median of the log ratios, its error from their spread."""
        middle = _weighted_median(ratio, weights)
        spread = 1.4826 * _weighted_median(np.abs(ratio - middle), weights)
        # Errors of neighbouring pixels go together: count no more than 16 of them as independent.
        self._update(middle, spread**2 / min(16, len(ratio)) + FLOOR**2)

    def _update(self, value: float, variance: float) -> None:
        """One Kalman step."""
        prior = self._variance + (1 + self._silent) * DRIFT**2
        gain = 1.0 if math.isinf(prior) else prior / (prior + variance)
        self._log += gain * (value - self._log)
        self._variance = variance if math.isinf(prior) else (1 - gain) * prior
        self._silent, self._why = 0, ""


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    ranks = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(ranks, ranks[-1] / 2)])
