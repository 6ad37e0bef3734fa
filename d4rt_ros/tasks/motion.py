"""Moving or still: which points change their place in the world by more than is uncertain, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.model import SceneLike
from d4rt_ros.tasks.tracks import VISIBLE, PointTracks, tracks

_MIN_FRAMES = 3  # two fix a line and leave nothing to judge it by
_DEVIATIONS = 4.0  # more than a still point reaches even if all its error lies along the line of sight
_STILL_SHARE = 0.25  # the stillest quarter of the points tells how far still points drift
_QUARTER_OVER_RMS = 0.636  # lower quartile of a 3-D normal vector's length over its root mean square
_RELATIVE_FLOOR = 1e-3  # a change of less than this share of the distance proves nothing


@dataclass(frozen=True)
class Motion:
    """What N points do in the world, which is the camera of ``track.reference`` at its own instant.

    Attributes:
        ok: False when not one point could be judged.
        reason: why not, as a sentence; empty when ok.
        track: the world track that was judged.
        judged: [N] bool, seen with confidence in 3 frames or more.
        moving: [N] bool, judged, and changes its place by more than its uncertainty.
        velocity: [N, 3] scene units a second, axes of the world: the straight line through the
            positions; 0 where not judged.
        velocity_deviation: [N] standard deviation of ``velocity`` (length, all axes); 0 where not judged.
    """

    ok: bool
    reason: str
    track: PointTracks
    judged: Tensor
    moving: Tensor
    velocity: Tensor
    velocity_deviation: Tensor


def moving_points(
    scene: SceneLike,
    u: Tensor,
    v: Tensor,
    t_src: Tensor | int,
    reference: int = 0,
    samples: int = 8,
    min_speed: float = 0.0,
    min_confidence: float = 0.0,
) -> Motion:
    """Track points in the world through some frames of the window, and judge them.

    Args:
        scene: the encoded window.
        u: [N] 0..1, where the points are seen in frame t_src.
        v: [N].
        t_src: [N] int64, or one index for all.
        reference: frame whose camera is the world.
        samples: frames asked, evenly spread over the window with both ends; N x samples queries.
        min_speed: slower points are not ``moving``, scene units a second.
        min_confidence: answers below it do not count.

    Returns:
        Motion.

    Raises:
        ValueError: see ``tracks``; or samples below 1.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}, it must be at least 1")
    spread = torch.linspace(0, scene.num_frames - 1, samples).round().long().unique().tolist()
    world = tracks(scene, u, v, t_src, spread, "world", reference, min_confidence)
    return judge_motion(world, scene.stamps, min_speed)


def judge_motion(track: PointTracks, stamps: Sequence[int], min_speed: float = 0.0) -> Motion:
    """Judge world tracks: a straight line is fitted to each point's path.

    What answers waver by is learned from all points, in proportion to their distance: the scatter about the
    line from the median, the drift along it from the stillest quarter, so that an error that all share does
    not look like motion. A point moves if its line leads away by more than that and its own scatter explain,
    or if it scatters about its line (swings) far more than the others do.

    Args:
        track: from ``tracks`` with ``frame="world"``.
        stamps: nanoseconds of all frames of the window.
        min_speed: slower points are not ``moving``, scene units a second.

    Returns:
        Motion.

    Raises:
        ValueError: the track is in the moving camera.
    """
    if track.frame != "world":
        raise ValueError("frame of the track is 'camera', motion is judged in the 'world'")
    used = track.answered & (track.visibility >= VISIBLE)
    judged = used.sum(0) >= _MIN_FRAMES
    first = min(stamps[k] for k in track.frames)
    seconds = torch.tensor([(stamps[k] - first) * 1e-9 for k in track.frames], device=track.xyz.device)
    if not bool(judged.any()):
        few = f"{len(track.frames)} frames were asked and {_MIN_FRAMES} are needed"
        unseen = f"none of the {len(judged)} points is seen with confidence in {_MIN_FRAMES} frames or more"
        still = torch.zeros_like(track.xyz[0])
        reason = few if len(track.frames) < _MIN_FRAMES else unseen
        return Motion(False, reason, track, judged, torch.zeros_like(judged), still, still[:, 0])

    weight = torch.where(used & judged, track.confidence, 0.0).double()
    share = weight / weight.sum(0).clamp(min=1e-12)
    count = used.sum(0).clamp(min=_MIN_FRAMES)
    xyz = track.xyz.double()
    middle = (share[..., None] * xyz).sum(0)
    time = seconds.double()[:, None] - (share * seconds.double()[:, None]).sum(0)
    variance = (share * time**2).sum(0).clamp(min=1e-18)
    velocity = (share[..., None] * time[..., None] * (xyz - middle)).sum(0) / variance[:, None]
    residual = xyz - middle - time[..., None] * velocity
    scatter = torch.sqrt((share * (residual**2).sum(-1)).sum(0) * count / (count - 2))

    duration = torch.sqrt(12 * variance)  # of an even spread of such variance
    distance = middle.norm(dim=-1).clamp(min=1e-12)
    travelled = velocity.norm(dim=-1) * duration
    floor = _RELATIVE_FLOOR / _DEVIATIONS
    usual_scatter = distance * _quantile(scatter / distance, judged, 0.5).clamp(min=floor)
    drift = distance * _quantile(travelled / distance, judged, _STILL_SHARE) / _QUARTER_OVER_RMS
    noise = torch.maximum(scatter, usual_scatter)
    deviation = torch.maximum(noise / torch.sqrt(count * variance), drift / duration)
    steady = velocity.norm(dim=-1) > _DEVIATIONS * deviation
    swings = scatter > _DEVIATIONS * usual_scatter
    speed = torch.hypot(velocity.norm(dim=-1), torch.where(swings, 2 * scatter / duration, 0.0))
    return Motion(
        ok=True,
        reason="",
        track=track,
        judged=judged,
        moving=judged & (steady | swings) & (speed >= min_speed),
        velocity=torch.where(judged[:, None], velocity, 0.0).float(),
        velocity_deviation=torch.where(judged, deviation, 0.0).float(),
    )


def _quantile(values: Tensor, judged: Tensor, share: float) -> Tensor:
    """What this share of the judged points stays below."""
    ranked = values[judged].sort().values
    return ranked[int(share * (len(ranked) - 1))]
