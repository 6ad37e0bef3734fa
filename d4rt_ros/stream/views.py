"""What is seen in a window: the newest frame's surface, what moves in it, the map, and followed points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from d4rt_ros.stream.follow import Follower
from d4rt_ros.stream.gauge import Gauge
from d4rt_ros.stream.glance import Glance, Grid
from d4rt_ros.stream.join import Placed
from d4rt_ros.stream.map import VoxelMap
from d4rt_ros.stream.report import Report
from d4rt_ros.stream.results import Cloud, Tracks, WindowResult
from d4rt_ros.stream.settings import StreamSettings
from d4rt_ros.stream.surface import Surface, judge, newest_surface, surface_grid

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike

_OF_SURFACE = frozenset({"depth", "points", "dynamic", "map"})  # parts that are made of the newest surface


class Views:
    """Adds to results what is wanted; keeps the map and the followed points.

    Args:
        settings: see StreamSettings.
        first_id: of the first followed point.

    Attributes:
        follower: the followed points.
    """

    def __init__(self, settings: StreamSettings, first_id: int = 1) -> None:
        """Nothing seen yet."""
        self.follower = Follower(settings.tracks_grid, settings.tracks_max_points, first_id)
        self._settings = settings
        self._map = VoxelMap(settings.map_max_points)

    def leave_segment(self) -> None:
        """Forget what has no place in a new world."""
        self._map.clear()
        self.follower.leave_segment()

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window."""
        return {**self._map.state(), **self.follower.state()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state."""
        self._map.restore(state)
        self.follower.restore(state)

    def still_speed(self, gauge: Gauge) -> float:
        """Speed of a point that counts as still, units of the segment per second."""
        return self._settings.dynamic_min_speed / gauge.factor

    def asks(self, scene: SceneLike, wanted: frozenset[str]) -> Grid | None:
        """What `look` will ask the scene; None where that is nothing."""
        return surface_grid(scene, self._settings.points_stride) if wanted & _OF_SURFACE else None

    def look(
        self, glance: Glance, image: np.ndarray, wanted: frozenset[str], report: Report
    ) -> Surface | None:
        """What the newest frame [H, W, 3] shows, if anything of it is wanted."""
        s = self._settings
        if not wanted & _OF_SURFACE:
            return None
        surface: Surface | None = report.step(
            "points", lambda: newest_surface(glance, image, s.points_stride, s.points_min_confidence)
        )
        if surface is not None and not surface.valid.any():
            report.note(f"none of the {len(surface.valid)} points is as sure as {s.points_min_confidence:g}")
        return surface

    def judged(
        self,
        result: WindowResult,
        surface: Surface | None,
        placed: Placed | None,
        gauge: Gauge,
        wanted: frozenset[str],
        report: Report,
    ) -> WindowResult:
        """The result with moving points and map as wanted."""
        scene, s, factor = result.scene, self._settings, result.scale
        if scene is None or surface is None or not wanted & {"dynamic", "map"}:
            return result
        motion = report.step(
            "motion", lambda: judge(scene, surface, s.dynamic_min_speed / factor, s.points_min_confidence)
        )
        if motion is None:
            return result
        report.note(motion.note)
        if "dynamic" in wanted:
            move, unit = motion.moving, np.float32(factor)
            moving = Cloud(
                surface.xyz[move] * unit, None, surface.confidence[move], motion.velocity[move] * unit
            )
            result = replace(result, dynamic=moving)
        if "map" in wanted and placed is not None:
            cloud = report.step(
                "map", lambda: self._extend_map(surface.xyz, surface.rgb, motion.still, placed, gauge)
            )
            result = replace(result, map_points=cloud)
        return result

    def tracks(
        self,
        result: WindowResult,
        placed: Placed | None,
        gauge: Gauge,
        wanted: frozenset[str],
        report: Report,
    ) -> Tracks | None:
        """Followed points; those that were asked for are followed even while nobody listens."""
        fill = "tracks" in wanted
        scene = result.scene
        if scene is None or not (fill or self.follower.asked):
            return None
        found = report.step(
            "tracks",
            lambda: self.follower.follow(scene, placed, result.intrinsics, self.still_speed(gauge), fill),
        )
        if found is None or not fill:
            return None
        tracks, note = found
        report.note(note)
        unit = np.float32(gauge.factor if placed is not None else result.scale)
        return replace(tracks, xyz=tracks.xyz * unit, velocity=tracks.velocity * unit, metric=result.metric)

    def _extend_map(
        self, xyz: np.ndarray, rgb: np.ndarray, still: np.ndarray, placed: Placed, gauge: Gauge
    ) -> Cloud:
        """The map with the still points among these (newest camera, scene units)."""
        camera = placed.poses[-1]
        world = (xyz[still].astype(np.float64) * placed.scale) @ camera[:3, :3].T + camera[:3, 3]
        self._map.add(world, rgb[still], self._settings.map_voxel_size / gauge.factor)
        return Cloud(gauge.points(self._map.xyz).astype(np.float32), self._map.rgb)
