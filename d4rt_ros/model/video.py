"""Videos on their way to a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_frames(frames: int, longest: int, step: int) -> int:
    """Return `frames` if a window may have so many. Raises ValueError otherwise."""
    if frames < step or frames % step:
        raise ValueError(f"{frames} frames are not a multiple of the tubelet's {step}")
    if frames > longest:
        raise ValueError(f"{frames} frames are more than the network's {longest}")
    return frames


def upload(video: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; from pinned memory on a stream of its own, so that running work is not held up."""
    if device.type != "cuda" or video.device == device:
        return video.to(device)
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        copy = video.pin_memory().to(device, non_blocking=True)
    torch.cuda.current_stream(device).wait_stream(stream)
    copy.record_stream(torch.cuda.current_stream(device))
    return copy


def resize(video: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [B, T, 3, H, W] to `size` with averaging; its extent, so (u, v), stays the same."""
    if tuple(video.shape[-2:]) == size:
        return video
    flat = F.interpolate(video.flatten(0, 1), size, mode="bilinear", antialias=True, align_corners=False)
    return flat.unflatten(0, video.shape[:2])
