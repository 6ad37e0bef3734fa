"""From answers of the pipeline to the columns and tracks of messages, in the units of the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from d4rt_ros import conversions, tasks
from d4rt_ros.model import Answers
from d4rt_ros.node.messages import RclpyMessages
from d4rt_ros.node.requests import moved
from d4rt_ros.outputs import published_pixels


def answer_columns(answers: Answers, seen: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """Answers to columns of a point cloud, in the result's units; NaN where there is none."""
    part = {name: getattr(answers, name).float().cpu().numpy() for name in vars(answers)}
    columns = {
        "xyz": part["xyz"] * np.float32(scale),
        "u_v": part["uv"],
        "visibility": part["visibility"],
        "confidence": part["confidence"],
        "dx_dy_dz": part["displacement"] * np.float32(scale),
        "nx_ny_nz": part["normal"],
    }
    # A sum is finite only if all its parts are; then, mostly, there is nothing to look for.
    if seen.all() and np.isfinite(part["xyz"].sum() + part["confidence"].sum()):
        return columns
    lost = ~(seen & np.isfinite(part["xyz"]).all(-1) & np.isfinite(part["confidence"]))
    for name, values in columns.items():
        values[lost] = 0.0 if name in ("visibility", "confidence") else np.nan
    return columns


def tracks_of(
    types: RclpyMessages,
    found: tasks.PointTracks,
    result: Any,
    frame_id: str,
    to_frame: np.ndarray,
    kept: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> Any:
    """Tracks of a task to a Tracks message.

    Args:
        types: message classes.
        found: S frames, N points, all in the camera of one frame, scene units.
        result: the window's result.
        frame_id: of the coordinates that were asked for.
        to_frame: [4, 4] from that camera to them, in the result's units.
        kept: [N] bool, tracks that go into the message; None: all.
        seen: [N] bool, False where the question was about no point of the image; None: all were.
    """
    kept = np.ones(found.xyz.shape[1], bool) if kept is None else kept
    answered = found.answered.cpu().numpy()[:, kept]
    if seen is not None:
        answered = answered & seen[kept]
    xyz = moved(found.xyz.cpu().numpy()[:, kept] * result.scale, to_frame)
    xyz[~answered] = np.nan
    return conversions.tracks_message(
        types,
        frame_id,
        [result.stamps[frame] for frame in found.frames],
        np.arange(xyz.shape[1]),
        xyz,
        published_pixels(found.uv.cpu().numpy()[:, kept], result),
        found.visibility.cpu().numpy()[:, kept],
        found.confidence.cpu().numpy()[:, kept],
        result.metric,
    )
