"""How fast training runs beside what the machine's matrix products reach."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Measured FLOP/s of a large matrix product in `dtype`."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, 1024, device=device, dtype=dtype)
    b = torch.randn(1024, 1024, device=device, dtype=dtype)
    done, start = 0, 0.0
    for turn in range(100_000):
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn == 2:  # the first ones set things up
            start = time.perf_counter()
        elif turn > 2:
            done += 1
            if time.perf_counter() - start > seconds:
                break
    return done * 2 * size * 1024 * 1024 / (time.perf_counter() - start)


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products and attention of some work, backward included."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return int(counter.get_total_flops())
