"""Overlapping windows placed in one world (paper appendix B: Sim(3) on the overlap's surest points)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from d4rt_ros.stream.glance import Glance, Grid
from d4rt_ros.stream.ratio import length_ratio, surest_weights
from d4rt_ros.tasks.camera import CameraTrack, camera_track
from d4rt_ros.tasks.geometry import (
    Alignment,
    Array,
    align,
    carried_covariance,
    invert,
    sim3_matrix,
    sim3_parts,
    transform_covariance,
    transform_poses,
)

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike

# REP-103: the world's x is the first camera's z, its y is -x, its z is -y.
WORLD_FROM_FIRST: Array = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
MAX_RESIDUAL = 0.25  # of the points' median distance; beyond it two windows do not show the same scene
MIN_INLIERS = 0.4  # share of the points that must agree; below it the fit has latched on to a part
TRUSTED = 0.1  # deviation of the logarithm of lengths' ratios up to which most points surely agree
MAX_FRAMES = 4  # shared frames that points are asked in


@dataclass(frozen=True)
class Placed:
    """A window in the world of its segment.

    Attributes:
        scene: the window.
        world_from_scene: [4, 4] Sim(3) from the reference camera, in the scene's units, to the world.
        poses: [T, 4, 4] world_from_camera, units of the segment.
        covariance: [T, 6, 6] of (x, y, z, rx, ry, rz) about the world's axes; grows with every join.
        reference: index of the frame whose camera world_from_scene starts from.
        segment: number of the segment.
        residual: robust deviation of the joined points over their median distance; None where not joined.
        note: what went wrong, in a sentence; empty when nothing did.
    """

    scene: SceneLike
    world_from_scene: Array
    poses: Array
    covariance: Array
    reference: int
    segment: int
    residual: float | None
    note: str

    @cached_property
    def scale(self) -> float:
        """Units of the segment per unit of the scene."""
        return sim3_parts(self.world_from_scene)[0]


@dataclass(frozen=True)
class Unplaced:
    """A window whose cameras could not be found; the next window begins a segment.

    Attributes:
        segment: number of the segment that ended.
        note: why, in a sentence.
    """

    segment: int
    note: str


@dataclass(frozen=True)
class Link:
    """How a window hangs on the last one, before its own cameras are known.

    Attributes:
        scene: the window.
        reference: index of the frame whose camera its points are given in.
        last: the window before, in the world; None where nothing is joined.
        ratio: units of the last scene per unit of this one; 1 where nothing is joined.
        points: [N, 3] this window's points, [N, 3] the same of the last one, each in its reference camera,
            and their weights [N]; None where nothing is joined.
        fit: of the points; None where nothing is joined, or where the ratio was found without it.
        note: why it begins a segment, in a sentence; empty where it is joined or the first.
    """

    scene: SceneLike
    reference: int
    last: Placed | None = None
    ratio: float = 1.0
    points: tuple[Array, Array, Array] | None = None
    fit: Alignment | None = None
    note: str = ""

    @property
    def scale(self) -> float:
        """Units of the segment per unit of the scene."""
        return self.ratio if self.last is None else self.last.scale * self.ratio


class Joiner:
    """Places window after window; keeps nothing but the last one.

    The frames that two windows share carry the join: both windows are asked for the same points at the same
    instants (so moving things do no harm), each in its reference camera, and one Sim(3) takes one set to the
    other. Its scale is the ratio of lengths between the points, which depth needs and which is found in a
    fraction of a fit's time; where lengths do not agree it is that of the robust fit. The reference is the
    newest frame that is shared with the window before, near the window's middle.

    Args:
        grid: grid x grid points a frame, for poses and for joins.
        max_residual: of the points' distance, beyond which a join is lost.
    """

    def __init__(self, grid: int = 8, max_residual: float = MAX_RESIDUAL) -> None:
        """Begin with segment 0 at the first window."""
        self._grid, self._max_residual = grid, max_residual
        self._last: Placed | None = None
        self._end: Array | None = None  # where the camera was when it was last known
        self._segment = -1
        # Frames of the last window that its join was asked in, and what they showed.
        self._asked: tuple[Placed, tuple[int, ...], tuple[Array, Array]] | None = None
        self._usual: tuple[int, ...] = ()

    @property
    def last(self) -> Placed | None:
        """The window that the next one can be joined to."""
        return self._last

    def place(self, scene: SceneLike, starts_segment: bool = False) -> Placed | Unplaced:
        """Place a window.

        Args:
            scene: the window; frames with equal stamps are the same images.
            starts_segment: do not try to join it: the stream broke, the world starts anew at the origin.

        Returns:
            Placed, or Unplaced where its own camera motion cannot be found. A lost join gives a new segment
            that begins where the camera was last seen, and a note.
        """
        return self.settle(self.link(scene, starts_segment))

    def asks(self, scene: SceneLike, starts_segment: bool = False) -> Grid | None:
        """What `link` will ask the scene; None where that is nothing."""
        last = None if starts_segment else self._last
        shared = [] if last is None else _shared(last.scene, scene)
        return Grid(self._grid, self._grid, tuple(at for _, at in shared), shared[-1][1]) if shared else None

    def link(self, scene: SceneLike, starts_segment: bool = False, glance: Glance | None = None) -> Link:
        """The first half of `place`: how long the scene's units are. `glance` has asked what `asks` says."""
        if starts_segment:
            self._last = self._end = None
        last = self._last
        if last is None:
            ended = self._end is not None
            return Link(scene, 0, note="new segment: the last window had no camera motion" if ended else "")
        grid, shared = self.asks(scene), _shared(last.scene, scene)
        if grid is None:
            return Link(scene, 0, note="new segment: no frame is shared with the last window")
        target, sure = self._of_last(last, tuple(at for at, _ in shared))
        found = (glance or Glance(scene)).points(grid)
        source = found.xyz.astype(np.float64)
        points = source, target, surest_weights(source, np.minimum(sure, found.confidence))
        ratio, spread = length_ratio(*points)
        if spread <= TRUSTED:
            return Link(scene, grid.camera, last, ratio, points)
        fit = self._fit(*points)
        if isinstance(fit, str):
            return Link(scene, grid.camera, note=fit)
        return Link(scene, grid.camera, last, fit.scale, points, fit)

    def settle(self, link: Link, start: Array = WORLD_FROM_FIRST) -> Placed | Unplaced:
        """The second half of `place`: where the window is, and its cameras.

        `start` is world_from_camera of the first camera of a world that begins with this window.

        A window whose place is not found after all begins a segment in the units that its link found.
        """
        self._asked = None  # of a window that is the last one no more
        track = camera_track(link.scene, link.reference, self._grid)
        if not track.ok:
            self._last = None
            return Unplaced(max(self._segment, 0), f"camera motion not found: {track.reason}")
        fit = self._fit(*link.points) if link.points is not None and link.fit is None else link.fit
        if isinstance(fit, Alignment):
            placed = _joined(link, fit, track)
        else:
            placed = self._begin(link, track, start, fit or link.note)
        self._last, self._end = placed, placed.poses[-1]
        return placed

    def prepare(self) -> None:
        """Ask the last window now for what the next join needs of it, if windows overlap as before."""
        last = self._last
        if last is not None and self._usual and self._usual[-1] < last.scene.num_frames:
            self._of_last(last, self._usual)
            _ = last.scale  # kept from now on

    def _of_last(self, last: Placed, frames: tuple[int, ...]) -> tuple[Array, Array]:
        """Points [N, 3] and confidences [N] of some frames of the last window; asked once."""
        if self._asked is None or self._asked[0] is not last or self._asked[1] != frames:
            found = Glance(last.scene).points(Grid(self._grid, self._grid, frames, last.reference))
            self._asked = last, frames, (found.xyz.astype(np.float64), found.confidence)
        self._usual = frames
        return self._asked[2]

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window, but for the last window's scene."""
        last = self._last
        kept = {"join_segment": np.array(self._segment)}
        if self._end is not None:
            kept["join_end"] = self._end
        if last is not None:
            kept |= {
                "join_world": last.world_from_scene,
                "join_poses": last.poses,
                "join_covariance": last.covariance,
                "join_reference": np.array(last.reference),
            }
        return kept

    def restore(self, state: Mapping[str, np.ndarray], scene: SceneLike) -> Placed | None:
        """Go on from a state; `scene` is the last window. Returns it as it was placed, None if it was not."""
        self._segment, self._end, self._last = int(state["join_segment"]), state.get("join_end"), None
        self._asked = None
        if "join_world" in state:
            world, poses, covariance = (state[f"join_{name}"] for name in ("world", "poses", "covariance"))
            reference = int(state["join_reference"])
            self._last = Placed(scene, world, poses, covariance, reference, self._segment, None, "")
        return self._last

    def _begin(self, link: Link, track: CameraTrack, start: Array, note: str) -> Placed:
        """A new segment, at the origin or, after a lost join, where the camera was last seen."""
        self._segment += 1
        start = start if self._end is None else self._end
        poses = _filled(track)
        world = start @ sim3_matrix(link.scale, np.eye(3), np.zeros(3)) @ invert(poses[0])
        poses = transform_poses(world, poses)
        covariance = _covariance(world, poses, track, np.zeros((6, 6)))
        return Placed(link.scene, world, poses, covariance, track.reference, self._segment, None, note)

    def _fit(self, source: Array, target: Array, weights: Array) -> Alignment | str:
        """What carries one set of points onto the other; or why the join is lost."""
        fit = align(source, target, weights, with_scale=True)
        if not fit.ok:
            return f"new segment: the windows could not be joined: {fit.reason}"
        residual = _residual(fit, target)
        if residual > self._max_residual or fit.inlier_share < MIN_INLIERS:
            return (
                f"new segment: the join is lost, points differ by {100 * residual:.0f} % of their distance "
                f"(at most {100 * self._max_residual:.0f} %) and {100 * fit.inlier_share:.0f} % agree "
                f"(at least {100 * MIN_INLIERS:.0f} %)"
            )
        return fit


def _joined(link: Link, fit: Alignment, track: CameraTrack) -> Placed:
    """A window that is joined to the last one, with its cameras."""
    last, points = link.last, link.points
    assert last is not None and points is not None
    source, target, _ = points
    # The fit's rotation, and the translation that goes with the scale that depth already has.
    share = fit.weights / fit.weights.sum()
    shift = share @ target - link.ratio * fit.rotation @ (share @ source)
    world = last.world_from_scene @ sim3_matrix(link.ratio, fit.rotation, shift)
    poses = transform_poses(world, _filled(track))
    step = poses[track.reference, :3, 3] - last.poses[last.reference, :3, 3]
    joined = transform_covariance(last.world_from_scene, fit.covariance)
    anchor = carried_covariance(last.covariance[last.reference], step[None])[0] + joined
    covariance = _covariance(world, poses, track, anchor)
    residual = _residual(fit, target)
    return Placed(link.scene, world, poses, covariance, track.reference, last.segment, residual, "")


def _residual(fit: Alignment, target: Array) -> float:
    """The fit's robust deviation over the points' median distance."""
    return float(fit.residual / np.median(np.linalg.norm(target[fit.weights > 0], axis=-1)))


def _shared(last: SceneLike, scene: SceneLike) -> list[tuple[int, int]]:
    """Index in the last window and in this one of frames that both hold, oldest first: MAX_FRAMES at most."""
    index = {stamp: i for i, stamp in enumerate(last.stamps)}
    shared = [(index[stamp], i) for i, stamp in enumerate(scene.stamps) if stamp in index]
    step = max(1, len(shared) - 1) / (MAX_FRAMES - 1)
    return shared if len(shared) <= MAX_FRAMES else [shared[round(k * step)] for k in range(MAX_FRAMES)]


def _filled(track: CameraTrack) -> Array:
    """Poses [T, 4, 4] with those that were not found held from the nearest frame that was."""
    known = np.flatnonzero(track.posed)
    nearest = known[np.abs(np.arange(len(track.posed))[:, None] - known).argmin(1)]
    return np.array(track.reference_from_camera[nearest])


def _covariance(world: Array, poses: Array, track: CameraTrack, anchor: Array) -> Array:
    """Each pose's own covariance in the world, plus that of the reference camera seen from there."""
    arms = poses[:, :3, 3] - poses[track.reference, :3, 3]
    return np.asarray(transform_covariance(world, track.covariance) + carried_covariance(anchor, arms))
