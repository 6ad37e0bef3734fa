"""Where an unfinished run keeps what it has done, so that it can be killed at any moment and go on later."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class OutMessage(NamedTuple):
    """One message to be written: topic, type, time of recording in nanoseconds, CDR bytes."""

    topic: str
    msgtype: str
    log_time: int
    data: bytes


class Journal:
    """A folder `OUT.part` beside the output, with one file a finished window.

    A window's messages and the pipeline's state behind them are in one file that is renamed into place, so a window
    is either done, with both, or not begun. The files are this program's own (pickle): another job's are refused by
    `job` before any is read.

    Args:
        out: the bag that will be written in the end.
        job: what the result depends on (input, settings, model, version): plain JSON values.

    Raises:
        ValueError: the folder belongs to another job; the message names what differs.
    """

    def __init__(self, out: Path, job: dict[str, Any]) -> None:
        """Open or make the folder."""
        self.folder = out.with_name(out.name + ".part")
        self.folder.mkdir(parents=True, exist_ok=True)
        described = self.folder / "job.json"
        if described.exists():
            found = json.loads(described.read_text())
            differ = sorted(key for key in {*job, *found} if job.get(key) != found.get(key))
            if differ:
                raise ValueError(
                    f"{self.folder} holds an unfinished run with another {', '.join(differ)}; "
                    "run that command again to finish it, or delete the folder"
                )
        else:
            write_atomically(described, json.dumps(job, indent=1).encode())

    def done(self) -> int:
        """Number of windows done, which are those with the numbers 0 to done() - 1."""
        number = 0
        while self._file(number).exists():
            number += 1
        return number

    def add(self, number: int, messages: list[OutMessage], state: Any) -> None:
        """Note a window as done.

        Args:
            number: of the window, from 0.
            messages: what it gave.
            state: what the pipeline needs to go on behind it; anything that pickle takes.
        """
        write_atomically(self._file(number), pickle.dumps(([tuple(message) for message in messages], state)))
        if number:  # only the newest state is ever needed
            messages_only = self.messages(number - 1)
            write_atomically(self._file(number - 1), pickle.dumps(([tuple(each) for each in messages_only], None)))

    def messages(self, number: int) -> list[OutMessage]:
        """Messages of a window that is done."""
        return [OutMessage(*message) for message in self._load(number)[0]]

    def all_messages(self) -> Iterator[OutMessage]:
        """Messages of all windows that are done, in order."""
        for number in range(self.done()):
            yield from self.messages(number)

    def state(self, number: int) -> Any:
        """State behind the newest window that is done."""
        return self._load(number)[1]

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.window"

    def _load(self, number: int) -> Any:
        return pickle.loads(self._file(number).read_bytes())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there in full or not at all, even after a loss of power."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)
