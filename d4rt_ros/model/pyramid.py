"""Convolutions beside the transformer: a first guess of every pixel's depth, and finer tokens.

Not part of the paper. On the same scenes a few convolutions learn depth in minutes where a small transformer
needs days, so the built-in network has both: down to the tokens' grid before the transformer, and, with what
that made of the whole window added, up again to a log depth from which the answers start.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4rt_ros.model.flow import scaled

FLOWS = 6  # numbers that a cell is told of flow: to the frame before and after
USUAL_FOCAL = 0.71  # focal length of 70 degrees, in image widths
LENS_PARTS, LOOK, JOINED = 4, 48, 96  # parts of a frame, each way, that the lens is read from; channels
_CONTRAST, _FLAT = 0.15, 0.03  # standard deviation of grey that the network sees, and least that is stretched


def levelled(video: Tensor) -> Tensor:
    """Windows [B, T, 3, H, W] with the mean and contrast of all their frames together set to fixed values.

    Cameras differ more in exposure and contrast than a small network learns to see past.
    """
    grey = video.mean(2).flatten(1)
    mean, spread = grey.mean(1), grey.std(1, correction=0).clamp_min(_FLAT)
    return (video - mean.view(-1, 1, 1, 1, 1)) * (_CONTRAST / spread).view(-1, 1, 1, 1, 1) + 0.5


class Conv(nn.Module):
    """A convolution with bias; its kernel is a matrix [out, side * side * in], which Muon can train."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1, zero: bool = False) -> None:
        """`side` x `side` pixels; `zero`: begin by adding nothing."""
        super().__init__()
        size = side * side * inputs
        self.weight = nn.Parameter(torch.randn(outputs, size) * (0.0 if zero else (2 / size) ** 0.5))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.side, self.stride = side, stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] in any precision to [N, out, H / stride, W / stride] in the weight's."""
        kernel = self.weight.unflatten(1, (self.side, self.side, -1)).permute(0, 3, 1, 2)
        return F.conv2d(x.to(kernel.dtype), kernel, self.bias, self.stride, self.side // 2)


class Residual(nn.Module):
    """Two convolutions beside a way round them; begins as nothing but that way, so it needs no norm."""

    def __init__(self, width: int) -> None:
        """`width` channels."""
        super().__init__()
        self.first, self.second = Conv(width, width), Conv(width, width, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, width, H, W] to the same."""
        return self.second(self.first(x).relu_()).add_(x).relu_()


class Maps(NamedTuple):
    """What convolutions made of B windows of T frames: [B * T, C, ...] at 1/2, 1/4 and 1/8 of the size."""

    half: Tensor
    quarter: Tensor
    eighth: Tensor


class Pyramid(nn.Module):
    """Frames down to tokens, and up again to depth."""

    def __init__(self, width: int, token_width: int, slot: int, flow: bool) -> None:
        """`width` channels at half of the size, two and four times as many below; `slot` frames a token."""
        super().__init__()
        half, quarter, eighth = width, 2 * width, 4 * width
        self.stem = Conv(5, half, stride=2)
        self.quarter = Conv(half, quarter, stride=2)
        self.flow_quarter = Conv(FLOWS, quarter) if flow else None
        self.quarter_blocks = nn.Sequential(Residual(quarter), Residual(quarter))
        self.eighth = nn.Sequential(
            Conv(quarter, eighth, stride=2), nn.ReLU(inplace=True), *(Residual(eighth) for _ in range(3))
        )
        self.to_tokens = nn.Linear(slot * eighth, token_width)
        self.from_tokens = nn.Linear(token_width, slot * eighth)
        self.up = Conv(eighth, 4 * quarter, side=1)
        self.up_block = nn.Sequential(*(Residual(quarter) for _ in range(3)))
        self.up_half = Conv(quarter, 4 * half, side=1)
        self.half_block = nn.Sequential(*(Residual(half) for _ in range(2)))
        self.guess = ReadOut(quarter, half)
        self.lens = Lens(eighth)
        self.slot = slot

    def down(self, video: Tensor, paths: Tensor | None) -> Maps:
        """Maps of video [B, T, 3, H, W] in 0..1 and paths of `flow_paths`."""
        b, frames, _, height, width = video.shape
        axes = (torch.linspace(-1, 1, n, device=video.device) for n in (height, width))
        v, u = torch.meshgrid(*axes, indexing="ij")
        place = torch.stack((v, u)).expand(b * frames, -1, -1, -1)
        x = torch.cat(((video.flatten(0, 1) - 0.45) * 4, place), dim=1)
        half = self.stem(x.contiguous(memory_format=torch.channels_last)).relu_()
        x = self.quarter(half)
        if paths is not None and self.flow_quarter is not None:
            x = x.add_(self.flow_quarter(_flows(paths, (x.shape[-2], x.shape[-1]))))
        quarter = self.quarter_blocks(x.relu_())
        return Maps(half, quarter, self.eighth(quarter))

    def told(self, maps: Maps, batch: int) -> Tensor:
        """What maps of `batch` windows tell the tokens, [batch, tokens, token_width]."""
        cells = maps.eighth.permute(0, 2, 3, 1).unflatten(0, (batch, -1, self.slot))
        return self.to_tokens(cells.movedim(2, 4).flatten(4).flatten(1, 3))

    def joined(self, maps: Maps, tokens: Tensor) -> Maps:
        """Maps to whose coarsest is added what the transformer made of them, [B, tokens, token_width]."""
        frames, channels, rows, columns = maps.eighth.shape
        cells = self.from_tokens(tokens.to(self.from_tokens.weight.dtype))
        cells = cells.reshape(-1, rows, columns, self.slot, channels).permute(0, 3, 4, 1, 2)
        return maps._replace(eighth=maps.eighth + cells.reshape(frames, channels, rows, columns))

    def depth(self, maps: Maps, batch: int) -> Tensor:
        """Maps of `batch` windows to log depth [batch, T, H, W], float32."""
        x = F.pixel_shuffle(self.up(maps.eighth), 2)
        quarter = self.up_block((maps.quarter + x).relu_())
        half = self.half_block((maps.half + F.pixel_shuffle(self.up_half(quarter), 2)).relu_())
        found = self.guess(quarter, half)
        return found.to(torch.float32).reshape(batch, -1, *found.shape[-2:])


class ReadOut(nn.Module):
    """One number a pixel from maps at a quarter and half of the size; begins at 0."""

    def __init__(self, quarter: int, half: int) -> None:
        """From so many channels."""
        super().__init__()
        self.coarse = Conv(quarter, 16, side=1, zero=True)
        self.fine = Conv(half, 4, zero=True)

    def forward(self, quarter: Tensor, half: Tensor) -> Tensor:
        """[N, C, H / 4, W / 4] and [N, C, H / 2, W / 2] to [N, 1, H, W]."""
        return F.pixel_shuffle(self.coarse(quarter), 4) + F.pixel_shuffle(self.fine(half), 2)


class Lens(nn.Module):
    """The focal length of a window's lens from the coarsest maps; begins at that of a usual lens."""

    def __init__(self, width: int) -> None:
        """From `width` channels."""
        super().__init__()
        self.look = Conv(width, LOOK, side=1)
        self.join = nn.Linear(LOOK * LENS_PARTS**2 + 1, JOINED)
        self.out = nn.Linear(JOINED, 1)

    def forward(self, eighth: Tensor, aspect_ratio: Tensor) -> Tensor:
        """Logarithm [B] float32 of the length in image widths, of maps [B * T, C, h, w] and ratios [B].

        Every frame tells a length, and the window has the mean of their logarithms.
        """
        parts = F.adaptive_avg_pool2d(self.look(eighth).relu_(), LENS_PARTS).flatten(1)
        batch = len(aspect_ratio)
        ratio = aspect_ratio.log().to(parts.dtype).repeat_interleave(len(parts) // batch)
        x = self.join(torch.cat((parts, ratio[:, None]), dim=1)).relu()
        return self.out(x).to(torch.float32).reshape(batch, -1).mean(1) + math.log(USUAL_FOCAL)


def _flows(paths: Tensor, size: tuple[int, int]) -> Tensor:
    """What every cell of every frame is told of flow, as a map of `size`: [B * T, FLOWS, h, w]."""
    time = torch.arange(paths.shape[1], device=paths.device)
    last = paths.shape[1] - 1
    there = torch.stack((time - 1, time + 1), dim=1).clamp(0, last)
    index = there[None, :, None, None, :, None].expand(len(paths), -1, *paths.shape[2:4], -1, 3)
    ways = paths[..., :3].gather(4, index).flatten(-2).flatten(0, 1).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(scaled(ways), size)
