"""A planner in small: listens to every output, calls every service and the action, and reports.

    python tools/demo/client.py OUT_FOLDER

Exit code 0 if everything answered; otherwise 1, with the reason.
"""

from __future__ import annotations

import argparse
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


def main() -> int:
    """Run once; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    folder = parser.parse_args().out
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # SIGTERM ends it at once
    node = rclpy.create_node("demo_client")
    started = time.monotonic()
    windows: list[int] = []

    def on_window(stamp: int, latency: float) -> None:
        windows.append(stamp)
        print(
            f"{time.monotonic() - started:6.1f} s  window {len(windows):3d}   latency {latency:5.2f} s",
            flush=True,
        )

    listener = Listener(node, folder / "outputs", on_window)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinner.start()
    caller = Caller(node, listener)
    try:
        listener.wait_for(lambda: bool(windows or listener.trouble), PATIENCE)
        _expect(bool(windows), listener.trouble or "the node published no depth", listener)
        _expect(
            listener.wait_for(lambda: len(windows) >= FIRST_WINDOWS, 60.0),
            "the node stopped publishing",
            listener,
        )
        for call in (*FIRST_CALLS, "track_all"):
            caller.run(call)
        _expect(
            listener.wait_for(lambda: len(windows) >= LAST_WINDOWS, 60.0),
            "the node stopped publishing",
            listener,
        )
        made = save_pictures(listener.seen, folder, listener.metric)
        caller.run("pause")
        caller.run("reset")
        count = len(windows)
        _expect(
            listener.wait_for(lambda: len(windows) > count + 1, 30.0),
            "after reset the node published nothing",
            listener,
        )
        silent = listener.unheard()
        _expect(not silent, f"nothing came on {', '.join(silent)}", listener)
        time.sleep(1.1)  # the diagnostics of this very moment
        listener.close()
        recorded = check_bag(folder / "outputs")
    except KeyboardInterrupt:
        return 130
    except NoAnswer as problem:
        print(f"demo failed: {problem}", file=sys.stderr, flush=True)
        _report(caller, listener, len(windows))
        return 1
    finally:
        executor.shutdown(timeout_sec=2.0)
        rclpy.try_shutdown()
    _report(caller, listener, len(windows))
    print(
        f"\n{folder}/outputs: {sum(recorded.values())} messages on {len(recorded)} topics, "
        "read back with rosbags and mcap-ros2-support"
    )
    missing = [name for name, good in made.items() if not good]
    print(f"{folder}: {', '.join(name for name, good in made.items() if good)}")
    if missing:
        print(f"demo failed: nothing to show in {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


def _expect(good: bool, problem: str, listener: Listener) -> None:
    if not good:
        heard = ", ".join(f"{topic}: {count}" for topic, count in listener.counts.items()) or "nothing"
        raise NoAnswer(f"{problem} (heard: {heard})")


def _report(caller: Caller, listener: Listener, windows: int) -> None:
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
    print(f"  {'depth images heard':32s} {windows}")
    if listener.latencies:
        p50, p95 = np.percentile(listener.latencies, [50, 95])
        print(f"  {'latency, image to depth':32s} p50 {p50:.3f} s, p95 {p95:.3f} s")
    print("\nrequest                              time      answer")
    for row in caller.rows:
        print(f"  {row.name:34s} {1000 * row.seconds:7.1f} ms  {row.answer}")


if __name__ == "__main__":
    sys.exit(main())
