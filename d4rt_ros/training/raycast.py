"""Nearest surfaces along rays, for whole images and for single points, over a batch of moving worlds.

Each primitive's bounding box is projected first, and only the pixels inside meet it: a few candidates a pixel
instead of all primitives. Hits go to a depth buffer; only the nearest is looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training import shapes
from d4rt_ros.training.shapes import Vec

_CUT = shapes.NEAR / 2
# the 12 edges of a box whose corners are numbered by the bits of (x, y, z)
_EDGES = torch.tensor([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit]).T.unbind(0)


@dataclass(frozen=True)
class World:
    """Moving primitives of B clips: T frames, P slots each."""

    kind: Tensor  # [B, P] int64, shapes.EMPTY where unused
    pose: Tensor  # [B, T, P, 3, 4], unit solid to world, any invertible affine
    half_length: Tensor  # [B, P], capsules: half length of the core in radii
    wave: Tensor  # [B, T, P, 12], sheets: see shapes.ripple

    def carry(self, clip: Tensor, frame: Tensor, slot: Tensor, local: Tensor) -> Tensor:
        """Local coordinates [N, 3] at `frame` of material points with the given ones; only sheets change."""
        rows = (self.kind[clip, slot] == shapes.SHEET).nonzero()[:, 0]
        if len(rows):
            x, y, _ = local[rows].unbind(-1)
            height, _, _ = shapes.ripple(x, y, self.wave[clip[rows], frame[rows], slot[rows]].unbind(-1))
            local = local.clone()
            local[rows, 2] = height
        return local

    def gradient(self, clip: Tensor, frame: Tensor, slot: Tensor, local: Tensor) -> Tensor:
        """Normals [N, 3], neither unit nor facing anything, in local coordinates at `frame`."""
        kind = self.kind[clip, slot]
        gradient = torch.stack(shapes.local_normal(kind, local.unbind(-1), self.half_length[clip, slot]), -1)
        rows = (kind == shapes.SHEET).nonzero()[:, 0]
        if len(rows):
            x, y, _ = local[rows].unbind(-1)
            _, dx, dy = shapes.ripple(x, y, self.wave[clip[rows], frame[rows], slot[rows]].unbind(-1))
            gradient[rows] = torch.stack((-dx, -dy, torch.ones_like(dx)), -1)
        return gradient


@dataclass(frozen=True)
class View:
    """Pinhole cameras of B clips; image coordinates are 0..1 over the full extent."""

    world_from_camera: Tensor  # [B, T, 4, 4]
    focal: Tensor  # [B, 2], in units of image width and height
    centre: Tensor  # [B, 2]

    def direction(self, clip: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The x and y of the camera ray (x, y, 1) through (u, v); clip [N] chooses the camera."""
        fx, fy, cx, cy = take(torch.cat((self.focal, self.centre), 1).T.contiguous(), clip)
        return (u - cx) / fx, (v - cy) / fy


def take(table: Tensor, index: Tensor) -> Vec:
    """Columns of a table [C, K] at [N], as C tensors [N]; on a CPU far faster than indexing rows."""
    return tuple(row.index_select(0, index) for row in table)


def inverse3(m: Tensor) -> Tensor:
    """Inverse of 3x3 matrices [..., 3, 3] by the adjugate (faster than LAPACK for many small ones)."""
    a, b, c = m[..., 0], m[..., 1], m[..., 2]
    rows = torch.stack((torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)), dim=-2)
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
        self.ray = torch.cat((ray.reshape(-1, 9), origin.reshape(-1, 3)), -1).T.contiguous()  # [12, K]
        self.wave = world.wave.reshape(-1, 4 * shapes.WAVES).T.contiguous()
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
        # where edges of the box pass the near plane they are cut there
        a, b = xyz[..., _EDGES[0]], xyz[..., _EDGES[1]]
        za, zb = a[..., 2:, :], b[..., 2:, :]
        part = ((_CUT - za) / (zb - za)).nan_to_num(0.0, 0.0, 0.0)
        crosses = (za < _CUT) != (zb < _CUT)
        cut = torch.where(crosses, a + part * (b - a), torch.where(za < _CUT, b, a))
        xyz = torch.cat((xyz, cut), -1)
        z = xyz[..., 2, :]
        scale = view.focal[:, None, None, :, None] / z.clamp_min(_CUT)[..., None, :]
        uv = xyz[..., :2, :] * scale + view.centre[:, None, None, :, None]
        behind = (z < 0.99 * _CUT)[..., None, :]
        low = uv.masked_fill(behind, torch.inf).amin(-1)
        high = uv.masked_fill(behind, -torch.inf).amax(-1)
        unseen = (self.world.kind == shapes.EMPTY)[:, None, :, None].expand(low.shape)
        high = torch.where(unseen, -torch.inf, high)
        # a little larger, so that rounding to single precision loses nothing
        self.low, self.high = low.reshape(-1, 2).float() - 1e-5, high.reshape(-1, 2).float() + 1e-5

    def _meet(self, kinds: Tensor, o: Vec, d: Vec, k: Tensor) -> Tensor:
        """Depths [N] of rays on primitives k [N]; `kinds` [7] counts the rays of each kind, in order."""
        parts, start = [], 0
        for kind, count in enumerate(kinds.tolist()):
            if count:
                cut = slice(start, start + count)
                half_length = self.half_length[k[cut]] if kind == shapes.CAPSULE else None
                wave = take(self.wave, k[cut]) if kind == shapes.SHEET else ()
                parts.append(
                    shapes.intersect(
                        kind, tuple(a[cut] for a in o), tuple(a[cut] for a in d), half_length, wave
                    )
                )
                start += count
        return torch.cat(parts) if parts else o[0]

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
        box = (extent[:, 0] * extent[:, 1]).nonzero()[:, 0]
        box = box[self.kind[box].argsort(stable=True)]
        # a run is one row of pixels in one box
        rows, columns = extent[box].unbind(-1)[::-1]
        k = torch.repeat_interleave(box, rows)
        row = _count_up(rows) + first[box, 1].long().repeat_interleave(rows)
        length = columns.repeat_interleave(rows)
        column = first[k, 0].long()
        frame = torch.div(k, p, rounding_mode="floor")
        clip = torch.div(frame, t, rounding_mode="floor")
        y = ((row + 0.5) / height - self.view.centre[clip, 1]) / self.view.focal[clip, 1]
        m = take(self.ray, k)
        start = length.cumsum(0) - length
        total = int(length.sum())
        run = torch.repeat_interleave(length, output_size=total)
        axis = (torch.arange(width, device=k.device) + 0.5) / width
        axis = ((axis - self.view.centre[:, :1]) / self.view.focal[:, :1]).reshape(-1).to(y.dtype)  # [B*W]
        count = torch.arange(total, device=k.device)
        x = axis.index_select(0, count + (clip * width + column - start).index_select(0, run))
        pixel = count + ((frame * height + row) * width + column - start).index_select(0, run)
        d = tuple(
            torch.addcmul(
                (m[3 * i + 1] * y + m[3 * i + 2]).index_select(0, run), m[3 * i].index_select(0, run), x
            )
            for i in range(3)
        )
        o = tuple(m[i].index_select(0, run) for i in (9, 10, 11))
        kinds = torch.zeros(7, dtype=torch.int64, device=k.device).scatter_add_(0, self.kind[k], length)
        k = k.index_select(0, run)
        return _nearest(self._meet(kinds, o, d, k), pixel, k, b * t * height * width)

    def points(self, clip: Tensor, frame: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest surfaces through (u, v) [N] of frames [N] of clips [N]; as `image`, [N] each."""
        _, t, p = self.size
        cell = clip * t + frame
        low, high = self.low.view(-1, p, 2), self.high.view(-1, p, 2)
        inside = torch.ones(len(u), p, dtype=torch.bool, device=u.device)
        for axis, at in enumerate((u.float()[:, None], v.float()[:, None])):
            inside &= low[..., axis].contiguous().index_select(0, cell) <= at
            inside &= high[..., axis].contiguous().index_select(0, cell) >= at
        query, slot = inside.nonzero(as_tuple=True)
        k = cell[query] * p + slot
        kind = self.kind[k]
        order = kind.argsort(stable=True)
        query, k = query[order], k[order]
        x, y = self.view.direction(clip, u, v)
        o, d = self.ray_in(k, x[query], y[query])
        depth = self._meet(torch.bincount(kind, minlength=7), o, d, k)
        return _nearest(depth, query, k, len(u))

    def ray_in(self, k: Tensor, x: Tensor, y: Tensor) -> tuple[Vec, Vec]:
        """Origins and directions (three [N] each) of camera rays (x, y, 1), local to primitives k."""
        m = take(self.ray, k)
        return m[9:], tuple(
            torch.addcmul(torch.addcmul(m[3 * i + 2], m[3 * i], x), m[3 * i + 1], y) for i in range(3)
        )

    def local(self, k: Tensor, x: Tensor, y: Tensor, depth: Tensor) -> Vec:
        """Hit points (three [N]) in the coordinates of primitives k."""
        o, d = self.ray_in(k, x, y)
        return tuple(torch.addcmul(a, depth, b) for a, b in zip(o, d, strict=True))


def _count_up(counts: Tensor) -> Tensor:
    """0 .. c-1 for each c of counts, one after the other."""
    start = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - start.repeat_interleave(counts)


def _nearest(depth: Tensor, ray: Tensor, k: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Per ray the smallest depth and the primitive that has it; the highest index on a tie."""
    best = depth.new_full((count,), torch.inf).scatter_reduce_(0, ray, depth, "amin")
    won = ((depth == best.index_select(0, ray)) & (depth < shapes.MISS)).nonzero()[:, 0]
    winner = k.new_zeros(count).scatter_reduce_(0, ray.index_select(0, won), k.index_select(0, won), "amax")
    return best.masked_fill(best > shapes.MISS, torch.inf), winner
