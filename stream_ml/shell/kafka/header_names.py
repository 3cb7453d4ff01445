"""Lets aiokafka read records whose headers have names that are no UTF-8.

A header's name is bytes that any producer may choose. aiokafka decodes it strictly, and so one such
record would end whoever reads its partition, again and again. The names mean nothing to us but one,
so here what cannot be decoded is replaced. Batches without such a name, all that there ever are,
go the way they always go; the fetcher's class is replaced, for aiokafka has no place for another.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_any_header"]

# Of a batch: its base offset, then the length of what follows.
_LENGTH_AT = 8
_LENGTH_ENDS_AT = 12


def read_any_header() -> None:
    """From now on, in this process, no consumer of aiokafka fails on a header's name."""
    fetcher.MemoryRecords = _Records  # as this module's head says


class _Text(bytearray):
    """Bytes that decode, whatever they are."""

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


class _Buffer(bytearray):
    """A buffer whose slices decode, whatever is in them."""

    def __getitem__(self, index: Any) -> Any:
        value = super().__getitem__(index)
        return value if isinstance(value, int) else _Text(value)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # final to type checkers
    """A batch read in Python, slowly, with names as they can be read."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Buffer(self._buffer)


class _Batch:
    """A batch as aiokafka reads it, but for its iteration; what it is made of is at hand."""

    def __init__(self, batch: Any, data: bytes, start: int, end: int) -> None:
        self._batch = batch
        self._data = data
        self._start, self._end = start, end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._batch
        except UnicodeDecodeError:
            # From the start: the fetcher passes over what lies before its position.
            yield from _LenientBatch(self._data[self._start : self._end])


class _Records:
    """The batches of one fetch of one partition."""

    def __init__(self, data: bytes) -> None:
        self._records: Any = MemoryRecords(data)
        self._data = data
        self._offset = 0

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> _Batch | None:
        """The next batch."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        start = self._offset
        (length,) = struct.unpack_from(">i", self._data, start + _LENGTH_AT)
        self._offset = start + _LENGTH_ENDS_AT + length
        return _Batch(batch, self._data, start, self._offset)

    def size_in_bytes(self) -> int:
        """The length of all batches."""
        return len(self._data)
