"""A camera for bench.node: 640x480 rgb8 images at a fixed rate until SIGTERM; then it says how many."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from d4rt_ros import conversions
from d4rt_ros.model.allocator import keep_freed_memory
from d4rt_ros.node.messages import RclpyMessages
from d4rt_ros.node.wire import image_bytes

HEIGHT, WIDTH = 480, 640


def main() -> None:
    """Publish as soon as somebody listens."""
    rate = float(sys.argv[1])
    ended = threading.Event()
    keep_freed_memory()  # a driver in C++ has its memory at hand, too
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(
        Image, "image", QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    types = RclpyMessages()
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    while publisher.get_subscription_count() == 0 and not ended.wait(0.05):
        pass
    ended.wait(2.0)  # until the listener has found us too: what it loses before, nobody can count

    def publish(picture: np.ndarray) -> None:
        message = conversions.rgb_image(types, 0, "camera", picture)
        message.header.stamp = conversions.time_message(types, time.time_ns())
        publisher.publish(image_bytes(message))  # a driver in C++ copies no pixels in Python either

    sent, due = 0, time.monotonic()
    while not ended.wait(max(0.0, due - time.monotonic())):
        publish(picture)
        sent += 1
        due = max(due + 1.0 / rate, time.monotonic())
    for _ in range(3):  # a loss shows only when something comes after it; small images do arrive
        time.sleep(0.5)
        publish(picture[:16, :16])
        sent += 1
    time.sleep(0.5)
    print(json.dumps({"sent": sent}), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
