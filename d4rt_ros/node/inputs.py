"""Subscriptions to one camera, and frames made of what arrives. Nothing here waits for the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d4rt_ros import conversions
from d4rt_ros.camera import NEAR, SAME, Camera, differ
from d4rt_ros.node.gaps import Gaps
from d4rt_ros.node.listener import Listener, OnArrival, listened_group
from d4rt_ros.node.messages import camera_qos
from d4rt_ros.node.parameters import Value
from d4rt_ros.node.transforms import Transforms
from d4rt_ros.node.wire import read_image
from d4rt_ros.stream import Frame

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble has them under their former name
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

SLOP_NS = 20_000_000  # a depth image belongs to an image if their stamps differ by at most this
PATIENCE_NS = 300_000_000  # a frame waits so long for its depth image or its transform


@dataclass
class InputCounters:
    """What became of the camera's messages."""

    images: int = 0  # arrived
    refused: int = 0  # could not be read
    gaps: Gaps = field(default_factory=Gaps)  # in the numbers of images
    changes: int = 0  # of the images' frame id
    dropped: int = 0  # what the middleware reports as lost; it does not see what it overwrites in our queue
    alone: int = 0  # went on without the depth image or transform that scale.source asks for
    refusals: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By kind, while messages are refused: why the last one was, and monotonic time of the first."""
    heard: dict[str, float] = field(default_factory=dict)  # monotonic time of the newest message by kind
    mismatched: dict[str, int] = field(default_factory=dict)  # publishers with another quality of service

    @property
    def turns(self) -> int:
        """How often another camera seems to have sent: by numbers or, where there are none, by frame ids."""
        return self.changes if self.gaps.missed is None else self.gaps.turns

    @property
    def lost(self) -> int:
        """Images that were sent to us and never arrived."""
        return self.dropped if self.gaps.missed is None else self.gaps.missed


class CameraInputs:
    """Subscribes on creation, hands frames to ``on_frame``, ends with ``close``.

    Args:
        node: node to subscribe on.
        values: all parameters.
        on_frame: takes every frame, in the order of arrival, on one thread.
        on_change: takes a sentence when the calibration changed, so that frames before and after do not mix.
        transforms: /tf, if anything of it is needed.
    """

    def __init__(
        self,
        node: Node,
        values: Mapping[str, Value],
        on_frame: Callable[[Frame], None],
        on_change: Callable[[str], None],
        transforms: Transforms | None,
    ) -> None:
        """Subscribe."""
        self.counters = InputCounters()
        self.camera: Camera | None = None
        self.camera_problem = ""
        self._node, self._on_frame, self._on_change, self._transforms = node, on_frame, on_change, transforms
        self._rectified = bool(values["image_rectified"])
        self._scale, self._odom = values["scale.source"], str(values["frames.odom"])
        self._begun: Camera | None = None  # calibration of the frames since the stream last started over
        self.frame_id: str | None = None  # of the last image
        self._depths: deque[tuple[int, np.ndarray]] = deque(maxlen=30)
        self._waiting: deque[Frame] = deque()
        self._reliability = str(values["image_reliability"])
        self._group = listened_group(in_turn=True)
        self._subscriptions: dict[str, Any] = {}
        self._takers: dict[Any, OnArrival] = {}
        if values["image_transport"] == "compressed":
            # Beside the image, wherever that was remapped to, as image_transport has it.
            topic = node.resolve_topic_name("image") + "/compressed"
            self._subscribe("image", CompressedImage, topic, self._take_compressed)
        else:
            self._subscribe("image", Image, "image", self._take_raw, raw=True)
        self._subscribe("camera_info", CameraInfo, "camera_info", self._take_camera_info)
        if self._scale == "depth":
            self._subscribe("depth", Image, "depth", self._take_depth)
        self.topics = {kind: one.topic_name for kind, one in self._subscriptions.items()}
        self._listener = Listener(node, "d4rt-camera", self._takers)

    def close(self) -> None:
        """End all subscriptions."""
        self._listener.close()
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._waiting.clear()

    def _subscribe(
        self, kind: str, message: Any, topic: str, callback: Callable[[Any], None], raw: bool = False
    ) -> None:
        def take(received: Any, info: dict[str, int]) -> None:
            self.counters.heard[kind] = time.monotonic()
            if kind == "image":
                self.counters.gaps.take(info.get("publication_sequence_number"))
            try:
                callback(received)
            except ValueError as error:
                self.counters.refused += kind == "image"
                _, since = self.counters.refusals.get(kind, ("", time.monotonic()))
                self.counters.refusals[kind] = f"{topic}: {error}", since
            else:
                self.counters.refusals.pop(kind, None)

        def mismatch(event: Any) -> None:
            self.counters.mismatched[kind] = event.total_count

        def lost(event: Any) -> None:
            self.counters.dropped += event.total_count_change

        events = SubscriptionEventCallbacks(
            incompatible_qos=mismatch, message_lost=lost if kind == "image" else None
        )
        # Executors of Humble tell callbacks nothing but the message; our listener does.
        told = hasattr(Subscription, "CallbackType")
        common = partial(
            self._node.create_subscription,
            message,
            topic,
            take if told else partial(take, info={}),
            camera_qos(self._reliability if kind == "image" else "best_effort"),
            callback_group=self._group,
            raw=raw,
        )
        try:
            made = common(event_callbacks=events)
        except UnsupportedEventTypeError:  # not every middleware can tell
            made = common()
        self._subscriptions[kind], self._takers[made] = made, take

    def _take_raw(self, data: bytes) -> None:
        self.counters.images += 1
        message = read_image(data)
        self._take(message.header, conversions.image_array(message))

    def _take_compressed(self, message: Any) -> None:
        self.counters.images += 1
        self._take(message.header, conversions.compressed_image_array(message))

    def _take(self, header: Any, image: np.ndarray) -> None:
        stamp = conversions.stamp_ns(header.stamp)
        if stamp <= 0:
            raise ValueError("header.stamp is zero; the camera driver must stamp its images")
        self.counters.changes += self.frame_id not in (None, header.frame_id)
        self.frame_id = header.frame_id
        intrinsics = used = None
        if self.camera is not None:
            try:
                image, intrinsics, used = self.camera.undistort(image), self.camera.matrix, self.camera
                self.camera_problem = ""
            except ValueError as error:  # calibrated for another size: the image is still good
                self.camera_problem = str(error)
        self._waiting.append(Frame(stamp, image, header.frame_id, intrinsics, camera=used))
        self._pass_on()

    def _pass_on(self) -> None:
        """Hand over waiting frames that are complete, or that have waited long enough."""
        while self._waiting:
            frame = self._waiting[0]
            whole = self._completed(frame)
            if whole is None:
                waited = self._waiting[-1].stamp - frame.stamp
                if 0 <= waited < PATIENCE_NS and len(self._waiting) < 64:
                    return
                self.counters.alone += 1
            self._waiting.popleft()
            self._on_frame(whole or frame)

    def _completed(self, frame: Frame) -> Frame | None:
        """The frame with what scale.source needs; None if that is not here."""
        if self._scale == "odometry" and self._transforms is not None:
            pose = self._transforms.lookup(self._odom, frame.frame_id, frame.stamp)
            return None if pose is None else replace(frame, odometry=pose)
        if self._scale == "depth":
            near = [entry for entry in self._depths if abs(entry[0] - frame.stamp) <= SLOP_NS]
            if not near:
                return None
            _, depth = min(near, key=lambda entry: abs(entry[0] - frame.stamp))
            return replace(frame, depth=self._depth_of(frame, depth))
        return frame

    def _depth_of(self, frame: Frame, depth: np.ndarray) -> np.ndarray:
        """A depth image as it belongs to a frame, at its size and undistorted as it is."""
        height, width = frame.image_size
        if depth.shape != (height, width):
            depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
        return depth if frame.camera is None else frame.camera.undistort(depth, nearest=True)

    def _take_depth(self, message: Any) -> None:
        self._depths.append((conversions.stamp_ns(message.header.stamp), conversions.depth_array(message)))
        self._pass_on()

    def _take_camera_info(self, message: Any) -> None:
        camera = refusal = None
        try:
            camera = conversions.camera(message, self._rectified)
        except ValueError as error:
            refusal = error
        self.camera_problem = "" if refusal is None else str(refusal)
        if differ(self.camera, camera, SAME):
            self.camera = camera
        if differ(self._begun, camera, NEAR):  # below that, each frame goes by what it came with
            arrived, self._begun = self._begun is None, camera
            self._on_change("camera_info arrived" if arrived else "camera_info changed")
        if refusal is not None:
            raise refusal
