"""Tiny recordings made when tests run, and a pipeline without a network, for the tests of d4rt_ros/bag."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from d4rt_ros import conversions
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.bag.recording import Recording
from d4rt_ros.bag.run import Job, run
from d4rt_ros.bag.sources import BagFrames
from d4rt_ros.bag.topics import choose_topics
from d4rt_ros.outputs import TOPICS, Outputs
from d4rt_ros.stream import Cloud, StreamSettings, Tracks, Window, WindowResult

START = 1_700_000_000_000_000_000
STEP = 33_333_333
SIZE = (24, 32)  # H, W
IMAGE_TOPIC = "/camera/image_raw"
SETTINGS = StreamSettings(window_length=4, window_stride=2)


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """[H, W, 3] uint8: smooth, so that JPEG keeps it, and different for every number."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([x * 4 + number, y * 4, np.full_like(x, 5 * number)], axis=-1).astype(np.uint8)


def make_bag(
    path: Path,
    storage: str = "mcap",
    distro: Stores = Stores.ROS2_JAZZY,
    frames: int = 10,
    compressed: bool = False,
    version: int = 9,
    extra: tuple[str, ...] = (),
    stamps: list[int] | None = None,
    size: tuple[int, int] = SIZE,
) -> Path:
    """A rosbag2 of a camera; extra: of "camera_info", "tf", "depth", "second_camera"."""
    types, store = BagMessages(), get_typestore(distro)
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(path, version=version, storage_plugin=plugin) as writer:  # type: ignore[arg-type]

        def connect(topic: str, kind: str) -> object:
            return writer.add_connection(topic, kind, typestore=store)

        def write(connection: object, when: int, message: object, kind: str) -> None:
            writer.write(connection, when, store.serialize_cdr(message, kind))  # type: ignore[arg-type]

        image_kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
        image = connect(IMAGE_TOPIC + "/compressed" * compressed, image_kind)
        others = {
            "camera_info": ("/camera/camera_info", "sensor_msgs/msg/CameraInfo"),
            "tf": ("/tf", "tf2_msgs/msg/TFMessage"),
            "depth": ("/camera/depth/image_rect", "sensor_msgs/msg/Image"),
            "second_camera": ("/rear/image_raw", "sensor_msgs/msg/Image"),
        }
        connections = {name: connect(*others[name]) for name in extra}
        for number in range(frames):
            stamp = stamps[number] if stamps else START + number * STEP
            when = START + number * STEP + 5_000_000
            pixels = picture(number, size)
            if compressed:
                ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
                assert ok
                head = conversions.header(types, stamp, "camera_optical")
                message = types.make(image_kind, header=head, format="jpeg", data=jpeg.ravel())
            else:
                message = conversions.rgb_image(types, stamp, "camera_optical", pixels)
            write(image, when, message, image_kind)
            pose = np.eye(4)
            pose[0, 3] = number
            late = {  # recorded a little after the image that it belongs to
                "camera_info": lambda stamp=stamp: conversions.camera_info(
                    types, stamp, "camera_optical", SIZE, np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
                ),
                "tf": lambda stamp=stamp, pose=pose: types.make(
                    "tf2_msgs/msg/TFMessage",
                    transforms=[conversions.transform_message(types, stamp, "odom", "camera_optical", pose)],
                ),
                "depth": lambda stamp=stamp, n=number: conversions.depth_image(
                    types, stamp, "camera_optical", np.full(SIZE, 1.0 + n, np.float32)
                ),
                "second_camera": lambda stamp=stamp, n=number: conversions.rgb_image(
                    types, stamp, "rear_optical", picture(n)
                ),
            }
            for name, connection in connections.items():
                write(connection, when + 10_000_000, late[name](), others[name][1])
    return path


class StubPipeline:
    """Answers that depend on the frames and on how many windows came before, in all outputs."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.windows = 0
        self.encoded = 0

    def process(self, window: Window, wanted: frozenset[str]) -> WindowResult:
        time.sleep(self.seconds)
        self.windows += 1
        self.encoded += 1
        frames, (height, width) = len(window.frames), window.newest.image_size
        value = float(window.newest.image.mean()) + 1000.0 * self.windows
        poses = np.tile(np.eye(4), (frames, 1, 1))
        poses[:, 0, 3] = [(stamp - START) / 1e9 for stamp in window.stamps]
        xyz = np.full((5, 3), value, np.float32)
        cloud = Cloud(xyz, np.full((5, 3), 7, np.uint8), np.ones(5, np.float32), np.ones((5, 3), np.float32))
        tracks = Tracks(
            stamps=window.stamps,
            ids=np.arange(3),
            xyz=np.full((frames, 3, 3), value, np.float32),
            uv=np.full((frames, 3, 2), 0.5, np.float32),
            visibility=np.ones((frames, 3), np.float32),
            confidence=np.ones((frames, 3), np.float32),
            velocity=np.zeros((3, 3), np.float32),
            metric=False,
            frame="camera",
        )
        return WindowResult(
            scene=None,
            window=window,
            stamps=window.stamps,
            frame_id=window.newest.frame_id,
            image_size=(height, width),
            intrinsics=np.array([[30.0, 0, width / 2], [0, 30, height / 2], [0, 0, 1]]),
            poses=poses,
            covariance=np.tile(np.eye(6), (frames, 1, 1)),
            depth=np.full((height, width), value, np.float32) if "depth" in wanted else None,
            points=cloud if "points" in wanted else None,
            dynamic=cloud if "dynamic" in wanted else None,
            map_points=cloud if "map" in wanted else None,
            tracks=tracks if "tracks" in wanted else None,
        )

    def state(self) -> dict[str, np.ndarray]:
        return {"windows": np.array(self.windows)}

    def restore(self, state: Mapping[str, np.ndarray], window: Window) -> None:
        self.windows = int(state["windows"])


def run_stub(
    bag: Path,
    out: Path,
    pipeline: StubPipeline | None = None,
    topics: tuple[str, ...] = tuple(TOPICS),
    identity: str = "stub",
    storage: str = "mcap",
    settings: StreamSettings = SETTINGS,
) -> int:
    """What `d4rt bag` does, without a network; the exit code."""
    types = BagMessages()
    with Recording(bag) as recording:
        source = BagFrames(recording, choose_topics(recording.types()), types)
        outputs = Outputs(types, "world", tf_mode="world_to_camera")
        job = Job(out, storage, settings, outputs, types, topics, {"settings": identity})
        return run(job, source, lambda: pipeline or StubPipeline())


def messages_of(path: Path) -> list[tuple[str, int, bytes]]:
    """(topic, time, bytes) of everything in a bag, in order."""
    with Recording(path) as recording:
        found = [tuple(message) for message in recording.messages(list(recording.types()))]
        assert not recording.damage
    return found  # type: ignore[return-value]


if __name__ == "__main__":  # a run that takes its time, to be killed
    sys.exit(run_stub(Path(sys.argv[1]), Path(sys.argv[2]), StubPipeline(seconds=0.3)))
