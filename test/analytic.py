"""A world simple enough to solve on paper: a tilted wall and a ball, seen by a moving camera."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from d4rt_ros.model import Answers, Queries

WALL_NORMAL = torch.tensor([0.2, 0.1, -1.0], dtype=torch.float64)
WALL_POINT = torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64)


@dataclass(frozen=True)
class AnalyticScene:
    """Exact answers (SceneLike); the world is camera 0's frame, x right, y down, z forward, metres.

    ``noise`` is the relative deviation of xyz, ``outliers`` the share of answers thrown up to 3 m away.
    ``hidden`` and ``doubtful`` set every visibility and every confidence to zero.
    """

    num_frames: int = 8
    image_size: tuple[int, int] = (12, 16)
    focal: tuple[float, float] = (0.9, 1.2)  # over image width and height
    ball_velocity: tuple[float, float, float] = (0.1, 0.0, 0.0)  # metres a frame
    step: tuple[float, float, float] = (0.08, -0.03, 0.05)
    noise: float = 0.0
    outliers: float = 0.0
    hidden: bool = False
    doubtful: bool = False
    rng: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(3))
    asked: list[int] = field(default_factory=list)

    @property
    def frames(self) -> Tensor:
        """[T, 3, H, W]: the red channel is the column, the green the row, the blue the frame."""
        t, (h, w) = self.num_frames, self.image_size
        red, green = torch.arange(w).expand(t, h, w), torch.arange(h)[:, None].expand(t, h, w)
        return torch.stack([red, green, torch.arange(t)[:, None, None].expand(t, h, w)], 1).to(torch.uint8)

    @property
    def stamps(self) -> tuple[int, ...]:
        """Ten frames a second."""
        return tuple(5_000_000_000 + 100_000_000 * k for k in range(self.num_frames))

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def matrix(self) -> np.ndarray:
        """The true intrinsics in pixels."""
        (h, w), (fx, fy) = self.image_size, self.focal
        return np.array([[fx * w, 0, w / 2], [0, fy * h, h / 2], [0, 0, 1]])

    @property
    def poses(self) -> np.ndarray:
        """[T, 4, 4] world_from_camera; it moves along ``step`` and turns a little."""
        poses = np.tile(np.eye(4), (self.num_frames, 1, 1))
        for k in range(self.num_frames):
            poses[k, :3, :3] = Rotation.from_rotvec([0.01 * k, -0.02 * k, 0.005 * k]).as_matrix()
            poses[k, :3, 3] = np.array(self.step) * k
        return poses

    def _ball(self, t: Tensor) -> Tensor:
        return (
            torch.tensor([-0.3, 0.1, 3.0]).double() + t[:, None] * torch.tensor(self.ball_velocity).double()
        )

    def _cast(self, origin: Tensor, ray: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Distance along the ray and whether it ends on the ball."""
        wall = ((WALL_POINT - origin) @ WALL_NORMAL) / (ray @ WALL_NORMAL)
        to = self._ball(t) - origin
        along = (to * ray).sum(-1) / (ray * ray).sum(-1)
        miss = ((to - along[:, None] * ray) ** 2).sum(-1)
        hit = miss < 0.6**2
        near = along - torch.sqrt(torch.clamp(0.6**2 - miss, min=0.0) / (ray * ray).sum(-1))
        return torch.where(hit, near, wall), hit

    def _to_camera(self, points: Tensor, t: Tensor) -> Tensor:
        pose = torch.from_numpy(self.poses)[t]
        return torch.einsum("nji,nj->ni", pose[:, :3, :3], points - pose[:, :3, 3])

    def decode(self, queries: Queries) -> Answers:
        """Answer queries [N]."""
        self.asked.append(queries.u.numel())
        fx, fy = self.focal
        u, v = queries.u.double(), queries.v.double()
        pose = torch.from_numpy(self.poses)[queries.t_src]
        ray = torch.stack([(u - 0.5) / fx, (v - 0.5) / fy, torch.ones_like(u)], -1)
        ray = torch.einsum("nij,nj->ni", pose[:, :3, :3], ray)
        length, on_ball = self._cast(pose[:, :3, 3], ray, queries.t_src)
        before = pose[:, :3, 3] + length[:, None] * ray
        moved = on_ball[:, None] * (self._ball(queries.t_tgt) - self._ball(queries.t_src))
        after = before + moved
        seen = self._to_camera(after, queries.t_tgt)
        uv = torch.stack([fx * seen[:, 0] / seen[:, 2], fy * seen[:, 1] / seen[:, 2]], -1) + 0.5
        eye = torch.from_numpy(self.poses)[queries.t_tgt][:, :3, 3]
        reach, _ = self._cast(eye, after - eye, queries.t_tgt)
        inside = ((uv >= 0) & (uv < 1)).all(-1) & (seen[:, 2] > 0)
        visible = (inside & (reach > 1 - 1e-6)).float()
        xyz = self._to_camera(after, queries.t_cam)
        normal = torch.where(on_ball[:, None], after - self._ball(queries.t_tgt), WALL_NORMAL)
        xyz = xyz * (1 + self.noise * torch.randn(xyz.shape, generator=self.rng, dtype=torch.float64))
        stray = torch.rand(len(xyz), 1, generator=self.rng) < self.outliers
        xyz = xyz + stray * 3 * (2 * torch.rand(xyz.shape, generator=self.rng, dtype=torch.float64) - 1)
        turned = self._to_camera(after + normal, queries.t_cam) - self._to_camera(after, queries.t_cam)
        back = self._to_camera(after, queries.t_cam) - self._to_camera(before, queries.t_cam)
        return Answers(
            xyz=xyz.float(),
            uv=uv.float(),
            visibility=visible * (not self.hidden),
            displacement=back.float(),
            normal=torch.nn.functional.normalize(turned, dim=-1).float(),
            confidence=torch.full_like(u, 0.0 if self.doubtful else 0.9).float(),
        )
