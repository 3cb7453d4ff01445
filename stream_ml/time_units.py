"""Units of times, and times that are probably of another one, the usual slip with new data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

__all__ = [
    "MS_PER_UNIT",
    "UNIT_NAMES",
    "YEAR_2000_MS",
    "YEAR_2100_MS",
    "likely_ms",
    "likely_unit",
    "other_unit",
    "time_text",
]

# How many milliseconds one of each unit is, and what people call it.
MS_PER_UNIT = {"s": Decimal(1000), "ms": Decimal(1), "us": Decimal("1e-3"), "ns": Decimal("1e-6")}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_2000_MS, YEAR_2100_MS = 946_684_800_000, 4_102_444_800_000


def likely_unit(number: Decimal | int) -> str | None:
    """The unit by which a number is a time of this century; None without one.

    Args:
        number: as a file has it.

    >>> likely_unit(1_700_000_000), likely_unit(1_700_000_000_000), likely_unit(12)
    ('s', 'ms', None)
    """
    for unit, factor in MS_PER_UNIT.items():
        if YEAR_2000_MS <= number * factor < YEAR_2100_MS:
            return unit
    return None


def likely_ms(number: int) -> tuple[str, int] | None:
    """The unit but milliseconds by which it is a time of this century, and that time; else None.

    Args:
        number: that was given for milliseconds.

    >>> likely_ms(1_700_000_000), likely_ms(1_700_000_000_000_000), likely_ms(12)
    (('seconds', 1700000000000), ('microseconds', 1700000000000), None)
    """
    unit = likely_unit(number)
    if unit is None or unit == "ms":
        return None
    return UNIT_NAMES[unit], int(number * MS_PER_UNIT[unit])


def other_unit(ms: int, declared: str) -> str | None:
    """The unit that a time is probably of, which is far from this century by the declared one.

    Args:
        ms: what it was taken for, UTC milliseconds.
        declared: the unit of the declaration.

    >>> other_unit(1_700_000_000, "ms"), other_unit(1_700_000_000_000_000, "s")
    ('s', 'ms')
    """
    factor = MS_PER_UNIT.get(declared)
    return None if factor is None else likely_unit(Decimal(ms) / factor)


def time_text(ms: int) -> str:
    """A time as people read it, to the millisecond.

    Args:
        ms: UTC milliseconds.

    >>> time_text(1_700_000_000_007), time_text(9_000_000_000_000_000)
    ('2023-11-14T22:13:20.007Z', '9000000000000000 ms')
    """
    try:
        time = EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return f"{ms} ms"  # past the year 9999: an event's time is what its producer says
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
