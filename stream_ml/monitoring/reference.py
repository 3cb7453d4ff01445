"""What is usual: how columns were in the past, at the same hours of the weeks before, and at all.

Theory of operation:

1. A slot is an hour of the week, or a day of it. What came in a slot counts half as much a week
   later, when it comes again. So a daily or a weekly cycle is no drift.
2. `common` is all that came, of any hour: it counts half as much after about a week. Against it
   only what no hour explains may be told: a fault.
3. A slot is kept as bytes until it is looked at: a week of hours of many columns would fill memory
   as objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.features.durations import DAY_MS
from stream_ml.monitoring.columns import column

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.monitoring.columns import Column

__all__ = [
    "WEEK_MS",
    "Common",
    "Slots",
    "dumped",
    "loaded",
    "merge_columns",
    "packed_columns",
    "unpacked",
]

WEEK_MS = 7 * DAY_MS


class Slots:
    """Columns by the slot of the week.

    Args:
        width_ms: of a slot.
    """

    def __init__(self, width_ms: int) -> None:
        self._width = width_ms
        self._count = WEEK_MS // width_ms
        self._slots: dict[int, bytes] = {}
        # Of the slot that was filled last: when it began, so that it is halved once a week.
        self._begun: dict[int, int] = {}
        self._changed: set[int] = set()

    def near(self, start: int, *, around: int) -> dict[str, Column]:
        """The columns of the slot of a time, and of some slots around; none if that has none.

        Args:
            start: a time, UTC milliseconds.
            around: how many slots on either side are taken as well.
        """
        number = start // self._width
        if number % self._count not in self._slots:
            return {}
        usual: dict[str, Column] = {}
        for offset in range(-around, around + 1):
            packed = self._slots.get((number + offset) % self._count)
            if packed:
                merge_columns(usual, unpacked(packed))
        # What only the neighbours know would be another hour's.
        own = orjson.loads(self._slots[number % self._count])
        return {name: values for name, values in usual.items() if name in own}

    def learn(self, start: int, columns: Mapping[str, Column]) -> None:
        """Take in what came.

        Args:
            start: when, UTC milliseconds.
            columns: what came.
        """
        number = start // self._width
        slot = number % self._count
        packed = self._slots.get(slot)
        usual = unpacked(packed) if packed else {}
        if self._begun.get(slot, number) != number:
            for values in usual.values():
                values.halve()
        self._begun[slot] = number
        merge_columns(usual, columns)
        self._slots[slot] = packed_columns(usual)
        self._changed.add(slot)

    def forget(self, name: str) -> None:
        """Forget a column, in every slot."""
        for slot, packed in self._slots.items():
            usual = orjson.loads(packed)
            if usual.pop(name, None) is not None:
                self._slots[slot] = orjson.dumps(usual)
                self._changed.add(slot)

    def dump(self) -> dict[str, int]:
        """When each slot was begun, as JSON can hold it."""
        return {str(slot): number for slot, number in sorted(self._begun.items())}

    def dirty(self) -> list[tuple[str, bytes]]:
        """The slots that changed since the last call, by number."""
        entries = [(str(slot), self._slots[slot]) for slot in sorted(self._changed)]
        self._changed.clear()
        return entries

    def load(self, state: Mapping[str, int], entries: Iterable[tuple[str, bytes]]) -> None:
        """Take up what `dump` and `dirty` gave.

        Args:
            state: what `dump` gave.
            entries: the slots by number.
        """
        self._begun = {int(slot): number for slot, number in state.items()}
        self._slots = {int(slot): value for slot, value in entries}


class Common:
    """Columns of all that came, of any hour.

    Attributes:
        columns: by name.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        # When each column was first seen, and the week in which all were last halved.
        self._since: dict[str, int] = {}
        self._week = -1

    def age_ms(self, name: str, now: int) -> int:
        """For how long a column has been learned; -1 where it never was.

        Args:
            name: of the column.
            now: UTC milliseconds.
        """
        since = self._since.get(name)
        return -1 if since is None else now - since

    def learn(self, start: int, columns: Mapping[str, Column]) -> None:
        """Take in what came.

        Args:
            start: when, UTC milliseconds.
            columns: what came.
        """
        week = start // WEEK_MS
        if week > self._week:
            if self._week >= 0:
                for values in self.columns.values():
                    values.halve()
            self._week = week
        for name in columns:
            self._since.setdefault(name, start)
        merge_columns(self.columns, columns)

    def forget(self, name: str) -> None:
        """Forget a column."""
        self.columns.pop(name, None)
        self._since.pop(name, None)

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [dumped(self.columns), self._since, self._week]

    def load(self, state: list[Any]) -> None:
        """Take up what `dump` gave."""
        columns, self._since, self._week = state
        self.columns = loaded(columns)


def is_number(values: Column) -> bool:
    """Whether a column is one of numbers."""
    return hasattr(values, "sketch")


def merge(into: Column, values: Column) -> None:
    """Merge a column into one of its kind; of another kind (a field changed its type) it is left.

    Args:
        into: takes the values.
        values: what is merged.
    """
    if type(into) is type(values):
        into.merge(values)  # type: ignore[arg-type]  # they are of one kind


def merge_columns(into: dict[str, Column], columns: Mapping[str, Column]) -> None:
    """Merge columns into others by name; those that are not there yet are copied.

    Args:
        into: takes them.
        columns: what is merged; it stays as it is.
    """
    for name, values in columns.items():
        if name not in into:
            into[name] = column(is_number=is_number(values))
        merge(into[name], values)


def dumped(columns: Mapping[str, Column]) -> dict[str, list[Any]]:
    """Columns as JSON can hold them: each with whether it is one of numbers."""
    return {name: [is_number(values), *values.dump()] for name, values in columns.items()}


def loaded(state: Mapping[str, list[Any]]) -> dict[str, Column]:
    """The columns that `dumped` was given."""
    columns = {}
    for name, (number, *values) in state.items():
        columns[name] = column(is_number=number)
        columns[name].load(values)
    return columns


def packed_columns(columns: Mapping[str, Column]) -> bytes:
    """Columns as bytes."""
    return orjson.dumps(dumped(columns))


def unpacked(value: bytes) -> dict[str, Column]:
    """The columns that `packed_columns` was given."""
    return loaded(orjson.loads(value))
