"""Colours of surfaces: textures on materials, one shadow-casting light, sky light, highlights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training.layout import Layout
from d4rt_ros.training.raycast import Caster, View
from d4rt_ros.training.rigid import Random, unit
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

    def flat(self) -> Materials:
        """The same with [B*P, ...]."""
        return Materials(*(x.flatten(0, 1) for x in self.__dict__.values()))

    def to(self, device: torch.device | str) -> Materials:
        """The same on another device."""
        return Materials(*(x.to(device) for x in self.__dict__.values()))


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
    saturation[:, :3] *= 0.5
    bright = hsv(hue, saturation, value)
    other = hsv((hue + r.normal(b, n) * 0.15) % 1, saturation * r.uniform(0.3, 1.3, b, n), value)
    dark = other * r.uniform(0.05, 0.9, b, n, 1)
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
        stain_strength=r.uniform(0, 0.6, *p),
        gloss=torch.where(r.chance(0.3, *p), r.uniform(0.1, 0.9, *p), 0.0),
    )


def surface_uv(local: Tensor, normal: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Texture coordinates in metres: the two axes across the normal's largest one, v down on upright faces."""
    metric = local * half
    size = (normal / half).abs()
    across_x = (size[:, 0] >= size[:, 1]) & (size[:, 0] >= size[:, 2])
    across_z = ~across_x & (size[:, 2] > size[:, 1])
    u = torch.where(across_x, metric[:, 1], metric[:, 0])
    v = torch.where(across_z, metric[:, 1], -metric[:, 2])
    return u, v


class Light:
    """The main light of every clip with its shadow map, and the light of the sky or the room."""

    def __init__(self, r: Random, layout: Layout, target: Tensor) -> None:
        """Aim each light at `target` [B, 3] and draw its colour and strength."""
        b = len(target)
        self.position, self.sun = layout.light, layout.sun
        self.strength = r.uniform(0.5, 1.3, b, 1) * (1 + 0.15 * r.normal(b, 3)).clamp(0.5, 1.5)
        self.ambient = r.uniform(0.15, 0.5, b, 1) * (1 + 0.1 * r.normal(b, 3)).clamp(0.6, 1.4)
        self.reach = r.uniform(2, 8, b)
        self.zenith = hsv(r.uniform(0.52, 0.64, b), r.uniform(0.05, 0.8, b), r.uniform(0.5, 1, b))
        self.horizon = hsv(r.uniform(0.05, 0.6, b), r.uniform(0, 0.25, b), r.uniform(0.7, 1, b))
        self.cloud = r.integer(1 << 20, b)
        forward = unit(target - self.position)
        right = unit(torch.linalg.cross(forward, torch.tensor((0.31, 0.95, 0.03)).expand(b, 3)))
        axes = torch.stack((right, torch.linalg.cross(forward, right), forward), -1)
        pose = torch.eye(4).repeat(b, 1, 1)
        pose[:, :3, :3], pose[:, :3, 3] = axes, self.position
        # half angle: a lamp covers most of the room, the sun a patch of 15 m half width at 80 m
        focal = torch.where(self.sun, 80 / 30.0, 0.5 / 1.8)
        frames = layout.world.pose.shape[1]
        self.view = View(
            pose[:, None].expand(b, frames, 4, 4), focal[:, None].expand(b, 2), torch.full((b, 2), 0.5)
        )
        self.caster = Caster(layout.world, self.view)
        self.map = self.caster.image(SHADOW_SIDE, SHADOW_SIDE)[0]
        self.frames = frames

    def shadow(self, frame: Tensor, clip: Tensor, point: Tensor) -> Tensor:
        """Share of light [N] that reaches world points [N, 3] in frames (flat over [B, T]) of clips [N]."""
        pose = self.view.world_from_camera[:, 0]
        local = ((point - pose[clip, :3, 3])[:, None] @ pose[clip, :3, :3])[:, 0]
        depth = local[:, 2]
        xy = local[:, :2] / depth.clamp_min(0.05)[:, None] * self.view.focal[clip] + 0.5
        lit_outside = ((xy < 0.02) | (xy > 0.98)).any(-1) | (depth < 0.05)
        at = xy.clamp(0, 1) * SHADOW_SIDE - 0.5
        x0, y0 = at.floor().unbind(-1)
        fx, fy = at[:, 0] - x0, at[:, 1] - y0
        bias = 0.97 * depth - 0.02
        total = torch.zeros_like(depth)
        for dx, wx in ((0, 1 - fx), (1, fx)):
            for dy, wy in ((0, 1 - fy), (1, fy)):
                column = (x0 + dx).clamp(0, SHADOW_SIDE - 1).long()
                row = (y0 + dy).clamp(0, SHADOW_SIDE - 1).long()
                seen = self.map[(frame * SHADOW_SIDE + row) * SHADOW_SIDE + column]
                total += wx * wy * (seen > bias).float()
        return torch.where(lit_outside, 1.0, total)

    def sky(self, clip: Tensor, direction: Tensor, bank: TextureBank) -> Tensor:
        """Colour [N, 3] of rays [N, 3] that meet nothing: gradient and clouds."""
        way = unit(direction)
        height = way[:, 2:].clamp(0, 1).sqrt()
        colour = self.horizon[clip] * (1 - height) + self.zenith[clip] * height
        spread = 0.15 / (way[:, 2] + 0.15).clamp_min(0.05)
        index = self.cloud[clip] % bank.noise
        cloud = bank.sample(index, way[:, 0] * spread * 2, way[:, 1] * spread * 2, 0.01 * spread)
        return torch.lerp(colour, torch.ones_like(colour), ((cloud - 0.5) * 2).clamp(0, 1))

    def shade(
        self, clip: Tensor, frame: Tensor, point: Tensor, normal: Tensor, eye: Tensor, albedo: Tensor, gloss: Tensor
    ) -> Tensor:
        """Colour [N, 3] of surface points with unit normals that face the eye [N, 3]."""
        to_light = self.position[clip] - point
        distance = to_light.norm(dim=-1)
        to_light = to_light / distance[:, None]
        toward = (normal * to_light).sum(-1).clamp_min(0)
        fade = torch.where(self.sun[clip], 1.0, 1 / (1 + (distance / self.reach[clip]) ** 2))
        lit = (toward * fade * self.shadow(frame, clip, point))[:, None] * self.strength[clip]
        sky = self.ambient[clip] * (0.75 + 0.25 * normal[:, 2:])
        middle = unit(to_light + unit(eye - point))
        shine = (normal * middle).sum(-1).clamp_min(0) ** 40
        highlight = (gloss * shine)[:, None] * (lit > 0) * self.strength[clip]
        return albedo * (lit + sky) + highlight
