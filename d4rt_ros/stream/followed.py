"""What is known of followed points, and the table of their tracks over a window."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from d4rt_ros.stream.join import Placed
from d4rt_ros.stream.results import Tracks
from d4rt_ros.tasks.geometry import invert, transform_points
from d4rt_ros.tasks.tracks import VISIBLE, PointTracks

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike


@dataclass
class Followed:
    """N followed points; the world is that of the segment, in its units."""

    ids: np.ndarray  # [N] int64
    asked: np.ndarray  # [N] bool: a user asked for it; else it fills the grid
    stamp: np.ndarray  # [N] int64: where it was seen last ...
    uv: np.ndarray  # [N, 2] float64: ... and at which pixel
    world: np.ndarray  # [N, 3] float64: last known position, NaN where not known
    velocity: np.ndarray  # [N, 3] float64, units per second; 0 for points that stand still
    known: np.ndarray  # [N] int64: stamp of that position

    @staticmethod
    def new(ids: np.ndarray, asked: bool, stamp: int, uv: np.ndarray) -> Followed:
        """Points just seen, of which nothing else is known."""
        count = len(ids)
        unknown = np.full((count, 3), np.nan)
        stamps = np.full(count, stamp, np.int64)
        return Followed(ids, np.full(count, asked), stamps, uv, unknown, np.zeros((count, 3)), stamps.copy())

    def take(self, index: np.ndarray) -> Followed:
        """Some of the points."""
        return Followed(*(getattr(self, f.name)[index] for f in fields(self)))

    def join(self, other: Followed) -> Followed:
        """These points and others."""
        return Followed(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )

    def predicted(self, stamp: int) -> np.ndarray:
        """[N, 3] where they should be at a time."""
        return np.asarray(self.world + self.velocity * ((stamp - self.known) / 1e9)[:, None])


class TrackTable:
    """Tracks being filled in, [T, N]; lengths in units of the segment where placed, else of the scene."""

    def __init__(self, scene: SceneLike, placed: Placed | None, count: int) -> None:
        """Nothing answered."""
        self.scene, self.placed = scene, placed
        self.unit = placed.scale if placed is not None else 1.0
        shape = (scene.num_frames, count)
        self.xyz = np.full((*shape, 3), np.nan, np.float32)
        self.uv = np.full((*shape, 2), np.nan, np.float32)
        self.visibility, self.confidence = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.velocity = np.full((count, 3), np.nan, np.float32)

    def write(self, index: np.ndarray, found: PointTracks) -> None:
        """Answers for the points at these columns."""
        answered = found.answered.cpu().numpy()[..., None]
        self.xyz[:, index] = np.where(answered, found.xyz.cpu().numpy() * self.unit, np.nan)
        self.uv[:, index] = np.where(answered, found.uv.cpu().numpy(), np.nan)
        self.visibility[:, index] = np.where(answered[..., 0], found.visibility.cpu().numpy(), 0)
        self.confidence[:, index] = np.where(answered[..., 0], found.confidence.cpu().numpy(), 0)
        self.velocity[index] = line_velocity(found, self.scene.stamps) * self.unit

    def carry(self, points: Followed, index: np.ndarray) -> None:
        """Where points that are out of sight should be."""
        if self.placed is None or not len(index):
            return
        newest = invert(self.placed.poses[-1])
        for frame, stamp in enumerate(self.scene.stamps):
            self.xyz[frame, index] = transform_points(newest, points.take(index).predicted(stamp))
        self.velocity[index] = points.velocity[index] @ self.placed.poses[-1, :3, :3]

    def extended(self, found: PointTracks) -> TrackTable:
        """With more points behind."""
        old, new = self.xyz.shape[1], found.xyz.shape[1]
        table = TrackTable(self.scene, self.placed, old + new)
        for name in ("xyz", "uv", "visibility", "confidence"):
            getattr(table, name)[:, :old] = getattr(self, name)
        table.velocity[:old] = self.velocity
        table.write(np.arange(old, old + new), found)
        return table

    def tracks(self, ids: np.ndarray) -> Tracks:
        """As a result."""
        arrays = (self.xyz, self.uv, self.visibility, self.confidence, self.velocity)
        return Tracks(self.scene.stamps, ids, *arrays, False, "camera")


def advance(
    points: Followed,
    index: np.ndarray,
    found: PointTracks,
    scene: SceneLike,
    placed: Placed | None,
    min_speed: float,
) -> np.ndarray:
    """Note where the tracked points (at `index`) were seen and are now; returns which were seen at all."""
    answered = found.answered.cpu().numpy()
    visible = answered & (found.visibility.cpu().numpy() >= VISIBLE)
    uv = found.uv.double().cpu().numpy()
    visible &= (uv >= 0).all(-1) & (uv <= 1).all(-1)
    count = scene.num_frames
    newest = count - 1 - visible[::-1].argmax(0)
    seen: np.ndarray = np.asarray(visible.any(0))
    column = np.flatnonzero(seen)
    points.stamp[index[column]] = np.asarray(scene.stamps)[newest[column]]
    points.uv[index[column]] = uv[newest[column], column]
    if placed is None:
        points.world[index] = np.nan
        return seen
    known = answered.any(0)
    column = np.flatnonzero(known)
    latest = (count - 1 - answered[::-1].argmax(0))[column]
    place = found.xyz.double().cpu().numpy()[latest, column] * placed.scale
    points.world[index[column]] = transform_points(placed.poses[-1], place)
    points.known[index[column]] = np.asarray(scene.stamps)[latest]
    speed = (
        np.nan_to_num(line_velocity(found, scene.stamps)[column]) * placed.scale @ placed.poses[-1, :3, :3].T
    )
    fast = np.linalg.norm(speed, axis=-1, keepdims=True) >= min_speed
    points.velocity[index[column]] = np.where(fast, speed, 0.0)
    return seen


def line_velocity(found: PointTracks, stamps: tuple[int, ...]) -> np.ndarray:
    """[N, 3] scene units per second, by a weighted line through each track; NaN where unanswered."""
    time = np.array([(stamp - stamps[-1]) / 1e9 for stamp in stamps])[:, None]
    weight = np.where(found.answered.cpu().numpy(), found.confidence.double().cpu().numpy(), 0.0)
    xyz = found.xyz.double().cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (weight / weight.sum(0))[..., None]
        lag = time - (share[..., 0] * time).sum(0)
        moved = xyz - (share * xyz).sum(0)
        speed = (share * lag[..., None] * moved).sum(0) / (share[..., 0] * lag**2).sum(0)[:, None]
    return np.where(np.isfinite(speed), speed, np.nan)
