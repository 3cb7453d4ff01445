"""Writers of tables: JSON lines and CSV; Parquet is `shell.export.parquet`.

Equal rows give equal bytes.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import orjson

from stream_ml.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stream_ml.shell.export.tables import Column, Row

__all__ = ["CsvWriter", "JsonLinesWriter", "TableWriter", "check_place", "writer_of"]


class TableWriter(Protocol):
    """Writes rows to an open file."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write what is left; the file itself stays open."""


class JsonLinesWriter:
    """A JSON object for each row; times are UTC milliseconds, as on the wire.

    Args:
        file: to write to.
        columns: of every row.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        self._names = [column.name for column in columns]

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        names = self._names
        self._file.writelines(
            orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
            for row in rows
        )

    def close(self) -> None:
        """Nothing is left."""


class CsvWriter:
    """A line for each row, below one with the names; times are ISO 8601 in UTC.

    What is missing is empty, and what has members is JSON.

    Args:
        file: to write to.
        columns: of every row.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        self._texts = [_TEXTS.get(column.type) for column in columns]
        self._add([[column.name for column in columns]])

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        texts = self._texts
        self._add(
            [
                cell if text is None or cell is None else text(cell)
                for text, cell in zip(texts, row, strict=True)
            ]
            for row in rows
        )

    def _add(self, rows: Any) -> None:
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())

    def close(self) -> None:
        """Nothing is left."""


def _time_text(ms: int) -> str:
    """A time in ISO 8601; past the year 9999, which that does not know, its milliseconds.

    >>> _time_text(1_357_038_000_123)
    '2013-01-01T11:00:00.123Z'
    """
    seconds, rest = divmod(ms, 1_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"
    except (OverflowError, ValueError):
        return str(ms)


_TEXTS: dict[str, Callable[[Any], Any]] = {
    "time": _time_text,
    "boolean": lambda value: "true" if value else "false",
    "json": lambda value: orjson.dumps(value).decode(),
}


def writer_of(path: Path) -> Callable[[BinaryIO, Sequence[Column]], TableWriter]:
    """What writes a file of this name, by its ending.

    Args:
        path: of the file.

    Raises:
        UsageError: nothing does, or it lacks its library.
    """
    if path.suffix == ".jsonl":
        return JsonLinesWriter
    if path.suffix == ".csv":
        return CsvWriter
    if path.suffix == ".parquet":
        from stream_ml.shell.export import parquet  # noqa: PLC0415 - an extra; only who asks for it

        parquet.require_pyarrow()
        return parquet.ParquetTableWriter
    raise UsageError(
        f"--to: expected a file that ends in .parquet, .csv or .jsonl, given {path.name!r}"
    )


def check_place(path: Path) -> None:
    """Refuse a place where no file can be written.

    Args:
        path: of the file.

    Raises:
        UsageError: its folder is not there, or it is itself a folder.
    """
    if not path.parent.is_dir():
        raise UsageError(
            f"{path}: expected a folder {path.parent} to write into, given none; make it first"
        )
    if path.is_dir():
        raise UsageError(f"{path}: expected the name of a file, given a folder")
