"""Where an unfinished run keeps what it has done, so that it can be killed at any moment and go on later."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class OutMessage(NamedTuple):
    """One message to be written: topic, type, time of recording in nanoseconds, CDR bytes."""

    topic: str
    msgtype: str
    log_time: int
    data: bytes


class Journal:
    """A folder `OUT.part` beside the output, with one file for the messages of every finished window.

    A window counts as done when its file is there, and files are renamed into place, so a window is done or
    not begun. The state of the pipeline behind a window is in place before the window's file is.

    Args:
        out: the bag that will be written in the end.
        job: what the result depends on (input, settings, model, version): plain JSON values.

    Raises:
        ValueError: the folder belongs to another job; the message names what differs.
    """

    def __init__(self, out: Path, job: Mapping[str, Any]) -> None:
        """Open or make the folder."""
        self.folder = out.with_name(out.name + ".part")
        self.folder.mkdir(parents=True, exist_ok=True)
        job = json.loads(json.dumps(job))
        described = self.folder / "job.json"
        if described.exists():
            found = json.loads(described.read_text())
            differ = sorted(key for key in {*job, *found} if job.get(key) != found.get(key))
            if differ:
                raise ValueError(
                    f"{self.folder} holds an unfinished run with another {', '.join(differ)}; "
                    "give that run's arguments to finish it, or delete the folder"
                )
        else:
            write_whole(described, json.dumps(job, indent=1).encode())
        self.done = 0
        while self._window(self.done).exists():
            self.done += 1

    def add(self, messages: list[OutMessage], state: Mapping[str, np.ndarray]) -> None:
        """Note the next window as done.

        Args:
            messages: what it gave.
            state: what is needed to go on behind it: arrays without objects.
        """
        stored = io.BytesIO()
        np.savez(stored, allow_pickle=False, **state)
        write_whole(self._state(self.done), stored.getvalue())
        heads = [
            (message.topic, message.msgtype, message.log_time, len(message.data)) for message in messages
        ]
        write_whole(
            self._window(self.done),
            json.dumps(heads).encode() + b"\n" + b"".join(message.data for message in messages),
        )
        self.done += 1
        self._state(self.done - 2).unlink(missing_ok=True)

    def messages(self) -> Iterator[OutMessage]:
        """Messages of all windows that are done, in order."""
        for number in range(self.done):
            with self._window(number).open("rb") as stream:
                for topic, msgtype, log_time, size in json.loads(stream.readline()):
                    yield OutMessage(topic, msgtype, log_time, stream.read(size))

    def state(self) -> dict[str, np.ndarray]:
        """State behind the newest window that is done; empty where none is."""
        if not self.done:
            return {}
        with np.load(self._state(self.done - 1), allow_pickle=False) as stored:
            return dict(stored)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)

    def _window(self, number: int) -> Path:
        return self.folder / f"{number:06d}.window"

    def _state(self, number: int) -> Path:
        return self.folder / f"{number:06d}.state"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there in full or not at all, even after a loss of power."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)
