"""The worker: decodes that are merged, jobs that fail or are cancelled, and its end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait

import pytest
import torch
from worker_bench import CountingScene, Points, SlowPipeline, running, until, window

from d4rt_ros.stream import WindowResult, Worker, WorkerStopped


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


def test_cancelled_jobs_leave_their_places_to_others() -> None:
    """Goals that are cancelled while a long one runs keep nobody out."""
    with running() as b:
        b.block()
        scene = CountingScene()
        for _ in range(200):
            assert b.worker.submit_decode(scene, Points(torch.zeros(2), torch.zeros(2)), "action").cancel()
        assert b.worker.queued["action"] == 1
        kept = b.worker.submit(lambda: 7, "action")
        b.pipeline.gate.set()
        assert kept.result(5) == 7


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
