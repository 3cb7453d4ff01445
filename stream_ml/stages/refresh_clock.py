"""When all lines publish: a function of the examples, never of a clock."""

from __future__ import annotations

from typing import Any

__all__ = ["RefreshClock"]

WARM_UP_FIRST = 500
# After a change what was learned before is worth less than what a hundred examples teach.
CHANGE_FIRST = 100


class RefreshClock:
    """Tells the refresh instants (rule 3 of `learn`) from example counts and their watermark.

    Args:
        refresh_ms: the cadence in event time, or None where `refresh_examples` counts examples.
        refresh_examples: the cadence in examples, where `refresh_ms` is None.

    >>> clock = RefreshClock(None, refresh_examples=1_500)
    >>> [n for n in range(1, 5_000) if clock.strikes(n, watermark=n)]
    [500, 1000, 1500, 3000, 4500]
    """

    def __init__(self, refresh_ms: int | None, refresh_examples: int = 0) -> None:
        self._refresh_ms = refresh_ms
        self._refresh_examples = refresh_examples
        # The next step of the warm-up, counted from the example that it began after.
        self.warm_up: int | None = WARM_UP_FIRST
        self.warm_up_from = 0
        self.warmed_at = -1
        self.period = -1
        self.is_sooner = False

    def strikes(self, n: int, watermark: int) -> bool:
        """Whether example number `n` (from 1), with which the watermark is this, is an instant.

        Args:
            n: the example's number, from 1.
            watermark: of the examples, UTC milliseconds.
        """
        warm = self._warms_up(n, watermark)
        if self._refresh_ms is None:
            is_due = n % self._refresh_examples == 0
        else:
            period = watermark // self._refresh_ms
            is_due = self.period >= 0 and period > self.period
            self.period = max(self.period, period)
        self.is_sooner = warm and not is_due and self.warm_up_from > 0
        return warm or is_due

    def hasten(self, n: int) -> None:
        """Begin a warm-up again, in shorter steps.

        Args:
            n: after which example.
        """
        self.warm_up, self.warm_up_from, self.warmed_at = CHANGE_FIRST, n, -1

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [self.warm_up, self.warmed_at, self.period, self.warm_up_from]

    def load(self, state: list[Any], watermark: int) -> None:
        """Take up a dumped state; the cadence may be another than it was then.

        Args:
            state: what `dump` gave.
            watermark: of the examples, UTC milliseconds.
        """
        # What was written before warm-ups could begin again has none of their beginning.
        self.warm_up, self.warmed_at, self.period, *warm_up_from = state
        self.warm_up_from = sum(warm_up_from)
        if self.period >= 0 and self._refresh_ms is not None:
            # As it was where the cadence is the same: the watermark never goes back.
            self.period = watermark // self._refresh_ms

    def _warms_up(self, n: int, watermark: int) -> bool:
        if self.warmed_at < 0:
            self.warmed_at = watermark
        if self.warm_up is None or n < self.warm_up_from + self.warm_up:
            return False
        if self._refresh_ms is None:
            is_reached = self.warm_up * 2 >= self._refresh_examples
            strikes = self.warm_up < self._refresh_examples
        else:
            is_reached = watermark - self.warmed_at >= self._refresh_ms
            strikes = True
        self.warmed_at = watermark
        self.warm_up = None if is_reached else self.warm_up * 2
        return strikes
