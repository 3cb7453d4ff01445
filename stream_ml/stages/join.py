"""Predictions and labels in, examples out: which label belongs to which prediction.

Theory of operation. Whatever order the two topics are read in, the same pairs are joined:

1. The labels watermark W is the time that several labels of the partition support, the
   predictions watermark M the one that several keys' predictions support, of the event partition
   that is furthest behind and not idle (each prediction names its source; see `watermark`). A
   label is judged by W *at its own offset*, or by its own time where that is later, and that is
   kept with it while it waits: never by when a prediction turns up.
2. A label is about the first prediction of its id, in the order of their log, that is at most
   `skew` later than it and at most `known` older than W: the horizon, and once more that or
   `corrections`, whichever is longer. It joins it if it is not before it and W <= prediction
   time + horizon; of several such labels the first. The others are refused:
   `label_before_event`, `late` (W past the horizon), `duplicate_label`.
3. A prediction is dropped (expired) only when W passes its time + horizon: every later label
   would be late. What was joined or expired is known until W passes its time + `known`:
   after that no label can be about it. A waiting label is dropped (`orphan`) only when
   M, less the lateness allowed, has passed its time + `skew`. A prediction that comes from before
   M less the lateness (its source was idle, or few of its keys are here) is taken all the same,
   but no label that M had made an orphan is about it, whichever is read first: `_extras` keeps
   it, with the bound.
4. Of two predictions of one id the first counts; the second is refused, whatever became of the
   first. Ids are known for this until the newest prediction is `horizon` + lateness past theirs.
   What is older still is of a source far behind the others, whose events come in the order of
   their offsets: it counts if it is past the last one, and is a copy if it is not. An id may come
   again later, in a log that is read far behind its labels' even while the former
   one waits: `_extras` has those, too.
5. At a marker that a key is to be forgotten the predictions of that key that wait go (`erasure`):
   those about events before the marker on `events`, whichever is read first, unless a label before
   the marker on `labels` is about them.
6. Where silence means something, or labels may be corrected, predictions are kept for longer, and
   give further examples: see `corrections`. A prediction waits for `window` then, and its silence
   is joined in place of its being dropped.
7. What lies in another partition than its id's is forwarded there, and changes nothing here but
   a count (`partitioning`).

So state and the set of outputs are a function of how far each of the two topics was read. The
one exception is memory: beyond `pending_max` the oldest waiting predictions (or labels) are
dropped, counted and alerted, and that state must be written down at once. (In a replay nothing
is dropped for it: where it ends, no more waited.)
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import (
    dead_letter,
    decode_example,
    decode_prediction,
    encode_example,
)
from stream_ml.errors import BadRecord
from stream_ml.records import Correction, EventLabel, Example, Output, Prediction, Record, Source
from stream_ml.stages.alarms import Alarms, Recurrence
from stream_ml.stages.answer_watch import AnswerWatch
from stream_ml.stages.corrections import OVERFLOW, Corrections, StandingLabel
from stream_ml.stages.dedup import SeenIds
from stream_ml.stages.erasure import Erasure, LateErasure, LateErasures
from stream_ml.stages.extra_predictions import ExtraPrediction, dump_extras, load_extras
from stream_ml.stages.inputs import parse_once, prediction_in, refuse_future, without_frames
from stream_ml.stages.label_refusals import (
    duplicate_label,
    late_by_former_horizon,
    late_correction,
    late_label,
    orphan_label,
)
from stream_ml.stages.lag import Lag
from stream_ml.stages.outcomes import CORRECTION_OUTCOMES, OUTCOMES
from stream_ml.stages.partitioning import Partitioner, forward
from stream_ml.stages.positions import record_notice
from stream_ml.stages.refusals import Refusals
from stream_ml.stages.state import (
    CORRECTIONS,
    EXPIRED_IDS,
    EXTRA_PREDICTIONS,
    JOINED_IDS,
    KEYLESS,
    LABELS,
    PREDICTION_IDS,
    PREDICTIONS,
    split_by_prefix,
)
from stream_ml.stages.task import DirtyKeys
from stream_ml.stages.waiting import LABELS_PER_ID_MAX, WaitingLabel, WaitingLabels
from stream_ml.stages.watermark import PredictionsWatermark, Watermark
from stream_ml.time_units import time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.stages.erasure import Erasures
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.task import StateEntry

__all__ = ["Join"]

# Some 10 MB; a decoded prediction takes three times the memory of its bytes.
DECODED_MAX = 4_096
# So many predictions may be silent for one that is not; of 9e9 labels the numbers are below 2^53.
EXAMPLES_PER_LABEL = 1_000_000


class Join:
    """The join stage on one partition of predictions and labels.

    Args:
        pipeline: the declaration.
        event_partitions: of how many partitions of events predictions come.
        partitions: how many predictions and labels have, where some may lie in another than
            their id's (rule 7); None where none can.
        keep_decoded: whether examples are handed on decoded as well, for learn and evaluate in
            the same process.
        partition: of the predictions and labels.
        erasures: reads markers (rule 5); without it they are bad labels as any.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        event_partitions: int,
        partitions: int | None = None,
        *,
        keep_decoded: bool = True,
        partition: int = 0,
        erasures: Erasures | None = None,
    ) -> None:
        self._erasures = erasures
        self._partition = partition
        self._late_erasures = LateErasures()
        self._pipeline = pipeline
        self._partitioner = None if partitions is None else Partitioner(partitions)
        self._keeps_decoded = keep_decoded
        self._horizon = pipeline.horizon_ms
        label = pipeline.label
        self._excluded_sources = label.excluded_sources
        self._window, self._corrections_ms = label.window_ms, label.corrections_ms
        # As a label that is read would be: of a number a float.
        kind = pipeline.label_codec.kind
        self._absent: Any = None if self._window is None else kind.check("absent", label.absent)
        # How long a prediction waits, and how long what became of it is known.
        self._wait_ms = self._horizon if self._window is None else self._window
        self._known_ms = self._horizon + max(self._horizon, self._corrections_ms)
        self._lateness_ms = pipeline.lateness_ms
        self._skew_ms = pipeline.skew_ms
        breadth = pipeline.events.breadth
        self._labels_watermark = Watermark(breadth)
        self._sources = PredictionsWatermark(event_partitions, breadth, pipeline.idle_ms)
        self._predictions: dict[str, tuple[int, bytes]] = {}
        # The newest ones as they came, decoded, for learn and evaluate in this process: where
        # labels follow soon nothing is decoded again (measured: 5 µs an event). Each with its
        # value, for an id may come again.
        self._decoded_by_id: dict[str, tuple[bytes, Prediction]] = {}
        # By partition of events: where the event of its last prediction lies.
        self._source_offsets = [-1] * event_partitions
        self._extras: dict[str, list[ExtraPrediction]] = {}
        self._extras_waiting = 0
        self._dirty = DirtyKeys[str]()
        self._labels = WaitingLabels(pipeline.label_codec, pipeline.pending_max, self._dirty)
        self._corrections: Corrections | None = None
        if self._window is not None or self._corrections_ms:
            self._corrections = Corrections(pipeline, self._dirty)
        # By time, for dropping; an id that has been joined meanwhile is passed over.
        self._prediction_times: list[tuple[int, str]] = []
        # As long as they are known: a producer may use all its ids again, and again.
        self._extra_times: list[tuple[int, str]] = []
        self._joined_ids = SeenIds(self._known_ms)
        self._expired_ids = SeenIds(self._known_ms)
        self._prediction_ids_ms = self._horizon + pipeline.lateness_ms
        self._prediction_ids = SeenIds(self._prediction_ids_ms)
        self._alarms = Alarms("join", partition)
        self._answers = AnswerWatch(self._alarms)
        topics = ("predictions", "labels")
        self._refusals = {topic: Refusals(self._alarms, topic) for topic in topics}
        self._lags = [Lag(self._alarms, source) for source in range(event_partitions)]
        self._overflows = {
            topic: Recurrence(self._alarms, "pending_overflow", topic) for topic in topics
        }
        self._has_changed = False
        self._has_overflowed = False
        self._replaying = False
        # The last example's; -2 before the first label is met.
        self._number = -2
        counted = OUTCOMES if self._corrections is None else OUTCOMES + CORRECTION_OUTCOMES
        self.counts = dict.fromkeys(counted, 0)

    def start(self) -> list[Output]:
        """Nothing: joining begins with the first record."""
        return []

    def parse(self, record: Record) -> EventLabel | Erasure | BadRecord:
        """The label in `record`, or what is wrong with it; kept as the record's memo."""
        return parse_once(record, self._decode)

    def _decode(self, record: Record) -> EventLabel | Erasure:
        try:
            label = self._pipeline.label_codec.decode(record.value)
        except BadRecord:
            if self._erasures is not None and self._erasures.is_marker(record.value):
                return self._erasures.decode(record.value)
            raise
        refuse_future(record, label.ts, self._pipeline.skew_ms, "ts")
        return label

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in predictions or labels of one partition."""
        outputs: list[Output] = []
        self._has_changed = True
        topic = records[0].topic
        refusals = self._refusals[topic]
        # What is said of a topic must not depend on how far the other was read.
        time = self._labels_watermark if topic == "labels" else self._sources
        for part in refusals.parts(records):
            strays = self.counts["strays"]
            for number, error in self._fold_part(part, outputs):
                read = number + 1 - (self.counts["strays"] - strays)
                outputs += refusals.refuse(part[number], error, read, time.ms)
            # Strays are counted where they belong.
            outputs += refusals.read(len(part) - (self.counts["strays"] - strays), time.ms)
            if refusals.has_ended_block:
                message = f"no {topic} have been dropped any more"
                outputs += self._overflows[topic].end_block(message, time.ms)
        return outputs

    def _fold_part(
        self, records: Sequence[Record], outputs: list[Output]
    ) -> Iterator[tuple[int, BadRecord]]:
        """Fold records in, up to where one is refused whatever else was read, and so on."""
        labels = records[0].topic == "labels"
        parse: Callable[[Record], Any] = self.parse if labels else self._parse_prediction
        fold: Callable[[Record, Any, list[Output]], None]
        fold = self._prediction
        if labels:
            fold = self._told_label if self._excluded_sources else self._label
        contents = [parse(record) for record in records]
        strays = self._strays(records, contents)
        for number, record in enumerate(records):
            try:
                if number in strays:
                    outputs.append(forward(record, strays[number], "event_id"))
                    self.counts["strays"] += 1
                    continue
                if isinstance(contents[number], BadRecord):
                    raise contents[number]
                if isinstance(contents[number], Erasure):
                    self._forget(record, contents[number])
                    continue
                fold(record, contents[number], outputs)
            except BadRecord as error:
                bad = "bad_label" if labels else "bad_prediction"
                self.counts[error.reason if error.reason in self.counts else bad] += 1
                outputs.append(dead_letter(record, "join", without_frames(error)))
                if error is contents[number]:
                    yield number, error

    def _strays(
        self,
        records: Sequence[Record],
        contents: Sequence[Prediction | EventLabel | Erasure | BadRecord],
    ) -> dict[int, str]:
        """The id of each record that belongs in another partition, by its number in the batch."""
        if self._partitioner is None:
            return {}
        ids = [
            None if isinstance(content, (BadRecord, Erasure)) else content.event_id
            for content in contents
        ]
        return self._partitioner.strays(records, ids)

    def replay(self, records: Sequence[Record]) -> None:
        """Fold in predictions or labels whose examples were written before."""
        self._replaying = True
        self.apply(records)
        self._replaying = False

    # --- predictions ---------------------------------------------------------------------------

    def _parse_prediction(self, record: Record) -> Prediction | BadRecord:
        return prediction_in(record, self._pipeline)

    def _prediction(self, record: Record, prediction: Prediction, outputs: list[Output]) -> None:
        assert record.value is not None, "a prediction was decoded from no value"
        event_id, ts = prediction.event_id, prediction.ts
        source = prediction.source.partition
        if not 0 <= source < len(self._sources):
            raise BadRecord(
                "malformed",
                "$.source.partition",
                f"expected below {len(self._sources)}, given {source}",
            )
        self._advance(record, prediction, outputs)
        outputs += self._lags[source].add(record.append_ms - ts, self._sources.ms)
        former_ts = self._prediction_ids.get(event_id)
        if former_ts is not None and former_ts >= self._sources.newest_ms - self._prediction_ids_ms:
            raise BadRecord(
                "duplicate_prediction",
                "$.event_id",
                f"a prediction for the event {event_id!r} came before; the first counts",
            )
        self._check_place(ts, prediction.source)
        self._prediction_ids.add(event_id, ts)
        outputs += self._answers.add(prediction, self._sources.ms)
        if self._keeps_decoded:
            self._keep_decoded(record.value, prediction)
        late = self._late_erasure(prediction) if self._late_erasures else None
        is_joined = self._join_waiting(event_id, ts, record.value, outputs, late)
        if late is not None and not is_joined and late.watermark_ms <= ts + self._wait_ms:
            self._count_forgotten(event_id)
            return
        is_expired = False
        if not is_joined and self._labels_watermark.ms > ts + self._wait_ms:
            is_joined = self._expire(event_id, ts, record.value, outputs)
            is_expired = not is_joined
        self._let_go(late, event_id, ts)
        is_behind = ts < self._sources.ms - self._lateness_ms
        if is_behind or self._knows(event_id):
            value = None if is_joined or is_expired else record.value
            floor_ms = self._orphans_before() if is_behind else -1
            self._add_extra(event_id, ExtraPrediction(ts, value, is_joined, floor_ms))
        elif is_joined:
            self._joined_ids.add(event_id, ts)
        elif is_expired:
            self._expired_ids.add(event_id, ts)
        else:
            self._predictions[event_id] = (ts, record.value)
            self._dirty.put(f"{PREDICTIONS}{event_id}", new=True)
            heapq.heappush(self._prediction_times, (ts, event_id))
        # Many at once only where fewer may wait than could before.
        while self._waiting_predictions() > self._pipeline.pending_max and not self._replaying:
            self._drop_oldest_prediction(outputs)

    def _expire(self, event_id: str, ts: int, value: bytes, outputs: list[Output]) -> bool:
        """Let a prediction wait no more that had no label; whether it is joined for its silence."""
        if self._window is None:
            self.counts["expired"] += 1
            return False
        self._join_silence(event_id, ts, value, outputs)
        return True

    def _let_go(self, late: LateErasure | None, event_id: str, ts: int) -> None:
        """Keep no prediction for its corrections that is to be forgotten, or is too old."""
        if self._corrections is not None:
            if late is not None:
                self._corrections.drop(event_id, ts)
            self._corrections.drop_before(self._labels_watermark.ms)

    def _check_place(self, ts: int, source: Source) -> None:
        """Refuse a copy of what is older than the ids that are known.

        Predictions on a partition of events come in the order of its offsets. (Where that was made
        anew they begin again: what is young enough to be known by its id is taken at its word.)
        """
        last = self._source_offsets[source.partition]
        if source.offset <= last and ts < self._sources.newest_ms - self._prediction_ids_ms:
            raise BadRecord(
                "duplicate_prediction",
                "$.source.offset",
                f"expected a prediction on an event past offset {last} of events-"
                f"{source.partition}, given {source.offset}; older ones came before, and the first "
                "counts",
            )
        self._source_offsets[source.partition] = source.offset

    def _advance(self, record: Record, prediction: Prediction, outputs: list[Output]) -> None:
        sources = self._sources
        newest, source = sources.newest_ms, prediction.source.partition
        rose = sources.advance(source, prediction.key, prediction.ts, record.append_ms)
        if sources.newest_ms > newest:
            self._prediction_ids.forget_before(sources.newest_ms - self._prediction_ids_ms)
        if rose and self._labels:
            self._drop_orphans(outputs)

    def _knows(self, event_id: str) -> bool:
        """Whether a former prediction of the id waits, or labels may still be about one."""
        return (
            event_id in self._predictions
            or event_id in self._extras
            or self._closed_prediction(event_id) is not None
        )

    def _add_extra(self, event_id: str, extra: ExtraPrediction) -> None:
        self._dirty.put(f"{EXTRA_PREDICTIONS}{event_id}", new=event_id not in self._extras)
        self._extras.setdefault(event_id, []).append(extra)
        self._extras_waiting += extra.value is not None
        heapq.heappush(self._prediction_times, (extra.ts, event_id))
        heapq.heappush(self._extra_times, (extra.ts, event_id))

    def _waiting_predictions(self) -> int:
        return len(self._predictions) + self._extras_waiting

    def _keep_decoded(self, value: bytes, prediction: Prediction) -> None:
        decoded_by_id = self._decoded_by_id
        decoded_by_id[prediction.event_id] = (value, prediction)
        if len(decoded_by_id) > DECODED_MAX:
            del decoded_by_id[next(iter(decoded_by_id))]

    def _late_erasure(self, prediction: Prediction) -> LateErasure | None:
        """The marker that a prediction comes late for, by which it is forgotten.

        None where it would have expired before the marker.
        """
        assert self._erasures is not None, "a marker was read by it"
        late = self._late_erasures.find(prediction.key, prediction.source, self._erasures)
        self._late_erasures.see(prediction.source)
        if late is None:
            return None
        # Where it may be corrected, what came before the marker and what came after it differ.
        is_over = late.watermark_ms > prediction.ts + self._wait_ms
        return None if is_over and self._corrections is None else late

    def _forget(self, record: Record, erasure: Erasure) -> None:
        """Drop the predictions of a key that wait, about events before the marker on `events`."""
        erasures = self._erasures
        assert erasures is not None, "a marker was read by it"

        def is_meant(value: bytes) -> bool:
            prediction = decode_prediction(value)
            source = prediction.source
            is_before = source.partition == erasure.partition and source.offset < erasure.end
            return is_before and erasures.means(erasure, prediction.key)

        for event_id in [key for key, (_, value) in self._predictions.items() if is_meant(value)]:
            del self._predictions[event_id]
            self._dirty.delete(f"{PREDICTIONS}{event_id}")
            self._count_forgotten(event_id)
        if self._corrections is not None:
            for event_id in self._corrections.forget(is_meant):
                self._decoded_by_id.pop(event_id, None)
        for event_id, extras in list(self._extras.items()):
            kept = [each for each in extras if each.value is None or not is_meant(each.value)]
            if len(kept) < len(extras):
                self._extras_waiting -= len(extras) - len(kept)
                self._keep_extras(event_id, kept)
                self._count_forgotten(event_id, len(extras) - len(kept))
        offsets = self._source_offsets
        is_known = 0 <= erasure.partition < len(offsets)
        if is_known and offsets[erasure.partition] < erasure.end - 1:
            watermark_ms = max(self._labels_watermark.ms, -1)
            late = (erasure.subject, erasure.partition, erasure.end, record.offset, watermark_ms)
            self._late_erasures.add(LateErasure(*late))

    def _count_forgotten(self, event_id: str, count: int = 1) -> None:
        self._decoded_by_id.pop(event_id, None)
        self.counts["forgotten"] = self.counts.get("forgotten", 0) + count

    def _join_waiting(
        self,
        event_id: str,
        ts: int,
        value: bytes,
        outputs: list[Output],
        late: LateErasure | None = None,
    ) -> bool:
        """Join the labels that wait; of a forgotten key the first one must lie before a marker."""
        waiting = self._labels.get(event_id)
        if waiting is None:
            return False
        matches = [match for match in waiting if self._is_about(match.label, match.watermark, ts)]
        early = matches
        if late is not None:
            early = [match for match in matches if match.record.offset < late.label_offset]
        is_joined = self._meet(early, ts, value, outputs, is_joined=False)
        if late is not None:
            is_over = late.watermark_ms > ts + self._wait_ms
            if is_over and self._window is not None and not is_joined:
                self._join_silence(event_id, ts, value, outputs)
                is_joined = True
            self._let_go(late, event_id, ts)
            matches = matches if is_joined or is_over else early
        self._labels.keep(event_id, [match for match in waiting if match not in matches])
        return self._meet(matches[len(early) :], ts, value, outputs, is_joined=is_joined)

    def _meet(
        self,
        matches: Sequence[WaitingLabel],
        ts: int,
        value: bytes,
        outputs: list[Output],
        *,
        is_joined: bool,
    ) -> bool:
        """Join labels that have waited to the prediction that they are about; whether it is."""
        for match in matches:
            try:
                if is_joined and self._corrections is not None:
                    self._correct(match, ts, outputs)
                    continue
                self._judge(match.label, ts, match.watermark, is_joined=is_joined)
            except BadRecord as error:
                self.counts[error.reason] += 1
                outputs.append(dead_letter(match.record, "join", error))
                continue
            is_joined = True
            self._join(value, match, ts, outputs)
        return is_joined

    def _is_about(self, label: EventLabel, watermark: int, ts: int, floor_ms: int = -1) -> bool:
        """Whether a label judged by `watermark` is about a prediction at `ts` of its id."""
        return (
            label.ts + self._skew_ms >= ts
            and watermark <= ts + self._known_ms
            and label.ts >= floor_ms
        )

    def _judge(self, label: EventLabel, ts: int, watermark: int, *, is_joined: bool) -> None:
        """Raise what is wrong with `label` for the prediction at `ts` that it is about."""
        if watermark > ts + self._horizon:
            raise late_label(self._horizon)
        if is_joined:
            raise duplicate_label(label)
        if label.ts < ts:
            raise BadRecord(
                "label_before_event",
                "$.ts",
                f"expected at least the time of the event it is about, {time_text(ts)}, given "
                f"{time_text(label.ts)}",
            )

    def _drop_oldest_prediction(self, outputs: list[Output]) -> None:
        # What is forgotten entirely costs nothing: a label about it becomes an orphan.
        while self._close(*heapq.heappop(self._prediction_times), forget=True) is None:
            pass
        self._overflow("predictions", outputs)

    def _close(self, ts: int, event_id: str, *, forget: bool = False) -> bytes | None:
        """Let the prediction wait no more, and give it; None if it does not."""
        pending = self._predictions.get(event_id)
        if pending is not None and pending[0] == ts:
            del self._predictions[event_id]
            self._dirty.delete(f"{PREDICTIONS}{event_id}")
            if not forget:
                ids = self._expired_ids if self._window is None else self._joined_ids
                ids.add(event_id, ts)
            return pending[1]
        extras = self._extras.get(event_id, [])
        for number, extra in enumerate(extras):
            if extra.ts == ts and extra.value is not None:
                value, extra.value, extra.is_joined = extra.value, None, self._window is not None
                self._extras_waiting -= 1
                if forget:
                    self._keep_extras(event_id, extras[:number] + extras[number + 1 :])
                else:
                    self._dirty.put(f"{EXTRA_PREDICTIONS}{event_id}", new=False)
                return value
        return None

    def _keep_extras(self, event_id: str, extras: list[ExtraPrediction]) -> None:
        if extras:
            self._extras[event_id] = extras
            self._dirty.put(f"{EXTRA_PREDICTIONS}{event_id}", new=False)
        else:
            del self._extras[event_id]
            self._dirty.delete(f"{EXTRA_PREDICTIONS}{event_id}")

    def _overflow(self, topic: str, outputs: list[Output], message: str = "") -> None:
        self.counts["dropped"] += 1
        self._has_overflowed = True
        waiting = f"{topic} wait; the oldest are dropped: are labels (or predictions) still coming?"
        outputs += self._overflows[topic].happen(
            f"more than {self._pipeline.pending_max} {message or waiting}",
            self._labels_watermark.ms,
            {"dropped": self.counts["dropped"]},
        )

    # --- labels --------------------------------------------------------------------------------

    def _told_label(self, record: Record, label: EventLabel, outputs: list[Output]) -> None:
        if label.source in self._excluded_sources:
            self.counts["excluded"] = self.counts.get("excluded", 0) + 1
        else:
            self._label(record, label, outputs)

    def _label(self, record: Record, label: EventLabel, outputs: list[Output]) -> None:
        if self._number == -2:  # noqa: PLR2004 - as set above
            # At most one example follows from a label (more of silence): a state that begins anew
            # at a later one gives no number that a former one gave.
            examples = 1 if self._window is None else EXAMPLES_PER_LABEL
            self._number = record.offset * examples - 1
        event_id = label.event_id
        if self._labels_watermark.advance(event_id, label.ts, record.append_ms):
            self._expire_predictions(outputs)
        watermark = max(self._labels_watermark.ms, label.ts)
        pending = self._predictions.get(event_id)
        if pending is not None and self._is_about(label, watermark, pending[0]):
            ts, value = pending
            self._judge(label, ts, watermark, is_joined=False)
            del self._predictions[event_id]
            self._dirty.delete(f"{PREDICTIONS}{event_id}")
            self._joined_ids.add(event_id, ts)
            self._join(value, WaitingLabel(record, label, watermark), ts, outputs)
            return
        former = self._closed_prediction(event_id)
        if former is not None and self._is_about(label, watermark, former[0]):
            if former[1] and self._corrections is not None:
                self._correct(WaitingLabel(record, label, watermark), former[0], outputs)
                return
            self._judge(label, former[0], watermark, is_joined=former[1])
            # It waits no more, though it would by the horizon of today, which is longer.
            raise late_by_former_horizon()
        for extra in self._extras.get(event_id, ()):
            if self._is_about(label, watermark, extra.ts, extra.floor_ms):
                if extra.is_joined and self._corrections is not None:
                    self._correct(WaitingLabel(record, label, watermark), extra.ts, outputs)
                    return
                self._judge(label, extra.ts, watermark, is_joined=extra.is_joined)
                if extra.value is None:
                    raise late_by_former_horizon()
                value, extra.value, extra.is_joined = extra.value, None, True
                self._extras_waiting -= 1
                self._dirty.put(f"{EXTRA_PREDICTIONS}{event_id}", new=False)
                self._join(value, WaitingLabel(record, label, watermark), extra.ts, outputs)
                return
        self._wait(record, label, watermark, outputs)

    def _wait(
        self, record: Record, label: EventLabel, watermark: int, outputs: list[Output]
    ) -> None:
        event_id = label.event_id
        if self._labels.is_full(event_id) and not self._replaying:
            self._has_overflowed = True
            raise BadRecord(
                "too_many_labels",
                "$.event_id",
                f"{LABELS_PER_ID_MAX} labels for {event_id!r} wait for its prediction already",
            )
        self._labels.add(WaitingLabel(record, label, watermark))
        self._drop_orphans(outputs)
        while self._labels.is_overfull and not self._replaying:
            while not self._drop_oldest_label(outputs):
                pass
            self._overflow("labels", outputs)

    def _orphans_before(self) -> int:
        """The time before which a label that waits is an orphan (rule 3)."""
        return self._sources.ms - self._lateness_ms - self._skew_ms

    def _drop_orphans(self, outputs: list[Output]) -> None:
        bound = self._orphans_before()
        while (oldest_ms := self._labels.oldest_ms) is not None and oldest_ms < bound:
            self._drop_oldest_label(outputs)

    def _drop_oldest_label(self, outputs: list[Output]) -> bool:
        waiting = self._labels.pop_oldest()
        if waiting is None:
            return False
        self.counts["orphan"] += 1
        error = orphan_label(waiting.label, self._skew_ms, self._known_ms)
        outputs.append(dead_letter(waiting.record, "join", error))
        return True

    # --- both ----------------------------------------------------------------------------------

    def _join(self, value: bytes, met: WaitingLabel, ts: int, outputs: list[Output]) -> None:
        """Join the first label of a prediction, which is judged."""
        label, event_id = met.label, met.label.event_id
        if self._window is not None and met.watermark > ts + self._window:
            self._join_silence(event_id, ts, value, outputs)
            self._correct(met, ts, outputs)
            return
        self.counts["joined"] += 1
        source = Source(met.record.partition, met.record.offset)
        self._emit(value, label, source, outputs)
        if self._corrections is not None:
            standing = StandingLabel(ts, value, label.label, label.ts, label.ts, label.ts)
            self._keep(event_id, standing, outputs)

    def _join_silence(self, event_id: str, ts: int, value: bytes, outputs: list[Output]) -> None:
        """Join what silence means to a prediction that has had its window."""
        assert self._window is not None, "silence says nothing"
        self.counts["absent"] += 1
        absent, label_ts = self._absent, ts + self._window
        label = EventLabel(event_id, label_ts, absent)
        # Where W had come so far depends on who comes later: it names no place.
        self._emit(value, label, Source(self._partition, 0), outputs, implicit=True)
        standing = StandingLabel(ts, value, absent, label_ts, None, label_ts)
        self._keep(event_id, standing, outputs)

    def _correct(self, met: WaitingLabel, ts: int, outputs: list[Output]) -> None:
        """Let a label take the place of the one that stands for a prediction.

        Raises:
            BadRecord: it may not.
        """
        corrections, label, event_id = self._corrections, met.label, met.label.event_id
        assert corrections is not None, "a label is the only one where none may be corrected"
        standing = corrections.find(event_id, ts)
        if standing is None or met.watermark > corrections.end_ms(standing):
            if met.watermark > ts + self._horizon:
                raise late_label(self._horizon)
            raise late_correction(event_id, self._corrections_ms)
        self._judge(label, ts, ts, is_joined=False)
        first_ts = label.ts if standing.first_ts is None else standing.first_ts
        if label.label == standing.label:
            if standing.first_ts is not None:
                raise duplicate_label(label)
            self.counts["confirmed"] += 1
        else:
            self.counts["corrected"] += 1
            source = Source(met.record.partition, met.record.offset)
            self._emit(standing.value, label, source, outputs, correction=standing.corrected())
        standing = standing._replace(label=label.label, label_ts=label.ts, first_ts=first_ts)
        self._keep(event_id, standing, outputs)

    def _keep(self, event_id: str, standing: StandingLabel, outputs: list[Output]) -> None:
        """Keep a label that stands, for as long as it may be corrected."""
        assert self._corrections is not None, "no label may be corrected"
        self._corrections.put(event_id, standing)
        for _ in range(0 if self._replaying else self._corrections.drop_overflow()):
            self._overflow("predictions", outputs, OVERFLOW)

    def _emit(
        self,
        prediction_value: bytes,
        label: EventLabel,
        source: Source,
        outputs: list[Output],
        *,
        implicit: bool = False,
        correction: Correction | None = None,
    ) -> None:
        number = self._number = self._number + 1
        told = (label.label, label.ts, source, label.source)
        value = encode_example(
            prediction_value, *told, number=number, implicit=implicit, correction=correction
        )
        example = None
        if self._keeps_decoded:
            # Decoded here, once, for learn and evaluate alike.
            decoded_value, prediction = self._decoded_by_id.pop(label.event_id, (None, None))
            if prediction is not None and decoded_value is prediction_value:
                example = Example(prediction, *told, number, implicit, correction)
            else:
                example = decode_example(value)
        outputs.append(Output("examples", label.event_id.encode(), value, example))

    def _closed_prediction(self, event_id: str) -> tuple[int, bool] | None:
        """The time of a prediction that waits no more and whether it was joined; None: unknown."""
        for ids, is_joined in ((self._joined_ids, True), (self._expired_ids, False)):
            ts = ids.get(event_id)
            if ts is not None and self._labels_watermark.ms <= ts + self._known_ms:
                return ts, is_joined
        return None

    def _expire_predictions(self, outputs: list[Output]) -> None:
        watermark = self._labels_watermark.ms
        times = self._prediction_times
        while times and times[0][0] < watermark - self._wait_ms:
            ts, event_id = heapq.heappop(times)
            value = self._close(ts, event_id)
            if value is not None:
                self._expire(event_id, ts, value, outputs)
        if self._corrections is not None:
            self._corrections.drop_before(watermark)
        self._joined_ids.forget_before(watermark - self._known_ms)
        self._expired_ids.forget_before(watermark - self._known_ms)
        self._forget_extras(watermark - self._known_ms)

    def _forget_extras(self, bound: int) -> None:
        while self._extra_times and self._extra_times[0][0] < bound:
            _, event_id = heapq.heappop(self._extra_times)
            extras = self._extras.get(event_id, [])
            remaining = [extra for extra in extras if extra.ts >= bound]
            if len(remaining) < len(extras):  # else it went with another one of its id
                self._keep_extras(event_id, remaining)

    @property
    def pending(self) -> dict[str, int]:
        """How many predictions and labels wait."""
        return {"predictions": self._waiting_predictions(), "labels": len(self._labels)}

    @property
    def sizes(self) -> dict[str, int]:
        """What memory is taken up by: predictions and labels that wait, and ids that are known."""
        return {
            **self.pending,
            "label_bytes": self._labels.bytes,
            "closed_ids": len(self._joined_ids) + len(self._expired_ids),
            "prediction_ids": len(self._prediction_ids),
            **({} if self._corrections is None else {"correctable": len(self._corrections)}),
        }

    def note(self, notice: Notice) -> Output:
        """Take note of what befell an input."""
        self._has_changed = True
        return record_notice(notice, self._alarms, self._labels_watermark.ms, self.counts)

    def needs_checkpoint(self) -> bool:
        """After an overflow: what was dropped depends on how the two inputs alternated."""
        return self._has_overflowed

    def must_checkpoint(self) -> bool:
        """After any record: what waits follows from it."""
        return self._has_changed

    def dirty(self) -> list[StateEntry]:
        """What waits, the closed ids, and the keyless rest, as far as they changed."""
        self._has_changed = self._has_overflowed = False
        keyless: dict[str, Any] = {
            "labels_watermark": self._labels_watermark.ms,
            "labels_led_by": self._labels_watermark.dump(),
            "sources": self._sources.dump(),
            "alarms": self._alarms.dump(),
            "answers": self._answers.dump(),
            "quiet": [recurrence.dump() for recurrence in self._overflows.values()],
            "refusals": {topic: refusals.dump() for topic, refusals in self._refusals.items()},
            "lags": [lag.dump() for lag in self._lags],
            "number": self._number,
            "source_offsets": self._source_offsets,
            "counts": self.counts,
            "held": self.sizes,
        }
        if idle := self._sources.idle:
            keyless["idle"] = idle
        if self._late_erasures:
            keyless["erasures"] = self._late_erasures.dump()
        pieces: list[StateEntry] = [(KEYLESS, orjson.dumps(keyless))]
        for name in self._dirty.drain():
            prefix, event_id = name[0], name[1:]
            value = None
            if prefix == PREDICTIONS and event_id in self._predictions:
                value = self._predictions[event_id][1]
            elif prefix == LABELS:
                value = self._labels.entry(event_id)
            elif prefix == CORRECTIONS and self._corrections is not None:
                value = self._corrections.entry(event_id)
            elif prefix == EXTRA_PREDICTIONS and event_id in self._extras:
                value = dump_extras(self._extras[event_id])
            pieces.append((name, value))
        pieces += [(f"{JOINED_IDS}{name}", value) for name, value in self._joined_ids.dirty()]
        pieces += [(f"{EXPIRED_IDS}{name}", value) for name, value in self._expired_ids.dirty()]
        pieces += [
            (f"{PREDICTION_IDS}{name}", value) for name, value in self._prediction_ids.dirty()
        ]
        return pieces

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state."""
        entries = split_by_prefix(
            pieces,
            PREDICTIONS,
            EXTRA_PREDICTIONS,
            LABELS,
            JOINED_IDS,
            EXPIRED_IDS,
            PREDICTION_IDS,
            CORRECTIONS,
        )
        for _, value in entries[KEYLESS]:
            self._restore_keyless(orjson.loads(value))
        for event_id, value in entries[PREDICTIONS]:
            ts = decode_prediction(value).ts
            self._predictions[event_id] = (ts, value)
            self._prediction_times.append((ts, event_id))
        for event_id, value in entries[LABELS]:
            self._labels.load(event_id, value)
        for event_id, value in entries[EXTRA_PREDICTIONS]:
            extras = self._extras[event_id] = load_extras(value)
            self._extras_waiting += sum(extra.value is not None for extra in extras)
            times = [(extra.ts, event_id) for extra in extras]
            self._prediction_times += times
            self._extra_times += times
        for name, value in entries[CORRECTIONS]:
            if self._corrections is None:  # they are declared no more
                self._dirty.put(f"{CORRECTIONS}{name}", new=False)
            else:
                self._corrections.load(name, value)
        self._joined_ids.restore(entries[JOINED_IDS])
        self._expired_ids.restore(entries[EXPIRED_IDS])
        self._prediction_ids.restore(entries[PREDICTION_IDS])
        heapq.heapify(self._prediction_times)
        heapq.heapify(self._extra_times)

    def _restore_keyless(self, keyless: dict[str, Any]) -> None:
        # What was written before there was a breadth has only how far it had come.
        led_by = keyless.get("labels_led_by", keyless["labels_watermark"])
        self._labels_watermark.load(led_by)
        self._sources.load(keyless["sources"])
        self._alarms.load(keyless.get("alarms", ()))
        if "answers" in keyless:
            self._answers.load(keyless["answers"])
        quiet = keyless.get("quiet", (0, 0))
        for overflow, blocks in zip(self._overflows.values(), quiet, strict=True):
            overflow.load(blocks)
        for topic, refusals in keyless.get("refusals", {}).items():
            self._refusals[topic].load(refusals)
        for lag, state in zip(self._lags, keyless.get("lags", ()), strict=False):
            lag.load(state)
        self.counts |= keyless["counts"]
        self._late_erasures.load(keyless.get("erasures", []))
        # A former release numbered none.
        self._number = keyless.get("number", self.counts["joined"] - 1)
        offsets = keyless.get("source_offsets", [])
        self._source_offsets[: len(offsets)] = offsets
