"""Parquet, by pyarrow: tables of an export, and records of a log as an archive keeps them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from stream_ml.errors import LogError, UsageError
from stream_ml.records import Record, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_ml.shell.export.tables import Column, Row

__all__ = ["ParquetTableWriter", "read_records", "records_file", "require_pyarrow"]

# As many rows are held before they are written: a group that readers can skip.
GROUP_ROWS = 50_000
COMPRESSION = "zstd"
_MISSING = 'Parquet needs pyarrow: pip install "stream-ml[archive]", or write .csv or .jsonl'


def require_pyarrow(message: str = _MISSING) -> Any:
    """The library.

    Args:
        message: says what it is needed for, and the way out.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra; only who asks for it
        import pyarrow.parquet  # noqa: PLC0415 - as above
    except ImportError:
        raise UsageError(message) from None
    return pa


def _types(pa: Any) -> dict[str, Any]:
    return {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("ms", tz="UTC"),
        "json": pa.string(),
    }


# JSON has whole numbers where a column has doubles.
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "json": lambda value: orjson.dumps(value).decode(),
    "number": float,
}


class ParquetTableWriter:
    """Rows as Parquet: numbers as doubles, times as timestamps in UTC, what has members as JSON.

    Args:
        file: to write to.
        columns: of every row.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._pa = pa = require_pyarrow()
        self._columns = columns
        types = _types(pa)
        self._schema = pa.schema([(column.name, types[column.type]) for column in columns])
        self._writer = pa.parquet.ParquetWriter(file, self._schema, compression=COMPRESSION)
        self._rows: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        self._rows += rows
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        pa, arrays = self._pa, []
        cells = list(zip(*self._rows, strict=True)) or [() for _ in self._columns]
        for column, field, values in zip(self._columns, self._schema, cells, strict=True):
            convert = _CONVERSIONS.get(column.type)
            converted = values
            if convert is not None:
                converted = tuple(value if value is None else convert(value) for value in values)
            arrays.append(pa.array(converted, field.type))
        batch = pa.record_batch(arrays, schema=self._schema)
        self._writer.write_batch(batch, row_group_size=GROUP_ROWS)
        self._rows = []

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        if self._rows:
            self._flush()
        self._writer.close()


# --- records of a log --------------------------------------------------------------------------


def _record_schema(pa: Any) -> Any:
    return pa.schema(
        [
            ("offset", pa.int64()),
            ("append_time", pa.timestamp("ms", tz="UTC")),
            ("key", pa.binary()),
            ("value", pa.large_binary()),
            ("origin_partition", pa.int32()),
            ("origin_offset", pa.int64()),
        ]
    )


def records_file(records: Sequence[Record]) -> bytes:
    """Records as a Parquet file: where each lies, when the log took it in, its key and its bytes.

    Args:
        records: of one partition.

    Raises:
        UsageError: pyarrow is not installed.
    """
    pa = require_pyarrow()
    schema = _record_schema(pa)
    columns: list[list[Any]] = [
        [record.offset for record in records],
        [record.append_ms for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [None if record.origin is None else record.origin.partition for record in records],
        [None if record.origin is None else record.origin.offset for record in records],
    ]
    arrays = [pa.array(values, f.type) for values, f in zip(columns, schema, strict=True)]
    file = io.BytesIO()
    table = pa.Table.from_arrays(arrays, schema=schema)
    # No dictionaries: values differ, and a dictionary of them would be tried first, and given up.
    pa.parquet.write_table(table, file, compression=COMPRESSION, use_dictionary=False)
    return file.getvalue()


def read_records(data: bytes, topic: str, partition: int) -> list[Record]:
    """The records of a file that `records_file` wrote.

    Args:
        data: the file.
        topic: that they are of.
        partition: that they lay in.

    Raises:
        UsageError: pyarrow is not installed.
        LogError: it is another file.
    """
    pa = require_pyarrow()
    try:
        table = pa.parquet.read_table(pa.BufferReader(data), schema=_record_schema(pa))
        table = table.set_column(1, "append_time", table["append_time"].cast(pa.int64()))
    except (pa.ArrowException, TypeError, ValueError, OSError) as error:
        raise LogError(f"expected a file of records, given another: {error}") from None
    columns = [table[name].to_pylist() for name in table.column_names]
    if any(None in columns[index] for index in (0, 1)):
        raise LogError("expected an offset and a time of each record, given some without")
    return [
        Record(
            topic,
            partition,
            offset,
            key,
            value,
            append_ms,
            None,
            None if origin_offset is None else Source(origin_partition, origin_offset),
        )
        for offset, append_ms, key, value, origin_partition, origin_offset in zip(
            *columns, strict=True
        )
    ]
