"""Publishers of /tf and /tf_static."""

from __future__ import annotations

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from tf2_msgs.msg import TFMessage


class TransformBroadcaster:
    """Publishes on /tf."""

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        """Creates the publisher."""
        self.pub_tf = node.create_publisher(TFMessage, "/tf", 100 if qos is None else qos)

    def sendTransform(self, transform: TransformStamped | list[TransformStamped]) -> None:  # noqa: N802
        """Publishes one transform, or several."""
        self.pub_tf.publish(TFMessage(transforms=transform if isinstance(transform, list) else [transform]))


class StaticTransformBroadcaster:
    """Publishes on /tf_static, for late subscribers too: each message holds all transforms sent so far."""

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        """Creates the publisher."""
        latched = QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, history=HistoryPolicy.KEEP_LAST
        )
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", latched if qos is None else qos)
        self.net_transforms: dict[str, TransformStamped] = {}

    def sendTransform(self, transform: TransformStamped | list[TransformStamped]) -> None:  # noqa: N802
        """Publishes one transform, or several."""
        for one in transform if isinstance(transform, list) else [transform]:
            self.net_transforms[one.child_frame_id] = one
        self.pub_tf.publish(TFMessage(transforms=list(self.net_transforms.values())))
