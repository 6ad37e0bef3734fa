"""Convolutions trained alone: the guess of depth, and what the refiner makes of a window's structure.

Without the transformer and without queries a step sees as many scenes as convolutions allow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d4rt_ros.model import D4RT
from d4rt_ros.model.flow import fine_paths, flow_paths
from d4rt_ros.model.parallel import over_cores
from d4rt_ros.model.pyramid import Pyramid, levelled
from d4rt_ros.model.structure import CELLS, Structure, find_structure
from d4rt_ros.model.video import resize
from d4rt_ros.training.feed import Batch, focal_lengths
from d4rt_ros.training.losses import map_error, relative_error
from d4rt_ros.training.truth import ClipBatch

LENS_WEIGHT = 0.3  # of the lens's error beside that of log depth
_FOCAL_ERROR = 0.1  # standard deviation of the logarithm: nobody tells a robot's camera exactly


class DepthNetwork(nn.Module):
    """The part of a network that a stage trains, as a module all of whose parameters take part in a step."""

    def __init__(self, model: D4RT, stage: str) -> None:
        """For "guess" or "refined"; the rest is frozen. Raises ValueError where the part is missing."""
        super().__init__()
        if model.encoder.pyramid is None:
            raise ValueError("depth: this network has no pyramid to train")
        pyramid, refiner = model.encoder.pyramid, model.refiner
        if stage == "refined" and refiner is None:
            raise ValueError("depth: this network has no refiner to train")
        model.requires_grad_(False)
        if stage == "guess":
            refiner = None
            pyramid.requires_grad_(True)
            pyramid.to_tokens.requires_grad_(False)
        elif refiner is not None:
            refiner.requires_grad_(True)
        self.pyramid, self.refiner = pyramid, refiner
        self.flow, self.size = model.config.flow, model.config.image_size

    def forward(self, video: Tensor, aspect_ratio: Tensor, focal: Tensor) -> dict[str, Tensor]:
        """Log depth of every pixel by name, [B, T, *image_size], of video [B, T, 3, H, W] uint8.

        aspect_ratio, focal: [B], see `find_structure`.
        """
        if self.refiner is None:
            pixels, log_focal = _pixels(self.pyramid, self.flow, video, self.size, aspect_ratio)
            return {"guess": pixels[..., 3], "lens": log_focal}
        with torch.no_grad():
            pixels, _ = _pixels(self.pyramid, self.flow, video, self.size, aspect_ratio)
            found, _ = _structures(video, pixels[..., 3], aspect_ratio, focal)
            hints = torch.stack([f.hints for f in found]).to(video.device)
            told = torch.stack([f.log_depth for f in found]).to(video.device)
        return {"guess": pixels[..., 3], "told": told, "refined": told + self.refiner(pixels, hints)}


@torch.no_grad()
def settled(model: D4RT, video: Tensor, aspect_ratio: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """What answers start from, for `D4RT.forward`: log depth [B, T, H, W] and paths of clips uint8."""
    assert model.encoder.pyramid is not None
    pixels, _ = _pixels(model.encoder.pyramid, True, video, model.config.image_size, aspect_ratio)
    found, paths = _structures(video, pixels[..., 3], aspect_ratio, focal)
    change = model.refine(pixels, torch.stack([f.hints for f in found]).to(video.device))
    log_depth = torch.stack([f.refined(c).log_depth for f, c in zip(found, change)])
    return log_depth.to(video.device), paths


def _pixels(
    pyramid: Pyramid, flow: bool, video: Tensor, size: tuple[int, int], aspect_ratio: Tensor
) -> tuple[Tensor, Tensor]:
    """`Encoded.pixels` and `log_focal` without the transformer."""
    video = resize(video.float() / 255, size)
    paths, video = flow_paths(video) if flow else None, levelled(video)
    log_depth, log_focal = pyramid.guessed(video, paths, aspect_ratio)
    return torch.cat((video.movedim(2, -1), log_depth[..., None]), dim=-1), log_focal


def _structures(
    video: Tensor, guess: Tensor, aspect_ratio: Tensor, focal: Tensor
) -> tuple[list[Structure], Tensor]:
    """What the windows of clips tell, and the paths that tell it."""

    def find(row: int) -> tuple[Structure, Tensor]:
        paths = fine_paths(video[row], CELLS)[0]
        guessed, aspect = guess[row].float(), float(aspect_ratio[row])
        return find_structure(video[row], paths, guessed, aspect, float(focal[row])), paths

    found, paths = zip(*over_cores(find, range(len(video))))
    return list(found), torch.stack(paths).to(video.device)


def depth_terms(found: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Errors [B] by name of what a `DepthNetwork` found, and the lens's in its logarithm.

    A guess is to be right in the middle, since structure takes it for an expectation; what is made of both is
    to be right as depth is measured (AbsRel).
    """
    depth = batch.depth.to(found["guess"].device)
    error = relative_error if "refined" in found else map_error
    terms = {n: error(_sized(value, depth), depth) for n, value in found.items() if n != "lens"}
    if "lens" in found:
        terms["lens"] = (found["lens"] - batch.focal.log().to(depth.device)).abs()
    return terms


def _sized(log_depth: Tensor, depth: Tensor) -> Tensor:
    """A map [B, T, H, W] at the size of another."""
    return F.interpolate(log_depth, depth.shape[-2:], mode="bilinear", align_corners=False)


def uncertain(batch: Batch) -> Tensor:
    """Focal lengths [B] of a batch as a robot would have them."""
    return batch.focal * (_FOCAL_ERROR * torch.randn(len(batch.focal))).exp()


@torch.no_grad()
def validate_depth(network: DepthNetwork, clips: list[ClipBatch]) -> dict[str, float]:
    """AbsRel, one scale a clip, by name of a map and of `constant` depth; of the lens the median error."""
    found: dict[str, list[float]] = {}
    lens: list[Tensor] = []
    for batch in clips:
        focal = focal_lengths(batch)
        maps = network(batch.video, batch.aspect_ratio, focal)
        if "lens" in maps:
            lens.append((maps.pop("lens").exp() / focal - 1).abs())
        maps["constant"] = torch.zeros_like(batch.depth)
        for name, log_depth in maps.items():
            for z, truth in zip(_sized(log_depth, batch.depth).exp(), batch.depth):
                known = torch.isfinite(truth)
                ratio = z[known] / truth[known]
                found.setdefault(name, []).append(float((ratio / ratio.median() - 1).abs().mean()))
    figures = {f"absrel_{name}": float(torch.tensor(values).nanmean()) for name, values in found.items()}
    return {**figures, "focal_err": float(torch.cat(lens).median())} if lens else figures
