"""A scene that answers exactly, behind the face of the network's `Scene`: for tests and benchmarks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from d4rt_ros.model import Answers, Queries
from d4rt_ros.training.raycast import Caster, View, World
from d4rt_ros.training.rigid import convert, double
from d4rt_ros.training.scenes import SceneBatch, answer

_CHUNK = 32768  # queries answered at once
_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0x27D4EB2F165667C5)


class OracleScene:
    """One clip of a procedural batch as a `SceneLike`.

    Attributes:
        frames: [T, 3, H, W] uint8. The images are resized: K has two focal lengths.
        stamps: T stamps in nanoseconds.
        world_from_camera: [T, 4, 4] float64, true poses in the scene units of the answers.
        intrinsics: [3, 3] float64, true K in pixels of `frames`, centres of pixels at +.5.
        scale: scene units a metre.
    """

    def __init__(
        self,
        batch: SceneBatch,
        clip: int = 0,
        first: int = 0,
        count: int | None = None,
        scale: float = 1.0,
        noise: float = 0.0,
        outliers: float = 0.0,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        """Take frames `first` to `first + count` of a clip.

        Args:
            batch: procedural clips.
            clip: which of them.
            first: index of the first frame.
            count: number of frames; all that follow if None.
            scale: scene units a metre, as a network's arbitrary scale.
            noise: standard deviation of xyz relative to the distance, of displacement relative to itself, of
                uv in image sizes, of the normal's direction in radians.
            outliers: share of queries whose xyz, uv and displacement are arbitrary, though as confident.
            seed: of noise and outliers; a query gets the same answer each time.
            device: where to answer; that of the batch if None.

        Raises:
            ValueError: the frames do not exist or a number is out of range.
        """
        total = batch.video.shape[1]
        last = total if count is None else first + count
        if not 0 <= first < last <= total:
            raise ValueError(f"frames {first}..{last - 1} are not in 0..{total - 1}")
        if not scale > 0 or noise < 0 or not 0 <= outliers <= 1:
            raise ValueError(f"scale {scale}, noise {noise} or outliers {outliers} is out of range")
        target = batch.video.device if device is None else torch.device(device)
        world, view = double(batch.layout.world), double(batch.view)
        one, span = slice(clip, clip + 1), slice(first, last)
        world = World(world.kind[one], world.pose[one, span], world.half_length[one], world.wave[one, span])
        view = View(view.world_from_camera[one, span], view.focal[one], view.centre[one])
        self._caster = Caster(convert(world, lambda x: x.to(target)), convert(view, lambda x: x.to(target)))
        self.frames = batch.video[clip, span].to(target)
        nanoseconds = (batch.time[clip].double() - batch.time[clip, 0].double()) * 1e9
        self.stamps = tuple(1_000_000_000 + int(x) for x in nanoseconds[span].round().tolist())
        self.world_from_camera = view.world_from_camera[0].clone().to(target)
        self.world_from_camera[:, :3, 3] *= scale
        self.intrinsics = batch.intrinsics[clip].double().to(target)
        self.scale, self.noise, self.outliers, self.seed = scale, noise, outliers, seed

    @property
    def num_frames(self) -> int:
        """T."""
        return self.frames.shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of `frames`."""
        return self.frames.shape[-2], self.frames.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where queries are answered."""
        return self.frames.device

    @torch.no_grad()
    def decode(self, queries: Queries) -> Answers:
        """Answer queries [N]; the sky is 1000 m away, with confidence 0.

        Raises ValueError for times out of range or u, v that are not finite.
        """
        if queries.u.ndim != 1:
            raise ValueError(f"queries must be [N], not {list(queries.u.shape)}")
        queries = queries.to(self.device)

        def chunk(start: int) -> Queries:
            return queries.apply(lambda x: x[start : start + _CHUNK])

        parts = [self._decode(chunk(start)) for start in range(0, len(queries.u), _CHUNK)]
        if not parts:
            parts = [self._decode(queries)]
        return Answers(
            *(torch.cat(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True))
        )

    def _decode(self, queries: Queries) -> Answers:
        truth = convert(answer(self._caster, queries.apply(lambda x: x[None])), lambda x: x[0])
        xyz, uv, displacement, normal = (
            truth.xyz * self.scale,
            truth.uv,
            truth.displacement * self.scale,
            truth.normal,
        )
        if self.noise or self.outliers:
            draw = _hashed(queries, self.seed, 20).double()
            gauss = _gaussian(draw[:, :16])
            distance = xyz.norm(dim=-1, keepdim=True)
            size = displacement.norm(dim=-1, keepdim=True)
            xyz = xyz + self.noise * distance * gauss[:, :3]
            displacement = displacement + self.noise * size * gauss[:, 3:6]
            normal = normal + self.noise * gauss[:, 6:9]
            normal = normal / normal.norm(dim=-1, keepdim=True)
            uv = uv + self.noise * gauss[:, 9:11]
            wrong = draw[:, 16:17] < self.outliers
            xyz = torch.where(wrong, distance * (gauss[:, 11:14] + xyz / distance), xyz)
            displacement = torch.where(wrong, distance * gauss[:, 13:16], displacement)
            uv = torch.where(wrong, draw[:, 17:19], uv)
        return Answers(
            xyz=xyz.float(),
            uv=uv.float(),
            visibility=truth.visibility.float(),
            displacement=displacement.float(),
            normal=normal.float(),
            confidence=truth.xyz_valid.float(),
        )


def oracle_windows(
    batch: SceneBatch,
    length: int,
    stride: int,
    clip: int = 0,
    noise: float = 0.0,
    outliers: float = 0.0,
    seed: int = 0,
) -> list[OracleScene]:
    """Overlapping windows of one long clip, every `stride` frames, each with a scale of its own in 0.3..3."""
    total = batch.video.shape[1]
    generator = torch.Generator().manual_seed(seed)
    windows = []
    for i, first in enumerate(range(0, total - length + 1, stride)):
        scale = float(0.3 * 10 ** torch.rand((), generator=generator, dtype=torch.float64))
        windows.append(OracleScene(batch, clip, first, length, scale, noise, outliers, seed + i))
    return windows


def _hashed(queries: Queries, seed: int, count: int) -> Tensor:
    """Uniform numbers [N, count] in 0..1 that depend on the query and the seed alone (splitmix)."""
    state = torch.full_like(queries.t_src, seed)
    fields = (queries.u.float().view(torch.int32), queries.v.float().view(torch.int32))
    for field in (*fields, queries.t_src, queries.t_tgt, queries.t_cam):
        state = _scramble(state ^ field.long())
    steps = torch.arange(1, count + 1, device=state.device) * _MIX[1]
    return (_scramble(state[:, None] + steps) & 0xFFFFFF).float() / (1 << 24)


def _scramble(x: Tensor) -> Tensor:
    x = (x ^ (x >> 31)) * _MIX[0]
    x = (x ^ (x >> 29)) * _MIX[1]
    return x ^ (x >> 32)


def _gaussian(uniform: Tensor) -> Tensor:
    """Standard normal numbers from an even number of uniform ones (Box and Muller)."""
    half = uniform.shape[-1] // 2
    radius = (-2 * torch.log(1 - uniform[:, :half])).sqrt()
    angle = 2 * math.pi * uniform[:, half:]
    return torch.cat((radius * angle.cos(), radius * angle.sin()), -1)
