"""Where windows are, and how long their units: joins, cameras and metric scale, segment by segment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.stream.frames import Window
from d4rt_ros.stream.gauge import Gauge
from d4rt_ros.stream.glance import Glance, Grid
from d4rt_ros.stream.join import WORLD_FROM_FIRST, Joiner, Link, Placed
from d4rt_ros.stream.report import Report
from d4rt_ros.stream.scale import Scale, ScaleEstimator
from d4rt_ros.stream.settings import StreamSettings
from d4rt_ros.tasks.depth import depth_at

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike

Mount = Callable[[str, int], "np.ndarray | None"]
"""Camera_from_base [4, 4] by the camera's frame id and a stamp in nanoseconds; None where not known."""

_SCALE_GRID = 24  # pixels per image side that are compared with a depth image


def unmounted(frame_id: str, stamp: int) -> None:
    """Nobody knows of a base."""


class World:
    """Places windows in turn: ``link``, then ``measure`` and ``place``, these in whichever order is needed.

    Args:
        settings: see StreamSettings.
        forget: called when a segment begins, so that nothing of the last one is carried over.
        mount: how the camera is mounted; a world begins with the axes of its base.

    Attributes:
        gauge: from units of the segment to those of results.
        segment: number of the segment.
        scale_needs_cameras: the scale is measured on the camera's path.
    """

    def __init__(self, settings: StreamSettings, forget: Callable[[], None], mount: Mount) -> None:
        """Nothing seen yet."""
        self.gauge, self.segment = Gauge(), 0
        self.scale_needs_cameras = settings.scale_source == "odometry"
        self._source, self._forget, self._mount = settings.scale_source, forget, mount
        self._joiner = Joiner(settings.pose_grid)
        self._scale = ScaleEstimator(settings.scale_source, settings.scale_value)

    def asks(self, scene: SceneLike, window: Window) -> Grid | None:
        """What `link` will ask the scene; None where that is nothing."""
        return self._joiner.asks(scene, window.starts_segment)

    def link(self, glance: Glance, window: Window, report: Report) -> Link | None:
        """How long a window's units are in those of the last one; None if that failed."""
        link: Link | None = report.step(
            "join", lambda: self._joiner.link(glance.scene, window.starts_segment, glance)
        )
        return link

    def place(self, link: Link | None, window: Window, report: Report) -> Placed | None:
        """The place of a window and its cameras; None where they are not found."""
        if link is None:
            return None
        start = WORLD_FROM_FIRST if link.last is not None else self._upright(window)
        placed = report.step("pose", lambda: self._joiner.settle(link, start))
        if placed is None:
            return None
        report.note(placed.note)
        if placed.segment != self.segment or window.starts_segment:
            self.segment = placed.segment
            self._scale.reset()
            self._forget()
        return placed if isinstance(placed, Placed) else None

    def measure(
        self, scene: SceneLike, at: Link | Placed | None, window: Window, report: Report
    ) -> tuple[Scale, float]:
        """The scale after what this window says about it, and metres (or units) per unit of the scene.

        Args:
            scene: the window.
            at: how it is placed or, where that is enough, joined.
            window: its frames.
            report: is told.
        """
        report.step("scale", lambda: self._compare(scene, at, window))
        scale = self._scale.get()
        if at is None:
            return unplaced(replace(scale, metric=False)), 1.0
        return scale, scale.metres_per_unit * at.scale

    def prepare(self, report: Report) -> None:
        """Have ready what the next join needs of this window."""
        report.step("ahead", self._joiner.prepare)

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window, but for the last window's scene."""
        gauge = np.array([self.gauge.factor, *self.gauge.offset])
        return {
            **self._joiner.state(),
            **self._scale.state(),
            "gauge": gauge,
            "segment": np.array(self.segment),
        }

    def restore(self, state: Mapping[str, np.ndarray], scene: SceneLike) -> None:
        """Go on from a state; `scene` is the last window."""
        self._joiner.restore(state, scene)
        self._scale.restore(state)
        factor, *offset = state["gauge"]
        self.gauge, self.segment = Gauge(float(factor), np.array(offset)), int(state["segment"])

    def _upright(self, window: Window) -> np.ndarray:
        """World_from_camera [4, 4] of a first camera, at the origin: x forward, z up, as its base has it.

        By the base's axes alone: how far off it is says nothing while units are no metres.
        """
        camera_from_base = self._mount(window.frames[0].frame_id, window.stamps[0])
        if camera_from_base is None:
            return WORLD_FROM_FIRST
        start = np.eye(4)
        start[:3, :3] = camera_from_base[:3, :3].T
        return start

    def _compare(self, scene: SceneLike, at: Link | Placed | None, window: Window) -> None:
        if self._source == "odometry" and isinstance(at, Placed):
            measured = [None if f.odometry is None else f.odometry[:3, 3] for f in window.frames]
            self._scale.odometry(window.stamps, at.poses[:, :3, 3], measured)
        if self._source == "depth" and at is not None:
            with_depth = [i for i, frame in enumerate(window.frames) if frame.depth is not None]
            if with_depth:
                self._compare_depth(scene, at.scale, window, with_depth[-1])
            else:
                self._scale.missing("this window has no depth image")

    def _compare_depth(self, scene: SceneLike, unit: float, window: Window, frame: int) -> None:
        measured = window.frames[frame].depth
        assert measured is not None
        u, v = pixel_grid(_SCALE_GRID, _SCALE_GRID)
        found = depth_at(scene, frame, u, v)
        row, column = ((part.numpy() * n).astype(np.int64) for part, n in zip((v, u), measured.shape))
        sure = torch.where(found.valid, found.confidence, 0.0).double().cpu().numpy()
        self._scale.depth(found.depth.double().cpu().numpy() * unit, measured[row, column], sure)


def unplaced(scale: Scale) -> Scale:
    """The scale of a window whose cameras are not known."""
    return replace(scale, state=f"{scale.state}; this window is not placed in the world")
