"""`d4rt bag` on recordings that were cut off, overwritten, or are no recordings at all."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import zstandard
from bag_samples import (
    IMAGE_TOPIC,
    make_bag,
    messages_of,
    run_stub,
)

from d4rt_ros.bag.recording import Recording
from d4rt_ros.bag.run import EXIT_DAMAGED_INPUT

pytestmark = pytest.mark.fault
LARGE = (200, 300)  # frames that spread over an mcap file's chunks and a database's pages


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


def test_files_that_macos_hides_are_none_of_a_bag(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", frames=4)
    (bag / "._bag.mcap").write_bytes(b"\0\5\26\7")
    (bag / "metadata.yaml").unlink()
    with Recording(bag) as recording:
        assert len(list(recording.messages([IMAGE_TOPIC]))) == 4
    assert not recording.damage


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


def test_a_whole_file_that_rosbags_does_not_take_is_no_damage(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag")
    data = (bag / "bag.mcap").read_bytes()
    assert data.count(b"\x04\0\0\0ros2") == 1
    (tmp_path / "other.mcap").write_bytes(
        data.replace(b"\x04\0\0\0ros2", b"\x04\0\0\0xros")
    )  # another profile
    assert run_stub(tmp_path / "other.mcap", tmp_path / "out") == 0


def killed_sqlite(tmp_path: Path) -> Path:
    """A bag of 12 images whose recorder was killed: the last ones stand in SQLite's log only."""
    (killed := tmp_path / "killed").mkdir()
    (live := tmp_path / "live").mkdir()
    whole = sqlite3.connect(make_bag(tmp_path / "bag", "sqlite3", frames=12) / "bag.db3")
    recorder = sqlite3.connect(live / "rec_0.db3")
    whole.backup(recorder)
    recorder.execute("PRAGMA journal_mode=WAL")
    late = recorder.execute("SELECT * FROM messages WHERE id > 7").fetchall()
    recorder.execute("DELETE FROM messages WHERE id > 7")
    recorder.commit()
    recorder.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    recorder.executemany(f"INSERT INTO messages VALUES ({', '.join('?' * len(late[0]))})", late)
    recorder.commit()
    for name in ("rec_0.db3", "rec_0.db3-wal"):
        shutil.copy(live / name, killed / name)
    recorder.close()
    whole.close()
    return killed


@pytest.mark.parametrize("of_folder", [True, False])
def test_what_a_killed_recorder_left_in_sqlites_log_is_read(tmp_path: Path, of_folder: bool) -> None:
    killed = killed_sqlite(tmp_path)
    with Recording(killed if of_folder else killed / "rec_0.db3") as recording:
        assert len(list(recording.messages([IMAGE_TOPIC]))) == 12
        assert not recording.damage


def test_a_log_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, connect = killed_sqlite(tmp_path), sqlite3.connect

    def read_only(place: str, **options: bool) -> sqlite3.Connection:
        """As SQLite is on a folder in which nobody may write."""
        if "mode=ro" in place:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(place, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with Recording(killed) as recording:
        assert len(list(recording.messages([IMAGE_TOPIC]))) == 7
        assert "rec_0.db3-wal, which holds the last messages, cannot be read" in recording.damage


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_compressed_files_without_metadata_are_read(tmp_path: Path, storage: str) -> None:
    bag = make_bag(tmp_path / "bag", storage, frames=6)
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    packed = zstandard.compress(file.read_bytes())
    (killed := tmp_path / "killed").mkdir()
    (killed / f"rec_0{file.suffix}.zstd").write_bytes(packed)
    # The second one was being compressed when the recorder was killed.
    shutil.copy(file, killed / f"rec_1{file.suffix}")
    (killed / f"rec_1{file.suffix}.zstd").write_bytes(packed[: len(packed) // 2])
    with Recording(killed) as recording:
        assert len(list(recording.messages([IMAGE_TOPIC]))) == 12
        assert not recording.damage
    (killed / f"rec_1{file.suffix}").unlink()
    with Recording(killed) as recording:
        assert 6 <= len(list(recording.messages([IMAGE_TOPIC]))) < 12
        assert "is damaged" in recording.damage


def test_compressed_messages_without_metadata_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = make_bag(tmp_path / "bag", "sqlite3", frames=9)
    with sqlite3.connect(bag / "bag.db3") as connection:
        for number, data in connection.execute("SELECT id, data FROM messages").fetchall():
            packed = zstandard.compress(data)[: 30 if number == 9 else None]
            connection.execute("UPDATE messages SET data = ? WHERE id = ?", (packed, number))
    connection.close()
    (bag / "metadata.yaml").unlink()
    assert run_stub(bag, tmp_path / "out") == 0
    assert "8 used, 1 unreadable" in capsys.readouterr().out
