"""Buffer: look-ups that can wait."""

from __future__ import annotations

from time import sleep
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node

from tf2_ros.core import BufferCore


class Buffer(BufferCore):
    """Keeps transforms; a TransformListener fills it."""

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        """Keeps cache_time (10 s) of transforms, and forgets them when the node's clock jumps back."""
        super().__init__(cache_time)
        self.clock = Clock() if node is None else node.get_clock()
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self.jump_handle = self.clock.create_jump_callback(threshold, post_callback=self.time_jump_callback)

    def time_jump_callback(self, time_jump: Any) -> None:
        """Forgets everything."""
        get_logger("tf2_buffer").warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Any,
        timeout: Duration = Duration(),  # noqa: B008 - the original's signature
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Returns whether the look-up is possible, waiting up to timeout until it is."""
        clock = Clock()
        end = clock.now() + timeout
        result = self.can_transform_core(target_frame, source_frame, time)
        while not result[0] and clock.now() < end:
            sleep(0.02)
            result = self.can_transform_core(target_frame, source_frame, time)
        return result if return_debug_tuple else result[0]

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Any,
        timeout: Duration = Duration(),  # noqa: B008 - the original's signature
    ) -> TransformStamped:
        """Returns target_from_source at a time (zero: the newest), waiting up to timeout for it.

        Raises:
            TransformException: one of its kinds.
        """
        self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)
