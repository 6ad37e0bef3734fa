"""What a camera does to an image: exposure, noise, blur, flicker, JPEG-like blocks, dark corners."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from d4rt_ros.training.rigid import Random


@dataclass(frozen=True)
class SensorSettings:
    """Strengths; each clip draws its own amount up to these. 0 switches an effect off."""

    exposure_drift: float = 0.3  # relative change over the clip
    flicker: float = 0.08  # relative brightness of bands that roll through the rows
    noise: float = 0.03  # standard deviation of 0..1 values
    blur: float = 0.7  # pixels; at least half of it, as pixels of a real sensor are never point samples
    vignette: float = 0.4  # loss in the corners
    jpeg: float = 0.3  # share of clips with coarse 8x8 cosine coefficients


def _dct() -> Tensor:
    k = torch.arange(8.0)
    basis = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * 0.5
    basis[0] *= math.sqrt(0.5)
    return basis


def jpeg_blocks(image: Tensor, step: Tensor) -> Tensor:
    """Round the 8x8 cosine coefficients of images [N, 3, H, W] to multiples of `step` [N], more the finer."""
    n, _, height, width = image.shape
    padded = F.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
    basis = _dct().to(image)
    h, w = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.reshape(n, 3, h, 8, w, 8).transpose(3, 4)
    weight = 1 + 0.4 * (torch.arange(8)[:, None] + torch.arange(8)).to(image)
    steps = step.view(-1, 1, 1, 1, 1, 1) * weight
    coarse = ((basis @ blocks @ basis.T) / steps).round() * steps
    blocks = basis.T @ coarse @ basis
    return blocks.transpose(3, 4).reshape(n, 3, h * 8, w * 8)[..., :height, :width]


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of [B, T, 3, H, W], sigma [B] in pixels, five taps."""
    b, t, c, height, width = image.shape
    taps = torch.arange(-2.0, 3.0, device=image.device)
    kernel = torch.exp(-0.5 * (taps / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True)).to(image)
    flat = image.transpose(0, 2).reshape(1, c * t * b, height, width)
    rows = kernel.repeat(c * t, 1).view(c * t * b, 1, 1, 5)
    flat = F.conv2d(F.pad(flat, (2, 2, 0, 0), mode="replicate"), rows, groups=c * t * b)
    flat = F.conv2d(F.pad(flat, (0, 0, 2, 2), mode="replicate"), rows.mT, groups=c * t * b)
    return flat.view(c, t, b, height, width).transpose(0, 2)


def capture(colour: Tensor, settings: SensorSettings, r: Random) -> Tensor:
    """Linear colours [B, T, 3, H, W] to a uint8 video."""
    b, t, _, height, width = colour.shape
    device = colour.device
    mean = colour.mean((1, 2, 3, 4)).clamp_min(1e-3)
    gain = r.uniform(0.16, 0.36, b).to(device) / mean
    drift = r.uniform(-1, 1, b, 1) * settings.exposure_drift * torch.linspace(-0.5, 0.5, t)
    gain = gain[:, None] * torch.exp(drift).to(device)
    row = torch.arange(height) / height
    phase = r.uniform(0, 2 * math.pi, b, 1, 1) + r.uniform(-3, 3, b, 1, 1) * torch.arange(t)[:, None]
    amount = settings.flicker * r.uniform(0, 1, b, 1, 1) * r.chance(0.3, b, 1, 1)
    bands = 1 + amount * torch.sin(2 * math.pi * r.uniform(0.5, 3, b, 1, 1) * row + phase)
    x, y = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)
    radius2 = 0.5 * (x[None] ** 2 + y[:, None] ** 2)
    corner = 1 - settings.vignette * r.uniform(0, 1, b, 1, 1) * r.chance(0.5, b, 1, 1) * radius2
    image = colour * gain[:, :, None, None, None]
    image = image * bands.to(device)[:, :, None, :, None] * corner.to(device)[:, None, None]
    image = image.clamp(0, 1) ** (1 / 2.2)
    softness = r.uniform(0.5, 1, b)
    if settings.blur:
        image = _blur(image, (settings.blur * softness).to(device))
    if settings.noise:
        sigma = settings.noise * r.uniform(0, 1, b) ** 2
        noise = torch.randn(image.shape, generator=r.generator)
        image = image + sigma.view(-1, 1, 1, 1, 1).to(device) * noise.to(device)
    chosen = r.chance(settings.jpeg, b)
    steps = r.log_uniform(0.02, 0.15, b).to(device)
    if bool(chosen.any()):
        part = image[chosen]
        blocked = jpeg_blocks(part.flatten(0, 1), steps[chosen].repeat_interleave(t)).view_as(part)
        image = image.index_put((chosen.nonzero()[:, 0],), blocked)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)
