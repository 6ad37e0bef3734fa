"""Points that are followed from window to window, through occlusion, until they are given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.stream.followed import Followed, TrackTable, advance
from d4rt_ros.stream.join import Placed
from d4rt_ros.stream.results import Tracks
from d4rt_ros.tasks.depth import depth_at
from d4rt_ros.tasks.geometry import Array, invert, transform_points
from d4rt_ros.tasks.tracks import VISIBLE, PointTracks, tracks

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike

SAME_DEPTH = 0.1  # relative difference of depth up to which what is seen at a point's place is the point
_LAST_ID = 2**32 - 1


class Follower:
    """Followed points of one stream.

    A point is followed inside a window from the newest frame in which it was seen. If the next window does
    not hold that frame, the point is looked for where it should be (it stands still, or goes on as it went):
    where the depth there is its own, it is seen again. Until then it is carried along unseen, with visibility
    and confidence 0. Points that nobody asked for fill a grid in the newest image, replaced when lost.

    Args:
        grid: cells per image side that are kept filled; 0: none.
        max_points: points followed at most.
        first_id: of the first point; those that follow count on.

    Attributes:
        next_id: of the next point.
    """

    def __init__(self, grid: int, max_points: int, first_id: int = 1) -> None:
        """Follow nothing."""
        self._grid, self._max_points = grid, max_points
        self.next_id = first_id
        self.clear()

    def clear(self) -> None:
        """Give all points up."""
        self._points = Followed.new(np.zeros(0, np.int64), False, 0, np.zeros((0, 2)))

    def __len__(self) -> int:
        """Number of followed points."""
        return len(self._points.ids)

    @property
    def asked(self) -> int:
        """Number of points that were asked for."""
        return int(self._points.asked.sum())

    def add(
        self,
        u: np.ndarray,
        v: np.ndarray,
        frame: int,
        scene: SceneLike,
        placed: Placed | None,
        min_speed: float,
    ) -> np.ndarray:
        """Follow points from now on.

        Args:
            u: [N] 0..1, where the points are in a frame of the window.
            v: [N].
            frame: index of that frame.
            scene: the window.
            placed: the same in the world, if its camera motion is known.
            min_speed: as in follow.

        Returns:
            [N] ids.

        Raises:
            ValueError: a pixel outside the image, or more points than can be followed.
        """
        if self.asked + len(u) > self._max_points:
            raise ValueError(
                f"{len(u)} more points cannot be followed: {self.asked} are, and tracks.max_points is "
                f"{self._max_points}"
            )
        new = Followed.new(
            self._ids(len(u)), True, scene.stamps[frame], np.stack([u, v], -1).astype(np.float64)
        )
        found = self._track(scene, new)
        advance(new, np.arange(len(u)), found, scene, placed, min_speed)
        kept = np.flatnonzero(self._points.asked)
        fill = np.flatnonzero(~self._points.asked)[: self._max_points - len(kept) - len(u)]
        self._points = self._points.take(np.concatenate([kept, fill])).join(new)
        return new.ids

    def remove(self, ids: np.ndarray) -> np.ndarray:
        """Give points up; returns those of the ids that were followed."""
        known = np.isin(self._points.ids, ids)
        removed = self._points.ids[known]
        self._points = self._points.take(np.flatnonzero(~known))
        return removed

    def leave_segment(self) -> None:
        """The world starts anew: positions in the old one mean nothing; what is in sight is followed on."""
        self._points.world[:] = np.nan

    def follow(
        self, scene: SceneLike, placed: Placed | None, intrinsics: Array | None, min_speed: float, fill: bool
    ) -> tuple[Tracks, str]:
        """Follow all points through the next window.

        Args:
            scene: the window.
            placed: the same in the world of the segment; None if its camera motion is not known.
            intrinsics: [3, 3] K in pixels; None if not known.
            min_speed: slower points are expected to stand still, units of the segment per second.
            fill: keep the grid filled with points that nobody asked for.

        Returns:
            Tracks in the newest camera, in units of the segment (of the scene where not placed), and a note
            about points that were lost, empty if none.
        """
        points = self._points
        here = np.isin(points.stamp, scene.stamps)
        if placed is not None and intrinsics is not None:
            self._find_again(points, np.flatnonzero(~here & points.asked), scene, placed, intrinsics)
            here = np.isin(points.stamp, scene.stamps)
        lost = ~here & points.asked & ~np.isfinite(points.world).all(-1)
        keep = here | (points.asked & ~lost)
        points, here = points.take(np.flatnonzero(keep)), here[keep]
        index = np.flatnonzero(here)
        table = TrackTable(scene, placed, len(points.ids))
        table.carry(points, np.flatnonzero(~here))
        seen = np.zeros(0, bool)
        if len(index):
            found = self._track(scene, points.take(index))
            seen = advance(points, index, found, scene, placed, min_speed)
            table.write(index, found)
        if fill and self._grid:
            points, table = self._fill(points, table, scene, placed, min_speed)
        unseen = ~points.asked
        unseen[index] &= ~seen
        unseen[len(here) :] = False
        self._points = points.take(np.flatnonzero(~unseen))
        count = int(lost.sum())
        note = (
            f"{count} followed points were lost: they were out of sight when the segment ended"
            if count
            else ""
        )
        return table.tracks(points.ids), note

    def _fill(
        self, points: Followed, table: TrackTable, scene: SceneLike, placed: Placed | None, min_speed: float
    ) -> tuple[Followed, TrackTable]:
        """Begin points in the cells of the newest image that hold none in sight."""
        sight = (table.visibility[-1] >= VISIBLE) & np.isfinite(table.uv[-1]).all(-1)
        cell = np.clip(np.nan_to_num(table.uv[-1, sight]) * self._grid, 0, self._grid - 1).astype(np.int64)
        empty = np.ones(self._grid**2, bool)
        empty[cell[:, 1] * self._grid + cell[:, 0]] = False
        u, v = (part.numpy() for part in pixel_grid(self._grid, self._grid))
        room = max(0, self._max_points - len(points.ids))
        chosen = np.flatnonzero(empty)[:room]
        if not len(chosen):
            return points, table
        uv = np.stack([u, v], -1)[chosen].astype(np.float64)
        new = Followed.new(self._ids(len(chosen)), False, scene.stamps[-1], uv)
        found = self._track(scene, new)
        advance(new, np.arange(len(chosen)), found, scene, placed, min_speed)
        return points.join(new), table.extended(found)

    def _ids(self, count: int) -> np.ndarray:
        """Ids never used before (they begin anew after 2**32)."""
        ids = (np.arange(count, dtype=np.int64) + self.next_id - 1) % _LAST_ID + 1
        self.next_id += count
        return ids

    def _track(self, scene: SceneLike, points: Followed) -> PointTracks:
        """The points through the window, in the newest camera."""
        where = {stamp: i for i, stamp in enumerate(scene.stamps)}
        source = torch.tensor([where[int(s)] for s in points.stamp], dtype=torch.int64)
        uv = torch.from_numpy(points.uv.astype(np.float32))
        return tracks(scene, uv[:, 0], uv[:, 1], source, frame="world", reference=scene.num_frames - 1)

    def _find_again(
        self, points: Followed, which: np.ndarray, scene: SceneLike, placed: Placed, intrinsics: Array
    ) -> None:
        """Give lost points a new place to be followed from, in the newest frame that shows them."""
        height, width = scene.image_size
        for frame in reversed(range(scene.num_frames)):
            which = which[
                np.isfinite(points.world[which]).all(-1) & ~np.isin(points.stamp[which], scene.stamps)
            ]
            place = transform_points(
                invert(placed.poses[frame]), points.take(which).predicted(scene.stamps[frame])
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                uv = (place @ intrinsics.T)[:, :2] / place[:, 2:] / np.array([width, height])
            inside = (place[:, 2] > 0) & (uv >= 0).all(-1) & (uv <= 1).all(-1)
            which, uv, expected = which[inside], uv[inside], place[inside, 2]
            if not len(which):
                continue
            pixel = torch.from_numpy(uv.astype(np.float32))
            depth = depth_at(scene, frame, pixel[:, 0], pixel[:, 1])
            seen = depth.depth.double().cpu().numpy() * placed.scale
            same = (np.abs(seen - expected) <= SAME_DEPTH * expected) & depth.valid.cpu().numpy()
            points.stamp[which[same]] = scene.stamps[frame]
            points.uv[which[same]] = uv[same]

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window."""
        kept = {f"follow_{f.name}": getattr(self._points, f.name) for f in fields(Followed)}
        return {**kept, "follow_next_id": np.array(self.next_id)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state."""
        self._points = Followed(*(np.array(state[f"follow_{f.name}"]) for f in fields(Followed)))
        self.next_id = int(state["follow_next_id"])
