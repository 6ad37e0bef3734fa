"""The transform tree: per frame its parent and a history of poses in it, with interpolation."""

from __future__ import annotations

import bisect
import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp


class TransformException(Exception):
    """Any failure of a look-up."""


class LookupException(TransformException):
    """A frame was never heard of."""


class ConnectivityException(TransformException):
    """Two frames are not in one tree."""


class ExtrapolationException(TransformException):
    """The time lies outside of what was heard."""


class InvalidArgumentException(TransformException):
    """A frame id is not allowed."""


class TimeoutException(TransformException):
    """Waiting took too long."""


def _matrix(message: TransformStamped) -> np.ndarray:
    """Returns the 4x4 parent_from_child of a message."""
    move, turn = message.transform.translation, message.transform.rotation
    matrix = np.identity(4)
    matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    matrix[:3, 3] = move.x, move.y, move.z
    return matrix


class _Frame:
    """Poses of one frame in its parent, by time."""

    def __init__(self, parent: str, static: bool) -> None:
        self.parent, self.static = parent, static
        self.stamps: list[int] = []
        self.poses: list[np.ndarray] = []

    def insert(self, stamp: int, pose: np.ndarray, cache: int) -> None:
        if self.static:
            self.stamps, self.poses = [stamp], [pose]
            return
        if self.stamps and stamp < self.stamps[-1] - cache:
            return
        place = bisect.bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            self.poses[place] = pose
        else:
            self.stamps.insert(place, stamp)
            self.poses.insert(place, pose)
        old = bisect.bisect_left(self.stamps, self.stamps[-1] - cache)
        del self.stamps[:old], self.poses[:old]

    def at(self, stamp: int, name: str) -> np.ndarray:
        if self.static:
            return self.poses[0]
        if len(self.stamps) == 1 and stamp != self.stamps[0]:
            raise ExtrapolationException(
                f"Lookup would require extrapolation at time {stamp / 1e9:.6f}, but only time "
                f"{self.stamps[0] / 1e9:.6f} is in the buffer, when looking up transform of frame [{name}]"
            )
        if not self.stamps[0] <= stamp <= self.stamps[-1]:
            future = stamp > self.stamps[-1]
            known = f"latest data is at time {self.stamps[-1] / 1e9:.6f}"
            if not future:
                known = f"earliest data is at time {self.stamps[0] / 1e9:.6f}"
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the {'future' if future else 'past'}.  Requested "
                f"time {stamp / 1e9:.6f} but the {known}, when looking up transform of frame [{name}]"
            )
        after = bisect.bisect_left(self.stamps, stamp)
        if self.stamps[after] == stamp:
            return self.poses[after]
        before, following = self.poses[after - 1], self.poses[after]
        share = (stamp - self.stamps[after - 1]) / (self.stamps[after] - self.stamps[after - 1])
        pose = np.identity(4)
        pose[:3, 3] = (1 - share) * before[:3, 3] + share * following[:3, 3]
        turns = Rotation.from_matrix(np.stack([before[:3, :3], following[:3, :3]]))
        pose[:3, :3] = Slerp([0.0, 1.0], turns)(share).as_matrix()
        return pose


class BufferCore:
    """Keeps transforms and answers look-ups at once."""

    def __init__(self, cache_time: Duration | None = None) -> None:
        """Keeps what is younger than cache_time (10 s) before each frame's newest transform."""
        self._cache = 10_000_000_000 if cache_time is None else cache_time.nanoseconds
        self._frames: dict[str, _Frame] = {}
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forgets everything but the static transforms."""
        with self._lock:
            self._frames = {name: frame for name, frame in self._frames.items() if frame.static}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Adds a transform of /tf."""
        self._set(transform, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Adds a transform of /tf_static."""
        self._set(transform, static=True)

    def _set(self, message: TransformStamped, static: bool) -> None:
        child, parent = message.child_frame_id.lstrip("/"), message.header.frame_id.lstrip("/")
        turn = message.transform.rotation
        length = turn.x**2 + turn.y**2 + turn.z**2 + turn.w**2
        if not child or not parent or child == parent or not abs(length - 1) < 1e-2:  # tf2 drops these, too
            return
        with self._lock:
            frame = self._frames.get(child)
            if frame is None or frame.parent != parent or frame.static != static:
                frame = self._frames[child] = _Frame(parent, static)
            frame.insert(Time.from_msg(message.header.stamp).nanoseconds, _matrix(message), self._cache)

    def _ancestors(self, name: str) -> list[str]:
        """Lists a frame, its parent, and so on to the root."""
        chain = [name]
        while chain[-1] in self._frames and self._frames[chain[-1]].parent not in chain:
            chain.append(self._frames[chain[-1]].parent)
        return chain

    def _chains(self, target: str, source: str) -> tuple[list[str], list[str]]:
        """Lists the frames from both up to, not including, the first that they share."""
        known = {*self._frames, *(frame.parent for frame in self._frames.values())}
        for role, name in (("target_frame", target), ("source_frame", source)):
            if not name:
                raise InvalidArgumentException(
                    f"Invalid argument passed to lookupTransform argument {role} - empty"
                )
            if name.startswith("/"):
                raise InvalidArgumentException(
                    f'Invalid argument "{name}" passed to lookupTransform argument {role} '
                    "in tf2 frame_ids cannot start with a '/'"
                )
            if name not in known:
                raise LookupException(f'"{name}" passed to lookupTransform argument {role} does not exist. ')
        up_target, up_source = self._ancestors(target), self._ancestors(source)
        shared = next((name for name in up_target if name in up_source), None)
        if shared is None:
            raise ConnectivityException(
                f"Could not find a connection between '{target}' and '{source}' "
                "because they are not part of the same tree.Tf has two or more unconnected trees."
            )
        return up_target[: up_target.index(shared)], up_source[: up_source.index(shared)]

    def _find(self, target: str, source: str, time: Any) -> tuple[int, np.ndarray]:
        """Returns the stamp in ns and target_from_source; time zero is the newest that all edges have."""
        stamp = time.nanoseconds if isinstance(time, Time) else Time.from_msg(time).nanoseconds
        with self._lock:
            up_target, up_source = self._chains(target, source)
            if stamp == 0:
                moving = [
                    self._frames[name] for name in up_target + up_source if not self._frames[name].static
                ]
                stamp = min((frame.stamps[-1] for frame in moving), default=0)
            sides = []
            for chain in (up_target, up_source):
                shared_from_frame = np.identity(4)
                for name in chain:
                    shared_from_frame = self._frames[name].at(stamp, name) @ shared_from_frame
                sides.append(shared_from_frame)
        return stamp, np.linalg.inv(sides[0]) @ sides[1]

    @staticmethod
    def _message(target: str, source: str, stamp: int, matrix: np.ndarray) -> TransformStamped:
        message = TransformStamped(child_frame_id=source)
        message.header.frame_id = target
        message.header.stamp = Time(nanoseconds=stamp).to_msg()
        move, turn = message.transform.translation, message.transform.rotation
        move.x, move.y, move.z = map(float, matrix[:3, 3])
        turn.x, turn.y, turn.z, turn.w = map(float, Rotation.from_matrix(matrix[:3, :3]).as_quat())
        return message

    def lookup_transform_core(self, target_frame: str, source_frame: str, time: Any) -> TransformStamped:
        """Returns target_from_source at a time (zero: the newest).

        Raises:
            TransformException: one of its kinds.
        """
        return self._message(target_frame, source_frame, *self._find(target_frame, source_frame, time))

    def can_transform_core(self, target_frame: str, source_frame: str, time: Any) -> tuple[bool, str]:
        """Returns whether a look-up would succeed, and why not."""
        try:
            self._find(target_frame, source_frame, time)
        except TransformException as error:
            return False, str(error)
        return True, ""
