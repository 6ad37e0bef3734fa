"""Silence explains itself: what is missing, why, and what to do about it, in one sentence each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from rclpy.clock import ClockType
from rclpy.node import Node

from d4rt_ros.node.inputs import CameraInputs
from d4rt_ros.node.parameters import Value
from d4rt_ros.node.transforms import Transforms
from d4rt_ros.outputs import frame_problem
from d4rt_ros.stream import FrameWindow
from d4rt_ros.stream.window import GAP

_DIGITS = re.compile(r"\d+")
PATIENCE = 2.0  # seconds of silence that need no explanation
LOOK_BACK = 5.0  # seconds at least over which lost images are counted
_FEW = 0.1  # share of the images that may be lost without a word
_TRIED = 5  # images of which it is too early to expect a window
_TURNS = 3  # times within that while that another camera seems to send: more than one that starts anew


class Supervision:
    """Looks at the inputs of an active node; logs each new trouble once, and its end.

    Attributes:
        troubles: what is wrong now, a sentence by subject (``image``, ``camera_info``, ``depth``,
            ``frame_id``, ``tf``, ``window``, ``scale``, ``clock``).
    """

    def __init__(
        self,
        node: Node,
        values: Mapping[str, Value],
        inputs: CameraInputs,
        window: FrameWindow,
        transforms: Transforms | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock of silence now."""
        self.troubles: dict[str, str] = {}
        self._node, self._values, self._inputs, self._transforms = node, values, inputs, transforms
        self._window = window
        self._monotonic, self._since = monotonic, monotonic()
        self._counted = self._since, 0, 0, 0  # when, images received, lost, turns
        self._disturbance = ""  # what was found then
        self._frames = replace(window.counters)  # when there last was a window

    def look(self) -> None:
        """Find what is wrong now and log what changed; called about twice a second."""
        now = self._monotonic()
        found = {subject: text for subject, text in self._find(now) if text}
        for subject, text in found.items():
            # The same sentence with another number is no news.
            if _DIGITS.sub("#", text) != _DIGITS.sub("#", self.troubles.get(subject, "")):
                self._node.get_logger().warning(text)
        for subject in self.troubles.keys() - found.keys():
            self._node.get_logger().info(f"{subject} is well again")
        self.troubles = found

    def _find(self, now: float) -> list[tuple[str, str]]:
        return [
            ("clock", self._clock(now)),
            ("image", self._silence("image", now) or self._unusable("image", now) or self._disturbed(now)),
            ("camera_info", self._camera_info(now)),
            ("depth", self._silence("depth", now) or self._unusable("depth", now)),
            ("window", self._no_window()),
            ("frame_id", self._frame_id()),
            ("tf", self._tf()),
            ("scale", self._scale()),
        ]

    def _silent_for(self, kind: str, now: float) -> float:
        return now - max(self._since, self._inputs.counters.heard.get(kind, 0.0))

    def _silence(self, kind: str, now: float) -> str:
        topic = self._inputs.topics.get(kind)
        if topic is None or self._silent_for(kind, now) < PATIENCE:
            return ""
        publishers = self._node.count_publishers(topic)
        start = f"no message on {topic} for {PATIENCE:.0f} s: "
        if publishers == 0:
            return start + f"nobody publishes it; start the camera, or remap '{kind}' to its topic"
        if self._inputs.counters.mismatched.get(kind):
            return start + (
                "its publisher offers best effort only; set image_reliability to best_effort"
                if kind == "image" and self._values["image_reliability"] == "reliable"
                else "its publisher's quality of service does not fit (`ros2 topic info -v` shows it)"
            )
        return start + (
            f"it has {publishers} publisher(s) that send nothing, or whose messages are lost on the way; "
            "look with "
            f"`ros2 topic hz {topic}`"
        )

    def _unusable(self, kind: str, now: float) -> str:
        """Images that arrive and cannot be read."""
        why, since = self._inputs.counters.refusals.get(kind, ("", now))
        return "" if now - since < 0.5 else f"{kind}s are refused: {why}"

    def _no_window(self) -> str:
        """Images that arrive and are read, of which no window can be made."""
        then, frames = self._frames, self._window.counters
        if frames.windows != then.windows:
            self._frames = replace(frames)
            return ""
        came, restarts = frames.received - then.received, frames.restarts - then.restarts
        late = frames.duplicates + frames.out_of_order - then.duplicates - then.out_of_order
        if came < _TRIED:
            return ""
        if 2 * late > came:
            return (
                f"no window can be made: {late} of {came} images had a stamp no newer than the last one's; "
                "the camera driver must stamp every image with the time of its exposure"
            )
        if 2 * restarts > came:
            why = self._window.restarts
            cure = "; for a camera as slow as that raise window.max_gap" if GAP in why else ""
            return (
                f"no window can be made: the stream started over {restarts} times in {came} images, last "
                f"because: {why}{cure}"
            )
        return ""

    def _disturbed(self, now: float) -> str:
        """Images that were sent and do not arrive, or that are not of one camera."""
        counters, topic = self._inputs.counters, self._inputs.topics["image"]
        then, images, lost, turns = self._counted
        if now - then < LOOK_BACK:
            return self._disturbance
        self._counted = now, counters.images, counters.lost, counters.turns
        missing = counters.lost - lost
        sent = counters.images - images + missing
        self._disturbance = ""
        publishers = self._node.count_publishers(topic)
        if publishers > 1 and counters.turns - turns >= _TURNS:
            self._disturbance = (
                f"{publishers} publishers send images on {topic} in turn; give each "
                "camera a topic and a node of its own"
            )
        elif missing > max(_FEW * sent, 1):
            self._disturbance = (
                f"{missing} of {sent} images on {topic} were lost on the way within "
                f"{now - then:.0f} s: the middleware had no room for them, or this node no time; over "
                "Fast DDS start camera driver and node with "
                "FASTDDS_DEFAULT_PROFILES_FILE (before Kilted: FASTRTPS_DEFAULT_PROFILES_FILE) set to "
                "$(ros2 pkg prefix --share d4rt_ros)/config/fastdds_shm.xml"
            )
        return self._disturbance

    def _camera_info(self, now: float) -> str:
        topic = self._inputs.topics["camera_info"]
        if self._inputs.camera_problem:
            return f"{topic} is not used: {self._inputs.camera_problem}"
        heard = "camera_info" in self._inputs.counters.heard
        if heard or self._silent_for("camera_info", now) < PATIENCE:
            return ""
        if self._node.count_publishers(topic):  # nobody has to publish it, but who does should be heard
            return self._silence("camera_info", now) + "; until then intrinsics are estimated"
        return ""

    def _frame_id(self) -> str:
        name = self._inputs.frame_id
        problem = "" if name is None else frame_problem(name, str(self._values["frames.world"]))
        if not problem:
            return ""
        return (
            f"header.frame_id of the images {problem}: nobody can place what is in it; set the camera "
            "driver's frame_id to that of its optical frame"
        )

    def _tf(self) -> str:
        problem = "" if self._transforms is None else self._transforms.problem(PATIENCE)
        if not problem:
            return ""
        needs = [
            f"{name} '{self._values[name]}'"
            for name in ("tf.mode", "scale.source", "frames.base")
            if self._values[name] not in ("none", "", "fixed", "depth")
        ]
        return f"/tf does not give what {' and '.join(needs)} needs: {problem}; publish that transform"

    def _scale(self) -> str:
        mode, source = self._values["tf.mode"], self._values["scale.source"]
        if source != "none" or mode not in ("odom_to_base", "map_to_odom"):
            return ""
        return (
            f"tf.mode is '{mode}', but scale.source is 'none': the robot's base goes into /tf in units "
            "that are no metres; set scale.source"
        )

    def _clock(self, now: float) -> str:
        clock = self._node.get_clock()
        if clock.clock_type != ClockType.ROS_TIME or not clock.ros_time_is_active:
            return ""
        if clock.now().nanoseconds or now - self._since < PATIENCE:
            return ""
        return (
            f"use_sim_time is true, but nothing arrives on /clock for {PATIENCE:.0f} s; "
            "start the bag with --clock"
        )
