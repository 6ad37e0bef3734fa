"""Video to tokens: tubelet patches, then frame-local and global attention in turn (paper section 2)."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4rt_ros.model.config import ModelConfig
from d4rt_ros.model.flow import scaled
from d4rt_ros.model.layers import SelfBlock
from d4rt_ros.model.pyramid import Maps, Pyramid

FLOW_CELLS = 2  # of a token's flow, each way


def sines(position: Tensor, width: int) -> Tensor:
    """Sine and cosine of `position` [N] at width / 2 frequencies, interleaved, base 10,000: [N, width]."""
    step = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / max(width, 1)))
    angle = position.to(torch.float64)[:, None] * step
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(torch.float32)


def position_embedding(config: ModelConfig) -> Tensor:
    """Position embedding of all video tokens in (t, row, column) order: [tokens, vit_width]."""
    if config.position == "flat":
        return sines(torch.arange(math.prod(config.token_grid)), config.vit_width)
    # Thirds of the channels for t, row, column; in units that spread neighbouring tokens well apart.
    share = config.vit_width // 6 * 2
    widths = (config.vit_width - 2 * share, share, share)
    axes = torch.meshgrid(*(torch.arange(n) for n in config.token_grid), indexing="ij")
    return torch.cat([sines(axis.reshape(-1), width) for axis, width in zip(axes, widths)], dim=-1)


class Encoder(nn.Module):
    """ViT over tubelet tokens; even blocks see one time slot, odd blocks the whole window."""

    def __init__(self, config: ModelConfig) -> None:
        """Build for `config`."""
        super().__init__()
        self.patch_embed = nn.Conv3d(3, config.vit_width, config.patch, config.patch)
        cells = config.patch[0] * FLOW_CELLS**2
        self.flow_embed = nn.Linear(cells * config.frames * 3, config.vit_width) if config.flow else None
        self.pyramid = None
        if config.pyramid:
            self.pyramid = Pyramid(config.pyramid, config.vit_width, config.patch[0], config.flow)
        self.blocks = nn.ModuleList(
            SelfBlock(config.vit_width, config.vit_heads, config.vit_hidden) for _ in range(config.vit_depth)
        )
        self.final_norm = nn.LayerNorm(config.vit_width)
        self.register_buffer("position", torch.empty(0), persistent=False)
        self.patch = config.patch
        self.frames, self.image_size, self.grid = config.frames, config.image_size, config.token_grid[1:]
        self.fill_buffers(config)

    def fill_buffers(self, config: ModelConfig) -> None:
        """Compute what no checkpoint holds: the position embedding."""
        self.position = position_embedding(config)

    def embed(self, video: Tensor) -> tuple[Tensor, int]:
        """Cut video [B, T, 3, H, W] into tokens [B, slots * per_slot, width]; also returns per_slot.

        The tubelets do not overlap, so the convolution is one matrix product. Raises ValueError for another
        size, and for frames that do not fill tubelets or are too many.
        """
        t, h, w = self.patch
        b, frames, channels, height, width = video.shape
        if frames % t or frames > self.frames or (height, width) != self.image_size:
            raise ValueError(
                f"{frames} frames of {height} x {width}: the network takes up to {self.frames}, "
                f"a multiple of {t}, of {self.image_size[0]} x {self.image_size[1]}"
            )
        x = video.reshape(b, frames // t, t, channels, height // h, h, width // w, w)
        x = x.permute(0, 1, 4, 6, 3, 2, 5, 7)  # B, slot, row, column, then channel, t, h, w as in the kernel
        x = x.reshape(b, -1, channels * t * h * w)
        weight, bias = self.patch_embed.weight.flatten(1), cast("Tensor", self.patch_embed.bias)
        tokens = F.linear(x.to(weight.dtype), weight, bias)
        return tokens, (height // h) * (width // w)

    def embed_flow(self, paths: Tensor) -> Tensor:
        """Paths [B, T, h, w, T, 3] of `flow_paths` to what tokens learn of them, [B, tokens, width]."""
        assert self.flow_embed is not None
        (t, _, _), (b, frames) = self.patch, paths.shape[:2]
        rows, columns = self.grid
        x = paths.flatten(0, 1).flatten(-2).movedim(-1, 1)  # B * T, T * 3, h, w
        x = F.adaptive_avg_pool2d(x, (rows * FLOW_CELLS, columns * FLOW_CELLS))
        x = x.reshape(b, frames // t, t, frames, 3, rows, FLOW_CELLS, columns, FLOW_CELLS)
        x = F.pad(x.permute(0, 1, 5, 7, 2, 6, 8, 4, 3), (0, self.frames - frames))
        x = scaled(x.reshape(b, -1, self.flow_embed.in_features))
        return self.flow_embed(x.to(self.flow_embed.weight.dtype))

    def forward(
        self, video: Tensor, aspect_token: Tensor, paths: Tensor | None
    ) -> tuple[Tensor, Maps | None]:
        """Video [B, T, 3, H, W] in 0..1 and aspect token [B, 1, width] to memory [B, tokens + 1, width].

        Also returns the pyramid's maps, if there is one.
        """
        x, per_slot = self.embed(video)
        if paths is not None:
            x = x + self.embed_flow(paths)
        maps = None
        if self.pyramid is not None:
            maps = self.pyramid.down(video, paths)
            x = x + self.pyramid.told(maps, len(video))
        x = torch.cat((x + self.position[: x.shape[1]], aspect_token.to(torch.float32)), dim=1)
        for index, block in enumerate(self.blocks):
            if index % 2:
                x = block(x)
            else:  # frame-local: the aspect-ratio token sits these out
                local = block(x[:, :-1].reshape(-1, per_slot, x.shape[-1]))
                x = torch.cat((local.reshape(x.shape[0], -1, x.shape[-1]), x[:, -1:]), dim=1)
        x = self.final_norm(x)
        if self.pyramid is not None and maps is not None:
            maps = self.pyramid.joined(maps, x[:, :-1])
        return x, maps
