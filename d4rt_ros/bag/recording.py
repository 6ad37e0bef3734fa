"""A rosbag2 as one stream of raw messages, up to its end or to the first damage."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard

from d4rt_ros.bag.readers import FileReader, RawMessage, SalvagedMcap, SalvagedSqlite, WholeReader

PACKED, ZSTD = ".zstd", b"\x28\xb5\x2f\xfd"  # suffix of compressed files, and how anything compressed begins


class Recording:
    """A rosbag2: a folder, with or without its metadata.yaml, or one file of it. A context manager.

    A bag that was cut off or damaged opens too. Its messages end at the first damage, and `damage` says
    where; nothing behind it is used, so that no gap in the middle goes unnoticed.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: no topic of a rosbag2 can be read from it.
    """

    def __init__(self, path: Path) -> None:
        """Open the bag."""
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        self.path = path
        self.damage = ""
        self.readers: list[FileReader] = []
        self.stack = ExitStack()
        try:
            self._add(WholeReader(path))
        except Exception as error:  # a damaged file makes the reader raise anything
            self._open_files(error)

    def __enter__(self) -> Recording:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all files."""
        self.stack.close()

    def types(self) -> dict[str, str]:
        """Message type of every topic."""
        return {topic: msgtype for reader in self.readers for topic, msgtype in reader.types.items()}

    def count(self, topic: str) -> int | None:
        """Number of messages of a topic; None where a damaged bag does not know any more."""
        total = 0
        for reader in self.readers:
            if reader.counts is None:
                return None
            total += reader.counts.get(topic, 0)
        return total

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Messages of these topics in time order, up to the first damage."""
        newest = None
        try:
            for reader in self.readers:
                for message in reader.messages(topics):
                    newest = message.log_time
                    if message.data[:4] == ZSTD:  # no CDR begins so; without metadata nothing else tells
                        message = message._replace(data=_decompressed(message.data))
                    yield message
        except Exception as error:  # as above
            where = "its start" if newest is None else f"time {newest / 1e9:.3f} s"
            self.damage = f"{self.path} is damaged after {where} and was used up to there ({error})"

    def _add(self, reader: FileReader) -> None:
        self.readers.append(reader)
        self.stack.callback(reader.close)

    def _open_files(self, error: Exception) -> None:
        """Open the bag's files one by one; whether a suspect one has a damage shows when it is read."""
        files = storage_files(self.path)
        if not files:
            raise ValueError(f"{self.path} is no rosbag2: {error}") from error
        if self.path.is_dir() and (self.path / "metadata.yaml").exists():
            self.damage = f"{self.path} is damaged and was used as far as it can be read ({error})"
        for packed in files:
            file = packed
            try:
                if packed.suffix == PACKED:
                    file = unpack(packed, Path(self.stack.enter_context(TemporaryDirectory())))
                self._add(WholeReader(file))
            except Exception as broken:  # as above
                error = broken
                try:
                    self._add(SalvagedMcap(file) if file.suffix == ".mcap" else SalvagedSqlite(file))
                except sqlite3.Error:  # not even topics; what the files before it hold is still used
                    self.damage = f"{packed} is damaged from its start and was not used ({broken})"
                    break
        if not self.types():
            self.stack.close()
            raise ValueError(f"{self.path} is damaged from its start, nothing in it can be read: {error}")


def storage_files(path: Path) -> list[Path]:
    """The files of a bag, compressed or not, by number (bag_2 before bag_10); not those that macOS hides."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if not file.name.startswith(".")]
    found = {file.name.removesuffix(PACKED): file for file in files if file.suffix == PACKED}
    found |= {file.name: file for file in files if file.suffix != PACKED}  # was being compressed: still whole
    names = [name for name in found if name.endswith((".mcap", ".db3"))]
    names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+$", Path(name).stem)])
    return [found[name] for name in names]


def unpack(packed: Path, folder: Path) -> Path:
    """A file of a bag as it was before `ros2 bag record` compressed it, up to a damage."""
    file = folder / packed.stem
    with packed.open("rb") as source, file.open("wb") as target, suppress(zstandard.ZstdError):
        zstandard.ZstdDecompressor().copy_stream(source, target)
    return file


def _decompressed(data: bytes) -> bytes:
    """A message as it was; what is no such thing stays as it is, for who decodes it to complain."""
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError:
        return data
