"""Things made of solids: furniture, people, vehicles, plants, machines, clutter; several of a kind at once.

An object stands on z = 0 of its own frame, x forward, and has at most PARTS solids. A part hangs on up to two
hinges (first the outer, then its own), so limbs, doors, arms and wheels move exactly as rigid chains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from d4rt_ros.training import shapes
from d4rt_ros.training.rigid import Random, turn_z

PARTS = 6
_AXES = {
    "x": torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "y": torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "z": torch.eye(3),
    "flag": torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),  # the sheet's y up
}
Number = float | Tensor


@dataclass
class Hinge:
    """A joint that swings: angle(time) = rest + swing * sin(rate * time + phase) + spin * time."""

    pivot: tuple[Number, Number, Number]
    axis: tuple[float, float, float]
    swing: Number = 0.0  # radians
    rate: Number = 0.0  # radians a second
    phase: Number = 0.0
    spin: Number = 0.0  # radians a second
    rest: Number = 0.0


class Bodies:
    """n objects of one kind under construction; numbers are floats or [n]."""

    def __init__(self, n: int) -> None:
        """Start with no parts."""
        self.n = n
        self.kind = torch.zeros(n, PARTS, dtype=torch.int64)
        self.pose = torch.eye(3, 4).expand(n, PARTS, 3, 4).clone()
        self.half = torch.ones(n, PARTS, 3)  # half size along the solid's axes, metres
        self.half_length = torch.zeros(n, PARTS)
        self.paint = torch.zeros(n, PARTS, dtype=torch.int64)
        self.pivot = torch.zeros(n, PARTS, 2, 3)
        self.axis = torch.tensor([0.0, 0, 1]).expand(n, PARTS, 2, 3).clone()
        self.angle = torch.zeros(n, PARTS, 2, 5)  # swing, rate, phase, spin, rest
        self.wave = torch.zeros(n, PARTS, shapes.WAVES, 5)  # a, p, q, f at time 0, f a second
        self.count = 0

    def row(self, *values: Number) -> Tensor:
        """[n, len(values)] of floats and tensors."""
        if not any(isinstance(v, Tensor) for v in values):
            return torch.tensor(values, dtype=torch.float32).expand(self.n, len(values))
        return torch.stack([v if isinstance(v, Tensor) else torch.full((self.n,), v) for v in values], -1)

    def add(
        self,
        kind: int,
        centre: tuple[Number, Number, Number],
        half: tuple[Number, Number, Number],
        along: str = "z",
        yaw: Tensor | None = None,
        paint: int = 0,
        core: Number = 0.0,
        hinges: tuple[Hinge, ...] = (),
        there: Tensor | None = None,
    ) -> None:
        """Add a solid: half sizes along its own axes, its z axis along x, y or z.

        `core` is half the length of a capsule's core; `there` [n] leaves the part out of some objects.
        """
        i = self.count
        self.count += 1
        size = self.row(*half)
        rotation = turn_z(yaw) @ _AXES[along] if isinstance(yaw, Tensor) else _AXES[along]
        self.kind[:, i] = kind if there is None else torch.where(there, kind, shapes.EMPTY)
        self.pose[:, i, :, :3] = rotation * size[:, None]
        self.pose[:, i, :, 3] = self.row(*centre)
        self.half_length[:, i] = core / size[:, 2]
        self.half[:, i] = size
        self.paint[:, i] = paint
        for j, hinge in enumerate(hinges):
            self.pivot[:, i, j] = self.row(*hinge.pivot)
            self.axis[:, i, j] = self.row(*hinge.axis)
            self.angle[:, i, j] = self.row(hinge.swing, hinge.rate, hinge.phase, hinge.spin, hinge.rest)


def ripples(n: int, r: Random, periods: float, speed: float) -> Tensor:
    """Waves [n, WAVES, 5] of sheets: amplitudes that sum to less than 1, up to `periods` over the sides."""
    share = r.uniform(0.2, 1, n, shapes.WAVES)
    share = 0.95 * share / share.sum(1, keepdim=True)
    count = math.pi * periods * r.uniform(-1, 1, n, shapes.WAVES, 2)
    phase, rate = r.uniform(0, 2 * math.pi, n, shapes.WAVES, 1), r.uniform(-speed, speed, n, shapes.WAVES, 1)
    return torch.cat((share[..., None], count, phase, rate), -1)


def _legs(body: Bodies, x: Tensor, y: Tensor, height: Tensor, thick: Tensor, kind: int) -> None:
    for sx in (-1, 1):
        for sy in (-1, 1):
            body.add(
                kind, (sx * (x - thick), sy * (y - thick), height / 2), (thick, thick, height / 2), paint=1
            )


def table(n: int, r: Random) -> Bodies:
    """A top on four legs; part 0 is the top."""
    body = Bodies(n)
    x, y, height = r.uniform(0.25, 0.6, n), r.uniform(0.35, 1.0, n), r.uniform(0.4, 0.85, n)
    body.add(shapes.BOX, (0.0, 0.0, height - 0.02), (x, y, 0.02))
    _legs(body, x, y, height - 0.04, r.uniform(0.015, 0.04, n), shapes.BOX)
    return body


def chair(n: int, r: Random) -> Bodies:
    """Seat, back and four legs."""
    body = Bodies(n)
    x, y, height = r.uniform(0.18, 0.25, n), r.uniform(0.18, 0.25, n), r.uniform(0.4, 0.5, n)
    back = r.uniform(0.18, 0.35, n)
    body.add(shapes.BOX, (0.0, 0.0, height), (x, y, 0.03))
    body.add(shapes.BOX, (-x, 0.0, height + back), (0.02, y, back), paint=0)
    _legs(body, x, y, height, r.uniform(0.012, 0.025, n), shapes.CYLINDER)
    return body


def cabinet(n: int, r: Random) -> Bodies:
    """A box with a door that may swing, two drawers with knobs."""
    body = Bodies(n)
    x, y, z = r.uniform(0.2, 0.35, n), r.uniform(0.3, 0.8, n), r.uniform(0.35, 1.0, n)
    hinge = Hinge(
        (x, y, 0.0), (0.0, 0, 1), r.uniform(0.0, 0.5, n), r.uniform(0.5, 2, n), r.uniform(0, 6, n), rest=0.5
    )
    body.add(shapes.BOX, (0.0, 0.0, z), (x, y, z))
    body.add(
        shapes.BOX, (x + 0.015, y / 2, 0.9 * z), (0.012, y / 2 - 0.01, 0.8 * z), paint=1, hinges=(hinge,)
    )
    body.add(shapes.BOX, (x + 0.01, -y / 2, 0.5 * z), (0.012, y / 2 - 0.02, 0.4 * z), paint=1)
    body.add(shapes.BOX, (x + 0.01, -y / 2, 1.4 * z), (0.012, y / 2 - 0.02, 0.4 * z), paint=1)
    for height in (0.5, 1.4):
        body.add(shapes.ELLIPSOID, (x + 0.03, -y / 2, height * z), (0.02, 0.02, 0.02))
    return body


def shelf(n: int, r: Random) -> Bodies:
    """Two sides and four boards."""
    body = Bodies(n)
    x, y, z = r.uniform(0.12, 0.25, n), r.uniform(0.3, 0.7, n), r.uniform(0.4, 1.0, n)
    for side in (-1, 1):
        body.add(shapes.BOX, (0.0, side * y, z), (x, 0.015, z))
    for i in range(4):
        body.add(shapes.BOX, (0.0, 0.0, (0.1 + i * 0.62) * z), (x, y - 0.015, 0.015), paint=1)
    return body


def person(n: int, r: Random) -> Bodies:
    """Torso, head, two legs and two arms that swing."""
    body = Bodies(n)
    s, rate, phase = r.uniform(0.6, 1.1, n), r.uniform(3, 7, n), r.uniform(0, 6.28, n)
    body.add(shapes.CAPSULE, (0.0, 0.0, 1.15 * s), (0.13 * s, 0.19 * s, 0.16 * s), core=0.2 * s)
    body.add(shapes.ELLIPSOID, (0.02 * s, 0.0, 1.62 * s), (0.1 * s, 0.08 * s, 0.13 * s), paint=1)
    swing = r.uniform(0.1, 0.6, n)
    for side in (-1, 1):
        hip = Hinge((0.0, 0.1 * side * s, 0.88 * s), (0.0, 1, 0), swing * side, rate, phase)
        body.add(
            shapes.CAPSULE,
            (0.0, 0.1 * side * s, 0.46 * s),
            (0.08 * s,) * 3,
            core=0.38 * s,
            paint=1,
            hinges=(hip,),
        )
    for side in (-1, 1):
        shoulder = Hinge((0.0, 0.24 * side * s, 1.38 * s), (0.0, 1, 0), -1.3 * swing * side, rate, phase)
        body.add(
            shapes.CAPSULE,
            (0.0, 0.24 * side * s, 1.1 * s),
            (0.05 * s,) * 3,
            core=0.28 * s,
            hinges=(shoulder,),
        )
    return body


def plant(n: int, r: Random) -> Bodies:
    """A pot, a stem and crowns; also a lamp."""
    body = Bodies(n)
    s = r.uniform(0.4, 1.2, n)
    body.add(shapes.CYLINDER, (0.0, 0.0, 0.12 * s), (0.12 * s, 0.12 * s, 0.12 * s), paint=1)
    body.add(shapes.CYLINDER, (0.0, 0.0, 0.55 * s), (0.02 * s, 0.02 * s, 0.4 * s), paint=1)
    for _ in range(4):
        x, y, z = r.uniform(-0.16, 0.16, n), r.uniform(-0.16, 0.16, n), r.uniform(0.7, 1.2, n)
        a, b, c = (r.uniform(0.1, 0.25, n) * s for _ in range(3))
        body.add(shapes.ELLIPSOID, (x * s, y * s, z * s), (a, b, c), there=r.chance(0.75, n))
    return body


def tree(n: int, r: Random) -> Bodies:
    """A trunk and crowns, several metres high."""
    body = plant(n, r)
    scale = r.uniform(4, 9, n)[:, None, None, None]
    body.pose[..., :3] *= scale
    body.pose[..., 3] *= scale[..., 0]
    body.half *= scale[..., 0]
    return body


def stack(n: int, r: Random) -> Bodies:
    """Boxes on top of one another."""
    body = Bodies(n)
    level = torch.zeros(n)
    for i in range(4):
        a, b, c = (r.uniform(0.08, 0.3, n) for _ in range(3))
        there = r.chance(1.0 if i < 1 else 0.6, n)
        where = (r.uniform(-0.08, 0.08, n), r.uniform(-0.08, 0.08, n), level + c)
        body.add(shapes.BOX, where, (a, b, c), yaw=r.uniform(0, 3, n), paint=i % 2, there=there)
        level = torch.where(there, level + 2 * c, level)
    return body


def car(n: int, r: Random) -> Bodies:
    """Body, cabin and four wheels that turn; also vans and lorries by its sizes."""
    body = Bodies(n)
    x, y, z = r.uniform(1.6, 3.0, n), r.uniform(0.75, 1.1, n), r.uniform(0.3, 0.5, n)
    wheel, cabin = r.uniform(0.28, 0.4, n), r.uniform(0.25, 0.9, n)
    body.add(shapes.BOX, (0.0, 0.0, 0.25 + z), (x, y, z))
    body.add(shapes.BOX, (-0.15 * x, 0.0, 0.25 + 2 * z + cabin), (0.6 * x, 0.9 * y, cabin), paint=1)
    spin = r.uniform(0, 20, n)
    for sx in (-1, 1):
        for sy in (-1, 1):
            axle = (0.62 * sx * x, sy * y, wheel)
            hinge = Hinge(axle, (0.0, 1, 0), spin=spin)
            body.add(shapes.CYLINDER, axle, (wheel, wheel, 0.12), along="y", paint=1, hinges=(hinge,))
    return body


def building(n: int, r: Random) -> Bodies:
    """A block, a wing, a roof edge and a tank or chimney."""
    body = Bodies(n)
    x, y, z = r.uniform(2, 7, n), r.uniform(2, 7, n), r.uniform(1.5, 6, n)
    body.add(shapes.BOX, (0.0, 0.0, z), (x, y, z))
    body.add(shapes.BOX, (0.3 * x, y, 0.6 * z), (0.6 * x, 0.7 * y, 0.6 * z), paint=1, there=r.chance(0.6, n))
    body.add(shapes.BOX, (0.0, 0.0, 2 * z + 0.1), (x + 0.2, y + 0.2, 0.15), paint=1)
    body.add(shapes.CYLINDER, (0.4 * x, 0.3 * y, 2 * z + 0.7), (0.5, 0.5, 0.7), there=r.chance(0.4, n))
    return body


def solid(n: int, r: Random) -> Bodies:
    """One plain solid: a box, a ball, a tin, a pill."""
    body = Bodies(n)
    a, b, c = (r.log_uniform(0.06, 0.35, n) for _ in range(3))
    kind = torch.tensor([shapes.BOX, shapes.ELLIPSOID, shapes.CYLINDER, shapes.CAPSULE])[r.integer(4, n)]
    core = torch.where(kind == shapes.CAPSULE, r.uniform(0.5, 1.5, n) * c, 0.0)
    body.add(shapes.BOX, (0.0, 0.0, c + core), (a, b, c), yaw=r.uniform(0, 3, n), core=core)
    body.kind[:, 0] = kind
    return body


def creature(n: int, r: Random) -> Bodies:
    """A chain of soft blobs with a wagging tail and neck."""
    body = Bodies(n)
    s, rate, phase = r.uniform(0.12, 0.4, n), r.uniform(2, 8, n), r.uniform(0, 6, n)
    neck = Hinge((s, 0.0, 0.9 * s), (0.0, 0.6, 0.8), r.uniform(0.1, 0.7, n), rate, phase)
    tail = Hinge((-s, 0.0, 0.9 * s), (0.0, 0, 1), r.uniform(0.1, 0.9, n), rate, phase + 1)
    body.add(shapes.ELLIPSOID, (0.0, 0.0, 0.8 * s), (1.2 * s, 0.6 * s, 0.6 * s))
    body.add(shapes.ELLIPSOID, (1.5 * s, 0.0, 1.3 * s), (0.45 * s, 0.4 * s, 0.4 * s), paint=1, hinges=(neck,))
    tip = (-1.6 * s, 0.0, 0.9 * s)
    body.add(shapes.CAPSULE, tip, (0.12 * s,) * 3, along="x", core=0.5 * s, paint=1, hinges=(tail,))
    return body


def arm(n: int, r: Random) -> Bodies:
    """A robot arm: base, two links on hinges, a gripper."""
    body = Bodies(n)
    s = r.uniform(0.25, 0.7, n)
    first = Hinge(
        (0.0, 0.0, 0.3 * s), (0.0, 1, 0), r.uniform(0.1, 0.6, n), r.uniform(0.5, 3, n), r.uniform(0, 6, n)
    )
    elbow = (0.0, 0.0, 1.3 * s)
    second = Hinge(
        elbow,
        (0.0, 1, 0),
        r.uniform(0.2, 1, n),
        r.uniform(0.5, 3, n),
        r.uniform(0, 6, n),
        rest=r.uniform(0.5, 2, n),
    )
    body.add(shapes.CYLINDER, (0.0, 0.0, 0.15 * s), (0.25 * s, 0.25 * s, 0.15 * s), paint=1)
    body.add(shapes.CAPSULE, (0.0, 0.0, 0.8 * s), (0.12 * s,) * 3, core=0.5 * s, hinges=(first,))
    body.add(
        shapes.CAPSULE, (0.0, 0.0, 1.75 * s), (0.09 * s,) * 3, core=0.45 * s, paint=1, hinges=(first, second)
    )
    body.add(shapes.BOX, (0.0, 0.0, 2.3 * s), (0.12 * s, 0.06 * s, 0.08 * s), hinges=(first, second))
    return body


def monitor(n: int, r: Random) -> Bodies:
    """A screen on a stand, a keyboard before it."""
    body = Bodies(n)
    y, z = r.uniform(0.2, 0.4, n), r.uniform(0.12, 0.22, n)
    body.add(shapes.BOX, (0.0, 0.0, z + 0.12), (0.015, y, z))
    body.add(shapes.CYLINDER, (-0.02, 0.0, 0.07), (0.02, 0.02, 0.07), paint=1)
    body.add(shapes.CYLINDER, (0.0, 0.0, 0.01), (0.1, 0.1, 0.01), paint=1)
    body.add(shapes.BOX, (0.25, 0.0, 0.012), (0.07, 0.2, 0.012), paint=1)
    return body


def flag(n: int, r: Random) -> Bodies:
    """A cloth that waves on a pole."""
    body = Bodies(n)
    height, wide, high = r.uniform(1.2, 2.2, n), r.uniform(0.25, 0.6, n), r.uniform(0.2, 0.45, n)
    body.add(shapes.CYLINDER, (0.0, 0.0, height / 2), (0.02, 0.02, height / 2), paint=1)
    sheet = (0.02 + wide, 0.0, height - high)
    body.add(shapes.SHEET, sheet, (wide, high, r.uniform(0.03, 0.15, n)), along="flag")
    body.wave[:, 1] = ripples(n, r, 1.5, 8.0)
    return body


def curtain(n: int, r: Random) -> Bodies:
    """A hanging cloth, folded, moved by the air."""
    body = Bodies(n)
    wide, high = r.uniform(0.3, 0.8, n), r.uniform(0.6, 1.1, n)
    body.add(shapes.SHEET, (0.0, 0.0, 0.05 + high), (wide, high, r.uniform(0.03, 0.1, n)), along="flag")
    body.wave[:, 0] = ripples(n, r, 2.0, 2.0) * torch.tensor((1, 1, 0.15, 1, 1))
    body.add(shapes.CYLINDER, (0.0, 0.0, 0.07 + 2 * high), (0.015, 0.015, 1.1 * wide), along="x", paint=1)
    return body


def blanket(n: int, r: Random) -> Bodies:
    """A cloth that lies about in folds."""
    body = Bodies(n)
    size = (r.uniform(0.2, 0.6, n), r.uniform(0.2, 0.6, n), r.uniform(0.02, 0.1, n))
    body.add(shapes.SHEET, (0.0, 0.0, size[2]), size, yaw=r.uniform(0, 3, n))
    body.wave[:, 0] = ripples(n, r, 2.0, 1.0)
    return body


Template = Callable[[int, Random], Bodies]
FURNITURE: tuple[Template, ...] = (table, chair, cabinet, shelf, plant, stack, curtain)
MOVERS: tuple[Template, ...] = (person, creature, arm, solid, solid, stack, flag, curtain)
CLUTTER: tuple[Template, ...] = (solid, solid, solid, monitor, stack, blanket)
STREET: tuple[Template, ...] = (car, car, building, building, tree, plant, person, stack, flag)
TEMPLATES: tuple[Template, ...] = tuple(dict.fromkeys(FURNITURE + MOVERS + CLUTTER + STREET))
