"""What predict tells of events, to bytes and back: summaries of a block, facts about entities."""

from __future__ import annotations

import msgspec

from stream_ml.errors import BadRecord
from stream_ml.records import ID_LENGTH_MAX, EntityFacts, Summary

__all__ = ["decode_facts", "decode_summary", "encode_facts", "encode_summary"]


def encode_summary(summary: Summary) -> bytes:
    """The wire form of a summary."""
    return _write(summary)


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


def encode_facts(facts: EntityFacts) -> bytes:
    """The wire form of facts."""
    return _write(facts)


def decode_facts(value: bytes | None) -> EntityFacts:
    """The facts in `value`; whether a pipeline can have made them is not looked at.

    Raises:
        BadRecord: it holds none.
    """
    try:
        return _read_facts(value or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRecord("malformed", "$", f"these are no facts: {str(error)[:200]}") from None


_read_facts = msgspec.json.Decoder(EntityFacts).decode
_read_summary = msgspec.json.Decoder(Summary).decode
_write = msgspec.json.Encoder().encode


def _malformed(path: str, expected: str, actual: int) -> BadRecord:
    return BadRecord("malformed", path, f"expected {expected}, given {actual}")
