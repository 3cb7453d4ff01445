"""What every stage does with a record from outside before it folds it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from stream_ml.errors import BadRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.records import Record

__all__ = ["parsed", "refuse_future"]

T = TypeVar("T")


def parsed(record: Record, decode: Callable[[Record], T]) -> T | BadRecord:
    """What `decode` makes of a record, or what is wrong with it; kept as the record's memo."""
    if record.memo is None:
        try:
            record.memo = decode(record)
        except BadRecord as error:
            record.memo = error
    return record.memo  # type: ignore[no-any-return]  # a memo is what decoding gave


def refuse_future(record: Record, ts: int, skew_ms: int, member: str) -> None:
    """Refuse what is dated later than it came, or one slip of a clock would close every window.

    Raises:
        BadRecord: `ts` is more than `skew_ms` past the record's append time.
    """
    if ts > record.append_ms + skew_ms:
        raise BadRecord(
            "from_the_future",
            f"$.{member}",
            f"expected at most {skew_ms} ms past its arrival at {record.append_ms}, given {ts}",
        )
