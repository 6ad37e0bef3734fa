"""The one pixel convention of this package.

(u, v) runs from 0 to 1 over the full extent of the image, left edge to right edge and top edge to bottom
edge, so the centre of the pixel in column i and row j is ((i + .5) / W, (j + .5) / H). It does not depend on
the resolution: an image and its resized copy share one (u, v).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def pixel_to_uv(index: Number, size: int) -> Number:
    """Map pixel indices (0 is the centre of the first pixel) along an axis of `size` pixels to 0..1."""
    return (index + 0.5) / size


def uv_to_pixel(coordinate: Number, size: int) -> Number:
    """Inverse of `pixel_to_uv`: 0..1 to pixel indices, where 0 is the centre of the first pixel."""
    return coordinate * size - 0.5


def pixel_grid(height: int, width: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return u and v of all pixel centres of an image, each [height * width] float32, row by row."""
    v, u = torch.meshgrid(
        pixel_to_uv(torch.arange(height, device=device, dtype=torch.float32), height),
        pixel_to_uv(torch.arange(width, device=device, dtype=torch.float32), width),
        indexing="ij",
    )
    return u.reshape(-1), v.reshape(-1)
