"""Which kinds of events carry which field: where a kind never has it, nothing is missing.

Where there are announcements, departures and weather on one topic, the share of events without a
delay says how many of each came, and not what is wrong with delays. So a value counts as missing
only in events of a kind that had it before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.monitoring.columns import CategoryColumn
from stream_ml.monitoring.reference import WEEK_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.monitoring.arrivals import Block

__all__ = ["Carriers"]

# A kind of which one event in twenty has a field, or fewer, does not carry it.
MISSING_MAX = 0.95
# Of fewer events nothing is known of a kind.
EVENTS_MIN = 30


class Carriers:
    """How often each field is missing, by the kind of the events.

    Args:
        kind: the field that tells kinds apart; None where none does.
    """

    def __init__(self, kind: str | None) -> None:
        self._column = f"field:{kind}"
        self._week = -1
        # By kind, how many events; by column and kind, how many without it. Halved once a week.
        self._events: dict[str, float] = {}
        self._missing: dict[str, dict[str, float]] = {}

    def take(self, block: Block) -> None:
        """Take in a block, and leave as missing in it what events of its kind have else.

        Args:
            block: of events; how many values its columns miss is changed.
        """
        kinds = block.columns.get(self._column)
        if not isinstance(kinds, CategoryColumn) or kinds.others:
            return
        events = kinds.counts
        for name, missing in block.missing_by.items():
            block.columns[name].missing = sum(
                count
                for kind, count in missing.items()
                # Of an event without a kind nothing is known: there it counts.
                if kind not in events or self._is_carried(name, kind, count, events[kind])
            )
        week = block.start // WEEK_MS
        if week > self._week:
            self._halve()
            self._week = week
        for kind, count in events.items():
            self._events[kind] = self._events.get(kind, 0) + count
        for name, missing in block.missing_by.items():
            past = self._missing.setdefault(name, {})
            for kind, count in missing.items():
                past[kind] = past.get(kind, 0) + count

    def _is_carried(self, name: str, kind: str, missing: float, events: float) -> bool:
        """Whether events of a kind have a field, as far as is known before this block."""
        past = self._events.get(kind, 0)
        if past >= EVENTS_MIN:
            return self._missing.get(name, {}).get(kind, 0) < MISSING_MAX * past
        return missing < MISSING_MAX * events

    def _halve(self) -> None:
        for counts in (self._events, *self._missing.values()):
            for kind, count in list(counts.items()):
                counts[kind] = count / 2
                if count < 1:
                    del counts[kind]

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [self._week, self._events, self._missing]

    def load(self, state: list[Any]) -> None:
        """Take up what `dump` gave."""
        events: Mapping[str, float]
        self._week, events, missing = state
        self._events = dict(events)
        self._missing = {name: dict(counts) for name, counts in missing.items()}
