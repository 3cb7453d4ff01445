"""The newest predictions, and the newest ones whose label has come."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ml.codec import decode_example, decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.shell.log.reading import last_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.records import LabelValue, Prediction, Record
    from stream_ml.shell.log.port import Log

__all__ = ["Recent", "RecentPrediction", "label_of", "predictions_of", "read_recent"]

ROWS = 6
KEY_ROWS = 50
# So many of the last records are looked through for one key, or one label.
SEARCHED_MAX = 5_000


@dataclass(frozen=True, slots=True)
class RecentPrediction:
    """A prediction and where it lies; with its label, once that has come."""

    prediction: Prediction
    href: str
    label: LabelValue | None = None
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Recent:
    """What the page shows of single predictions, the newest first."""

    newest: tuple[RecentPrediction, ...] = ()
    labelled: tuple[RecentPrediction, ...] = ()


def read_recent(log: Log) -> Recent:
    """The newest predictions of a log.

    Args:
        log: that they lie on.
    """
    newest = sorted(
        _decoded(last_records(log, "predictions", ROWS)),
        key=lambda each: (each.prediction.ts, each.href),
        reverse=True,
    )
    return Recent(tuple(newest[:ROWS]), tuple(_labelled(log)))


def predictions_of(log: Log, key: str) -> list[RecentPrediction]:
    """The last predictions of one key, the newest first, of those that came lately.

    Args:
        log: that they lie on.
        key: of the entity.
    """
    records = last_records(log, "predictions", SEARCHED_MAX)
    found = [each for each in _decoded(records) if each.prediction.key == key]
    return sorted(found, key=lambda each: each.prediction.ts, reverse=True)[:KEY_ROWS]


def label_of(log: Log, prediction: Prediction) -> tuple[LabelValue, int] | None:
    """The label of a prediction and how long after it came (ms), if that was lately.

    Args:
        log: that it lies on.
        prediction: that the label is of.
    """
    for record in reversed(last_records(log, "examples", SEARCHED_MAX)):
        if record.value is not None and prediction.event_id.encode() in record.value:
            for each in _examples([record]):
                if each.label is not None and each.prediction.source == prediction.source:
                    return each.label, each.delay_ms or 0
    return None


def _labelled(log: Log) -> Iterator[RecentPrediction]:
    examples = list(_examples(last_records(log, "examples", ROWS)))
    yield from reversed(examples[-ROWS:])


def _decoded(records: list[Record]) -> Iterator[RecentPrediction]:
    for record in records:
        with suppress(BadRecord):  # what is none is join's to tell of
            yield RecentPrediction(
                decode_prediction(record.value),
                f"/page/predictions/{record.partition}/{record.offset}",
            )


def _examples(records: list[Record]) -> Iterator[RecentPrediction]:
    for record in records:
        with suppress(BadRecord):
            example = decode_example(record.value)
            yield RecentPrediction(
                example.prediction,
                f"/page/examples/{record.partition}/{record.offset}",
                example.label,
                delay_ms=max(0, example.label_ts - example.prediction.ts),
            )
