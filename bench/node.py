"""What does the node cost beside its network? `python -m bench.node [--quick]`.

Needs the environment of the node.

A camera (30 Hz, 640x480 rgb8) and the node run in processes of their own and talk over real DDS, once with
the middleware's defaults and once with config/fastdds_shm.xml. The network is a stub that costs nothing, so
figures say nothing about its speed or its answers; the time in its encode and decode is taken off.

Keys of the last line, with the shared-memory profile (``default_transport`` holds those without):
overhead_ms_p50, overhead_ms_p95: from the image's stamp to its depth published, less encode and decode; with
what the pipeline solves before it. ros_ms_p50, ros_ms_p95: the same without what the pipeline does:
transport, conversion, queues, messages.
service_extra_ms_10000: round trip of a ~/query for 10,000 points, less its decode (medians). The client waits
for its answer alone: with an executor of rclpy it would take about a millisecond more itself.
uncounted_drops: images sent, less those received and those that the middleware reports as lost, and images
received, less those that the frame window accounts for. rss_growth_mb: resident memory, from a third of the
run on.
bare_rclpy: the same camera, client and profile beside a node that does nothing but answer (`node_bare.py`):
what this machine takes for messages alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "config" / "fastdds_shm.xml"
SIZES = (1, 1_000, 10_000)
BARE_SECONDS = 4.0


def start(module: str, *args: str) -> subprocess.Popen[str]:
    """A process of ours whose last line of output is JSON."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """End it and read what it measured."""
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=30)
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def percentile(values: list[float], share: float) -> float | None:
    """None where nothing was measured: of a middleware that loses most images nothing may be left."""
    return float(np.percentile(values, share)) if values else None


def round_trip(node: Any, service: Any, request: Any) -> Any:
    """The answer to a request, without an executor, which takes a millisecond of its own for every call."""
    from rclpy.impl.implementation_singleton import rclpy_implementation as rclpy_c

    with node.context.handle, service.handle:
        wait_set = rclpy_c.WaitSet(0, 0, 0, 1, 0, 0, node.context.handle)
        wait_set.clear_entities()
        wait_set.add_client(service.handle)
        service.handle.send_request(request)
        wait_set.wait(20_000_000_000)
        return service.handle.take_response(service.srv_type.Response)[1]


def client(seconds: float) -> None:
    """Listen to depth, and ask ~/query in turns; prints medians of the round trips in ms."""
    import rclpy
    from sensor_msgs.msg import Image

    from d4rt_ros.model.allocator import keep_freed_memory
    from d4rt_ros.node.messages import OUTPUT
    from d4rt_ros.srv import Query

    keep_freed_memory()
    rclpy.init()
    node = rclpy.create_node("client")
    # As bytes: what a listener makes of depth is none of the node's time.
    node.create_subscription(Image, "/d4rt/depth/image", lambda message: None, OUTPUT, raw=True)
    service = node.create_client(Query, "/d4rt/query")
    assert service.wait_for_service(120)
    random = np.random.default_rng(0)
    trips: dict[int, list[float]] = {size: [] for size in SIZES}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for size, times in trips.items():
            request = Query.Request()
            for field, extent in (("u", 640), ("v", 480)):
                getattr(request, field).frombytes(
                    random.uniform(0, extent - 1, size).astype(np.float32).tobytes()
                )
            started = time.perf_counter()
            answer = round_trip(node, service, request)
            took = 1e3 * (time.perf_counter() - started)
            if answer is not None and answer.success:
                times.append(took)
            wait = time.monotonic() + 0.1
            while time.monotonic() < wait:
                rclpy.spin_once(node, timeout_sec=0.02)
    report = {
        "median": {str(size): percentile(times, 50) for size, times in trips.items()},
        "calls": sum(map(len, trips.values())),
    }
    print(json.dumps(report), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()


def play(module: str, seconds: float, profile: Path | None, domain: int) -> tuple[Any, int, Any]:
    """A camera and a client beside a node, over DDS: what the client, the camera and the node measured."""
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
    if profile is not None:
        os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(profile)
    node = start(module, "--ros-args", "--log-level", "error")
    camera = start("bench.node_camera", "30")
    asking = start("bench.node", "--client", str(seconds))
    try:
        trips = json.loads(asking.communicate(timeout=seconds + 180)[0].strip().splitlines()[-1])
        return trips, finish(camera)["sent"], finish(node)
    finally:
        for process in (node, camera, asking):
            process.kill()


def run_bare(seconds: float, profile: Path, domain: int) -> dict[str, Any]:
    """What rclpy costs without us, on the same machine: figures by name."""
    trips, _, found = play("bench.node_bare", seconds, profile, domain)
    return {
        "overhead_ms_p50": percentile(found["overhead_ms"], 50),
        "overhead_ms_p95": percentile(found["overhead_ms"], 95),
        "service_ms_10000": trips["median"]["10000"],
    }


def run(seconds: float, profile: Path | None, domain: int) -> dict[str, Any]:
    """One run of our node over DDS: figures by name."""
    trips, sent, found = play("bench.node_stub", seconds, profile, domain)
    unseen = sent - found["received"] - found["lost"]
    trip, decode = trips["median"]["10000"], found["decode_ms"].get("10000")
    return {
        "overhead_ms_p50": percentile(found["overhead_ms"], 50),
        "overhead_ms_p95": percentile(found["overhead_ms"], 95),
        "ros_ms_p50": percentile(found["ros_ms"], 50),
        "ros_ms_p95": percentile(found["ros_ms"], 95),
        "service_extra_ms_10000": None if trip is None or decode is None else trip - decode,
        "uncounted_drops": abs(unseen) + abs(found["received"] - found["accounted"]),
        "rss_growth_mb": found["rss_growth_mb"],
        "service_ms": trips["median"],
        "service_calls": trips["calls"],
        "stamp_to_callback_ms_p50": percentile(found["transport_ms"], 50),
        "callback_cpu_ms": found["callback_cpu_ms"],
        "images_sent": sent,
        "images_received": found["received"],
        "images_accounted": found["accounted"],
        "images_lost": found["lost"],
        "windows": found["windows"][0],
        "windows_dropped": found["windows_dropped"],
        "step_ms": found["step_ms"],
        "rss_mb": found["rss_mb"],
        "node_cpu_seconds": found["cpu_seconds"],
    }


def main() -> None:
    """Measure, print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute in all; else ten")
    parser.add_argument("--client", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client(args.client)
        return
    seconds = 15.0 if args.quick else 300.0
    domain = 1 + os.getpid() % 100
    results = {
        "default_transport": run(seconds, None, domain),
        "shared_memory_profile": run(seconds, PROFILE, domain),
        "bare_rclpy": run_bare(BARE_SECONDS, PROFILE, domain),
    }
    for name, figures in results.items():
        print(f"{name}:")
        for key, value in figures.items():
            print(f"  {key:28s} {value}")
    keys = (
        "overhead_ms_p50",
        "overhead_ms_p95",
        "ros_ms_p50",
        "ros_ms_p95",
        "service_extra_ms_10000",
        "uncounted_drops",
        "rss_growth_mb",
    )
    print(
        json.dumps(
            {
                **machine.rounded({key: results["shared_memory_profile"][key] for key in keys}),
                "network": "stub of zero cost",
                "seconds": seconds,
                "default_transport": machine.rounded(
                    {key: results["default_transport"][key] for key in keys}
                ),
                "bare_rclpy": machine.rounded(results["bare_rclpy"]),
            }
        )
    )


if __name__ == "__main__":
    main()
