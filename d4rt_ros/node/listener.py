"""Messages and requests that a thread of their own waits for, past the executor.

Whenever anything happens, an executor of rclpy looks at everything that a node has, thrice for every
callback: with some forty services, timers and events that takes longer than an image's callback, and keeps
the interpreter from whoever computes. A listener waits for its few entities alone, and for their events: who
waits for an event of a subscription is woken by each of its messages, too.

What is used of rclpy's wait set is there from Humble to Lyrical. Where it is not, executors run everything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.service import Service

OnArrival = Callable[[Any, Any], None]
Work = Callable[[], Any]


_USED = {
    "WaitSet": (
        "clear_entities",
        "add_guard_condition",
        "add_subscription",
        "add_service",
        "add_event",
        "wait",
        "get_ready_entities",
    ),
    "GuardCondition": ("trigger_guard_condition",),
    "Subscription": ("take_message", "pointer"),
    "Service": ("service_take_request", "pointer"),
}
AVAILABLE = all(hasattr(getattr(_rclpy, kind, None), name) for kind, names in _USED.items() for name in names)


class PastExecutor(CallbackGroup):
    """A group of which no executor runs anything."""

    def can_execute(self, entity: Any) -> bool:
        """False for all that a listener waits for."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Nothing is begun."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nobody waits for that."""


def listened_group(in_turn: bool) -> CallbackGroup:
    """A group for what a listener waits for; ``in_turn``: where executors must run it, one at a time."""
    if AVAILABLE:
        return PastExecutor()
    return MutuallyExclusiveCallbackGroup() if in_turn else ReentrantCallbackGroup()


class Listener:
    """Threads that take what arrives, until ``close`` or the end of the context.

    One thread at a time leads: it waits, and takes what arrives. Then another one leads, and it sees to what
    it has taken itself: to hand that over to a thread that sleeps would take longer than many a request.

    Args:
        node: whose entities they are.
        name: of the threads.
        sources: subscriptions and services of a ``listened_group``, and who takes what arrives: message (its
            bytes, if the subscription is raw) and its info, or request and the header that its response
            needs. What that raises is logged.
        threads: so much is seen to at once, at most; what follows waits. With one, everything is seen to in
            the order of arrival.
    """

    def __init__(self, node: Node, name: str, sources: Mapping[Any, OnArrival], threads: int = 1) -> None:
        """Start to listen."""
        self._node, self._name, self._sources, self._most = node, name, dict(sources), threads
        self._services = [one for one in sources if isinstance(one, Service)]
        self._subscriptions = [one for one in sources if not isinstance(one, Service)]
        self._events = [event for one in self._subscriptions for event in one.event_handlers]
        self._closed = threading.Event()
        self._lead, self._counts = threading.Lock(), threading.Lock()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # threads that see to something
        self._arrived: deque[Callable[[], Work | None]] = deque()  # to be taken; belongs to who leads
        self._held = ExitStack()  # what is waited for is not destroyed meanwhile
        if not AVAILABLE:
            return
        context = node.context
        with context.handle:
            self._guard = _rclpy.GuardCondition(context.handle)
        owners = [context.handle, self._guard, *(one.handle for one in self._sources), *self._events]
        for owner in owners:
            self._held.enter_context(owner)
        counts = len(self._subscriptions), 1, 0, 0, len(self._services), len(self._events)
        self._wait_set: Any = _rclpy.WaitSet(*counts, context.handle)
        context.on_shutdown(self._wake)
        self._grow()

    def close(self, timeout: float = 2.0) -> None:
        """Take nothing more, and wait for what is being seen to."""
        self._closed.set()
        if not self._threads:
            return
        self._wake()
        end = time.monotonic() + timeout
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def _wake(self) -> None:
        with self._guard:
            self._guard.trigger_guard_condition()

    def _grow(self) -> None:
        """Another thread; called by who leads, or before anybody does."""
        thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                with self._logged():
                    work()
                del work  # the memory of an image is used for the next one
                with self._counts:
                    self._busy -= 1
        finally:
            with self._counts:
                self._busy += 1  # it will not lead again
                last = self._busy == len(self._threads)
            if last:
                self._wait_set = None  # it would keep the context alive
                self._held.close()

    def _next(self) -> Work | None:
        """Lead until there is something to see to; None at the end."""
        with self._lead:
            while not self._closed.is_set() and self._node.context.ok():
                if not self._arrived:
                    # Who leads next is there already, so that nobody waits for a thread to start.
                    if len(self._threads) < self._most and len(self._threads) - self._busy < 2:
                        self._grow()
                    self._wait()
                    continue
                with self._logged():
                    work = self._arrived.popleft()()
                    if work is not None:
                        with self._counts:
                            self._busy += 1
                        return work
            return None

    def _wait(self) -> None:
        """Until something arrives."""
        wait_set = self._wait_set
        wait_set.clear_entities()
        wait_set.add_guard_condition(self._guard)
        for subscription in self._subscriptions:
            wait_set.add_subscription(subscription.handle)
        for service in self._services:
            wait_set.add_service(service.handle)
        for event in self._events:
            event.add_to_wait_set(wait_set)
        wait_set.wait(-1)
        ready = {*wait_set.get_ready_entities("subscription"), *wait_set.get_ready_entities("service")}
        self._arrived += [
            partial(self._take, source, on_arrival)
            for source, on_arrival in self._sources.items()
            if source.handle.pointer in ready
        ]
        self._arrived += [partial(_happened, event) for event in self._events if event.is_ready(wait_set)]

    def _take(self, source: Any, on_arrival: OnArrival) -> Work | None:
        """What is to be called with a message or request; None where somebody else has taken it."""
        if isinstance(source, Service):
            request, header = source.handle.service_take_request(source.srv_type.Request)
            return None if header is None else partial(on_arrival, request, header)
        pair = source.handle.take_message(source.msg_type, source.raw)
        return None if pair is None else partial(on_arrival, *pair)

    @contextmanager
    def _logged(self) -> Iterator[None]:
        """The threads outlive whatever arrives."""
        try:
            yield
        except Exception as error:
            self._node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}")


def _happened(event: Any) -> Work | None:
    """Call of an event's own callback."""
    data = event.take_data()
    return partial(event.callback, data) if data else None
