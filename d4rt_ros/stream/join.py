"""Overlapping windows placed in one world (paper appendix B: Sim(3) on the overlap's surest points)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from d4rt_ros.tasks.ask import ask, asked_grid, usable
from d4rt_ros.tasks.camera import CameraTrack, camera_track
from d4rt_ros.tasks.geometry import (
    Array,
    align,
    invert,
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
SUREST = 0.85  # share of the overlap's points that is used, by confidence (paper appendix B)
MAX_RESIDUAL = 0.25  # of the points' median distance; beyond it two windows do not show the same scene
MIN_INLIERS = 0.4  # share of the points that must agree; below it the fit has latched on to a part
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

    @property
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
        world_from_scene: as in Placed; None where nothing is joined.
        covariance: [6, 6] of the join itself, about the world's axes.
        residual: as in Placed.
        note: why it begins a segment, in a sentence; empty where it is joined or the first.
    """

    scene: SceneLike
    reference: int
    last: Placed | None = None
    world_from_scene: Array | None = None
    covariance: Array | None = None
    residual: float | None = None
    note: str = ""

    @property
    def scale(self) -> float:
        """Units of the segment per unit of the scene."""
        return 1.0 if self.world_from_scene is None else sim3_parts(self.world_from_scene)[0]


class Joiner:
    """Places window after window; keeps nothing but the last one.

    The frames that two windows share carry the join: both windows are asked for the same points at the same
    instants (so moving things do no harm), each in its reference camera, and one Sim(3) takes one set to the
    other. The reference is the newest frame that is shared with the window before, near the window's middle.

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
        self._asked: tuple[Placed, list[int], tuple[Array, Array]] | None = None
        self._usual: list[int] = []

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

    def link(self, scene: SceneLike, starts_segment: bool = False) -> Link:
        """The first half of `place`: the join, which says how long the scene's units are."""
        if starts_segment:
            self._last = self._end = None
        last = self._last
        if last is None:
            ended = self._end is not None
            return Link(scene, 0, note="new segment: the last window had no camera motion" if ended else "")
        shared = _shared(last.scene, scene)
        return self._join(last, scene, shared[-1][1] if shared else 0, shared)

    def settle(self, link: Link) -> Placed | Unplaced:
        """The second half of `place`: the cameras."""
        self._asked = None  # of a window that is the last one no more
        track = camera_track(link.scene, link.reference, self._grid)
        if not track.ok:
            self._last = None
            return Unplaced(max(self._segment, 0), f"camera motion not found: {track.reason}")
        placed = self._begin(link, track) if link.last is None else _joined(link, track)
        self._last, self._end = placed, placed.poses[-1]
        return placed

    def prepare(self) -> None:
        """Ask the last window now for what the next join needs of it, if windows overlap as before."""
        last = self._last
        if last is not None and self._usual and self._usual[-1] < last.scene.num_frames:
            self._of_last(last, self._usual)

    def _of_last(self, last: Placed, frames: list[int]) -> tuple[Array, Array]:
        """Points and confidences of some frames of the last window; asked once."""
        if self._asked is None or self._asked[0] is not last or self._asked[1] != frames:
            self._asked = last, frames, _points(last.scene, frames, last.reference, self._grid)
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

    def _begin(self, link: Link, track: CameraTrack) -> Placed:
        """A new segment, at the origin or, after a lost join, where the camera was last seen."""
        self._segment += 1
        start = WORLD_FROM_FIRST if self._end is None else self._end
        poses = _filled(track)
        world = start @ invert(poses[0])
        poses = transform_poses(world, poses)
        covariance = _covariance(world, poses, track, np.zeros((6, 6)))
        return Placed(link.scene, world, poses, covariance, track.reference, self._segment, None, link.note)

    def _join(self, last: Placed, scene: SceneLike, reference: int, shared: list[tuple[int, int]]) -> Link:
        """The window joined to the last one; or why the join is lost."""
        if not shared:
            return Link(scene, reference, note="new segment: no frame is shared with the last window")
        few = [shared[i] for i in np.unique(np.linspace(0, len(shared) - 1, MAX_FRAMES).round().astype(int))]
        target, sure_t = self._of_last(last, [f[0] for f in few])
        source, sure_s = _points(scene, [f[1] for f in few], reference, self._grid)
        fit = align(source, target, surest_weights(source, np.minimum(sure_t, sure_s)), with_scale=True)
        if not fit.ok:
            note = f"new segment: the windows could not be joined: {fit.reason}"
            return Link(scene, reference, note=note)
        residual = fit.residual / float(np.median(np.linalg.norm(target[fit.weights > 0], axis=-1)))
        if residual > self._max_residual or fit.inlier_share < MIN_INLIERS:
            note = (
                f"new segment: the join is lost, points differ by {100 * residual:.0f} % of their distance "
                f"(at most {100 * self._max_residual:.0f} %) and {100 * fit.inlier_share:.0f} % agree "
                f"(at least {100 * MIN_INLIERS:.0f} %)"
            )
            return Link(scene, reference, note=note)
        world = last.world_from_scene @ fit.matrix
        joined = transform_covariance(last.world_from_scene, fit.covariance)
        return Link(scene, reference, last, world, joined, residual)


def _joined(link: Link, track: CameraTrack) -> Placed:
    """A window that is joined to the last one, with its cameras."""
    last, world = link.last, link.world_from_scene
    assert last is not None and world is not None and link.covariance is not None
    poses = transform_poses(world, _filled(track))
    step = poses[track.reference, :3, 3] - last.poses[last.reference, :3, 3]
    anchor = _carried(last.covariance[last.reference], step[None])[0] + link.covariance
    covariance = _covariance(world, poses, track, anchor)
    return Placed(link.scene, world, poses, covariance, track.reference, last.segment, link.residual, "")


def _shared(last: SceneLike, scene: SceneLike) -> list[tuple[int, int]]:
    """Index in the last window and in this one of every frame that both hold, oldest first."""
    index = {stamp: i for i, stamp in enumerate(last.stamps)}
    return [(index[stamp], i) for i, stamp in enumerate(scene.stamps) if stamp in index]


def _points(scene: SceneLike, frames: list[int], camera: int, grid: int) -> tuple[Array, Array]:
    """What a grid of pixels shows in each frame, in one camera: xyz [N, 3] and confidence [N]."""
    u, v = asked_grid(grid, grid, scene.device)
    time = torch.tensor(frames, device=scene.device)[:, None]
    answers = ask(scene, u, v, time, time, camera)
    sure = torch.where(usable(answers.confidence), answers.confidence, 0.0)
    return answers.xyz.reshape(-1, 3).double().cpu().numpy(), sure.reshape(-1).double().cpu().numpy()


def surest_weights(points: Array, sure: Array) -> Array:
    """Weights [N] of points [N, 3]: the surest 85 % their confidence, far ones less, the others 0."""
    used = sure > 0.0
    if used.any():
        ranked = np.sort(sure[used])
        used &= sure >= ranked[int(np.ceil((1.0 - SUREST) * (len(ranked) - 1)))]
    # The error of an answer grows with distance, beyond the scene's mean depth in proportion to it.
    distance = np.linalg.norm(points, axis=-1)
    mean = max(float(distance.mean()), np.finfo(np.float64).tiny)
    return np.where(used, sure / (1.0 + distance / mean) ** 2, 0.0)


def _filled(track: CameraTrack) -> Array:
    """Poses [T, 4, 4] with those that were not found held from the nearest frame that was."""
    known = np.flatnonzero(track.posed)
    nearest = known[np.abs(np.arange(len(track.posed))[:, None] - known).argmin(1)]
    return np.array(track.reference_from_camera[nearest])


def _carried(covariance: Array, arms: Array) -> Array:
    """A pose's covariance [6, 6] seen at arms [N, 3] from it, [N, 6, 6]: its rotation moves what is far."""
    lever = np.tile(np.eye(6), (len(arms), 1, 1))
    x, y, z = arms.T
    lever[:, 0, 4], lever[:, 0, 5] = z, -y
    lever[:, 1, 3], lever[:, 1, 5] = -z, x
    lever[:, 2, 3], lever[:, 2, 4] = y, -x
    return np.asarray(lever @ covariance @ np.swapaxes(lever, 1, 2))


def _covariance(world: Array, poses: Array, track: CameraTrack, anchor: Array) -> Array:
    """Each pose's own covariance in the world, plus that of the reference camera seen from there."""
    arms = poses[:, :3, 3] - poses[track.reference, :3, 3]
    return np.asarray(transform_covariance(world, track.covariance) + _carried(anchor, arms))
