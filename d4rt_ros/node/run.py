"""The process: starts the node, spins it, and ends within seconds of a signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from d4rt_ros.model.allocator import keep_freed_memory
from d4rt_ros.node import listener
from d4rt_ros.node.action import MAX_GOALS
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.node.services import SPARE_THREADS

SWITCH = 5e-4  # seconds after which a thread that computes lets another one run; Python's own is 5e-3
THREADS = MAX_GOALS + 6  # goals under way, timers, lifecycle, parameters, /tf, events
_MEETING = 5.0  # seconds in which all threads start, or are left to start when they are needed


def make_executor(node: D4RTNode) -> MultiThreadedExecutor:
    """An executor for everything but camera and requests, which have threads of their own (listener.py)."""
    # What arrives must not wait for the steps of a window: a request changes threads some ten times.
    sys.setswitchinterval(SWITCH)
    # Every image is some buffers of a megabyte, and mapping them anew takes longer than copying them.
    keep_freed_memory()
    waiting = 0 if listener.AVAILABLE else int(node.values["query.queue"]) + SPARE_THREADS
    executor = MultiThreadedExecutor(THREADS + waiting, context=node.context)
    executor.add_node(node)
    _start_all(executor, THREADS + waiting)
    return executor


def _start_all(executor: Executor, threads: int) -> None:
    """Have all threads start with the first spin: by themselves they come one by one, over hours of use."""
    met = threading.Barrier(threads)

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):
            met.wait(_MEETING)

    for _ in range(threads):
        executor.create_task(meet)


def spin_on(executor: Executor) -> None:
    """Spin until the context or the executor ends.

    A transition or a service may destroy a subscription while another thread waits on it; rclpy then raises
    out of the wait, where nothing but that subscription is lost. What a callback raises is logged: rclpy's
    own services raise on requests without sense (a parameter of a type that there is not), and no client may
    end the node.
    """
    while executor.context.ok():
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return
        except _rclpy.InvalidHandle:
            continue
        except Exception as error:
            if not executor.context.ok():
                raise
            get_logger("d4rt").error(f"a callback failed: {type(error).__name__}: {error}")


def autostart(node: D4RTNode) -> bool:
    """Configure and activate without a lifecycle manager; False if that failed (the log says why)."""
    if node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
        return False
    return bool(node.trigger_activate() == TransitionCallbackReturn.SUCCESS)


def run(args: Sequence[str] | None = None) -> int:
    """Run until SIGINT, SIGTERM or a shutdown of the context; 0, or 2 for wrong parameters at start."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        node = D4RTNode()
    except (ValueError, ParameterException) as error:
        print(f"d4rt cannot start: {error}", file=sys.stderr)
        try_shutdown()
        return 2
    executor = make_executor(node)

    def spin() -> None:
        try:
            spin_on(executor)
        except Exception:
            if not ended.is_set():  # at the end rclpy may find its context gone in the middle of a wait
                raise
        finally:
            ended.set()

    spinning = threading.Thread(target=spin, name="d4rt-executor", daemon=True)
    spinning.start()
    if node.values["autostart"]:
        # Not on this thread: loading may take long, and the process must still end on a signal.
        threading.Thread(target=autostart, args=(node,), name="d4rt-autostart", daemon=True).start()
    ended.wait()
    node.close()
    try_shutdown()
    spinning.join(1.0)
    # Tells the other nodes that this one is gone, instead of leaving it to a time-out.
    goodbye = threading.Thread(target=node.destroy_node, daemon=True)
    goodbye.start()
    goodbye.join(0.5)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that wait inside a library (a long step of the device) must not hold up the end.
    os._exit(0)
