"""Events in, predictions out: windows per key, and the present serving set's answers.

Theory of operation:

1. An event is judged by the state of its own partition at its own offset: bad, from the future
   (`ts` past its append time by more than `skew`), too late (older than the watermark by more
   than `lateness`) or a duplicate (its id was seen). Such an event becomes one dead letter, or
   one of `late-events` (`late_events`), and changes no state. The watermark is led by several
   keys, never by one (`watermark`).
2. Its features are read before it is put into the windows, so that no event sees itself.
3. Ids are kept for everything that is not too late, so no duplicate slips through.
4. The champion alone answers; predicting changes no model. Its shadows are named, each with the
   place of its snapshot: evaluate has them answer once the label is there (`shadows`), so that
   nothing they do is waited for. A champion without an answer leaves the word to the fallback.
   Where the serving set has a fallback, that is served, and the champion is one more shadow,
   with its answer.
5. An event that lies in another partition than its key's is forwarded there, and changes
   nothing here but a count (`partitioning`).
6. At a marker that a key is to be forgotten its windows go, and its name (`erasure`). A copy of
   one that was obeyed is a bad record.
7. What came in each block of event time is summed up, and written when the block is over
   (`monitoring.blocks`). The answers are not among it: a replay does not know them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.codec import dead_letter, encode_prediction, encode_shadows
from stream_ml.errors import STOPS, BadRecord
from stream_ml.features.durations import duration_text
from stream_ml.features.sparse import is_common
from stream_ml.monitoring.blocks import Layout, OpenBlocks
from stream_ml.records import Answer, Event, Output, Prediction, Shadow, Source, line_of
from stream_ml.stages.alarms import Alarms, Recurrence
from stream_ml.stages.dedup import SeenIds
from stream_ml.stages.erasure import ObeyedErasures
from stream_ml.stages.inputs import parse_once, refuse_future, without_frames
from stream_ml.stages.late_events import TOO_LATE, late_event
from stream_ml.stages.lateness import Lateness, declared_lateness_ms
from stream_ml.stages.partitioning import Partitioner, forward
from stream_ml.stages.positions import record_notice
from stream_ml.stages.refusals import Refusals
from stream_ml.stages.state import BLOCKS, EVENT_IDS, KEYLESS, WINDOWS, split_by_prefix
from stream_ml.stages.watermark import Watermark
from stream_ml.summaries import encode_summary
from stream_ml.task_names import task_in
from stream_ml.time_units import time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.stages.erasure import Erasure, Erasures
    from stream_ml.stages.lateness import LatenessChange
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.serving import LoadedModel, LoadedServingSet, Serving
    from stream_ml.stages.task import StateEntry

__all__ = ["Predict", "PredictionRequest"]

# Room for the ids of one instant where no lateness is allowed.
_SPAN_MIN_MS = 1_000


class PredictionRequest(NamedTuple):
    """An event that asks for a prediction."""

    record: Record
    event: Event
    features: dict[str, float]


class Predict:
    """The predict stage on one partition of events.

    Args:
        pipeline: the declaration.
        serving: what predicts now.
        partitions: how many the events have, where some may lie in another than their key's
            (rule 5); None where none can.
        partition: of the events.
        erasures: reads markers (rule 6); without it they are bad records as any.
        lateness_changes: of events that are folded again, those of the declared lateness.

    Attributes:
        former_declaration: that the state was made under which is to be taken up, text by path: of
            a former release, it does not say its lateness.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        serving: Serving,
        partitions: int | None = None,
        *,
        partition: int = 0,
        erasures: Erasures | None = None,
        lateness_changes: Sequence[LatenessChange] = (),
    ) -> None:
        self._pipeline = pipeline
        self._serving = serving
        self._erasures = erasures
        self._obeyed_erasures = ObeyedErasures()
        self._is_main = task_in(pipeline.name) is None
        self._partitioner = None if partitions is None else Partitioner(partitions)
        self._features = pipeline.feature_set.new_state()
        self._known_ids = SeenIds(max(pipeline.window_lateness_ms, _SPAN_MIN_MS))
        self._watermark = Watermark(pipeline.events.breadth)
        self._lateness = Lateness(pipeline.window_lateness_ms, lateness_changes)
        # Whether an event may feed windows that is too late for a prediction.
        self._takes_late = pipeline.window_lateness_ms > pipeline.lateness_ms
        self.former_declaration: Mapping[str, str] = {}
        self._alarms = Alarms("predict", partition)
        self._refusals = Refusals(self._alarms, "events")
        self._blocks = _blocks(pipeline)
        self._overflow = Recurrence(self._alarms, "window_overflow")
        self._failure = Recurrence(self._alarms, "aggregate_failed")
        self._has_changed = False
        # Pieces of windows that are kept otherwise now, still to be dropped from the state.
        self._stale_windows: list[str] = []
        self.counts = {"events": 0, "predictions": 0, "refused": 0, "no_answer": 0, "strays": 0}
        # What `window_events_max` made windows forget.
        self.counts["window_events_dropped"] = 0
        if self._takes_late:
            self.counts["late"] = 0
        self._sets_late_aside = pipeline.events.too_late == "topic"
        if self._sets_late_aside:
            self.counts[TOO_LATE] = 0

    def start(self) -> list[Output]:
        """Nothing: predicting begins with the first event."""
        return []

    def parse(self, record: Record) -> Event | Erasure | BadRecord:
        """The event in `record`, or what is wrong with it; kept as the record's memo."""
        return parse_once(record, self._decode)

    def _decode(self, record: Record) -> Event | Erasure:
        try:
            event = self._pipeline.event_codec.decode(record.value)
        except BadRecord:
            if self._erasures is not None and self._erasures.is_marker(record.value):
                return self._erasures.decode(record.value, takes_siblings=True)
            raise
        refuse_future(record, event.ts, self._pipeline.skew_ms, self._pipeline.events.time)
        return event

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in events of one partition."""
        serving_set = self._serving.current()
        assert serving_set is not None, "predict is fed before the first serving set is loaded"
        alerts = self._alerts() if self._serving.refusals else []
        items = self._fold(records)
        return alerts + self._outputs(items, serving_set)

    def _outputs(
        self, items: Sequence[Output | PredictionRequest], serving_set: LoadedServingSet
    ) -> list[Output]:
        """What is to be written, with the predictions that are asked for."""
        predictions = self._predict(
            [item for item in items if isinstance(item, PredictionRequest)], serving_set
        )
        return [
            next(predictions) if isinstance(item, PredictionRequest) else item for item in items
        ]

    def replay(self, records: Sequence[Record]) -> None:
        """Fold in events that were predicted before; needs no models.

        All of the state becomes what `apply` made of it, but for the count `no_answer`: what the
        models said then is not known here.
        """
        self._fold(records)

    def vectors(self, records: Sequence[Record]) -> Iterator[tuple[int, int, dict[str, float]]]:
        """Fold in events as `replay`: of each that asks, its offset, its time and its features."""
        for item in self._fold(records):
            if isinstance(item, PredictionRequest):
                yield item.record.offset, item.event.ts, item.features

    def _fold(self, records: Sequence[Record]) -> list[Output | PredictionRequest]:
        """Take events in: what is to be written, in their order, predictions still to be made."""
        outputs: list[Output | PredictionRequest] = []
        self._has_changed = True
        for span in self._lateness.parts(records):
            self._lateness.begin(span[0].offset, self._watermark.ms)
            for part in self._refusals.parts(span):
                strays = self.counts["strays"]
                self._fold_part(part, outputs)
                # Strays are counted where they belong.
                read = len(part) - (self.counts["strays"] - strays)
                outputs += self._refusals.read(read, self._watermark.ms)
                if self._refusals.has_ended_block:
                    outputs += self._end_block()
        return outputs

    def _end_block(self) -> list[Output]:
        ts = self._watermark.ms
        return [
            *self._overflow.end_block("no window has dropped events any more", ts),
            *self._failure.end_block("no aggregate has failed any more", ts),
        ]

    def _fold_part(
        self, records: Sequence[Record], outputs: list[Output | PredictionRequest]
    ) -> None:
        read = 0
        events = [self.parse(record) for record in records]
        strays = self._strays(records, events)
        for number, (record, event) in enumerate(zip(records, events, strict=True)):
            try:
                if number in strays:
                    moved = forward(record, strays[number], self._pipeline.events.key)
                    # The events of tasks are forwarded once, by the pipeline's own.
                    outputs += [moved] if self._is_main else []
                    self.counts["strays"] += 1
                    continue
                read += 1
                if not isinstance(event, Event):
                    self._forget(event)
                    continue
                self._check(event)
                features = self._vector(event)
                self._features.insert(event)
            except BadRecord as error:
                self._refuse(record, error, read, outputs)
                continue
            self._known_ids.add(event.event_id, event.ts)
            self.counts["events"] += 1
            if self._takes_late and self._is_late(event):
                self.counts["late"] += 1
            if self._blocks is not None:
                self._blocks.add(event.ts, event.fields, features, self._watermark.ms)
            if self._features.dropped_count or self._features.failures:
                self._count_overflow(outputs)
                self._count_failures(outputs)
            if self._watermark.advance(event.key, event.ts, record.append_ms):
                self._advance(record.partition, outputs)
            if features is not None:
                self.counts["predictions"] += 1
                outputs.append(PredictionRequest(record, event, features))

    def _forget(self, erasure: Erasure | BadRecord) -> None:
        """Drop the windows of a key, and its name.

        Raises:
            BadRecord: it is no marker, or was obeyed before.
        """
        if isinstance(erasure, BadRecord):
            raise erasure
        if erasure.pipeline != self._pipeline.name:
            return  # it is meant for another task, which reads the same events
        self._obeyed_erasures.take(erasure)
        erasures, counts = self._erasures, self.counts
        assert erasures is not None, "a marker was read by it"

        def is_meant(key: str) -> bool:
            return erasures.means(erasure, key)

        forgotten = self._features.forget(is_meant, erasure.subject)
        counts["keys_forgotten"] = counts.get("keys_forgotten", 0) + forgotten
        self._watermark.rename(is_meant, erasure.subject)

    def _refuse(
        self,
        record: Record,
        error: BadRecord,
        read: int,
        outputs: list[Output | PredictionRequest],
    ) -> None:
        """Count a bad record, and tell of it; with it so many of its part were read."""
        event = self.parse(record)
        if self._sets_late_aside and error.reason == TOO_LATE and isinstance(event, Event):
            self.counts[TOO_LATE] += 1
            outputs.append(late_event(record, error, self._watermark.ms - event.ts))
        else:
            self.counts["refused"] += 1
            outputs.append(dead_letter(record, "predict", without_frames(error)))
        if self._blocks is not None:
            self._blocks.refuse(f"{error.reason} {error.path}", self._watermark.ms)
        outputs += self._refusals.refuse(record, error, read, self._watermark.ms)

    def _advance(self, partition: int, outputs: list[Output | PredictionRequest]) -> None:
        """Close by the watermark, which has risen."""
        watermark_ms = self._watermark.ms
        self._features.advance(watermark_ms)
        self._known_ids.forget_before(watermark_ms - self._lateness.ms)
        if self._blocks is not None and watermark_ms >= self._blocks.due_ms:
            outputs += self._close_blocks(self._blocks, partition)

    def _close_blocks(self, blocks: OpenBlocks, partition: int) -> list[Output]:
        return [
            Output("summaries", str(partition).encode(), encode_summary(summary), summary)
            for summary in blocks.close(self._watermark.ms, partition)
        ]

    def _count_overflow(self, outputs: list[Output | PredictionRequest]) -> None:
        if not self._features.dropped_count:
            return
        dropped = self.counts["window_events_dropped"] + self._features.dropped_count
        self._features.dropped_count = 0
        self.counts["window_events_dropped"] = dropped
        outputs += self._overflow.happen(
            f"a window of one key holds more than {self._pipeline.window_events_max} events; "
            "its oldest are dropped: features are of the newest only",
            self._watermark.ms,
            {"dropped": dropped},
        )

    def _count_failures(self, outputs: list[Output | PredictionRequest]) -> None:
        failures = self._features.failures
        if not failures:
            return
        failed = self.counts.get("aggregates_failed", 0) + len(failures)
        self.counts["aggregates_failed"] = failed
        outputs += self._failure.happen(
            f"a user's aggregate has failed, and has no answer for that key and window: "
            f"{failures[0]}",
            self._watermark.ms,
            {"failed": failed},
        )
        failures.clear()

    @property
    def sizes(self) -> dict[str, int]:
        """How many keys have windows, and how many ids are known."""
        return {"keys": len(self._features), "ids": len(self._known_ids)}

    def _strays(
        self, records: Sequence[Record], events: Sequence[Event | Erasure | BadRecord]
    ) -> dict[int, str]:
        """The key of each record that belongs in another partition, by its number in the batch."""
        if self._partitioner is None:
            return {}
        keys = [event.key if isinstance(event, Event) else None for event in events]
        return self._partitioner.strays(records, keys)

    def _vector(self, event: Event) -> dict[str, float] | None:
        """The features of an event that gets a prediction; None of any other."""
        if not self._pipeline.wants_prediction(event):
            return None
        if self._takes_late and self._is_late(event):
            return None
        return self._features.features(event)

    def _is_late(self, event: Event) -> bool:
        """Whether an event comes too late for a prediction, and feeds windows alone."""
        return event.ts < self._watermark.ms - self._pipeline.lateness_ms

    def _check(self, event: Event) -> None:
        """Refuse what is too late, or came before."""
        pipeline, lateness = self._pipeline, self._lateness
        if event.ts < self._watermark.ms - lateness.ms:
            raise BadRecord(
                "too_late",
                f"$.{pipeline.events.time}",
                f"expected at most {duration_text(lateness.ms)} before the partition's watermark "
                f"{time_text(self._watermark.ms)}, given {time_text(event.ts)}",
            )
        if event.ts < lateness.floor_ms:
            raise BadRecord(
                "too_late",
                f"$.{pipeline.events.time}",
                f"expected at least {time_text(lateness.floor_ms)}, given {time_text(event.ts)}: "
                "what is older was too late by the lateness of before, which was shorter",
            )
        if self._known_ids.get(event.event_id) is not None:
            raise BadRecord(
                "duplicate",
                f"$.{pipeline.events.id}",
                f"an event with the id {event.event_id!r} came before",
            )

    def _predict(
        self, requests: Sequence[PredictionRequest], serving_set: LoadedServingSet
    ) -> Iterator[Output]:
        champion, fallback = serving_set.champion, self._pipeline.fallback
        slicing = self._pipeline.slicing
        served = serving_set.fallback
        answers = _answers(champion, requests)
        self.counts["no_answer"] += answers.count(None)
        shadows, encoded_shadows = serving_set.shadows, encode_shadows(serving_set.shadows)
        model = champion.ref.model
        for (record, event, features), own_answer in zip(requests, answers, strict=True):
            answer = own_answer
            if served is not None:
                shadows = {**serving_set.shadows, line_of(model): Shadow(model, own_answer)}
                encoded_shadows = encode_shadows(shadows)
                fallback, answer = served, None
            prediction = Prediction(
                event.event_id,
                event.key,
                event.ts,
                Source(record.partition, record.offset),
                model,
                champion.example,
                fallback if answer is None else answer,
                answer is None,
                features,
                shadows,
                slicing.of(event.fields) if slicing else (),
            )
            key, value = event.event_id.encode(), encode_prediction(prediction, encoded_shadows)
            yield Output("predictions", key, value, prediction)

    def _alerts(self) -> list[Output]:
        refusals, self._serving.refusals = self._serving.refusals, []
        return [
            output
            for message in refusals
            for output in self._alarms.once("serving_set_refused", message, self._watermark.ms)
        ]

    @property
    def idle_ms(self) -> int:
        """After how long without an event nothing is waited for any more."""
        return self._pipeline.idle_ms

    def close(self, now_ms: int) -> list[Output]:  # noqa: ARG002 - of who waits for nothing
        """What need wait no longer, as nothing came for a while: nothing waits here.

        Args:
            now_ms: what the clock shows.
        """
        return []

    def note(self, notice: Notice) -> Output:
        """Take note of what befell the input."""
        self._has_changed = True
        return record_notice(notice, self._alarms, self._watermark.ms, self.counts)

    def needs_checkpoint(self) -> bool:
        """Never: with one input the state is a function of its position."""
        return False

    def must_checkpoint(self) -> bool:
        """After any event: each leaves its mark on windows and ids."""
        return self._has_changed

    def dirty(self) -> list[StateEntry]:
        """Windows, ids, and the keyless rest, as far as they changed."""
        self._has_changed = False
        keyless: dict[str, Any] = {
            "watermark": self._watermark.ms,
            "led_by": self._watermark.dump(),
            "alarms": self._alarms.dump(),
            "quiet": [self._overflow.dump(), self._failure.dump()],
            "refusals": self._refusals.dump(),
            "counts": self.counts,
            "held": self.sizes,
        }
        keyless |= self._lateness.dump()
        if self._obeyed_erasures:
            keyless["erasures"] = self._obeyed_erasures.dump()
        blocks: list[StateEntry] = []
        if self._blocks is not None:
            keyless["blocks"] = self._blocks.dump()
            blocks = [(f"{BLOCKS}{name}", value) for name, value in self._blocks.dirty()]
        windows = [(f"{WINDOWS}{name}", value) for name, value in self._features.dirty()]
        kept = {name for name, _ in windows}
        stale_windows = [(name, None) for name in self._stale_windows if name not in kept]
        self._stale_windows = []
        return [
            (KEYLESS, orjson.dumps(keyless)),
            *stale_windows,
            *windows,
            *((f"{EVENT_IDS}{name}", value) for name, value in self._known_ids.dirty()),
            *blocks,
        ]

    def rebuild(self, pieces: Iterable[tuple[str, bytes]], events: Predict) -> None:
        """Take up a state whose windows were of other features.

        Args:
            pieces: the state.
            events: a stage that has folded the same events with the features of today; its windows
                are taken over, and it is of no more use.
        """
        kept: list[tuple[str, bytes]] = []
        stale: list[tuple[str, bytes]] = []
        for name, value in pieces:
            (stale if name.startswith(WINDOWS) else kept).append((name, value))
        self.restore(kept)
        self._features = events._features
        self._features.advance(self._watermark.ms)
        self._stale_windows = [name for name, _ in stale]
        self._has_changed = True

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state."""
        entries = split_by_prefix(pieces, WINDOWS, EVENT_IDS, BLOCKS)
        is_lateness_known = True
        for _, value in entries[KEYLESS]:
            keyless = orjson.loads(value)
            if self._blocks is not None:
                self._blocks.restore(keyless.get("blocks"), entries[BLOCKS])
            # What was written before there was a breadth has only how far it had come.
            self._watermark.load(keyless.get("led_by", keyless["watermark"]))
            self._alarms.load(keyless.get("alarms", ()))
            overflow, failure = keyless.get("quiet", (0, 0))
            self._overflow.load(overflow)
            self._failure.load(failure)
            self._refusals.load(keyless.get("refusals", ()))
            is_lateness_known = self._lateness.load(
                keyless, self._watermark.ms, declared_lateness_ms(self.former_declaration)
            )
            if "erasures" in keyless:
                self._obeyed_erasures.load(keyless["erasures"])
            self.counts |= keyless["counts"]
        self._features.restore(entries[WINDOWS])
        self._features.advance(self._watermark.ms)
        is_of_this_span = self._known_ids.restore(entries[EVENT_IDS])
        if not is_lateness_known and not is_of_this_span:
            self._lateness.floor_ms = self._known_ids.oldest_ms()


def _blocks(pipeline: Pipeline) -> OpenBlocks | None:
    """The blocks that are watched, where any are: of all fields but the key, and all features."""
    if pipeline.monitors is None:
        return None
    fields = {
        name: kind.kind in {"float", "int"}
        for name, kind in pipeline.schema.items()
        if name != pipeline.events.key
    }
    # Of hashed columns the field that they are made of tells.
    # What is known only with an answer is none of the events'.
    delayed = pipeline.feature_set.delayed_names
    names = [
        name for name in pipeline.feature_set.names if not is_common(name) and name not in delayed
    ]
    layout = Layout(pipeline.monitors.block_ms, fields, names, pipeline.kind_field)
    return OpenBlocks(layout, pipeline.lateness_ms)


def _answers(champion: LoadedModel, requests: Sequence[PredictionRequest]) -> list[Answer]:
    if champion.predict_many is not None and len(requests) > 1:
        try:
            return champion.predict_many([features for _, _, features in requests])
        except STOPS:
            raise
        except BaseException:  # noqa: BLE001, S110 - which of them is at fault shows one by one
            pass
    predict = champion.predict
    answers: list[Answer] = []
    for _, _, features in requests:
        try:
            answers.append(predict(features))
        except STOPS:
            raise
        except BaseException:  # noqa: BLE001 - an estimator may raise anything; no answer counts
            answers.append(None)
    return answers
