"""D4RT: one encoder, one decoder of independent point queries (arXiv 2512.08924, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4rt_ros.model.config import ModelConfig
from d4rt_ros.model.embedding import QueryEmbedding
from d4rt_ros.model.encoder import Encoder
from d4rt_ros.model.flow import at, flow_paths, follow
from d4rt_ros.model.graphs import DecodeGraphs
from d4rt_ros.model.layers import Attention, CrossBlock, SelfBlock
from d4rt_ros.model.packed import Linear
from d4rt_ros.model.queries import Queries
from d4rt_ros.model.scene import Scene

HEADS = {"xyz": 3, "uv": 2, "visibility": 1, "displacement": 3, "normal": 3, "confidence": 1}


class Decoder(nn.Module):
    """Cross-attention blocks from query tokens to the memory."""

    def __init__(self, config: ModelConfig) -> None:
        """Build for `config`."""
        super().__init__()
        self.blocks = nn.ModuleList(
            CrossBlock(config.dec_width, config.dec_heads, config.dec_hidden) for _ in range(config.dec_depth)
        )
        self.out_norm = nn.LayerNorm(config.dec_width)

    def keys_values(self, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of memory [B, M, width] for every block."""
        return [block.keys_values(memory) for block in cast("list[CrossBlock]", list(self.blocks))]

    def forward(self, x: Tensor, memory: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Query tokens [B, N, width] against `keys_values` to [B, N, width]."""
        for block, (keys, values) in zip(self.blocks, memory):
            x = block(x, keys, values)
        return self.out_norm(x)


class Heads(nn.Module):
    """Six linear read-outs of a decoded query, kept in float32."""

    def __init__(self, width: int) -> None:
        """From `width` channels."""
        super().__init__()
        for name, size in HEADS.items():
            setattr(self, f"{name}_head", nn.Linear(width, size))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, N, width] to raw outputs by name; visibility and confidence are logits [B, N]."""
        heads = [cast("nn.Linear", getattr(self, f"{name}_head")) for name in HEADS]
        weight, bias = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
        outputs = F.linear(x, weight, bias).split(list(HEADS.values()), dim=-1)
        return {name: output.squeeze(-1) for name, output in zip(HEADS, outputs)}


class D4RT(nn.Module):
    """The network. `encode` a window once, then ask its `Scene`; `forward` is for training."""

    def __init__(self, config: ModelConfig) -> None:
        """Build with random weights, which answer nothing: load or train before use."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.aspect_ratio_proj = nn.Sequential(
            nn.Linear(1, config.vit_width), nn.GELU(), nn.Linear(config.vit_width, config.vit_width)
        )
        self.memory_proj = Linear(config.vit_width, config.dec_width)
        self.query_embedder = QueryEmbedding(config)
        self.decoder = Decoder(config)
        self.heads = Heads(config.dec_width)
        self.graphs = DecodeGraphs(self.answer)
        self.apply(_initialise)
        if config.anchored:  # a query attends to its own place and time before anything is learnt
            for block in self.decoder.blocks:
                weight = cast("CrossBlock", block).cross_attn.in_proj_weight.data
                weight[config.dec_width : 2 * config.dec_width] = weight[: config.dec_width]

    def paths(self, video: Tensor) -> Tensor | None:
        """Where optical flow leads in video [B, T, 3, H, W], float 0..1, if the network wants it."""
        return flow_paths(video) if self.config.flow else None

    def memory(self, video: Tensor, aspect_ratio: Tensor, paths: Tensor | None = None) -> Tensor:
        """Encode video [B, T, 3, H, W], float 0..1 at the input size, and width / height [B].

        Returns the memory [B, tokens + 1, dec_width].
        """
        aspect = self.aspect_ratio_proj(aspect_ratio.reshape(-1, 1, 1).to(torch.float32))
        memory = self.encoder(video, aspect, paths)
        memory = self.memory_proj(memory)
        return memory + self.query_embedder.places(video.shape[1]) if self.config.anchored else memory

    def answer(
        self,
        queries: Queries,
        images: Tensor,
        memory: list[tuple[Tensor, Tensor]],
        paths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Raw outputs for queries [B, N], given images [B, T, H, W, 3] and `Decoder.keys_values`."""
        path = None if paths is None else follow(paths, queries)
        x = self.query_embedder(queries, images, self.config.image_size, path)
        raw = self.heads(self.decoder(x, memory).to(torch.float32))
        return from_pixel(raw, queries, path) if self.config.relative else raw

    def forward(
        self, video: Tensor, aspect_ratio: Tensor, queries: Queries, images: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Train: raw outputs of the six heads [B, N, ...] for queries [B, N].

        video [B, T, 3, H, W] is float in 0..1 at the input size; `images`, if given, is the same video at
        another resolution, for the colour patches.
        """
        paths = self.paths(video)
        memory = self.decoder.keys_values(self.memory(video, aspect_ratio, paths))
        images = (video if images is None else images).movedim(-3, -1)
        return self.answer(queries, images, memory, paths)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.memory_proj.weight.device

    @property
    def precision(self) -> torch.dtype:
        """What the matrix products run in."""
        return self.memory_proj.weight.dtype

    def set_precision(self, dtype: torch.dtype) -> D4RT:
        """Run matrix products in `dtype`; norms, residuals, Fourier features and read-outs stay float32."""
        self.to(torch.float32)
        self.graphs = DecodeGraphs(self.answer)  # captured ones read the weights where they were
        for module in (self.encoder, self.memory_proj, self.query_embedder.patch_proj, self.decoder):
            for part in module.modules():
                if isinstance(part, (nn.Linear, nn.Conv3d, Attention)):
                    part.to(dtype)
        return self

    def compile(self) -> D4RT:  # type: ignore[override]
        """Compile the blocks with torch.compile, when they first run; each kind of block once."""
        for block in (*self.encoder.blocks, *self.decoder.blocks):
            block.compile()
        return self

    def encode(
        self,
        video: Tensor,
        stamps: Sequence[int] | None = None,
        aspect_ratio: Tensor | float | None = None,
    ) -> Scene:
        """Encode one window [T, 3, H, W] or a batch of windows [B, T, 3, H, W] into a `Scene`.

        video: uint8, or float in 0..1, of any size; it is resized to the network's input. stamps: T rising
        nanoseconds (one list for all windows of a batch); frame numbers when absent. aspect_ratio: width /
        height of the original image where `video` no longer has it. Raises ValueError for a wrong shape, an
        odd or too large number of frames, stamps that do not rise.
        """
        return Scene.encode(self, video, stamps, aspect_ratio)


def from_pixel(raw: dict[str, Tensor], queries: Queries, path: Tensor | None) -> dict[str, Tensor]:
    """Read uv as an offset from the query's own (u, v), and xyz as a ray near the pixel's own times a depth.

    Depth is an exponential, so always in front of the camera; the ray is that of a lens of 70 degrees plus an
    offset.
    """
    there = seen = torch.stack((queries.u, queries.v), dim=-1)
    if path is not None:
        there = there + at(path, queries.t_tgt)[:, :, 0, :2]
        seen = seen + at(path, queries.t_cam)[:, :, 0, :2]
    depth = raw["xyz"][..., 2:].clamp(-8, 8).exp()
    ray = raw["xyz"][..., :2] + 1.4 * (seen - 0.5)
    return {**raw, "uv": raw["uv"] + there, "xyz": torch.cat((ray * depth, depth), dim=-1)}


def _initialise(module: nn.Module) -> None:
    """Start layers at the size of their input; what joins a residual, and the read-outs, start small."""
    if isinstance(module, (SelfBlock, CrossBlock)):
        attention = module.attn if isinstance(module, SelfBlock) else module.cross_attn
        nn.init.trunc_normal_(attention.in_proj_weight, std=attention.in_proj_weight.shape[1] ** -0.5)
        for layer in (attention.out_proj, module.ff[-2]):
            nn.init.trunc_normal_(cast("nn.Linear", layer).weight, std=0.02)
    elif isinstance(module, Heads):
        for layer in module.children():
            nn.init.trunc_normal_(cast("nn.Linear", layer).weight, std=0.02)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
    elif isinstance(module, QueryEmbedding):
        _centre(module.patch_proj[0])
    elif isinstance(module, Encoder):
        _centre(module.patch_embed)


def _centre(layer: nn.Module) -> None:
    """Let colours count: they vary by 0.2 round 0.45, and must not drown in the position embedding."""
    weight, bias = (cast("Tensor", getattr(layer, name)) for name in ("weight", "bias"))
    nn.init.trunc_normal_(weight, std=5 * weight[0].numel() ** -0.5)
    with torch.no_grad():
        bias.copy_(-0.45 * weight.flatten(1).sum(1))
