"""What rows without a label mean: that nobody knows yet, or the answer that nobody writes down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.files import cell_flag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.shell.drafts.sample import Sample, SampledColumn

__all__ = ["SilentLabel", "can_be_label", "find_silence", "is_mark", "is_named_for", "label_texts"]

CLASSES_MAX = 20
_TIME_END = r"_?(at|on|ts|time|date|At|On|Ts|Time|Date)"
_FLAG_START = re.compile(r"(is|was|has|did)_", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SilentLabel:
    """The label that events without one have.

    Attributes:
        label: as Python.
        category: the class that is added for it, where labels are texts.
        reason: why.
    """

    label: str
    category: str | None
    reason: str


def can_be_label(column: SampledColumn, rows: int) -> bool:
    """Whether a column may be what is to be predicted.

    Args:
        column: of the file.
        rows: how many events there are.
    """
    if is_mark(column, rows):
        return True
    if column.all_are("whole", "number") or column.all_are("bool", "whole"):
        return len(column.counts) > 1
    return column.all_are("bool", "text", "time", "local") and 1 < len(column.counts) <= CLASSES_MAX


def is_mark(column: SampledColumn, rows: int) -> bool:
    """Whether a column marks some of the rows with one value, such as 1, and is empty elsewhere.

    Args:
        column: of the file.
        rows: how many events there are.
    """
    if len(column.counts) != 1 or column.present >= rows:
        return False
    is_flag = column.all_are("whole", "bool")
    return _is_true(next(iter(column.counts))) if is_flag else column.all_are("text")


def is_named_for(name: str, label: str) -> bool:
    """Whether a column of times is called after a label: when it came.

    Args:
        name: of the column of times.
        label: of the label.

    >>> is_named_for("clicked_at", "clicked"), is_named_for("fraudTime", "is_fraud")
    (True, True)
    >>> is_named_for("click_time", "clicked"), is_named_for("ordered_at", "clicked")
    (True, False)
    """
    stem = _FLAG_START.sub("", label)
    stems = "|".join(re.escape(each) for each in {label, stem, stem.removesuffix("ed")} if each)
    return re.fullmatch(f"({stems}){_TIME_END}", name) is not None


def label_texts(
    sample: Sample, label: str, labels: Sample | None = None, ids: tuple[str, str] = ("", "")
) -> list[str | None]:
    """The label of each event of the sample as a text; None where there is none.

    Args:
        sample: of the file of events.
        label: the column that is the label.
        labels: of the file of labels, where they are in one of their own.
        ids: the columns that name events, there and in the file of labels.
    """
    if labels is None:
        return [_text(row, label) for row in sample.rows]
    known = {str(row[ids[1]]): _text(row, label) for row in labels.rows if ids[1] in row}
    return [known.get(str(row.get(ids[0]))) for row in sample.rows]


def _text(row: Mapping[str, Any], name: str) -> str | None:
    return None if name not in row else str(row[name])


def find_silence(
    column: SampledColumn, texts: list[str | None], rows: Iterator[Mapping[str, Any]], time: str
) -> SilentLabel | None:
    """What it means that an event has no label; None where nothing says that it means anything.

    Args:
        column: the label's.
        texts: the label of each event.
        rows: those of the file in which the label's time is.
        time: the column of when a label was known; empty where none is.
    """
    if is_mark(column, len(texts)) and None in texts:
        [value] = column.counts
        reason = f"{value!r:.40} is the only label there is, and most events have none"
        if column.all_are("whole", "bool"):
            return SilentLabel("False", None, reason)
        category = next(each for each in ("none", "nothing") if each != value)
        return SilentLabel(f'"{category}"', category, reason)
    if not time or {cell_flag(text) for text in column.counts} != {True, False}:
        return None
    untimed = [_is_true(str(row[column.name])) for row in rows if _has_no_time(row, column, time)]
    if untimed and not any(untimed):
        return SilentLabel(
            "False", None, f"{len(untimed):,} labels are negative and have no {time!r}"
        )
    return None


def _has_no_time(row: Mapping[str, Any], column: SampledColumn, time: str) -> bool:
    return column.name in row and time not in row


def _is_true(text: str) -> bool:
    return cell_flag(text) is True
