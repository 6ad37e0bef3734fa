"""Readers of single rosbag2 files: whole ones through `rosbags`, damaged ones up to the damage.

`rosbags` needs a file's end (mcap: index and footer; sqlite3: every page that the header counts). A robot
that lost power leaves files without one, so those are read record by record (mcap) or row by row (sqlite3).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from mcap.exceptions import EndOfFile
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader


class RawMessage(NamedTuple):
    """One message as it was recorded: its topic, the time of recording in nanoseconds, and its CDR bytes."""

    topic: str
    log_time: int
    data: bytes


class FileReader(Protocol):
    """What readers of whole and of damaged files have in common."""

    types: dict[str, str]  # message type of every topic
    counts: dict[str, int] | None  # messages of every topic; None: the damaged file does not know any more

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Messages of these topics in time order; at a damage anything may be raised."""

    def close(self) -> None:
        """Close the file."""


class WholeReader:
    """A rosbag2 folder or storage file; making it raises anything where the bag is damaged."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        if left := [log.name for file in (path, *path.glob("*.db3")) if (log := write_ahead_log(file))]:
            raise ValueError(f"its recorder was killed and left {left[0]}")  # rosbags would pass over it
        self.reader = Reader(path)
        self.reader.open()
        self.types = {connection.topic: connection.msgtype for connection in self.reader.connections}
        self.counts: dict[str, int] | None = {
            topic: info.msgcount for topic, info in self.reader.topics.items()
        }

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Messages of these topics in time order."""
        wanted = [connection for connection in self.reader.connections if connection.topic in topics]
        if wanted:
            for connection, log_time, data in self.reader.messages(wanted):
                yield RawMessage(connection.topic, log_time, data)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


class SalvagedMcap:
    """Records of a damaged mcap file in the order of the file: that of time, up to the size of a chunk."""

    def __init__(self, path: Path) -> None:
        """Scan for topics up to the damage."""
        self.path = path
        self.types: dict[str, str] = {}
        self.counts: dict[str, int] | None = None
        with suppress(Exception):  # messages() meets the same damage again, and its caller tells
            for _ in self._records():
                pass

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Messages of these topics up to the damage, where an error is raised."""
        return (message for message in self._records() if message.topic in topics)

    def close(self) -> None:
        """Nothing is kept open."""

    def _records(self) -> Iterator[RawMessage]:
        schemas: dict[int, str] = {}
        channels: dict[int, str] = {}
        with self.path.open("rb") as stream:
            try:
                for record in StreamReader(stream, validate_crcs=True).records:
                    if isinstance(record, Schema):
                        schemas[record.id] = record.name
                    elif isinstance(record, Channel):
                        channels[record.id] = record.topic
                        self.types[record.topic] = schemas.get(record.schema_id, "")
                    elif isinstance(record, Message):
                        yield RawMessage(channels[record.channel_id], record.log_time, record.data)
            except EndOfFile as error:
                raise ValueError("the file ends in the middle of a record") from error


class SalvagedSqlite:
    """Rows of a damaged sqlite3 file in the order of recording; without topics it raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        """Open it read-only and read its topics."""
        self.unread = write_ahead_log(path)
        try:
            rows = self._open(path, "mode=ro" if self.unread else "immutable=1")
            self.unread = None
        except sqlite3.Error:  # to read a log, SQLite puts a file beside it: not into a read-only folder
            rows = self._open(path, "immutable=1")
        self.names = {row[0]: row[1] for row in rows}
        self.types = {row[1]: row[2] for row in rows}
        self.counts: dict[str, int] | None = None

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Messages of these topics up to the damage, where an error is raised."""
        rows = self.connection.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
        for topic_id, log_time, data in rows:
            if self.names.get(topic_id) in topics:
                yield RawMessage(self.names[topic_id], log_time, data)
        if self.unread is not None:
            raise ValueError(f"{self.unread.name}, which holds the last messages, cannot be read")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _open(self, path: Path, how: str) -> list[tuple[int, str, str]]:
        """Open it; id, name and type of its topics."""
        self.connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
        # Without this SQLite refuses a file that is shorter than its header says.
        self.connection.execute("PRAGMA writable_schema=ON")
        return self.connection.execute("SELECT id, name, type FROM topics").fetchall()


def write_ahead_log(file: Path) -> Path | None:
    """Where SQLite keeps what it has not yet written into the file itself; None where there is nothing."""
    log = file.with_name(f"{file.name}-wal")
    return log if log.is_file() and log.stat().st_size else None
