"""The one thread that owns the device: windows, services and the action take their turns on it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from d4rt_ros.stream.frames import Window
from d4rt_ros.stream.merging import DecodeJob, run_decodes
from d4rt_ros.stream.results import Forgotten, WindowResult

if TYPE_CHECKING:
    from d4rt_ros.model import Queries, SceneLike

_log = logging.getLogger(__name__)

OUTPUTS = frozenset({"depth", "points", "dynamic", "map", "tracks"})


class QueueFull(RuntimeError):
    """More requests wait than the queue holds."""


class WorkerStopped(RuntimeError):
    """The worker was stopped before or while the job ran."""


class ProcessesWindows(Protocol):
    """The part of Pipeline that the worker uses."""

    def process(
        self,
        window: Window,
        wanted: frozenset[str],
        between: Callable[[], None] = ...,
        early: Callable[[WindowResult, frozenset[str]], None] = ...,
    ) -> WindowResult:
        """Result of a window; calls `between` between its steps, `early` with what is known first."""
        ...


@dataclass
class WorkerCounters:
    """What became of windows and jobs since the start."""

    windows_in: int = 0
    windows_done: int = 0
    windows_dropped: int = 0  # replaced by a newer one while they waited, or waiting at stop
    windows_failed: int = 0
    jobs_done: int = 0
    jobs_failed: int = 0
    jobs_refused: int = 0
    decodes_merged: int = 0  # requests that shared a decode with another one


@dataclass(eq=False)  # each is itself only; queries could not be compared
class _Job:
    work: Callable[[], Any] | DecodeJob
    future: Future[Any]


class Worker:
    """Runs windows and jobs on one thread; nothing that calls it ever waits for the device.

    Turns: all waiting service jobs, then the newest window, then one action job. Service jobs also run
    between the steps of a window, and services and windows whenever an action job calls `breathe`.

    Args:
        pipeline: what processes windows.
        on_result: called on the worker's thread with every result.
        on_error: called on the worker's thread with a sentence when a window or a callback failed.
        query_queue: service jobs that may wait; as many action jobs.
        wanted: says which outputs somebody listens to, asked anew for every window.
        on_early: called on the worker's thread before ``on_result``, with what is known first, and its parts.
    """

    def __init__(
        self,
        pipeline: ProcessesWindows,
        on_result: Callable[[WindowResult], None],
        on_error: Callable[[str], None],
        query_queue: int = 64,
        wanted: Callable[[], frozenset[str]] = lambda: OUTPUTS,
        on_early: Callable[[WindowResult, frozenset[str]], None] = lambda result, parts: None,
    ) -> None:
        """Make a worker that has not started."""
        self.counters = WorkerCounters()
        self._pipeline, self._on_result, self._on_error, self._wanted = pipeline, on_result, on_error, wanted
        self._on_early = on_early
        self._limit = query_queue
        self._wake = threading.Condition()
        self._window: Window | None = None
        self._queues: dict[str, deque[_Job]] = {"service": deque(), "action": deque()}
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; does nothing if it runs."""
        with self._wake:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="d4rt-worker", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 1.0) -> bool:
        """Refuse what waits, let the running step end, and wait for the thread at most `timeout` seconds.

        Returns:
            True if the thread has ended; False if a step that cannot be interrupted still runs (it ends by
            itself and its result is thrown away).
        """
        with self._wake:
            self._stopping = True
            thread = self._thread
            waiting = [job for queue in self._queues.values() for job in queue]
            for queue in self._queues.values():
                queue.clear()
            self.drop_window()
            self._wake.notify_all()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(WorkerStopped("the node is stopping; ask again when it is active"))
        if thread is None:
            return True
        if thread is not threading.current_thread():
            thread.join(timeout)
        return not thread.is_alive()

    @property
    def queued(self) -> dict[str, int]:
        """Waiting jobs by priority, and waiting windows (0 or 1)."""
        with self._wake:
            counts = {name: len(queue) for name, queue in self._queues.items()}
            return {**counts, "windows": int(self._window is not None)}

    def submit_window(self, window: Window) -> None:
        """Have a window processed; one that still waits is dropped and counted."""
        with self._wake:
            self.counters.windows_in += 1
            if self._stopping:
                self.counters.windows_dropped += 1
                return
            old = self._window
            if old is not None:
                self.counters.windows_dropped += 1
                if old.starts_segment and not window.starts_segment:
                    window = replace(window, starts_segment=True, reason=old.reason)
            self._window = window
            self._wake.notify_all()

    def drop_window(self) -> None:
        """Give up the window that waits, if one does."""
        with self._wake:
            if self._window is not None:
                self.counters.windows_dropped += 1
                self._window = None

    def submit(self, work: Callable[[], Any], priority: str = "service") -> Future[Any]:
        """Have a function called on the worker's thread.

        Args:
            work: called without arguments; what it returns or raises is the future's.
            priority: "service" or "action".

        Raises:
            QueueFull: as many jobs of this priority wait as the queue holds.
            WorkerStopped: the worker was stopped.
            ValueError: another priority.
        """
        return self._enqueue(work, priority)

    def submit_decode(self, scene: SceneLike, queries: Queries, priority: str = "service") -> Future[Any]:
        """Have queries answered; those on the same scene that wait together are decoded together.

        Returns:
            Future of Answers in the order of the queries.

        Raises:
            QueueFull, WorkerStopped, ValueError: as in submit.
            ValueError: the queries' tensors are not all [N] of one length.
        """
        shapes = {tuple(getattr(queries, field.name).shape) for field in fields(queries)}
        if len(shapes) != 1 or len(shapes.copy().pop()) != 1:
            raise ValueError(f"the tensors of the queries must all be [N], got {sorted(shapes)}")
        return self._enqueue(DecodeJob(scene, queries), priority)

    def _enqueue(self, work: Callable[[], Any] | DecodeJob, priority: str) -> Future[Any]:
        if priority not in self._queues:
            raise ValueError(f"priority is {priority!r}; it must be one of {', '.join(self._queues)}")
        with self._wake:
            if self._stopping:
                raise WorkerStopped("the node is stopping; ask again when it is active")
            queue = self._queues[priority]
            for job in [job for job in queue if job.future.cancelled()]:
                queue.remove(job)  # nobody waits for it, and it holds a place and a window
            if len(queue) >= self._limit:
                self.counters.jobs_refused += 1
                raise QueueFull(
                    f"{len(queue)} {priority} requests are waiting already, the queue holds {self._limit}; "
                    "ask again later or raise query.queue"
                )
            future: Future[Any] = Future()
            queue.append(_Job(work, future))
            self._wake.notify_all()
            return future

    def serve(self) -> None:
        """Run the service jobs that wait now; called on the worker's thread, between steps.

        Raises:
            WorkerStopped: the worker is stopping, so the caller should end too.
        """
        if self._stopping:
            raise WorkerStopped("stopped while the work was under way")
        with self._wake:
            jobs = list(self._queues["service"])
            self._queues["service"].clear()
        self._run_jobs(jobs)

    def breathe(self) -> None:
        """As serve, and process the waiting window too; called by long action jobs between their batches."""
        self.serve()
        self._run_window()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._stopping or self._window or any(self._queues.values())):
                    self._wake.wait()
                if self._stopping:
                    return
            try:
                self.breathe()
                with self._wake:
                    action = self._queues["action"].popleft() if self._queues["action"] else None
                if action is not None:
                    self._run_jobs([action])
            except WorkerStopped:
                return

    def _run_window(self) -> None:
        with self._wake:
            window, self._window = self._window, None
        if window is None:
            return
        try:
            result = self._pipeline.process(window, self._wanted(), between=self.serve, early=self._early)
        except WorkerStopped:
            raise
        except Forgotten:
            self.counters.windows_dropped += 1
            return
        except Exception as error:  # the thread outlives whatever a window does
            self.counters.windows_failed += 1
            _log.debug("window failed", exc_info=True)
            self._tell(self._on_error, f"a window failed: {type(error).__name__}: {error}")
            return
        self.counters.windows_done += 1
        if not self._stopping:
            self._tell(self._on_result, result)

    def _early(self, result: WindowResult, parts: frozenset[str]) -> None:
        if not self._stopping:
            self._tell(self._on_early, result, parts)

    def _tell(self, callback: Callable[..., None], *what: Any) -> None:
        try:
            callback(*what)
        except Exception as error:
            _log.exception("a callback of the worker failed")
            if callback is not self._on_error:
                self._tell(self._on_error, f"publishing a result failed: {type(error).__name__}: {error}")

    def _run_jobs(self, jobs: list[_Job]) -> None:
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        decodes = [job for job in jobs if isinstance(job.work, DecodeJob)]
        outcomes, merged = run_decodes([job.work for job in decodes if isinstance(job.work, DecodeJob)])
        self.counters.decodes_merged += merged
        for job, outcome in zip(decodes, outcomes):
            self._finish(job.future, outcome)
        for job in jobs:
            if not isinstance(job.work, DecodeJob):
                self._finish(job.future, _call(job.work))

    def _finish(self, future: Future[Any], outcome: Any) -> None:
        if isinstance(outcome, BaseException):
            self.counters.jobs_failed += 1
            future.set_exception(outcome)
        else:
            self.counters.jobs_done += 1
            future.set_result(outcome)


def _call(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return error
