"""The worker: turns, merging, refusals and stopping, with real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from d4rt_ros.stream import Frame, QueueFull, Window, WindowResult, Worker, WorkerStopped


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


def test_what_is_known_early_is_told_before_the_window_is_done() -> None:
    """Telling it may fail; the window goes on."""
    pipeline, told, errors = SlowPipeline(), [], []

    def early(result: WindowResult, parts: frozenset[str]) -> None:
        told.append(result.frame_id)
        raise RuntimeError("publisher is gone")

    worker = Worker(pipeline, lambda result: told.append(result.frame_id), errors.append, on_early=early)
    worker.start()
    b = Bench(worker, pipeline, [], errors)
    b.block()
    until(lambda: bool(errors))
    assert told == ["early"] and "publishing a result failed: RuntimeError: publisher is gone" in errors[0]
    pipeline.gate.set()
    until(lambda: len(told) == 2)
    assert told == ["early", "cam"]
    assert worker.stop()


def test_newest_window_wins_and_drops_are_counted() -> None:
    """Of three windows that come while one is processed, the last is processed; nothing is uncounted."""
    with running() as b:
        b.block()
        for i in (1, 2, 3):
            b.worker.submit_window(window(i))
        b.pipeline.gate.set()
        until(lambda: len(b.results) == 2)
        assert [w.stamps[0] for w in b.pipeline.seen] == [0, 30]
        c = b.worker.counters
        assert (c.windows_in, c.windows_done, c.windows_dropped) == (4, 2, 2)


def test_a_dropped_start_of_segment_is_not_forgotten() -> None:
    """The window that replaces a start of a segment starts it, with the same reason."""
    with running() as b:
        b.block()
        b.worker.submit_window(window(1, starts=True))
        b.worker.submit_window(window(2))
        b.pipeline.gate.set()
        until(lambda: len(b.results) == 2)
        assert b.pipeline.seen[1].starts_segment and b.pipeline.seen[1].reason == "why"


def test_submitting_never_waits_for_the_device() -> None:
    """While a window is processed, windows and jobs are taken in at once."""
    with running() as b:
        b.block()
        started = time.monotonic()
        b.worker.submit_window(window(1))
        future = b.worker.submit(lambda: 1)
        assert time.monotonic() - started < 0.1 and not future.done()
        b.pipeline.gate.set()
        assert future.result(5) == 1


def test_services_run_between_the_steps_of_a_window() -> None:
    """A job that waits during a window's first step is done before the window is."""
    with running() as b:
        b.block()
        future = b.worker.submit(lambda: len(b.results))
        b.pipeline.gate.set()
        assert future.result(5) == 0


def test_service_before_action() -> None:
    """Jobs that wait together: services first, whatever came first."""
    with running() as b:
        b.block()
        order: list[str] = []
        futures = [
            b.worker.submit(lambda: order.append("action"), "action"),
            b.worker.submit(lambda: order.append("service"), "service"),
        ]
        b.pipeline.gate.set()
        wait(futures, 5)
        assert order == ["service", "action"]


def test_services_and_windows_go_on_during_a_long_action() -> None:
    """An action that breathes lets others be served; its own result comes last."""
    with running() as b:
        go_on = threading.Event()

        def action() -> str:
            while not go_on.is_set():
                b.worker.breathe()
                time.sleep(0.001)
            return "done"

        future = b.worker.submit(action, "action")
        assert b.worker.submit(lambda: 7).result(5) == 7
        b.worker.submit_window(window(1))
        until(lambda: len(b.results) == 1)
        assert not future.done()
        go_on.set()
        assert future.result(5) == "done"


def test_a_full_queue_refuses_at_once_with_a_sentence() -> None:
    """The job over the limit is refused and counted; those before it are answered."""
    with running(queue=3) as b:
        b.block()
        futures = [b.worker.submit(lambda: 1) for _ in range(3)]
        with pytest.raises(QueueFull, match="3 service requests are waiting already, the queue holds 3"):
            b.worker.submit(lambda: 1)
        b.worker.submit(lambda: 1, "action")  # has a queue of its own
        b.pipeline.gate.set()
        assert [f.result(5) for f in futures] == [1, 1, 1]
        assert b.worker.counters.jobs_refused == 1


def test_decodes_on_one_scene_are_merged_and_split_again() -> None:
    """50 clients at once: one decode, and everybody gets the answers to his own queries."""
    scene, other = CountingScene(), CountingScene()
    with running() as b:
        b.block()
        asked = [torch.rand(1 + i % 4) for i in range(50)]
        futures = [b.worker.submit_decode(scene, Points(u, u + 10)) for u in asked]
        alone = b.worker.submit_decode(other, Points(torch.tensor([0.5]), torch.tensor([1.0])))
        b.pipeline.gate.set()
        for u, future in zip(asked, futures):
            assert torch.equal(future.result(5).xyz, torch.stack([2 * u, u + 10, 0 * u], -1))
        assert alone.result(5).xyz.tolist() == [[1.0, 1.0, 0.0]]
        assert scene.sizes == [sum(len(u) for u in asked)] and other.sizes == [1]
        assert b.worker.counters.decodes_merged == 50


def test_a_large_request_does_not_hold_up_small_ones() -> None:
    """Merged decodes stay below a bound; a larger one goes alone."""
    scene = CountingScene()
    with running() as b:
        b.block()
        futures = [
            b.worker.submit_decode(scene, Points(torch.zeros(n), torch.zeros(n))) for n in (1, 20_000, 2, 3)
        ]
        b.pipeline.gate.set()
        wait(futures, 5)
        assert sorted(scene.sizes) == [1, 5, 20_000]


def test_a_failing_decode_fails_only_its_own_future() -> None:
    """One bad client among three: the others get their answers."""
    scene = CountingScene()
    with running() as b:
        b.block()
        futures = [
            b.worker.submit_decode(scene, Points(torch.tensor([u]), torch.zeros(1))) for u in (0.1, 3.0, 0.3)
        ]
        b.pipeline.gate.set()
        assert futures[0].result(5).xyz[0, 0].item() == pytest.approx(0.2)
        with pytest.raises(ValueError, match="outside 0..1"):
            futures[1].result(5)
        assert futures[2].result(5).xyz[0, 0].item() == pytest.approx(0.6)
        assert b.worker.counters.jobs_failed == 1


def test_queries_of_unequal_length_are_refused_at_once() -> None:
    """Merged, they could shift the answers of others."""
    with running() as b:
        for shape in ((2,), (1, 1), ()):
            with pytest.raises(ValueError, match=r"must all be \[N\]"):
                b.worker.submit_decode(CountingScene(), Points(torch.zeros(shape), torch.zeros(1)))
        with pytest.raises(ValueError, match=r"must all be \[N\]"):
            b.worker.submit_decode(CountingScene(), Points(torch.zeros(()), torch.zeros(())))


def test_a_failing_window_or_callback_is_told_and_the_worker_goes_on() -> None:
    """A window that raises, a publisher that raises: a sentence each, and the next window is processed."""
    with running() as b:
        b.pipeline.fail = True
        b.worker.submit_window(window(1))
        until(lambda: len(b.errors) == 1)
        assert "RuntimeError: no luck" in b.errors[0] and b.worker.counters.windows_failed == 1
        b.pipeline.fail = False
        b.worker.submit_window(window(2))
        until(lambda: len(b.results) == 1)
    errors: list[str] = []

    def broken(result: WindowResult) -> None:
        raise OSError("cannot publish")

    worker = Worker(SlowPipeline(), broken, errors.append)
    worker.start()
    worker.submit_window(window(3))
    until(lambda: len(errors) == 1)
    assert "cannot publish" in errors[0]
    assert worker.submit(lambda: 3).result(5) == 3
    assert worker.stop()


def test_a_cancelled_job_is_not_run() -> None:
    """What a client gave up while it waited costs nothing."""
    with running() as b:
        b.block()
        ran: list[int] = []
        future = b.worker.submit(lambda: ran.append(1))
        assert future.cancel()
        b.pipeline.gate.set()
        b.worker.submit(lambda: None).result(5)
        assert ran == []


def test_stop_is_quick_and_leaves_no_future_open() -> None:
    """Waiting jobs are refused, the step under way ends, new jobs are refused; a start works again."""
    with running() as b:
        b.block()
        future = b.worker.submit(lambda: 1)
        b.worker.submit_window(window(1))
        threading.Timer(0.05, b.pipeline.gate.set).start()
        started = time.monotonic()
        assert b.worker.stop()
        assert time.monotonic() - started < 1.0
        with pytest.raises(WorkerStopped, match="stopping"):
            future.result(0)
        with pytest.raises(WorkerStopped):
            b.worker.submit(lambda: 1)
        assert b.results == [] and b.worker.counters.windows_dropped == 1
        b.worker.start()
        assert b.worker.submit(lambda: 5).result(5) == 5


def test_stop_gives_up_waiting_for_a_step_that_hangs() -> None:
    """stop returns within its time even then, and says that the thread still runs."""
    with running() as b:
        b.block()
        started = time.monotonic()
        assert not b.worker.stop(0.1)
        assert time.monotonic() - started < 0.5


def test_stop_ends_a_breathing_action() -> None:
    """The action's future says that the node stopped."""
    with running() as b:
        begun = threading.Event()

        def endless() -> None:
            while True:
                begun.set()
                b.worker.breathe()
                time.sleep(0.001)

        future = b.worker.submit(endless, "action")
        assert begun.wait(5)
        assert b.worker.stop()
        with pytest.raises(WorkerStopped):
            future.result(1)
