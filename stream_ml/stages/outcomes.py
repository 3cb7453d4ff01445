"""What becomes of predictions and labels, as join counts it."""

from __future__ import annotations

__all__ = ["CORRECTION_OUTCOMES", "OUTCOMES"]

OUTCOMES = (
    "joined",
    "expired",
    "late",
    "orphan",
    "duplicate_label",
    "too_many_labels",
    "label_before_event",
    "duplicate_prediction",
    "bad_label",
    "bad_prediction",
    "strays",
    "dropped",
)
# Where silence means something, or labels may be corrected.
CORRECTION_OUTCOMES = ("absent", "confirmed", "corrected", "late_correction")
