"""One window in, everything known about it out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.stream.follow import Follower
from d4rt_ros.stream.frames import Window
from d4rt_ros.stream.gauge import Gauge
from d4rt_ros.stream.history import History
from d4rt_ros.stream.join import Joiner, Link, Placed, Unplaced
from d4rt_ros.stream.lens import CalibratedScene
from d4rt_ros.stream.map import VoxelMap
from d4rt_ros.stream.report import Report
from d4rt_ros.stream.results import Cloud, Tracks, WindowResult
from d4rt_ros.stream.scale import Scale, ScaleEstimator
from d4rt_ros.stream.settings import StreamSettings
from d4rt_ros.stream.surface import Surface, judge, newest_surface
from d4rt_ros.stream.thrift import BatchLimit, ThriftyScene, retried
from d4rt_ros.stream.worker import OUTPUTS
from d4rt_ros.tasks.camera import intrinsics
from d4rt_ros.tasks.depth import depth_at

if TYPE_CHECKING:
    from typing import Protocol

    from d4rt_ros.model import SceneLike

    class Encodes(Protocol):
        """The part of the model that is used here."""

        def encode(self, video: torch.Tensor, stamps: tuple[int, ...]) -> SceneLike:
            """Scene of frames [T, 3, H, W] uint8."""
            ...


_SCALE_GRID = 24  # pixels per image side that are compared with a depth image


def _nothing() -> None:
    """Nobody waits between the steps."""


DEPTH, VIEW = frozenset({"depth"}), frozenset({"", "points"})  # what is handed over early, in this order


def _unheard(result: WindowResult, parts: frozenset[str]) -> None:
    """Nobody wants a result before it is whole."""


def _nowhere(scale: Scale) -> Scale:
    """The scale of a window whose cameras are not known."""
    return replace(scale, state=f"{scale.state}; this window is not placed in the world")


class Pipeline:
    """Windows of one camera to results. All methods belong on one thread; others may read `history` only.

    Args:
        model: encodes windows.
        settings: see StreamSettings.
    """

    def __init__(self, model: Encodes, settings: StreamSettings) -> None:
        """Nothing seen yet."""
        self.settings = settings
        self.history = History(settings.history_windows)
        self._model = model
        self._limit = BatchLimit()
        self._joiner = Joiner(settings.pose_grid)
        self._scale = ScaleEstimator(settings.scale_source, settings.scale_value)
        self._map = VoxelMap(settings.map_max_points)
        self._follower = Follower(settings.tracks_grid, settings.tracks_max_points)
        self._gauge = Gauge()
        self._placed: dict[int, Placed] = {}  # by the newest stamp, of the windows in history
        self._segment = 0
        self._newest: Window | None = None
        self._starts = True

    def reset(self) -> None:
        """Forget all windows, points and scales; the next window begins a segment at the origin."""
        self.history.clear()
        self._follower.clear()
        self._placed.clear()
        self._newest, self._starts = None, True

    def process(
        self,
        window: Window,
        wanted: frozenset[str] = OUTPUTS,
        between: Callable[[], None] = _nothing,
        early: Callable[[WindowResult, frozenset[str]], None] = _unheard,
    ) -> WindowResult:
        """Encode a window and answer what is wanted about it.

        Args:
            window: frames of one size, an even number, stamps strictly rising.
            wanted: of depth, points, dynamic, map, tracks; the camera always.
            between: called between the steps; what it raises ends the work.
            early: takes what is known so far and which parts of it are new: depth, as soon as the join says
                its scale; then points and camera (""); before motion, map and tracks.

        Returns:
            WindowResult; what could not be answered is None there, and a note says why.

        Raises:
            DeviceOutOfMemory: the window cannot be encoded on this device.
            ValueError: the model takes no such window.
        """
        report, begun = Report(between), time.perf_counter()
        window = self._linked(window, report)
        started = time.perf_counter()
        scene = self._encode(window)
        report.seconds["encode"] = time.perf_counter() - started
        between()
        scene, matrix, known = self._camera(scene, window, report)
        link: Link | None = report.step("join", lambda: self._joiner.link(scene, window.starts_segment))
        # Depth of a joined window need not wait for the cameras, but where they measure the scale.
        joined = link is not None and link.last is not None
        quick = joined and self.settings.scale_source != "odometry"
        placed = None if quick else self._place(link, window, report)
        at = placed if isinstance(placed, Placed) else None
        known_at = link if quick else at
        scale = report.step("scale", lambda: self._measure(scene, known_at, at, window)) or self._scale.get()
        if known_at is None:
            scale = _nowhere(replace(scale, metric=False))
        result = WindowResult(
            scene=scene,
            window=window,
            stamps=window.stamps,
            frame_id=window.newest.frame_id,
            image_size=window.newest.image_size,
            intrinsics=matrix,
            intrinsics_known=known,
            segment=self._segment,
            metric=scale.metric,
            scale=1.0 if known_at is None else scale.metres_per_unit * known_at.scale,
        )
        surface = self._look(result, wanted, report)
        if surface is not None and "depth" in wanted:
            depth, sure = surface.depth(result.image_size, result.scale)
            result = replace(result, depth=depth, depth_confidence=sure)
        early(result, DEPTH)
        if quick:
            placed = self._place(link, window, report)
            at = placed if isinstance(placed, Placed) else None
            scale = scale if at is not None else _nowhere(scale)
        result = replace(result, scale_state=scale.state)
        if at is not None:
            self._gauge.change(scale.metres_per_unit, at.poses[at.reference, :3, 3])
            result = replace(
                result,
                poses=self._gauge.poses(at.poses),
                covariance=self._gauge.covariance(at.covariance),
                join_residual=at.residual,
            )
        if surface is not None and "points" in wanted:
            result = replace(result, points=surface.cloud(result.scale))
        early(result, VIEW)
        if surface is not None and wanted & {"dynamic", "map"}:
            result = self._judged(result, surface, at, wanted, report)
        result = replace(result, tracks=self._tracks(result, at, wanted, report))
        report.seconds["total"] = time.perf_counter() - begun
        result = replace(result, notes=tuple(report.notes), seconds=report.seconds)
        self._remember(result, at)
        return result

    def follow(self, u: np.ndarray, v: np.ndarray, stamp: int) -> np.ndarray:
        """Follow points from now on.

        Args:
            u: [N] 0..1, where the points are seen in the (undistorted) image.
            v: [N].
            stamp: of that image, nanoseconds; 0: the newest.

        Returns:
            [N] int64 ids.

        Raises:
            NotHeld: no held window has the stamp.
            ValueError: a pixel outside the image, or too many points.
        """
        result, (frame,) = self.history.find(stamp)
        assert result.scene is not None
        placed = self._placed.get(result.stamps[-1]) if result.segment == self._segment else None
        return self._follower.add(u, v, frame, result.scene, placed, self._still_speed())

    def unfollow(self, ids: np.ndarray) -> np.ndarray:
        """Give points up. Returns those of the ids that were followed."""
        return self._follower.remove(ids)

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window, but for the last window itself (see restore)."""
        parts = (self._joiner, self._scale, self._map, self._follower)
        gauge = {
            "gauge": np.array([self._gauge.factor, *self._gauge.offset]),
            "segment": np.array(self._segment),
        }
        return {name: value for part in parts for name, value in part.state().items()} | gauge

    def restore(self, state: Mapping[str, np.ndarray], window: Window) -> None:
        """Go on behind a window as if it had just been processed; `state` was taken after it.

        Raises:
            DeviceOutOfMemory, ValueError: as process does.
        """
        self.reset()
        report = Report(_nothing)
        scene, _, _ = self._camera(self._encode(window), window, report)
        self._joiner.restore(state, scene)
        for part in (self._scale, self._map, self._follower):
            part.restore(state)
        factor, *offset = state["gauge"]
        self._gauge = Gauge(float(factor), np.array(offset))
        self._segment, self._newest, self._starts = int(state["segment"]), window, False

    def _linked(self, window: Window, report: Report) -> Window:
        """The window as a continuation of the last one: linked by frames, or the start of a segment."""
        last = self._newest
        if self._starts or last is None:
            window = replace(window, starts_segment=True)
        if window.starts_segment:
            self._starts = True  # until a window was encoded
            self._follower.leave_segment()
            self._gauge = Gauge()
            report.note(f"new segment: {window.reason}" if window.reason else "")
            if last is not None and window.stamps[0] <= last.stamps[-1]:
                self.history.clear()  # time went back: a stamp must not mean two images
        elif last is not None and window.stamps[0] > last.stamps[-1]:
            # Windows were dropped while the device was busy. Some frames of the last one in front of the
            # newest ones keep the world together.
            count = max(1, len(window.frames) // 4)
            window = replace(window, frames=last.frames[-count:] + window.frames[count:])
            report.note(
                f"the device is slower than the camera: {count} frames of the last window link this one to "
                "it; raise window.stride or window.frame_step"
            )
        return window

    def _encode(self, window: Window) -> SceneLike:
        images = np.stack([frame.image for frame in window.frames])
        video = torch.from_numpy(images).permute(0, 3, 1, 2)

        def make_room() -> None:
            self.history.shorten()
            self._forget_unheld()

        device = getattr(self._model, "device", torch.device("cpu"))
        what = f"a window of {len(images)} frames of {images.shape[2]}x{images.shape[1]}"
        scene = retried(lambda: self._model.encode(video, window.stamps), what, device, make_room)
        return ThriftyScene(scene, self._limit)

    def _camera(
        self, scene: SceneLike, window: Window, report: Report
    ) -> tuple[SceneLike, np.ndarray | None, bool]:
        """The scene on the known lens if there is one; K [3, 3] or None; whether it was given."""
        ends = sorted({0, scene.num_frames - 1})  # the lens does not change in between
        guess = report.step("intrinsics", lambda: intrinsics(scene, self.settings.pose_grid, ends))
        if guess is not None and not guess.ok:
            report.note(f"intrinsics not found: {guess.reason}")
        guessed = guess.matrix if guess is not None and guess.ok else None
        given = window.newest.intrinsics
        if given is None:
            return scene, guessed, False
        try:
            given = intrinsics(scene, known=given).matrix
        except ValueError as error:
            report.note(f"the given intrinsics are not used: {error}")
            return scene, guessed, False
        return (scene if guessed is None else CalibratedScene(scene, given, guessed)), given, True

    def _place(self, link: Link | None, window: Window, report: Report) -> Placed | Unplaced | None:
        if link is None:
            return None
        placed: Placed | Unplaced | None = report.step("pose", lambda: self._joiner.settle(link))
        if placed is None:
            return None
        report.note(placed.note)
        if placed.segment != self._segment or window.starts_segment:
            self._segment = placed.segment
            self._scale.reset()
            self._map.clear()
            self._follower.leave_segment()
        return placed

    def _measure(
        self, scene: SceneLike, known_at: Link | Placed | None, placed: Placed | None, window: Window
    ) -> Scale:
        """The scale after what this window says about it."""
        source = self.settings.scale_source
        if placed is not None and source == "odometry":
            measured = [None if f.odometry is None else f.odometry[:3, 3] for f in window.frames]
            self._scale.odometry(window.stamps, placed.poses[:, :3, 3], measured)
        if known_at is not None and source == "depth":
            with_depth = [i for i, frame in enumerate(window.frames) if frame.depth is not None]
            if with_depth:
                self._compare_depth(scene, known_at.scale, window, with_depth[-1])
            else:
                self._scale.missing("this window has no depth image")
        return self._scale.get()

    def _compare_depth(self, scene: SceneLike, unit: float, window: Window, frame: int) -> None:
        measured = window.frames[frame].depth
        assert measured is not None
        u, v = pixel_grid(_SCALE_GRID, _SCALE_GRID)
        found = depth_at(scene, frame, u, v)
        row, column = ((part.numpy() * n).astype(np.int64) for part, n in zip((v, u), measured.shape))
        sure = torch.where(found.valid, found.confidence, 0.0).double().cpu().numpy()
        self._scale.depth(found.depth.double().cpu().numpy() * unit, measured[row, column], sure)

    def _look(self, result: WindowResult, wanted: frozenset[str], report: Report) -> Surface | None:
        """What the newest frame shows, if anything of it is wanted."""
        scene, s, image = result.scene, self.settings, result.window.newest.image
        if scene is None or not wanted & {"depth", "points", "dynamic", "map"}:
            return None
        surface: Surface | None = report.step(
            "points", lambda: newest_surface(scene, image, s.points_stride, s.points_min_confidence)
        )
        if surface is not None and not surface.valid.any():
            report.note(f"none of the {len(surface.valid)} points is as sure as {s.points_min_confidence:g}")
        return surface

    def _judged(
        self,
        result: WindowResult,
        surface: Surface,
        placed: Placed | None,
        wanted: frozenset[str],
        report: Report,
    ) -> WindowResult:
        """The result with moving points and map as wanted."""
        scene, s, factor = result.scene, self.settings, result.scale
        assert scene is not None
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
                "map", lambda: self._extend_map(surface.xyz, surface.rgb, motion.still, placed)
            )
            result = replace(result, map_points=cloud)
        return result

    def _extend_map(self, xyz: np.ndarray, rgb: np.ndarray, still: np.ndarray, placed: Placed) -> Cloud:
        """The map with the still points among these (newest camera, scene units)."""
        camera = placed.poses[-1]
        world = (xyz[still].astype(np.float64) * placed.scale) @ camera[:3, :3].T + camera[:3, 3]
        self._map.add(world, rgb[still], self.settings.map_voxel_size / self._gauge.factor)
        return Cloud(self._gauge.points(self._map.xyz).astype(np.float32), self._map.rgb)

    def _tracks(
        self, result: WindowResult, placed: Placed | None, wanted: frozenset[str], report: Report
    ) -> Tracks | None:
        """Followed points; those that were asked for are followed even while nobody listens."""
        fill = "tracks" in wanted
        scene = result.scene
        if scene is None or not (fill or self._follower.asked):
            return None
        found = report.step(
            "tracks",
            lambda: self._follower.follow(scene, placed, result.intrinsics, self._still_speed(), fill),
        )
        if found is None or not fill:
            return None
        tracks, note = found
        report.note(note)
        unit = np.float32(self._gauge.factor if placed is not None else 1.0)
        return replace(tracks, xyz=tracks.xyz * unit, velocity=tracks.velocity * unit, metric=result.metric)

    def _still_speed(self) -> float:
        """Speed of a point that counts as still, units of the segment per second."""
        return self.settings.dynamic_min_speed / self._gauge.factor

    def _remember(self, result: WindowResult, placed: Placed | None) -> None:
        self._newest, self._starts = result.window, False
        self.history.add(result)
        self._forget_unheld()
        if placed is not None:
            self._placed[result.stamps[-1]] = placed

    def _forget_unheld(self) -> None:
        """Keep no scene alive that the history gave up."""
        held = {result.stamps[-1] for result in self.history}
        self._placed = {stamp: placed for stamp, placed in self._placed.items() if stamp in held}
