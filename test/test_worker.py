"""The worker: whose turn it is, with real threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait

import pytest
from worker_bench import Bench, SlowPipeline, running, until, window

from d4rt_ros.stream import QueueFull, WindowResult, Worker


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
