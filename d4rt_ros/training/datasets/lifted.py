"""Truth from depth maps: lift a pixel to 3-D, move it with its object, look at it from any camera."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from d4rt_ros.model import Queries
from d4rt_ros.training.truth import Truth

_OCCLUDED = 0.03  # a point further than this behind the depth map, relative, is hidden


@dataclass(frozen=True)
class RgbdClip:
    """One clip of T posed depth images, and optionally of rigid objects that move.

    Args:
        video: [T, 3, H, W] uint8.
        depth: [T, H, W] float32, z along the optical axis in scene units; NaN where unknown.
        camera: [T, 4] fx, fy, cx, cy in units of image width and height (0..1 over the full extent).
        world_from_camera: [T, 4, 4], optical frames.
        aspect_ratio: width / height of the original images.
        segments: [T, H, W] int64, index into `objects`; None if nothing moves.
        world_from_object: [T, K, 4, 4]; object 0 is the static world.
    """

    video: Tensor
    depth: Tensor
    camera: Tensor
    world_from_camera: Tensor
    aspect_ratio: float
    segments: Tensor | None = None
    world_from_object: Tensor | None = None


def lift(u: Tensor, v: Tensor, depth: Tensor, camera: Tensor) -> Tensor:
    """Points [..., 3] in the camera's frame for u, v, depth [...] and camera [..., 4]."""
    fx, fy, cx, cy = camera.unbind(-1)
    return torch.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], -1)


def project(xyz: Tensor, camera: Tensor) -> Tensor:
    """u, v [..., 2] of points [..., 3] in the camera's frame; meaningless behind it."""
    fx, fy, cx, cy = camera.unbind(-1)
    z = xyz[..., 2].clamp(min=1e-6)
    return torch.stack([fx * xyz[..., 0] / z + cx, fy * xyz[..., 1] / z + cy], -1)


def move(transform: Tensor, xyz: Tensor) -> Tensor:
    """Apply rigid transforms [..., 4, 4] to points [..., 3]."""
    return (transform[..., :3, :3] @ xyz[..., None])[..., 0] + transform[..., :3, 3]


def surface_normals(depth: Tensor, camera: Tensor) -> Tensor:
    """Normals [..., H, W, 3] towards the camera, by differences of lifted depth; NaN at holes and edges."""
    height, width = depth.shape[-2:]
    v, u = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    points = lift(u, v, depth, camera[..., None, None, :])
    normals = torch.full_like(points, torch.nan)
    right = points[..., 1:-1, 2:, :] - points[..., 1:-1, :-2, :]
    down = points[..., 2:, 1:-1, :] - points[..., :-2, 1:-1, :]
    inner = torch.linalg.cross(down, right)
    inner = inner / inner.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    z = points[..., 1:-1, 1:-1, 2]
    steep = (right[..., 2].abs() > 0.2 * z) | (down[..., 2].abs() > 0.2 * z)
    normals[..., 1:-1, 1:-1, :] = torch.where(steep[..., None], torch.nan, inner)
    away = (normals * points).sum(-1, keepdim=True) > 0
    return torch.where(away, -normals, normals)


class LiftedClips:
    """A `ClipBatch` of RGB-D clips. The depth of a query is that of the pixel it lies in."""

    def __init__(self, clips: list[RgbdClip]) -> None:
        """Stack clips of one shape."""
        self.video = torch.stack([c.video for c in clips])
        self.depth = torch.stack([c.depth for c in clips])
        self.aspect_ratio = torch.tensor([c.aspect_ratio for c in clips])
        self._camera = torch.stack([c.camera for c in clips]).float()
        self._camera_from_world = torch.linalg.inv(torch.stack([c.world_from_camera for c in clips]).double())
        self._world_from_camera = torch.linalg.inv(self._camera_from_world)
        self._clips = clips
        self._normals = surface_normals(self.depth, self._camera)
        self.motion = torch.stack([self._speed(i) for i in range(len(clips))])

    def _speed(self, row: int) -> Tensor:
        """Distance that every pixel's surface moves in the world until the next frame, [T, H, W]."""
        clip = self._clips[row]
        if clip.segments is None or clip.world_from_object is None:
            return torch.zeros_like(clip.depth)
        frames, height, width = clip.depth.shape
        time, y, x = torch.meshgrid(*map(torch.arange, (frames, height, width)), indexing="ij")
        time, u, v = time.flatten(), (x.flatten() + 0.5) / width, (y.flatten() + 0.5) / height
        following = (time + 1).clamp(max=frames - 1)
        here = self._world(row, u, v, time, time)
        return (self._world(row, u, v, time, following) - here).norm(dim=-1).float().reshape(clip.depth.shape)

    def _cell(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self.depth.shape[-2:]
        x = (u.nan_to_num(0.0) * width).floor().long().clamp(0, width - 1)
        return (v.nan_to_num(0.0) * height).floor().long().clamp(0, height - 1), x

    def _moved(self, row: int, u: Tensor, v: Tensor, source: Tensor, target: Tensor) -> Tensor | None:
        """Transforms [N, 4, 4] of the objects under the source pixels from time source to time target."""
        clip = self._clips[row]
        if clip.segments is None or clip.world_from_object is None:
            return None
        y, x = self._cell(u, v)
        index = clip.segments[source, y, x]
        poses = clip.world_from_object.double()
        return poses[target, index] @ torch.linalg.inv(poses[source, index])

    def _world(self, row: int, u: Tensor, v: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """World position [N, 3] at time target of what is seen at u, v at time source; NaN without depth."""
        y, x = self._cell(u, v)
        point = lift(u, v, self.depth[row, source, y, x], self._camera[row, source]).double()
        point = move(self._world_from_camera[row, source], point)
        moved = self._moved(row, u, v, source, target)
        return point if moved is None else move(moved, point)

    def _answer(self, row: int, q: Queries) -> Truth:
        y, x = self._cell(q.u, q.v)
        before = self._world(row, q.u, q.v, q.t_src, q.t_src)
        after = self._world(row, q.u, q.v, q.t_src, q.t_tgt)
        known = torch.isfinite(after).all(-1)
        camera_from_world = self._camera_from_world[row, q.t_cam]
        xyz = move(camera_from_world, after)
        normal = (
            self._world_from_camera[row, q.t_src, :3, :3]
            @ self._normals[row, q.t_src, y, x, :, None].double()
        )
        moved = self._moved(row, q.u, q.v, q.t_src, q.t_tgt)
        if moved is not None:
            normal = moved[:, :3, :3] @ normal
        normal = (camera_from_world[:, :3, :3] @ normal)[..., 0].float()
        seen_from = move(self._camera_from_world[row, q.t_tgt], after).float()
        uv = project(seen_from, self._camera[row, q.t_tgt])
        in_front = known & (seen_from[:, 2] > 1e-3)
        inside = in_front & ((uv >= 0) & (uv < 1)).all(-1)
        y, x = self._cell(uv[:, 0], uv[:, 1])
        surface = self.depth[row, q.t_tgt, y, x]
        visible = inside & (seen_from[:, 2] <= surface * (1 + _OCCLUDED))
        return Truth(
            xyz=xyz.float(),
            uv=uv,
            visibility=visible.float(),
            displacement=(xyz - move(camera_from_world, before)).float(),
            normal=normal,
            xyz_valid=known,
            uv_valid=in_front,
            visibility_valid=known & (~inside | torch.isfinite(surface)),
            normal_valid=known & torch.isfinite(normal).all(-1),
        )

    def answer(self, queries: Queries) -> Truth:
        """Truth for queries [B, N]."""
        rows = range(queries.u.shape[0])
        return Truth.stack([self._answer(row, queries.apply(itemgetter(row))) for row in rows])
