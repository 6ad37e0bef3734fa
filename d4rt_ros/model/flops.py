"""Floating-point operations of the network, from its configuration alone (a multiply-add counts as two).

Matrix products and attention only, as torch's own counter does.
"""

from __future__ import annotations

import math

from d4rt_ros.model.config import ModelConfig
from d4rt_ros.model.encoder import FLOW_CELLS
from d4rt_ros.model.network import HEADS


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
    if config.anchored:
        total += 2 * (tokens // slots) * _uv_features(config) * config.dec_width
    return total + 2 * width * (1 + width)


def keys_values_flops(config: ModelConfig, frames: int | None = None) -> int:
    """Operations to project the memory to keys and values, once a scene."""
    _, tokens = _tokens(config, frames)
    return config.dec_depth * 2 * (tokens + 1) * config.dec_width * 2 * config.dec_width


def query_flops(config: ModelConfig, frames: int | None = None) -> int:
    """Operations of one query against a cached scene."""
    _, tokens = _tokens(config, frames)
    width = config.dec_width
    block = 2 * width * (2 * width + 2 * config.dec_hidden) + 4 * (tokens + 1) * width
    flow = (config.frames + 2) * 3 if config.flow else 0
    embed = 2 * width * (_uv_features(config) + flow + 3 * config.rgb_patch**2 + width)
    return embed + config.dec_depth * block + 2 * width * sum(HEADS.values())


def _uv_features(config: ModelConfig) -> int:
    return 2 * (1 + 2 * config.uv_bands)


def _tokens(config: ModelConfig, frames: int | None) -> tuple[int, int]:
    slots = (frames or config.frames) // config.patch[0]
    return slots, slots * config.token_grid[1] * config.token_grid[2]
