"""Optimisers, learning-rate schedule and the running mean of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from d4rt_ros.training.recipe import OptimiserSettings

# Muon is for matrices between hidden layers
_NOT_HIDDEN = ("_embed.", "aspect_ratio_proj.0", "uv_proj", "patch_proj.0", "lens.out")


def build_optimisers(
    model: nn.Module, settings: OptimiserSettings, precision: torch.dtype = torch.bfloat16
) -> list[torch.optim.Optimizer]:
    """Muon over hidden matrices and AdamW over the rest, or AdamW alone; every group keeps its base rate.

    Norms, biases and embeddings do not decay. precision: of Muon's products. Raises ValueError where torch is
    too old to have Muon.
    """
    if settings.kind == "muon" and not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optimiser.kind muon needs torch 2.9, this is {torch.__version__}: take adamw")
    hidden: list[Tensor] = []
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    outputs: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        outer = any(part in name for part in _NOT_HIDDEN)
        if name.startswith("heads."):
            outputs.append(parameter)
        elif settings.kind == "muon" and parameter.ndim == 2 and not outer:
            hidden.append(parameter)
        elif parameter.ndim >= 2 and "embed.weight" not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)
    optimisers: list[torch.optim.Optimizer] = []
    if hidden:
        decay = settings.weight_decay
        kind = torch.optim.Muon
        if precision != torch.bfloat16:
            from d4rt_ros.training.muon import Muon32  # only there if torch has Muon

            kind = Muon32
        optimisers.append(kind(hidden, lr=settings.muon_lr, weight_decay=decay, momentum=0.95))
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
        # every answer moves with them at once: at the full rate uv trembles by more than a pixel
        {"params": outputs, "weight_decay": 0.0, "lr": settings.lr * settings.heads},
    ]
    optimisers.append(
        torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=(0.9, 0.98), foreach=True)
    )
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["base_lr"] = group["lr"]
    return optimisers


def rate(step: int, progress: float, settings: OptimiserSettings) -> float:
    """Factor on the learning rate: linear warm-up over `warmup` steps, cosine over `progress` 0..1."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return warm * (settings.final + (1 - settings.final) * cosine)


def set_rate(optimisers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` of its base."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor


class RunningMean:
    """Exponential moving average of the weights; young averages forget faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the weights of `model`."""
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights of `model` after step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        floating = [name for name, w in self.weights.items() if w.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in floating], [state[n] for n in floating], 1 - decay)
        for name in self.weights.keys() - set(floating):
            self.weights[name].copy_(state[name])
