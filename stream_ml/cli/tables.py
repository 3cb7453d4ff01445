"""How commands show things to people: tables, counts, times. See `output` for the rest."""

from __future__ import annotations

import math
import re
import time
from argparse import ArgumentTypeError
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import duration
from stream_ml.shell.time_units import likely_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["aligned", "counted", "instant", "moment", "span"]

NOTHING = "-"
YEAR_DIGITS, DATE_DIGITS = 4, 8
_YEAR, _MONTH = re.compile(r"\d{4}", re.ASCII), re.compile(r"\d{4}-\d{2}", re.ASCII)
# Bare numbers below are taken for seconds, beyond for a finer unit: 1973 to 2100.
FIRST_MS, NUMBER_MS_MAX = 100_000_000_000, 4_102_444_800_000
NUMBER_DIGITS_MAX = 20


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell; those in `right` keep to the right.

    >>> print(aligned([["topic", "end"], ["events", "5"]], right=[1]))
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
    """A time that somebody has typed: as `moment` shows it, in ISO 8601, in milliseconds, or `now`.

    Where no zone is named, it is UTC. A year, a month or a day is where it begins.

    >>> instant("2013-01-01 11:00:00Z"), instant("2013-01-01T12:00+01:00"), instant("2013-01-01")
    (1357038000000, 1357038000000, 1356998400000)
    >>> instant("2013"), instant("2013-01"), instant("20130101"), instant("1356998400000")
    (1356998400000, 1356998400000, 1356998400000, 1356998400000)

    Raises:
        ArgumentTypeError: it is none, for a command line to say so.
    """
    if text == "now":
        return time.time_ns() // 1_000_000
    if text.isascii() and text.isdigit() and len(text) not in {YEAR_DIGITS, DATE_DIGITS}:
        return _milliseconds(text)
    whole = f"{text}-01-01" if _YEAR.fullmatch(text) else text
    whole = f"{text}-01" if _MONTH.fullmatch(text) else whole
    with suppress(ValueError, OverflowError):
        given = datetime.fromisoformat(whole)
        ms = math.floor((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
        if ms >= 0:
            return ms
    raise ArgumentTypeError(
        f"expected a time such as 2013-05-01T12:00Z or UTC milliseconds, given {text!r}"
    )


def _milliseconds(text: str) -> int:
    """A bare number, where it can hardly be anything else."""
    ms = int(text) if len(text) < NUMBER_DIGITS_MAX else NUMBER_MS_MAX + 1
    if ms == 0 or (FIRST_MS <= ms <= NUMBER_MS_MAX and not _is_written_out(text)):
        return ms
    raise ArgumentTypeError(
        f"expected a time such as 2013-05-01T12:00Z or UTC milliseconds, given {text!r}"
        f"{_other_unit(ms)}"
    )


def _is_written_out(text: str) -> bool:
    """Whether it may be a date and a time without signs between: 202611271200."""
    with suppress(ValueError):
        return 1_900 <= datetime.strptime(text, "%Y%m%d%H%M").year < 2_100  # noqa: DTZ007, PLR2004
    return False


def _other_unit(number: int) -> str:
    guess = likely_ms(number)
    if guess is None:
        return ""
    unit, ms = guess
    return f"; if these are {unit}, it is {moment(ms)}: write {ms}"


def span(ms: int | None) -> str:
    """A length of time.

    >>> span(93_600_000), span(None)
    ('1 d 2 h', '-')
    """
    return NOTHING if ms is None or ms < 0 else duration(ms / 1000)
