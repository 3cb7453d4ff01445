"""Times that are probably of another unit than milliseconds, the usual slip with new data."""

from __future__ import annotations

__all__ = ["YEAR_2000_MS", "YEAR_2100_MS", "likely_ms"]

YEAR_2000_MS, YEAR_2100_MS = 946_684_800_000, 4_102_444_800_000
# How many milliseconds one of each unit is: numerator and denominator.
UNITS = {"seconds": (1_000, 1), "microseconds": (1, 1_000), "nanoseconds": (1, 1_000_000)}


def likely_ms(number: int) -> tuple[str, int] | None:
    """The unit by which a number is a time of this century, and that time; None without one.

    >>> likely_ms(1_700_000_000), likely_ms(1_700_000_000_000_000), likely_ms(12)
    (('seconds', 1700000000000), ('microseconds', 1700000000000), None)
    """
    for unit, (numerator, denominator) in UNITS.items():
        ms = number * numerator // denominator
        if YEAR_2000_MS <= ms < YEAR_2100_MS:
            return unit, ms
    return None
