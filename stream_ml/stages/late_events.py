"""The events that come too late, where these have a topic of their own.

Theory of operation:

1. `Events(too_late="topic")` gives each event that is too late for predictions and windows one
   record of `late-events` in the place of its dead letter, in the same transaction, with its bytes
   and how far behind its partition's watermark it lay.
2. In all else it is refused as ever: it changes no state but counts (`counts.too_late`), and many
   of them are the alert `poison_rate` and, where data is watched, `flood`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from stream_ml.codec import dead_letter, encode
from stream_ml.records import DeadLetter, LateEvent, Output

if TYPE_CHECKING:
    from stream_ml.errors import BadRecord
    from stream_ml.records import Record

__all__ = ["TOO_LATE", "late_event"]

TOO_LATE = "too_late"


def late_event(record: Record, error: BadRecord, behind_ms: int) -> Output:
    """The record of `late-events` for an event.

    Args:
        record: the event, as it lies on its topic.
        error: why predict refuses it.
        behind_ms: how far behind its partition's watermark it lies, in milliseconds.
    """
    letter = dead_letter(record, "predict", error)
    members = {each.name: getattr(letter.memo, each.name) for each in fields(DeadLetter)}
    late = LateEvent(**members, behind_ms=behind_ms)
    return Output("late-events", letter.key, encode(late), late)
