"""The node for bench.node: the real one, with a network that costs nothing, and clocks at its seams.

Until SIGTERM; then one line of JSON with what the clocks said.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import rclpy
import torch

from d4rt_ros import conversions
from d4rt_ros.model import Answers, Queries
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.node.parameters import Value
from d4rt_ros.node.run import autostart, make_executor
from d4rt_ros.node.wire import read_image
from d4rt_ros.stream import WindowResult

FRAMES = 8


@dataclass(eq=False)
class FlatScene:
    """A wall at 2 units, seen by a camera that stands still. Counts the time spent in ``decode``."""

    frames: torch.Tensor
    stamps: tuple[int, ...]
    spent: dict[int, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )  # seconds by size of request
    device: torch.device = torch.device("cpu")

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.stamps)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.frames.shape[-2], self.frames.shape[-1]

    def decode(self, queries: Queries) -> Answers:
        """The wall's points."""
        started = time.perf_counter()
        uv = torch.stack((queries.u, queries.v), -1)
        count = len(queries.u)
        xyz = torch.full((count, 3), 2.0)
        xyz[:, :2] = uv * 2.0 - 1.0
        zero, one = torch.zeros(count, 3), torch.ones(count)
        normal = zero.clone()
        normal[:, 2] = -1.0
        answers = Answers(xyz=xyz, uv=uv, visibility=one, displacement=zero, normal=normal, confidence=one)
        self.spent[count].append(time.perf_counter() - started)
        return answers


class FlatModel:
    """Encodes at once."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        """Any parameters will do."""
        self.config, self.device, self.precision = (
            SimpleNamespace(frames=FRAMES),
            torch.device("cpu"),
            torch.float32,
        )
        self.scenes: list[FlatScene] = []
        self.decodes: dict[int, list[float]] = defaultdict(list)

    def parameters(self) -> Any:
        """No weights."""
        return iter(())

    def encode(self, video: torch.Tensor, stamps: tuple[int, ...]) -> FlatScene:
        """The wall."""
        scene = FlatScene(video, stamps)
        self.scenes.append(scene)
        for old in self.scenes[:-8]:
            for size, times in old.spent.items():
                self.decodes[size] += times
        self.scenes = self.scenes[-8:]
        return scene


def main() -> None:
    """Run the node until SIGTERM."""
    torch.set_num_threads(1)
    ended = threading.Event()
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    model = FlatModel({})
    node = D4RTNode(lambda values: model)  # type: ignore[arg-type,return-value]
    executor = make_executor(node)
    overheads, ros, transports, solving, callback_cpu, memory = [], [], [], [], [], []
    threading.Thread(target=executor.spin, daemon=True).start()
    assert autostart(node) and node.session is not None
    session, publish = node.session, node.session._publish
    depth = session._publishers._publishers["depth/image"]
    take, process_window, early, send = (
        session.inputs._take,
        session.pipeline.process,
        session.worker._on_early,
        depth.publish,
    )
    began = [0, 0]  # when the pipeline took the window, and when its depth was ready to become a message
    first: list[int] = []  # number of the first image heard: those before it were sent to us and lost, too

    def timed_take(header: Any, image: np.ndarray) -> None:
        now, started = time.time_ns(), time.thread_time()
        if not first:
            first.append(session.inputs.counters.gaps.newest or 1)
        transports.append((now - conversions.stamp_ns(header.stamp)) / 1e6)
        take(header, image)
        callback_cpu.append(1e3 * (time.thread_time() - started))

    def timed_process(*args: Any, **options: Any) -> WindowResult:
        began[0] = time.time_ns()
        return process_window(*args, **options)

    def timed_early(result: WindowResult, parts: frozenset[str]) -> None:
        if "depth" in parts:
            began[1] = time.time_ns()
        early(result, parts)

    def timed_send(message: bytes) -> None:
        send(message)
        now, stamp = time.time_ns(), conversions.stamp_ns(read_image(message).header.stamp)
        network = 1e3 * sum(sum(times) for times in model.scenes[-1].spent.values())
        overheads.append((now - stamp) / 1e6 - network)
        ros.append((began[0] - stamp + now - began[1]) / 1e6)

    def timed_publish(result: WindowResult) -> None:
        publish(result)
        solving.append(dict(result.seconds))

    session.inputs._take = timed_take  # type: ignore[method-assign]
    session.pipeline.process = timed_process  # type: ignore[method-assign]
    session.worker._on_early, session.worker._on_result = timed_early, timed_publish
    depth.publish = timed_send
    process = psutil.Process()
    while not ended.wait(1.0):
        memory.append(process.memory_info().rss / 2**20)
    for scene in model.scenes:
        for size, times in scene.spent.items():
            model.decodes[size] += times
    figures = session.figures()
    frames = session.window.counters
    half = memory[len(memory) // 3 :]
    report = {
        "overhead_ms": overheads[5:],
        "ros_ms": ros[5:],
        "transport_ms": transports[5:],
        "callback_cpu_ms": float(np.median(callback_cpu)) if callback_cpu else None,
        "cpu_seconds": process.cpu_times().user + process.cpu_times().system,
        "decode_ms": {str(size): 1e3 * float(np.median(times)) for size, times in model.decodes.items()},
        "step_ms": {
            name: 1e3 * float(np.median([one[name] for one in solving if name in one]))
            for name in (solving[-1] if solving else {})
        },
        "received": figures["images received"],
        "lost": figures["images lost by the middleware"] + (first[0] - 1 if first else 0),
        "accounted": frames.used
        + frames.thinned
        + frames.duplicates
        + frames.out_of_order
        + figures["images refused"]
        + figures["frames while paused"],
        "windows": [session.worker.counters.windows_in, session.worker.counters.windows_done],
        "windows_dropped": session.worker.counters.windows_dropped,
        "rss_growth_mb": float(np.median(half[-5:]) - np.median(half[:5])) if half else 0.0,
        "rss_mb": half[-1] if half else None,
    }
    print(json.dumps(report), flush=True)
    node.close()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
