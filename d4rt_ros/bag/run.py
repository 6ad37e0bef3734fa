"""The loop of `d4rt bag` and `d4rt video`: frames to windows, windows to results, results to a rosbag2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from d4rt_ros.bag.journal import Journal, OutMessage
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.bag.sources import Arrival, Source
from d4rt_ros.bag.writing import FILE_STORAGES, write_bag
from d4rt_ros.camera import NEAR, Camera, differ
from d4rt_ros.outputs import LATCHED, TOPICS, Outputs, parts_for
from d4rt_ros.stream import DeviceOutOfMemory, FrameWindow, StreamSettings, Window, WindowResult
from d4rt_ros.stream.window import GAP

EXIT_DONE = 0
EXIT_DAMAGED_INPUT = 3
NAMESPACE = "/d4rt"


class ResumablePipeline(Protocol):
    """The part of stream.Pipeline that is used here."""

    def process(self, window: Window, wanted: frozenset[str]) -> WindowResult:
        """Result of the next window."""

    def state(self) -> dict[str, np.ndarray]:
        """What is carried from window to window."""

    def restore(self, state: Mapping[str, np.ndarray], window: Window) -> None:
        """Go on behind this window, which the state is of."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        out: rosbag2 to be written (see writing.write_bag).
        storage: "mcap" or "sqlite3".
        settings: of the pipeline.
        outputs: makes the messages.
        types: of the messages.
        topics: keys of outputs.TOPICS that are written.
        identity: everything that the result depends on, as plain JSON values.
    """

    out: Path
    storage: str
    settings: StreamSettings
    outputs: Outputs
    types: BagMessages
    topics: tuple[str, ...]
    identity: Mapping[str, Any]


def run(job: Job, source: Source, make_pipeline: Callable[[], ResumablePipeline]) -> int:
    """Do a job, or what an earlier run left of it.

    Returns:
        0, or EXIT_DAMAGED_INPUT where the input could be used only up to a damage.

    Raises:
        FileExistsError: the output is there already.
        ValueError: the input does not fill one window, or another job's unfinished run is in the way.
    """
    marker = job.out.with_name(job.out.name + ".part") / "finished"
    if job.out.exists():
        if not marker.exists():
            raise FileExistsError(f"{job.out} exists already; delete it or name another output")
        Journal(job.out, job.identity).remove()
        print(f"{job.out} was finished already")
        return EXIT_DONE
    journal = Journal(job.out, job.identity)
    earlier = journal.done
    windows = FrameWindow(
        job.settings.window_length,
        job.settings.window_stride,
        job.settings.frame_step,
        round(job.settings.max_gap * 1e9),
    )
    if earlier:
        print(f"going on behind {earlier} windows of an earlier run", file=sys.stderr)
    for message in _work(job, source, windows, make_pipeline(), journal):
        tqdm.write(message, file=sys.stderr)
    for reason in source.unreadable[:3]:
        print(f"left out: {reason}", file=sys.stderr)
    if source.damage:
        print(f"warning: {source.damage}", file=sys.stderr)
    if not journal.done:
        journal.remove()
        raise ValueError(
            f"{windows.counters.used} usable frames do not fill a window of {job.settings.window_length} "
            f"({_frames(source, windows)}){_breaks(windows)}"
        )
    (journal.folder / "finished").touch()
    latched = [topic_name(topic) for topic in LATCHED]
    count = write_bag(job.out, journal.messages(), job.types, job.storage, journal.folder / "bag", latched)
    journal.remove()
    print(f"{job.out}: {count} messages of {journal.done} windows ({_frames(source, windows)})")
    return EXIT_DAMAGED_INPUT if source.damage else EXIT_DONE


def topic_name(topic: str) -> str:
    """Full name of a topic in outputs.TOPICS, as the node named d4rt in no namespace has it."""
    return topic if topic.startswith("/") else f"{NAMESPACE}/{topic}"


def storage_for(out: Path, storage: str | None) -> str:
    """Storage by the option or by the suffix of the output; mcap where neither says.

    Raises:
        ValueError: they disagree.
    """
    by_suffix = FILE_STORAGES.get(out.suffix)
    if storage and by_suffix and storage != by_suffix:
        raise ValueError(f"--storage {storage} does not fit the name {out.name}")
    return storage or by_suffix or "mcap"


def _work(
    job: Job, source: Source, windows: FrameWindow, pipeline: ResumablePipeline, journal: Journal
) -> Iterator[str]:
    """Process all windows that are not done; yields what the user should know."""
    earlier, number, told = journal.done, 0, set()
    camera: Camera | None = None
    wanted = parts_for(job.topics)
    with tqdm(total=source.total, unit="frame", disable=None, smoothing=0.05) as bar:
        for arrival in source.frames():
            bar.update()
            if differ(camera, arrival.frame.camera, NEAR):  # frames of different lenses do not mix
                if windows.counters.used:
                    windows.clear("camera_info arrived" if camera is None else "camera_info changed")
                camera = arrival.frame.camera
            window = windows.push(arrival.frame)
            if window is None:
                continue
            number += 1
            if number == earlier:
                state = journal.state()
                job.outputs.restore(state)
                pipeline.restore(state, window)
            if number <= earlier:
                continue
            try:
                result = pipeline.process(window, wanted)
            except DeviceOutOfMemory as error:
                raise ValueError(f"{error}; try --device cpu or a smaller --set window.length=...") from error
            journal.add(_messages(job, arrival, result), {**pipeline.state(), **job.outputs.state()})
            bar.set_postfix(windows=number)
            seconds = result.stamps[-1] / 1e9
            for note in result.notes:
                if note not in told:  # a note often comes with every window
                    told.add(note)
                    yield f"{seconds:.3f} s: {note}"


def _messages(job: Job, arrival: Arrival, result: WindowResult) -> list[OutMessage]:
    built = job.outputs.build(result, job.topics, arrival.camera_from_base, arrival.odom)
    return [
        OutMessage(
            topic_name(topic),
            TOPICS[topic][0],
            arrival.log_time,
            job.types.serialize(message, TOPICS[topic][0]),
        )
        for topic, message in built
    ]


def _breaks(windows: FrameWindow) -> str:
    """That the stream broke, and why; empty where it did not."""
    why = windows.restarts
    if not why:
        return ""
    cure = "; for frames as rare as that raise it with --set window.max_gap=SECONDS" if GAP in why else ""
    return f"; the stream started over {windows.counters.restarts} times, last because: {why}{cure}"


def _frames(source: Source, windows: FrameWindow) -> str:
    """What became of the frames, in words."""
    counters = windows.counters
    parts = {
        "used": counters.used,
        "left out by window.frame_step": counters.thinned,
        "with the stamp of another": counters.duplicates,
        "out of order": counters.out_of_order,
        "unreadable": len(source.unreadable),
    }
    return "frames: " + ", ".join(
        f"{count} {what}" for what, count in parts.items() if count or what == "used"
    )
