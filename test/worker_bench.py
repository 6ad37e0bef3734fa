"""A worker on a pipeline and scenes that count, and wait until they are let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from d4rt_ros.stream import Frame, Window, WindowResult, Worker


@dataclass(frozen=True)
class Points:
    """Queries of the tests: positions, and a second column to see that all of it travels."""

    u: torch.Tensor
    v: torch.Tensor


@dataclass(frozen=True)
class Doubled:
    """Answers of the tests."""

    xyz: torch.Tensor


class CountingScene:
    """Answers (2u, v, 0) and remembers the sizes it was asked for; refuses u above 1."""

    def __init__(self) -> None:
        """Nothing asked yet."""
        self.sizes: list[int] = []

    def decode(self, queries: Points) -> Doubled:
        """Check, count, answer."""
        self.sizes.append(len(queries.u))
        if bool((queries.u > 1).any()):
            raise ValueError("u is outside 0..1")
        return Doubled(torch.stack([2 * queries.u, queries.v, 0 * queries.u], -1))


class SlowPipeline:
    """Processes a window in steps that last until they are let go."""

    def __init__(self) -> None:
        """Gates are open until a test closes them."""
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.seen: list[Window] = []
        self.fail = False

    def process(
        self,
        window: Window,
        wanted: frozenset[str],
        between: Callable[[], None],
        early: Callable[[WindowResult, frozenset[str]], None],
    ) -> WindowResult:
        """What is known early, one step, a pause for services, then the result."""
        early(WindowResult(None, window, window.stamps, "early", (2, 2)), frozenset({"depth"}))
        self.seen.append(window)
        self.entered.set()
        assert self.gate.wait(5)
        between()
        if self.fail:
            raise RuntimeError("no luck")
        return WindowResult(None, window, window.stamps, "cam", (2, 2))


def window(number: int, starts: bool = False) -> Window:
    """A window known by its first stamp."""
    image = np.zeros((2, 2, 3), np.uint8)
    return Window(tuple(Frame(number * 10 + i, image) for i in range(2)), starts, "why" if starts else "")


@dataclass
class Bench:
    """A running worker and what came out of it."""

    worker: Worker
    pipeline: SlowPipeline
    results: list[WindowResult]
    errors: list[str]

    def block(self) -> None:
        """Let the worker be busy with a window until pipeline.gate is set."""
        self.pipeline.gate.clear()
        self.pipeline.entered.clear()
        self.worker.submit_window(window(0, starts=True))
        assert self.pipeline.entered.wait(5)


@contextmanager
def running(queue: int = 64) -> Iterator[Bench]:
    """A started worker, stopped afterwards."""
    pipeline, results, errors = SlowPipeline(), [], []
    worker = Worker(pipeline, results.append, errors.append, query_queue=queue)
    worker.start()
    try:
        yield Bench(worker, pipeline, results, errors)
    finally:
        pipeline.gate.set()
        assert worker.stop()


def until(condition: Callable[[], bool]) -> None:
    """Wait at most 5 s for something to become true."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)
