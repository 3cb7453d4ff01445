"""How commands show things to people: tables, counts, times. See `output` for the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["format_counts", "format_duration", "format_table", "format_time"]

NO_VALUE = "-"


def format_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell; those in `right` keep to the right.

    >>> print(format_table([["topic", "end"], ["events", "5"]], right=[1]))
    topic   end
    events    5

    Args:
        rows: of cells; all of one length.
        right: the numbers of the columns that keep to the right, from 0.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if index in right else f"{cell:<{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts in a line, those of nothing left out.

    >>> format_counts({"joined": 1200, "late": 0, "bad_label": 3})
    '1,200 joined, 3 bad label'
    """
    texts = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n]
    return ", ".join(texts) or "none"


def format_time(ms: int | None) -> str:
    """A time of events; those before the first are none.

    >>> format_time(1_357_038_000_000), format_time(-1)
    ('2013-01-01 11:00:00Z', '-')
    """
    if ms is None or ms < 0:
        return NO_VALUE
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError):
        return f"{ms} ms"  # past the year 9999: an event's time is what its producer says


def format_duration(ms: int | None) -> str:
    """A length of time.

    >>> format_duration(93_600_000), format_duration(None)
    ('1 d 2 h', '-')
    """
    return NO_VALUE if ms is None or ms < 0 else duration(ms / 1000)
