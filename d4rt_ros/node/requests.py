"""From the numbers of a request to frames and queries of a held window, and refusals in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from d4rt_ros import conversions
from d4rt_ros.conversions import MessageTypes
from d4rt_ros.model import SceneLike
from d4rt_ros.node.session import Session
from d4rt_ros.stream import WindowResult
from d4rt_ros.stream.history import seconds


class Refused(ValueError):
    """The request cannot be answered; the message names the field, the value and what is allowed."""


@dataclass(frozen=True)
class Span:
    """Frames first..last of one held window, both included; ``at``: the frame of the stamp that was named."""

    result: WindowResult
    first: int
    last: int
    at: int

    @property
    def frames(self) -> range:
        """Indices in the window."""
        return range(self.first, self.last + 1)


def check_points(session: Session, what: str, count: int) -> None:
    """Refuse requests for nothing, or for more than query.max_points."""
    limit = session.settings.query_max_points
    if count == 0:
        raise Refused(f"{what}: no point is asked for; 1 to {limit} are allowed")
    if count > limit:
        raise Refused(f"{what}: {count} points are asked for; query.max_points allows 1 to {limit}")


def check_confidence(asked: float, session: Session) -> float:
    """The least confidence that a request asks for; 0 means the parameter's."""
    if not 0.0 <= asked <= 1.0:  # also NaN
        raise Refused(f"min_confidence is {asked:g}; it must be from 0 to 1")
    return float(asked) or session.settings.points_min_confidence


def find_span(session: Session, start: Any, end: Any, at: int | None = None) -> Span:
    """The frames of a span in one held window.

    Args:
        session: what runs.
        start: Time of the first frame; zero: the window's oldest.
        end: Time of the last frame; zero: the window's newest.
        at: stamp of a frame that the same window must hold, 0 for the newest; None: that of ``end``.

    Raises:
        Refused: start is after end.
        NotHeld: no held window has all of it.
    """
    first, last = conversions.stamp_ns(start), conversions.stamp_ns(end)
    named = [stamp for stamp in (first, last) if stamp]
    result, indices = session.pipeline.history.find(last if at is None else at, *named)
    stamps = result.stamps
    begin = stamps.index(first) if first else 0
    finish = stamps.index(last) if last else len(stamps) - 1
    if begin > finish:
        raise Refused(f"start {first / 1e9:.9f} is after end {last / 1e9:.9f}")
    return Span(result, begin, finish, indices[0])


def find_times(
    session: Session, request: Any, count: int
) -> tuple[WindowResult, tuple[int | np.ndarray, ...]]:
    """The window that holds all stamps of a request, and its frames at source, target and camera.

    Returns:
        the window's result, and frame indices of the three: one for all points, or [N] int64.

    Raises:
        Refused: a field has neither 0, 1 nor N stamps.
        NotHeld: no window has all stamps.
    """
    asked: list[list[int]] = []
    for name in ("source", "target", "camera"):
        values = getattr(request, name)
        if len(values) not in (0, 1, count):
            raise Refused(f"{name} has {len(values)} stamps for {count} points; 0, 1 or {count} are allowed")
        asked.append(list(values) or [0])
    stamps = sorted(set().union(*asked))
    result, indices = session.pipeline.history.find(*stamps)
    index = dict(zip(stamps, indices))
    return result, tuple(
        index[values[0]] if len(values) == 1 else np.array([index[one] for one in values], np.int64)
        for values in asked
    )


def find_pixels(u: Any, v: Any, result: WindowResult) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Pixels of the published image to coordinates of the undistorted one that the network saw.

    Returns:
        u [N] and v [N] float32 in 0..1, and [N] bool: False where the lens moves a pixel out of the
        undistorted image, so that its point was not seen and cannot be answered for.

    Raises:
        ValueError: pixels outside the image, not finite, or arrays of unequal length.
    """
    uv = conversions.pixels_to_uv(u, v, result.image_size)
    camera = result.camera
    seen: np.ndarray = np.ones(len(uv), bool)
    if camera is not None:
        uv = camera.to_undistorted(uv)
        seen = np.asarray(((uv >= 0) & (uv <= 1)).all(axis=-1))  # False for NaN
        if not seen.all():
            uv = np.where(seen[:, None], uv, 0.5)
    device = scene_of(result).device
    columns = np.ascontiguousarray(uv.T, np.float32)
    return torch.from_numpy(columns[0]).to(device), torch.from_numpy(columns[1]).to(device), seen


def unseen(seen: np.ndarray) -> str:
    """A remark about pixels that `find_pixels` could not place; empty where there are none."""
    if seen.all():
        return ""
    lost = np.count_nonzero(~seen)
    return f"{lost} of {len(seen)} pixels lie outside the undistorted image, where nothing is known"


def scene_of(result: WindowResult) -> SceneLike:
    """The encoded window of a held result."""
    assert result.scene is not None  # History holds no others
    return result.scene


def coordinates(
    request_frame: str, session: Session, result: WindowResult, index: int
) -> tuple[str, np.ndarray]:
    """Where an answer's coordinates are given.

    Args:
        request_frame: ``camera`` or empty: the optical frame at frame ``index``; ``world``: the fixed frame.
        session: what runs.
        result: the window.
        index: of the frame whose camera it is.

    Returns:
        frame id, and [4, 4] that takes points of camera ``index`` (in the result's units) to it.

    Raises:
        Refused: another word, or as in `poses_of`.
    """
    if request_frame in ("", "camera"):
        return result.frame_id, np.eye(4)
    if request_frame != "world":
        raise Refused(f"frame is '{request_frame}'; it must be 'camera' (or empty) or 'world'")
    return session.world, poses_of(session, result)[index]


def poses_of(session: Session, result: WindowResult) -> np.ndarray:
    """World_from_camera [T, 4, 4] of a held window.

    Raises:
        Refused: they are not known, or are of a world that is no more: the frame's name means another now.
    """
    history = session.pipeline.history
    newest = history.newest
    if newest is not None and newest.segment != result.segment:
        began = min((one.stamps[0] for one in history if one.segment == newest.segment), default=0)
        raise Refused(
            f"the world of this window ended when the stream started over; '{session.world}' is now the one "
            f"that began at {seconds(began)}"
        )
    if result.poses is None:
        raise Refused("the camera's path in this window is not known: " + "; ".join(result.notes))
    return result.poses


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [..., 3] through a [4, 4] transform, float32."""
    return (points @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)


def name_window(types: MessageTypes, response: Any, result: WindowResult | None) -> None:
    """Say in a response which window it is about, if there is one."""
    if result is not None:
        response.window_start = conversions.time_message(types, result.stamps[0])
        response.window_end = conversions.time_message(types, result.stamps[-1])
