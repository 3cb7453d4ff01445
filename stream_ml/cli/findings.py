"""What was wrong with lines that somebody gave, and what is probably wrong with all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.tables import moment
from stream_ml.shell.printable import printable
from stream_ml.shell.time_units import YEAR_2000_MS, YEAR_2100_MS, likely_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline

__all__ = ["Findings", "members_of"]

# So many of a reason are named where the others are only counted.
NAMED = 3
# What people often do, and what to do instead.
HABITS = {
    "table": (
        "hold an event and its label in one: a line is either, so split each in two, as in "
        "`jq -c 'del(.label), {event_id, ts: TIME_OF_THE_TRUTH, label}'`"
    ),
    "null": "have the label null: leave a label out until it is known",
    "list": "are lists: write each item in a line of its own, as `jq -c '.[]'` does",
    "pretty": (
        "are a piece of a JSON document: write each record in a line, as `jq -c .` does "
        "(`jq -c '.[]'` for a list)"
    ),
    "other": "look like the other topic's: events are published as events, labels as labels",
    "csv": "are no JSON at all; is it CSV? Write each row as a JSON object in a line",
}
PIECES = frozenset({b"{", b"}", b"[", b"]", b"},"})


@dataclass(frozen=True, slots=True)
class _Refused:
    """A line that was refused."""

    place: str
    reason: str
    path: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.place}: {self.reason} at {self.path}: {self.message}")


@dataclass(slots=True)
class Findings:
    """Told of every line, it knows what to say at the end.

    Attributes:
        pipeline: the declaration that lines are read by.
        lines: how many there were, by topic.
        refused: how many were refused, by reason.
    """

    pipeline: Pipeline
    lines: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    _named: dict[str, list[_Refused]] = field(default_factory=dict)
    _odd_times: int = 0
    _odd_time: tuple[str, int] | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)

    def line(self, place: tuple[str, int], topic: str, ts: int | None) -> None:
        """There was one, with this time where it has one.

        Args:
            place: its file and line number.
            topic: `events` or `labels`.
            ts: its time, UTC milliseconds; None if it has none.
        """
        self.lines[topic] += 1
        if ts is not None and not YEAR_2000_MS <= ts < YEAR_2100_MS:
            self._odd_times += 1
            if self._odd_time is None:
                self._odd_time = f"{place[0]}:{place[1]}", ts

    def members(self, place: tuple[str, int], topic: str, value: bytes, members: Any) -> None:
        """Look at what a line holds, for what people often do; None stands for no JSON.

        Args:
            place: the line's file and number.
            topic: `events` or `labels`.
            value: the line as it is.
            members: the line as JSON decodes to.
        """
        if isinstance(members, dict):
            labelled, keyed = "label" in members, self.pipeline.events.key in members
            if labelled and keyed:
                self._see("table", place)
            elif (labelled, keyed) == ((False, True) if topic == "labels" else (True, False)):
                self._see("other", place)
            if labelled and members["label"] is None:
                self._see("null", place)
        elif isinstance(members, list):
            self._see("list", place)
        elif value in PIECES or value[:1] == b'"':
            self._see("pretty", place)
        elif value[:1] != b"{":
            self._see("csv", place)

    def refuse(self, place: str, reason: str, path: str, message: str) -> _Refused:
        """One was refused.

        Args:
            place: `FILE:LINE`.
            reason: as a dead letter has it.
            path: to what was wrong, as `$.ts`.
            message: what was expected, and what was given.
        """
        refused = _Refused(place, reason, path, message)
        self.refused[reason] += 1
        named = self._named.setdefault(reason, [])
        if len(named) < NAMED:
            named.append(refused)
        return refused

    def named(self) -> Iterator[str]:
        """The first refused lines of each reason, for people."""
        for reason, named in sorted(self._named.items()):
            yield from map(str, named)
            more = self.refused[reason] - len(named)
            if more:
                yield f"... and {more:,} more: {reason}"

    def as_members(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            reason: {
                "count": self.refused[reason],
                "first": [
                    {"place": each.place, "path": each.path, "message": each.message}
                    for each in named
                ],
            }
            for reason, named in sorted(self._named.items())
        }

    def hints(self) -> list[str]:
        """What is probably wrong with many of them."""
        return [printable(hint) for hint in self._hints()]

    def wrong_unit(self) -> bool:
        """Whether most times are hardly what they should be."""
        return 2 * self._odd_times > self.lines.total()

    def _hints(self) -> Iterator[str]:
        total = self.lines.total()
        if self._odd_time is not None:
            place, ts = self._odd_time
            guess = likely_ms(ts)
            unit = "is that meant?"
            if guess is not None:
                unit = f"if it is in {guess[0]}, write {guess[1]}, which is {moment(guess[1])}"
            when = moment(ts) if ts >= 0 else "before 1970"
            yield (
                f"{self._odd_times:,} of {total:,} times lie before 2000 or after 2100, the first "
                f"one at {place}: {ts} ms is {when}; {unit}"
            )
        for kind, words in HABITS.items():
            count = self._counts[kind]
            # One such line is named where it is refused; most of them are a habit.
            if 2 * count > total:
                yield f"{count:,} of {total:,} lines {words} (first at {self._first[kind]})"

    def _see(self, kind: str, place: tuple[str, int]) -> None:
        self._counts[kind] += 1
        self._first.setdefault(kind, f"{place[0]}:{place[1]}")


def members_of(value: bytes) -> Any:
    """What a line holds; None where it is no JSON."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
