"""Colours of surfaces: textures on materials, one shadow-casting light, sky light, highlights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training.layout import Layout
from d4rt_ros.training.raycast import Caster, View, World, take
from d4rt_ros.training.rigid import Random, dot, unit, unit3
from d4rt_ros.training.shapes import Vec
from d4rt_ros.training.textures import TextureBank

SHADOW_SIDE = 48  # pixels of the light's depth map


@dataclass(frozen=True)
class Materials:
    """How P primitives of B clips look; all [B, P, ...]."""

    texture: Tensor  # index into the bank
    scale: Tensor  # texture periods a metre
    shift: Tensor  # [B, P, 2]
    dark: Tensor  # [B, P, 3] colour where the texture is 0
    bright: Tensor  # [B, P, 3] colour where it is 1
    stain: Tensor  # index of a noise texture laid over everything
    stain_strength: Tensor
    gloss: Tensor  # strength of highlights

    def table(self) -> Tensor:
        """[13, B*P] numbers: texture, scale, shift 2, dark 3, bright 3, stain, strength, gloss."""
        columns = [x.flatten(0, 1).float() for x in self.__dict__.values()]
        return torch.cat([x[:, None] if x.ndim == 1 else x for x in columns], 1).T.contiguous()


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB [..., 3] of hue, saturation and value in 0..1."""
    k = (torch.tensor((5.0, 3.0, 1.0)) + 6 * hue[..., None]) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * ramp)


def paint(r: Random, layout: Layout, bank: TextureBank) -> Materials:
    """Draw a material for every paint of every clip and give it to the parts that share it."""
    b = len(layout.paint)
    n = int(layout.paint.max()) + 1
    hue = r.uniform(0, 1, b, n)
    saturation = torch.where(r.chance(0.55, b, n), r.uniform(0, 0.25, b, n), r.uniform(0.2, 0.95, b, n))
    value = r.uniform(0.1, 1.0, b, n)
    # walls and ceilings are mostly pale
    value[:, (0, 2)] = r.uniform(0.45, 1.0, b, 2)
    saturation[:, :4] *= 0.4  # roads as well
    bright = hsv(hue, saturation, value)
    other = hsv((hue + r.normal(b, n) * 0.15) % 1, saturation * r.uniform(0.3, 1.3, b, n), value)
    # many real surfaces are almost plain
    contrast = torch.where(
        r.chance(0.5, b, n, 1), r.uniform(0.7, 0.97, b, n, 1), r.uniform(0.05, 0.8, b, n, 1)
    )
    dark = other * contrast
    scale = r.log_uniform(0.4, 4, b, n)

    def pick(values: Tensor) -> Tensor:
        return values[torch.arange(b)[:, None], layout.paint]

    p = layout.paint.shape
    whole = 0.5 / layout.half.amax(-1)
    coloured = layout.picture | r.chance(0.12, *p)
    texture = torch.where(
        coloured, bank.grey + r.integer(bank.count - bank.grey, *p), pick(r.integer(bank.grey, b, n))
    )
    fitted = layout.picture | (coloured & r.chance(0.7, *p))
    # small things need fine structure: at least a third of a period over their size
    scale = torch.maximum(pick(scale), 0.3 * whole)
    return Materials(
        texture=texture,
        scale=torch.where(fitted, whole, scale),
        shift=torch.where(fitted[..., None], torch.tensor(0.5), r.uniform(0, 1, *p, 2)),
        dark=torch.where(coloured[..., None], 0.05, pick(dark)),
        bright=torch.where(coloured[..., None], 0.95, pick(bright)),
        stain=r.integer(bank.noise, *p),
        stain_strength=r.uniform(0, 0.8, *p) ** 2,
        gloss=torch.where(r.chance(0.3, *p), r.uniform(0.1, 0.9, *p), 0.0),
    )


def surface_uv(local: Vec, normal: Vec, half: Vec) -> tuple[Tensor, Tensor]:
    """Texture coordinates in metres on the two axes across the normal's largest; v down on upright faces."""
    metric = tuple(a * b for a, b in zip(local, half, strict=True))
    nx, ny, nz = ((a / b).abs() for a, b in zip(normal, half, strict=True))
    across_x = ((nx >= ny) & (nx >= nz)).to(nx.dtype)
    across_z = ((nz > ny) & (nz > nx)).to(nx.dtype)
    u = torch.lerp(metric[0], metric[1], across_x)
    return u, torch.lerp(-metric[2], metric[1], across_z)


@dataclass(frozen=True)
class Lamp:
    """The main light of B clips, and the light of the sky or the room."""

    position: Tensor  # [B, 3]
    target: Tensor  # [B, 3] what it points at
    sun: Tensor  # [B] bool, no fall-off
    strength: Tensor  # [B, 3]
    ambient: Tensor  # [B, 3]
    reach: Tensor  # [B] metres at which half of a lamp's light is left
    zenith: Tensor  # [B, 3]
    horizon: Tensor  # [B, 3]
    cloud: Tensor  # [B] index of a noise texture


def draw_lamp(r: Random, layout: Layout, target: Tensor, bank: TextureBank) -> Lamp:
    """Draw colours and strengths of the lights of a layout; they point at `target` [B, 3]."""
    b = len(target)
    return Lamp(
        position=layout.light,
        target=target,
        sun=layout.sun,
        strength=r.uniform(0.5, 1.3, b, 1) * (1 + 0.15 * r.normal(b, 3)).clamp(0.5, 1.5),
        ambient=r.uniform(0.15, 0.5, b, 1) * (1 + 0.1 * r.normal(b, 3)).clamp(0.6, 1.4),
        reach=r.uniform(2, 8, b),
        zenith=hsv(r.uniform(0.52, 0.64, b), r.uniform(0.05, 0.8, b), r.uniform(0.5, 1, b)),
        horizon=hsv(r.uniform(0.05, 0.6, b), r.uniform(0, 0.25, b), r.uniform(0.7, 1, b)),
        cloud=r.integer(bank.noise, b),
    )


class Light:
    """A lamp in a world: its shadow map, and what it does to surfaces."""

    def __init__(self, lamp: Lamp, world: World) -> None:
        """Cast the shadow map of every frame."""
        self.lamp = lamp
        b, t = world.pose.shape[:2]
        forward = unit(lamp.target - lamp.position)
        right = unit(torch.linalg.cross(forward, forward.new_tensor((0.31, 0.95, 0.03)).expand(b, 3)))
        axes = torch.stack((right, torch.linalg.cross(forward, right), forward), -1)
        pose = torch.eye(4, device=forward.device).repeat(b, 1, 1)
        pose[:, :3, :3], pose[:, :3, 3] = axes, lamp.position
        # a lamp covers most of the room, the sun a patch of 15 m half width at 80 m
        focal = 0.28 + 2.4 * lamp.sun.float()
        self.view = View(
            pose[:, None].expand(b, t, 4, 4),
            focal[:, None].expand(b, 2),
            torch.full_like(axes[:, 0, :2], 0.5),
        )
        self.map = Caster(world, self.view).image(SHADOW_SIDE, SHADOW_SIDE)[0]

    def shadow(self, frame: Tensor, clip: Tensor, point: Vec) -> Tensor:
        """Share of light [N] that reaches world points in frames (flat over [B, T]) of clips [N]."""
        pose = self.view.world_from_camera[:, 0]
        rotation = pose[:, :3, :3].transpose(1, 2)
        table = torch.cat(
            (rotation.reshape(-1, 9), -(rotation @ pose[:, :3, 3:])[..., 0], self.view.focal), 1
        )
        m = take(table.T.contiguous(), clip)
        x, y, depth = (dot(m[3 * i : 3 * i + 3], point) + m[9 + i] for i in range(3))
        scale = SHADOW_SIDE / depth.clamp_min(0.05)
        half = SHADOW_SIDE / 2 - 0.5
        x, y = x * scale * m[12], y * scale * m[13]
        outside = (torch.maximum(x.abs(), y.abs()) > half - 1) | (depth < 0.05)
        x, y = (x + half).clamp(0, SHADOW_SIDE - 1.001), (y + half).clamp(0, SHADOW_SIDE - 1.001)
        x0, y0 = x.floor(), y.floor()
        fx, fy = x - x0, y - y0
        index = (frame * SHADOW_SIDE + y0.long()) * SHADOW_SIDE + x0.long()
        bias = 0.97 * depth - 0.02

        def lit(offset: int) -> Tensor:
            return (self.map.index_select(0, index + offset) > bias).float()

        upper, lower = torch.lerp(lit(0), lit(1), fx), torch.lerp(lit(SHADOW_SIDE), lit(SHADOW_SIDE + 1), fx)
        return torch.maximum(torch.lerp(upper, lower, fy), outside.float())

    def sky(self, clip: Tensor, direction: Vec, bank: TextureBank) -> Vec:
        """Colour of rays that meet nothing: gradient and clouds."""
        x, y, z = unit3(direction)
        height = z.clamp(0, 1).sqrt()
        m = take(torch.cat((self.lamp.horizon, self.lamp.zenith), 1).T.contiguous(), clip)
        spread = 0.3 / (z + 0.15).clamp_min(0.05)
        index = self.lamp.cloud.index_select(0, clip)
        cloud = ((bank.sample(index, x * spread, y * spread, 0.005 * spread)[0] - 0.5) * 2).clamp(0, 1)
        white = torch.ones_like(cloud)
        return tuple(torch.lerp(torch.lerp(m[i], m[3 + i], height), white, cloud) for i in range(3))

    def shade(
        self, clip: Tensor, frame: Tensor, point: Vec, normal: Vec, away: Vec, albedo: Vec, gloss: Tensor
    ) -> Vec:
        """Colour of points with unit normals that face the eye; `away` leads from the eye to the point."""
        lamp = self.lamp
        table = torch.cat(
            (lamp.position, lamp.reach[:, None], lamp.sun[:, None], lamp.strength, lamp.ambient), 1
        )
        m = take(table.T.contiguous(), clip)
        to_light = tuple(a - b for a, b in zip(m[:3], point, strict=True))
        distance2 = dot(to_light, to_light)
        inverse = distance2.rsqrt()
        to_light = tuple(a * inverse for a in to_light)
        toward = dot(normal, to_light).clamp_min(0)
        fade = torch.maximum(m[4], (1 + distance2 / (m[3] * m[3])).reciprocal())
        lit = toward * fade * self.shadow(frame, clip, point)
        sky = 0.75 + 0.25 * normal[2]
        eye = unit3(away)
        shine = dot(normal, unit3(tuple(a - b for a, b in zip(to_light, eye, strict=True)))).clamp_min(0)
        for _ in range(5):
            shine = shine * shine  # to the 32nd
        highlight = gloss * shine * lit.clamp_max(1)
        return tuple(
            a * (lit * m[5 + i] + sky * m[8 + i]) + highlight * m[5 + i] for i, a in enumerate(albedo)
        )
