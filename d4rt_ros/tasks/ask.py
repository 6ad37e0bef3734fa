"""The one door through which tasks query a scene: shapes, checks of the caller's numbers, sound answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from operator import index

import torch
from torch import Tensor

from d4rt_ros.model import Answers, Queries, SceneLike
from d4rt_ros.model.pixels import pixel_grid

ZERO_CONFIDENCE = 1e-4
"""The network clamps its confidence to this; an answer at or below it counts for nothing."""

Index = Tensor | int


@lru_cache(maxsize=8)
def asked_grid(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """``pixel_grid``, kept: every window asks the same few grids. Not to be written to."""
    return pixel_grid(rows, columns, device)


def ask(scene: SceneLike, u: Tensor, v: Tensor, t_src: Index, t_tgt: Index, t_cam: Index) -> Answers:
    """Decode queries of any shape in one call.

    Args:
        scene: the encoded window.
        u: 0..1, on any device.
        v: 0..1.
        t_src: frame indices; all five broadcast together to [...].
        t_tgt: see ``Queries``.
        t_cam: see ``Queries``.

    Returns:
        Answers with leading shape [...] on the scene's device. Whatever is not finite comes back as zeros
        with confidence 0 and visibility 0, so that no task has to look for NaN.

    Raises:
        ValueError: a time index outside the window, or u, v not finite.
    """
    queries = Queries.make(u, v, t_src, t_tgt, t_cam).to(scene.device)
    shape = queries.shape
    flat = scene.decode(queries.apply(lambda x: x.reshape(-1)))
    if not _all_finite(flat):
        flat = _sound(flat)
    return flat.apply(lambda x: x.reshape(*shape, *x.shape[1:]))


def _all_finite(answers: Answers) -> bool:
    """Whether nothing has to be looked at one by one: a sum is finite only if all its parts are."""
    total = sum((getattr(answers, field.name).sum() for field in fields(answers)), torch.zeros(()))
    return bool(torch.isfinite(total))


def _sound(flat: Answers) -> Answers:
    """Answers [N] with those that are not finite replaced by zeros."""
    parts = (flat.xyz, flat.uv, flat.displacement, flat.normal)
    sound = torch.isfinite(flat.visibility) & torch.isfinite(flat.confidence)
    for part in parts:
        sound = sound & torch.isfinite(part).all(-1)
    xyz, uv, displacement, normal = (torch.where(sound[:, None], part, 0.0) for part in parts)
    return Answers(
        xyz=xyz,
        uv=uv,
        visibility=torch.where(sound, flat.visibility, 0.0),
        displacement=displacement,
        normal=normal,
        confidence=torch.where(sound, flat.confidence, 0.0),
    )


def usable(confidence: Tensor, minimum: float = 0.0) -> Tensor:
    """Which answers count: confidence above nothing and not below ``minimum``."""
    return (confidence > ZERO_CONFIDENCE) & (confidence >= minimum)


def check_frame(scene: SceneLike, name: str, frame: int) -> int:
    """The frame; ValueError, with the name, the value and the range, for one that the window has not."""
    try:
        whole = index(frame)
    except TypeError:
        raise ValueError(f"{name} is {frame!r}, but frames are counted in integers") from None
    if not 0 <= whole < scene.num_frames:
        raise ValueError(f"{name} is {frame}, but the window has frames 0..{scene.num_frames - 1}")
    return whole


def chosen_frames(scene: SceneLike, frames: Sequence[int] | None) -> tuple[int, ...]:
    """All frames for None, else those given, checked. Raises ValueError (also for none at all)."""
    given = range(scene.num_frames) if frames is None else frames
    chosen = tuple(check_frame(scene, "frames", frame) for frame in given)
    if not chosen:
        raise ValueError("frames is empty, at least one frame is needed")
    return chosen


def check_pixels(u: Tensor, v: Tensor) -> None:
    """Raise ValueError unless u and v are [N] of one length, finite and within 0..1."""
    if u.ndim != 1 or u.shape != v.shape:
        raise ValueError(f"u and v must both be [N], got {list(u.shape)} and {list(v.shape)}")
    for name, value in (("u", u), ("v", v)):
        outside = ~((value >= 0.0) & (value <= 1.0))
        if bool(outside.any()):
            raise ValueError(f"{name} is {float(value[outside][0])}, it must be within 0..1")
