"""Summaries of a block of events, to bytes and back."""

from __future__ import annotations

import msgspec

from stream_ml.errors import BadRecord
from stream_ml.records import ID_LENGTH_MAX, Summary

__all__ = ["decode_summary", "encode_summary"]


def encode_summary(summary: Summary) -> bytes:
    """The wire form of a summary."""
    return _write_summary(summary)


def decode_summary(value: bytes | None) -> Summary:
    """The summary in `value`; whether a pipeline can have made it is not looked at.

    Raises:
        BadRecord: it holds none.
    """
    try:
        summary = _read_summary(value or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRecord("malformed", "$", f"this is no summary: {str(error)[:200]}") from None
    if summary.start >= summary.end:
        raise _malformed("$.end", "a time after the start", summary.end)
    for kind, columns in (("fields", summary.fields), ("features", summary.features)):
        for name, column in columns.items():
            places, numbers = column.places, sum(column.counts)
            is_sketch = (
                len(places) == len(column.counts)
                and list(places) == sorted(set(places))
                and (column.low is None) == (column.high is None) == (not numbers)
            )
            if not is_sketch:
                path = f"$.{kind}.{name[:ID_LENGTH_MAX]}"
                raise _malformed(path, "a sketch of as many counts as places", len(places))
    return summary


_read_summary = msgspec.json.Decoder(Summary).decode
_write_summary = msgspec.json.Encoder().encode


def _malformed(path: str, expected: str, actual: int) -> BadRecord:
    return BadRecord("malformed", path, f"expected {expected}, given {actual}")
