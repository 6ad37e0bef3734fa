"""Which device and which number format to run on, decided once at start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def select_device(name: str) -> torch.device:
    """Resolve "auto", "cpu" or "cuda:N". Raises ValueError naming what is not there."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is none of auto, cpu, cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is none of auto, cpu, cuda:N")
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ValueError(f"device {name!r} is not there: this machine has {found} CUDA devices")
    return device


def select_precision(name: str, device: torch.device) -> torch.dtype:
    """Resolve "auto" or a name of `PRECISIONS`. Raises ValueError for another name.

    "auto" is bfloat16 where a GPU has it, else float16 there; on a CPU the faster of bfloat16 and float32 by
    a short measurement.
    """
    if name != "auto":
        if name not in PRECISIONS:
            raise ValueError(f"precision {name!r} is none of auto, {', '.join(PRECISIONS)}")
        return PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    return _faster_on_cpu()


def measure(function: Callable[[], object], device: torch.device, seconds: float = 0.05) -> float:
    """Median time of one call in seconds, after one call to warm up."""
    function()
    return _median_call(function, device, seconds, least=3)


def measure_together(
    functions: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, rounds: int = 7
) -> dict[str, list[float]]:
    """Times of calls that are to be compared: for each of `rounds` rounds the median seconds of one call.

    Every function has its turn in every round, so that what slows the machine for a while slows them all;
    ratios are then taken round by round. `seconds` is for one function over all rounds.
    """
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(_median_call(function, device, seconds / rounds, least=1))
    return times


def _median_call(function: Callable[[], object], device: torch.device, seconds: float, least: int) -> float:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < least:
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


@lru_cache(maxsize=1)
def _faster_on_cpu() -> torch.dtype:
    def product(dtype: torch.dtype) -> float:
        x, weight = torch.randn(512, 256, dtype=dtype), torch.randn(1024, 256, dtype=dtype)
        return measure(lambda: F.linear(x, weight), torch.device("cpu"))

    with torch.inference_mode():
        gain = product(torch.float32) / product(torch.bfloat16)
    # Casts between the formats cost something too: a processor that only emulates bfloat16 stays at float32.
    return torch.bfloat16 if gain > 1.3 else torch.float32


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
