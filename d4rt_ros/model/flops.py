"""Floating-point operations of the network, from its configuration alone (a multiply-add counts as two).

Matrix products and attention only, as torch's own counter does.
"""

from __future__ import annotations

import math

from d4rt_ros.model.config import ModelConfig
from d4rt_ros.model.embedding import path_features
from d4rt_ros.model.encoder import FLOW_CELLS
from d4rt_ros.model.network import HEADS
from d4rt_ros.model.pyramid import FLOWS, JOINED, LENS_PARTS, LOOK


def encode_flops(config: ModelConfig, frames: int | None = None) -> int:
    """Operations to encode one window of `frames` (default: the longest), keys and values included."""
    return vit_flops(config, frames) + keys_values_flops(config, frames)


def vit_flops(config: ModelConfig, frames: int | None = None) -> int:
    """Operations of the encoder and the memory projection."""
    slots, tokens = _tokens(config, frames)
    width = config.vit_width
    per_token = 2 * width * (4 * width + 2 * config.vit_hidden)
    total = 2 * tokens * 3 * math.prod(config.patch) * width
    for layer in range(config.vit_depth):
        seen = tokens + 1 if layer % 2 else tokens // slots
        rows = tokens + 1 if layer % 2 else tokens
        total += rows * (per_token + 4 * seen * width)
    total += 2 * (tokens + 1) * width * config.dec_width
    if config.flow:
        total += 2 * tokens * config.patch[0] * FLOW_CELLS**2 * config.frames * 3 * width
    if config.pyramid:
        total += pyramid_flops(config, frames)
    if config.anchored:
        total += 2 * (tokens // slots) * _uv_features(config) * config.dec_width
    return total + 2 * width * (1 + width)


def pyramid_flops(config: ModelConfig, frames: int | None = None) -> int:
    """Operations of the convolutions beside the transformer."""
    slots, tokens = _tokens(config, frames)
    pixels = slots * config.patch[0] * math.prod(config.image_size)
    half, quarter, eighth = (config.pyramid * step for step in (1, 2, 4))
    kernels = 9 * 5 * half / 4 + 9 * half * quarter / 16 + 9 * quarter * eighth / 64
    kernels += 9 * 10 * quarter**2 / 16 + 9 * 6 * eighth**2 / 64 + 4 * eighth * quarter / 64 + quarter
    kernels += quarter * half / 4 + 9 * half**2 + 9 * half
    if config.flow:
        kernels += 9 * FLOWS * quarter / 16
    lens = 2 * slots * config.patch[0] * JOINED * (LOOK * LENS_PARTS**2 + 2)
    kernels += eighth * LOOK / 64
    return round(2 * pixels * kernels) + 4 * tokens * config.patch[0] * eighth * config.vit_width + lens


def keys_values_flops(config: ModelConfig, frames: int | None = None) -> int:
    """Operations to project the memory to keys and values, once a scene."""
    _, tokens = _tokens(config, frames)
    return config.dec_depth * 2 * (tokens + 1) * config.dec_width * 2 * config.dec_width


def query_flops(config: ModelConfig, frames: int | None = None) -> int:
    """Operations of one query against a cached scene."""
    _, tokens = _tokens(config, frames)
    width = config.dec_width
    block = 2 * width * (2 * width + 2 * config.dec_hidden) + 4 * (tokens + 1) * width
    flow = path_features(config) if config.flow else 0
    channels = 4 if config.pyramid else 3
    embed = 2 * width * (_uv_features(config) + flow + channels * config.rgb_patch**2 + width)
    return embed + config.dec_depth * block + 2 * width * sum(HEADS.values())


def _uv_features(config: ModelConfig) -> int:
    return 2 * (1 + 2 * config.uv_bands)


def _tokens(config: ModelConfig, frames: int | None) -> tuple[int, int]:
    slots = (frames or config.frames) // config.patch[0]
    return slots, slots * config.token_grid[1] * config.token_grid[2]
