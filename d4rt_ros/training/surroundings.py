"""What is round the camera: walls, floor and ceiling with things on them, or ground with a road."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training import objects, shapes
from d4rt_ros.training.cameras import CORRIDOR, OUTDOOR, Path
from d4rt_ros.training.placing import Parts
from d4rt_ros.training.rigid import Random, affine, turn_z

WALL_ITEMS = 8
_GROUND = 150.0  # metres, half side of the ground outdoors


@dataclass(frozen=True)
class Room:
    """Upright boxes that hold the camera paths of B clips; outdoors their x axis lies along the road."""

    axes: Tensor  # [B, 3, 3], columns are the room's axes in the world
    centre: Tensor  # [B, 3]
    half: Tensor  # [B, 3]

    def inward(self, xy: Tensor) -> Tensor:
        """Ground positions [B, S, 2] of the world in the room's axes, from its middle."""
        return (xy - self.centre[:, None, :2]) @ self.axes[:, :2, :2]

    def outward(self, local: Tensor) -> Tensor:
        """Inverse of `inward`."""
        return local @ self.axes[:, :2, :2].transpose(1, 2) + self.centre[:, None, :2]

    def confine(self, xy: Tensor, margin: Tensor) -> Tensor:
        """Move ground positions [B, S, 2] into the room, `margin` [B, S, 2] off the walls."""
        bound = (self.half[:, None, :2] - margin).clamp_min(0)
        return self.outward(torch.minimum(torch.maximum(self.inward(xy), -bound), bound))

    def heading(self) -> Tensor:
        """Direction of the x axis about z, [B] radians."""
        return torch.atan2(self.axes[:, 1, 0], self.axes[:, 0, 0])


def draw_room(r: Random, path: Path, place: Tensor) -> Room:
    """A room a clip that holds the whole camera path."""
    b = len(place)
    corridor = place == CORRIDOR
    heading = torch.where(
        corridor | (place == OUTDOOR), r.uniform(-0.25, 0.25, b), r.uniform(-math.pi, math.pi, b)
    )
    axes = turn_z(heading)
    inside = path.position @ axes
    low, high = inside.amin(1), inside.amax(1)
    margin_low, margin_high = r.log_uniform(0.8, 6, b, 3), r.log_uniform(0.8, 6, b, 3)
    narrow = torch.stack((r.uniform(0.4, 1.5, b), r.uniform(4, 15, b)))
    margin_low[:, 0] = torch.where(corridor, narrow[1] * 0.3, margin_low[:, 0])
    margin_high[:, 0] = torch.where(corridor, narrow[1], margin_high[:, 0])
    margin_low[:, 1] = torch.where(corridor, narrow[0], margin_low[:, 1])
    margin_high[:, 1] = torch.where(corridor, r.uniform(0.4, 1.5, b), margin_high[:, 1])
    low, high = low - margin_low, high + margin_high
    low[:, 2] = 0
    high[:, 2] = torch.maximum(r.uniform(2.2, 3.4, b), path.position[..., 2].amax(1) + 0.3)
    centre = (axes @ (0.5 * (low + high))[..., None])[..., 0]
    return Room(axes, centre, 0.5 * (high - low))


def surroundings(r: Random, path: Path, place: Tensor, room: Room) -> Parts:
    """Walls, floor, ceiling and things on the walls, in slots 0, 1, 2 and after; ground and road outdoors."""
    b, t = path.position.shape[:2]
    axes, centre, half = room.axes, room.centre, room.half
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
    wave[:, 2] = objects.ripples(b, r, 4.0, 0.0)[..., :4]
    _street(r, outdoor, half[:, 2], kind, offset, size)
    pose = affine(
        axes[:, None] * size[:, :, None], centre[:, None] + (axes[:, None] @ offset[..., None])[..., 0]
    )
    picture = torch.zeros(b, m, dtype=torch.bool)
    picture[:, 3:] = r.chance(0.7, b, WALL_ITEMS) & ~door
    return Parts(
        kind, pose[:, None].expand(b, t, m, 3, 4), size, torch.zeros(b, m),
        wave.view(b, 1, m, -1).expand(b, t, m, 4 * shapes.WAVES),
        torch.arange(m).expand(b, m), picture, torch.zeros(b, m, dtype=torch.bool),
    )  # fmt: skip


def _street(r: Random, outdoor: Tensor, level: Tensor, kind: Tensor, offset: Tensor, size: Tensor) -> None:
    """Rough ground in slot 2, or a road in slot 3 with marks on it after; `level` is the middle's height."""
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
