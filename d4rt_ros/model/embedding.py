"""A query becomes a token: Fourier features, three time embeddings and the colours round the point.

Paper section 2 and fig. 10; the layer sizes are OpenD4RT's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4rt_ros.model.config import ModelConfig
from d4rt_ros.model.flow import at, scaled
from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.model.queries import Queries


class QueryEmbedding(nn.Module):
    """Sum of the embeddings of u, v, t_src, t_tgt, t_cam and of the 9 x 9 colour patch, then a norm."""

    def __init__(self, config: ModelConfig) -> None:
        """Build for `config`."""
        super().__init__()
        width, side = config.dec_width, config.rgb_patch
        self.uv_proj = nn.Linear(2 * (1 + 2 * config.uv_bands), width)
        self.t_src_embed = nn.Embedding(config.frames, width)
        self.t_tgt_embed = nn.Embedding(config.frames, width)
        self.t_cam_embed = nn.Embedding(config.frames, width)
        channels = 4 if config.pyramid else 3
        self.patch_proj = nn.ModuleList(
            (nn.Linear(channels * side * side, width), nn.GELU(), nn.Linear(width, width))
        )
        self.flow_proj = nn.Linear(path_features(config), width) if config.flow else None
        self.out_norm = nn.LayerNorm(width)
        self.frames, self.middle = config.frames, side // 2
        self.corner_pixels = config.corner_pixels
        self.patch_frames, self.rows, self.columns = config.patch[0], *config.token_grid[1:]
        self.register_buffer("bands", torch.empty(0), persistent=False)
        self.register_buffer("reach", torch.empty(0), persistent=False)
        self.fill_buffers(config)

    def fill_buffers(self, config: ModelConfig) -> None:
        """Compute what no checkpoint holds: the octaves, and the pixels of a patch round its middle."""
        self.bands = math.pi * 2.0 ** torch.arange(config.uv_bands, dtype=torch.float32)
        self.reach = torch.arange(config.rgb_patch + 1, dtype=torch.float32) - config.rgb_patch // 2

    def fourier(self, u: Tensor, v: Tensor) -> Tensor:
        """[..., N] each to [..., N, 2 * (1 + 2 bands)]: of u, then v, itself, sines, cosines of octaves."""
        x = torch.stack((u, v), dim=-1)[..., None]
        angle = x * self.bands
        return torch.cat((x, angle.sin(), angle.cos()), dim=-1).flatten(-2)

    def patches(self, images: Tensor, u: Tensor, v: Tensor, t_src: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bilinear patches of images [B, T, H, W, C] round (u, v) [B, N] in frame t_src.

        images: colours, float in 0..1 or uint8, and log depth if C is 4. u, v in 0..1 over the full extent;
        outside, the border's colour. Returns [B, N, C * side * side], channel by channel, colours in 0..1 and
        log depth less that of the middle, which comes second, [B, N], or None.
        """
        b, frames, height, width, channels = images.shape
        x, y = u * width - 0.5, v * height - 0.5
        x0, y0 = x.floor(), y.floor()
        # One fractional offset serves the whole patch: pick side + 1 pixels a way, then blend neighbours.
        column = (x0[..., None] + self.reach).clamp(0, width - 1).long()  # [B, N, side + 1]
        row = (y0[..., None] + self.reach).clamp(0, height - 1).long()
        first = (torch.arange(b, device=u.device)[:, None] * frames + t_src) * height
        index = (first[..., None, None] + row[..., None]) * width + column[..., None, :]
        block = images.reshape(-1, channels).index_select(0, index.reshape(-1))
        block = to_unit(block).reshape(*index.shape, channels)  # [B, N, side + 1, side + 1, C]
        block = torch.lerp(block[..., :-1, :], block[..., 1:, :], (x - x0)[..., None, None, None])
        block = torch.lerp(block[..., :-1, :, :], block[..., 1:, :, :], (y - y0)[..., None, None, None])
        block = block.movedim(-1, -3)
        if channels == 3:
            return block.flatten(2), None
        own = block[..., 3, self.middle, self.middle]
        depth = block[..., 3:, :, :] - own[..., None, None, None]
        return torch.cat((block[..., :3, :, :], depth), dim=2).flatten(2), own

    def places(self, frames: int) -> Tensor:
        """Embeddings of place and time of the memory tokens of `frames` frames: [M, width], last 0."""
        u, v = pixel_grid(self.rows, self.columns, self.bands.device)
        place = self.uv_proj(self.fourier(u, v))
        times = (self.t_src_embed.weight + self.t_tgt_embed.weight)[:frames]
        slots = times.unflatten(0, (-1, self.patch_frames)).mean(dim=1)
        both = (slots[:, None] + place).flatten(0, 1)
        return F.pad(F.layer_norm(both, both.shape[-1:]), (0, 0, 0, 1))

    def forward(
        self, queries: Queries, patches: Tensor, input_size: tuple[int, int], path: Tensor | None = None
    ) -> Tensor:
        """Queries [B, N], their `patches` and the paths of `follow` to tokens [B, N, width].

        `input_size` is the encoder's (height, width): the unit of `corner_pixels`.
        """
        u, v = to_network(queries.u, queries.v, input_size, self.corner_pixels)
        token = self.uv_proj(self.fourier(u, v))
        token = token + self.t_src_embed(queries.t_src)
        token = token + self.t_tgt_embed(queries.t_tgt)
        token = token + self.t_cam_embed(queries.t_cam)
        x = patches.to(self.patch_proj[0].weight.dtype)  # type: ignore[arg-type]
        for layer in self.patch_proj:
            x = layer(x)
        token = token + x
        if path is not None and self.flow_proj is not None:
            own = F.pad(path, (0, 0, 0, self.frames - path.shape[2]))
            asked = torch.cat((own, at(path, queries.t_tgt), at(path, queries.t_cam)), dim=2)
            token = token + self.flow_proj(scaled(asked.flatten(2)))
        return self.out_norm(token)


def path_features(config: ModelConfig) -> int:
    """Numbers that a query is told of its point's path."""
    return (config.frames + 2) * (4 if config.pyramid else 3)


def to_unit(colours: Tensor) -> Tensor:
    """Colours as float32 in 0..1, from float or uint8."""
    return colours.to(torch.float32) / 255 if colours.dtype == torch.uint8 else colours.to(torch.float32)


def to_network(u: Tensor, v: Tensor, size: tuple[int, int], corner_pixels: bool) -> tuple[Tensor, Tensor]:
    """From this package's (u, v) to the network's own; the same unless it counts between pixel centres."""
    if not corner_pixels:
        return u, v
    height, width = size
    return (u * width - 0.5) / (width - 1), (v * height - 0.5) / (height - 1)


def from_network(uv: Tensor, size: tuple[int, int], corner_pixels: bool) -> Tensor:
    """Inverse of `to_network` for answers [..., 2]."""
    if not corner_pixels:
        return uv
    height, width = size
    scale = torch.tensor([width - 1, height - 1], dtype=uv.dtype, device=uv.device)
    extent = torch.tensor([width, height], dtype=uv.dtype, device=uv.device)
    return (uv * scale + 0.5) / extent
