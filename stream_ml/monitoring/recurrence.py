"""What has moved before, as far and not long ago: a column that does so again is no news.

Weather comes and goes, and so do storms of late flights. Each such time is an episode; a person is
told of the first one, of one that goes further, and of one after a long rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.features.durations import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GROWTH_MIN", "Recurrences"]

# After a rest of so long nobody remembers the last time.
REST_MS = 60 * DAY_MS
# So much further is further.
GROWTH_MIN = 1.25


class Recurrences:
    """The past episodes of columns: how far each went at most, and when the last one ended."""

    def __init__(self) -> None:
        self._past: dict[str, list[Any]] = {}

    def is_known(self, column: str, distance: float, now: int) -> bool:
        """Whether a column has been so far off before, and not long ago.

        Args:
            column: its name, with how it was off.
            distance: from what is usual, 0 to 1.
            now: UTC milliseconds.
        """
        past = self._past.get(column)
        if past is None or now - past[1] > REST_MS:
            return False
        return bool(distance < GROWTH_MIN * past[0])

    def end(self, column: str, distance: float, now: int) -> None:
        """An episode has ended.

        Args:
            column: that is as usual again, with how it was off.
            distance: how far it was off at most.
            now: UTC milliseconds.
        """
        past = self._past.get(column)
        largest = distance if past is None or now - past[1] > REST_MS else max(distance, past[0])
        self._past[column] = [largest, now]

    def forget(self, column: str) -> None:
        """Forget a column: what it is now is another thing than what it was.

        Args:
            column: its name, with how it was off.
        """
        self._past.pop(column, None)

    def dump(self) -> dict[str, list[Any]]:
        """The state, as JSON can hold it."""
        return self._past

    def load(self, state: Mapping[str, list[Any]]) -> None:
        """Take up what `dump` gave."""
        self._past = dict(state)
