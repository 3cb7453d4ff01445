"""How commands show things to people: tables, counts, times. See `output` for the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_ml.cli.colour import StyledText, paint
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.cli.colour import Style

__all__ = ["format_counts", "format_duration", "format_table", "format_time"]

NO_VALUE = "-"


def format_table(
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    *,
    head: Sequence[str] | None = None,
) -> str:
    """Columns as wide as their widest cell; those in `right` keep to the right.

    >>> print(format_table([["events", "5"]], right=[1], head=["topic", "end"]))
    topic   end
    events    5

    Args:
        rows: of cells, `StyledText` among them; all of one length.
        right: the numbers of the columns that keep to the right, from 0.
        head: the names of the columns; without one the first cell of each row is its name.
    """
    styled = [
        [_styled(cell, "faint" if head is None else None) for cell in row[:1]]
        + [_styled(cell, None) for cell in row[1:]]
        for row in rows
    ]
    if head is not None:
        styled.insert(0, [_styled(cell, "heading") for cell in head])
    widths = [max(len(text) for text, _ in cells) for cells in zip(*styled, strict=True)]
    return "\n".join(_row(cells, widths, right) for cells in styled)


def _styled(cell: str, style: Style | None) -> tuple[str, Style | None]:
    return printable(cell), cell.style if isinstance(cell, StyledText) else style


def _row(
    cells: Sequence[tuple[str, Style | None]], widths: Sequence[int], right: Sequence[int]
) -> str:
    parts = []
    for index, ((text, style), width) in enumerate(zip(cells, widths, strict=True)):
        padding = " " * (width - len(text))
        shown = text if style is None else paint(text, style)
        parts.append(padding + shown if index in right else shown + padding)
    return "  ".join(parts).rstrip()


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
