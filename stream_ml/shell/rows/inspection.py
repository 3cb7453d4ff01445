"""Looks at records as the stages would take them, without a log and in bounded memory."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import BadRecord
from stream_ml.shell.rows.leaks import LeakSearch
from stream_ml.stages.watermark import Watermark
from stream_ml.time_units import YEAR_2000_MS, YEAR_2100_MS

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Event, EventLabel
    from stream_ml.shell.rows.layout import Row

__all__ = ["Inspection"]

# Of so many ids and keys it is known whether they came before: some 100 MB.
KNOWN_MAX = 1_000_000
CLASSES_MAX = 20


@dataclass(slots=True)
class Inspection:
    """What was seen of the records of some files.

    Attributes:
        pipeline: the declaration.
        events, labels: how many were read.
        times: of events, the first and the last one that lies between 2000 and 2100.
        label_times: the same of labels.
        keys: the different keys, of the first ones.
        missing: by field, in how many events it is missing.
        classes: how often each label came, of the first different ones.
        too_late: how many events would be refused for their time, and the first of them.
        repeated: how many events have an id that another one had, of the first ones.
        numbers: the first labels, where they are numbers.
        leaks: looks for what cannot have been known when an event came.
    """

    pipeline: Pipeline
    events: int = 0
    labels: int = 0
    times: tuple[int, int] | None = None
    label_times: tuple[int, int] | None = None
    keys: set[int] = field(default_factory=set)
    missing: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    too_late: int = 0
    too_late_first: str | None = None
    repeated: int = 0
    numbers: array[float] = field(default_factory=lambda: array("d"))
    _ids: set[int] = field(default_factory=set)
    # By id, how many labels came before their events, or without.
    _early: Counter[int] = field(default_factory=Counter)
    leaks: LeakSearch = field(init=False)
    _watermark: Watermark = field(init=False)

    def __post_init__(self) -> None:
        self.leaks = LeakSearch(self.pipeline)
        self._watermark = Watermark(self.pipeline.events.breadth)

    @property
    def without_event(self) -> int | None:
        """How many labels are of an id that no event has; None where there are too many to know."""
        if max(len(self._ids), len(self._early)) >= KNOWN_MAX:
            return None
        return sum(count for known, count in self._early.items() if known not in self._ids)

    def record(self, position: str, row: Row) -> int:
        """Look at one, and return its time.

        Args:
            position: `FILE:LINE`.
            row: that is a record.

        Raises:
            BadRecord: it would be refused.
        """
        if row.error is not None or row.value is None:
            raise row.error or BadRecord("empty", "$", "expected a record, given none")
        if self._is_label(row):
            label = self.pipeline.label_codec.decode(row.value)
            self._label(label)
            return label.ts
        event = self.pipeline.event_codec.decode(row.value)
        self._event(position, event)
        return event.ts

    @staticmethod
    def _is_label(row: Row) -> bool:
        if row.topic is not None:
            return row.topic == "labels"
        # As a backtest tells them apart.
        try:
            members: Any = orjson.loads(row.value or b"")
        except orjson.JSONDecodeError:
            return False
        return isinstance(members, dict) and "label" in members

    def _event(self, position: str, event: Event) -> None:
        self.events += 1
        self.times = _span(self.times, event.ts)
        if len(self.keys) < KNOWN_MAX:
            self.keys.add(hash(event.key))
        known = hash(event.event_id)
        if known in self._ids:
            self.repeated += 1
        elif len(self._ids) < KNOWN_MAX:
            self._ids.add(known)
        self.missing.update(name for name, value in event.fields.items() if value is None)
        if event.ts < self._watermark.ms - self.pipeline.window_lateness_ms:
            self.too_late += 1
            self.too_late_first = self.too_late_first or position
        else:
            self._watermark.advance(event.key, event.ts, sys.maxsize)
            self.leaks.event(event, self._watermark.ms)

    def _label(self, label: EventLabel) -> None:
        self.labels += 1
        self.label_times = _span(self.label_times, label.ts)
        self.leaks.label(label)
        known = hash(label.event_id)
        if known not in self._ids and (known in self._early or len(self._early) < KNOWN_MAX):
            self._early[known] += 1
        if self.pipeline.target.kind == "regression":
            if len(self.numbers) < KNOWN_MAX:
                self.numbers.append(float(label.label))
        else:
            name = str(label.label)
            if name in self.classes or len(self.classes) < CLASSES_MAX:
                self.classes[name] += 1


def _span(span: tuple[int, int] | None, ts: int) -> tuple[int, int] | None:
    if not YEAR_2000_MS <= ts < YEAR_2100_MS:
        return span
    return (ts, ts) if span is None else (min(span[0], ts), max(span[1], ts))
