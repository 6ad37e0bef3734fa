"""Depth once more, when a window's own motion has said what it can of it (`structure.py`).

Not part of the paper. Triangles are noisy, thin out where the camera hardly moved, and are wrong where things
move; a few convolutions learn from the image what to believe of them and of the guess.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4rt_ros.model.pyramid import Conv, Residual

HINTS = 5  # numbers that a cell is told of the window's structure
_STEP = 2  # pixels a cell, each way


class Refiner(nn.Module):
    """From colours, a guess of depth and hints to the change of log depth of every pixel; begins at none."""

    def __init__(self, width: int) -> None:
        """`width` channels at half of the image's size, two and four times as many below."""
        super().__init__()
        fine, middle, coarse = width, 2 * width, 4 * width
        self.stem = Conv(_STEP**2 * 4 + HINTS + 2, fine)
        self.fine = Residual(fine)
        self.to_middle = Conv(fine, middle, stride=2)
        self.middle = nn.Sequential(Residual(middle), Residual(middle))
        self.to_coarse = Conv(middle, coarse, stride=2)
        self.coarse = nn.Sequential(Residual(coarse), Residual(coarse))
        self.from_coarse, self.middle_again = Conv(coarse, 4 * middle, side=1), Residual(middle)
        self.from_middle, self.fine_again = Conv(middle, 4 * fine, side=1), Residual(fine)
        self.change = Conv(fine, _STEP**2, zero=True)

    def forward(self, pixels: Tensor, hints: Tensor) -> Tensor:
        """Change of log depth [B, T, H, W] float32.

        Args:
            pixels: [B, T, H, W, 4] float32, levelled colours and the guess of log depth (`Encoded.pixels`).
            hints: [B, T, HINTS, h, w] of `Structure`.
        """
        b, frames, height, width, _ = pixels.shape
        middle = pixels.new_tensor((0.5, 0.5, 0.5, 0.0)).expand(b, 4).clone()
        middle[:, 3] = pixels[..., 3].mean((1, 2, 3))
        x = (pixels - middle[:, None, None, None]) * pixels.new_tensor((4.0, 4.0, 4.0, 1.0))
        x = F.pixel_unshuffle(x.flatten(0, 1).permute(0, 3, 1, 2), _STEP)
        size = (x.shape[-2], x.shape[-1])
        near = F.interpolate(hints.flatten(0, 1), size, mode="bilinear", align_corners=False)
        axes = (torch.linspace(-1, 1, n, device=pixels.device) for n in size)
        place = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(b * frames, -1, -1, -1)
        x = torch.cat((x, near, place), dim=1).contiguous(memory_format=torch.channels_last)
        fine = self.fine(self.stem(x).relu_())
        middle = self.middle(self.to_middle(fine).relu_())
        x = self.from_coarse(self.coarse(self.to_coarse(middle).relu_()))
        middle = self.middle_again((middle + F.pixel_shuffle(x, 2)).relu_())
        fine = self.fine_again((fine + F.pixel_shuffle(self.from_middle(middle), 2)).relu_())
        change = F.pixel_shuffle(self.change(fine), _STEP)
        return change.to(torch.float32).reshape(b, frames, height, width)
