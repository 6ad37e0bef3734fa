"""Videos on their way to a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index

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


def check_stamps(stamps: Sequence[int] | None, frames: int) -> tuple[int, ...]:
    """Stamps of a window, frame numbers for None. Raises ValueError unless they are rising integers."""
    try:
        whole = tuple(range(frames) if stamps is None else map(index, stamps))
    except TypeError as error:
        raise ValueError(f"stamps are integers, nanoseconds: {error}") from None
    if len(whole) != frames or any(b <= a for a, b in zip(whole, whole[1:])):
        raise ValueError(f"{frames} rising stamps are needed, got {whole}")
    return whole


def check_aspect(aspect: Tensor, windows: int) -> None:
    """Raise ValueError for aspect ratios of another number than one or one a window, or that nothing has."""
    if aspect.shape not in ((), (1,), (windows,)):
        raise ValueError(f"aspect_ratio is {list(aspect.shape)}, it must be one number or [{windows}]")
    if not bool(((aspect > 0) & torch.isfinite(aspect)).all()):
        raise ValueError(f"aspect_ratio is {aspect.tolist()}, it must be above 0")


def check_colours(video: Tensor) -> None:
    """Raise ValueError unless a video is uint8, or floating point in 0..1."""
    if video.dtype == torch.uint8:
        return
    if not video.is_floating_point():
        raise ValueError(f"video is {video.dtype}; uint8 or floating point in 0..1 is understood")
    low, high = (float(x) for x in video.aminmax())  # NaN spreads
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("video has values that are not finite")
    if low < 0 or high > 1:
        raise ValueError(f"video has values from {low:g} to {high:g}; as floating point they must be in 0..1")


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
