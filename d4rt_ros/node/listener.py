"""Messages and requests that a thread of their own waits for, past the executor.

Whenever anything happens, an executor of rclpy looks at everything that a node has, thrice for every
callback: with some forty services, timers and events that takes longer than an image's callback, and keeps
the interpreter from whoever computes. A listener waits for its few entities alone, and for their events: who
waits for an event of a subscription is woken by each of its messages, too.

What is used of rclpy's wait set is there from Humble to Lyrical. Where it is not, executors run everything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.service import Service

OnArrival = Callable[[Any, Any], None]


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
    """A thread that takes what arrives, one after the other, until ``close`` or the end of the context.

    Args:
        node: whose entities they are.
        name: of the thread.
        sources: subscriptions and services of a ``listened_group``, and who takes what arrives: message (its
            bytes, if the subscription is raw) and its info, or request and the header that its response
            needs. What that raises is logged.
    """

    def __init__(self, node: Node, name: str, sources: Mapping[Any, OnArrival]) -> None:
        """Start to listen."""
        self._node, self._sources = node, dict(sources)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if not AVAILABLE:
            return
        with node.context.handle:
            self._guard = _rclpy.GuardCondition(node.context.handle)
        node.context.on_shutdown(self._wake)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Take nothing more, and wait for what is being taken."""
        self._closed.set()
        if self._thread is None:
            return
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _wake(self) -> None:
        with self._guard:
            self._guard.trigger_guard_condition()

    def _run(self) -> None:
        context = self._node.context
        services = [one for one in self._sources if isinstance(one, Service)]
        subscriptions = [one for one in self._sources if not isinstance(one, Service)]
        events = [event for one in subscriptions for event in one.event_handlers]
        with ExitStack() as held:  # what is waited for is not destroyed meanwhile
            for owner in (context.handle, self._guard, *(one.handle for one in self._sources), *events):
                held.enter_context(owner)
            counts = len(subscriptions), 1, 0, 0, len(services), len(events)
            wait_set = _rclpy.WaitSet(*counts, context.handle)
            while not self._closed.is_set() and context.ok():
                wait_set.clear_entities()
                wait_set.add_guard_condition(self._guard)
                for subscription in subscriptions:
                    wait_set.add_subscription(subscription.handle)
                for service in services:
                    wait_set.add_service(service.handle)
                for event in events:
                    event.add_to_wait_set(wait_set)
                wait_set.wait(-1)
                ready = {
                    *wait_set.get_ready_entities("subscription"),
                    *wait_set.get_ready_entities("service"),
                }
                for source, on_arrival in self._sources.items():
                    if source.handle.pointer in ready and not self._closed.is_set():
                        self._take(source, on_arrival)
                for event in events:
                    if event.is_ready(wait_set) and not self._closed.is_set():
                        self._tell(event)

    def _tell(self, event: Any) -> None:
        """Have an event's own callback called."""
        try:
            happened = event.take_data()
            if happened:
                event.callback(happened)
        except Exception as error:  # as in _take
            self._node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}")

    def _take(self, source: Any, on_arrival: OnArrival) -> None:
        try:
            if isinstance(source, Service):
                what, about = source.handle.service_take_request(source.srv_type.Request)
                taken = about is not None
            else:
                pair = source.handle.take_message(source.msg_type, source.raw)
                taken = pair is not None
                what, about = pair or (None, None)
            if taken:
                on_arrival(what, about)
        except Exception as error:  # the thread outlives whatever arrives
            self._node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}")
