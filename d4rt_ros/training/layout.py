"""Puts together moving worlds: rooms, corridors, tables and streets with furniture, clutter and things that move."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training import objects, shapes
from d4rt_ros.training.cameras import CORRIDOR, OUTDOOR, TABLE, Path
from d4rt_ros.training.raycast import World, inverse3
from d4rt_ros.training.rigid import Random, affine, chain, move, turn, turn_z, unit

WALL_ITEMS = 8
_GROUND = 150.0  # metres, half side of the ground outdoors


@dataclass(frozen=True)
class Layout:
    """A world with what painting it needs."""

    world: World
    half: Tensor  # [B, P, 3] metres, half sizes along the solids' own axes
    paint: Tensor  # [B, P] int64, parts of one paint share a material
    picture: Tensor  # [B, P] bool, posters and screens: one texture a face
    light: Tensor  # [B, 3] position of the main light
    sun: Tensor  # [B] bool, the light does not fall off


@dataclass(frozen=True)
class _Parts:
    """Solids in frames of their own; M a clip."""

    kind: Tensor  # [B, M]
    pose: Tensor  # [B, T, M, 3, 4]
    half: Tensor  # [B, M, 3]
    half_length: Tensor  # [B, M]
    wave: Tensor  # [B, T, M, 12]
    paint: Tensor  # [B, M]
    picture: Tensor  # [B, M]
    solid: Tensor  # [B, M] bool, must not contain the camera


def _wave(amount: Tensor, rate: Tensor, phase: Tensor, time: Tensor) -> Tensor:
    """amount * sin(rate * time + phase), [B, S, T] from [B, S] and time [B, T]."""
    return amount[..., None] * torch.sin(rate[..., None] * time[:, None] + phase[..., None])


def _build(
    r: Random, template: Tensor, base: Tensor, time: Tensor, still: Tensor, first_paint: int
) -> _Parts:
    """Objects of templates [B, S] (-1: none) placed by base [B, S, T, 3, 4]; hinges stay at rest where `still`."""
    b, s = template.shape
    m = objects.PARTS
    blank = objects.Bodies(b * s)
    for index, make in enumerate(objects.TEMPLATES):
        rows = (template.reshape(-1) == index).nonzero()[:, 0]
        made = make(len(rows), r)
        for name in ("kind", "pose", "half", "half_length", "paint", "pivot", "axis", "angle", "wave"):
            getattr(blank, name)[rows] = getattr(made, name)
    swing, rate, phase, spin, rest = blank.angle.view(b, s, m, 2, 5).unbind(-1)
    seconds = torch.where(still[..., None], 0.0, time[:, None])[..., None, None]  # [B, S, T, 1, 1]

    def over(x: Tensor) -> Tensor:
        return x[:, :, None]

    angle = over(swing) * torch.sin(over(rate) * seconds + over(phase)) + over(spin) * seconds + over(rest)
    rotation = turn(unit(blank.axis.view(b, s, 1, m, 2, 3)).expand(b, s, time.shape[1], m, 2, 3), angle)
    pivot = blank.pivot.view(b, s, 1, m, 2, 3)
    hinge = affine(rotation, pivot - (rotation @ pivot[..., None])[..., 0])
    part = chain(hinge[..., 1, :, :], blank.pose.view(b, s, 1, m, 3, 4))
    pose = chain(base[:, :, :, None], chain(hinge[..., 0, :, :], part))
    scale = torch.linalg.vector_norm(base[:, :, 0, :, 0], dim=-1)  # uniform size of the object
    paint = first_paint + 2 * torch.arange(s)[:, None] + blank.paint.view(b, s, m)
    return _Parts(
        kind=blank.kind.view(b, s * m),
        pose=pose.transpose(1, 2).reshape(b, -1, s * m, 3, 4),
        half=(blank.half.view(b, s, m, 3) * scale[..., None, None]).view(b, s * m, 3),
        half_length=blank.half_length.view(b, s * m),
        wave=_waves(blank.wave.view(b, s, m, -1, 5), seconds[..., 0]).reshape(b, -1, s * m, 4 * shapes.WAVES),
        paint=paint.view(b, s * m),
        picture=torch.zeros(b, s * m, dtype=torch.bool),
        solid=torch.ones(b, s * m, dtype=torch.bool),
    )


def _waves(wave: Tensor, seconds: Tensor) -> Tensor:
    """[B, T, S, M, WAVES, 4] at times `seconds` [B, S, T, 1] of waves [B, S, M, WAVES, 5]."""
    phase = wave[:, :, None, ..., 3] + wave[:, :, None, ..., 4] * seconds[..., None]  # [B, S, T, M, WAVES]
    still = wave[:, :, None, ..., :3].expand(*phase.shape, 3)
    return torch.cat((still, phase[..., None]), -1).transpose(1, 2)


def _pick(r: Random, pool: tuple[objects.Template, ...], *shape: int) -> Tensor:
    return torch.tensor([objects.TEMPLATES.index(x) for x in pool])[r.integer(len(pool), *shape)]


def _shell(r: Random, path: Path, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room axes [B, 3, 3], centre [B, 3] and half size [B, 3] that hold the whole camera path."""
    b = len(place)
    corridor = place == CORRIDOR
    heading = torch.where(corridor | (place == OUTDOOR), r.uniform(-0.25, 0.25, b), r.uniform(-math.pi, math.pi, b))
    axes = turn_z(heading)
    inside = path.position @ axes
    low, high = inside.amin(1), inside.amax(1)
    margin_low, margin_high = r.log_uniform(0.6, 5, b, 3), r.log_uniform(0.6, 5, b, 3)
    narrow = torch.stack((r.uniform(0.4, 1.5, b), r.uniform(4, 15, b)))
    margin_low[:, 0] = torch.where(corridor, narrow[1] * 0.3, margin_low[:, 0])
    margin_high[:, 0] = torch.where(corridor, narrow[1], margin_high[:, 0])
    margin_low[:, 1] = torch.where(corridor, narrow[0], margin_low[:, 1])
    margin_high[:, 1] = torch.where(corridor, r.uniform(0.4, 1.5, b), margin_high[:, 1])
    low, high = low - margin_low, high + margin_high
    low[:, 2] = 0
    high[:, 2] = torch.maximum(r.uniform(2.2, 3.4, b), path.position[..., 2].amax(1) + 0.3)
    centre = (axes @ (0.5 * (low + high))[..., None])[..., 0]
    return axes, centre, 0.5 * (high - low)


def _surroundings(r: Random, path: Path, place: Tensor) -> tuple[_Parts, Tensor, Tensor, Tensor]:
    """Walls, floor, ceiling, things on the walls; ground outdoors. Also the shell's axes, centre, half size."""
    b, t = path.position.shape[:2]
    axes, centre, half = _shell(r, path, place)
    outdoor = place == OUTDOOR
    m = 3 + WALL_ITEMS
    offset = torch.zeros(b, m, 3)
    size = torch.ones(b, m, 3)
    kind = torch.full((b, m), shapes.BOX)
    # slots 0, 1, 2: walls, floor, ceiling; indoors one shell is all three and the other two only carry paint
    kind[:, 0] = shapes.SHELL
    kind[:, 1:3] = shapes.EMPTY
    kind[outdoor, 0], kind[outdoor, 1] = shapes.EMPTY, shapes.BOX
    size[:, :3] = half[:, None]
    size[outdoor, 1] = torch.tensor((_GROUND, _GROUND, 0.5))
    offset[outdoor, 1, 2] = -half[outdoor, 2] - 0.5
    # things on the walls: on wall `axis` and `side`, somewhere along it
    axis = r.integer(2, b, WALL_ITEMS)
    side = torch.where(r.chance(0.5, b, WALL_ITEMS), 1.0, -1.0)
    door = r.chance(0.25, b, WALL_ITEMS)
    width, height = r.uniform(0.15, 0.7, b, WALL_ITEMS), r.uniform(0.15, 0.6, b, WALL_ITEMS)
    width, height = torch.where(door, 0.45, width), torch.where(door, 1.0, height)
    thick = r.uniform(0.005, 0.06, b, WALL_ITEMS)
    along = r.uniform(-1, 1, b, WALL_ITEMS) * torch.where(axis == 0, half[:, None, 1], half[:, None, 0])
    to_wall = side * torch.where(axis == 0, half[:, None, 0], half[:, None, 1])
    level = torch.where(door, height - half[:, None, 2], r.uniform(-0.4, 0.7, b, WALL_ITEMS))
    across = axis == 0
    offset[:, 3:] = torch.stack(
        (torch.where(across, to_wall, along), torch.where(across, along, to_wall), level), -1
    )
    size[:, 3:] = torch.stack(
        (torch.where(across, thick, width), torch.where(across, width, thick), height), -1
    )
    kind[:, 3:] = torch.where(r.chance(0.25, b, WALL_ITEMS) | outdoor[:, None], shapes.EMPTY, kind[:, 3:])
    wave = torch.zeros(b, m, shapes.WAVES, 4)
    wave[:, 2] = objects.ripples(b, r, 6.0, 0.0)[..., :4]
    _street(r, outdoor, half[:, 2], kind, offset, size)
    pose = affine(
        axes[:, None] * size[:, :, None], centre[:, None] + (axes[:, None] @ offset[..., None])[..., 0]
    )
    picture = torch.zeros(b, m, dtype=torch.bool)
    picture[:, 3:] = r.chance(0.7, b, WALL_ITEMS) & ~door
    parts = _Parts(
        kind, pose[:, None].expand(b, t, m, 3, 4), size, torch.zeros(b, m),
        wave.view(b, 1, m, -1).expand(b, t, m, 4 * shapes.WAVES),
        torch.arange(m).expand(b, m), picture, torch.zeros(b, m, dtype=torch.bool),
    )  # fmt: skip
    return parts, axes, centre, half


def _street(r: Random, outdoor: Tensor, level: Tensor, kind: Tensor, offset: Tensor, size: Tensor) -> None:
    """Rough ground in slot 2, or a road in slot 3 with marks on it in the slots after; places `level` above ground."""
    b = len(outdoor)
    rough = outdoor & r.chance(0.35, b)
    road = outdoor & ~rough & r.chance(0.7, b)
    kind[rough, 2] = shapes.SHEET
    size[:, 2] = torch.where(
        rough[:, None], torch.stack((*r.uniform(15, 30, 2, b), r.uniform(0.03, 0.14, b)), -1), size[:, 2]
    )
    offset[:, 2, 2] = -level
    offset[rough, 1, 2] -= 0.3
    kind[road, 3 : 3 + WALL_ITEMS] = shapes.BOX
    width, dash = r.uniform(2, 6, b), r.uniform(0.5, 2, b)
    size[road, 3] = torch.stack((torch.full((b,), 90.0), width, torch.full((b,), 0.01)), -1)[road]
    offset[road, 3] = torch.stack((torch.zeros(b), width * r.uniform(-0.6, 0.6, b), 0.005 - level), -1)[road]
    marks = WALL_ITEMS - 1
    along = (torch.arange(marks) - 1.0) * 3.5 * dash[:, None] + r.uniform(-2, 2, b, 1)
    thick = torch.stack((dash, torch.full((b,), 0.07), torch.full((b,), 0.01)), -1)
    size[road, 4:] = thick[:, None].expand(b, marks, 3)[road]
    middle = offset[:, 3, None, 1:].expand(b, marks, 2) + torch.tensor((0.0, 0.008))
    offset[road, 4:] = torch.cat((along[..., None], middle), -1)[road]


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


def _confine(xy: Tensor, axes: Tensor, centre: Tensor, half: Tensor, margin: Tensor) -> Tensor:
    """Move ground positions [B, S, 2] into the room, `margin` [B, S, 2] off the walls."""
    local = (xy - centre[:, None, :2]) @ axes[:, :2, :2]
    bound = (half[:, None, :2] - margin).clamp_min(0)
    local = torch.minimum(torch.maximum(local, -bound), bound)
    return local @ axes[:, :2, :2].transpose(1, 2) + centre[:, None, :2]


def _objects(
    r: Random, path: Path, place: Tensor, room: tuple[Tensor, Tensor, Tensor], around: _Parts, count: int,
    motion: float,
) -> tuple[_Parts, Tensor, Tensor, Tensor]:  # fmt: skip
    """Furniture or street, and movers. Also the first object's place [B, 3], yaw [B] and whether it is a table."""
    axes, centre, half = room
    b = len(place)
    outdoor = (place == OUTDOOR)[:, None]
    template = torch.where(outdoor, _pick(r, objects.STREET, b, count), _pick(r, objects.FURNITURE, b, count))
    mover = r.chance(0.35, b, count)
    mover[:, 0] = False
    template = torch.where(mover, _pick(r, objects.MOVERS, b, count), template)
    vehicle = template == objects.TEMPLATES.index(objects.car)
    has_table = (place == TABLE) | ((place != OUTDOOR) & r.chance(0.5, b))
    template[:, 0] = torch.where(has_table, objects.TEMPLATES.index(objects.table), template[:, 0])
    template[:, count // 2 :] = torch.where(
        r.chance(0.35, b, count - count // 2), -1, template[:, count // 2 :]
    )
    near = torch.where(place == OUTDOOR, 3.0, 0.8)
    far = torch.where(place == OUTDOOR, 40.0, 7.0)
    xy = _positions(r, path, count, near, far)
    table_xy = _positions(r, path, 1, torch.full((b,), 0.7), torch.full((b,), 1.6))
    xy[:, :1] = torch.where((place == TABLE)[:, None, None], table_xy, xy[:, :1])
    margin = torch.where(r.chance(0.5, b, count), 0.3, 0.6)[..., None].expand(b, count, 2)
    inside = _confine(xy, axes, centre, half, margin)
    xy = torch.where(outdoor[..., None] | mover[..., None], xy, inside)
    quarter = 0.5 * math.pi * r.integer(4, b, count) + 0.1 * r.normal(b, count)
    room_yaw = torch.atan2(axes[:, 1, 0], axes[:, 0, 0])[:, None]
    yaw = torch.where(mover, r.uniform(-math.pi, math.pi, b, count), room_yaw + quarter)
    xy, yaw = _along_road(r, xy, yaw, room, around, template, vehicle, mover)
    speed = torch.where(vehicle, r.uniform(0, 12, b, count), 0.0)
    walking = mover & r.chance(0.7, b, count)
    speed = torch.where(walking, r.log_uniform(0.1, 2, b, count), speed * r.chance(0.5, b, count))
    flying = mover & ~walking & (template == objects.TEMPLATES.index(objects.solid))
    height = torch.where(flying, r.uniform(0.2, 1.5, b, count), 0.0)
    size = torch.where(mover, r.log_uniform(0.7, 1.4, b, count), r.uniform(0.85, 1.15, b, count))
    still = ~(mover | (vehicle & (speed > 0)) | r.chance(0.2, b, count))
    position = torch.cat((xy, height[..., None]), -1)
    base = _trajectory(r, path.time * motion, position, yaw, size, speed, mover, flying)
    parts = _build(r, template, base, path.time * motion, still, 3 + WALL_ITEMS)
    return parts, torch.cat((xy[:, 0], torch.zeros(b, 1)), -1), yaw[:, 0], has_table


def _along_road(
    r: Random, xy: Tensor, yaw: Tensor, room: tuple[Tensor, Tensor, Tensor], around: _Parts, template: Tensor,
    vehicle: Tensor, mover: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Where there is a road: vehicles in its lanes, everything that stands beside it."""
    axes, centre, _ = room
    road = ((around.kind[:, 3] == shapes.BOX) & (around.kind[:, 0] == shapes.EMPTY))[:, None]
    local = (xy - centre[:, None, :2]) @ axes[:, :2, :2]
    middle = ((around.pose[:, 0, 3, :2, 3] - centre[:, :2])[:, None] @ axes[:, :2, :2])[..., 1]
    width = around.half[:, 3, None, 1]
    side = torch.where(r.chance(0.5, *yaw.shape), 1.0, -1.0)
    lane = middle + side * width * torch.where(r.chance(0.6, *yaw.shape), 0.5, 1.05)
    building = template == objects.TEMPLATES.index(objects.building)
    away = side * (width + torch.where(building, 9.0, 1.0) + local[..., 1].abs().clamp_max(8))
    across = torch.where(vehicle, lane, torch.where(mover, local[..., 1], middle + away))
    placed = torch.stack((local[..., 0], across), -1) @ axes[:, :2, :2].transpose(1, 2) + centre[:, None, :2]
    heading = torch.atan2(axes[:, 1, 0], axes[:, 0, 0])[:, None]
    straight = torch.where(vehicle, heading + 0.5 * math.pi * (1 - side), heading + yaw)
    return torch.where(road[..., None], placed, xy), torch.where(road, straight, yaw)


def _trajectory(
    r: Random,
    time: Tensor,
    place: Tensor,
    yaw: Tensor,
    size: Tensor,
    speed: Tensor,
    moves: Tensor,
    flying: Tensor,
) -> Tensor:
    """Object-to-world over time, [B, S, T, 3, 4]: straight or curved walks, turning, tumbling, soft stretching."""
    b, s = yaw.shape
    moved = moves.float()
    turning = moved * r.uniform(-1.2, 1.2, b, s) * r.chance(0.6, b, s)
    heading = yaw[..., None] + turning[..., None] * time[:, None]
    half = 0.5 * turning[..., None] * time[:, None]
    chord = speed[..., None] * time[:, None] * torch.sinc(half / math.pi)
    bearing = yaw[..., None] + half
    bob = _wave(
        moved * r.uniform(0, 0.25, b, s) * (flying | r.chance(0.2, b, s)),
        r.uniform(1, 6, b, s),
        r.uniform(0, 6, b, s),
        time,
    )
    offset = torch.stack((chord * bearing.cos(), chord * bearing.sin(), bob.abs()), -1) + place[:, :, None]
    tumble = turn(
        unit(r.normal(b, s, 1, 3)).expand(b, s, time.shape[1], 3),
        (flying * r.uniform(-3, 3, b, s))[..., None] * time[:, None],
    )
    soft = moved * r.uniform(0, 0.35, b, s) * r.chance(0.35, b, s)
    stretch = 1 + _wave(soft, r.uniform(1, 7, b, s), r.uniform(0, 6, b, s), time)
    scale = torch.stack((stretch.rsqrt(), stretch.rsqrt(), stretch), -1) * size[..., None, None]
    return affine((turn_z(heading) @ tumble) * scale[..., None, :], offset)


def _clutter(
    r: Random, path: Path, place: Tensor, room: tuple[Tensor, Tensor, Tensor], count: int, motion: float,
    top: _Parts, table_place: Tensor, table_yaw: Tensor, has_table: Tensor, first_paint: int,
) -> _Parts:  # fmt: skip
    """Small things on the table and on the floor; a few of those on the table are pushed about."""
    axes, centre, half = room
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
    floor = torch.where(outdoor[:, None, None], floor, _confine(floor, axes, centre, half, margin))
    level = top.pose[:, 0, 0, 2, 3] + top.half[:, 0, 2]
    xy = torch.where(on_table[..., None], spot, floor)
    z = torch.where(on_table, level[:, None], 0.0)
    size = torch.where(on_table, r.log_uniform(0.3, 0.9, b, count), r.log_uniform(0.6, 1.6, b, count))
    size = torch.where(outdoor[:, None], 1.6 * size, size)
    moves = r.chance(0.15, b, count)
    speed = moves * r.uniform(0, 0.5, b, count)
    position = torch.cat((xy, z[..., None]), -1)
    base = _trajectory(
        r,
        path.time * motion,
        position,
        r.uniform(-3.14, 3.14, b, count),
        size,
        speed,
        moves,
        torch.zeros_like(moves),
    )
    return _build(r, template, base, path.time * motion, ~moves, first_paint)


def _clear(parts: _Parts, eyes: Tensor, margin: float) -> Tensor:
    """Kinds [B, M] without the objects (groups of PARTS) that come within `margin` metres of a camera [B, T, 3]."""
    inverse = inverse3(parts.pose[..., :3])
    local = (inverse @ (eyes[:, :, None] - parts.pose[..., 3])[..., None])[..., 0].abs()
    reach = torch.ones_like(parts.half)
    reach[..., 2] += parts.half_length
    gap = ((local - reach[:, None]) * parts.half[:, None]).amax(-1)
    hit = (gap < margin).any(1) & parts.solid & (parts.kind != shapes.EMPTY)
    b = len(hit)
    blocked = hit.view(b, -1, objects.PARTS).any(-1, keepdim=True).expand(b, -1, objects.PARTS).reshape(b, -1)
    return torch.where(blocked, shapes.EMPTY, parts.kind)


def compose(
    r: Random, path: Path, place: Tensor, object_count: int, clutter_count: int, motion: float
) -> Layout:
    """Draw a world a clip round its camera path.

    Args:
        r: randomness.
        path: cameras; nothing comes nearer to them than 0.2 m.
        place: [B] kind of place.
        object_count: most large objects a clip.
        clutter_count: most small ones.
        motion: factor on the speed of everything that moves.
    """
    around, *room = _surroundings(r, path, place)
    shell = (room[0], room[1], room[2])
    large, table_place, table_yaw, has_table = _objects(r, path, place, shell, around, object_count, motion)
    small = _clutter(
        r, path, place, shell, clutter_count, motion, large, table_place, table_yaw, has_table,
        3 + WALL_ITEMS + 2 * object_count,
    )  # fmt: skip
    groups = (around, large, small)
    kind = torch.cat((around.kind, _clear(large, path.position, 0.2), _clear(small, path.position, 0.2)), 1)
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
    light, sun = _light(r, path, place, shell)
    world = World(kind, pose, gather("half_length"), gather_moving("wave"))
    return Layout(world, gather("half"), gather("paint"), gather("picture"), light, sun)


def _light(
    r: Random, path: Path, place: Tensor, room: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Position of the main light [B, 3] and whether it is the sun [B]."""
    b, t = path.yaw.shape
    middle = path.position[:, t // 2]
    ahead = torch.stack((path.yaw[:, t // 2].cos(), path.yaw[:, t // 2].sin(), torch.zeros(b)), -1)
    lamp = middle + r.uniform(0.0, 2.5, b, 1) * ahead + r.uniform(-1.2, 1.2, b, 3)
    margin = torch.full((b, 1, 2), 0.3)
    lamp = torch.cat((_confine(lamp[:, None, :2], *room, margin)[:, 0], lamp[:, 2:]), -1)
    lamp[:, 2] = 2 * room[2][:, 2] - r.uniform(0.05, 0.4, b)
    high = torch.deg2rad(r.uniform(20, 75, b))
    round_ = r.uniform(-math.pi, math.pi, b)
    to_sun = torch.stack((high.cos() * round_.cos(), high.cos() * round_.sin(), high.sin()), -1)
    sun = place == OUTDOOR
    return torch.where(sun[:, None], middle + 8 * ahead + 80 * to_sun, lamp), sun


def world_points(world: World, clip: Tensor, frame: Tensor, slot: Tensor, local: Tensor) -> Tensor:
    """World positions [N, 3] at frames [N] of points fixed to primitives: local coordinates [N, 3]."""
    return move(world.pose[clip, frame, slot], local)
