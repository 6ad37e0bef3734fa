"""Procedural 4D scenes: batches of clips that know the exact answer to every query.

Everything is drawn from one CPU generator, so a seed gives the same clips on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from d4rt_ros.model import Queries
from d4rt_ros.model.checks import Range, at_least, check_fields
from d4rt_ros.training import shapes
from d4rt_ros.training.cameras import Path as CameraPath
from d4rt_ros.training.cameras import camera_paths
from d4rt_ros.training.layout import Layout, compose
from d4rt_ros.training.raycast import Caster, View, World, take
from d4rt_ros.training.rigid import Random, convert, dot, move, unit, unit3
from d4rt_ros.training.sensor import SensorSettings, capture
from d4rt_ros.training.shading import Lamp, Light, Materials, draw_lamp, paint, surface_uv
from d4rt_ros.training.shapes import Vec
from d4rt_ros.training.textures import TextureBank
from d4rt_ros.training.truth import Truth

SKY = 1000.0
MOTION_LEVELS = {"little": 0.2, "medium": 1.0, "much": 2.5}


@dataclass(frozen=True)
class SceneRecipe:
    """What scenes to draw. Motion factors scale all speeds: 0 stands still, 1 is a robot's day."""

    frames: int = 8
    size: tuple[int, int] = (64, 64)  # H, W of the images; their aspect ratio before resizing varies
    camera_motion: float = 1.0
    object_motion: float = 1.0
    objects: int = 9  # most large objects a clip
    clutter: int = 14  # most small ones
    places: tuple[float, float, float, float] = (
        0.35,
        0.15,
        0.25,
        0.25,
    )  # weights: room, corridor, table, outdoor
    fps: tuple[float, float] = (4.0, 20.0)  # frames a second, log-uniform
    photographs: str | Path | None = None  # folder of pictures to use as textures as well
    sensor: SensorSettings = SensorSettings()

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, by name."""
        counts, motions = ("frames", "objects", "clutter"), ("camera_motion", "object_motion")
        motion = Range(0, 100, "in 0..100")
        check_fields(self, "", **dict.fromkeys(counts, at_least(1)), **dict.fromkeys(motions, motion))
        if [type(side) for side in self.size] != [int, int] or min(self.size) < 1:
            raise ValueError(f"size is {self.size}, must be two whole numbers not below 1")
        if not isinstance(self.sensor, SensorSettings):
            raise ValueError(f"sensor is {self.sensor!r}, must be SensorSettings")
        if len(self.places) != 4 or min(self.places) < 0 or not 0 < sum(self.places) < math.inf:
            raise ValueError(f"places is {self.places}, must be four weights, not all 0")
        if len(self.fps) != 2 or not 0 < self.fps[0] <= self.fps[1] < math.inf:
            raise ValueError(f"fps is {self.fps}, must be two positive numbers, the lower one first")

    def with_motion(self, level: str) -> SceneRecipe:
        """The same with a named amount of motion: 'little', 'medium' or 'much'."""
        factor = MOTION_LEVELS[level]
        return replace(self, camera_motion=factor, object_motion=factor)


@dataclass(frozen=True)
class _Rays:
    """Some pixels: clip, frame (flat over [B, T]), primitive k, ray (x, y, 1), depth; all [N]."""

    clip: Tensor
    frame: Tensor
    k: Tensor
    x: Tensor
    y: Tensor
    depth: Tensor


class ProceduralScenes:
    """Draws batches of clips after a recipe; textures are made once from `texture_seed`."""

    def __init__(
        self, recipe: SceneRecipe, texture_seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """Make the textures; clips are drawn on the CPU and rendered and asked on `device`."""
        self.recipe, self.device = recipe, torch.device(device)
        self.bank = TextureBank(texture_seed, recipe.photographs).to(device)

    def sample(self, batch: int, generator: torch.Generator, recipe: SceneRecipe | None = None) -> SceneBatch:
        """Draw and render `batch` clips from a CPU generator, after `recipe` if given (for curricula)."""
        recipe = recipe or self.recipe
        r = Random(generator)
        place = r.choice(list(recipe.places), batch)
        path = camera_paths(r, place, recipe.frames, recipe.camera_motion, recipe.fps)
        layout = compose(r, path, place, recipe.objects, recipe.clutter, recipe.object_motion)
        materials = paint(r, layout, self.bank)
        middle = recipe.frames // 2
        target = path.position[:, middle] + 2 * path.rotation[:, middle, :, 2]
        lamp = draw_lamp(r, layout, target, self.bank)

        def here(tensor: Tensor) -> Tensor:
            return tensor.to(self.device)

        path, layout, materials = convert(path, here), convert(layout, here), convert(materials, here)
        return SceneBatch(recipe, path, layout, materials, convert(lamp, here), self.bank, r)


class SceneBatch:
    """B clips of T frames, rendered, with exact answers; a `ClipBatch` for training.

    Attributes:
        video: [B, T, 3, H, W] uint8.
        depth: [B, T, H, W] metres along the optical axis, inf for the sky.
        motion: [B, T, H, W] speed of the surface in the world, metres a frame.
        aspect_ratio: [B] width / height of the image before it was resized to H x W.
        intrinsics: [B, 3, 3] in pixels of the H x W image, centres of pixels at +.5.
        world_from_camera: [B, T, 4, 4], optical frames; the world has z up.
        time: [B, T] seconds.
    """

    def __init__(
        self, recipe: SceneRecipe, path: CameraPath, layout: Layout, materials: Materials, lamp: Lamp,
        bank: TextureBank, r: Random,
    ) -> None:  # fmt: skip
        """Render; `ProceduralScenes.sample` calls this."""
        self.recipe, self.layout, self.time, self.aspect_ratio = recipe, layout, path.time, path.aspect_ratio
        b, t = path.yaw.shape
        pose = torch.eye(4, device=path.yaw.device).repeat(b, t, 1, 1)
        pose[..., :3, :3], pose[..., :3, 3] = path.rotation, path.position
        self.view = View(pose, path.focal, torch.full_like(path.focal, 0.5))
        self.world_from_camera = pose
        height, width = recipe.size
        self.intrinsics = torch.eye(3, device=path.yaw.device).repeat(b, 1, 1)
        self.intrinsics[:, 0, 0], self.intrinsics[:, 1, 1] = (
            path.focal[:, 0] * width,
            path.focal[:, 1] * height,
        )
        self.intrinsics[:, 0, 2], self.intrinsics[:, 1, 2] = width / 2, height / 2
        self.caster = Caster(layout.world, self.view)
        colour = self._render(materials, Light(lamp, layout.world), bank)
        self.video = capture(colour, recipe.sensor, r)

    def _render(self, materials: Materials, light: Light, bank: TextureBank) -> Tensor:
        """Fill depth and motion; returns linear colours [B, T, 3, H, W]."""
        b, t, p = self.caster.size
        height, width = self.recipe.size
        depth, k = self.caster.image(height, width)
        hit = depth.isfinite()
        motion, colour = torch.zeros_like(depth), depth.new_zeros(3, len(depth))
        shades = (
            (self._sky, (~hit).nonzero()[:, 0]),
            (self._surface, hit.nonzero()[:, 0]),
        )
        for shade, pixel in shades:
            if len(pixel):
                frame = torch.div(pixel, height * width, rounding_mode="floor")
                clip = torch.div(frame, t, rounding_mode="floor")
                u = (pixel % width + 0.5) / width
                v = (torch.div(pixel, width, rounding_mode="floor") % height + 0.5) / height
                x, y = self.view.direction(clip, u, v)
                rgb, speed = shade(_Rays(clip, frame, k[pixel], x, y, depth[pixel]), materials, light, bank)
                for channel, values in zip(colour, rgb, strict=True):
                    channel[pixel] = values
                if speed is not None:
                    motion[pixel] = speed
        self.depth, self.motion = depth.view(b, t, height, width), motion.view(b, t, height, width)
        return colour.view(3, b, t, height, width).permute(1, 2, 0, 3, 4)

    def _way(self, rays: _Rays, reach: Tensor) -> Vec:
        """Rays of length `reach` along the optical axis, turned into the world."""
        table = self.world_from_camera[..., :3, :3].reshape(-1, 9).T.contiguous()
        m = take(table, rays.frame)
        camera = (rays.x * reach, rays.y * reach, reach)
        return tuple(dot(m[3 * i : 3 * i + 3], camera) for i in range(3))

    def _sky(self, rays: _Rays, _: Materials, light: Light, bank: TextureBank) -> tuple[Vec, None]:
        return light.sky(rays.clip, self._way(rays, torch.ones_like(rays.x)), bank), None

    def _surface(
        self, rays: _Rays, materials: Materials, light: Light, bank: TextureBank
    ) -> tuple[Vec, Tensor]:
        """Colours of the pixels that meet something, and the speed there in metres a frame."""
        _, t, p = self.caster.size
        k = rays.k
        local = self.caster.local(k, rays.x, rays.y, rays.depth)
        gradient = shapes.local_normal(self.caster.kind[k], local, self.caster.half_length[k])
        rows = (self.caster.kind[k] == shapes.SHEET).nonzero()[:, 0]
        if len(rows):
            slopes = shapes.ripple(local[0][rows], local[1][rows], take(self.caster.wave, k[rows]))[1:]
            for axis, slope in enumerate(slopes):
                gradient[axis][rows] = -slope
            gradient[2][rows] = 1.0
        inverse = take(self.caster.world_to_local.reshape(-1, 9).T.contiguous(), k)
        normal = unit3(tuple(dot(gradient, inverse[i::3]) for i in range(3)))
        away = self._way(rays, rays.depth)
        facing = dot(normal, away)
        side = -torch.copysign(torch.ones_like(facing), facing)
        normal = tuple(c * side for c in normal)
        eye = take(self.world_from_camera[..., :3, 3].reshape(-1, 3).T.contiguous(), rays.frame)
        point = tuple(a + b for a, b in zip(eye, away, strict=True))
        slot = rays.clip * p + k % p
        # a room's floor and ceiling are painted as the two slots after its shell
        level = torch.maximum(local[0].abs(), local[1].abs()) < local[2].abs()
        room = (self.caster.kind[k] == shapes.SHELL) & level
        slot = slot + room * (1 + (local[2] > 0).long())
        m = take(torch.cat((materials.table(), self.layout.half.reshape(-1, 3).T)), slot)
        mu, mv = surface_uv(local, gradient, m[13:])
        height, width = self.recipe.size
        angle = torch.maximum(1 / (width * self.view.focal[:, 0]), 1 / (height * self.view.focal[:, 1]))
        squint = dot(away, away).sqrt() / facing.abs().clamp_min(1e-6)
        footprint = rays.depth * angle.index_select(0, rays.clip) * squint.clamp_max(6)
        pattern = bank.sample(m[0], mu * m[1] + m[2], mv * m[1] + m[3], footprint * m[1])
        stain = bank.sample(m[10], mu * 0.23 + m[3], mv * 0.23, footprint * 0.23)[0]
        stain = 1 + m[11] * (2 * stain - 1)
        albedo = tuple(torch.lerp(m[4 + i], m[7 + i], pattern[i]) * stain for i in range(3))
        return light.shade(rays.clip, rays.frame, point, normal, away, albedo, m[12]), self._speed(k, local)

    def _speed(self, k: Tensor, local: Vec) -> Tensor:
        """Distance that points of primitives k move to the next frame (in the last, from the one before)."""
        world = self.layout.world
        _, t, p = self.caster.size
        speed = torch.zeros_like(local[0])
        if t == 1:
            return speed
        moves = ((world.pose[:, 1:] != world.pose[:, :-1]).flatten(3).any(-1)) | (
            (world.wave[:, 1:] != world.wave[:, :-1]).any(-1)
        )
        moves = torch.cat((moves, moves[:, -1:]), 1).reshape(-1)
        rows = moves[k].nonzero()[:, 0]
        k = k[rows]
        clip, slot = torch.div(k, t * p, rounding_mode="floor"), k % p
        frame = (torch.div(k, p, rounding_mode="floor") % t).clamp_max(t - 2)
        material = torch.stack([c[rows] for c in local], -1)
        before, after = (
            move(world.pose[clip, at, slot], world.carry(clip, at, slot, material))
            for at in (frame, frame + 1)
        )
        speed[rows] = (after - before).norm(dim=-1)
        return speed

    def answer(self, queries: Queries) -> Truth:
        """Exact truth for queries [B, N]; xyz and normal are not valid for the sky."""
        return answer(self.caster, queries.to(self.depth.device))


def answer(caster: Caster, queries: Queries) -> Truth:
    """Truth for queries [B, N] by rays through the source and to the target; in the caster's precision.

    The sky is infinitely far: its uv and visibility are exact, its xyz (SKY metres away) and normal invalid.
    Raises ValueError if a time lies outside the clip or u, v are not finite.
    """
    b, t, p = caster.size
    frames = torch.stack((queries.t_src, queries.t_tgt, queries.t_cam))
    if frames.numel() and (int(frames.min()) < 0 or int(frames.max()) >= t):
        raise ValueError(f"times run from {int(frames.min())} to {int(frames.max())}, must be in 0..{t - 1}")
    pose = caster.view.world_from_camera
    u, v = queries.u.reshape(-1).to(pose.dtype), queries.v.reshape(-1).to(pose.dtype)
    if not bool((u.isfinite() & v.isfinite()).all()):
        raise ValueError("u and v must be finite")
    n = queries.u.shape[-1]
    clip = torch.arange(b, device=u.device).repeat_interleave(n)
    source, target, camera = (x.reshape(-1) for x in frames)
    depth, k = caster.points(clip, source, u, v)
    hit = depth.isfinite()
    depth = torch.where(hit, depth, SKY)
    slot = k % p
    x, y = caster.view.direction(clip, u, v)
    local = torch.stack(caster.local(k, x, y, depth), -1)
    world = caster.world
    ray = torch.stack((x, y, torch.ones_like(x)), -1) * depth[:, None]
    sky = (pose[clip, source, :3, :3] @ ray[..., None])[..., 0]  # from any camera: it is infinitely far

    def place(at: Tensor) -> Tensor:
        material = world.carry(clip, at, slot, local)
        return move(world.pose[clip, at, slot], material)

    start, end = place(source), place(target)

    def turned(at: Tensor) -> Tensor:
        gradient = world.gradient(clip, at, slot, local)
        return unit((gradient[:, None] @ caster.world_to_local[clip, at, slot])[:, 0])

    away = start - pose[clip, source, :3, 3]
    flip = torch.where((turned(source) * away).sum(-1) > 0, -1.0, 1.0)
    rotation = pose[clip, camera, :3, :3]

    def in_camera(vector: Tensor) -> Tensor:
        return (vector[:, None] @ rotation)[:, 0]

    def offset(at: Tensor) -> Tensor:
        return torch.where(hit[:, None], end - pose[clip, at, :3, 3], sky)

    seen = (offset(target)[:, None] @ pose[clip, target, :3, :3])[:, 0]
    in_front = seen[:, 2] > shapes.NEAR
    z = torch.where(in_front, seen[:, 2], 1.0)
    uv = seen[:, :2] / z[:, None] * caster.view.focal[clip] + caster.view.centre[clip]
    inside = in_front & ((uv >= 0) & (uv <= 1)).all(-1)
    nearest, _ = caster.points(clip, target, uv[:, 0].clamp(0, 1), uv[:, 1].clamp(0, 1))
    tolerance = 1e-3 if pose.dtype == torch.float32 else 1e-6
    visible = inside & (z <= nearest * (1 + tolerance)) | (inside & (target == source))
    shape = queries.u.shape

    def out(value: Tensor) -> Tensor:
        return value.reshape(*shape, *value.shape[1:])

    return Truth(
        xyz=out(in_camera(offset(camera))),
        uv=out(uv),
        visibility=out(visible.to(u.dtype)),
        displacement=out(in_camera(torch.where(hit[:, None], end - start, 0))),
        normal=out(in_camera(turned(target) * flip[:, None])),
        xyz_valid=out(hit),
        uv_valid=out(in_front),
        visibility_valid=out(torch.ones_like(hit)),
        normal_valid=out(hit),
    )


__all__ = ["MOTION_LEVELS", "ProceduralScenes", "SceneBatch", "SceneRecipe", "World", "answer"]
