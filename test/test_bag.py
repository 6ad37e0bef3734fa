"""`d4rt bag`: recordings of all kinds in, rosbag2 out."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_samples import (
    IMAGE_TOPIC,
    SIZE,
    START,
    STEP,
    StubPipeline,
    make_bag,
    messages_of,
    picture,
    run_stub,
)
from mcap_ros2.reader import read_ros2_messages
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from d4rt_ros.bag.journal import OutMessage
from d4rt_ros.bag.messages import TRACKS, BagMessages, tracks_definition
from d4rt_ros.bag.recording import Recording
from d4rt_ros.bag.run import storage_for
from d4rt_ros.bag.sources import BagFrames
from d4rt_ros.bag.topics import choose_topics
from d4rt_ros.bag.video import VideoFrames
from d4rt_ros.bag.writing import write_bag
from d4rt_ros.camera import Camera
from d4rt_ros.outputs import TOPICS
from d4rt_ros.stream import Window, WindowResult

DISTROS = (Stores.ROS2_HUMBLE, Stores.ROS2_IRON, Stores.ROS2_JAZZY, Stores.ROS2_KILTED, Stores.ROS2_LYRICAL)
NAMES = {topic if topic.startswith("/") else f"/d4rt/{topic}" for topic in TOPICS}


def frames_of(bag: Path, **choose: object) -> tuple[list, BagFrames]:
    """All arrivals of a bag, and their source."""
    with Recording(bag) as recording:
        topics = choose_topics(recording.types(), **choose)  # type: ignore[arg-type]
        source = BagFrames(recording, topics, BagMessages())
        return list(source.frames()), source


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("distro", "version"), [(Stores.ROS2_HUMBLE, 8), (Stores.ROS2_LYRICAL, 9)])
def test_frames_come_out_as_they_went_in(
    tmp_path: Path, storage: str, compressed: bool, distro: Stores, version: int
) -> None:
    bag = make_bag(tmp_path / "bag", storage, distro, 3, compressed, version)
    arrivals, source = frames_of(bag)
    assert source.total == 3 and not source.damage and not source.unreadable
    for number, arrival in enumerate(arrivals):
        assert arrival.frame.stamp == START + number * STEP
        assert arrival.frame.frame_id == "camera_optical"
        np.testing.assert_allclose(
            arrival.frame.image.astype(float), picture(number), atol=6 if compressed else 0
        )


def test_messages_are_the_same_in_every_distribution() -> None:
    ours = BagMessages().store
    for distro in DISTROS:
        theirs = get_typestore(distro)
        for kind in {*(msgtype for msgtype, _ in TOPICS.values()), "sensor_msgs/msg/CompressedImage"} - {
            TRACKS
        }:
            assert ours.hash_rihs01(kind) == theirs.hash_rihs01(kind), (distro, kind)


def test_camera_info_depth_and_transforms_recorded_after_an_image_belong_to_it(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", frames=4, extra=("camera_info", "tf", "depth"))
    arrivals, source = frames_of(bag, with_depth=True, with_transforms=True)
    assert not source.unreadable
    for number, arrival in enumerate(arrivals):
        frame = arrival.frame
        np.testing.assert_allclose(frame.intrinsics, [[30, 0, 16], [0, 30, 12], [0, 0, 1]])
        np.testing.assert_array_equal(frame.depth, np.full(SIZE, 1.0 + number, np.float32))
        assert frame.odometry is not None
        assert frame.odometry[0, 3] == pytest.approx(number)


def test_depth_or_a_calibration_that_does_not_fit_takes_no_image_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(message: object) -> np.ndarray:
        raise ValueError("depth encoding '8UC1' is not supported")

    bag = make_bag(tmp_path / "bag", frames=4, extra=("camera_info", "depth"), size=(48, 64))
    monkeypatch.setattr("d4rt_ros.conversions.depth_array", unreadable)
    arrivals, source = frames_of(bag, with_depth=True)
    assert len(arrivals) == 4
    assert source.unreadable == []
    assert all(arrival.frame.depth is None and arrival.frame.camera is None for arrival in arrivals)
    told = capsys.readouterr().err
    assert told.count("/camera/depth/image_rect: depth encoding '8UC1' is not supported") == 1
    assert told.count("camera_info is for 32x24 pixels, the image has 64x48") == 1


def test_a_calibration_counts_from_its_own_stamp_on(tmp_path: Path) -> None:
    with Recording(make_bag(tmp_path / "bag", frames=1)) as recording:
        source = BagFrames(recording, choose_topics(recording.types()), BagMessages())
    early, late = (Camera(SIZE, np.diag([f, f, 1.0])) for f in (30.0, 40.0))
    assert source._camera(5) is None
    for stamp, camera in ((10, early), (20, Camera(SIZE, np.diag([30.0, 30.0, 1.0]))), (30, late)):
        source._calibrate(stamp, camera)
    assert [source._camera(stamp) for stamp in (5, 10, 29)] == [early] * 3
    assert source._camera(30) is source._camera(99) is late


def test_topics_are_found_or_asked_for(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", frames=1, extra=("second_camera", "depth"))
    with Recording(bag) as recording:
        types = recording.types()
    with pytest.raises(ValueError, match="several image topics: .*/rear/image_raw.*--image"):
        choose_topics(types)
    assert choose_topics(types, image="/rear/image_raw").image == "/rear/image_raw"
    with pytest.raises(ValueError, match="no topic /front; it has /camera"):
        choose_topics(types, image="/front")
    with pytest.raises(
        ValueError, match="has type sensor_msgs/msg/Image; it must be sensor_msgs/msg/CameraInfo"
    ):
        choose_topics(types, image=IMAGE_TOPIC, camera_info=IMAGE_TOPIC)
    with pytest.raises(ValueError, match="no image topic found"):
        choose_topics({"/scan": "sensor_msgs/msg/LaserScan"})
    both = {"/c/image": "sensor_msgs/msg/Image", "/c/image/compressed": "sensor_msgs/msg/CompressedImage"}
    assert choose_topics(both).image == "/c/image"


@pytest.mark.parametrize("name", ["out", "out.mcap", "out.db3"])
def test_outputs_open_in_rosbags_with_stamps_frames_and_our_message(tmp_path: Path, name: str) -> None:
    bag, out = make_bag(tmp_path / "bag"), tmp_path / name
    assert run_stub(bag, out, storage=storage_for(out, None)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", name]
    with AnyReader([out]) as reader:
        assert set(reader.topics) == NAMES
        assert {info.msgcount for info in reader.topics.values()} == {4}  # (10 - 4) / 2 + 1 windows
        for number, (connection, log_time, data) in enumerate(reader.messages()):
            message = reader.deserialize(data, connection.msgtype)
            newest = START + (3 + 2 * (number // len(NAMES))) * STEP
            assert log_time == newest + 5_000_000  # when the window's newest frame was recorded
            if connection.topic == "/d4rt/tracks":
                assert len(message.stamps) == 4 and message.xyz.shape == (4 * 3 * 3,)
                assert message.header.frame_id == "camera_optical"
            if connection.topic == "/d4rt/path":
                assert message.poses[0].header.frame_id == "world"
            if hasattr(message, "header"):
                stamp = message.header.stamp
                assert stamp.sec * 10**9 + stamp.nanosec == newest


def test_output_opens_in_mcap_ros2_support(tmp_path: Path) -> None:
    out = tmp_path / "out.mcap"
    run_stub(make_bag(tmp_path / "bag"), out)
    with out.open("rb") as stream:
        found = {message.channel.topic: message.ros_msg for message in read_ros2_messages(stream)}
    assert set(found) == NAMES
    assert list(found["/d4rt/tracks"].ids) == [0, 1, 2]


def test_bag_is_written_for_humble_and_map_is_latched(tmp_path: Path) -> None:
    run_stub(make_bag(tmp_path / "bag"), tmp_path / "out")
    text = (tmp_path / "out" / "metadata.yaml").read_text()
    assert "version: 8" in text
    with Reader(tmp_path / "out") as reader:
        durability = {c.topic: c.ext.offered_qos_profiles[0].durability.name for c in reader.connections}
    assert durability.pop("/d4rt/map_points") == "TRANSIENT_LOCAL"
    assert set(durability.values()) == {"VOLATILE"}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_is_told(tmp_path: Path, storage: str) -> None:
    messages = [OutMessage("/image", "sensor_msgs/msg/Image", n, bytes(1 << 18)) for n in range(8)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: |too large"):
            write_bag(tmp_path / "out", messages, BagMessages(), storage, tmp_path / "scratch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out").exists()


def test_only_topics_that_are_asked_for_are_written(tmp_path: Path) -> None:
    run_stub(make_bag(tmp_path / "bag"), tmp_path / "out", topics=("odometry", "points"))
    assert {topic for topic, _, _ in messages_of(tmp_path / "out")} == {"/d4rt/odometry", "/d4rt/points"}


def test_our_message_has_one_definition() -> None:
    assert tracks_definition() == (Path(__file__).parents[1] / "msg" / "Tracks.msg").read_text()


def test_a_bag_too_short_for_a_window_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", frames=3)
    with pytest.raises(ValueError, match="3 usable frames do not fill a window of 4"):
        run_stub(bag, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag"]


def test_why_no_window_was_filled_is_said(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", stamps=[START + n * 2_000_000_000 for n in range(10)])
    with pytest.raises(ValueError, match="started over 9 times, .* no frame for 2.000 s .* raise it"):
        run_stub(bag, tmp_path / "out")


def test_a_folder_of_two_cameras_is_no_video(tmp_path: Path) -> None:
    for name in ("frame-2.color.png", "frame-10.color.png", "frame-10.depth.png"):
        cv2.imwrite(str(tmp_path / name), picture(0))
    with pytest.raises(ValueError, match=r"frame-10.color.png and frame-10.depth.png have one number"):
        VideoFrames(tmp_path)
    (tmp_path / "frame-10.depth.png").unlink()
    assert [image.name for image in VideoFrames(tmp_path).images] == [
        "frame-2.color.png",
        "frame-10.color.png",
    ]


class Notes(StubPipeline):
    """Says why a segment began, as the real one does."""

    def process(self, window: Window, wanted: frozenset[str]) -> WindowResult:
        return replace(super().process(window, wanted), notes=(window.reason,) if window.reason else ())


def test_time_jumping_back_starts_over_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps = [START + n * STEP for n in range(5)]
    bag = make_bag(tmp_path / "bag", stamps=[*(s + 60_000_000_000 for s in stamps), *stamps])
    assert run_stub(bag, tmp_path / "out", Notes()) == 0
    assert "time jumped back" in capsys.readouterr().err


def test_depth_of_another_size_and_images_without_a_stamp(tmp_path: Path) -> None:
    stamps = [0, START + STEP]
    bag = make_bag(tmp_path / "bag", frames=2, extra=("depth",), stamps=stamps, size=(48, 64))
    arrivals, source = frames_of(bag, with_depth=True)
    assert [arrival.frame.stamp for arrival in arrivals] == [START + STEP]
    assert "header.stamp is zero" in source.unreadable[0]
    assert arrivals[0].frame.depth.shape == (48, 64)
