"""The training loss of the paper (section 2.1), with masks where the truth is missing.

Every term is a mean over the valid queries of a clip and then over clips, so that splitting a batch over
processes changes nothing. Values under a false mask never enter the arithmetic: NaN there is harmless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from d4rt_ros.model.checks import NOT_NEGATIVE, check_fields
from d4rt_ros.training.truth import Truth

_SMALL_DEPTH = (
    0.05  # of the mean depth; the log-depth term is linear below it so that negative z still learns
)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the paper's values, and `log_depth` which the paper does not have."""

    xyz: float = 1.0
    uv: float = 0.1
    visibility: float = 0.1
    displacement: float = 0.1
    normal: float = 0.5
    confidence: float = 0.2
    log_depth: float = 0.0  # per-clip scale-invariant log depth: keeps depth variance from collapsing
    map: float = 0.0  # the same of every pixel of the pyramid's guess, for networks that have one
    lens: float = 0.0  # of the logarithm of the focal length that such networks tell

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        weights = [f.name for f in fields(self)]
        check_fields(self, "losses.", **dict.fromkeys(weights, NOT_NEGATIVE))
        if not any(getattr(self, name) for name in weights):
            raise ValueError("losses are all of weight 0: there is nothing to learn")


def signed_log(x: Tensor) -> Tensor:
    """sign(x) * log(1 + |x|), element by element."""
    return torch.sign(x) * torch.log1p(x.abs())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [B, N] where `mask` [B, N], for every clip [B]; 0 for a clip without any."""
    count = mask.sum(-1)
    return torch.where(mask, values, 0.0).sum(-1) / count.clamp(min=1)


def mean_depth(xyz: Tensor, mask: Tensor) -> Tensor:
    """Mean |z| of `xyz` [B, N, 3] over `mask` [B, N], as [B, 1, 1], bounded away from 0."""
    return masked_mean(xyz[..., 2].abs(), mask).clamp(min=1e-3)[:, None, None]


def log_depth_error(z: Tensor, z_true: Tensor, mask: Tensor) -> Tensor:
    """Mean |log z - log z_true - their median difference| for every clip [B].

    Args:
        z: predicted depth [B, N], divided by its own mean.
        z_true: true depth [B, N], divided by its own mean.
        mask: where both count [B, N]; points nearer than a twentieth of the mean depth are left out.
    """
    mask = mask & (z_true > _SMALL_DEPTH)
    log_z = torch.where(z > _SMALL_DEPTH, z.clamp(min=_SMALL_DEPTH).log(), z / _SMALL_DEPTH - 1 + _LOG_SMALL)
    return masked_mean(_centred(log_z - torch.where(mask, z_true, 1.0).log(), mask).abs(), mask)


def map_error(log_depth: Tensor, depth: Tensor) -> Tensor:
    """Mean |log z - log z_true - their median difference| of maps [B, T, H, W] for every clip [B].

    Pixels without a finite true depth above 0 are left out. The guess may be of another size than the truth.
    """
    apart, known = _map_ratios(log_depth, depth)
    return masked_mean(apart.abs(), known)


def relative_error(log_depth: Tensor, depth: Tensor) -> Tensor:
    """AbsRel, mean |z / z_true - 1|, of maps [B, T, H, W] after one scale a clip (the median ratio): [B].

    Linear in the logarithm where z is more than e times too large, so that no pixel outweighs the others.
    """
    apart, known = _map_ratios(log_depth, depth)
    # The scale's own derivative, as if it were the mean's: else all depths are pushed nearer without end.
    middle = masked_mean(apart, known)[:, None]
    apart = apart - middle + middle.detach()
    near = torch.expm1(apart.clamp(max=1.0)).abs()
    return masked_mean(near + math.e * (apart - 1.0).clamp(min=0.0), known)


def sized(log_depth: Tensor, depth: Tensor) -> Tensor:
    """A map [B, T, H, W] at the size of another."""
    return F.interpolate(log_depth, depth.shape[-2:], mode="bilinear", align_corners=False)


def _map_ratios(log_depth: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of z / z_true, less its median, [B, T * H * W], and where it is known."""
    log_depth = sized(log_depth, depth)
    known = (torch.isfinite(depth) & (depth > 0)).flatten(1)
    return _centred(log_depth.flatten(1) - torch.where(known, depth.flatten(1), 1.0).log(), known), known


def _centred(values: Tensor, mask: Tensor) -> Tensor:
    """Values [B, N] less the median of those where `mask`, for every clip; no gradient through the median."""
    known = torch.where(mask, values.detach(), torch.nan)
    return values - torch.nanmedian(known, dim=-1, keepdim=True).values.nan_to_num(0.0)


_LOG_SMALL = float(torch.tensor(_SMALL_DEPTH).log())


def d4rt_loss(
    raw: Mapping[str, Tensor],
    truth: Truth,
    weights: LossWeights,
    depth: Tensor | None = None,
    focal: Tensor | None = None,
    *,
    confidence_active: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all terms, and every term by name (detached, unweighted).

    Args:
        raw: what `D4RT.forward` returns for queries [B, N]: xyz, uv (but as `pixels` counts it), visibility
            (logit), displacement, normal, confidence (logit); log_depth [B, T, H, W] and log_focal [B] where
            there is a pyramid.
        truth: the answers [B, N].
        weights: of the terms.
        depth: true depth of every pixel [B, T, H, W], not finite where unknown; needed for the term `map`.
        focal: true focal lengths [B] in image widths; needed for the term `lens`.
        confidence_active: False holds c at 1 in the xyz term, for the first part of a run: with it on from
            the start the network lowers c instead of the error. The head itself learns from the error all the
            same.
    """
    raw = {name: value.float() for name, value in raw.items()}
    known = truth.xyz_valid
    true_xyz = torch.where(known[..., None], truth.xyz, 0.0)
    true_shift = torch.where(known[..., None], truth.displacement, 0.0)
    scale, true_scale = mean_depth(raw["xyz"], known), mean_depth(true_xyz, known)
    xyz, true_xyz = raw["xyz"] / scale, true_xyz / true_scale

    error = (signed_log(xyz) - signed_log(true_xyz)).abs().sum(-1)
    confidence = torch.sigmoid(raw["confidence"]).clamp(1e-4, 1 - 1e-4)
    weighted = confidence * error
    if not confidence_active:  # worth as much as at c = 1, while the head learns as ever
        taught = confidence * error.detach()
        weighted = error + taught - taught.detach()
    terms = {
        "xyz": masked_mean(weighted, known),
        "confidence": masked_mean(-confidence.log(), known),
        "log_depth": log_depth_error(xyz[..., 2], true_xyz[..., 2], known),
        "displacement": masked_mean(
            (raw["displacement"] / scale - true_shift / true_scale).abs().sum(-1), known
        ),
    }
    # a point that left the image by half of its size may be anywhere: only the others teach
    near = truth.uv_valid & ((truth.uv - 0.5).abs() < 1.0).all(-1)
    true_uv = torch.where(near[..., None], truth.uv, 0.5)
    terms["uv"] = masked_mean((raw["uv"] - true_uv).abs().sum(-1), near)
    seen = torch.where(truth.visibility_valid, truth.visibility, 0.0)
    bce = F.binary_cross_entropy_with_logits(raw["visibility"], seen, reduction="none")
    terms["visibility"] = masked_mean(bce, truth.visibility_valid)
    true_normal = torch.where(truth.normal_valid[..., None], truth.normal, 0.0)
    cosine = F.cosine_similarity(raw["normal"], true_normal, dim=-1, eps=1e-4)
    terms["normal"] = masked_mean(1 - cosine, truth.normal_valid)
    if "log_depth" in raw and depth is not None:
        terms["map"] = map_error(raw["log_depth"], depth)
    if "log_focal" in raw and focal is not None:
        terms["lens"] = (raw["log_focal"] - focal.log()).abs()

    total = sum(getattr(weights, name) * term.mean() for name, term in terms.items())
    report = {name: term.detach().mean() for name, term in terms.items()}
    report["error"] = masked_mean(error.detach(), known).mean()
    return total, report
