"""Reads files of events and labels, of whatever kind: JSON lines, CSV or Parquet, as records.

What kind a file is says its name, or `--input`; Parquet is known by how it begins as well.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from stream_ml.codec import RECORD_BYTES_MAX
from stream_ml.errors import BadRecord, UsageError
from stream_ml.shell.input_files import HEAD_BYTES, PACKED_SUFFIXES, PARQUET, check, open_file
from stream_ml.shell.processes.line_batches import batches, every_line
from stream_ml.shell.rows.csv_parser import CsvParser
from stream_ml.shell.rows.layout import Row, RowTable, name_in_ids
from stream_ml.shell.rows.parquet_reader import ParquetReader, check_readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stream_ml.shell.input_files import Kind
    from stream_ml.shell.processes.line_batches import Line
    from stream_ml.shell.processes.stop import Stop
    from stream_ml.shell.rows.layout import RowLayout

__all__ = ["check_files", "delimiter_of", "kind_of", "read_rows", "row_batches"]

SUFFIXES: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def kind_of(file: str, kind: Kind | None = None) -> Kind:
    """The kind of a file.

    Args:
        file: its name; `-` is the standard input.
        kind: what somebody says that it is.

    >>> kind_of("may.csv.gz"), kind_of("may.json"), kind_of("-"), kind_of("-", "csv")
    ('csv', 'jsonl', 'jsonl', 'csv')
    """
    if kind is not None:
        return kind
    found = SUFFIXES.get(_suffix(file), "jsonl")
    if found == "jsonl" and Path(file).is_file():
        with open_file(file) as handle:
            if os.read(handle, HEAD_BYTES).startswith(PARQUET):
                return "parquet"
    return found


def _suffix(file: str) -> str:
    path = PurePath(file.lower())
    return path.with_suffix("").suffix if path.suffix in PACKED_SUFFIXES else path.suffix


def delimiter_of(file: str, declared: str) -> str:
    """What is between the columns of a CSV file.

    Args:
        file: its name.
        declared: the delimiter of the declaration.
    """
    return "\t" if declared == "," and _suffix(file) == ".tsv" else declared


def check_files(files: Sequence[str], kind: Kind | None = None, *, row_ids: bool = False) -> None:
    """Find out at once what would else end the reading of files half way.

    Args:
        files: their names.
        kind: what somebody says that they are.
        row_ids: the ids of rows are made of the names of files.

    Raises:
        UsageError: one is not there, is a folder, or of a kind that is not read; or rows of two
            would have the same ids.
    """
    check(files)
    for file in files:
        if kind_of(file, kind) == "parquet":
            check_readable(file)
    if row_ids:
        _check_ids(files)


def _check_ids(files: Sequence[str]) -> None:
    by_name: dict[str, str] = {}
    for file in files:
        name = name_in_ids(file)
        if name in by_name:
            raise UsageError(
                f"{file}: expected another name than that of {by_name[name]}, given {name!r} "
                "twice, of which the ids of rows are made (row_ids=True); rename one"
            )
        by_name[name] = file


def read_rows(file: str, layout: RowLayout, kind: Kind | None = None) -> Iterator[Row]:
    """The records of a file, to its end.

    Args:
        file: its name.
        layout: makes records of its rows.
        kind: what somebody says that it is.

    Raises:
        UsageError: it is of a kind that is not read.
        StreamMLError: it is damaged, or has not the columns that are declared.
    """
    found = kind_of(file, kind)
    with open_file(file) as handle:
        if found == "parquet":
            for rows in _parquet_rows(handle, layout):
                yield from rows
            return
        lines = _lines_of(layout, found)
        for line in every_line(
            handle, bytes_max=RECORD_BYTES_MAX, file=file, is_raw=found == "csv"
        ):
            yield from lines.rows(line)
        yield from lines.end()


def row_batches(
    file: str, layout: RowLayout, stop: Stop, kind: Kind | None = None
) -> Iterator[list[Row]]:
    """The records of a file as they come, in batches; see `line_batches.batches`.

    Args:
        file: its name.
        layout: makes records of its rows.
        stop: ends it.
        kind: what somebody says that it is.

    Raises:
        UsageError: it is of a kind that is not read.
        StreamMLError: it is damaged, or has not the columns that are declared.
    """
    found = kind_of(file, kind)
    with open_file(file) as handle:
        if found == "parquet":
            for rows in _parquet_rows(handle, layout):
                if stop.is_requested:
                    return
                yield rows
            return
        lines = _lines_of(layout, found)
        for batch in batches(
            handle, stop, bytes_max=RECORD_BYTES_MAX, file=file, is_raw=found == "csv"
        ):
            yield [row for line in batch for row in lines.rows(line)]
        if not stop.is_requested:
            yield list(lines.end())


def _parquet_rows(handle: int, layout: RowLayout) -> Iterator[list[Row]]:
    reader = ParquetReader(handle, layout.file)
    table = RowTable(layout, reader.names)
    number = 0
    for batch in reader.rows(table.names):
        rows: list[Row] = []
        for values in batch:
            number += 1
            if isinstance(values, BadRecord):
                rows.append(Row(number, layout.topic, None, values))
            else:
                rows += table.value_rows(number, values)
        yield rows
    yield list(layout.rest())


def _lines_of(layout: RowLayout, kind: Kind) -> _JsonLines | _CsvLines:
    return _CsvLines(layout) if kind == "csv" else _JsonLines(layout)


class _JsonLines:
    """The records of JSON lines."""

    def __init__(self, layout: RowLayout) -> None:
        self._layout = layout

    def rows(self, line: Line) -> Iterable[Row]:
        if line.text is None:
            return (Row(line.number, self._layout.topic, None, _too_large()),)
        return self._layout.line_rows(line.number, line.text)

    def end(self) -> Iterator[Row]:
        return self._layout.rest()


class _CsvLines:
    """The records of a CSV file, whose first row names the columns."""

    def __init__(self, layout: RowLayout) -> None:
        self._layout = layout
        delimiter = delimiter_of(layout.file, layout.files.delimiter)
        self._parser = CsvParser(delimiter, RECORD_BYTES_MAX)
        self._table: RowTable | None = None

    def rows(self, line: Line) -> Iterator[Row]:
        for number, cells in self._parser.feed(line):
            yield from self._record(number, cells)

    def end(self) -> Iterator[Row]:
        for number, cells in self._parser.end():
            yield from self._record(number, cells)
        yield from self._layout.rest()

    def _record(self, number: int, cells: list[str] | BadRecord) -> Iterator[Row]:
        if isinstance(cells, BadRecord):
            yield Row(number, self._layout.topic, None, cells)
        elif self._table is None:
            self._table = RowTable(self._layout, cells, number)
        else:
            yield from self._table.cell_rows(number, cells)


def _too_large() -> BadRecord:
    message = f"expected at most {RECORD_BYTES_MAX} bytes in a line, given more"
    return BadRecord("too_large", "$", message)
