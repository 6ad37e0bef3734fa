"""A room with balls that answers queries exactly, cheap enough for thousands of windows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from d4rt_ros.model import Answers, Queries
from d4rt_ros.stream import Frame
from d4rt_ros.tasks.geometry import Array, invert

WALLS = np.array([4.0, 2.5, 6.0])  # half the room's size, metres; y is down
STEP_NS = 100_000_000
K = np.array([[20.0, 0.0, 16.0], [0.0, 22.0, 12.0], [0.0, 0.0, 1.0]])
SIZE = (24, 32)


@dataclass(frozen=True)
class Ball:
    """A ball that moves on a line: centre at time 0, metres per second, radius."""

    centre: tuple[float, float, float]
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 0.5


def camera_path(time: Array) -> Array:
    """world_from_camera [N, 4, 4] at times [N] s: an endless walk round the room, never outside it."""
    poses = np.tile(np.eye(4), (len(time), 1, 1))
    poses[:, :3, 3] = np.stack([np.sin(0.9 * time), 0.3 * np.sin(1.5 * time), 1.5 * np.sin(0.6 * time)], -1)
    yaw, pitch = 0.4 * np.sin(0.6 * time), 0.15 * np.sin(1.1 * time)
    c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    zero = np.zeros_like(c)
    poses[:, :3, :3] = np.stack(
        [
            np.stack([c, s * sp, s * cp], -1),
            np.stack([zero, cp, -sp], -1),
            np.stack([-s, c * sp, c * cp], -1),
        ],
        1,
    )
    return poses


@dataclass(eq=False)
class Room:
    """SceneLike of the frames at some stamps; everything known in closed form.

    unit: scene units per metre (a network's scale is arbitrary). noise: relative error of xyz. outliers:
    share of the answers that are nonsense. confidence: what it says of every answer. intrinsics: the lens
    that it believes in; the answers keep z and the pixel.
    """

    stamps: tuple[int, ...]
    balls: tuple[Ball, ...] = ()
    unit: float = 1.0
    noise: float = 0.0
    outliers: float = 0.0
    confidence: float = 0.9
    hidden: bool = False  # nothing is visible
    intrinsics: Array = field(default_factory=lambda: K)
    seed: int = 0

    def __post_init__(self) -> None:
        """Cameras of the frames."""
        self.frames = torch.zeros(len(self.stamps), 3, *SIZE, dtype=torch.uint8)
        self.num_frames, self.image_size, self.device = len(self.stamps), SIZE, torch.device("cpu")
        self.time = np.asarray(self.stamps) / 1e9
        self.poses = camera_path(self.time)
        self.rng = np.random.default_rng((self.seed, *self.stamps[:1]))
        self.decoded: list[int] = []

    def cast(self, origin: Array, ray: Array, time: Array) -> tuple[Array, Array]:
        """Distance [N] along rays [N, 3] to what they hit, and the number of the ball there (-1: a wall)."""
        along = np.where(ray == 0, 1e-300, ray)
        distance = ((np.sign(along) * WALLS - origin) / along).min(-1)
        which = np.full(len(ray), -1)
        for i, ball in enumerate(self.balls):
            away = origin - (np.array(ball.centre) + np.array(ball.velocity) * time[:, None])
            a, b = (ray**2).sum(-1), (ray * away).sum(-1)
            root = b**2 - a * ((away**2).sum(-1) - ball.radius**2)
            near = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, -1.0)
            hit = (near > 1e-9) & (near < distance)
            distance, which = np.where(hit, near, distance), np.where(hit, i, which)
        return distance, which

    def decode(self, queries: Queries) -> Answers:
        """Exact answers, then made as bad as asked."""
        self.decoded.append(len(queries.u))
        if bool(~torch.isfinite(queries.u + queries.v).all()):
            raise ValueError("u or v of a query is not finite")
        u, v = queries.u.double().numpy(), queries.v.double().numpy()
        src, tgt, cam = (t.numpy() for t in (queries.t_src, queries.t_tgt, queries.t_cam))
        if (
            min(src.min(), tgt.min(), cam.min()) < 0
            or max(src.max(), tgt.max(), cam.max()) >= self.num_frames
        ):
            raise ValueError("time index out of range")
        pixel = np.stack([u * SIZE[1], v * SIZE[0], np.ones_like(u)], -1)
        ray = np.einsum("nij,nj->ni", self.poses[src, :3, :3], pixel @ np.linalg.inv(K).T)
        origin = self.poses[src, :3, 3]
        distance, ball = self.cast(origin, ray, self.time[src])
        start = origin + distance[:, None] * ray
        speed = np.array([b.velocity for b in self.balls] + [(0.0, 0.0, 0.0)])[ball]
        now = start + speed * (self.time[tgt] - self.time[src])[:, None]
        into = invert(self.poses)
        xyz, was = (np.einsum("nij,nj->ni", into[cam, :3, :3], p) + into[cam, :3, 3] for p in (now, start))
        seen = np.einsum("nij,nj->ni", into[tgt, :3, :3], now) + into[tgt, :3, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            uv = (seen @ K.T)[:, :2] / seen[:, 2:] / np.array([SIZE[1], SIZE[0]])
        back = now - self.poses[tgt, :3, 3]
        free = self.cast(self.poses[tgt, :3, 3], back, self.time[tgt])[0] > 1 - 1e-6
        visible = free & (seen[:, 2] > 0) & (uv >= 0).all(-1) & (uv <= 1).all(-1) & (not self.hidden)
        bend = np.linalg.solve(self.intrinsics, K)
        xyz, was = (p @ bend.T * self.unit for p in (xyz, was))
        if self.noise or self.outliers:
            size = np.linalg.norm(xyz, axis=-1, keepdims=True)
            wrong = xyz * self.rng.uniform(0.2, 3.0, (len(u), 1)) + size * self.rng.normal(0, 0.5, xyz.shape)
            noisy = xyz + self.noise * size * self.rng.normal(size=xyz.shape)
            xyz = np.where(self.rng.random((len(u), 1)) < self.outliers, wrong, noisy)
        make = lambda a: torch.from_numpy(np.ascontiguousarray(a)).float()  # noqa: E731
        normal = -xyz / np.linalg.norm(xyz, axis=-1, keepdims=True)
        return Answers(
            xyz=make(xyz),
            uv=make(uv),
            visibility=make(visible.astype(float)),
            displacement=make(xyz - was),
            normal=make(normal),
            confidence=torch.full((len(u),), self.confidence),
        )


def stamps(first: int, count: int, start: int = 0) -> tuple[int, ...]:
    """Stamps of `count` frames from number `first` on, 10 a second."""
    return tuple(start + (first + i) * STEP_NS for i in range(count))


def frames(first: int, count: int, **fields: object) -> tuple[Frame, ...]:
    """Frames of the same stamps, black."""
    return tuple(Frame(s, np.zeros((*SIZE, 3), np.uint8), "cam", **fields) for s in stamps(first, count))  # type: ignore[arg-type]
