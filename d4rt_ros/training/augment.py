"""Augmentation of clips (paper, appendix A): the same change in all frames of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from d4rt_ros.model import Queries
from d4rt_ros.model.checks import NOT_NEGATIVE, SHARE, check_fields
from d4rt_ros.training.truth import ClipBatch, Truth

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class AugmentSettings:
    """Strengths as largest relative changes, the rest as probabilities; 0 switches one off."""

    brightness: float = 0.4
    contrast: float = 0.4  # up to 1.4 times as much or as little; clipped as in cameras
    gamma: float = 0.0  # exponent up to this much larger, or smaller
    saturation: float = 0.4
    hue: float = 0.1  # of a full turn
    drop: float = 0.2  # to grey
    blur: float = 0.4
    crop: float = 0.0  # probability of a random crop, scale .3 to 1 of the area, log-uniform aspect
    zoom: float = 0.05  # of a crop to half of the side, where crop is on

    def __post_init__(self) -> None:
        """Refuse what is out of range: a change by more than all of it turns colours over."""
        shares = ("brightness", "saturation", "hue", "drop", "blur", "crop", "zoom")
        exponents = ("contrast", "gamma")
        check_fields(
            self, "augment.", **dict.fromkeys(shares, SHARE), **dict.fromkeys(exponents, NOT_NEGATIVE)
        )


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def rotate_hue(video: Tensor, turn: float) -> Tensor:
    """Turn the hue of RGB [..., 3, H, W] by `turn` of a circle, in the YIQ plane: grey stays grey."""
    angle = torch.tensor(2 * torch.pi * turn, dtype=video.dtype)
    yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=video.dtype
    )
    cos, sin = torch.cos(angle), torch.sin(angle)
    plane = torch.eye(3, dtype=video.dtype)
    plane[1, 1], plane[1, 2], plane[2, 1], plane[2, 2] = cos, -sin, sin, cos
    return torch.einsum("ij,...jhw->...ihw", torch.linalg.inv(yiq) @ plane @ yiq, video)


def blur(video: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [T, 3, H, W] with `sigma` in pixels."""
    radius = max(1, round(2 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=video.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    video = F.conv2d(F.pad(video, (radius, radius, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(video, (0, 0, radius, radius), mode="replicate"), kernel.mT, groups=3)


def augment_colour(video: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Change the colours of one clip [T, 3, H, W] uint8; returns uint8 of the same shape."""
    x = video.float() / 255
    if settings.gamma:
        x = x ** (1 + settings.gamma) ** _uniform(generator, -1, 1)
    luma = torch.tensor(_LUMA)[:, None, None]
    x = x * (1 + _uniform(generator, -settings.brightness, settings.brightness))
    middle = (x * luma).sum(-3).mean()
    x = middle + (x - middle) * (1 + settings.contrast) ** _uniform(generator, -1, 1)
    grey = (x * luma).sum(-3, keepdim=True)
    x = grey + (x - grey) * (1 + _uniform(generator, -settings.saturation, settings.saturation))
    if settings.hue:
        x = rotate_hue(x, _uniform(generator, -settings.hue, settings.hue))
    if _uniform(generator, 0, 1) < settings.drop:
        x = (x * luma).sum(-3, keepdim=True).expand_as(x)
    if _uniform(generator, 0, 1) < settings.blur:
        # strength follows the image's size: 1.5 pixels at 256
        x = blur(x, _uniform(generator, 0.1, 1.5) * max(video.shape[-2:]) / 256 + 0.1)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def random_box(settings: AugmentSettings, generator: torch.Generator) -> tuple[float, float, float, float]:
    """A crop (u0, v0, width, height) in 0..1 of the image; the whole image where crop is not drawn."""
    if _uniform(generator, 0, 1) >= settings.crop:
        return 0.0, 0.0, 1.0, 1.0
    if _uniform(generator, 0, 1) < settings.zoom:
        width = height = 0.5
    else:
        area = _uniform(generator, 0.3, 1.0)
        aspect = 2.0 ** _uniform(generator, -0.4, 0.4)
        width, height = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)
    return _uniform(generator, 0, 1 - width), _uniform(generator, 0, 1 - height), width, height


class CroppedClips:
    """Clips seen through one box each, at their old size: a `ClipBatch` that still knows every answer."""

    def __init__(self, clips: ClipBatch, boxes: Tensor) -> None:
        """Crop `clips` [B] to `boxes` [B, 4] of (u0, v0, width, height) in 0..1."""
        self._clips, self._boxes = clips, boxes
        batch, frames, _, height, width = clips.video.shape
        u0, v0, w, h = boxes.unbind(-1)
        theta = torch.zeros(batch, 2, 3)
        theta[:, 0, 0], theta[:, 0, 2] = w, 2 * u0 + w - 1
        theta[:, 1, 1], theta[:, 1, 2] = h, 2 * v0 + h - 1
        grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=False)
        colours = F.grid_sample(
            clips.video.float().flatten(1, 2), grid, "bilinear", "border", align_corners=False
        )
        self.video = colours.round().to(torch.uint8).reshape(batch, frames, 3, height, width)
        # nearest: depth must not be mixed across edges
        self.depth = F.grid_sample(clips.depth, grid, "nearest", "border", align_corners=False)
        self.motion = F.grid_sample(clips.motion, grid, "nearest", "border", align_corners=False)
        self.aspect_ratio = clips.aspect_ratio * w / h
        focal = getattr(clips, "focal", None)
        self.focal = None if focal is None else focal / w
        self.anchors = None
        anchors = getattr(clips, "anchors", None)
        if anchors is not None:
            moved = (anchors - boxes[:, None, None, :2]) / boxes[:, None, None, 2:]
            inside = ((moved >= 0) & (moved <= 1)).all(-1, keepdim=True)
            self.anchors = torch.where(inside, moved, torch.nan)

    def answer(self, queries: Queries) -> Truth:
        """Truth for queries [B, N] in the crop; a point outside the crop is not visible."""
        u0, v0, w, h = self._boxes[:, :, None].unbind(1)
        truth = self._clips.answer(
            Queries.make(u0 + queries.u * w, v0 + queries.v * h, queries.t_src, queries.t_tgt, queries.t_cam)
        )
        u, v = (truth.uv[..., 0] - u0) / w, (truth.uv[..., 1] - v0) / h
        inside = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        outside = ~inside & truth.uv_valid  # known to be hidden, whatever covers it
        return Truth(
            xyz=truth.xyz,
            uv=torch.stack([u, v], -1),
            visibility=torch.where(outside, 0.0, truth.visibility),
            displacement=truth.displacement,
            normal=truth.normal,
            xyz_valid=truth.xyz_valid,
            uv_valid=truth.uv_valid,
            visibility_valid=truth.visibility_valid | outside,
            normal_valid=truth.normal_valid,
        )
