"""Hears everything that the node says: records it as a rosbag2, and keeps what pictures and figures need."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from mcap_ros2.reader import read_ros2_messages
from pictures import Seen
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from d4rt_ros import conversions
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.node.messages import message_class
from d4rt_ros.outputs import LATCHED, TOPICS

KEPT = 120  # images held until their depth comes
TRACKS = "/d4rt/tracks"


class Listener:
    """Subscribes to all outputs and to the camera.

    Args:
        node: to subscribe on.
        bag: rosbag2 to record to.
        on_window: called with (number, latency in s) of every depth image.
    """

    def __init__(self, node: Node, bag: Path, on_window: Callable[[int, float], None]) -> None:
        """Subscribe and record."""
        self.node, self.on_window = node, on_window
        self.seen = Seen()
        self.size: tuple[int, int] | None = None  # H, W of the camera's images
        self.latencies: list[float] = []
        self.counts: dict[str, int] = {}
        self.diagnostics: dict[str, str] = {}
        self.trouble = ""  # what the node says is wrong with it
        self.metric = False
        self.changed = threading.Condition()
        self._tracks_type = message_class("d4rt_ros/msg/Tracks")
        self._store = BagMessages().store
        self._writer = Writer(bag, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._recording = True
        self._topics: set[str] = set()
        for topic, (kind, _) in TOPICS.items():
            name = topic if topic.startswith("/") else f"/d4rt/{topic}"
            self._record(name, kind, latched=topic in LATCHED)
        self._record("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
        image = message_class("sensor_msgs/msg/Image")
        node.create_subscription(image, "/camera/image_raw", self._image, qos_profile_sensor_data)

    def _record(self, topic: str, kind: str, latched: bool = False) -> None:
        connection = self._writer.add_connection(topic, kind, typestore=self._store)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        message_type = message_class(kind)

        self._topics.add(topic)

        def take(data: bytes) -> None:
            if not self._recording:
                return
            now = self.node.get_clock().now().nanoseconds
            self._writer.write(connection, now, data)
            self.counts[topic] = self.counts.get(topic, 0) + 1
            if topic in self._looks:
                self._looks[topic](self, deserialize_message(data, message_type), now)
            with self.changed:
                self.changed.notify_all()

        self.node.create_subscription(message_type, topic, take, qos, raw=True)

    def _image(self, message: Any) -> None:
        self.size = message.height, message.width
        images = self.seen.images
        images[conversions.stamp_ns(message.header.stamp)] = conversions.image_array(message).copy()
        while len(images) > KEPT:
            del images[min(images)]

    def _depth(self, message: Any, now: int) -> None:
        stamp = conversions.stamp_ns(message.header.stamp)
        if stamp in self.seen.images:
            self.seen.depths.append((self.seen.images[stamp], conversions.depth_array(message)))
        self.latencies.append((now - stamp) / 1e9)
        self.on_window(len(self.latencies), self.latencies[-1])

    def _tracks(self, message: Any, now: int) -> None:
        frames, points = len(message.stamps), len(message.ids)
        self.metric = message.metric
        self.seen.tracks = (
            [conversions.stamp_ns(stamp) for stamp in message.stamps],
            np.asarray(message.ids),
            np.asarray(message.uv, np.float32).reshape(frames, points, 2),
            np.asarray(message.visibility, np.float32).reshape(frames, points),
        )

    def _path(self, message: Any, now: int) -> None:
        places = [pose.pose.position for pose in message.poses]
        self.seen.path = np.array([(place.x, place.y, place.z) for place in places])

    def _diagnostics(self, message: Any, now: int) -> None:
        self.trouble = "; ".join(s.message for s in message.status if s.level == DiagnosticStatus.ERROR)
        for status in message.status:
            self.diagnostics.update({value.key: value.value for value in status.values})

    _looks = {
        "/d4rt/depth/image": _depth,
        TRACKS: _tracks,
        "/d4rt/path": _path,
        "/diagnostics": _diagnostics,
    }

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds; False if it does not within so many seconds."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not condition():
                if time.monotonic() > deadline:
                    return False
                self.changed.wait(0.2)
        return True

    def unheard(self) -> list[str]:
        """Outputs of the node on which nothing came."""
        return sorted(self._topics - set(self.counts))

    def close(self) -> None:
        """Finish the bag; what comes later is not heard."""
        self._recording = False
        self._writer.close()


def check_bag(bag: Path) -> dict[str, int]:
    """Open a recorded bag with `rosbags` and with `mcap-ros2-support` and read every message in it.

    Returns:
        Number of messages by topic.

    Raises:
        ValueError: the two do not find the same, or our own message is not in it.
    """
    by_rosbags: dict[str, int] = {}
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)
            by_rosbags[connection.topic] = by_rosbags.get(connection.topic, 0) + 1
    by_mcap: dict[str, int] = {}
    points = 0
    with (bag / f"{bag.name}.mcap").open("rb") as stream:
        for message in read_ros2_messages(stream):
            topic = message.channel.topic
            by_mcap[topic] = by_mcap.get(topic, 0) + 1
            if topic == TRACKS:
                points = max(points, len(message.ros_msg.ids))
    if by_rosbags != by_mcap:
        raise ValueError(f"rosbags and mcap-ros2-support read different messages: {by_rosbags}, {by_mcap}")
    if not points:
        raise ValueError(f"no {TRACKS} with points was recorded: {by_mcap}")
    return by_mcap
