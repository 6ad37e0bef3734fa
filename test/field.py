"""A field day: the node as a process of its own, with a camera and clients outside of it."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from node_rig import TYPES, Client, stamp, wait
from rclpy.qos import QoSProfile, ReliabilityPolicy
from room import SIZE
from room_node import FRAMES
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from d4rt_ros import conversions
from d4rt_ros.msg import Tracks
from d4rt_ros.srv import GetCamera

NO_TYPE = 77  # a parameter cannot have it
PATIENCE = 60.0  # seconds: a hang is judged here, not speed
OUTPUTS = {
    "odometry": Odometry,
    "path": PathMessage,
    "/tf": TFMessage,
    "depth/image": Image,
    "points": PointCloud2,
    "dynamic_points": PointCloud2,
    "map_points": PointCloud2,
    "tracks": Tracks,
}


class FieldNode(Client):
    """The node's process (see room_node.py), made active, with a camera and a client outside of it.

    Args:
        folder: for its log and for what its device suffers from.
        size: (H, W) of the camera's images.
        *settings: parameters, as ``name:=value``.

    Attributes:
        heard: the newest messages of every output, by topic.
        crooked: poses that were published and are not finite; there must be none.
    """

    def __init__(self, folder, *settings, size=SIZE):
        super().__init__()
        self.size, self.next, self._cameras = size, 0, {}
        self._settings = ("image_reliability:=reliable", "tf.mode:=world_to_camera", *settings)
        self._troubles, self._log = Path(folder) / "troubles", Path(folder) / "log"
        self.heard = {topic: deque(maxlen=20) for topic in OUTPUTS}
        self.crooked, self._diagnostics = [], deque(maxlen=1)
        for topic, kind in OUTPUTS.items():
            name = topic if topic.startswith("/") else f"/d4rt/{topic}"
            qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
            self.node.create_subscription(
                kind, name, lambda message, topic=topic: self._take(topic, message), qos
            )
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._take_diagnostics, 10)
        self.start()

    def start(self):
        """Start the process and wait until it is active."""
        command = [sys.executable, str(Path(__file__).with_name("room_node.py")), str(self._troubles)]
        words = [word for setting in self._settings for word in ("-p", setting)]
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        before = self.log.count("images from")
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--ros-args", *words], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        if not wait(
            lambda: self.log.count("images from") > before or self.process.poll() is not None, PATIENCE
        ):
            self.kill()
        assert self.process.poll() is None, self.log
        # The process knows its services before it has found who asks them; what is asked until then is lost.
        assert wait(lambda: wait(self.send(GetCamera, "get_camera").done, 0.5), PATIENCE)

    @property
    def log(self):
        """Everything that the process said."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def usage(self):
        """The process as psutil sees it."""
        return psutil.Process(self.process.pid)

    def suffer(self, *troubles):
        """From now on the device has these troubles only; none for none."""
        new = self._troubles.with_suffix(".new")
        new.write_text("\n".join(troubles))
        new.replace(self._troubles)

    def kill(self):
        """As a crash or the kernel ends a process."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def camera(self, kind=Image, topic="image"):
        """Publisher that the node hears."""
        if topic not in self._cameras:
            self._cameras[topic] = self.node.create_publisher(kind, topic, QoSProfile(depth=50))
        assert wait(lambda: self._cameras[topic].get_subscription_count() > 0, PATIENCE)
        return self._cameras[topic]

    def unplug(self, topic="image"):
        """End a publisher."""
        self.node.destroy_publisher(self._cameras.pop(topic))

    def image(self, number=None, frame_id="camera", size=None):
        """The next image, black: the room does not look."""
        number = self.next if number is None else number
        self.next = number + 1
        picture = np.zeros((*(size or self.size), 3), np.uint8)
        return conversions.rgb_image(TYPES, stamp(number), frame_id, picture)

    def play(self, count, **fields):
        """Publish the next images, a multiple of half a window, and wait until the last one is held.

        A busy machine may lose some: then as many more as it takes.
        """
        answers = []

        def held():
            answers.append(self.call(GetCamera, "get_camera", PATIENCE))
            return conversions.stamp_ns(answers[-1].window_end) == stamp(self.next - 1)

        self.camera()
        for number in range(count + 4 * FRAMES):
            self._cameras["image"].publish(self.image(**fields))
            time.sleep(0.01)
            if number >= count - 1 and wait(held, 2.0):
                return answers[-1]
        raise AssertionError(f"no window: {answers[-1].message}, {self.figures()}")

    def figures(self):
        """Values of /diagnostics, the newest of them; the level's words under ``says``."""
        statuses = self._diagnostics[-1].status if self._diagnostics else []
        found = {pair.key: pair.value for status in statuses for pair in status.values}
        return {**found, "says": "; ".join(status.message for status in statuses)}

    def shows(self, condition, seconds=PATIENCE):
        """Whether /diagnostics of the future, asked with its figures, come to satisfy a condition."""
        self._diagnostics.clear()
        return wait(lambda: bool(self._diagnostics) and condition(self.figures()), seconds)

    def count(self, name):
        """One figure of diagnostics of the future as an integer."""
        assert self.shows(lambda figures: name in figures)
        return int(self.figures()[name])

    def close(self):
        """End the process as a user does; it must end well, and have said nothing of a crash."""
        try:
            self.suffer()
            assert self.process.poll() is None, self.log[-4000:]
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(PATIENCE) == 0, self.log[-4000:]
            assert self.crashes() == [] and self.crooked == [], (self.crashes(), self.crooked[:3])
        finally:
            self.process.kill()
            self.process.wait()
            super().close()

    def crashes(self):
        """Lines of the log about what nobody caught, but for what rclpy itself raises on ``NO_TYPE``."""
        lines = [line for line in self.log.splitlines() if "Traceback" in line or "a callback failed" in line]
        return [line for line in lines if f"ValueError: {NO_TYPE} is not a valid" not in line]

    def _take(self, topic, message):
        self.heard[topic].append(message)
        if topic in ("odometry", "path", "/tf"):
            self.crooked += [message] * (not finite(message))

    def _take_diagnostics(self, message):
        if any("stream" in status.name for status in message.status):
            self._diagnostics.append(message)


def finite(message):
    """Whether all poses of an Odometry, Path, TFMessage or GetCamera response are poses."""
    poses = [pose.pose for pose in getattr(message, "poses", [])]
    poses += [edge.transform for edge in getattr(message, "transforms", [])]
    poses += [message.pose.pose] if hasattr(message, "pose") else []
    for pose in poses:
        place = pose.translation if hasattr(pose, "translation") else pose.position
        turn = pose.rotation if hasattr(pose, "rotation") else pose.orientation
        numbers = [place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w]
        if not np.isfinite(numbers).all() or abs(np.linalg.norm(numbers[3:]) - 1) > 1e-6:
            return False
    return True


__all__ = ["FRAMES", "PATIENCE", "CameraInfo", "FieldNode", "finite"]
