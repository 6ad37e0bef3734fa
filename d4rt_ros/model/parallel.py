"""Independent parts of work on a CPU, each on a core of its own.

Within one part every operation then runs on one thread: no core waits for the others after each of hundreds
of short operations, and a part's activations stay in the cache of its core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def over_cores(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Apply `function`, without gradients, to every part; results in order. Raises what `function` raises."""

    @torch.inference_mode()
    def one(part: Part) -> Result:
        return function(part)

    parts = list(parts)
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1:
        return [one(part) for part in parts]
    return list(_pool(threads).map(one, parts))


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """`threads` threads, all started, on each of which torch uses one core."""
    started = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first use of torch sets the process's number: do that before
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="cores", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)  # also the number that threads started from now on get
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
