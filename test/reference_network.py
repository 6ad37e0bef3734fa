"""D4RT written a second time, the slow way, from torch's stock modules: the network must agree with it.

Names of the parameters are those of OpenD4RT's checkpoints, so one state dict loads into both.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4rt_ros.model import ModelConfig


def sequential_mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, width), nn.Dropout(0.1)
    )


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_attn, self.norm_ff = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ff = sequential_mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_attn(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.ff(self.norm_ff(x))


class DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_q, self.norm_kv, self.norm_ff = (nn.LayerNorm(width) for _ in range(3))
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ff = sequential_mlp(width, hidden)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        memory = self.norm_kv(memory)
        x = x + self.cross_attn(self.norm_q(x), memory, memory, need_weights=False)[0]
        return x + self.ff(self.norm_ff(x))


class Parts(nn.Module):
    """A place for children under one name."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class ReferenceNetwork(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        vit, dec = config.vit_width, config.dec_width
        self.encoder = Parts(
            patch_embed=nn.Conv3d(3, vit, config.patch, config.patch),
            blocks=nn.ModuleList(
                EncoderBlock(vit, config.vit_heads, config.vit_hidden) for _ in range(config.vit_depth)
            ),
            final_norm=nn.LayerNorm(vit),
        )
        self.aspect_ratio_proj = nn.Sequential(nn.Linear(1, vit), nn.GELU(), nn.Linear(vit, vit))
        self.memory_proj = nn.Linear(vit, dec)
        self.query_embedder = Parts(
            uv_proj=nn.Linear(2 + 4 * config.uv_bands, dec),
            t_src_embed=nn.Embedding(config.frames, dec),
            t_tgt_embed=nn.Embedding(config.frames, dec),
            t_cam_embed=nn.Embedding(config.frames, dec),
            patch_proj=nn.Sequential(nn.Linear(3 * config.rgb_patch**2, dec), nn.GELU(), nn.Linear(dec, dec)),
            out_norm=nn.LayerNorm(dec),
        )
        self.decoder = Parts(
            blocks=nn.ModuleList(
                DecoderBlock(dec, config.dec_heads, config.dec_hidden) for _ in range(config.dec_depth)
            ),
            out_norm=nn.LayerNorm(dec),
        )
        sizes = {"xyz": 3, "uv": 2, "visibility": 1, "displacement": 3, "normal": 3, "confidence": 1}
        self.heads = Parts(**{f"{name}_head": nn.Linear(dec, size) for name, size in sizes.items()})

    def forward(
        self, video: Tensor, aspect: Tensor, u: Tensor, v: Tensor, times: Tensor
    ) -> dict[str, Tensor]:
        """u, v run between pixel centres, as OpenD4RT counts them; times [3, B, N]."""
        x = self.encoder.patch_embed(video.transpose(1, 2))  # B, width, slots, rows, columns
        slots, per_slot = x.shape[2], x.shape[3] * x.shape[4]
        x = x.flatten(2).transpose(1, 2)
        width = x.shape[-1]
        for token in range(x.shape[1]):
            for channel in range(0, width, 2):
                angle = token / 10000 ** (channel / width)
                x[:, token, channel] += math.sin(angle)
                x[:, token, channel + 1] += math.cos(angle)
        extra = self.aspect_ratio_proj(aspect[:, None])[:, None]
        for index, block in enumerate(self.encoder.blocks):
            if index % 2 == 0:
                x = torch.cat([block(x[:, s * per_slot : (s + 1) * per_slot]) for s in range(slots)], dim=1)
            else:
                x, extra = block(torch.cat((x, extra), dim=1)).split([x.shape[1], 1], dim=1)
        memory = self.memory_proj(self.encoder.final_norm(torch.cat((x, extra), dim=1)))
        query = self.embed(video, u, v, times)
        for block in self.decoder.blocks:
            query = block(query, memory)
        query = self.decoder.out_norm(query)
        names = ("xyz", "uv", "visibility", "displacement", "normal", "confidence")
        return {name: getattr(self.heads, f"{name}_head")(query).squeeze(-1) for name in names}

    def embed(self, video: Tensor, u: Tensor, v: Tensor, times: Tensor) -> Tensor:
        part, side = self.query_embedder, self.config.rgb_patch
        height, width = video.shape[-2:]
        features = []
        for value in (u, v):
            angles = [math.pi * 2**band * value for band in range(self.config.uv_bands)]
            features += [value, *(a.sin() for a in angles), *(a.cos() for a in angles)]
        token = part.uv_proj(torch.stack(features, dim=-1))
        token = token + part.t_src_embed(times[0]) + part.t_tgt_embed(times[1]) + part.t_cam_embed(times[2])
        reach = torch.arange(side) - side // 2
        dy, dx = torch.meshgrid(reach, reach, indexing="ij")
        grid = torch.stack((2 * u[..., None, None] - 1 + 2 * dx / (width - 1),
                            2 * v[..., None, None] - 1 + 2 * dy / (height - 1)), dim=-1)  # fmt: skip
        patches = torch.stack(
            [
                torch.stack(
                    [
                        F.grid_sample(
                            video[b, times[0, b, n]][None], grid[b, n][None],
                            align_corners=True, padding_mode="border",
                        )[0]
                        for n in range(u.shape[1])
                    ]
                )
                for b in range(len(video))
            ]
        )  # fmt: skip
        return part.out_norm(token + part.patch_proj(patches.flatten(2)))
