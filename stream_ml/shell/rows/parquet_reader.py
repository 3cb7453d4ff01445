"""Parquet files, a few rows at a time."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

from stream_ml.codec import RECORD_BYTES_MAX
from stream_ml.errors import BadRecord, StreamMLError
from stream_ml.shell.export.parquet import require_pyarrow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["ParquetReader", "check_readable"]

BATCH_ROWS = 1_000
# A batch is made of fewer rows where they are large, by what the file says of its groups.
BATCH_BYTES = 64 * 1024 * 1024
# And handed on in pieces of so much text, of which records are made.
PIECE_BYTES = 8 * 1024 * 1024
BUFFER_BYTES = 1024 * 1024
_TEXTS = {"string", "large_string", "string_view", "binary", "large_binary", "binary_view"}
_TICKS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of columns that name no zone
_EPOCH_DAY, _DAY_MS = date(1970, 1, 1), 86_400_000


def check_readable(file: str) -> None:
    """Make sure that Parquet can be read.

    Args:
        file: that is to be read, for the message.

    Raises:
        UsageError: pyarrow is missing.
    """
    require_pyarrow(
        f"{file}: expected pyarrow to read a Parquet file with, given none; install "
        "stream-ml[archive], or write the file as CSV or JSON lines"
    )


class ParquetReader:
    """Reads one file.

    Args:
        handle: where it is read from; a pipe is copied to a temporary file first.
        file: what messages call it.

    Attributes:
        names: of its columns.

    Raises:
        UsageError: pyarrow is missing.
        StreamMLError: it is no sound Parquet file.
    """

    def __init__(self, handle: int, file: str) -> None:
        check_readable(file)
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 - as above

        self._file = file
        self._errors: tuple[type[Exception], ...] = (
            ArrowException,
            OSError,
            UnicodeDecodeError,
            MemoryError,
        )
        self._source = _seekable(handle)
        try:
            with parquet.ParquetFile(self._source) as parsed:
                metadata, texts = parsed.metadata, _text_columns(parsed)
            self._batch_rows = _batch_rows(metadata)
            self._source.seek(0)
            # Pages are read as they are needed, so a large row group fills no memory; and a text
            # is held once, however many rows of a small file have it.
            self._parquet = parquet.ParquetFile(
                self._source,
                metadata=metadata,
                read_dictionary=texts,
                buffer_size=BUFFER_BYTES,
                pre_buffer=False,
            )
        except self._errors as error:
            self._source.close()
            raise self._damage_error(error) from None
        self.names: list[str] = list(self._parquet.schema_arrow.names)

    def rows(self, names: Collection[str]) -> Iterator[list[dict[str, Any] | BadRecord]]:
        """The rows, some at a time, of these columns; what is null is left out.

        Of a column that holds no plain values, such as lists, only that is told.

        Args:
            names: of columns that there are.

        Returns:
            Each row by column; or why it is none, for it is too large.

        Raises:
            StreamMLError: it is damaged, or memory has no room for it.
        """
        schema = self._parquet.schema_arrow
        kinds = {name: schema.field(name).type for name in names}
        unread = {name: _Unread(kind) for name, kind in kinds.items() if not _is_plain(kind)}
        plain = [name for name in names if name not in unread]
        batches = self._parquet.iter_batches(batch_size=self._batch_rows, columns=plain)
        try:
            for batch in batches:
                for start, count, is_large in _pieces(batch):
                    if is_large:
                        yield [_too_large()]
                        continue
                    piece = batch.slice(start, count)
                    rows = [dict[str, Any](unread) for _ in range(count)]
                    for name in plain:
                        for row, value in zip(rows, _values(piece.column(name)), strict=True):
                            if value is not None:
                                row[name] = value
                    yield [*rows]
        except self._errors as error:
            raise self._damage_error(error) from None
        finally:
            self._source.close()

    def _damage_error(self, error: Exception) -> StreamMLError:
        reason = str(error).partition("\n")[0]
        if isinstance(error, MemoryError):
            return StreamMLError(
                f"{self._file}: expected rows that memory has room for, given too large ones "
                f"(out of memory{reason and ': '}{reason}); write it in smaller pages and row "
                "groups, or as CSV"
            )
        return StreamMLError(
            f"{self._file}: expected a sound Parquet file, given a damaged one ({reason})"
        )


class _Unread:
    """Stands for a value that no record can hold; messages show what it is."""

    def __init__(self, kind: Any) -> None:
        self._text = str(kind)

    def __repr__(self) -> str:
        return self._text


def _seekable(handle: int) -> BinaryIO:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(os.dup(handle), "rb")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the reader
    with os.fdopen(os.dup(handle), "rb") as source:
        shutil.copyfileobj(source, copy, BUFFER_BYTES)
    copy.seek(0)
    return copy


def _too_large() -> BadRecord:
    message = f"expected at most {RECORD_BYTES_MAX} bytes in a row, given more"
    return BadRecord("too_large", "$", message)


def _is_text(kind: Any) -> bool:
    return str(kind) in _TEXTS


def _is_plain(kind: Any) -> bool:
    """Whether values of a type are small, or are texts."""
    from pyarrow import BaseExtensionType, types  # noqa: PLC0415 - as above

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    is_large = types.is_nested(kind) or types.is_fixed_size_binary(kind)
    return not (is_large or isinstance(kind, BaseExtensionType))


def _text_columns(parsed: Any) -> list[int]:
    """Which of the leaves of a file are columns of text."""
    arrow, leaves = parsed.schema_arrow, parsed.schema
    texts = {field.name for field in arrow if _is_text(field.type)}
    return [index for index in range(len(leaves.names)) if leaves.column(index).path in texts]


def _batch_rows(metadata: Any) -> int:
    """How many rows are read at once, by the mean size of the rows of the largest group."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    size = max((each.total_byte_size // max(1, each.num_rows) for each in groups), default=0)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, size)))


def _pieces(batch: Any) -> Iterator[tuple[int, int, bool]]:
    """The first row of each piece, how many it has, and whether it is one that is too large."""
    sizes = [0] * batch.num_rows
    for column in batch.columns:
        for row, size in enumerate(_lengths(column)):
            sizes[row] += size or 0
    start, total = 0, 0
    for row, size in enumerate(sizes):
        is_large = size > RECORD_BYTES_MAX
        total += size
        if row > start and (is_large or total > PIECE_BYTES):
            yield start, row - start, False
            start, total = row, size
        if is_large:
            yield row, 1, True
            start, total = row + 1, 0
    if start < batch.num_rows or not batch.num_rows:
        yield start, batch.num_rows - start, False


def _lengths(column: Any) -> list[int | None]:
    """How many bytes the texts of a column have; nothing for one of another type."""
    from pyarrow import compute, types  # noqa: PLC0415 - as above

    lengths: list[int | None] = []
    if types.is_dictionary(column.type):
        if _is_text(column.type.value_type):
            sizes = compute.binary_length(column.dictionary)
            lengths = sizes.take(column.indices).to_pylist()
    elif _is_text(column.type):
        lengths = compute.binary_length(column).to_pylist()
    return lengths


def _values(column: Any) -> list[Any]:
    """The values of a column as Python has them; times whole, in whatever unit they are."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        indices = column.indices.to_pylist()
        used = sorted({index for index in indices if index is not None})
        found = dict(
            zip(used, _values(column.dictionary.take(pa.array(used, pa.int64()))), strict=True)
        )
        return [None if index is None else found[index] for index in indices]
    if types.is_timestamp(kind):
        per_s, is_utc = _TICKS_PER_S[kind.unit], kind.tz is not None
        ticks = column.cast(pa.int64()).to_pylist()
        return [None if n is None else _moment(n, per_s, is_utc, kind) for n in ticks]
    if types.is_date(kind):
        is_days = types.is_date32(kind)
        ticks = column.cast(pa.int32() if is_days else pa.int64()).to_pylist()
        return [None if n is None else _day(n if is_days else n // _DAY_MS, n, kind) for n in ticks]
    try:
        values: list[Any] = column.to_pylist()
    except (UnicodeDecodeError, pa.ArrowException):
        raise
    except (OverflowError, ValueError):
        return [_value(cell) for cell in column]
    return values


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        return _Unread(f"{cell.type} out of range")


def _moment(ticks: int, per_s: int, is_utc: bool, kind: Any) -> Any:
    """The time of so many ticks, unless the calendar has none of it.

    What is finer than a microsecond is cut off.
    """
    try:
        moment = _EPOCH + timedelta(microseconds=ticks * 1_000_000 // per_s)
    except OverflowError:
        return _Unread(f"{kind} {ticks}")
    return moment.replace(tzinfo=UTC) if is_utc else moment


def _day(days: int, ticks: int, kind: Any) -> Any:
    """The date so many days after 1970, unless the calendar has none of it."""
    try:
        return _EPOCH_DAY + timedelta(days=days)
    except OverflowError:
        return _Unread(f"{kind} {ticks}")
