"""The node's publishers, and which of them anybody listens to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from tf2_ros import TransformBroadcaster

from d4rt_ros.node.messages import LATCHED, OUTPUT, message_class
from d4rt_ros.node.wire import image_bytes
from d4rt_ros.outputs import LATCHED as LATCHED_TOPICS
from d4rt_ros.outputs import TOPICS


class Publishers:
    """All outputs. They send while the node is active only."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create them on the node."""
        self._publishers = {
            topic: node.create_lifecycle_publisher(
                message_class(kind), f"~/{topic}", LATCHED if topic in LATCHED_TOPICS else OUTPUT
            )
            for topic, (kind, _) in TOPICS.items()
            if not topic.startswith("/")
        }
        self._broadcaster = TransformBroadcaster(node)

    def wanted(self, tf_mode: str) -> frozenset[str]:
        """Keys of TOPICS that somebody listens to now."""
        heard = {topic for topic, one in self._publishers.items() if one.get_subscription_count() > 0}
        return frozenset(heard | ({"/tf"} if tf_mode != "none" else set()))

    def send(self, messages: Iterable[tuple[str, Any]]) -> None:
        """Publish (topic, message) pairs."""
        for topic, message in messages:
            if topic == "/tf":
                self._broadcaster.sendTransform(message.transforms)
            else:
                image = TOPICS[topic][0] == "sensor_msgs/msg/Image"
                self._publishers[topic].publish(image_bytes(message) if image else message)
