"""The least that a node costs, for bench.node: rclpy as everybody uses it, and nothing of ours in between.

Every fourth image is answered by a depth image, every request by a cloud, from bytes that lie ready. Until
SIGTERM; then one line of JSON.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from array import array
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, PointField

from bench.node_camera import HEIGHT, WIDTH
from d4rt_ros import conversions
from d4rt_ros.model.allocator import keep_freed_memory
from d4rt_ros.node.messages import OUTPUT, REQUESTS
from d4rt_ros.srv import Query

EVERY = 4  # images a window goes on, by default
COLUMNS = 13  # numbers of a point of ~/query
POINT = 4 * COLUMNS  # bytes


def main() -> None:
    """Run until SIGTERM."""
    keep_freed_memory()
    ended = threading.Event()
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    node = rclpy.create_node("d4rt")
    depth, cloud = bytes(4 * HEIGHT * WIDTH), bytes(10_000 * POINT)
    fields = [PointField(name=f"c{i}", offset=4 * i, datatype=7, count=1) for i in range(COLUMNS)]
    publisher = node.create_publisher(Image, "~/depth/image", OUTPUT)
    overhead: list[float] = []
    heard = 0

    def on_image(message: Image) -> None:
        nonlocal heard
        heard += 1
        if heard % EVERY:
            return
        answer = Image(header=message.header, height=HEIGHT, width=WIDTH, encoding="32FC1", step=4 * WIDTH)
        answer.data = array("B", depth)
        publisher.publish(answer)
        overhead.append((time.time_ns() - conversions.stamp_ns(message.header.stamp)) / 1e6)

    def on_request(request: Any, response: Any) -> Any:
        response.success = True
        response.points.fields = fields
        response.points.data = array("B", cloud[: len(request.u) * POINT])
        return response

    node.create_subscription(Image, "image", on_image, qos_profile_sensor_data)
    node.create_service(Query, "~/query", on_request, qos_profile=REQUESTS)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not ended.is_set():  # rclpy's own handlers at times wake nobody who waits, who then waits for ever
        executor.spin_once(timeout_sec=0.2)
    print(json.dumps({"overhead_ms": overhead[5:]}), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
