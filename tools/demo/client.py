"""A planner in small: listens to every output, calls every service and the action, and reports.

    python tools/demo/client.py OUT_FOLDER

Exit code 0 if everything answered; otherwise 1, with the reason.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import rclpy
from calls import FIRST_CALLS, Caller, NoAnswer
from listener import Listener, check_bag
from pictures import save_pictures
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

FIRST_WINDOWS = 8  # watched before services are called
LAST_WINDOWS = 20  # watched in all before the pictures are made
PATIENCE = 180.0  # seconds for the node to load its network and encode the first window
SILENCE = 60.0  # seconds for the next window


def main() -> int:
    """Run once; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    folder = parser.parse_args().out
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # SIGTERM ends it at once
    node = rclpy.create_node("demo_client")
    started = time.monotonic()

    def on_window(number: int, latency: float) -> None:
        passed = time.monotonic() - started
        print(f"{passed:6.1f} s  window {number:3d}   latency {latency:5.2f} s", flush=True)

    listener = Listener(node, folder / "outputs", on_window)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    threading.Thread(target=_spin, args=(executor,), daemon=True).start()
    caller = Caller(node, listener)
    problem = ""
    try:
        made, recorded = converse(caller, listener, folder)
        empty = [name for name, good in made.items() if not good]
        problem = f"nothing to show in {', '.join(empty)}" if empty else ""
    except KeyboardInterrupt:
        return 130
    except NoAnswer as error:
        problem = str(error)
    finally:
        executor.shutdown(timeout_sec=2.0)
        rclpy.try_shutdown()
    _report(caller, listener)
    if problem:
        print(f"\ndemo failed: {problem}", flush=True)
        return 1
    print(
        f"\n{folder}/outputs: {sum(recorded.values())} messages on {len(recorded)} topics, "
        f"read back with rosbags and mcap-ros2-support\n{folder}: {', '.join(made)}"
    )
    return 0


def converse(caller: Caller, listener: Listener, folder: Path) -> tuple[dict[str, bool], dict[str, int]]:
    """Watch the stream, make every call, draw and check.

    Returns:
        Whether there was something to show, by picture; and the recorded messages by topic.

    Raises:
        NoAnswer: something did not answer.
    """
    listener.wait_for(lambda: bool(listener.latencies or listener.trouble), PATIENCE)
    if not listener.latencies:
        raise NoAnswer(listener.trouble or f"no depth within {PATIENCE:.0f} s (heard: {listener.counts})")
    _watch(listener, FIRST_WINDOWS)
    for call in (*FIRST_CALLS, "track_all"):
        caller.run(call)
    _watch(listener, LAST_WINDOWS)
    made = save_pictures(listener.seen, folder, listener.metric)
    caller.run("pause")
    caller.run("reset")
    _watch(listener, len(listener.latencies) + 2)  # it goes on
    time.sleep(1.1)  # for the diagnostics of this moment
    if silent := listener.unheard():
        raise NoAnswer(f"nothing came on {', '.join(silent)}")
    listener.close()
    return made, check_bag(folder / "outputs")


def _watch(listener: Listener, windows: int) -> None:
    """Wait until so many windows came in all."""
    while (count := len(listener.latencies)) < windows:
        if not listener.wait_for(lambda seen=count: len(listener.latencies) > seen, SILENCE):
            raise NoAnswer(f"no window within {SILENCE:.0f} s (heard: {listener.counts})")


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


def _report(caller: Caller, listener: Listener) -> None:
    """The table."""
    figures = listener.diagnostics
    print("\nstream")
    for name in (
        "images received",
        "windows encoded",
        "windows dropped",
        "images lost by the middleware",
        "images refused",
    ):
        print(f"  {name:32s} {figures.get(name, 'not told')}")
    print(f"  {'depth images heard':32s} {len(listener.latencies)}")
    if listener.latencies:
        p50, p95 = np.percentile(listener.latencies, [50, 95])
        print(f"  {'latency, image to depth':32s} p50 {p50:.3f} s, p95 {p95:.3f} s")
    print("\nrequest                              time      answer")
    for row in caller.rows:
        print(f"  {row.name:34s} {1000 * row.seconds:7.1f} ms  {row.answer}")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of the middleware that still run would abort an ordinary end
