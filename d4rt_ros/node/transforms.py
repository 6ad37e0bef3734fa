"""What is read from /tf, as 4x4 matrices, and why it could not be read."""

from __future__ import annotations

import time

import numpy as np
import tf2_ros
from rclpy.node import Node
from rclpy.time import Time

from d4rt_ros import conversions

# Seconds, and look-ups of others, after which nobody wants a transform any more, such as that of another
# camera. Time alone does not say so: slow windows ask rarely.
UNASKED, OTHERS = 5.0, 20


class Transforms:
    """Listens to /tf and /tf_static while it lives."""

    def __init__(self, node: Node) -> None:
        """Start listening."""
        self._buffer = tf2_ros.Buffer()  # given a node, it would leave a service behind on it
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._asked = 0
        # By (target, source): since when look-ups fail, when and as which of all the last one did, and why
        # in tf2's words.
        self._failing: dict[tuple[str, str], tuple[float, float, int, str]] = {}

    def lookup(self, target: str, source: str, stamp: int) -> np.ndarray | None:
        """Pose of ``source`` in ``target``.

        Args:
            target: frame of the result.
            source: frame that is placed.
            stamp: nanoseconds.

        Returns:
            [4, 4] float64 target_from_source at the stamp, or None where /tf does not say (see ``problem``).
        """
        edge = target, source
        self._asked += 1
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp))
            matrix = conversions.transform_edge(found)[3]
        except (tf2_ros.TransformException, ValueError) as error:
            now = time.monotonic()
            since = self._failing[edge][0] if edge in self._failing else now
            self._failing[edge] = since, now, self._asked, str(error)
            return None
        self._failing.pop(edge, None)
        return matrix

    def problem(self, patience: float) -> str:
        """Why a transform has not been found for so many seconds; empty if all are."""
        now = time.monotonic()
        for edge, (_, last, number, _) in list(self._failing.items()):
            if now - last > UNASKED and self._asked - number > OTHERS:
                self._failing.pop(edge, None)
        for since, _, _, text in list(self._failing.values()):
            if now - since >= patience:
                return text
        return ""

    def clear(self) -> None:
        """Forget everything heard, after time jumped back."""
        self._buffer.clear()
        self._failing.clear()

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()
