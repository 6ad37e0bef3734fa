"""The PyPI package `d4rt` at the size of one of ours, for a comparison in the same run.

It is installed on first use into a folder of its own, which only benchmarks put on their path: its metadata
names a dependency that does not exist, so pip must not resolve it.
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d4rt_ros.model import D4RT, ModelConfig

FOLDER = Path(__file__).resolve().parent.parent / ".bench"
PACKAGES = (
    "d4rt==0.1.0",
    "x-mlps-pytorch==0.6.9",
    "x-transformers==2.31.10",
    "einx==0.4.3",
    "einops==0.8.2",
    "torch-einops-utils==0.2.0",
    "loguru==0.7.3",
    "frozendict==2.5.1",
)


@dataclass
class Peer:
    """The other implementation with random weights, and how its size compares."""

    model: Any
    video: Tensor
    parameters: int

    def encode(self) -> Tensor:
        """Video to memory."""
        return self.model.video_encoder(self.video)

    def decode(self, memory: Tensor, queries: int) -> Tensor:
        """`queries` random questions against a memory."""
        frames, size = self.video.shape[1], self.video.shape[-1]
        device = self.video.device
        times = [torch.randint(frames, (1, queries), device=device) for _ in range(3)]
        coordinates = torch.randint(size, (1, queries, 2), device=device)
        return self.model(
            self.video,
            coors=coordinates,
            time_src=times[0],
            time_tgt=times[1],
            time_camera=times[2],
            encoded_video=memory,
        )


def build(config: ModelConfig, device: torch.device) -> Peer:
    """Build the peer with as many tokens as `config`, its width, and depths of nearest parameter counts.

    It has no tubelets, so it gets one frame a time slot; its weights stay in float32, as it comes. Raises
    RuntimeError if it cannot be installed.
    """
    network = _import()
    slots, rows, columns = config.token_grid
    if rows != columns or config.vit_width != config.dec_width:
        raise ValueError("the peer has square images and one width for encoder and decoder")
    side = config.image_size[0]

    def make(enc_depth: int, dec_depth: int) -> nn.Module:
        return network(
            dim=config.vit_width,
            video_image_size=side,
            video_patch_size=config.patch[1],
            video_max_time_len=slots,
            enc_depth=enc_depth,
            dec_depth=dec_depth,
            enc_dim_head=config.vit_width // config.vit_heads,
            enc_heads=config.vit_heads,
            dec_dim_head=config.dec_width // config.dec_heads,
            dec_heads=config.dec_heads,
            video_has_latent_ar_module=False,
        )

    one, enc_two, dec_two = (_count(make(*depths)) for depths in ((1, 1), (2, 1), (1, 2)))
    with torch.device("meta"):
        ours = D4RT(config)
    encoder, decoder = _count(ours.encoder), _count(ours.decoder)
    depths = max(1, round(encoder / (enc_two - one))), max(1, round(decoder / (dec_two - one)))
    model = make(*depths).to(device).eval().requires_grad_(False)
    video = torch.rand(1, slots, 3, side, side, device=device)
    return Peer(model, video, _count(model))


def _count(model: nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in model.parameters())


def _import() -> Any:
    marker = FOLDER / "installed"
    if not marker.is_file() or marker.read_text() != " ".join(PACKAGES):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        done = subprocess.run([*command, "--target", str(FOLDER), *PACKAGES], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the peer could not be installed: {done.stderr.strip()[-500:]}")
        marker.write_text(" ".join(PACKAGES))
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    from d4rt import D4RT  # type: ignore[import-not-found]

    return D4RT
