"""Looks over the records of files for what cannot have been known when an event came.

Of the first `EVENTS_MAX` events features are made as they would be served, and up to `ROWS_MAX` of
those that ask for a prediction are kept until their label comes: those whose ids have the least
digests, so that which ones of these does not depend on their order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord
from stream_ml.evaluation.leakage import CLASS_MIN, ROWS_MIN, Filling, Strength, filling, strength
from stream_ml.features.parts import fields_in
from stream_ml.features.sparse import is_common
from stream_ml.time_units import YEAR_2000_MS, YEAR_2100_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.features import FeatureState
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Event, EventLabel

__all__ = ["Leak", "LeakSearch"]

EVENTS_MAX = 50_000
ROWS_MAX = 20_000
COLUMNS_MAX = 256
# From here on a column alone is too good: the bundled examples reach less.
AUC_MAX = 0.95
R2_MAX = 0.99
EQUAL_MIN = 0.999
FUTURE_MIN = 0.5
MINUTE_MS = 60_000
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
DIGITS_MAX = 15
NUMBER_KINDS = ("float", "int")


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that probably cannot be known when an event comes.

    Attributes:
        kind: `equals_label`, `filled_for_one_class`, `too_good`, `later_time`, `telling_id`,
            `telling_time` or `label_before_event`.
        column: the field or feature; of ids and times, how they are called.
        figure: how strong it is: a share, an AUC, a rank R2.
        message: all of it in a sentence.
    """

    kind: str
    column: str
    figure: float
    message: str

    def as_members(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "kind": self.kind,
            "column": self.column,
            "figure": self.figure,
            "message": self.message,
        }


@dataclass(slots=True)
class _Row:
    """An event that asked, and what became of it."""

    event_id: str
    ts: int
    fields: tuple[Any, ...]
    features: tuple[float | None, ...]
    label: Any = None
    # Whether the label had a time before the event's.
    is_early: bool = False


@dataclass(slots=True)
class LeakSearch:
    """Told of every event and label, it says at the end what tells too much.

    Attributes:
        pipeline: the declaration.
    """

    pipeline: Pipeline
    _events: int = 0
    _rows: dict[int, _Row] = field(default_factory=dict)
    # Labels that came before their event, by the digest of its id.
    _waiting: dict[int, tuple[int, Any]] = field(default_factory=dict)
    _limit: int = 1 << 64
    _state: FeatureState = field(init=False)
    _names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._state = self.pipeline.feature_set.new_state()
        names = self.pipeline.feature_set.view.names
        self._names = tuple(name for name in names if not is_common(name))[:COLUMNS_MAX]

    def event(self, event: Event, watermark_ms: int) -> None:
        """Look at an event that is not too late.

        Args:
            event: as it was read, in the order of the file.
            watermark_ms: of the events so far, itself among them.
        """
        self._events += 1
        if self._events > EVENTS_MAX:
            return
        try:
            self._state.advance(watermark_ms)
            features = self._state.features(event) if self.pipeline.wants_prediction(event) else {}
            self._state.insert(event)
        except BadRecord:
            return  # the features' own code refuses it
        if self.pipeline.wants_prediction(event):
            self._keep(event, features)

    def _keep(self, event: Event, features: dict[str, float]) -> None:
        digest = _digest(event.event_id)
        if digest >= self._limit or digest in self._rows:
            return
        fields = tuple(event.fields[name] for name in self.pipeline.schema)
        values = tuple(features.get(name) for name in self._names)
        self._rows[digest] = row = _Row(event.event_id, event.ts, fields, values)
        if digest in self._waiting:
            self._join(row, *self._waiting.pop(digest))
        self._bound()

    def _bound(self) -> None:
        """Keep the half of them with the lesser digests, where they are too many."""
        while max(len(self._rows), len(self._waiting)) > ROWS_MAX:
            self._limit //= 2
            self._rows = {d: row for d, row in self._rows.items() if d < self._limit}
            self._waiting = {d: label for d, label in self._waiting.items() if d < self._limit}

    def label(self, label: EventLabel) -> None:
        """Look at a label.

        Args:
            label: as it was read; the first of an event counts.
        """
        digest = _digest(label.event_id)
        if digest >= self._limit:
            return
        row = self._rows.get(digest)
        if row is None:
            self._waiting.setdefault(digest, (label.ts, label.label))
            self._bound()
        elif row.label is None:
            self._join(row, label.ts, label.label)

    def _join(self, row: _Row, ts: int, label: Any) -> None:
        row.label, row.is_early = label, ts < row.ts

    def leaks(self) -> list[Leak]:
        """What tells too much, the fields before the features that are made of them."""
        rows = [row for row in self._rows.values() if row.label is not None]
        if not rows:
            return []
        found = [*_early_label_leaks(rows)]
        if len(rows) < ROWS_MIN:
            return found
        found += self._field_leaks(rows)
        told = {leak.column for leak in found}
        found += self._feature_leaks(rows, told)
        found += self._id_leaks(rows)
        return found

    def _field_leaks(self, rows: Sequence[_Row]) -> Iterator[Leak]:
        labels = [row.label for row in rows]
        for index, (name, kind) in enumerate(self.pipeline.schema.items()):
            if name == self.pipeline.events.key:
                continue
            values = [row.fields[index] for row in rows]
            leak = _equal_leak(name, values, labels) or _filled_leak(name, values, labels)
            if leak is None and kind.kind in NUMBER_KINDS:
                leak = _later_leak(name, values, [row.ts for row in rows])
            leak = leak or _strong_leak("field", name, values, labels)
            if leak is not None:
                yield self._with_users(leak)

    def _with_users(self, leak: Leak) -> Leak:
        """The same, with the features that are made of the field."""
        users = [
            feature.name
            for feature in self.pipeline.features
            if leak.column in fields_in(feature, self.pipeline.schema)
        ]
        made = f"; made of it: {', '.join(users)}" if users else "; no feature is made of it"
        return Leak(leak.kind, leak.column, leak.figure, leak.message + made)

    def _feature_leaks(self, rows: Sequence[_Row], told: set[str]) -> Iterator[Leak]:
        labels = [row.label for row in rows]
        places = {name: place for place, name in enumerate(self._names)}
        for feature in self.pipeline.features:
            if told.intersection(fields_in(feature, self.pipeline.schema)):
                continue
            for name in feature.columns(self.pipeline.schema):
                if name not in places or name in self.pipeline.schema:
                    continue
                values = [row.features[places[name]] for row in rows]
                leak = _filled_leak(name, values, labels) or _strong_leak(
                    "feature", name, values, labels
                )
                if leak is not None:
                    yield leak

    def _id_leaks(self, rows: Sequence[_Row]) -> Iterator[Leak]:
        labels = [row.label for row in rows]
        if not self.pipeline.files.row_ids and self.pipeline.target.kind != "regression":
            ids = [row.event_id for row in rows]
            for what, values in (
                ("the number in the id", list(map(_number, ids))),
                ("the letters of the id", [_DIGITS.sub("", each) for each in ids]),
                ("the length of the id", [float(len(each)) for each in ids]),
            ):
                leak = _strong_leak("telling_id", what, values, labels)
                if leak is not None:
                    yield leak
                    break
        times = [row.ts for row in rows]
        # A number may well grow with time.
        is_number = self.pipeline.target.kind == "regression"
        for what, values in (
            ("the time of the event", [] if is_number else [float(ts) for ts in times]),
            ("the second of the event's time", [float(ts % MINUTE_MS) for ts in times]),
            ("a whole second as the event's time", [float(ts % 1000 == 0) for ts in times]),
            ("a whole minute as the event's time", [float(ts % MINUTE_MS == 0) for ts in times]),
        ):
            leak = _strong_leak("telling_time", what, values, labels) if values else None
            if leak is not None:
                yield leak
                break


def _early_label_leaks(rows: Sequence[_Row]) -> Iterator[Leak]:
    early = [row.event_id for row in rows if row.is_early]
    if early:
        share = len(early) / len(rows)
        yield Leak(
            "label_before_event",
            "label",
            share,
            f"leak: {len(early):,} of {len(rows):,} labels ({share:.1%}) are of a time "
            f"before their event's (first {early[0]!r}): they would be refused, and "
            "the event may know what became of it",
        )


def _digest(event_id: str) -> int:
    data = event_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest())


def _number(event_id: str) -> float | None:
    found = _DIGITS.findall(event_id)
    return float(found[-1]) if found and len(found[-1]) <= DIGITS_MAX else None


def _equal_leak(name: str, values: Sequence[Any], labels: Sequence[Any]) -> Leak | None:
    pairs = [(x, y) for x, y in zip(values, labels, strict=True) if x is not None]
    if len(pairs) < ROWS_MIN or len({y for _, y in pairs}) == 1:
        return None
    same = sum(x == y for x, y in pairs)
    words = "equals the label"
    if isinstance(pairs[0][1], bool):
        other = len(pairs) - same if all(x in (0, 1) for x, _ in pairs) else 0
        if other > same:
            same, words = other, "is the contrary of the label"
    share = same / len(pairs)
    if share < EQUAL_MIN:
        return None
    return Leak(
        "equals_label",
        name,
        share,
        f"leak: the field `{name}` {words} in {same:,} of {len(pairs):,} events ({share:.1%}), "
        "which nobody knows when an event comes: leave it out",
    )


def _filled_leak(name: str, values: Sequence[Any], labels: Sequence[Any]) -> Leak | None:
    if not any(isinstance(y, bool | str) for y in labels[:1]):
        return None
    found: Filling | None = filling(values, labels)
    if found is None:
        return None
    verb = "filled" if found.is_filled else "missing"
    return Leak(
        "filled_for_one_class",
        name,
        1.0,
        f"leak: `{name}` is {verb} in {found.n:,} events, all of which have the label "
        f"{found.label}, and in none of the {found.others:,} others: it is probably "
        f"{'filled in' if found.is_filled else 'taken away'} when the label is known",
    )


def _later_leak(name: str, values: Sequence[Any], times: Sequence[int]) -> Leak | None:
    """Whether a field holds times, in ms or s, and most lie after the event's."""
    pairs = [(x, ts) for x, ts in zip(values, times, strict=True) if x is not None]
    for unit in (1, 1_000):
        moments = [(x * unit, ts) for x, ts in pairs]
        if len(pairs) < CLASS_MIN or not all(YEAR_2000_MS <= x < YEAR_2100_MS for x, _ in moments):
            continue
        later = sum(x >= ts + 1_000 for x, ts in moments)
        share = later / len(moments)
        if share >= FUTURE_MIN:
            return Leak(
                "later_time",
                name,
                share,
                f"leak: the field `{name}` holds a time after the event's in {later:,} of "
                f"{len(moments):,} events ({share:.1%}): unless it is a plan, it was joined to the "
                "event later, with whatever else came with it",
            )
    return None


def _strong_leak(kind: str, name: str, values: Sequence[Any], labels: Sequence[Any]) -> Leak | None:
    found: Strength | None = strength(values, labels)
    if found is None or found.low < (AUC_MAX if found.measure == "AUC" else R2_MAX):
        return None
    of_class = "" if found.label is None else f" {found.label}"
    figure = (
        f"{found.measure} {found.value:.4f}, {found.low:.4f} at the least, of {found.n:,} events"
    )
    if kind in {"field", "feature"}:
        message = (
            f"leak: the {kind} `{name}` alone tells the label{of_class} ({figure}), which is too "
            "good: is it known when the event comes, or does it look ahead?"
        )
        return Leak("too_good", name, found.value, message)
    message = (
        f"leak: {name} alone tells the label{of_class} ({figure}): ids or times were given when "
        "the label was known, or rows are sorted by it"
    )
    return Leak(kind, name.removeprefix("the "), found.value, message)
