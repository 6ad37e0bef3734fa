"""`d4rt bag`, killed and stopped: the same command goes on and gives what an unbroken run gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bag_samples import (
    StubPipeline,
    make_bag,
    messages_of,
    run_stub,
)
from room import STEP_NS, Ball, Room

from d4rt_ros.outputs import TOPICS
from d4rt_ros.stream import DeviceOutOfMemory, Pipeline, StreamSettings, Window, WindowResult

pytestmark = pytest.mark.fault
NAMES = {topic if topic.startswith("/") else f"/d4rt/{topic}" for topic in TOPICS}


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


def test_a_device_without_memory_is_told_in_a_sentence(tmp_path: Path, long_bag: Path) -> None:
    class Small(StubPipeline):
        def process(self, window: Window, wanted: frozenset[str]) -> WindowResult:
            raise DeviceOutOfMemory("cuda:0 is out of memory")

    with pytest.raises(ValueError, match="cuda:0 is out of memory; try --device cpu"):
        run_stub(long_bag, tmp_path / "out", Small())


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
