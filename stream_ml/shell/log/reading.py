"""Reads a topic of a log to its end: as records, or decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING

import orjson

from stream_ml.codec import decode_answers, decode_decision, decode_example, decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.records import Evaluation, Shadow
from stream_ml.sealing import strip_seal
from stream_ml.shell.log.port import read_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_ml.label import Label
    from stream_ml.records import (
        Decision,
        Example,
        LabelValue,
        Prediction,
        Record,
        ShadowAnswers,
    )
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Log, PartitionId

__all__ = [
    "decisions",
    "ends_of",
    "evaluations",
    "examples",
    "filled",
    "last_labels",
    "last_records",
    "offset_count",
    "predictions_in",
    "read_all",
    "read_partition",
    "registry_records",
    "shadow_answers",
    "tally",
    "with_answers",
]

READ_RECORDS = 5_000


def ends_of(log: Log, topics: Iterable[str]) -> dict[PartitionId, int]:
    """The next offset of each partition of topics.

    Args:
        log: to ask.
        topics: of the catalogue.
    """
    return {
        (topic, partition): log.end_offset(topic, partition)
        for topic in topics
        for partition in range(log.partitions[topic])
    }


def read_all(log: Log, topic: str) -> Iterator[Record]:
    """The records of a topic, partition by partition.

    Args:
        log: to read from.
        topic: one of the catalogue.
    """
    for partition in range(log.partitions[topic]):
        yield from read_partition(log, topic, partition)


def read_partition(
    log: Log, topic: str, partition: int, start: int | None = None
) -> Iterator[Record]:
    """The records of one partition, in their order.

    Args:
        log: to read from.
        topic: one of the catalogue.
        partition: from 0.
        start: the first offset; None for the beginning.
    """
    offset = log.first_offset(topic, partition) if start is None else start
    while records := log.read(topic, partition, offset, READ_RECORDS):
        yield from records
        offset = records[-1].offset + 1


def offset_count(log: Log, topic: str) -> int:
    """How many offsets a topic has that are still there: at least as many as its records.

    Args:
        log: to look at.
        topic: one of the catalogue.
    """
    return sum(
        log.end_offset(topic, partition) - log.first_offset(topic, partition)
        for partition in range(log.partitions[topic])
    )


def examples(log: Log, label: Label | None = None) -> Iterator[Example]:
    """The examples, decoded, with the answers of their shadows.

    What is none is passed over: learn and evaluate tell of it. Where labels may be corrected, each
    example has its last one.

    Args:
        log: to read from.
        label: as it is declared; None: what corrects another comes as an example of its own.
    """
    decoded = _decoded_examples(log)
    if label is not None and label.revisable_ms is not None:
        decoded = _with_last_words(log)
    return (example for _, example in with_answers(log, decoded))


def last_labels(log: Log) -> dict[tuple[int, int], LabelValue]:
    """The last labels of the events whose labels were corrected, by the event's place.

    Args:
        log: to read from.
    """
    return {
        _place(example): example.label
        for _, example in _decoded_examples(log)
        if example.correction is not None
    }


def _with_last_words(log: Log) -> Iterator[tuple[Record, Example]]:
    """The first example of each event, with the last label that it was given."""
    last = last_labels(log)
    for record, example in _decoded_examples(log):
        if example.correction is None:
            example.label = last.get(_place(example), example.label)
            yield record, example


def _place(example: Example) -> tuple[int, int]:
    source = example.prediction.source
    return source.partition, source.offset


def _decoded_examples(log: Log) -> Iterator[tuple[Record, Example]]:
    for record in read_all(log, "examples"):
        try:
            yield record, decode_example(record.value)
        except BadRecord:
            continue


def with_answers(
    log: Log, pairs: Iterable[tuple[Record, Example]], seal: RecordSeal | None = None
) -> Iterator[tuple[Record, Example]]:
    """The same examples, with the answers that their shadows have on `answers`, if they have any.

    Args:
        log: that they lie on.
        pairs: records of `examples`, in their order, each with the example in it.
        seal: what the answers must be sealed with; without one all are believed.
    """
    remaining = shadow_answers(log, seal)
    answers = next(remaining, None)
    for record, example in pairs:
        while answers is not None and answers.example < record.offset:
            answers = next(remaining, None)
        if answers is not None and answers.example == record.offset:
            example.prediction = filled(example.prediction, answers)
        yield record, example


def filled(prediction: Prediction, answers: ShadowAnswers) -> Prediction:
    """The prediction with the answers of those of its shadows that have none yet.

    Args:
        prediction: as it was logged.
        answers: to the example that it has become.
    """
    shadows = dict(prediction.shadows)
    for slot, answer in answers.shadows.items():
        shadow = shadows.get(slot)
        if shadow is not None and shadow.offset is not None and shadow.model == answer.model:
            shadows[slot] = Shadow(answer.model, answer.prediction)
    return prediction.with_shadows(shadows)


def shadow_answers(log: Log, seal: RecordSeal | None = None) -> Iterator[ShadowAnswers]:
    """What shadows said of the examples, in their order; none on the log of a former release.

    Args:
        log: to read from.
        seal: what they must be sealed with; without one all are believed.
    """
    if "answers" not in log.partitions:
        return
    end = log.end_offset("examples", 0)
    for record in read_all(log, "answers"):
        try:
            body = strip_seal(record.value) if seal is None else seal.unseal(record.value)
            answers = decode_answers(body)
        except BadRecord:
            continue  # only evaluate writes there: it is not ours
        if answers.example < end:
            yield answers


def predictions_in(
    records: Iterable[Record], on_refused: Callable[[Record, BadRecord], object] | None = None
) -> Iterator[tuple[Record, Prediction]]:
    """The predictions among `records`; one that is none ends no reader.

    Args:
        records: of `predictions`.
        on_refused: is told of what is none, and why; join writes a dead letter about it, too.
    """
    for record in records:
        try:
            prediction = decode_prediction(record.value)
        except BadRecord as error:
            if on_refused is not None:
                on_refused(record, error)
            continue
        yield record, prediction


def decisions(log: Log, key: bytes | None) -> Iterator[Decision]:
    """The decisions on the registry, their signatures checked where there is a key.

    Args:
        log: that the registry lies on.
        key: checks signatures; without one all is believed.

    Raises:
        BadRecord: one is not signed with `key`.
    """
    for _, decision in registry_records(log, key):
        if isinstance(decision, BadRecord):
            raise decision
        yield decision


def registry_records(log: Log, key: bytes | None) -> Iterator[tuple[Record, Decision | BadRecord]]:
    """The records of the registry, each with its decision, or with why it is none of ours.

    Args:
        log: that the registry lies on.
        key: checks signatures; without one all is believed.
    """
    for record in read_all(log, "registry"):
        try:
            decision = decode_decision(record.value, key)
        except BadRecord as refusal:
            yield record, refusal
        else:
            yield record, decision


def evaluations(log: Log) -> Iterator[Evaluation]:
    """How every model stood, each time it was written down."""
    bodies = (orjson.loads(record.value or b"{}") for record in read_all(log, "evaluations"))
    members = {member.name for member in fields(Evaluation)}
    # Beside its members a record has a seal, and may have what another release adds.
    return (
        Evaluation(**{name: value for name, value in body.items() if name in members})
        for body in bodies
    )


def tally(log: Log, topic: str, member: str) -> dict[str, int]:
    """How many records of a topic hold each value of `member`, by value.

    Args:
        log: to read from.
        topic: one of the catalogue.
        member: at the top of its records.
    """
    counts: Counter[str] = Counter()
    for record in read_all(log, topic):
        counts[orjson.loads(record.value or b"{}").get(member)] += 1
    return dict(sorted(counts.items()))


def last_records(log: Log, topic: str, count: int) -> list[Record]:
    """Up to so many of the last records of a topic's each partition.

    Args:
        log: that they lie on.
        topic: that they are of.
        count: how many of each partition.
    """
    records = []
    for partition in range(log.partitions[topic]):
        first, end = log.first_offset(topic, partition), log.end_offset(topic, partition)
        reach = count
        tail_records = list(read_between(log, topic, partition, max(first, end - reach), end))
        # Offsets have gaps, so it may be further back than it seems.
        while len(tail_records) < count and end - reach > first:
            reach *= 8
            tail_records = list(read_between(log, topic, partition, max(first, end - reach), end))
        records += tail_records[-count:]
    return records
