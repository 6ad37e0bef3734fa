"""Depth once the encoder is trained: what the refiner makes of a window's structure, and settled windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d4rt_ros.model import D4RT
from d4rt_ros.model.flow import fine_paths, with_depth
from d4rt_ros.model.network import Encoded
from d4rt_ros.model.parallel import over_cores
from d4rt_ros.model.structure import CELLS, Structure, find_structure
from d4rt_ros.model.video import resize
from d4rt_ros.training.feed import Batch, focal_lengths
from d4rt_ros.training.losses import map_error, relative_error, sized
from d4rt_ros.training.truth import ClipBatch


class DepthNetwork(nn.Module):
    """A network's refiner, trained by itself on what the rest, which stays, finds."""

    def __init__(self, model: D4RT) -> None:
        """Freezes all but the refiner. Raises ValueError where there is none."""
        super().__init__()
        if model.refiner is None:
            raise ValueError("refine: this network has no refiner to train")
        model.requires_grad_(False)
        model.refiner.requires_grad_(True)
        self.model = model

    def forward(self, video: Tensor, aspect_ratio: Tensor, focal: Tensor) -> dict[str, Tensor]:
        """Log depth of every pixel by name, [B, T, *image_size], of video [B, T, 3, H, W] uint8.

        aspect_ratio, focal: [B], see `find_structure`.
        """
        with torch.no_grad():
            pixels = _encoded(self.model, video, aspect_ratio)[1]
            found, _ = _structures(video, pixels[..., 3], aspect_ratio, focal)
            hints = torch.stack([f.hints for f in found]).to(video.device)
            told = torch.stack([f.log_depth for f in found]).to(video.device)
        assert self.model.refiner is not None
        return {"guess": pixels[..., 3], "told": told, "refined": told + self.model.refiner(pixels, hints)}


@torch.no_grad()
def settled(model: D4RT, video: Tensor, aspect_ratio: Tensor, focal: Tensor) -> Encoded:
    """What answers start from in use, for `D4RT.forward`, of clips [B, T, 3, H, W] uint8."""
    encoded, pixels = _encoded(model, video, aspect_ratio)
    found, paths = _structures(video, pixels[..., 3], aspect_ratio, focal)
    change = model.refine(pixels, torch.stack([f.hints for f in found]).to(video.device))
    log_depth = torch.stack([f.refined(c).log_depth for f, c in zip(found, change)]).to(video.device)
    pixels = torch.cat((pixels[..., :3], log_depth[..., None]), -1)
    return encoded._replace(pixels=pixels, paths=with_depth(paths, log_depth))


def _encoded(model: D4RT, video: Tensor, aspect_ratio: Tensor) -> tuple[Encoded, Tensor]:
    """Clips uint8 encoded, and of that the pixels."""
    unit = resize(video.float() / 255, model.config.image_size)
    encoded = model.encoded(unit, aspect_ratio.to(video.device))
    assert encoded.pixels is not None
    return encoded, encoded.pixels


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
    """Errors [B] by name of what a `DepthNetwork` found.

    A guess is to be right in the middle, since structure takes it for an expectation; what is made of both is
    to be right as depth is measured (AbsRel).
    """
    depth = batch.depth.to(found["guess"].device)
    errors = {"guess": map_error, "told": relative_error, "refined": relative_error}
    return {name: errors[name](value, depth) for name, value in found.items()}


@torch.no_grad()
def validate_depth(network: DepthNetwork, clips: list[ClipBatch]) -> dict[str, float]:
    """AbsRel, one scale a clip, by name of a map and of `constant` depth."""
    found: dict[str, list[float]] = {}
    for batch in clips:
        maps = network(batch.video, batch.aspect_ratio, focal_lengths(batch))
        maps["constant"] = torch.zeros_like(batch.depth)
        for name, log_depth in maps.items():
            for z, truth in zip(sized(log_depth, batch.depth).exp(), batch.depth):
                known = torch.isfinite(truth)
                ratio = z[known] / truth[known]
                found.setdefault(name, []).append(float((ratio / ratio.median() - 1).abs().mean()))
    return {f"absrel_{name}": float(torch.tensor(values).nanmean()) for name, values in found.items()}
