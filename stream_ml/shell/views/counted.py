"""The examples that count, as learn and evaluate take them off the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord
from stream_ml.shell.log.reading import read_all
from stream_ml.stages.inputs import example_in
from stream_ml.stages.numbering import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example, Record
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.log.unsealing import Unsealing

__all__ = ["counted_examples"]


def counted_examples(
    log: Log, pipeline: Pipeline, unsealing: Unsealing | None = None, last: int | None = None
) -> Iterator[tuple[Record, Example]]:
    """The examples that learn and evaluate count, in their order: each once, no others.

    Args:
        log: that they lie on.
        pipeline: the declaration.
        unsealing: tells which are ours; without it all are believed.
        last: the offset of the last one; None: to the end of the log.
    """
    numbers = Numbers()
    for record in read_all(log, "examples"):
        if last is not None and record.offset > last:
            return  # it may be of another declaration than this one
        try:
            if unsealing is not None:
                record.value = unsealing.body(record)
            example = example_in(record, pipeline)
            if isinstance(example, BadRecord):
                continue
            numbers.take(example.label_source.partition, example.number)
        except BadRecord:
            continue
        yield record, example
