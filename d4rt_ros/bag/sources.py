"""Frames of a recording, with what the live node would have known when they came."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from tqdm import tqdm

from d4rt_ros import conversions
from d4rt_ros.bag.compressed_depth import decode_compressed_depth
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.bag.readers import RawMessage
from d4rt_ros.bag.recording import Recording
from d4rt_ros.bag.topics import CAMERA_INFO, COMPRESSED, TF, Topics
from d4rt_ros.bag.transforms import TransformBuffer
from d4rt_ros.camera import SAME, Camera, differ
from d4rt_ros.stream import Frame

SETTLE_NS = 100_000_000  # a frame waits so long for its depth, camera_info and transforms to be recorded
DEPTH_SLOP_NS = 20_000_000  # stamps of a frame and its depth image differ at most by this


class Arrival(NamedTuple):
    """A frame and what goes with it.

    Attributes:
        log_time: when it was recorded, nanoseconds.
        frame: undistorted.
        camera_from_base: [4, 4] pose of the base frame in the camera's optical frame; None: not known.
        odom: name of the odometry frame and [4, 4] odom_from_base; None: not known.
    """

    log_time: int
    frame: Frame
    camera_from_base: np.ndarray | None = None
    odom: tuple[str, np.ndarray] | None = None


class Source(Protocol):
    """Where frames come from.

    Attributes:
        total: number of frames; None: not known.
        damage: why the frames ended early, in a sentence; empty while they did not.
        unreadable: reason of every frame that could not be read and was left out.
    """

    total: int | None
    unreadable: list[str]

    @property
    def damage(self) -> str:
        """See above."""

    def frames(self) -> Iterator[Arrival]:
        """All frames in order."""


class BagFrames:
    """Frames of a rosbag2.

    Args:
        recording: the bag, open.
        topics: what is read from it.
        messages: decodes its messages.
        base: frame whose pose is wanted too; empty: none.
        odom: frame that /tf gives the camera's odometry in.
        rectified: the images had their lens distortion taken out before.
    """

    def __init__(
        self,
        recording: Recording,
        topics: Topics,
        messages: BagMessages,
        base: str = "",
        odom: str = "odom",
        rectified: bool = False,
    ) -> None:
        """Nothing is read yet."""
        self.recording, self.topics, self.codec, self.base, self.odom = (
            recording,
            topics,
            messages,
            base,
            odom,
        )
        self.rectified = rectified
        self.types = recording.types()
        self.total = recording.count(topics.image)
        self.unreadable: list[str] = []
        self.transforms = TransformBuffer()
        self.cameras: deque[tuple[int, Camera | None]] = deque(maxlen=64)  # by the stamp that they begin at
        self.depths: deque[tuple[int, Any]] = deque(maxlen=64)
        self.told: set[str] = set()

    @property
    def damage(self) -> str:
        """Why the bag ended early; empty while it did not."""
        return self.recording.damage

    def frames(self) -> Iterator[Arrival]:
        """All frames in the order of recording; what was recorded a little later is known to them."""
        waiting: deque[tuple[int, Any]] = deque()
        for message in self.recording.messages(self.topics.all()):
            while waiting and waiting[0][0] + SETTLE_NS < message.log_time:
                yield from self._arrive(*waiting.popleft())
            try:
                decoded = self.codec.deserialize(message.data, self.types[message.topic])
                self._take(message, decoded, waiting)
            except Exception as error:  # bytes that are no such message can fail in any way
                self.unreadable.append(f"{message.topic} at {message.log_time / 1e9:.3f} s: {error}")
        while waiting:
            yield from self._arrive(*waiting.popleft())

    def _take(self, raw: RawMessage, message: Any, waiting: deque[tuple[int, Any]]) -> None:
        kind = self.types[raw.topic]
        if raw.topic == self.topics.image:
            waiting.append((raw.log_time, message))
        elif kind == TF:
            for transform in message.transforms:
                self.transforms.add(*conversions.transform_edge(transform), static=raw.topic == "/tf_static")
        elif kind == CAMERA_INFO:
            self._calibrate(
                conversions.stamp_ns(message.header.stamp), conversions.camera(message, self.rectified)
            )
        else:
            self.depths.append((conversions.stamp_ns(message.header.stamp), message))

    def _calibrate(self, stamp: int, camera: Camera | None) -> None:
        # Another one must make its undistortion maps, which is slow.
        if not self.cameras or differ(self.cameras[-1][1], camera, SAME):
            self.cameras.append((stamp, camera))

    def _camera(self, stamp: int) -> Camera | None:
        """The calibration at a stamp; before the first one that one, which was only recorded later."""
        began = [camera for begin, camera in self.cameras if begin <= stamp]
        return began[-1] if began else self.cameras[0][1] if self.cameras else None

    def _tell(self, sentence: str) -> None:
        if sentence not in self.told:
            self.told.add(sentence)
            tqdm.write(f"warning: {sentence}", file=sys.stderr)

    def _arrive(self, log_time: int, message: Any) -> Iterator[Arrival]:
        stamp, frame_id = conversions.stamp_ns(message.header.stamp), message.header.frame_id
        compressed = self.types[self.topics.image] == COMPRESSED
        try:
            if stamp <= 0:
                raise ValueError("header.stamp is zero")
            image = (
                conversions.compressed_image_array(message)
                if compressed
                else conversions.image_array(message)
            )
        except ValueError as error:
            self.unreadable.append(f"{self.topics.image} at {log_time / 1e9:.3f} s: {error}")
            return
        camera, depth = self._camera(stamp), None
        try:
            depth = self._depth(stamp)
        except ValueError as error:  # the frame goes on without, as it does in the node
            self._tell(f"{self.topics.depth}: {error}; frames go on without such depth")
        if depth is not None and depth.shape != image.shape[:2]:
            depth = cv2.resize(depth, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        if camera is not None:
            try:
                image = camera.undistort(image)
                depth = None if depth is None else camera.undistort(depth, nearest=True)
            except ValueError as error:
                self._tell(f"{self.topics.camera_info}: {error}; such images go on without calibration")
                camera = None
        frame = Frame(
            stamp,
            image,
            frame_id,
            intrinsics=None if camera is None else camera.matrix,
            depth=depth,
            odometry=self.transforms.lookup(self.odom, frame_id, stamp),
            camera=camera,
        )
        base_in_camera = odom = None
        if self.base:
            base_in_camera = self.mount(frame_id, stamp)
            odom_from_base = self.transforms.lookup(self.odom, self.base, stamp)
            odom = None if odom_from_base is None else (self.odom, odom_from_base)
        yield Arrival(log_time, frame, base_in_camera, odom)

    def mount(self, frame_id: str, stamp: int) -> np.ndarray | None:
        """Camera_from_base [4, 4] where a base is named and /tf knows it."""
        return self.transforms.lookup(frame_id, self.base, stamp) if self.base else None

    def _depth(self, stamp: int) -> np.ndarray | None:
        """Depth image nearest in time, if near enough."""
        if not self.depths:
            return None
        when, message = min(self.depths, key=lambda entry: abs(entry[0] - stamp))
        if abs(when - stamp) > DEPTH_SLOP_NS:
            return None
        if self.types[self.topics.depth] == COMPRESSED:
            return decode_compressed_depth(message.format, message.data)
        return conversions.depth_array(message)
