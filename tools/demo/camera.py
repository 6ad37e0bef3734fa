"""A camera driver that plays footage to and fro, so that its stream never ends.

    python tools/demo/camera.py [VIDEO_OR_FOLDER] [--fps 10]

Publishes /camera/image_raw and, where the footage's folder holds a camera.yaml, /camera/camera_info.
"""

from __future__ import annotations

import argparse
import sys
from array import array
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import rclpy
import yaml
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

FOOTAGE = Path(__file__).with_name("tum_fr1")
FRAME_ID = "camera_optical_frame"
LONGEST = 300  # frames kept of a video
WIDEST = 640  # pixels; larger frames are scaled down, a demo is no place for 4K over loopback
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def read_footage(path: Path) -> list[np.ndarray]:
    """[H, W, 3] uint8 RGB frames of a video or of a folder of images.

    Raises:
        ValueError: fewer than two frames can be read.
    """
    frames: list[np.ndarray] = []
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        frames = [image for file in files[:LONGEST] if (image := cv2.imread(str(file))) is not None]
    else:
        capture = cv2.VideoCapture(str(path))
        while len(frames) < LONGEST:
            good, image = capture.read()
            if not good:
                break
            frames.append(image)
        capture.release()
    if len(frames) < 2:
        raise ValueError(f"{path} holds {len(frames)} frames that OpenCV can read; a demo needs two")
    scale = min(1.0, WIDEST / frames[0].shape[1])
    if scale < 1.0:
        frames = [
            cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in frames
        ]
    return [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in frames]


class Camera(Node):
    """Publishes frames at a fixed rate."""

    def __init__(self, frames: list[np.ndarray], calibration: dict | None, fps: float) -> None:
        """Start publishing."""
        super().__init__("camera")
        self.frames, self.number = frames, 0
        self.images = self.create_publisher(Image, "/camera/image_raw", qos_profile_sensor_data)
        self.infos = None
        if calibration is not None:
            self.infos = self.create_publisher(CameraInfo, "/camera/camera_info", qos_profile_sensor_data)
            k = calibration["k"]
            self.info = CameraInfo(
                height=frames[0].shape[0],
                width=frames[0].shape[1],
                distortion_model=calibration["distortion_model"],
                k=k,
                d=calibration["d"],
                r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
            )
        self.create_timer(1.0 / fps, self.publish)

    def publish(self) -> None:
        """Send the next frame: 0, 1, ..., N-1, N-2, ..., 1, 0, 1, ..."""
        place = self.number % (2 * len(self.frames) - 2)
        image = self.frames[min(place, 2 * len(self.frames) - 2 - place)]
        self.number += 1
        height, width = image.shape[:2]
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = FRAME_ID
        pixels = array("B")
        pixels.frombytes(memoryview(image).cast("B"))
        message.data = pixels
        if self.infos is not None:
            self.info.header = message.header
            self.infos.publish(self.info)
        self.images.publish(message)


def main() -> None:
    """Publish until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("footage", nargs="?", type=Path, default=FOOTAGE)
    parser.add_argument("--fps", type=float, default=10.0)
    args = parser.parse_args()
    try:
        frames = read_footage(args.footage)
    except ValueError as error:
        sys.exit(str(error))
    file = args.footage / "camera.yaml"
    calibration = yaml.safe_load(file.read_text()) if file.exists() else None
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # SIGTERM ends it at once
    with suppress(KeyboardInterrupt):
        rclpy.spin(Camera(frames, calibration, args.fps))
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
