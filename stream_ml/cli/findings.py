"""Findings about the lines of input: refusals of single lines, and mistakes common to many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.tables import format_time
from stream_ml.shell.printable import printable
from stream_ml.time_units import YEAR_2000_MS, YEAR_2100_MS, likely_ms, other_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.pipeline import Pipeline

__all__ = ["Findings", "label_hints", "members_of"]

# So many of a reason are named where the others are only counted.
EXAMPLES_MAX = 3
# With two different labels there is something to tell apart.
DIFFERENT_MAX = 2
# Common mistakes, and what to do instead.
HABITS = {
    "table": (
        "hold an event and its label in one: a line is either, so split each in two, as in "
        "`jq -c 'del(.label), {event_id, ts: TIME_OF_THE_TRUTH, label}'`, or declare when a label "
        'is known, as in files=sml.Files(label_delay="1h")'
    ),
    "null": "have the label null: leave a label out until it is known",
    "list": "are lists: write each item in a line of its own, as `jq -c '.[]'` does",
    "pretty": (
        "are a piece of a JSON document: write each record in a line, as `jq -c .` does "
        "(`jq -c '.[]'` for a list)"
    ),
    "other": "look like the other topic's: events are published as events, labels as labels",
    "csv": "are no JSON at all; is it CSV? Name a file that ends in .csv, or give --input csv",
}
PIECES = frozenset({b"{", b"}", b"[", b"]", b"},"})


@dataclass(frozen=True, slots=True)
class _RefusedLine:
    """A line that was refused."""

    position: str
    reason: str
    path: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.position}: {self.reason} at {self.path}: {self.message}")


@dataclass(slots=True)
class Findings:
    """Told of every line, it knows what to say at the end.

    Attributes:
        pipeline: the declaration that lines are read by.
        lines: how many there were, by topic.
        refused_counts: how many were refused, by reason.
    """

    pipeline: Pipeline
    lines: Counter[str] = field(default_factory=Counter)
    refused_counts: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, list[_RefusedLine]] = field(default_factory=dict)
    _odd_times: int = 0
    _odd_time: tuple[str, int] | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)
    # How often each of the first two different labels came.
    _labels: Counter[str] = field(default_factory=Counter)

    def line(self, position: tuple[str, int], topic: str, ts: int | None) -> None:
        """There was one, with this time where it has one.

        Args:
            position: its file and line number.
            topic: `events` or `labels`.
            ts: its time, UTC milliseconds; None if it has none.
        """
        self.lines[topic] += 1
        if ts is not None and not YEAR_2000_MS <= ts < YEAR_2100_MS:
            self._odd_times += 1
            if self._odd_time is None:
                self._odd_time = f"{position[0]}:{position[1]}", ts

    def members(self, position: tuple[str, int], topic: str, value: bytes, members: Any) -> None:
        """Look at what a line holds, for what people often do; None stands for no JSON.

        Args:
            position: the line's file and number.
            topic: `events` or `labels`.
            value: the line as it is.
            members: the line as JSON decodes to.
        """
        if isinstance(members, dict):
            has_label, has_key = "label" in members, self.pipeline.events.key in members
            if has_label and has_key:
                self._see("table", position)
            elif (has_label, has_key) == ((False, True) if topic == "labels" else (True, False)):
                self._see("other", position)
            if has_label and members["label"] is None:
                self._see("null", position)
            elif has_label and not has_key:
                label = str(members["label"])
                if label in self._labels or len(self._labels) < DIFFERENT_MAX:
                    self._labels[label] += 1
        elif isinstance(members, list):
            self._see("list", position)
        elif value in PIECES or value[:1] == b'"':
            self._see("pretty", position)
        elif value[:1] != b"{":
            self._see("csv", position)

    def refuse(self, position: str, reason: str, path: str, message: str) -> _RefusedLine:
        """One was refused.

        Args:
            position: `FILE:LINE`.
            reason: as a dead letter has it.
            path: to what was wrong, as `$.ts`.
            message: what was expected, and what was given.
        """
        line = _RefusedLine(position, reason, path, message)
        self.refused_counts[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(line)
        return line

    def refused_lines(self) -> Iterator[str]:
        """The first refused lines of each reason, for people."""
        for reason, examples in sorted(self._examples.items()):
            yield from map(str, examples)
            remaining_count = self.refused_counts[reason] - len(examples)
            if remaining_count:
                yield f"... and {remaining_count:,} more: {reason}"

    def as_members(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            reason: {
                "count": self.refused_counts[reason],
                "first": [
                    {"place": line.position, "path": line.path, "message": line.message}
                    for line in examples
                ],
            }
            for reason, examples in sorted(self._examples.items())
        }

    def hints(self) -> list[str]:
        """What is probably wrong with many of them."""
        return [printable(hint) for hint in self._hints()]

    def label_hints(self) -> list[str]:
        """What is wrong with the labels that were looked at, taken together."""
        return [printable(hint) for hint in label_hints(self.pipeline, self._labels)]

    def wrong_unit(self) -> bool:
        """Whether most times are hardly what they should be."""
        return 2 * self._odd_times > self.lines.total()

    def _hints(self) -> Iterator[str]:
        total = self.lines.total()
        if self._odd_time is not None:
            position, ts = self._odd_time
            time_text = format_time(ts) if ts >= 0 else "before 1970"
            yield (
                f"{self._odd_times:,} of {total:,} times lie before 2000 or after 2100, the first "
                f"one at {position}: {ts} ms is {time_text}; {self._unit_hint(ts)}"
            )
        for kind, words in HABITS.items():
            count = self._counts[kind]
            # One such line is named where it is refused; most of them are a habit.
            if 2 * count > total:
                yield f"{count:,} of {total:,} lines {words} (first at {self._first[kind]})"

    def _unit_hint(self, ts: int) -> str:
        declared = self.pipeline.files.time_unit
        unit = other_unit(ts, declared)
        declaration = f'declare files=sml.Files(time_unit="{unit}") for files'
        guess = likely_ms(ts) if declared == "ms" else None
        if guess is not None:
            name, ms = guess
            return f"if it is in {name}, write {ms}, which is {format_time(ms)}, or {declaration}"
        return "is that meant?" if unit is None else f"is it another unit? If so, {declaration}"

    def _see(self, kind: str, position: tuple[str, int]) -> None:
        self._counts[kind] += 1
        self._first.setdefault(kind, f"{position[0]}:{position[1]}")


def label_hints(pipeline: Pipeline, counts: Mapping[Any, int]) -> list[str]:
    """What is wrong with labels, taken together: that all are the same.

    Args:
        pipeline: the declaration that they are read by.
        counts: how often each label came, of the first different ones.
    """
    if len(counts) != 1 or pipeline.label.absent is not None:
        return []
    [(label, count)] = counts.items()
    if pipeline.target.kind == "regression":
        return [f"all {count:,} labels are {label}: there is nothing to learn from them"]
    hint = (
        f"all {count:,} labels are {label}: nothing can be told apart by them, and to answer so "
        "always would score best; if no label means another answer, declare how long to "
        "wait for one, such as Label(bool, window='1d', absent=False)"
    )
    return [hint]


def members_of(value: bytes) -> Any:
    """What a line holds; None where it is no JSON."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
