"""What this machine can do at most, measured in the run that needs it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from d4rt_ros.model.precision import measure


@dataclass(frozen=True)
class Product:
    """One large matrix product and the operations that it takes."""

    run: Callable[[], Tensor]
    operations: int


def products(device: torch.device, dtype: torch.dtype) -> dict[str, Product]:
    """Products of shapes that transformers use, the fastest of which is the machine's peak."""
    shapes = [(2048, 2048, 2048), (1024, 256, 1024), (4096, 1024, 1024)]
    if device.type == "cuda":
        shapes = [(8192, 8192, 8192), (6144, 1408, 6144), (16384, 1280, 4480)]
    found = {}
    for m, k, n in shapes:
        x = torch.randn(m, k, device=device, dtype=dtype)
        weight = torch.randn(n, k, device=device, dtype=dtype)
        found[f"product {m}x{k}x{n}"] = Product(partial(F.linear, x, weight), 2 * m * k * n)
    return found


def copy_gbytes(device: torch.device) -> float:
    """Rate of a large copy on the device, 1e9 bytes a second, read and written bytes both counted."""
    source = torch.randn(1 << (28 if device.type == "cuda" else 25), device=device)
    target = torch.empty_like(source)
    seconds = measure(lambda: target.copy_(source), device, 0.3)
    return 2 * source.nbytes / seconds / 1e9


def describe(device: torch.device) -> dict[str, object]:
    """Name of the device and the versions that a figure depends on."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0))
    return {"device": name, "cores": cores, "threads": torch.get_num_threads(), "torch": torch.__version__}


def peak_memory_mib(device: torch.device) -> float:
    """Most memory held so far, MiB: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def rounded(values: dict[str, object], digits: int = 4) -> dict[str, object]:
    """Round the floats of a result to `digits` significant digits."""

    def shorten(value: object) -> object:
        if not isinstance(value, float) or not math.isfinite(value):
            return value
        return float(f"{value:.{digits}g}")

    return {key: shorten(value) for key, value in values.items()}
