"""What may be wrong with a label that is one: each is a dead letter, and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord
from stream_ml.features.durations import duration_text
from stream_ml.time_units import time_text

if TYPE_CHECKING:
    from stream_ml.records import EventLabel

__all__ = [
    "duplicate_label",
    "late_by_former_horizon",
    "late_correction",
    "late_label",
    "orphan_label",
]


def late_by_former_horizon() -> BadRecord:
    """What came in time by a horizon that was declared later."""
    return BadRecord(
        "late", "$.ts", "its event has waited for as long as the horizon was then, and no longer"
    )


def late_label(horizon_ms: int) -> BadRecord:
    """What came after the horizon of its event."""
    return BadRecord(
        "late",
        "$.ts",
        f"the labels watermark is more than {duration_text(horizon_ms)} past its event",
    )


def duplicate_label(label: EventLabel) -> BadRecord:
    """What is about an event that has its label."""
    return BadRecord(
        "duplicate_label", "$.event_id", f"a label for {label.event_id!r} was joined before"
    )


def orphan_label(label: EventLabel, skew_ms: int, known_ms: int) -> BadRecord:
    """What is about nothing that is known."""
    # Whether there is one that is too far depends on which of the two was read first.
    return BadRecord(
        "orphan",
        "$.event_id",
        f"no prediction has the id {label.event_id!r}, or none of an event that is at most "
        f"{duration_text(skew_ms)} after the label's time, {time_text(label.ts)}, and at most "
        f"{duration_text(known_ms)} before it",
    )


def late_correction(event_id: str, span_ms: int) -> BadRecord:
    """What is wrong with a label that comes for one that may be corrected no more.

    Args:
        event_id: of the event.
        span_ms: how long after the first label one may; 0 where only silence may be corrected.
    """
    kept_no_more = "is kept no more, for over `pending_max` of these stood"
    if not span_ms:
        return BadRecord(
            "duplicate_label",
            "$.event_id",
            f"expected a label for {event_id!r} before the one that it has, given one that would "
            "correct it: no `corrections` are declared, or silence was joined for it and "
            + kept_no_more,
        )
    return BadRecord(
        "late_correction",
        "$.event_id",
        f"expected a correction of the label of {event_id!r} within "
        f"{duration_text(span_ms)} of its first label, given one by which the labels watermark is "
        f"past that, or whose event {kept_no_more}",
    )
