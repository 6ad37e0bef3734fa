"""The action ~/track_all: a track for every pixel of a window, with progress; a cancel ends it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from d4rt_ros import tasks
from d4rt_ros.action import TrackAll
from d4rt_ros.node.answers import tracks_of
from d4rt_ros.node.messages import REQUESTS, RclpyMessages
from d4rt_ros.node.requests import Refused, check_confidence, coordinates, find_span, name_window, scene_of
from d4rt_ros.node.services import EXPECTED
from d4rt_ros.node.session import Session

if TYPE_CHECKING:
    from d4rt_ros.node.node import D4RTNode

MAX_GOALS = 4  # under way at once; more are rejected
MAX_STRIDE = 1024
_PROMISE = 5.0  # seconds in which a goal that was accepted begins, or never will: its client has vanished
_LOOK = 0.1  # seconds between two looks for a cancel, while a goal waits
BATCH_ON_GPU, BATCH_ON_CPU = 16_384, 2_048  # queries between two turns of windows and services


class TrackAllAction:
    """Creates the action on the node. Every goal ends: succeeded, canceled, or aborted with a sentence."""

    def __init__(self, node: D4RTNode) -> None:
        """Create it."""
        self._node, self._types = node, RclpyMessages()
        self._lock, self._goals = threading.Lock(), 0
        self._promised: list[float] = []  # when goals were accepted that have not begun
        self._server = ActionServer(
            node,
            TrackAll,
            "~/track_all",
            self._execute,
            goal_callback=self._accept,
            handle_accepted_callback=_begin,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
            goal_service_qos_profile=REQUESTS,
            result_service_qos_profile=REQUESTS,
            cancel_service_qos_profile=REQUESTS,
        )

    def _accept(self, goal: Any) -> GoalResponse:
        with self._lock:
            now = time.monotonic()
            self._promised = [since for since in self._promised if now - since < _PROMISE]
            if self._goals + len(self._promised) >= MAX_GOALS:
                self._node.get_logger().warning(
                    f"~/track_all: a goal is rejected, {MAX_GOALS} are under way already"
                )
                return GoalResponse.REJECT
            self._promised.append(now)
            return GoalResponse.ACCEPT

    def _execute(self, handle: Any) -> Any:
        result = TrackAll.Result()
        with self._lock:
            self._goals += 1
            del self._promised[:1]
        try:
            session = self._node.session
            if session is None:
                raise Refused(f"the node is {self._node.state_label}; it answers while it is active")
            self._track(session, handle, result)
        except Exception as error:
            result = TrackAll.Result(success=False)
            result.message = str(error) if isinstance(error, EXPECTED) else f"{type(error).__name__}: {error}"
            self._node.get_logger().warning(f"~/track_all: {result.message}")
            session = self._node.session
            if session is not None:
                name_window(self._types, result, session.pipeline.history.newest)
            handle.abort()
        finally:
            with self._lock:
                self._goals -= 1
        return result

    def _track(self, session: Session, handle: Any, result: Any) -> None:
        goal, started = handle.request, time.monotonic()
        span = find_span(session, goal.start, goal.end)
        stride = int(goal.stride) or session.settings.points_stride
        if not 1 <= stride <= MAX_STRIDE:
            raise Refused(f"stride is {stride}; it must be from 1 to {MAX_STRIDE}, or 0 for points.stride")
        least = check_confidence(goal.min_confidence, session)
        frame_id, to_frame = coordinates(goal.frame, session, span.result, span.last)

        def report(progress: tasks.DenseProgress) -> None:
            handle.publish_feedback(
                TrackAll.Feedback(
                    covered=progress.coverage,
                    tracks=progress.tracks,
                    queries=progress.queries,
                    naive_queries=progress.naive_queries,
                )
            )

        def cancelled() -> bool:
            session.worker.breathe()  # windows and services have their turns between batches
            return bool(handle.is_cancel_requested)

        future = session.worker.submit(
            lambda: tasks.dense_tracks(
                scene_of(span.result),
                list(span.frames),
                "world",
                span.last,
                stride,
                batch_queries=BATCH_ON_GPU if scene_of(span.result).device.type == "cuda" else BATCH_ON_CPU,
                progress=report,
                cancelled=cancelled,
            ),
            "action",
        )
        name_window(self._types, result, span.result)
        found = _result_of(future, handle)
        if found is None:
            result.message = "cancelled before it began"
            handle.canceled()
            return
        if found.tracks is not None and found.progress is not None:
            sure = found.tracks.confidence.numpy().mean(0) >= least
            result.tracks = tracks_of(self._types, found.tracks, span.result, frame_id, to_frame, sure)
            result.queries, result.naive_queries = found.progress.queries, found.progress.naive_queries
        result.seconds, result.message = time.monotonic() - started, found.reason
        cancelled_now = handle.is_cancel_requested
        result.success = not cancelled_now
        if cancelled_now:
            result.message = result.message or "cancelled when all tracks had been found"
            handle.canceled()
        else:
            handle.succeed()


def _begin(handle: Any) -> None:
    """Have a goal executed. Where a cancel comes just as it begins, rclpy would leave it without an end."""
    try:
        handle.execute()
    except Exception:
        if not handle.is_cancel_requested:
            raise
        handle.execute()  # sees the cancel now, and leaves the state alone


def _result_of(future: Future[Any], handle: Any) -> Any:
    """What a job gives; None if its goal is cancelled while it still waits for others."""
    while True:
        try:
            return future.result(_LOOK)
        except FutureTimeout:
            if future.done():
                return future.result()
            if handle.is_cancel_requested and future.cancel():
                return None
