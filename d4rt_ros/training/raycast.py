"""Nearest surfaces along rays, for whole images and for single points, over a batch of moving worlds.

Each primitive's bounding box is projected first, and only the pixels inside meet it: a few candidates a pixel instead
of all primitives. Hits go to a depth buffer; only the nearest is looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import shapes


@dataclass(frozen=True)
class World:
    """Moving primitives of B clips: T frames, P slots each."""

    kind: Tensor  # [B, P] int64, shapes.EMPTY where unused
    pose: Tensor  # [B, T, P, 3, 4], unit solid to world, any invertible affine
    half_length: Tensor  # [B, P], capsules: half length of the core in radii


@dataclass(frozen=True)
class View:
    """Pinhole cameras of B clips; image coordinates are 0..1 over the full extent."""

    world_from_camera: Tensor  # [B, T, 4, 4]
    focal: Tensor  # [B, 2], in units of image width and height
    centre: Tensor  # [B, 2]

    def direction(self, clip: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """x and y of the camera ray (x, y, 1) through (u, v); clip [N] chooses the camera."""
        focal, centre = self.focal[clip], self.centre[clip]
        return (u - centre[:, 0]) / focal[:, 0], (v - centre[:, 1]) / focal[:, 1]


def inverse3(m: Tensor) -> Tensor:
    """Inverse of 3x3 matrices [..., 3, 3] by the adjugate (faster than LAPACK for many small ones)."""
    a, b, c = m[..., 0], m[..., 1], m[..., 2]
    rows = torch.stack(
        (torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)), dim=-2
    )
    return rows / (rows[..., 0, :] * a).sum(-1)[..., None, None]


class Caster:
    """Rays of one view into one world; build once, cast often.

    Flat primitive indices k run over [B, T, P].
    """

    def __init__(self, world: World, view: View) -> None:
        """Transforms the cameras into every primitive's coordinates and projects the bounding boxes."""
        self.world, self.view = world, view
        b, t, p = world.pose.shape[:3]
        self.size = (b, t, p)
        linear, offset = world.pose[..., :3], world.pose[..., 3]
        self.world_to_local = inverse3(linear)  # [B, T, P, 3, 3]
        rotation = view.world_from_camera[:, :, None, :3, :3]
        eye = view.world_from_camera[:, :, None, :3, 3]
        ray = self.world_to_local @ rotation
        origin = (self.world_to_local @ (eye - offset)[..., None])[..., 0]
        self.kind = world.kind[:, None].expand(b, t, p).reshape(-1)
        self.half_length = world.half_length[:, None].expand(b, t, p).reshape(-1)
        self.ray = torch.cat((ray.reshape(-1, 9), origin.reshape(-1, 3), self.half_length[:, None]), -1)
        self._bound(linear, offset, rotation, eye)

    def _bound(self, linear: Tensor, offset: Tensor, rotation: Tensor, eye: Tensor) -> None:
        """Image rectangle u0, v0, u1, v1 of each primitive, empty (u1 < u0) if it cannot be seen."""
        view = self.view
        to_camera = rotation.transpose(-1, -2)
        corners = torch.cartesian_prod(*[linear.new_tensor((-1.0, 1.0))] * 3)  # [8, 3]
        reach = torch.ones_like(offset)
        capsule = self.world.kind[:, None] == shapes.CAPSULE
        reach[..., 2] = torch.where(capsule, 1 + self.world.half_length[:, None], 1)
        scaled = (to_camera @ linear) * reach[..., None, :]
        centre = to_camera @ (offset - eye)[..., None]
        xyz = scaled @ corners.T + centre  # [B, T, P, 3, 8]
        z = xyz[..., 2, :]
        scale = view.focal[:, None, None, :, None] / z.clamp_min(shapes.NEAR)[..., None, :]
        uv = xyz[..., :2, :] * scale + view.centre[:, None, None, :, None]
        low, high = uv.amin(-1), uv.amax(-1)
        crosses = (z < shapes.NEAR).any(-1, keepdim=True)
        low = torch.where(crosses, -torch.inf, low)
        high = torch.where(crosses, torch.inf, high)
        unseen = (z < shapes.NEAR).all(-1) | (self.world.kind == shapes.EMPTY)[:, None]
        high = torch.where(unseen[..., None], -torch.inf, high)
        self.low, self.high = low.reshape(-1, 2), high.reshape(-1, 2)

    def _meet(self, k: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Depths [N] at which camera rays (x, y, 1) meet primitives k [N], sorted by kind; inf where not."""
        m = self.ray[k].unbind(-1)
        d = tuple(m[3 * i] * x + m[3 * i + 1] * y + m[3 * i + 2] for i in range(3))
        counts = torch.bincount(self.kind[k], minlength=len(shapes.KINDS) + 1).tolist()
        parts, start = [], 0
        for kind, count in enumerate(counts):
            if count:
                cut = slice(start, start + count)
                o = tuple(a[cut] for a in m[9:12])
                parts.append(shapes.intersect(kind, o, tuple(a[cut] for a in d), m[12][cut]))  # type: ignore[arg-type]
                start += count
        return torch.cat(parts) if parts else x

    def image(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Nearest surfaces at all pixel centres.

        Returns:
            depth [B*T*H*W], inf where nothing is met, and flat primitive index k (0 where nothing is met).
        """
        b, t, p = self.size
        scale = self.low.new_tensor((width, height))
        first = (self.low * scale - 0.5).ceil().clamp_min(0)
        last = torch.minimum((self.high * scale - 0.5).floor(), scale - 1)
        extent = (last - first + 1).clamp_min(0).long()
        area = extent[:, 0] * extent[:, 1]
        k = area.nonzero()[:, 0]
        k = k[self.kind[k].argsort(stable=True)]
        area, extent, corner = area[k], extent[k], first[k].long()
        pair = torch.repeat_interleave(area)
        within = torch.arange(len(pair), device=pair.device) - (area.cumsum(0) - area)[pair]
        columns = extent[:, 0][pair]
        row = torch.div(within, columns, rounding_mode="floor")
        column = within - row * columns + corner[:, 0][pair]
        row = row + corner[:, 1][pair]
        k = k[pair]
        frame = torch.div(k, p, rounding_mode="floor")
        pixel = (frame * height + row) * width + column
        axis_u = (torch.arange(width, device=k.device) + 0.5) / width
        axis_v = (torch.arange(height, device=k.device) + 0.5) / height
        axis_x = (axis_u - self.view.centre[:, :1]) / self.view.focal[:, :1]  # [B, W]
        axis_y = (axis_v - self.view.centre[:, 1:]) / self.view.focal[:, 1:]
        clip = torch.div(frame, t, rounding_mode="floor")
        x = axis_x.reshape(-1)[clip * width + column]
        y = axis_y.reshape(-1)[clip * height + row]
        return _nearest(self._meet(k, x, y), pixel, k, b * t * height * width)

    def points(self, clip: Tensor, frame: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest surfaces through (u, v) [N] of frames `frame` [N] of clips `clip` [N]; as `image`, [N] each."""
        _, t, p = self.size
        cell = clip * t + frame
        low, high = self.low.view(-1, p, 2), self.high.view(-1, p, 2)
        inside = (
            (low[cell, :, 0] <= u[:, None])
            & (high[cell, :, 0] >= u[:, None])
            & (low[cell, :, 1] <= v[:, None])
            & (high[cell, :, 1] >= v[:, None])
        )
        query, slot = inside.nonzero(as_tuple=True)
        k = cell[query] * p + slot
        order = self.kind[k].argsort(stable=True)
        query, k = query[order], k[order]
        x, y = self.view.direction(clip, u, v)
        return _nearest(self._meet(k, x[query], y[query]), query, k, len(u))

    def local(self, k: Tensor, x: Tensor, y: Tensor, depth: Tensor) -> Tensor:
        """Hit points [N, 3] in the coordinates of primitives k."""
        m = self.ray[k]
        d = torch.stack([m[:, 3 * i] * x + m[:, 3 * i + 1] * y + m[:, 3 * i + 2] for i in range(3)], -1)
        return m[:, 9:12] + depth[:, None] * d


def _nearest(depth: Tensor, ray: Tensor, k: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Per ray the smallest depth and the primitive that has it (the highest index on a tie, on every device)."""
    best = depth.new_full((count,), torch.inf).scatter_reduce_(0, ray, depth, "amin")
    won = (depth == best[ray]) & depth.isfinite()
    winner = k.new_zeros(count).scatter_reduce_(0, ray[won], k[won], "amax")
    return best, winner
