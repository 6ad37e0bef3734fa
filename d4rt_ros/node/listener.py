"""Messages and requests that a thread of their own waits for, past the executor.

Whenever anything happens, an executor of rclpy looks at everything that a node has, thrice for every
callback: with some forty services, timers and events that takes longer than an image's callback, and keeps
the interpreter from whoever computes. A listener waits for its few entities alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.service import Service
from rclpy.subscription import Subscription

OnArrival = Callable[[Any, Any], None]


class PastExecutor(CallbackGroup):
    """A group whose subscriptions and services no executor runs; their events it does."""

    def can_execute(self, entity: Any) -> bool:
        """False for what a listener waits for."""
        return not isinstance(entity, (Subscription, Service))

    def beginning_execution(self, entity: Any) -> bool:
        """Events need not wait for each other."""
        return True

    def ending_execution(self, entity: Any) -> None:
        """Nobody waits for that."""


class Listener:
    """A thread that takes what arrives, one after the other, until ``close`` or the end of the context.

    Args:
        node: whose entities they are.
        name: of the thread.
        sources: subscriptions and services of a ``PastExecutor`` group, and who takes what arrives: message
            (its bytes, if the subscription is raw) and its info, or request and the header that its response
            needs. What that raises is logged.
    """

    def __init__(self, node: Node, name: str, sources: Mapping[Any, OnArrival]) -> None:
        """Start to listen."""
        self._node, self._sources = node, dict(sources)
        self._closed = threading.Event()
        self._guard = GuardCondition(None, None, context=node.context)
        node.context.on_shutdown(self._wake)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Take nothing more, and wait for what is being taken."""
        self._closed.set()
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _wake(self) -> None:
        self._guard.trigger()

    def _run(self) -> None:
        context = self._node.context
        with ExitStack() as held:  # what is waited for is not destroyed meanwhile
            for owner in (context, self._guard, *self._sources):
                held.enter_context(owner.handle)
            services = [one for one in self._sources if isinstance(one, Service)]
            subscriptions = [one for one in self._sources if not isinstance(one, Service)]
            wait_set = _rclpy.WaitSet(len(subscriptions), 1, 0, 0, len(services), 0, context.handle)
            while not self._closed.is_set() and context.ok():
                wait_set.clear_entities()
                wait_set.add_guard_condition(self._guard.handle)
                for subscription in subscriptions:
                    wait_set.add_subscription(subscription.handle)
                for service in services:
                    wait_set.add_service(service.handle)
                wait_set.wait(-1)
                ready = {
                    *wait_set.get_ready_entities("subscription"),
                    *wait_set.get_ready_entities("service"),
                }
                for source, on_arrival in self._sources.items():
                    if source.handle.pointer in ready and not self._closed.is_set():
                        self._take(source, on_arrival)

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
