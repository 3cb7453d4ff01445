"""Parquet files, a few rows at a time."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

from stream_ml.errors import StreamMLError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["ParquetReader", "require_pyarrow"]

BATCH_ROWS = 1_000
BUFFER_BYTES = 1024 * 1024
_TICKS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of columns that name no zone


def require_pyarrow(file: str) -> None:
    """Make sure that Parquet can be read.

    Args:
        file: that is to be read, for the message.

    Raises:
        UsageError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - an extra, and slow to load
    except ImportError:
        raise UsageError(
            f"{file}: expected pyarrow to read a Parquet file with, given none; install "
            "stream-ml[archive], or write the file as CSV or JSON lines"
        ) from None


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
        require_pyarrow(file)
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 - as above

        self._file = file
        self._errors: tuple[type[Exception], ...] = (ArrowException, OSError, UnicodeDecodeError)
        self._source = _seekable(handle)
        try:
            # Pages are read as they are needed, so a large row group fills no memory.
            self._parquet = parquet.ParquetFile(
                self._source, buffer_size=BUFFER_BYTES, pre_buffer=False
            )
        except self._errors as error:
            self._source.close()
            raise self._damage_error(error) from None
        self.names: list[str] = list(self._parquet.schema_arrow.names)

    def rows(self, names: Collection[str]) -> Iterator[list[dict[str, Any]]]:
        """The rows, some at a time, of these columns; what is null is left out.

        Args:
            names: of columns that there are.

        Raises:
            StreamMLError: it is damaged.
        """
        batches = self._parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(names))
        try:
            for batch in batches:
                columns = [_values(column) for column in batch.columns]
                keys = batch.schema.names
                rows: list[dict[str, Any]] = [{} for _ in range(batch.num_rows)]
                for name, values in zip(keys, columns, strict=True):
                    for row, value in zip(rows, values, strict=True):
                        if value is not None:
                            row[name] = value
                yield rows
        except self._errors as error:
            raise self._damage_error(error) from None
        finally:
            self._source.close()

    def _damage_error(self, error: Exception) -> StreamMLError:
        reason = str(error).partition("\n")[0]
        return StreamMLError(
            f"{self._file}: expected a sound Parquet file, given a damaged one ({reason})"
        )


def _seekable(handle: int) -> BinaryIO:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(os.dup(handle), "rb")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the reader
    with os.fdopen(os.dup(handle), "rb") as source:
        shutil.copyfileobj(source, copy, BUFFER_BYTES)
    copy.seek(0)
    return copy


def _values(column: Any) -> list[Any]:
    """The values of a column as Python has them; times whole, in whatever unit they are."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    per_s, zone = _TICKS_PER_S[column.type.unit], column.type.tz
    ticks = column.cast(pa.int64()).to_pylist()
    return [None if n is None else _moment(n, per_s, zone is not None) for n in ticks]


def _moment(ticks: int, per_s: int, is_utc: bool) -> Any:
    """The time of so many ticks; where the calendar has none of it, the number of ticks.

    What is finer than a microsecond is cut off.
    """
    try:
        moment = _EPOCH + timedelta(microseconds=ticks * 1_000_000 // per_s)
    except OverflowError:
        return ticks
    return moment.replace(tzinfo=UTC) if is_utc else moment
