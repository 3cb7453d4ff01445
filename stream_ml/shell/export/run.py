"""An export: the records of a topic as rows, in the order of the log, into a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord
from stream_ml.records import is_forgotten
from stream_ml.sealing import Seals
from stream_ml.shell.export.files import check_place, writer_of
from stream_ml.shell.export.tables import table_of
from stream_ml.shell.forget import is_marker
from stream_ml.shell.log.reading import read_partition, with_answers
from stream_ml.shell.log.unsealing import unsealing_of
from stream_ml.shell.views.registry import running_pipeline
from stream_ml.shell.whole_files import whole_file
from stream_ml.stages.inputs import example_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example, Record
    from stream_ml.shell.export.tables import Row, Table
    from stream_ml.shell.log.port import Log

__all__ = ["Export", "export"]

# Rows are handed on so many at a time: all that an export holds, but for a group of Parquet's.
BATCH_ROWS = 5_000


@dataclass(slots=True)
class Export:
    """What an export did.

    Attributes:
        rows: how many were written.
        outside: how many records lie outside of the time that was asked for.
        refused: how many records are none of their topic, by reason.
        first_refused: where the first of them lies, and what is wrong with it.
        left_out: what `forget` has left among them, by what it is, how many.
    """

    rows: int = 0
    outside: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    first_refused: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def refuse(self, record: Record, error: BadRecord) -> None:
        """Count a record that is none.

        Args:
            record: as it lies on the log.
            error: what is wrong with it.
        """
        self.refused[error.reason] += 1
        if self.first_refused is None:
            self.first_refused = (
                f"{record.topic}-{record.partition}, offset {record.offset}: {error}"
            )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows,
            "outside": self.outside,
            "refused": dict(sorted(self.refused.items())),
            "first_refused": self.first_refused,
            "left_out": dict(sorted(self.left_out.items())),
        }


def export(
    log: Log,
    pipeline: Pipeline,
    key: bytes | None,
    subject: str,
    path: Path,
    *,
    since: int | None = None,
    until: int | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Export:
    """Write what lies on a log to a file, whose ending says of which kind.

    Records of one partition come behind those of another, each in the order of the log.

    Args:
        log: to read from.
        pipeline: the declaration that it was written under.
        key: checks seals and signatures; without one all is believed.
        subject: one of `tables.SUBJECTS`.
        path: of the file; one that is there is replaced.
        since: only records of that time and later (UTC ms).
        until: only records before that time (UTC ms).
        on_progress: is told how many records were read.

    Raises:
        UsageError: the file cannot be of that name, or its kind lacks its library.
    """
    pipeline = running_pipeline(log, pipeline, key)
    table = table_of(subject, pipeline, key)
    make_writer = writer_of(path)
    check_place(path)
    result = Export()
    records = _records(log, pipeline, key, table, result)
    with whole_file(path) as file:
        writer = make_writer(file, table.columns)
        for rows, count in _batches(records, table, result, since, until):
            writer.write(rows)
            result.rows += len(rows)
            if on_progress is not None:
                on_progress(count)
        writer.close()
    return result


def _batches(
    records: Iterator[tuple[Record, bytes | None]],
    table: Table,
    result: Export,
    since: int | None,
    until: int | None,
) -> Iterator[tuple[list[Row], int]]:
    """The rows of the time that is asked for, and how many records were read so far."""
    rows: list[Row] = []
    count = 0
    for count, (record, body) in enumerate(records, start=1):
        try:
            row, ts = table.row(record, body)
        except BadRecord as error:
            result.refuse(record, error)
        else:
            if (since is None or ts >= since) and (until is None or ts < until):
                rows.append(row)
            else:
                result.outside += 1
        if count % BATCH_ROWS == 0:
            yield rows, count
            rows = []
    yield rows, count


def _records(
    log: Log, pipeline: Pipeline, key: bytes | None, table: Table, result: Export
) -> Iterator[tuple[Record, bytes | None]]:
    """The records of the table's topic that bear our seal, without it."""
    if table.topic == "examples":
        seals = None if key is None else Seals(key, pipeline.name, log.identity)
        seal = None if seals is None else seals.records("answers")
        for record, example in with_answers(log, _examples(log, pipeline, key, result), seal):
            record.memo = example
            yield record, None
        return
    yield from _unsealed(log, pipeline, key, table.topic, result)


def _unsealed(
    log: Log, pipeline: Pipeline, key: bytes | None, topic: str, result: Export
) -> Iterator[tuple[Record, bytes | None]]:
    for partition in range(log.partitions[topic]):
        unsealing = unsealing_of(key, pipeline.name, log.identity, topic)
        for record in read_partition(log, topic, partition):
            if is_forgotten(record):
                result.left_out["forgotten"] += 1
                continue
            if topic in {"events", "labels"} and is_marker(pipeline, record):
                result.left_out["markers"] += 1
                continue
            try:
                body = unsealing.body(record)
            except BadRecord as error:
                result.refuse(record, error)
                continue
            yield record, body


def _examples(
    log: Log, pipeline: Pipeline, key: bytes | None, result: Export
) -> Iterator[tuple[Record, Example]]:
    for record, body in _unsealed(log, pipeline, key, "examples", result):
        record.value = body
        example = example_in(record, pipeline)
        if isinstance(example, BadRecord):
            result.refuse(record, example)
        else:
            yield record, example
