"""The newest predictions, the newest ones whose label has come, and what answers lately meant.

Nothing that others have put on the log is shown as ours: predictions and examples count where they
bear our seal. Without a key all are believed, as everywhere.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ml.codec import decode_answers, decode_example
from stream_ml.errors import BadRecord
from stream_ml.sealing import Seals, strip_seal
from stream_ml.shell.log.reading import filled, last_records
from stream_ml.shell.report.curves import calibration, likeliest
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from stream_ml.records import Answer, Example, LabelValue, Prediction, Record
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.report.curves import CalibrationPoint

__all__ = ["SEARCHED_MAX", "Recent", "RecentPrediction", "RecentReader"]

ROWS = 6
KEY_ROWS = 50
# So many of the last records are looked through for one key, or one label.
SEARCHED_MAX = 5_000
# Of so many of the last examples is told what answers meant, and not more often than that.
CALIBRATED = 2_000
CALIBRATION_S = 60.0
# While there are few it changes soon.
FEW, FEW_S = 1_000, 5.0
SERVED = "served"


@dataclass(frozen=True, slots=True)
class RecentPrediction:
    """A prediction and where it lies; with its label, once that has come."""

    prediction: Prediction
    href: str
    label: LabelValue | None = None
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Recent:
    """What the page shows of single predictions, the newest first.

    Attributes:
        newest: predictions.
        labelled: those whose label has come.
        calibration: by model, tenths of its answers to the last examples, the lowest first.
        calibrated: to how many of them what serves has answered.
    """

    newest: tuple[RecentPrediction, ...] = ()
    labelled: tuple[RecentPrediction, ...] = ()
    calibration: Mapping[str, Sequence[CalibrationPoint]] | None = None
    calibrated: int = 0


class RecentReader:
    """Reads single predictions of a log, in whichever thread has it.

    Args:
        pipeline: whose they are.
        read_key: the key that they are sealed with; None: none is set.
        prediction: the prediction in a record of `predictions`; None where it is none of ours.
    """

    def __init__(
        self,
        pipeline: str,
        read_key: Callable[[Log], bytes | None],
        prediction: Callable[[Record], Prediction | None],
    ) -> None:
        self._pipeline = pipeline
        self._read_key = read_key
        self._prediction = prediction
        self._calibrated_s = 0.0
        self._calibration: tuple[Mapping[str, Sequence[CalibrationPoint]], int] = ({}, 0)

    def read(self, log: Log) -> Recent:
        """The newest predictions.

        Args:
            log: that they lie on.
        """
        newest = sorted(
            self._decoded(last_records(log, "predictions", ROWS)),
            key=lambda each: (each.prediction.ts, each.href),
            reverse=True,
        )
        # Of an event whose label was corrected the last word alone.
        words = {
            (each.prediction.source.partition, each.prediction.source.offset): each
            for each in self._labelled(log, last_records(log, "examples", ROWS))
        }
        labelled = [*words.values()][-ROWS:]
        now_s, (_, number) = time.monotonic(), self._calibration
        if now_s - self._calibrated_s >= (FEW_S if number < FEW else CALIBRATION_S):
            self._calibration, self._calibrated_s = self._calibrate(log), now_s
        return Recent(tuple(newest[:ROWS]), tuple(reversed(labelled)), *self._calibration)

    def of_key(self, log: Log, key: str) -> list[RecentPrediction]:
        """The last predictions of one key, the newest first, of those that came lately.

        Args:
            log: that they lie on.
            key: of the entity.
        """
        records = last_records(log, "predictions", SEARCHED_MAX)
        found = [each for each in self._decoded(records) if each.prediction.key == key]
        return sorted(found, key=lambda each: each.prediction.ts, reverse=True)[:KEY_ROWS]

    def label_of(self, log: Log, prediction: Prediction) -> tuple[LabelValue, int] | None:
        """The label of a prediction and how long after it came (ms), if that was lately.

        Args:
            log: that it lies on.
            prediction: that the label is of.
        """
        name = prediction.event_id.encode()
        records = [
            record
            for record in reversed(last_records(log, "examples", SEARCHED_MAX))
            if record.value is not None and name in record.value
        ]
        for each in self._labelled(log, records):
            if each.label is not None and each.prediction.source == prediction.source:
                return each.label, each.delay_ms or 0
        return None

    def stored(
        self, log: Log, topic: str, partition: int, offset: int
    ) -> tuple[Prediction, tuple[LabelValue, int] | None]:
        """The prediction at a place, with its label and how long after it came, if it has one.

        Args:
            log: that it lies on.
            topic: `predictions` or `examples`.
            partition: there.
            offset: there.

        Raises:
            Refusal: there is none, or none of ours.
        """
        if 0 <= partition < log.partitions[topic]:
            for record in log.read(topic, partition, offset, 1):
                if record.offset != offset:
                    continue
                if topic == "examples":
                    for each in self._labelled(log, [record]):
                        if each.label is not None:
                            return each.prediction, (each.label, each.delay_ms or 0)
                elif (found := self._prediction(record)) is not None:
                    return found, None
                raise Refusal(404, f"what is there is not sealed as {topic} of ours", "forged")
        raise Refusal(404, "there is no prediction there any more", "not_found")

    def _decoded(self, records: Iterable[Record]) -> Iterator[RecentPrediction]:
        for record in records:
            found = self._prediction(record)
            if found is not None:  # else join tells of it
                href = f"/page/predictions/{record.partition}/{record.offset}"
                yield RecentPrediction(found, href)

    def _labelled(self, log: Log, records: Iterable[Record]) -> Iterator[RecentPrediction]:
        for record, example in self._examples(log, records):
            yield RecentPrediction(
                example.prediction,
                f"/page/examples/{record.partition}/{record.offset}",
                example.label,
                delay_ms=max(0, example.label_ts - example.prediction.ts),
            )

    def _examples(self, log: Log, records: Iterable[Record]) -> Iterator[tuple[Record, Example]]:
        body = self._body(log, "examples")
        for record in records:
            with suppress(BadRecord):
                yield record, decode_example(body(record.value))

    def _body(self, log: Log, topic: str) -> Callable[[bytes | None], bytes]:
        """Takes the seal off the records of a topic; raises `BadRecord` of those of others."""
        key = self._read_key(log)
        if key is None:
            return strip_seal
        return Seals(key, self._pipeline, log.identity).records(topic).unseal

    def _calibrate(self, log: Log) -> tuple[Mapping[str, Sequence[CalibrationPoint]], int]:
        pairs: dict[str, list[tuple[float, float]]] = {SERVED: []}
        examples = [*self._examples(log, last_records(log, "examples", CALIBRATED))]
        offsets = {record.offset: index for index, (record, _) in enumerate(examples)}
        predictions = [example.prediction for _, example in examples]
        # What challengers said is beside the examples where they were asked later.
        if "answers" in log.partitions:
            body = self._body(log, "answers")
            for record in last_records(log, "answers", CALIBRATED):
                with suppress(BadRecord):
                    answers = decode_answers(body(record.value))
                    index = offsets.get(answers.example)
                    if index is not None and predictions[index].event_id == answers.event_id:
                        predictions[index] = filled(predictions[index], answers)
        # Of an event whose label was corrected the last one counts, once.
        last_words = {
            (prediction.source.partition, prediction.source.offset): (example, prediction)
            for (_, example), prediction in zip(examples, predictions, strict=True)
        }
        for example, prediction in last_words.values():
            if not prediction.fallback:
                _add(pairs[SERVED], example.label, prediction.prediction)
            for line, shadow in prediction.shadows.items():
                if shadow.offset is None:
                    _add(pairs.setdefault(line, []), example.label, shadow.prediction)
        points = {name: calibration(each) for name, each in pairs.items()}
        return {name: each for name, each in points.items() if each}, len(pairs[SERVED])


def _add(pairs: list[tuple[float, float]], label: LabelValue, answer: Answer | None) -> None:
    """Add truth and answer as numbers: of several classes, whether the likeliest one was it."""
    if answer is None:
        return
    if isinstance(answer, dict):
        pairs.append((float(label == likeliest(answer)), max(answer.values())))
    elif not isinstance(label, str):
        pairs.append((float(label), float(answer)))
