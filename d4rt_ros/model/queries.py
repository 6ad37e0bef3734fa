"""Questions and answers: what is asked of a scene and what comes back (paper section 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Queries:
    """Where is the point seen at (u, v) in frame t_src at the time of t_tgt, in the camera of t_cam?

    All five tensors have one shape [..., N]. u, v: float32 in 0..1 (see `pixels`); t_*: int64 frame indices.
    """

    u: Tensor
    v: Tensor
    t_src: Tensor
    t_tgt: Tensor
    t_cam: Tensor

    @staticmethod
    def make(
        u: Tensor | float,
        v: Tensor | float,
        t_src: Tensor | int,
        t_tgt: Tensor | int,
        t_cam: Tensor | int,
        device: torch.device | str | None = None,
    ) -> Queries:
        """Broadcast numbers and tensors to one shape.

        Raises RuntimeError if they do not broadcast, and ValueError for times that are not integers.
        """
        if device is None:
            device = next((x.device for x in (u, v, t_src, t_tgt, t_cam) if isinstance(x, Tensor)), "cpu")
        coordinates = [torch.as_tensor(x, dtype=torch.float32, device=device) for x in (u, v)]
        times = [torch.as_tensor(x, device=device) for x in (t_src, t_tgt, t_cam)]
        for time in times:
            if time.is_floating_point():
                raise ValueError(f"time indices are frames of the window, so integers, not {time.dtype}")
        return Queries(*torch.broadcast_tensors(*coordinates, *(time.to(torch.int64) for time in times)))

    @property
    def shape(self) -> torch.Size:
        """The common shape [..., N]."""
        return self.u.shape

    def checked(self, num_frames: int) -> Queries:
        """The same as float32 and int64, for a window of so many frames.

        Raises ValueError for tensors of several shapes, frames that are no integers or that the window has
        not, and u, v that are not finite.
        """
        shapes = {f.name: list(getattr(self, f.name).shape) for f in fields(self)}
        if any(shape != shapes["u"] for shape in shapes.values()):
            raise ValueError(f"the tensors of queries must have one shape, not {shapes}")
        given = {name: getattr(self, name) for name in ("t_src", "t_tgt", "t_cam")}
        for name, time in given.items():
            if time.is_floating_point() or time.is_complex() or time.dtype == torch.bool:
                raise ValueError(
                    f"{name}: time indices are frames of the window, so integers, not {time.dtype}"
                )
        queries = Queries(self.u.float(), self.v.float(), *(time.long() for time in given.values()))
        if queries.u.numel() == 0:
            return queries
        low, high = torch.stack((queries.t_src, queries.t_tgt, queries.t_cam)).aminmax()
        if low < 0 or high >= num_frames:
            raise ValueError(f"time indices {int(low)}..{int(high)} are outside 0..{num_frames - 1}")
        if not all(math.isfinite(x) for x in torch.stack((queries.u, queries.v)).aminmax()):  # NaN spreads
            raise ValueError("u or v of a query is not finite")
        return queries

    def apply(self, function: Callable[[Tensor], Tensor]) -> Queries:
        """Apply one function (reshape, index, move) to each of the five tensors."""
        return Queries(*(function(getattr(self, f.name)) for f in fields(self)))

    def to(self, device: torch.device | str) -> Queries:
        """Move to a device."""
        return self.apply(lambda x: x.to(device))


@dataclass(frozen=True, eq=False)
class Answers:
    """One answer a query, float32; the leading shape [..., N] is that of the queries.

    xyz [..., N, 3]: the point at t_tgt in the optical frame of camera t_cam (x right, y down, z forward), in
    scene units. uv [..., N, 2]: its projection into frame t_tgt. visibility [..., N]: probability that it is
    seen in frame t_tgt. displacement [..., N, 3]: its position at t_tgt minus that at t_src, in camera t_cam.
    normal [..., N, 3]: unit surface normal at t_tgt in camera t_cam. confidence [..., N]: 0..1.
    """

    xyz: Tensor
    uv: Tensor
    visibility: Tensor
    displacement: Tensor
    normal: Tensor
    confidence: Tensor

    def apply(self, function: Callable[[Tensor], Tensor]) -> Answers:
        """Apply one function to each of the six tensors."""
        return Answers(*(function(getattr(self, f.name)) for f in fields(self)))


class SceneLike(Protocol):
    """What tasks need of a scene. The network's `Scene` and the oracle of `training` both have it."""

    @property
    def frames(self) -> Tensor:
        """[T, 3, H, W] uint8, the images of the window as the camera gave them."""

    @property
    def stamps(self) -> tuple[int, ...]:
        """T stamps in nanoseconds, strictly rising."""

    @property
    def num_frames(self) -> int:
        """T."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of `frames`."""

    @property
    def device(self) -> torch.device:
        """Where queries are answered and answers lie."""

    def decode(self, queries: Queries) -> Answers:
        """Answer queries [N], no gradients. Raises ValueError for times out of range or non-finite u, v."""


def camera_poses(scene: SceneLike) -> np.ndarray | None:
    """Where cameras are in camera 0, [T, 4, 4] float64, of a scene with `solved_poses`; else None."""
    return getattr(scene, "solved_poses", None)


def why_unposed(scene: SceneLike) -> str:
    """Why a scene that looked for its cameras does not know where they are, as a sentence; else empty."""
    return getattr(scene, "unposed", "")
