"""A bank of tileable textures with structure at all scales, made from a seed, with mip levels."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from d4rt_ros.training.rigid import Random

SIDE = 128  # texels; levels 128, 64, .. 1
LEVELS = 8


def _grid() -> tuple[Tensor, Tensor]:
    axis = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def fractal(n: int, r: Random, slope: float = 1.0) -> Tensor:
    """Tileable noise [n, SIDE, SIDE] in 0..1 whose amplitude falls as frequency to about -slope."""
    f = torch.fft.fftfreq(SIDE) * SIDE
    radius = (f[:, None] ** 2 + torch.fft.rfftfreq(SIDE)[None] ** 2 * SIDE**2).sqrt().clamp_min(1)
    gain = radius ** -(r.uniform(slope - 0.5, slope + 0.5, n, 1, 1))
    gain[:, 0, 0] = 0
    noise = torch.fft.irfft2(torch.fft.rfft2(r.normal(n, SIDE, SIDE)) * gain, s=(SIDE, SIDE))
    noise = noise / noise.std((1, 2), keepdim=True).clamp_min(1e-9)
    return (0.5 + 0.22 * noise).clamp(0, 1)


def _period(n: int, r: Random, low: int, high: int) -> Tensor:
    return (low + r.integer(high - low + 1, n)).float()[:, None, None]


def stripes(n: int, r: Random) -> Tensor:
    """Stripes of random widths along one axis or diagonal; soft or hard."""
    x, y = _grid()
    a, b = _period(n, r, 0, 10), _period(n, r, 0, 10)
    wave = torch.sin(2 * torch.pi * (a * x + b * y) + 2 * fractal(n, r) * r.uniform(0, 1, n, 1, 1))
    return 0.5 + 0.5 * torch.tanh(wave * r.log_uniform(1, 10, n, 1, 1))


def tiles(n: int, r: Random) -> Tensor:
    """Checkers, bricks, planks: cells of differing grey with joints."""
    x, y = _grid()
    nx, ny = _period(n, r, 1, 10), _period(n, r, 2, 12)
    row = (y * ny).floor()
    shift = torch.where(r.chance(0.5, n)[:, None, None], 0.5 * (row % 2), 0.0)
    cell_x = x * nx + shift
    column = cell_x.floor() % nx
    cells = r.uniform(0, 1, n, 16, 16)
    index = torch.arange(n)[:, None, None]
    grey = cells[index, row.long() % 16, column.long() % 16]
    checker = torch.where(r.chance(0.35, n)[:, None, None], (row + column) % 2, grey)
    edge = torch.minimum((0.5 - (cell_x % 1 - 0.5).abs()) / nx, (0.5 - ((y * ny) % 1 - 0.5).abs()) / ny)
    spread = r.uniform(0.1, 1, n, 1, 1)
    base = 0.5 + (checker - 0.5) * spread + 0.3 * (fractal(n, r) - 0.5)
    return torch.where(edge < r.uniform(0.002, 0.012, n, 1, 1), r.uniform(0, 1, n, 1, 1), base).clamp(0, 1)


def spots(n: int, r: Random) -> Tensor:
    """Blobs of differing size: gravel, leaves, terrazzo."""
    noise = fractal(n, r, 0.6)
    low = F.avg_pool2d(F.pad(noise[:, None], (3, 3, 3, 3), mode="circular"), 7, 1)[:, 0]
    level = low - low.mean((1, 2), keepdim=True) + r.uniform(-0.05, 0.05, n, 1, 1)
    return (0.5 + 0.5 * torch.tanh(level * r.log_uniform(10, 80, n, 1, 1)) + 0.3 * (noise - 0.5)).clamp(0, 1)


def text(n: int, r: Random) -> Tensor:
    """Lines of glyph-like marks with ragged ends, black on white."""
    lines = _period(n, r, 4, 14)
    x, y = _grid()
    glyph = (r.uniform(0, 1, n, SIDE, SIDE // 2) < 0.5).float().repeat_interleave(2, -1)
    row = (y * lines).floor()
    within = (y * lines) % 1
    strokes = ((within * 5).floor() + row * 5).long() % SIDE
    columns = torch.arange(SIDE)[None, None].expand(n, SIDE, SIDE)
    marks = glyph[torch.arange(n)[:, None, None], strokes, columns]
    length = r.uniform(0.3, 0.95, n, 16)[torch.arange(n)[:, None, None], row.long() % 16]
    gap = (r.uniform(0, 1, n, 16, SIDE // 4) < 0.2).repeat_interleave(4, -1)
    inside = (within > 0.15) & (within < 0.75) & (x > 0.05) & (x < length)
    inside = inside & ~gap[torch.arange(n)[:, None, None], row.long() % 16, columns]
    return 1 - marks * inside.float()


def posters(n: int, r: Random) -> Tensor:
    """Coloured pictures [n, 3, SIDE, SIDE]: gradient, rectangles and discs over one another, text below."""
    x, y = _grid()
    blend = (x * r.uniform(-1, 1, n, 1, 1) + y * r.uniform(-1, 1, n, 1, 1) + fractal(n, r) * 0.7)[:, None]
    picture = r.uniform(0, 1, n, 3, 1, 1) * (1 - blend) + r.uniform(0, 1, n, 3, 1, 1) * blend
    for i in range(14):
        cx, cy = r.uniform(0, 1, n, 1, 1), r.uniform(0, 1, n, 1, 1)
        sx, sy = r.log_uniform(0.03, 0.4, n, 1, 1), r.log_uniform(0.03, 0.4, n, 1, 1)
        dx, dy = (x - cx) / sx, (y - cy) / sy
        shape = (dx.abs() < 1) & (dy.abs() < 1) if i % 2 else dx**2 + dy**2 < 1
        picture = torch.where(shape[:, None], r.uniform(0, 1, n, 3, 1, 1), picture)
    marks = text(n, r)
    written = (y > r.uniform(0.4, 1.2, n, 1, 1)) & (marks < 0.5)
    return torch.where(written[:, None], r.uniform(0, 1, n, 3, 1, 1), picture).clamp(0, 1)


def photographs(folder: str | Path) -> Tensor:
    """All pictures of a folder as textures [n, 3, SIDE, SIDE]. Raises ValueError when it holds none."""
    import cv2

    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in suffixes)
    found = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path} is not a readable picture")
        small = cv2.resize(image[..., ::-1].copy(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        found.append(torch.from_numpy(small).permute(2, 0, 1).float() / 255)
    if not found:
        raise ValueError(f"no pictures in {folder}")
    return torch.stack(found)


class TextureBank:
    """Textures as one table of texels with mip levels.

    The first `grey` textures are meant to be coloured by two palette colours, those after them are pictures;
    the first `noise` ones of all serve as stains and clouds.
    """

    def __init__(self, seed: int, folder: str | Path | None = None, each: int = 24) -> None:
        """Make `each` textures of every kind from `seed`, and those of a folder of photographs."""
        r = Random(torch.Generator().manual_seed(seed))
        grey = torch.cat([maker(each, r) for maker in (fractal, stripes, tiles, spots, text)])
        images = [grey[:, None].expand(-1, 3, -1, -1), posters(2 * each, r)]
        if folder is not None:
            images.append(photographs(folder))
        self.noise, self.grey = each, len(grey)
        level = torch.cat(images)
        self.count = len(level)
        texels = []
        for _ in range(LEVELS):
            texels.append(level.permute(0, 2, 3, 1).reshape(self.count, -1, 3))
            level = F.avg_pool2d(level, 2) if level.shape[-1] > 1 else level
        self.stride = sum(t.shape[1] for t in texels)
        flat = torch.cat(texels, 1).reshape(-1, 3)
        red, green, blue = (flat * 255).round().int().unbind(-1)
        self.texels = red | green << 8 | blue << 16  # one word a texel: one read gets all channels
        self.starts = torch.tensor(
            [sum(4 ** (7 - j) for j in range(i)) for i in range(LEVELS)], dtype=torch.int32
        )

    def to(self, device: torch.device | str) -> TextureBank:
        """Move the table; returns self."""
        self.texels, self.starts = self.texels.to(device), self.starts.to(device)
        return self

    def sample(self, index: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Red, green, blue [N] in 0..1 of textures index [N] at (u, v) [N] (period 1).

        A pixel covers `footprint` periods; the mip level follows from it.
        """
        level = (footprint * SIDE).clamp(1, SIDE).log2().round()
        side = torch.exp2(LEVELS - 1 - level).round()
        start = self.starts.index_select(0, level.int())
        x, y = u.frac() * side - 0.5, v.frac() * side - 0.5
        x0, y0 = x.floor(), y.floor()
        fx, fy = x - x0, y - y0
        side = side.int()
        last = side - 1
        base = index.int() * self.stride + start
        left, top = x0.int() & last, y0.int() & last
        right, bottom = (left + 1) & last, (top + 1) & last
        top, bottom = top * side + base, bottom * side + base
        words = [
            self.texels.index_select(0, row + column) for row in (top, bottom) for column in (left, right)
        ]

        def channel(shift: int) -> Tensor:
            a, b, c, d = (((word >> shift) & 255).float() for word in words)
            return torch.lerp(torch.lerp(a, b, fx), torch.lerp(c, d, fx), fy) / 255

        return channel(0), channel(8), channel(16)
