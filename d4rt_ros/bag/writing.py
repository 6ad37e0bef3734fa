"""A finished run becomes a rosbag2 that is there in full or not at all."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from d4rt_ros.bag.journal import OutMessage
from d4rt_ros.bag.messages import BagMessages

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
FILE_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}

# The newest metadata that Humble still reads; later distributions read it too.
METADATA_VERSION: Literal[8] = 8


def write_bag(
    out: Path,
    messages: Iterable[OutMessage],
    types: BagMessages,
    storage: str,
    scratch: Path,
    latched: Iterable[str] = (),
) -> int:
    """Write a rosbag2 and move it into place in one step.

    Args:
        out: folder to be made, or a single file where it ends in .mcap or .db3.
        messages: in order of time.
        types: definitions of the messages.
        storage: "mcap" or "sqlite3".
        scratch: folder on the same disk to write in; it is made, and removed in the end.
        latched: topics that are played back as transient local.

    Returns:
        Number of messages written.

    Raises:
        OSError: there is no room for it.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    folder = scratch / out.stem if out.suffix in FILE_STORAGES else scratch / out.name
    connections: dict[str, Connection] = {}
    count = 0
    try:
        with Writer(folder, version=METADATA_VERSION, storage_plugin=STORAGES[storage]) as writer:
            for topic, msgtype, log_time, data in messages:
                if topic not in connections:
                    connections[topic] = writer.add_connection(
                        topic, msgtype, typestore=types.store, offered_qos_profiles=[qos(topic in latched)]
                    )
                writer.write(connections[topic], log_time, data)
                count += 1
    except sqlite3.Error as error:  # what it makes of a full disk
        raise OSError(f"{out} cannot be written: {error}") from error
    if out.suffix in FILE_STORAGES:
        os.replace(folder / (folder.name + out.suffix), out)
    else:
        os.replace(folder, out)
    shutil.rmtree(scratch)
    return count


def qos(latched: bool) -> Qos:
    """What the node offers: reliable, keep last; transient local where latched."""
    never = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )
