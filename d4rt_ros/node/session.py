"""Everything that exists only while the node is active: pipeline, worker, frame window, subscriptions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.node import Node

from d4rt_ros import conversions
from d4rt_ros.node.inputs import CameraInputs
from d4rt_ros.node.messages import TopicMessages
from d4rt_ros.node.parameters import Value, stream_settings
from d4rt_ros.node.publishers import Publishers
from d4rt_ros.node.supervision import Supervision
from d4rt_ros.node.transforms import Transforms
from d4rt_ros.outputs import EARLY_PARTS, TOPICS, Outputs, parts_for
from d4rt_ros.stream import Frame, FrameWindow, Pipeline, WindowResult, Worker
from d4rt_ros.stream.report import FAILED

if TYPE_CHECKING:
    from d4rt_ros.model import D4RT

LATENCIES = 256  # windows that latency figures are about


class Session:
    """One activation, from subscribing to ``stop``.

    Args:
        node: the node.
        model: the network.
        values: all parameters.
        publishers: where results go.
        first_id: of the first followed point.

    Attributes:
        paused: True while frames are not encoded.
        latencies: seconds from the arrival of a window's newest frame to its published results, newest last.
        frames_paused: frames that came while paused.
        problem: what went wrong with the last window; empty if nothing did.

    Raises:
        ValueError: parameters that do not fit together or to the network.
    """

    def __init__(
        self,
        node: Node,
        model: D4RT,
        values: Mapping[str, Value],
        publishers: Publishers,
        first_id: int = 1,
    ) -> None:
        """Subscribe and start the worker."""
        self.settings = stream_settings(values, model.config.frames)
        self.values, self.types = dict(values), TopicMessages()
        self.world, self._base = str(values["frames.world"]), str(values["frames.base"])
        self._odom, self._tf_mode = str(values["frames.odom"]), str(values["tf.mode"])
        self.paused, self.frames_paused, self.problem = False, 0, ""
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self.newest: WindowResult | None = None
        self._followed: set[int] = set()  # touched on the worker's thread only
        self._arrivals: dict[int, float] = {}
        self._mapped: int | None = None  # segment of the map that late subscribers get
        self._entry = threading.Lock()  # no window gets in while all are being forgotten
        self._node, self._publishers = node, publishers
        self._outputs = Outputs(self.types, self.world, self._base, self._tf_mode)
        self._topics: frozenset[str] = frozenset()
        needs_tf = bool(self._base) or values["scale.source"] == "odometry"
        self.transforms = Transforms(node) if needs_tf else None
        self.pipeline = Pipeline(model, self.settings, self._mount, first_id)
        self.window = FrameWindow(
            self.settings.window_length,
            self.settings.window_stride,
            self.settings.frame_step,
            int(self.settings.max_gap * 1e9),
        )
        self.worker = Worker(
            self.pipeline,
            self._publish,
            self._failed,
            self.settings.query_queue,
            self._wanted,
            self._publish_early,
        )
        self.worker.start()
        self.inputs = CameraInputs(node, values, self._on_frame, self._start_over, self.transforms)
        self.supervision = Supervision(node, values, self.inputs, self.window, self.transforms)

    def stop(self) -> None:
        """Unsubscribe and end the worker; what waits is refused. A step that runs ends by itself."""
        self.inputs.close()
        if self.transforms is not None:
            self.transforms.close()
        if not self.worker.stop():
            self._node.get_logger().info(
                "the device is still busy with its last step; its result is thrown away"
            )
        self._forget_map()

    def reset(self, reason: str) -> Future[Any]:
        """Forget all windows, on the worker's turn; the next window starts a new world."""

        def forget() -> None:
            with self._entry:
                self.window.clear(reason)
                self.worker.drop_window()
            self.pipeline.reset()
            self._followed.clear()
            self._forget_map()

        return self.worker.submit(forget)

    def follow(self, u: np.ndarray, v: np.ndarray, stamp: int) -> Future[np.ndarray]:
        """Carry points u, v [N] (0..1) of the frame with this stamp in ~/tracks; their ids [N] uint32."""

        def add() -> np.ndarray:
            ids = self.pipeline.follow(u, v, stamp)
            self._followed.update(ids.tolist())
            return ids.astype(np.uint32)

        return self.worker.submit(add)

    def unfollow(self, ids: list[int]) -> Future[np.ndarray]:
        """Give up points, all of them for no ids; ids [N] uint32 that are left.

        The future raises ValueError for an id that is not followed; nothing is given up then.
        """

        def remove() -> np.ndarray:
            unknown = [one for one in ids if one not in self._followed]
            if unknown:
                raise ValueError(
                    f"ids has {unknown[0]}, which is not followed; {len(self._followed)} points are"
                )
            gone = ids or sorted(self._followed)
            self.pipeline.unfollow(np.array(gone, np.int64))
            self._followed.difference_update(gone)
            return np.array(sorted(self._followed), np.uint32)

        return self.worker.submit(remove)

    def time_jumped_back(self) -> None:
        """The clock went back, as when a bag is played again."""
        if self.transforms is not None:
            self.transforms.clear()
        self._start_over("time jumped back")

    def _start_over(self, reason: str) -> None:
        self.window.clear(reason)
        self._node.get_logger().info(f"starting over: {reason}", throttle_duration_sec=5.0)

    def _on_frame(self, frame: Frame) -> None:
        if self.paused:
            self.frames_paused += 1
            return
        with self._entry:
            before = self.window.counters.restarts
            window = self.window.push(frame)
            if self.window.counters.restarts > before:
                self._node.get_logger().warning(
                    f"starting over: {self.window.restarts}", throttle_duration_sec=5.0
                )
            if window is not None:
                if len(self._arrivals) > 16:  # of windows that were dropped
                    self._arrivals.clear()
                self._arrivals[frame.stamp] = time.monotonic()
                self.worker.submit_window(window)
        self.window.make_room()

    def _mount(self, frame_id: str, stamp: int) -> np.ndarray | None:
        """Camera_from_base [4, 4] where a base is named and /tf knows it."""
        if self.transforms is None or not self._base:
            return None
        return self.transforms.lookup(frame_id, self._base, stamp)

    def _wanted(self) -> frozenset[str]:
        self._topics = self._publishers.wanted(self._tf_mode)
        return parts_for(self._topics)

    def _publish_early(self, result: WindowResult, parts: frozenset[str]) -> None:
        """Depth, then camera and points to messages; runs on the worker's thread."""
        stamp = result.stamps[-1]
        base_in_camera = odom = None
        if "" in parts:
            base_in_camera = self._mount(result.frame_id, stamp)
            if self._tf_mode == "map_to_odom" and self.transforms is not None:
                odom_from_base = self.transforms.lookup(self._odom, self._base, stamp)
                odom = None if odom_from_base is None else (self._odom, odom_from_base)
        topics = [topic for topic in self._topics if TOPICS[topic][1] in parts]
        self._publishers.send(self._outputs.build(result, topics, base_in_camera, odom))

    def _publish(self, result: WindowResult) -> None:
        """The rest of a result to messages; runs on the worker's thread."""
        topics = [topic for topic in self._topics if TOPICS[topic][1] not in EARLY_PARTS]
        self._publishers.send(self._outputs.build(result, topics))
        if "map_points" in topics and result.map_points is not None:
            self._mapped = result.segment
        elif self._mapped != result.segment:
            self._forget_map()
        arrived = self._arrivals.pop(result.stamps[-1], None)
        if arrived is not None:
            self.latencies.append(time.monotonic() - arrived)
        for note in result.notes:
            self._node.get_logger().info(note, throttle_duration_sec=10.0)
        self.newest = result
        self.problem = "; ".join(note for note in result.notes if FAILED in note)

    def _forget_map(self) -> None:
        """Replace the map of a world that is gone by an empty one."""
        if self._mapped is None or not self._node.context.ok():
            return
        self._mapped, none = None, np.zeros((0, 3))
        now = self._node.get_clock().now().nanoseconds
        empty = conversions.point_cloud(self.types, now, self.world, none, rgb=none)
        self._publishers.send([("map_points", empty)])

    def _failed(self, sentence: str) -> None:
        self.problem = sentence
        self._node.get_logger().error(sentence, throttle_duration_sec=5.0)

    def latency(self) -> dict[str, float]:
        """Mean, p95 and max of ``latencies`` in seconds; empty before the first window."""
        held = np.array(self.latencies)
        if held.size == 0:
            return {}
        return {"mean": float(held.mean()), "p95": float(np.percentile(held, 95)), "max": float(held.max())}

    def figures(self) -> dict[str, Any]:
        """Counters by name, for diagnostics."""
        frames, windows, inputs = self.window.counters, self.worker.counters, self.inputs.counters
        return {
            "images received": inputs.images,
            "images refused": inputs.refused,
            "images lost by the middleware": inputs.lost,
            "frames dropped as late or double": frames.out_of_order + frames.duplicates,
            "frames left out by window.frame_step": frames.thinned,
            "frames without their depth or transform": inputs.alone,
            "frames while paused": self.frames_paused,
            "windows encoded": windows.windows_done,
            "windows dropped": windows.windows_dropped,
            "windows failed": windows.windows_failed,
            "starts over": frames.restarts,
            "requests answered": windows.jobs_done,
            "requests failed": windows.jobs_failed,
            "requests refused": windows.jobs_refused,
            "requests waiting": sum(count for name, count in self.worker.queued.items() if name != "windows"),
        }
