"""What should come out of the events and labels on the log, worked out from them alone.

Written from the promises, not from the stages, and sharing no code with them: each window is
taken anew over all that came before, in whole numbers, so that features can be compared byte for
byte. The order of a partition's log is all that a verdict depends on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass, field
from operator import mul
from typing import Any, NamedTuple

import orjson

from chaos import parameters
from chaos.topics import Raw, RecordPosition, Topics
from chaos.traffic import partition_of

__all__ = ["ExpectedOutputs", "ExpectedPrediction", "expect"]

# Amounts have two decimals; every double from .01 on is a whole multiple of this.
UNIT = 2**60
STRAY = "stray"
ORPHAN, LATE, DUPLICATE, EARLY = "orphan", "late", "duplicate_label", "label_before_event"


class ExpectedPrediction(NamedTuple):
    """A prediction that has to be there: its event and the raw bytes of its features."""

    event_id: str
    key: str
    ts: int
    features: bytes


@dataclass
class ExpectedOutputs:
    """What has to be there, by the place of the record that it follows from.

    Attributes:
        predictions: the predictions.
        refusals: the reasons why records became dead letters; any of several will do.
        strays: records that lie where their key does not belong.
        joins: per label that makes an example, the id of its event.
    """

    predictions: dict[RecordPosition, ExpectedPrediction] = field(default_factory=dict)
    refusals: dict[RecordPosition, frozenset[str]] = field(default_factory=dict)
    strays: set[RecordPosition] = field(default_factory=set)
    joins: dict[RecordPosition, str] = field(default_factory=dict)


def expect(topics: Topics) -> ExpectedOutputs:
    """Judge every event and label of the run."""
    expected = ExpectedOutputs()
    partitions = len(topics["events"])
    times: dict[str, int] = {}
    for records in topics["events"]:
        partition = _Events(expected, partitions)
        for record in records:
            partition.take(record)
    for prediction in expected.predictions.values():
        times.setdefault(prediction.event_id, prediction.ts)
    for records in topics["labels"]:
        labels = _Labels(expected, times, len(topics["labels"]))
        for record in records:
            labels.take(record)
    return expected


class _Bad(Exception):  # noqa: N818 - what a record is
    """Raised with the reason why a record is refused."""


def _members(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise _Bad("tombstone")
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise _Bad("not_json") from None
    if not isinstance(members, dict):
        raise _Bad("not_an_object")
    return members


def _need(members: dict[str, Any], name: str, *types: type) -> Any:
    if name not in members:
        raise _Bad("missing_field")
    if type(members[name]) not in types:
        raise _Bad("wrong_type")
    return members[name]


def _event(record: Raw) -> dict[str, Any]:
    members = _members(record.value)
    _need(members, "event_id", str)
    _need(members, "ts", int)
    _need(members, "shop", str)
    for name, categories in (("kind", parameters.KINDS), ("city", parameters.CITIES)):
        if _need(members, name, str) not in categories:
            raise _Bad("unknown_category")
    if members.get("amount") is not None:
        _need(members, "amount", float, int)
    _not_from_the_future(record, members["ts"])
    return members


def _not_from_the_future(record: Raw, ts: int) -> None:
    if ts > record.append_ms + parameters.SKEW_MS:
        raise _Bad("from_the_future")


class _Time:
    """How far time has come in a partition, worked out anew from all that came before."""

    def __init__(self) -> None:
        self.ms = -1
        self._came: list[tuple[str, int]] = []

    def take(self, key: str, ts: int, append_ms: int) -> None:
        """The next record that counts."""
        self._came.append((key, min(ts, append_ms)))
        last: dict[str, int] = {}
        for known_key, ms in reversed(self._came[-parameters.KEYS_KEPT :]):
            last.setdefault(known_key, ms)
            if len(last) == 2 * parameters.BREADTH - 1:
                break
        if len(last) >= parameters.BREADTH:
            self.ms = max(self.ms, sorted(last.values())[-parameters.BREADTH])


class _Past(NamedTuple):
    """An event that a window may hold; sorts by time, then by its place in the log."""

    ts: int
    number: int
    kind: str
    city: str
    units: int | None
    amount: float | None


class _Events:
    """Events of one partition, in the order of its log."""

    def __init__(self, expected: ExpectedOutputs, partitions: int) -> None:
        self._outputs = expected
        self._partitions = partitions
        self._time = _Time()
        self._ids: set[str] = set()
        self._past: dict[str, list[_Past]] = defaultdict(list)

    def take(self, record: Raw) -> None:
        """The next record."""
        position = RecordPosition("events", record.partition, record.offset)
        try:
            event = _event(record)
            if partition_of(event["shop"].encode(), self._partitions) != record.partition:
                self._outputs.strays.add(position)
                return
            self._judge(event)
        except _Bad as bad:
            self._outputs.refusals[position] = frozenset(bad.args)
            return
        self._ids.add(event["event_id"])
        if event["kind"] == parameters.ASKING:
            features = orjson.dumps(self._features(event))
            prediction = ExpectedPrediction(event["event_id"], event["shop"], event["ts"], features)
            self._outputs.predictions[position] = prediction
        self._time.take(event["shop"], event["ts"], record.append_ms)
        amount = event.get("amount")
        units = None if amount is None else _units(float(amount))
        past = _Past(event["ts"], len(self._ids), event["kind"], event["city"], units, amount)
        insort(self._past[event["shop"]], past)

    def _judge(self, event: dict[str, Any]) -> None:
        if event["ts"] < self._time.ms - parameters.LATENESS_MS:
            raise _Bad("too_late")
        if event["event_id"] in self._ids:
            raise _Bad("duplicate")

    def _features(self, event: dict[str, Any]) -> dict[str, float]:
        ts, amount = event["ts"], event.get("amount")
        past = self._past[event["shop"]]
        end = bisect_left(past, (ts,))
        long = past[bisect_left(past, (ts - parameters.LONG_MS,)) : end]
        short = past[bisect_left(past, (ts - parameters.SHORT_MS,)) : end]
        long_units = [event_before.units for event_before in long if event_before.units is not None]
        short_units = [
            event_before.units for event_before in short if event_before.units is not None
        ]
        amounts = [event_before.amount for event_before in long if event_before.amount is not None]
        return {
            "amount": float(amount or 0.0),
            **{f"city={city}": float(event["city"] == city) for city in parameters.CITIES},
            "count 1m kind=order": float(
                sum(event_before.kind == "order" for event_before in short)
            ),
            "mean(amount) 1m": _mean(short_units),
            "mean(amount) 3m": _mean(long_units),
            "variance(amount) 3m": _variance(long_units),
            "count 1m by city": float(
                sum(event_before.city == event["city"] for event_before in short)
            ),
            "max(amount) 3m": float(max(amounts, default=0.0)),
        }


def _units(amount: float) -> int:
    numerator, denominator = amount.as_integer_ratio()
    units, remainder = divmod(numerator * UNIT, denominator)
    assert remainder == 0, f"{amount} is no multiple of the unit"
    return units


# The sum as the nearest double, and then a division; for the variance the nearest double at once.
# Python rounds whole numbers and their quotients correctly, so these are right to the last bit.


def _mean(units: list[int]) -> float:
    return float(sum(units)) / UNIT / len(units) if units else 0.0


def _variance(units: list[int]) -> float:
    n = len(units)
    if n < 2:  # noqa: PLR2004 - a spread takes two
        return 0.0
    total = sum(units)
    return (n * sum(map(mul, units, units)) - total * total) / (n * (n - 1) * UNIT * UNIT)


class _Labels:
    """Labels of one partition, in the order of its log."""

    def __init__(self, expected: ExpectedOutputs, times: dict[str, int], partitions: int) -> None:
        self._outputs = expected
        self._times = times
        self._partitions = partitions
        self._time = _Time()
        self._event_ids: set[str] = set()

    def take(self, record: Raw) -> None:
        """The next record."""
        position = RecordPosition("labels", record.partition, record.offset)
        try:
            label = self._label(record)
            if partition_of(label["event_id"].encode(), self._partitions) != record.partition:
                self._outputs.strays.add(position)
                return
            self._time.take(label["event_id"], label["ts"], record.append_ms)
            self._judge(label)
        except _Bad as bad:
            self._outputs.refusals[position] = frozenset(bad.args)
            return
        self._event_ids.add(label["event_id"])
        self._outputs.joins[position] = label["event_id"]

    @staticmethod
    def _label(record: Raw) -> dict[str, Any]:
        members = _members(record.value)
        _need(members, "event_id", str)
        _need(members, "ts", int)
        _need(members, "label", bool)
        _not_from_the_future(record, members["ts"])
        return members

    def _judge(self, label: dict[str, Any]) -> None:
        ts = self._times.get(label["event_id"])
        now_ms = max(self._time.ms, label["ts"])
        if ts is None or now_ms > ts + 2 * parameters.HORIZON_MS:
            raise _Bad(ORPHAN)
        if now_ms > ts + parameters.HORIZON_MS:
            raise _Bad(LATE)
        if label["event_id"] in self._event_ids:
            raise _Bad(DUPLICATE)
        if label["ts"] < ts:
            # Nobody waits for a prediction that would have to be older than all that come.
            raise _Bad(EARLY, ORPHAN)
