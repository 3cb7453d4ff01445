"""How commands print: text for people or JSON for machines, both to standard output."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.shell.progress import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["aligned", "counted", "instant", "moment", "span", "write", "write_json"]

NOTHING = "-"


def write(text: str) -> None:
    """Print a text, as it is, and the end of its line."""
    sys.stdout.write(f"{text}\n")


def write_json(value: Any) -> None:
    """Print one JSON document."""
    write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell; those in `right` keep to the right.

    >>> print(aligned([["topic", "end"], ["events", "5"]], right=[1]))
    topic   end
    events    5
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if place in right else f"{cell:<{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def counted(counts: Mapping[str, int]) -> str:
    """Counts in a line, those of nothing left out.

    >>> counted({"joined": 1200, "late": 0, "bad_label": 3})
    '1,200 joined, 3 bad label'
    """
    found = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n]
    return ", ".join(found) or "none"


def moment(ms: int | None) -> str:
    """A time of events; those before the first are none.

    >>> moment(1_357_038_000_000), moment(-1)
    ('2013-01-01 11:00:00Z', '-')
    """
    if ms is None or ms < 0:
        return NOTHING
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError):
        return f"{ms} ms"  # past the year 9999: an event's time is what its producer says


def instant(text: str) -> int:
    """A time that somebody has typed: as `moment` shows it, in ISO 8601, or in milliseconds.

    Where no zone is named, it is UTC.

    >>> instant("2013-01-01 11:00:00Z"), instant("2013-01-01T12:00+01:00"), instant("2013-01-01")
    (1357038000000, 1357038000000, 1356998400000)

    Raises:
        ArgumentTypeError: it is none, for a command line to say so.
    """
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError, OverflowError):
        given = datetime.fromisoformat(text)
        return int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
    raise ArgumentTypeError(
        f"expected a time such as 2013-05-01T12:00Z or UTC milliseconds, given {text!r}"
    )


def span(ms: int | None) -> str:
    """A length of time.

    >>> span(93_600_000), span(None)
    ('1 d 2 h', '-')
    """
    return NOTHING if ms is None or ms < 0 else duration(ms / 1000)
