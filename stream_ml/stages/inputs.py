"""Checks that every stage makes of a record from outside before it folds it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from stream_ml.codec import check_prediction, decode_example, decode_prediction
from stream_ml.errors import BadRecord, UsageError
from stream_ml.features.durations import duration_text
from stream_ml.records import is_forgotten
from stream_ml.sealing import strip_seal
from stream_ml.time_units import time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example, LabelValue, Prediction, Record
    from stream_ml.sealing import RecordSeal

__all__ = [
    "example_in",
    "forgotten_error",
    "open_sealed",
    "parse_once",
    "prediction_in",
    "refuse_future",
    "without_frames",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def parse_once(record: Record, decode: Callable[[Record, *Ts], T], *context: *Ts) -> T | BadRecord:
    """The value that `decode` makes of a record, or the error; kept as the record's memo.

    Args:
        record: as it was read; it keeps the answer for the next stage that reads it.
        decode: makes a value of a record, or raises BadRecord.
        context: passed on to `decode`.
    """
    if record.memo is None:
        try:
            record.memo = decode(record, *context)
        except BadRecord as error:
            record.memo = without_frames(error)
    return record.memo  # type: ignore[no-any-return]  # a memo is what decoding gave


def without_frames(error: BadRecord) -> BadRecord:
    """The error, rid of the frames that it came through.

    Kept as its record's memo it would keep them, they keep their batch, and that the record: a ring
    that only the collector of cycles undoes, which comes late (measured: 60 MB a minute).
    """
    error.__traceback__ = error.__context__ = None
    return error


def open_sealed(records: Sequence[Record], seal: RecordSeal, *, unsealed_before: int = 0) -> None:
    """Take the seals off; what has none of ours gets what is wrong with it as its memo.

    Args:
        records: as they lie on the log, of the topic of `seal`.
        seal: what they must be sealed with.
        unsealed_before: the offset below which a former release wrote, without seals.
    """
    for record in records:
        if is_forgotten(record):
            record.memo = forgotten_error()
            continue
        try:
            record.value = seal.unseal(record.value)
        except BadRecord as error:
            if record.offset >= unsealed_before or strip_seal(record.value) != record.value:
                record.memo = without_frames(error)


def forgotten_error() -> BadRecord:
    """What is wrong with a record that was forgotten: nothing but that it is gone."""
    return BadRecord("forgotten", "$", "it was forgotten, by a command that the audit shows")


def refuse_future(record: Record, ts: int, skew_ms: int, member: str) -> None:
    """Refuse what is dated later than it came, or one slip of a clock would close every window.

    Args:
        record: as it was read.
        ts: its time, UTC milliseconds.
        skew_ms: how much later than its append time that may be.
        member: that holds the time, for the path in the error.

    Raises:
        BadRecord: `ts` is more than `skew_ms` past the record's append time.
    """
    if ts > record.append_ms + skew_ms:
        raise BadRecord(
            "from_the_future",
            f"$.{member}",
            f"expected at most {duration_text(skew_ms)} past its arrival at "
            f"{time_text(record.append_ms)}, given {time_text(ts)}",
        )


def prediction_in(record: Record, pipeline: Pipeline) -> Prediction | BadRecord:
    """The prediction in `record`, one that this pipeline can have made, or what is wrong with it.

    What is read here was written by a stage, or by whoever may write its topic.

    Args:
        record: of the topic `predictions`.
        pipeline: the declaration.
    """
    return parse_once(record, _prediction, pipeline)


def _prediction(record: Record, pipeline: Pipeline) -> Prediction:
    prediction = decode_prediction(record.value)
    check_prediction(prediction, pipeline.target.kind, pipeline.known_features)
    refuse_future(record, prediction.ts, pipeline.skew_ms, "ts")
    return prediction


def example_in(record: Record, pipeline: Pipeline) -> Example | BadRecord:
    """The example in `record`, one that this pipeline can have made, or what is wrong with it.

    Args:
        record: of the topic `examples`.
        pipeline: the declaration.
    """
    return parse_once(record, _example, pipeline)


def _label(example: Example, pipeline: Pipeline) -> LabelValue:
    """The label of an example, as it is declared."""
    kind = pipeline.label_codec.kind
    try:
        label: LabelValue = kind.check("label", example.label)
    except BadRecord as error:
        if error.reason != "unknown_category":
            raise
        event_id = example.prediction.event_id
        raise UsageError(
            f"examples: expected labels of {kind}, given {example.label!r} for the event "
            f"{event_id!r}: it was joined under a declaration with more classes; run this one "
            "under that, too"
        ) from None
    return label


def _example(record: Record, pipeline: Pipeline) -> Example:
    example = decode_example(record.value)
    check_prediction(example.prediction, pipeline.target.kind, pipeline.known_features)
    example.label = _label(example, pipeline)
    correction = example.correction
    if correction is not None:
        correction.label = pipeline.label_codec.kind.check("correction.label", correction.label)
    refuse_future(record, example.label_ts, pipeline.skew_ms, "label_ts")
    if example.label_ts < example.prediction.ts:
        raise BadRecord(
            "malformed",
            "$.label_ts",
            f"expected at least the time of the prediction, {example.prediction.ts}, given "
            f"{example.label_ts}",
        )
    return example
