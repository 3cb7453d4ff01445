"""Who can write to where an embedded log lives, and asks nobody: records of any topic."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.topics import partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_ml.records import Output, Record
    from stream_ml.shell.log.port import Log

__all__ = ["append_straight", "write_into_file"]


def append_straight(log: Log, outputs: Sequence[Output]) -> list[Record]:
    """Appends `outputs` past the check of whose topic it is, also while a worker is at work."""
    assert isinstance(log, SqliteLog)
    return log._append(outputs)


def write_into_file(path: Path, outputs: Sequence[Output]) -> None:
    """Appends `outputs` with nothing but SQLite, as somebody does who has none of our code."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as file:
        for output in outputs:
            assert output.key is not None
            file.execute("BEGIN IMMEDIATE")
            places = file.execute(
                "SELECT id, next FROM partitions WHERE topic = ? ORDER BY number", (output.topic,)
            ).fetchall()
            number, at = places[partition_of(output.key, len(places))]
            row = at, output.key, output.value, time.time_ns() // 1_000_000
            file.execute(f"INSERT INTO records_{number:d} VALUES (?, ?, ?, ?)", row)  # noqa: S608
            file.execute("UPDATE partitions SET next = ? WHERE id = ?", (at + 1, number))
            file.execute("COMMIT")
