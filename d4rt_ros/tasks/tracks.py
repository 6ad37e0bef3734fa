"""Where chosen points go: tracks in the moving camera or in the world (paper Table 1 and section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from d4rt_ros.model import SceneLike
from d4rt_ros.tasks.ask import ask, check_frame, check_pixels, chosen_frames, usable

VISIBLE = 0.5
"""A point counts as seen from this probability on (the paper gives no number)."""

TrackFrame = Literal["camera", "world"]


@dataclass(frozen=True)
class PointTracks:
    """N points over S frames of a window.

    Attributes:
        ok: False when no point is seen with any confidence in any of the frames.
        reason: why not, as a sentence; empty when ok.
        frames: S indices of frames in the window.
        frame: ``camera``: xyz at frame k is in the camera of frame k. ``world``: in that of ``reference``.
        reference: index of the frame whose camera is the world; None for ``camera``.
        u: [N] 0..1, where the points were picked.
        v: [N].
        t_src: [N] int64, the frames in which they were picked.
        xyz: [S, N, 3] float32, scene units, always finite; an answer that is not ``answered`` is 0.
        uv: [S, N, 2] 0..1, the projection into frame k, in both kinds of track; may lie outside the image.
        visibility: [S, N] probability of being seen in frame k.
        confidence: [S, N] 0..1.
        answered: [S, N] bool, confidence above nothing and not below the minimum asked for.
    """

    ok: bool
    reason: str
    frames: tuple[int, ...]
    frame: TrackFrame
    reference: int | None
    u: Tensor
    v: Tensor
    t_src: Tensor
    xyz: Tensor
    uv: Tensor
    visibility: Tensor
    confidence: Tensor
    answered: Tensor


def tracks(
    scene: SceneLike,
    u: Tensor,
    v: Tensor,
    t_src: Tensor | int,
    frames: Sequence[int] | None = None,
    frame: TrackFrame = "camera",
    reference: int = 0,
    min_confidence: float = 0.0,
) -> PointTracks:
    """Follow points through the frames of a window.

    A world track fixes t_cam at the reference frame and varies t_tgt only, as the paper has it: the network
    takes the camera's motion out itself, at the same number of queries, and no error of an estimated pose
    enters. (Over long camera paths ``frame="camera"`` moved by the poses of ``camera_track`` can be better;
    ``geometry.transform_points(poses[list(frames)], xyz)`` does that.)

    Args:
        scene: the encoded window.
        u: [N] 0..1, where the points are seen in frame t_src.
        v: [N].
        t_src: [N] int64, or one index for all.
        frames: frames to follow them through, in the order wanted; all by default.
        frame: ``camera`` or ``world``.
        reference: for ``world``, the frame whose camera is the world.
        min_confidence: answers below it are not ``answered``.

    Returns:
        PointTracks on the scene's device.

    Raises:
        ValueError: an index outside the window, u or v outside 0..1, or an unknown ``frame``.
    """
    chosen = chosen_frames(scene, frames)
    check_pixels(u, v)
    if frame not in ("camera", "world"):
        raise ValueError(f"frame is {frame!r}, it must be 'camera' or 'world'")
    check_frame(scene, "reference", reference)
    source = torch.as_tensor(t_src, device=scene.device).expand(u.shape)
    time = torch.tensor(chosen, device=scene.device)[:, None]
    u, v = u.to(scene.device), v.to(scene.device)
    answers = ask(scene, u, v, source, time, time if frame == "camera" else reference)
    answered = usable(answers.confidence, min_confidence)
    seen = answered & (answers.visibility >= VISIBLE)
    ok = bool(seen.any())
    return PointTracks(
        ok=ok,
        reason="" if ok else f"none of the {len(u)} points is visible in any of the {len(chosen)} frames",
        frames=chosen,
        frame=frame,
        reference=reference if frame == "world" else None,
        u=u,
        v=v,
        t_src=source.to(torch.int64),
        xyz=answers.xyz,
        uv=answers.uv,
        visibility=answers.visibility,
        confidence=answers.confidence,
        answered=answered,
    )
