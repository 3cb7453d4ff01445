"""Numbers and times as the page has them: short, in UTC, and `-` where there is none."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from stream_ml.shell.processes.progress import duration

__all__ = [
    "NO_VALUE",
    "answer_text",
    "bytes_text",
    "clock",
    "count",
    "day_time",
    "figure",
    "percent",
    "span",
]

NO_VALUE = "-"
KILO = 1_000.0


def clock(ms: int | None) -> str:
    """A time to the second.

    >>> clock(1_357_038_000_000), clock(-1)
    ('2013-01-01 11:00:00Z', '-')

    Args:
        ms: UTC milliseconds; those before the first event are none.
    """
    return _time(ms, "%Y-%m-%d %H:%M:%SZ")


def day_time(ms: int | None) -> str:
    """A time to the minute, for a narrow column.

    >>> day_time(1_357_038_000_000)
    '2013-01-01 11:00Z'

    Args:
        ms: as for `clock`.
    """
    return _time(ms, "%Y-%m-%d %H:%MZ")


def _time(ms: int | None, form: str) -> str:
    if ms is None or ms < 0:
        return NO_VALUE
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"  # past the year 9999: an event's time is what its producer says


def span(ms: float | None) -> str:
    """A length of time.

    >>> span(93_600_000), span(None)
    ('1 d 2 h', '-')

    Args:
        ms: milliseconds.
    """
    return NO_VALUE if ms is None or ms < 0 else duration(ms / 1000)


def count(number: int | None) -> str:
    """A count.

    >>> count(156_373), count(None)
    ('156,373', '-')
    """
    return NO_VALUE if number is None else f"{number:,}"


def figure(number: object, digits: int = 3) -> str:
    """A number to so many digits that count; what is none, and no text, is `-`.

    >>> figure(0.16650), figure(60.0), figure(1234567.0), figure(float("nan")), figure(3e9)
    ('0.167', '60', '1,234,567', '-', '3e+09')

    Args:
        number: any.
        digits: that count.
    """
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return NO_VALUE
    if abs(number) >= 10**digits and abs(number) < 1e9:  # noqa: PLR2004 - nine digits are read still
        return f"{number:,.0f}"
    return f"{number:.{digits}g}"


def percent(share: float | None) -> str:
    """A share.

    >>> percent(0.9625), percent(1.0), percent(None)
    ('96.2 %', '100 %', '-')

    Args:
        share: 0 to 1.
    """
    if share is None or not math.isfinite(share):
        return NO_VALUE
    return f"{share * 100:.3g} %"


def bytes_text(number: int | None) -> str:
    """A size.

    >>> bytes_text(2_048_000), bytes_text(900), bytes_text(None)
    ('2.05 MB', '900 B', '-')

    Args:
        number: of bytes.
    """
    if number is None:
        return NO_VALUE
    size, units = float(number), ["B", "kB", "MB", "GB"]
    while size >= KILO and len(units) > 1:
        size /= KILO
        units.pop(0)
    return f"{size:.3g} {units[0]}"


def answer_text(answer: object) -> str:
    """An answer or a label: a number, a class, or the most probable classes.

    >>> answer_text(0.25), answer_text(True), answer_text({"a": 0.2, "b": 0.8}), answer_text(None)
    ('0.25', 'true', 'b 0.8, a 0.2', '-')
    """
    if answer is None:
        return NO_VALUE
    if isinstance(answer, bool):
        return "true" if answer else "false"
    if isinstance(answer, dict):
        ranked = sorted(answer.items(), key=lambda each: (-each[1], each[0]))
        return ", ".join(f"{name} {figure(value)}" for name, value in ranked[:3])
    return figure(answer, 4) if isinstance(answer, int | float) else str(answer)
