"""Puts together worlds: rooms, corridors, tables and streets with furniture, clutter and things that move."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training import objects, shapes
from d4rt_ros.training.cameras import OUTDOOR, TABLE, Path
from d4rt_ros.training.placing import Parts, build, trajectory, without_blocked
from d4rt_ros.training.raycast import World
from d4rt_ros.training.rigid import Random, turn_z
from d4rt_ros.training.surroundings import WALL_ITEMS, Room, draw_room, surroundings


@dataclass(frozen=True)
class Layout:
    """A world with what painting it needs."""

    world: World
    half: Tensor  # [B, P, 3] metres, half sizes along the solids' own axes
    paint: Tensor  # [B, P] int64, parts of one paint share a material
    picture: Tensor  # [B, P] bool, posters and screens: one texture a face
    light: Tensor  # [B, 3] position of the main light
    sun: Tensor  # [B] bool, the light does not fall off


def _pick(r: Random, pool: tuple[objects.Template, ...], *shape: int) -> Tensor:
    return torch.tensor([objects.TEMPLATES.index(x) for x in pool])[r.integer(len(pool), *shape)]


def _positions(r: Random, path: Path, count: int, near: Tensor, far: Tensor) -> Tensor:
    """Ground positions [B, count, 2] in front of the camera at random times, log-uniform in distance."""
    b, t = path.yaw.shape
    frame = r.integer(t, b, count)
    yaw = path.yaw.gather(1, frame)
    start = path.position[..., :2].gather(1, frame[..., None].expand(b, count, 2))
    view = torch.atan(0.5 / path.focal[:, :1])
    bearing = yaw + view * 1.1 * r.uniform(-1, 1, b, count)
    distance = near[:, None] * (far / near)[:, None] ** r.uniform(0, 1, b, count)
    return start + distance[..., None] * torch.stack((bearing.cos(), bearing.sin()), -1)


def _objects(
    r: Random, path: Path, place: Tensor, room: Room, around: Parts, count: int,
    motion: float,
) -> tuple[Parts, Tensor, Tensor, Tensor]:  # fmt: skip
    """Furniture or street, and movers. Also the first one's place [B, 3], yaw [B], and if it is a table."""
    b = len(place)
    outdoor = (place == OUTDOOR)[:, None]
    template = torch.where(outdoor, _pick(r, objects.STREET, b, count), _pick(r, objects.FURNITURE, b, count))
    mover = r.chance(0.45, b, count)
    mover[:, 0] = False
    template = torch.where(mover, _pick(r, objects.MOVERS, b, count), template)
    vehicle = template == objects.TEMPLATES.index(objects.car)
    has_table = (place == TABLE) | ((place != OUTDOOR) & r.chance(0.5, b))
    template[:, 0] = torch.where(has_table, objects.TEMPLATES.index(objects.table), template[:, 0])
    template[:, count // 2 :] = torch.where(
        r.chance(0.35, b, count - count // 2), -1, template[:, count // 2 :]
    )
    near = torch.where(place == OUTDOOR, 3.0, 1.0)
    far = torch.where(place == OUTDOOR, 40.0, 7.0)
    xy = _positions(r, path, count, near, far)
    xy = torch.where(mover[..., None], _positions(r, path, count, near, 0.5 * far), xy)
    table_xy = _positions(r, path, 1, torch.full((b,), 0.7), torch.full((b,), 1.6))
    xy[:, :1] = torch.where((place == TABLE)[:, None, None], table_xy, xy[:, :1])
    margin = torch.where(r.chance(0.5, b, count), 0.3, 0.6)[..., None].expand(b, count, 2)
    inside = room.confine(xy, margin)
    xy = torch.where(outdoor[..., None] | mover[..., None], xy, inside)
    quarter = 0.5 * math.pi * r.integer(4, b, count) + 0.1 * r.normal(b, count)
    yaw = torch.where(mover, r.uniform(-math.pi, math.pi, b, count), room.heading()[:, None] + quarter)
    xy, yaw = _along_road(r, xy, yaw, room, around, template, vehicle, mover)
    speed = torch.where(vehicle, r.uniform(0, 12, b, count), 0.0)
    walking = mover & r.chance(0.7, b, count)
    speed = torch.where(walking, r.log_uniform(0.1, 2, b, count), speed * r.chance(0.5, b, count))
    flying = mover & ~walking & (template == objects.TEMPLATES.index(objects.solid))
    height = torch.where(flying, r.uniform(0.2, 1.5, b, count), 0.0)
    size = torch.where(mover, r.log_uniform(0.7, 1.4, b, count), r.uniform(0.85, 1.15, b, count))
    still = ~(mover | (vehicle & (speed > 0)) | r.chance(0.2, b, count))
    position = torch.cat((xy, height[..., None]), -1)
    base = trajectory(r, path.time * motion, position, yaw, size, speed, mover, flying)
    parts = build(r, template, base, path.time * motion, still, 3 + WALL_ITEMS)
    return parts, torch.cat((xy[:, 0], torch.zeros(b, 1)), -1), yaw[:, 0], has_table


def _along_road(
    r: Random, xy: Tensor, yaw: Tensor, room: Room, around: Parts, template: Tensor,
    vehicle: Tensor, mover: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Where there is a road: vehicles in its lanes, everything that stands beside it."""
    road = ((around.kind[:, 3] == shapes.BOX) & (around.kind[:, 0] == shapes.EMPTY))[:, None]
    local = room.inward(xy)
    middle = room.inward(around.pose[:, 0, 3:4, :2, 3])[..., 1]
    width = around.half[:, 3, None, 1]
    side = torch.where(r.chance(0.5, *yaw.shape), 1.0, -1.0)
    lane = middle + side * width * torch.where(r.chance(0.6, *yaw.shape), 0.5, 1.05)
    building = template == objects.TEMPLATES.index(objects.building)
    away = side * (width + torch.where(building, 9.0, 1.0) + local[..., 1].abs().clamp_max(8))
    across = torch.where(vehicle, lane, torch.where(mover, local[..., 1], middle + away))
    placed = room.outward(torch.stack((local[..., 0], across), -1))
    heading = room.heading()[:, None]
    straight = torch.where(vehicle, heading + 0.5 * math.pi * (1 - side), heading + yaw)
    return torch.where(road[..., None], placed, xy), torch.where(road, straight, yaw)


def _clutter(
    r: Random, path: Path, place: Tensor, room: Room, count: int, motion: float,
    top: Parts, table_place: Tensor, table_yaw: Tensor, has_table: Tensor, first_paint: int,
) -> Parts:  # fmt: skip
    """Small things on the table and on the floor; a few of those on the table are pushed about."""
    b = len(place)
    template = _pick(r, objects.CLUTTER, b, count)
    template = torch.where(r.chance(0.25, b, count), -1, template)
    share = torch.where(place == TABLE, 0.9, 0.5)[:, None]
    on_table = has_table[:, None] & (r.uniform(0, 1, b, count) < share)
    reach = top.half[:, :1, :2] * 0.9
    spot = r.uniform(-1, 1, b, count, 2) * reach
    spot = spot @ turn_z(table_yaw)[:, :2, :2].transpose(1, 2) + table_place[:, None, :2]
    outdoor = place == OUTDOOR
    near, far = torch.where(outdoor, 1.5, 0.7), torch.where(outdoor, 12.0, 5.0)
    floor = _positions(r, path, count, near, far)
    margin = torch.full((b, count, 2), 0.2)
    floor = torch.where(outdoor[:, None, None], floor, room.confine(floor, margin))
    level = top.pose[:, 0, 0, 2, 3] + top.half[:, 0, 2]
    xy = torch.where(on_table[..., None], spot, floor)
    z = torch.where(on_table, level[:, None], 0.0)
    size = torch.where(on_table, r.log_uniform(0.3, 0.9, b, count), r.log_uniform(0.6, 1.6, b, count))
    size = torch.where(outdoor[:, None], 1.6 * size, size)
    moves = r.chance(0.25, b, count)
    speed = moves * r.uniform(0, 0.5, b, count)
    position = torch.cat((xy, z[..., None]), -1)
    base = trajectory(
        r,
        path.time * motion,
        position,
        r.uniform(-3.14, 3.14, b, count),
        size,
        speed,
        moves,
        torch.zeros_like(moves),
    )
    return build(r, template, base, path.time * motion, ~moves, first_paint)


def compose(
    r: Random, path: Path, place: Tensor, object_count: int, clutter_count: int, motion: float
) -> Layout:
    """Draw a world a clip round its camera path.

    Args:
        r: randomness.
        path: cameras; nothing comes nearer to them than 0.3 m.
        place: [B] kind of place.
        object_count: most large objects a clip.
        clutter_count: most small ones.
        motion: factor on the speed of everything that moves.
    """
    room = draw_room(r, path, place)
    around = surroundings(r, path, place, room)
    large, table_place, table_yaw, has_table = _objects(r, path, place, room, around, object_count, motion)
    small = _clutter(
        r, path, place, room, clutter_count, motion, large, table_place, table_yaw, has_table,
        3 + WALL_ITEMS + 2 * object_count,
    )  # fmt: skip
    groups = (around, large, small)
    kind = torch.cat(
        (around.kind, without_blocked(large, path.position, 0.3), without_blocked(small, path.position, 0.3)),
        1,
    )
    used = kind != shapes.EMPTY
    used[:, :3] = True
    order = (~used).long().argsort(dim=1, stable=True)[:, : int(used.sum(1).max())]

    clips = torch.arange(len(order))[:, None]

    def gather(name: str) -> Tensor:
        return torch.cat([getattr(g, name) for g in groups], 1)[clips, order]

    def gather_moving(name: str) -> Tensor:
        return torch.cat([getattr(g, name) for g in groups], 2)[clips, :, order].transpose(1, 2)

    pose = gather_moving("pose")
    kind = kind.gather(1, order)
    eye = torch.eye(3, 4)
    pose = torch.where((kind == shapes.EMPTY)[:, None, :, None, None], eye, pose)
    light, sun = _light(r, path, place, room)
    world = World(kind, pose, gather("half_length"), gather_moving("wave"))
    return Layout(world, gather("half"), gather("paint"), gather("picture"), light, sun)


def _light(r: Random, path: Path, place: Tensor, room: Room) -> tuple[Tensor, Tensor]:
    """Position of the main light [B, 3] and whether it is the sun [B]."""
    b, t = path.yaw.shape
    middle = path.position[:, t // 2]
    ahead = torch.stack((path.yaw[:, t // 2].cos(), path.yaw[:, t // 2].sin(), torch.zeros(b)), -1)
    lamp = middle + r.uniform(0.0, 2.5, b, 1) * ahead + r.uniform(-1.2, 1.2, b, 3)
    margin = torch.full((b, 1, 2), 0.3)
    lamp = torch.cat((room.confine(lamp[:, None, :2], margin)[:, 0], lamp[:, 2:]), -1)
    lamp[:, 2] = 2 * room.half[:, 2] - r.uniform(0.05, 0.4, b)
    high = torch.deg2rad(r.uniform(20, 75, b))
    round_ = r.uniform(-math.pi, math.pi, b)
    to_sun = torch.stack((high.cos() * round_.cos(), high.cos() * round_.sin(), high.sin()), -1)
    sun = place == OUTDOOR
    return torch.where(sun[:, None], middle + 8 * ahead + 80 * to_sun, lamp), sun
