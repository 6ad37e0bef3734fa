"""One window in, everything known about it out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from d4rt_ros.stream.encoding import Encoding, linked
from d4rt_ros.stream.frames import Window
from d4rt_ros.stream.gauge import Gauge
from d4rt_ros.stream.glance import Glance
from d4rt_ros.stream.history import History
from d4rt_ros.stream.join import Link, Placed
from d4rt_ros.stream.lens import CalibratedScene
from d4rt_ros.stream.report import Report
from d4rt_ros.stream.results import Forgotten, WindowResult
from d4rt_ros.stream.settings import StreamSettings
from d4rt_ros.stream.views import Views
from d4rt_ros.stream.worker import OUTPUTS
from d4rt_ros.stream.world import Mount, World, unmounted, unplaced
from d4rt_ros.tasks.camera import intrinsics

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike
    from d4rt_ros.stream.encoding import Encodes

DEPTH, VIEW = frozenset({"depth"}), frozenset({"", "points"})  # what is handed over early, in this order


def _nothing() -> None:
    """Nobody waits between the steps."""


def _unheard(result: WindowResult, parts: frozenset[str]) -> None:
    """Nobody wants a result before it is whole."""


class Pipeline:
    """Windows of one camera to results. All methods belong on one thread; others may read `history` only.

    Args:
        model: encodes windows.
        settings: see StreamSettings.
        mount: where the robot's base is in the camera, see `Mount`.
        first_id: of the first followed point; a stream that comes after another one goes on from its
            `next_id`, so that no id means two points.
    """

    def __init__(
        self, model: Encodes, settings: StreamSettings, mount: Mount = unmounted, first_id: int = 1
    ) -> None:
        """Nothing seen yet."""
        self.settings = settings
        self.history = History(settings.history_windows)
        self._encoding = Encoding(model, self._make_room)
        self._views = Views(settings, first_id)
        self._world = World(settings, self._views.leave_segment, mount)
        self._placed: dict[int, Placed] = {}  # by the newest stamp, of the windows in history
        self._newest: Window | None = None
        self._starts = True
        self._resets = 0

    def reset(self) -> None:
        """Forget all windows, points and scales; the next window begins a segment at the origin.

        One that is being processed meanwhile ends at its next step, with `Forgotten`.
        """
        self._resets += 1
        self.history.clear()
        self._views.follower.clear()
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

        Depth goes first: nothing is done before it that it does not need. It needs the link to the last
        window, which says how long this one's units are; the cameras only where there is no link or the scale
        is measured on them; and the lens only where that is given, because answers change with it.

        A linked window that finds no place in the world afterwards, or not its own cameras, keeps the scale
        of the link, and with it metres: that scale is as good as any, all parts of a result have the same
        one, and depth has left already. What needs a place in the world (poses, map) then begins another one,
        or is missing and the next window begins another one.

        Args:
            window: frames of one size, an even number, stamps strictly rising.
            wanted: of depth, points, dynamic, map, tracks; the camera always.
            between: called between the steps; what it raises ends the work.
            early: takes what is known so far and which parts of it are new: depth; then points and camera
                (""); before motion, map and tracks.

        Returns:
            WindowResult; what could not be answered is None there, and a note says why.

        Raises:
            DeviceOutOfMemory: the window cannot be encoded on this device.
            Forgotten: `reset` was called between the steps.
            ValueError: the model takes no such window.
        """
        resets = self._resets

        def turn() -> None:
            between()
            if self._resets != resets:
                raise Forgotten("the pipeline was reset while the window was processed")

        report, begun = Report(turn), time.perf_counter()
        window = self._continued(window, report)
        started = time.perf_counter()
        scene: SceneLike = self._encoding.scene(window)
        report.seconds["encode"] = time.perf_counter() - started
        turn()
        matrix, known = None, False
        if window.newest.intrinsics is not None:
            scene, matrix, known = self._camera(scene, window, report)
        world, views = self._world, self._views
        asked = world.asks(scene, window), views.asks(scene, wanted)
        glance = Glance(scene, *(grid for grid in asked if grid is not None))
        link = world.link(glance, window, report)
        quick = link is not None and link.last is not None and not world.scale_needs_cameras
        placed = None if quick else world.place(link, window, report)
        at: Link | Placed | None = link if quick else placed
        scale, factor = world.measure(scene, at, window, report)
        result = WindowResult(
            scene=scene,
            window=window,
            stamps=window.stamps,
            frame_id=window.newest.frame_id,
            image_size=window.newest.image_size,
            intrinsics=matrix,
            intrinsics_known=known,
            segment=world.segment,
            metric=scale.metric,
            scale=factor,
        )
        surface = views.look(glance, window.newest.image, wanted, report)
        if surface is not None and "depth" in wanted:
            result = replace(result, depth=surface.depth(result.image_size, factor))
        early(result, DEPTH)
        if window.newest.intrinsics is None:
            _, matrix, _ = self._camera(scene, window, report)
            result = replace(result, intrinsics=matrix)
        if quick:
            placed = world.place(link, window, report)
            scale = scale if placed is not None else unplaced(scale)
        result = replace(result, scale_state=scale.state, segment=world.segment)
        if placed is not None:
            world.gauge.change(scale.metres_per_unit, placed.poses[placed.reference, :3, 3])
            result = replace(
                result,
                poses=world.gauge.poses(placed.poses),
                covariance=world.gauge.covariance(placed.covariance),
                join_residual=placed.residual,
            )
        if surface is not None and "points" in wanted:
            result = replace(result, points=surface.cloud(factor))
        early(result, VIEW)
        result = views.judged(result, surface, placed, world.gauge, wanted, report)
        result = replace(result, tracks=views.tracks(result, placed, world.gauge, wanted, report))
        world.prepare(report)
        report.seconds["total"] = time.perf_counter() - begun
        result = replace(result, notes=tuple(report.notes), seconds=report.seconds)
        self._remember(result, placed)
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
        placed = self._placed.get(result.stamps[-1]) if result.segment == self._world.segment else None
        still = self._views.still_speed(self._world.gauge)
        return self._views.follower.add(u, v, frame, result.scene, placed, still)

    @property
    def next_id(self) -> int:
        """Id of the next followed point."""
        return self._views.follower.next_id

    def unfollow(self, ids: np.ndarray) -> np.ndarray:
        """Give points up. Returns those of the ids that were followed."""
        return self._views.follower.remove(ids)

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window, but for the last window itself (see restore)."""
        return {**self._world.state(), **self._views.state()}

    def restore(self, state: Mapping[str, np.ndarray], window: Window) -> None:
        """Go on behind a window as if it had just been processed; `state` was taken after it.

        Raises:
            DeviceOutOfMemory, ValueError: as process does.
        """
        self.reset()
        scene, _, _ = self._camera(self._encoding.scene(window), window, Report(_nothing))
        self._world.restore(state, scene)
        self._views.restore(state)
        self._newest, self._starts = window, False

    def _continued(self, window: Window, report: Report) -> Window:
        """The window as a continuation of the last one: linked by frames, or the start of a segment."""
        last = self._newest
        if self._starts or last is None:
            window = replace(window, starts_segment=True)
        if not window.starts_segment and last is not None:
            window, note = linked(window, last, self.settings.window_stride)
            report.note(note)
            return window
        self._starts = True  # until a window was encoded
        self._views.follower.leave_segment()
        self._world.gauge = Gauge()
        report.note(f"new segment: {window.reason}" if window.reason else "")
        if last is not None and window.stamps[0] <= last.stamps[-1]:
            self.history.clear()  # time went back: a stamp must not mean two images
        return window

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

    def _remember(self, result: WindowResult, placed: Placed | None) -> None:
        self._newest, self._starts = result.window, False
        self.history.add(result)
        self._forget_unheld()
        if placed is not None:
            self._placed[result.stamps[-1]] = placed

    def _make_room(self) -> None:
        self.history.shorten()
        self._forget_unheld()

    def _forget_unheld(self) -> None:
        """Keep no scene alive that the history gave up."""
        held = {result.stamps[-1] for result in self.history}
        self._placed = {stamp: placed for stamp, placed in self._placed.items() if stamp in held}
