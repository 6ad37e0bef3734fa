"""D4RT: one encoder, one decoder of independent point queries (arXiv 2512.08924, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d4rt_ros.model.config import ModelConfig
from d4rt_ros.model.embedding import QueryEmbedding
from d4rt_ros.model.encoder import Encoder
from d4rt_ros.model.flow import at, flow_paths, follow, with_depth
from d4rt_ros.model.graphs import DecodeGraphs
from d4rt_ros.model.layers import Attention, CrossBlock, KeysValues, SelfBlock
from d4rt_ros.model.pyramid import Conv, Lens, Pyramid, levelled
from d4rt_ros.model.queries import Queries
from d4rt_ros.model.refiner import Refiner
from d4rt_ros.model.scene import Scene
from d4rt_ros.model.traced import Function, Traced

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

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Keys and values of memory [B, M, width] for every block."""
        return [block.keys_values(memory) for block in cast("list[CrossBlock]", list(self.blocks))]

    def forward(self, x: Tensor, memory: KeysValues) -> Tensor:
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


class Encoded(NamedTuple):
    """What the encoder makes of B windows of T frames.

    memory: [B, tokens + 1, dec_width]. paths: where optical flow leads, as `flow_paths` and `with_depth` say.
    pixels: levelled colours and the pyramid's guess of log depth, [B, T, H, W, 4]; patches are cut from these
    instead of from the frames. log_focal: [B], of the length in image widths. None where the network has no
    such part.
    """

    memory: Tensor
    paths: Tensor | None
    pixels: Tensor | None
    log_focal: Tensor | None


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
        self.memory_proj = nn.Linear(config.vit_width, config.dec_width)
        self.query_embedder = QueryEmbedding(config)
        self.decoder = Decoder(config)
        self.heads = Heads(config.dec_width)
        self.refiner = Refiner(config.refiner) if config.refiner else None
        self._forget_runs()
        self.apply(_initialise)
        if config.anchored:  # a query attends to its own place and time before anything is learnt
            for block in self.decoder.blocks:
                weight = cast("CrossBlock", block).cross_attn.in_proj_weight.data
                weight[config.dec_width : 2 * config.dec_width] = weight[: config.dec_width]

    def encoded(self, video: Tensor, aspect_ratio: Tensor) -> Encoded:
        """Encode video [B, T, 3, H, W], float 0..1 at the input size, and width / height [B]."""
        paths = flow_paths(video) if self.config.flow else None
        traced = video.device.type == "cpu" and torch.is_inference_mode_enabled()
        found = iter((self._encoding if traced else self._encode)(video, aspect_ratio, paths))
        memory, paths = next(found), None if paths is None else next(found)
        pixels, log_focal = (next(found), next(found)) if self.config.pyramid else (None, None)
        return Encoded(memory, paths, pixels, log_focal)

    def _encode(self, video: Tensor, aspect_ratio: Tensor, paths: Tensor | None) -> tuple[Tensor, ...]:
        """Memory, then the rest of `Encoded` where the network has it."""
        aspect = self.aspect_ratio_proj(aspect_ratio.reshape(-1, 1, 1).to(torch.float32))
        if self.config.pyramid:
            video = levelled(video)
        tokens, maps = self.encoder(video, aspect, paths)
        memory = self.memory_proj(tokens.to(self.precision))
        if self.config.anchored:
            memory = memory + self.query_embedder.places(video.shape[1])
        pyramid = self.encoder.pyramid
        if pyramid is None:
            return (memory,) if paths is None else (memory, paths)
        log_depth, log_focal = pyramid.depth(maps, len(video)), pyramid.lens(maps.eighth, aspect_ratio)
        pixels = torch.cat((video.movedim(2, -1), log_depth[..., None]), dim=-1)
        start = (memory,) if paths is None else (memory, with_depth(paths, log_depth))
        return (*start, pixels, log_focal)

    def answer(
        self, queries: Queries, images: Tensor, memory: KeysValues, paths: Tensor | None
    ) -> dict[str, Tensor]:
        """Raw outputs for queries [B, N], given images or `Encoded.pixels`, keys and values, and paths."""
        path = None if paths is None else follow(paths, queries)
        patches, own_depth = self.query_embedder.patches(images, queries.u, queries.v, queries.t_src)
        x = self.query_embedder(queries, patches, self.config.image_size, path)
        raw = self.heads(self.decoder(x, memory).to(torch.float32))
        return from_pixel(raw, queries, path, own_depth) if self.config.relative else raw

    def _answer(
        self, u: Tensor, v: Tensor, source: Tensor, target: Tensor, camera: Tensor, images: Tensor,
        paths: Tensor | None, *memory: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """`answer` from tensors to tensors, in the order of HEADS."""
        pairs = list(zip(memory[::2], memory[1::2]))
        raw = self.answer(Queries(u, v, source, target, camera), images, pairs, paths)
        return tuple(raw[name] for name in HEADS)

    def answer_quickly(
        self, queries: Queries, images: Tensor, memory: KeysValues, paths: Tensor | None
    ) -> dict[str, Tensor]:
        """`answer` for inference: by CUDA graphs for one window on a GPU, by a trace on a CPU."""
        if images.device.type == "cuda":
            graphs = queries.shape[0] == 1 and queries.shape[1] > 0
            return (self.graphs if graphs else self.answer)(queries, images, memory, paths)
        asked = (getattr(queries, field.name) for field in fields(queries))
        flat = (part for pair in memory for part in pair)
        return dict(zip(HEADS, self._answering(*asked, images, paths, *flat)))

    def refine(self, pixels: Tensor, hints: Tensor) -> Tensor:
        """See `Refiner`; nothing is changed where the network has none."""
        if self.refiner is None:
            return torch.zeros_like(pixels[..., 3])
        traced = pixels.device.type == "cpu" and torch.is_inference_mode_enabled()
        return (self._refining if traced else self._refine)(pixels, hints)[0]

    def _refine(self, pixels: Tensor, hints: Tensor) -> tuple[Tensor, ...]:
        assert self.refiner is not None
        return (self.refiner(pixels, hints),)

    def _forget_runs(self) -> None:
        """Make graphs and traces anew: they hold weights as these were when they were made."""
        self.graphs = DecodeGraphs(self.answer)
        self._encoding: Function = Traced(self._encode)
        self._refining: Function = Traced(self._refine)
        self._answering: Function = Traced(self._answer, free=5)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> D4RT:
        self._forget_runs()
        return super()._apply(fn, recurse)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """See torch.nn.Module; weights that are changed in another way must not have been used before."""
        self._forget_runs()
        return super().load_state_dict(*args, **options)

    def forward(
        self,
        video: Tensor,
        aspect_ratio: Tensor,
        queries: Queries,
        images: Tensor | None = None,
        encoded: Encoded | None = None,
    ) -> dict[str, Tensor]:
        """Train: raw outputs of the six heads [B, N, ...] for queries [B, N].

        video [B, T, 3, H, W] is float in 0..1 at the input size; `images`, if given, is the same video at
        another resolution, for the colour patches (not with a pyramid). With a pyramid its "log_depth"
        [B, T, H, W], from which answers start, and "log_focal" [B] come too. `encoded`, if given, is what the
        encoder made of the video, its depth and paths perhaps settled as in `Scene.settled`.
        """
        if encoded is None:
            encoded = self.encoded(video, aspect_ratio)
        pixels = encoded.pixels
        if pixels is None:
            pixels = (video if images is None else images).movedim(-3, -1)
        raw = self.answer(queries, pixels, self.decoder.keys_values(encoded.memory), encoded.paths)
        if encoded.pixels is None or encoded.log_focal is None:
            return raw
        return {**raw, "log_depth": pixels[..., 3], "log_focal": encoded.log_focal}

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
        parts = (self.encoder, self.memory_proj, self.query_embedder.patch_proj, self.decoder, self.refiner)
        for module in filter(None, parts):
            for part in module.modules():
                if isinstance(part, (nn.Linear, nn.Conv3d, Attention, Conv)):
                    part.to(dtype)
        return self

    def compile(self) -> D4RT:  # type: ignore[override]
        """Compile the blocks with torch.compile, when they first run; each kind of block once."""
        self._forget_runs()
        self._encoding, self._answering = self._encode, self._answer  # what is compiled cannot be traced
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
        height of the original image where `video` no longer has it. Raises ValueError for a wrong shape or
        range of colours, an odd or too large number of frames, stamps that do not rise.
        """
        return Scene.encode(self, video, stamps, aspect_ratio)


def from_pixel(
    raw: dict[str, Tensor], queries: Queries, path: Tensor | None, log_depth: Tensor | None
) -> dict[str, Tensor]:
    """Read uv as an offset from where flow leads, and xyz as a ray near that pixel's own times a depth.

    Without `path` [B, N, T, C] flow leads nowhere. Depth is an exponential, so always in front of the camera,
    and begins at `log_depth` [B, N] if given; the ray is that of a lens of 70 degrees plus an offset.
    """
    there = seen = torch.stack((queries.u, queries.v), dim=-1)
    if path is not None:
        there = there + at(path, queries.t_tgt)[:, :, 0, :2]
        seen = seen + at(path, queries.t_cam)[:, :, 0, :2]
    logarithm = raw["xyz"][..., 2:]
    if log_depth is not None:
        logarithm = logarithm + log_depth[..., None]
    depth = logarithm.clamp(-8, 8).exp()
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
    elif isinstance(module, Lens):
        nn.init.zeros_(module.out.weight)
    elif isinstance(module, Pyramid):
        nn.init.zeros_(module.from_tokens.weight)
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
