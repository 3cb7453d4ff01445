"""Durations as people write them: `"30s"`, `"10m"`, `"1h"`, `"7d"`, or milliseconds as an `int`."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["DAY_MS", "HOUR_MS", "duration_text", "parse_duration"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": HOUR_MS, "d": DAY_MS}
# No window, horizon or lateness is longer than a century; a longer one is a slip of units.
DURATION_MS_MAX = 100 * 366 * UNITS_MS["d"]


def parse_duration(duration: str | int) -> int:
    """The duration in milliseconds.

    >>> parse_duration("90s"), parse_duration("7d"), parse_duration(250)
    (90000, 604800000, 250)

    Raises:
        ValueError: it is no duration, not above zero, or longer than a century.
    """
    expected = "expected a duration such as '30s', '10m', '1h', '7d' or milliseconds"
    value: Any = duration
    if isinstance(value, int) and not isinstance(value, bool):
        milliseconds = value
    else:
        match = re.fullmatch(r"([0-9]{1,18})(ms|s|m|h|d)", value) if type(value) is str else None
        if match is None:
            raise ValueError(f"{expected}, given {duration!r}")
        milliseconds = int(match[1]) * UNITS_MS[match[2]]
    if not 0 < milliseconds <= DURATION_MS_MAX:
        raise ValueError(f"{expected}, above zero and at most 36600d, given {duration!r}")
    return milliseconds


def duration_text(duration_ms: int) -> str:
    """The shortest way to write a duration, as feature names show it.

    >>> duration_text(3_600_000), duration_text(90_000), duration_text(1_500)
    ('1h', '90s', '1500ms')
    >>> duration_text(0)
    '0s'
    """
    if not duration_ms:
        return "0s"
    unit = next(u for u in ("d", "h", "m", "s", "ms") if duration_ms % UNITS_MS[u] == 0)
    return f"{duration_ms // UNITS_MS[unit]}{unit}"
