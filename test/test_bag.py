"""`d4rt bag`: recordings of all kinds in, rosbag2 out, killed and damaged ones included."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
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
from room import STEP_NS, Ball, Room
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from d4rt_ros.bag.messages import TRACKS, BagMessages, tracks_definition
from d4rt_ros.bag.recording import Recording
from d4rt_ros.bag.run import EXIT_DAMAGED_INPUT, storage_for
from d4rt_ros.bag.sources import BagFrames
from d4rt_ros.bag.topics import choose_topics
from d4rt_ros.outputs import TOPICS
from d4rt_ros.stream import DeviceOutOfMemory, Pipeline, StreamSettings, Window, WindowResult

DISTROS = (Stores.ROS2_HUMBLE, Stores.ROS2_IRON, Stores.ROS2_JAZZY, Stores.ROS2_KILTED, Stores.ROS2_LYRICAL)
NAMES = {topic if topic.startswith("/") else f"/d4rt/{topic}" for topic in TOPICS}

LARGE = (200, 300)  # frames that spread over an mcap file's chunks and a database's pages


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


def test_only_topics_that_are_asked_for_are_written(tmp_path: Path) -> None:
    run_stub(make_bag(tmp_path / "bag"), tmp_path / "out", topics=("odometry", "points"))
    assert {topic for topic, _, _ in messages_of(tmp_path / "out")} == {"/d4rt/odometry", "/d4rt/points"}


def test_our_message_has_one_definition() -> None:
    assert tracks_definition() == (Path(__file__).parents[1] / "msg" / "Tracks.msg").read_text()


@pytest.fixture(scope="module")
def long_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bag(tmp_path_factory.mktemp("long") / "bag", frames=20)


def test_a_killed_run_goes_on_and_gives_what_an_unbroken_one_gives(tmp_path: Path, long_bag: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run_stub(long_bag, whole)
    script = Path(__file__).with_name("bag_samples.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script), str(long_bag), str(out)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("out.part/*.window"))) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    done = len(list(tmp_path.glob("out.part/*.window")))
    pipeline = StubPipeline()
    assert run_stub(long_bag, out, pipeline) == 0
    assert pipeline.encoded == 9 - done  # no window twice
    assert messages_of(out) == messages_of(whole)
    assert not (tmp_path / "out.part").exists()


class Stopped(Exception):
    """Stands for a loss of power."""


@pytest.mark.parametrize("after", [1, 4])
def test_a_run_that_stops_between_windows_loses_and_repeats_none(
    tmp_path: Path, long_bag: Path, after: int
) -> None:
    class Stops(StubPipeline):
        def process(self, window, wanted):  # type: ignore[no-untyped-def]
            if self.windows == after:
                raise Stopped
            return super().process(window, wanted)

    with pytest.raises(Stopped):
        run_stub(long_bag, tmp_path / "out", Stops())
    (tmp_path / "out.part" / f"{after:06d}.window.tmp").write_bytes(b"half a wind")
    run_stub(long_bag, tmp_path / "out")
    run_stub(long_bag, tmp_path / "whole")
    assert messages_of(tmp_path / "out") == messages_of(tmp_path / "whole")


def test_a_run_stopped_at_its_very_end_is_finished(tmp_path: Path, long_bag: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("d4rt_ros.bag.journal.Journal.remove", lambda self: (_ for _ in ()).throw(Stopped))
    with pytest.raises(Stopped):
        run_stub(long_bag, tmp_path / "out")
    monkeypatch.undo()
    found = messages_of(tmp_path / "out")
    pipeline = StubPipeline()
    assert run_stub(long_bag, tmp_path / "out", pipeline) == 0
    assert pipeline.encoded == 0 and messages_of(tmp_path / "out") == found
    assert not (tmp_path / "out.part").exists()


def test_another_job_does_not_take_over_an_unfinished_run(tmp_path: Path, long_bag: Path) -> None:
    class Stops(StubPipeline):
        def process(self, window, wanted):  # type: ignore[no-untyped-def]
            raise Stopped

    with pytest.raises(Stopped):
        run_stub(long_bag, tmp_path / "out", Stops())
    with pytest.raises(ValueError, match="out.part holds an unfinished run with another settings"):
        run_stub(long_bag, tmp_path / "out", identity="other")


def test_an_output_that_is_there_is_not_touched(tmp_path: Path, long_bag: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists already"):
        run_stub(long_bag, tmp_path / "out")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("metadata", [True, False])
def test_a_bag_that_was_cut_off_is_used_up_to_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str, metadata: bool
) -> None:
    bag = make_bag(tmp_path / "bag", storage, frames=24, size=LARGE)
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    os.truncate(file, file.stat().st_size * 7 // 10)
    if not metadata:
        (bag / "metadata.yaml").unlink()
    assert run_stub(bag, tmp_path / "out") == EXIT_DAMAGED_INPUT
    assert "is damaged" in capsys.readouterr().err
    windows = sum(topic == "/d4rt/tracks" for topic, _, _ in messages_of(tmp_path / "out"))
    assert 4 <= windows < 9  # of 11


def test_a_damaged_chunk_in_the_middle_ends_the_frames_there(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", "sqlite3", frames=12, size=LARGE)
    file = bag / "bag.db3"
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\xff" * 200_000)
    with Recording(bag) as recording:
        numbers = [message.log_time for message in recording.messages([IMAGE_TOPIC])]
    assert 1 <= len(numbers) < 12
    assert recording.damage


def test_an_image_that_cannot_be_decoded_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = make_bag(tmp_path / "bag", "sqlite3", frames=9, compressed=True)
    with sqlite3.connect(bag / "bag.db3") as connection:
        connection.execute("UPDATE messages SET data = substr(data, 1, 80) WHERE id = 3")
        (data,) = connection.execute("SELECT data FROM messages WHERE id = 5").fetchone()
        connection.execute(
            "UPDATE messages SET data = ? WHERE id = 5", (data[:100] + bytes(len(data) - 100),)
        )
    assert run_stub(bag, tmp_path / "out") == 0
    told = capsys.readouterr()
    assert "2 unreadable" in told.out and told.err.count("left out:") == 2


@pytest.mark.parametrize("content", [b"", b"no bag at all" * 100])
@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_file_that_is_no_bag_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match="nothing in it can be read"):
        Recording(tmp_path / f"x{suffix}")
    with pytest.raises(ValueError, match="is no rosbag2"):
        (tmp_path / "folder").mkdir()
        Recording(tmp_path / "folder")


def test_a_bag_too_short_for_a_window_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", frames=3)
    with pytest.raises(ValueError, match="3 usable frames do not fill a window of 4"):
        run_stub(bag, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag"]


def test_split_bags_and_missing_parts(tmp_path: Path) -> None:
    first, second = make_bag(tmp_path / "a", frames=4), make_bag(tmp_path / "b", frames=4)
    both = tmp_path / "both"
    both.mkdir()
    shutil.copy(first / "a.mcap", both / "rec_2.mcap")
    shutil.copy(second / "b.mcap", both / "rec_10.mcap")
    with Recording(both) as recording:
        assert [reader.reader.path.name for reader in recording.readers] == ["rec_2.mcap", "rec_10.mcap"]  # type: ignore[attr-defined]
        assert recording.count(IMAGE_TOPIC) == 8 and not recording.damage
    text = (first / "metadata.yaml").read_text().replace("- a.mcap", "- rec_2.mcap\n  - lost.mcap")
    (both / "metadata.yaml").write_text(text)
    with Recording(both) as recording:
        assert len(list(recording.messages([IMAGE_TOPIC]))) == 8
        assert "lost.mcap" in recording.damage


def test_a_device_without_memory_is_told_in_a_sentence(tmp_path: Path, long_bag: Path) -> None:
    class Small(StubPipeline):
        def process(self, window: Window, wanted: frozenset[str]) -> WindowResult:
            raise DeviceOutOfMemory("cuda:0 is out of memory")

    with pytest.raises(ValueError, match="cuda:0 is out of memory; try --device cpu"):
        run_stub(long_bag, tmp_path / "out", Small())


class Notes(StubPipeline):
    """Says why a segment began, as the real one does."""

    def process(self, window: Window, wanted: frozenset[str]) -> WindowResult:
        return replace(super().process(window, wanted), notes=(window.reason,) if window.reason else ())


def test_a_whole_file_that_rosbags_does_not_take_is_no_damage(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag")
    data = (bag / "bag.mcap").read_bytes()
    assert data.count(b"\x04\0\0\0ros2") == 1
    (tmp_path / "other.mcap").write_bytes(
        data.replace(b"\x04\0\0\0ros2", b"\x04\0\0\0xros")
    )  # another profile
    assert run_stub(tmp_path / "other.mcap", tmp_path / "out") == 0


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


class RoomModel:
    """The network's stand-in: knows the room at the stamps that it is given."""

    def encode(self, video: torch.Tensor, stamps: tuple[int, ...]) -> Room:
        return Room(stamps, balls=(Ball((0.5, 0.0, 2.0), (0.4, 0.0, 0.0)),))


def test_the_real_pipeline_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    stamps = [STEP_NS * (n + 1) for n in range(14)]
    bag = make_bag(tmp_path / "bag", frames=14, stamps=stamps, extra=("camera_info",))
    settings = StreamSettings(window_length=4, window_stride=2, tracks_grid=3, pose_grid=6)

    class Stops(Pipeline):
        def process(self, window, wanted):  # type: ignore[no-untyped-def]
            if window.stamps[-1] > STEP_NS * 8:
                raise Stopped
            return super().process(window, wanted)

    with pytest.raises(Stopped):
        run_stub(bag, tmp_path / "out", Stops(RoomModel(), settings), settings=settings)
    assert len(list((tmp_path / "out.part").glob("*.window"))) == 3
    run_stub(bag, tmp_path / "out", Pipeline(RoomModel(), settings), settings=settings)
    run_stub(bag, tmp_path / "whole", Pipeline(RoomModel(), settings), settings=settings)
    out, whole = messages_of(tmp_path / "out"), messages_of(tmp_path / "whole")
    assert {topic for topic, _, _ in whole} == NAMES
    assert [(topic, when) for topic, when, _ in out] == [(topic, when) for topic, when, _ in whole]
    for (topic, _, data), (_, _, expected) in zip(out, whole):
        assert data == expected, topic
