"""Transforms of a recording: the little of tf2 that a bag without ROS needs."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque

import numpy as np
from scipy.spatial.transform import Rotation, Slerp


class TransformBuffer:
    """Edges of the transform tree by time, as tf2 keeps them; every frame has one parent.

    Args:
        keep_ns: how long an edge remembers, nanoseconds (tf2's default is 10 s).
    """

    def __init__(self, keep_ns: int = 10_000_000_000) -> None:
        """Start empty."""
        self.keep_ns = keep_ns
        self.parents: dict[str, str] = {}
        self.still: dict[str, np.ndarray] = {}
        self.moving: dict[str, deque[tuple[int, np.ndarray]]] = defaultdict(deque)

    def add(self, parent: str, child: str, stamp: int, matrix: np.ndarray, static: bool) -> None:
        """Take in one edge.

        Args:
            parent: frame that the edge is given in.
            child: frame that it places.
            stamp: nanoseconds; not used for a static edge.
            matrix: [4, 4] parent_from_child, metres.
            static: True for /tf_static.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        self.parents[child] = parent
        if static:
            self.still[child] = matrix
            return
        edge = self.moving[child]
        if edge and stamp < edge[-1][0]:  # a recording that looped: what was known is of another time
            edge.clear()
        edge.append((stamp, matrix))
        while edge[0][0] < stamp - self.keep_ns:
            edge.popleft()

    def lookup(self, target: str, source: str, stamp: int) -> np.ndarray | None:
        """[4, 4] target_from_source at a stamp, interpolated between neighbours; None where not known."""
        target, source = target.lstrip("/"), source.lstrip("/")
        from_target, from_source = self._to_ancestors(target, stamp), self._to_ancestors(source, stamp)
        shared = next((frame for frame in from_source if frame in from_target), None)
        if shared is None:
            return None
        return np.linalg.inv(from_target[shared]) @ from_source[shared]

    def _to_ancestors(self, frame: str, stamp: int) -> dict[str, np.ndarray]:
        """ancestor_from_frame of every ancestor that is known at the stamp, nearest first."""
        found = {frame: np.eye(4)}
        matrix = np.eye(4)
        while frame in self.parents:
            edge = self.still[frame] if frame in self.still else self._at(frame, stamp)
            frame = self.parents[frame]
            if edge is None or frame in found:
                break
            matrix = edge @ matrix
            found[frame] = matrix
        return found

    def _at(self, child: str, stamp: int) -> np.ndarray | None:
        edge = self.moving[child]
        place = bisect_left(edge, stamp, key=lambda entry: entry[0])
        if place < len(edge) and edge[place][0] == stamp:
            return edge[place][1]
        if place in (0, len(edge)):
            return None  # as tf2: never beyond what was heard
        (before, first), (after, second) = edge[place - 1], edge[place]
        share = (stamp - before) / (after - before)
        matrix = np.eye(4)
        turns = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([first[:3, :3], second[:3, :3]])))
        matrix[:3, :3] = turns(share).as_matrix()
        matrix[:3, 3] = (1.0 - share) * first[:3, 3] + share * second[:3, 3]
        return matrix
