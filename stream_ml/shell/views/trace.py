"""One event's way through the pipeline, from what is on the log alone.

Where to read follows from what was read before: a prediction lies in the partition of its event's
id and names the event's place; an example comes after its prediction and names the label's place;
the snapshots that know it, and the decisions that count it, come after the example. So of most
topics a stretch is read. An event without a prediction is looked for among all events and refusals.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import decode_answers, decode_example, decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.models.envelope import decode
from stream_ml.records import Shadow, line_of, version_of
from stream_ml.sealing import SEALED_TOPICS, Seals, strip_seal
from stream_ml.shell.log.reading import read_partition
from stream_ml.shell.processes.progress import duration
from stream_ml.shell.views.dead_letters import LATE_EVENTS, letters_in
from stream_ml.shell.views.registry import read_registry
from stream_ml.stages.topology import task_name
from stream_ml.topics import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_ml.pipeline import Events
    from stream_ml.records import Answer, Example, LabelValue, Prediction, Record
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.dead_letters import LetterView
    from stream_ml.shell.views.registry import Entry, RegistryView

__all__ = [
    "JoinedStep",
    "LearnedStep",
    "PredictedStep",
    "PublishedStep",
    "Trace",
    "TracedDecision",
    "trace",
]

# Brokers' clocks, and those of several partitions, agree to less than this.
SKEW_MS = 120_000
PUBLISHED = ("events", "labels")


@dataclass(frozen=True, slots=True)
class PublishedStep:
    """An event, or a label, as somebody published it.

    Attributes:
        topic: `events` or `labels`.
        partition: where it lies.
        offset: there.
        append_ms: when the log took it in, UTC milliseconds.
        ts: its own time; None where it cannot be read.
        label: what a label says; None of an event.
        is_read: whether the stage that reads it has committed that it did.
    """

    topic: str
    partition: int
    offset: int
    append_ms: int
    ts: int | None
    label: LabelValue | None
    is_read: bool


@dataclass(frozen=True, slots=True)
class PredictedStep:
    """The prediction on it.

    Attributes:
        partition: of `predictions`; None where retention has taken it, and its example has it.
        offset: there.
        append_ms: when the log took it in; on Kafka it is seen by all within a commit after that.
        latency_ms: from the log's taking in the event; None where one of the two is gone.
        key: the event's entity.
        ts: the event's time.
        model: that served, as `name@version`.
        decision: the number of the first decision by which that one served; None: not known.
        prediction: what was served.
        fallback: whether that is a fallback.
        features: as served.
        features_hash: the first half of the SHA-256 of these, as JSON in the order of their names.
        shadows: the models that did not serve, by slot; with their answers where those are made.
    """

    partition: int | None
    offset: int | None
    append_ms: int | None
    latency_ms: int | None
    key: str
    ts: int
    model: str
    decision: int | None
    prediction: Answer
    fallback: bool
    features: dict[str, float]
    features_hash: str
    shadows: dict[str, Shadow]


@dataclass(frozen=True, slots=True)
class JoinedStep:
    """The example that it became.

    Attributes:
        offset: on `examples`.
        append_ms: when the log took it in.
        label: the truth.
        label_ts: when that was known.
        delay_ms: from the event to that.
        implicit: whether silence was taken for it.
        last_label: the label that stands in the place of silence now; None: silence does.
    """

    offset: int
    append_ms: int
    label: LabelValue
    label_ts: int
    delay_ms: int
    implicit: bool = False
    last_label: LabelValue | None = None


@dataclass(frozen=True, slots=True)
class LearnedStep:
    """The first snapshot of a line that has learned it.

    Attributes:
        line: that learned.
        model: as `name@version`.
        offset: on `models`.
        append_ms: when the log took it in.
    """

    line: str
    model: str
    offset: int
    append_ms: int


@dataclass(frozen=True, slots=True)
class TracedDecision:
    """A decision that its example had a part in.

    Attributes:
        part: `counted`: the first decision for which the example was scored; `served`: the first
            by which a champion serves that has learned it.
        number: of the decision.
        kind: of it.
        ts: the examples watermark at it.
        append_ms: when the log took it in.
        champion: what serves by it.
        reason: why.
    """

    part: str
    number: int
    kind: str
    ts: int
    append_ms: int
    champion: str
    reason: str


@dataclass(frozen=True, slots=True)
class Trace:
    """An event's way.

    Attributes:
        event_id: the event's.
        events: as published, where they were found; of an event that was predicted that one.
        predicted: the prediction on it, if there is one.
        labels: as published: the one that was joined, else (of silence, too) all with its id.
        joined: the example, if there is one.
        learned: by line, the first snapshot that has learned it.
        decisions: that it had a part in.
        letters: refusals of any of these records.
    """

    event_id: str
    events: tuple[PublishedStep, ...]
    predicted: PredictedStep | None
    labels: tuple[PublishedStep, ...]
    joined: JoinedStep | None
    learned: tuple[LearnedStep, ...]
    decisions: tuple[TracedDecision, ...]
    letters: tuple[LetterView, ...]

    @property
    def is_found(self) -> bool:
        """Whether anything of it is on the log."""
        return bool(self.events or self.predicted or self.labels or self.letters)

    @property
    def ended(self) -> str | None:
        """How far it has come, and why no further; None where it was learned."""
        if self.learned:
            return None
        if self.joined is not None:
            return "no snapshot that has learned it is on the log yet"
        if self.predicted is not None:
            return self._refused("labels") or self._unlabelled()
        if self.events or self._refused("events"):
            return self._refused("events") or self._unpredicted()
        return self._without_event()

    def _refused(self, topic: str) -> str | None:
        letter = next((each.letter for each in self.letters if each.letter.topic == topic), None)
        if letter is None:
            return None
        return f"refused by {letter.stage}: {letter.reason} at {letter.path}: {letter.message}"

    def _without_event(self) -> str:
        """Of an id that labels alone have."""
        words = "no event of this id is on the log"
        refusal = self._refused("labels")
        if refusal is not None:
            return f"{words}; its label was {refusal}"
        if not all(step.is_read for step in self.labels):
            return f"{words}, and join has not read its label yet"
        return f"{words}; its label waits for one"

    def _unpredicted(self) -> str:
        if not all(step.is_read for step in self.events):
            return "predict has not read it yet"
        return (
            "predict has read it and has made no prediction: it asks for none, its id came before, "
            "or retention has taken the prediction"
        )

    def _unlabelled(self) -> str:
        if not self.labels:
            return "its label has not come"
        if not all(step.is_read for step in self.labels):
            return "join has not read its label yet"
        return (
            f"its label was not joined: {self._label_distance()}. Where that is too far for it to "
            "be about this event, it waits for another one of its id; or retention has taken the "
            "example"
        )

    def _label_distance(self) -> str:
        """How far the last label's time is from the event's."""
        assert self.predicted is not None, "there is an event"
        ts = self.labels[-1].ts
        if ts is None:
            return "its time cannot be read"
        distance_ms = ts - self.predicted.ts
        side = "before" if distance_ms < 0 else "after"
        return f"its time is {duration(abs(distance_ms) / 1_000)} {side} the event's"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        predicted = None
        if self.predicted is not None:
            shadows = {
                slot: {"model": shadow.model, "prediction": shadow.prediction}
                | ({} if shadow.offset is None else {"offset": shadow.offset})
                for slot, shadow in self.predicted.shadows.items()
            }
            predicted = {
                name: shadows if name == "shadows" else getattr(self.predicted, name)
                for name in PredictedStep.__dataclass_fields__
            }
        return {
            "event_id": self.event_id,
            "events": [asdict(step) for step in self.events],
            "predicted": predicted,
            "labels": [asdict(step) for step in self.labels],
            "joined": None if self.joined is None else asdict(self.joined),
            "learned": [asdict(step) for step in self.learned],
            "decisions": [asdict(step) for step in self.decisions],
            "dead_letters": [letter.as_dict() for letter in self.letters],
            "ended": self.ended,
        }


def trace(
    log: Log,
    key: bytes | None,
    event_id: str,
    *,
    since_ms: int | None = None,
    watch: Callable[[str, Iterable[Record]], Iterable[Record]] | None = None,
    declared: Events | None = None,
) -> Trace:
    """Follow an event.

    Args:
        log: to read from; a worker may be at work on it.
        key: checks seals and decisions; without one all is believed.
        event_id: the event's.
        since_ms: nothing that the log took in before is looked for, UTC milliseconds.
        watch: is given each topic's records as they are read, and passes them on.
        declared: names the members of an event; without it one that was not predicted is found by
            any member that is the id, and of events that have no `ts` no time is told.
    """
    return _Tracer(log, key, event_id, since_ms, watch or _unwatched, declared=declared).trace()


def _unwatched(_topic: str, records: Iterable[Record]) -> Iterable[Record]:
    return records


class _Tracer:
    """Follows one event."""

    def __init__(
        self,
        log: Log,
        key: bytes | None,
        event_id: str,
        since_ms: int | None,
        watch: Callable[[str, Iterable[Record]], Iterable[Record]],
        *,
        declared: Events | None,
    ) -> None:
        self._log, self._event_id, self._since_ms = log, event_id, since_ms
        self._declared = declared
        self._watch = watch
        self._id_bytes = event_id.encode()
        self._registry: RegistryView = read_registry(log, key, recent=None)
        pipeline = self._registry.pipeline
        self._seals = None
        if key is not None and pipeline is not None:
            self._seals = Seals(key, pipeline, log.identity)

    def trace(self) -> Trace:
        prediction, found_at = self._prediction()
        example_record, example = self._example(prediction, found_at)
        if prediction is None and example is not None:
            prediction = example.prediction
        events = self._events(prediction)
        labels = self._labels(example)
        predicted = None
        if prediction is not None:
            predicted = self._predicted(prediction, found_at, events)
        joined = None
        if example is not None and example_record is not None:
            joined = _joined(example_record, example, self._last_label(example_record, example))
            predicted = self._answered(predicted, joined.offset)
        learned = () if joined is None else tuple(self._learned(joined))
        letters = tuple(self._letters(events, labels, found_at))
        return Trace(
            self._event_id,
            events,
            predicted,
            labels,
            joined,
            learned,
            () if joined is None else tuple(self._decisions(joined, learned)),
            letters,
        )

    # --- where it is read ----------------------------------------------------------------------

    def _read(self, topic: str, partition: int, since_ms: int | None = None) -> Iterator[Record]:
        """The records of a partition that the log took in since then, or since we look."""
        times = [ms for ms in (since_ms, self._since_ms) if ms is not None]
        start = self._log.offset_at(topic, partition, max(0, *times)) if times else None
        return iter(self._watch(topic, read_partition(self._log, topic, partition, start)))

    def _home(self, topic: str) -> int:
        """The partition of a topic in which what is keyed by the id lies, but for strays."""
        return partition_of(self._id_bytes, self._log.partitions[topic])

    def _at(self, topic: str, partition: int, offset: int) -> Record | None:
        if partition >= self._log.partitions[topic]:
            return None
        for record in self._log.read(topic, partition, offset, 1):
            if record.offset == offset:
                return record
        return None

    def _body(self, record: Record) -> bytes | None:
        """What it says, if it is sealed as it must be.

        Raises:
            BadRecord: it is not.
        """
        if self._seals is None or record.topic not in SEALED_TOPICS:
            return strip_seal(record.value) if record.value is not None else None
        return self._seals.records(record.topic).unseal(record.value)

    # --- its steps -----------------------------------------------------------------------------

    def _prediction(self) -> tuple[Prediction | None, Record | None]:
        for record in self._read("predictions", self._home("predictions")):
            if record.key == self._id_bytes:
                with suppress(BadRecord):  # join refuses it too
                    return decode_prediction(self._body(record)), record
        return None, None

    def _example(
        self, prediction: Prediction | None, found_at: Record | None
    ) -> tuple[Record | None, Example | None]:
        since_ms = None if found_at is None else found_at.append_ms - SKEW_MS
        for record in self._read("examples", 0, since_ms):
            if record.key == self._id_bytes:
                with suppress(BadRecord):
                    example = decode_example(self._body(record))
                    # An id may come again, long after.
                    if prediction is None or example.prediction.source == prediction.source:
                        return record, example
        return None, None

    def _last_label(self, found_at: Record, example: Example) -> LabelValue | None:
        """The label that took the place of silence, the last one of several; None: none did."""
        last = None
        records = self._read("examples", 0, found_at.append_ms - SKEW_MS)
        for record in records if example.implicit else ():
            if record.key == self._id_bytes:
                with suppress(BadRecord):
                    later = decode_example(self._body(record))
                    same = later.prediction.source == example.prediction.source
                    if later.correction is not None and same:
                        last = later.label
        return last

    def _events(self, prediction: Prediction | None) -> tuple[PublishedStep, ...]:
        if prediction is not None:
            source = prediction.source
            record = self._at("events", source.partition, source.offset)
            return () if record is None else (self._published(record),)
        named = orjson.dumps(self._event_id)
        return tuple(
            self._published(record)
            for partition in range(self._log.partitions["events"])
            for record in self._read("events", partition)
            if named in (record.value or b"") and self._has_id(_members(record))
        )

    def _has_id(self, event: dict[str, Any]) -> bool:
        if self._declared is None:
            return self._event_id in event.values()
        return bool(event.get(self._declared.id) == self._event_id)

    def _labels(self, example: Example | None) -> tuple[PublishedStep, ...]:
        if example is not None and not example.implicit:
            source = example.label_source
            record = self._at("labels", source.partition, source.offset)
            return () if record is None else (self._published(record),)
        return tuple(
            self._published(record)
            for record in self._read("labels", self._home("labels"))
            if record.key == self._id_bytes
        )

    def _published(self, record: Record) -> PublishedStep:
        members = _members(record)
        is_event = record.topic == "events"
        time = self._declared.time if is_event and self._declared is not None else "ts"
        ts, label = members.get(time), None if is_event else members.get("label")
        stage = "predict" if is_event else "join"
        positions = self._log.committed(task_name(stage, record.partition))
        return PublishedStep(
            record.topic,
            record.partition,
            record.offset,
            record.append_ms,
            ts if isinstance(ts, int) else None,
            label if isinstance(label, bool | str | int | float) else None,
            positions.get((record.topic, record.partition), 0) > record.offset,
        )

    def _predicted(
        self, prediction: Prediction, record: Record | None, events: tuple[PublishedStep, ...]
    ) -> PredictedStep:
        served_by = next(
            (
                entry.decision.number
                for entry in self._registry.decisions
                if entry.decision.serving.champion.model == prediction.model
            ),
            None,
        )
        latency_ms = None
        if record is not None and events:
            latency_ms = record.append_ms - events[0].append_ms
        features = orjson.dumps(prediction.features, option=orjson.OPT_SORT_KEYS)
        return PredictedStep(
            None if record is None else record.partition,
            None if record is None else record.offset,
            None if record is None else record.append_ms,
            latency_ms,
            prediction.key,
            prediction.ts,
            prediction.model,
            served_by,
            prediction.prediction,
            prediction.fallback,
            dict(prediction.features),
            hashlib.sha256(features).hexdigest()[:32],
            dict(prediction.shadows),
        )

    def _answered(self, predicted: PredictedStep | None, example: int) -> PredictedStep | None:
        """The prediction, with what its shadows said of the example."""
        if predicted is None or "answers" not in self._log.partitions:
            return predicted
        record = self._at("examples", 0, example)
        since_ms = None if record is None else record.append_ms - SKEW_MS
        for each in self._read("answers", 0, since_ms):
            with suppress(BadRecord):
                answers = decode_answers(self._body(each))
                if answers.example < example:
                    continue
                if answers.example == example:
                    said = {
                        slot: Shadow(answer.model, answer.prediction)
                        for slot, answer in answers.shadows.items()
                    }
                    return replace(predicted, shadows={**predicted.shadows, **said})
                break
        return predicted

    def _learned(self, joined: JoinedStep) -> Iterator[LearnedStep]:
        newest = self._registry.newest
        missing = set() if newest is None else set(newest.serving.lines)
        found = set()
        for record in self._read("models", 0, joined.append_ms - SKEW_MS):
            with suppress(BadRecord):
                snapshot = decode(self._body(record) or b"")
                inside = snapshot.examples
                if snapshot.name in found or not inside["first"] <= joined.offset <= inside["last"]:
                    continue
                found.add(snapshot.name)
                yield LearnedStep(snapshot.name, snapshot.model, record.offset, record.append_ms)
                if found >= missing:
                    break

    def _decisions(
        self, joined: JoinedStep, learned: Iterable[LearnedStep]
    ) -> Iterator[TracedDecision]:
        first = {step.line: version_of(step.model) for step in learned}
        counted = served = False
        for entry in self._registry.decisions:
            decision = entry.decision
            if decision.inputs.get("examples", 0) <= joined.offset:
                continue
            if not counted:
                counted = True
                yield _traced("counted", entry)
            champion = decision.serving.champion.model
            version = first.get(line_of(champion))
            if not served and version is not None and version_of(champion) >= version:
                served = True
                yield _traced("served", entry)

    def _letters(
        self,
        events: Iterable[PublishedStep],
        labels: Iterable[PublishedStep],
        prediction: Record | None,
    ) -> Iterator[LetterView]:
        """The refusals of what was found, and of what bears the id and could not be found."""
        steps = [*events, *labels]
        places = {(step.topic, step.partition, step.offset) for step in steps}
        times = [step.append_ms for step in steps]
        if prediction is not None:
            places.add(("predictions", prediction.partition, prediction.offset))
            times.append(prediction.append_ms)
        since_ms = min(times) - SKEW_MS if times else None
        named = orjson.dumps(self._event_id)
        letters = self._read("dead-letters", 0, since_ms)
        if LATE_EVENTS in self._log.partitions:
            letters = chain(letters, self._read(LATE_EVENTS, 0, since_ms))
        for view in letters_in(letters):
            letter = view.letter
            is_there = (letter.topic, letter.partition, letter.offset) in places
            if is_there or (letter.topic in PUBLISHED and named in _original(letter.value)):
                yield view


def _members(record: Record) -> dict[str, Any]:
    """The members of what a client published; none where it is no object."""
    with suppress(orjson.JSONDecodeError):
        members = orjson.loads(record.value or b"")
        if isinstance(members, dict):
            return members
    return {}


def _original(value: str | None) -> bytes:
    try:
        return base64.b64decode(value or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _joined(record: Record, example: Example, last_label: LabelValue | None) -> JoinedStep:
    delay_ms = example.label_ts - example.prediction.ts
    place = record.offset, record.append_ms
    return JoinedStep(
        *place, example.label, example.label_ts, delay_ms, example.implicit, last_label
    )


def _traced(part: str, entry: Entry) -> TracedDecision:
    decision = entry.decision
    return TracedDecision(
        part,
        decision.number,
        decision.kind,
        decision.ts,
        entry.append_ms,
        decision.serving.champion.model,
        decision.reason,
    )
