"""Truth from annotated tracks: queries start on a track, and its 3-D path answers them."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from d4rt_ros.model import Queries
from d4rt_ros.training.datasets.lifted import move, project, surface_normals
from d4rt_ros.training.truth import Truth

_REACH = 1e-4  # a query stands for the track within this distance in u, v


@dataclass(frozen=True)
class TrackClip:
    """One clip of T frames with M tracks in the world.

    Args:
        video: [T, 3, H, W] uint8.
        depth: [T, H, W] float32, NaN where unknown.
        camera: [T, 4] fx, fy, cx, cy over the image's extent.
        world_from_camera: [T, 4, 4].
        aspect_ratio: width / height of the original images.
        tracks: [T, M, 3] world positions, NaN where unknown.
        seen: [T, M] bool, whether the point is visible.
    """

    video: Tensor
    depth: Tensor
    camera: Tensor
    world_from_camera: Tensor
    aspect_ratio: float
    tracks: Tensor
    seen: Tensor

    def anchors(self) -> Tensor:
        """u, v of seen tracks [T, M, 2], NaN where one is not seen, not known or not in the image."""
        camera_from_world = torch.linalg.inv(self.world_from_camera.double())
        uv = project(move(camera_from_world[:, None], self.tracks.double()), self.camera[:, None])
        good = self.seen & torch.isfinite(uv).all(-1) & ((uv >= 0) & (uv < 1)).all(-1)
        return torch.where(good[..., None], uv.float(), torch.nan)


class TrackedClips:
    """A `ClipBatch` whose queries start at `anchors` [B, T, M, 2]: u, v of seen tracks, else NaN.

    focal: of the lenses [B], in image widths, which queries off the tracks do not tell.
    """

    def __init__(self, clips: list[TrackClip]) -> None:
        """Stack clips of one shape; tracks are padded to the longest list."""
        self.video = torch.stack([c.video for c in clips])
        self.depth = torch.stack([c.depth for c in clips])
        self.aspect_ratio = torch.tensor([c.aspect_ratio for c in clips])
        self.focal = torch.stack([c.camera[0, 0] for c in clips])
        self._clips = clips
        self._camera_from_world = [torch.linalg.inv(c.world_from_camera.double()) for c in clips]
        self._normals = surface_normals(self.depth, torch.stack([c.camera for c in clips]).float())
        batch, frames = self.video.shape[:2]
        most = max(c.tracks.shape[1] for c in clips)
        self.anchors = torch.full((batch, frames, most, 2), torch.nan)
        self.motion = torch.zeros_like(self.depth)
        for row, clip in enumerate(clips):
            self.anchors[row, :, : clip.tracks.shape[1]] = clip.anchors()
            self._splat_motion(row, clip)

    def _splat_motion(self, row: int, clip: TrackClip) -> None:
        """World speed at the pixels of seen tracks."""
        step = torch.diff(clip.tracks, dim=0, append=clip.tracks[-1:]).norm(dim=-1).nan_to_num(0.0)
        time, track = torch.isfinite(self.anchors[row]).all(-1).nonzero(as_tuple=True)
        y, x = self._cell(self.anchors[row, time, track])
        self.motion[row, time, y, x] = step[time, track].float()

    def _cell(self, uv: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self.depth.shape[-2:]
        x = (uv[..., 0] * width).long().clamp(0, width - 1)
        return (uv[..., 1] * height).long().clamp(0, height - 1), x

    def _answer(self, row: int, q: Queries) -> Truth:
        clip, into = self._clips[row], self._camera_from_world[row]
        here = torch.stack([q.u, q.v], -1)
        index = torch.zeros_like(q.t_src)
        apart = torch.full_like(q.u, torch.inf)
        for time in q.t_src.unique():  # the nearest track of every frame that is asked
            asked = q.t_src == time
            gap = torch.cdist(here[asked], self.anchors[row, time]).nan_to_num(torch.inf)
            apart[asked], index[asked] = gap.min(-1)
        index = index.clamp(max=clip.tracks.shape[1] - 1)
        before, after = clip.tracks[q.t_src, index].double(), clip.tracks[q.t_tgt, index].double()
        known = (apart < _REACH) & torch.isfinite(before).all(-1) & torch.isfinite(after).all(-1)
        xyz = move(into[q.t_cam], after)
        in_target = move(into[q.t_tgt], after).float()
        y, x = self._cell(here)
        # turned with the camera only: how a track's surface turns is not annotated
        normal = (
            clip.world_from_camera[q.t_src, :3, :3].double()
            @ self._normals[row, q.t_src, y, x, :, None].double()
        )
        normal = (into[q.t_cam, :3, :3] @ normal)[..., 0].float()
        moved = (after - before).norm(dim=-1) > 1e-3
        in_front = known & (in_target[:, 2] > 1e-3)
        return Truth(
            xyz=xyz.float(),
            uv=project(in_target, clip.camera[q.t_tgt]),
            visibility=clip.seen[q.t_tgt, index].float(),
            displacement=(xyz - move(into[q.t_cam], before)).float(),
            normal=normal,
            xyz_valid=known,
            uv_valid=in_front,
            visibility_valid=known,
            normal_valid=known & torch.isfinite(normal).all(-1) & ~moved,
        )

    def answer(self, queries: Queries) -> Truth:
        """Truth for queries [B, N]; invalid where a query starts on no track."""
        rows = range(queries.u.shape[0])
        return Truth.stack([self._answer(row, queries.apply(itemgetter(row))) for row in rows])
