"""Every metric there is: its name, kind, labels and meaning.

Labels are bounded: stages, partitions, lines, topics, and words that the code or the declaration
has. None is a key, an id, a version or free text: of a version the number is the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.shell.metering.meter import Histogram

__all__ = ["FAMILIES", "Family", "Figure"]

Kind = Literal["counter", "gauge", "histogram"]
TASK = ("stage", "partition", "line")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Attributes:
        name: by the conventions of Prometheus.
        kind: counter, gauge or histogram.
        meaning: a phrase; the help text.
        labels: names of its labels.
        is_of_pipeline: whether it is of the whole pipeline, read from the log, rather than of the
            process that is asked.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    is_of_pipeline: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a metric; `labels` in the order of the family's."""

    name: str
    value: float | Histogram
    labels: tuple[str, ...] = ()


def _of_process(name: str, kind: Kind, meaning: str, *labels: str) -> Family:
    return Family(f"stream_ml_{name}", kind, meaning, labels, is_of_pipeline=False)


def _of_pipeline(name: str, kind: Kind, meaning: str, *labels: str) -> Family:
    return Family(f"stream_ml_{name}", kind, meaning, labels)


_ALL = (
    _of_process("build_info", "gauge", "1, labelled with the release.", "version"),
    _of_process("ready", "gauge", "Whether /readyz answers 200."),
    _of_process("records_in_total", "counter", "Records folded.", *TASK, "topic"),
    _of_process("records_out_total", "counter", "Records written and committed.", "topic"),
    _of_process("dead_letters_total", "counter", "Records refused.", "stage", "reason"),
    _of_process("batch_seconds", "histogram", "Time that a stage takes over a batch.", "stage"),
    _of_process("commit_seconds", "histogram", "Time that a commit takes."),
    _of_process(
        "answer_seconds",
        "histogram",
        "From the log's taking in an event to the commit of its prediction.",
    ),
    _of_process("task_state", "gauge", "1 for the state that a task is in.", *TASK, "state"),
    _of_process("recoveries_total", "counter", "Take-overs that have ended.", *TASK),
    _of_process("recovery_seconds", "gauge", "Duration of the last take-over.", *TASK),
    _of_process("replayed_records_total", "counter", "Records folded again.", *TASK),
    _of_process("inbox_records", "gauge", "Records fetched that wait inside a task.", *TASK),
    _of_process("inbox_bytes", "gauge", "Bytes of them; fetching pauses at 64 MiB.", *TASK),
    _of_process("restarts_total", "counter", "Workers started again after a death.", "stage"),
    _of_process(
        "http_requests_total", "counter", "Requests that were answered.", "route", "status"
    ),
    _of_process("http_request_seconds", "histogram", "Time until an answer began.", "route"),
    _of_process("http_waiting", "gauge", "Events published that wait for their predictions."),
    _of_process("http_streams", "gauge", "Open streams of server-sent events."),
    _of_pipeline("pipeline_info", "gauge", "1, labelled with its name.", "pipeline"),
    _of_pipeline("view_timestamp_seconds", "gauge", "When the log was last read for metrics."),
    _of_pipeline("view_read_seconds", "gauge", "How long that took."),
    _of_pipeline("view_failures_total", "counter", "Times that it could not be read."),
    _of_pipeline("lag_records", "gauge", "Records that wait for a task.", *TASK, "topic"),
    _of_pipeline("lag_seconds", "gauge", "How long the first of them waits.", *TASK, "topic"),
    _of_pipeline(
        "watermark_timestamp_seconds",
        "gauge",
        "Up to when, in the time of events, a stage knows everything.",
        "stage",
        "partition",
    ),
    _of_pipeline(
        "checkpoint_timestamp_seconds",
        "gauge",
        "When a task's state was written down (on Kafka).",
        "stage",
        "partition",
    ),
    _of_pipeline("events_total", "counter", "What became of events.", "outcome"),
    _of_pipeline("labels_total", "counter", "What became of labels.", "outcome"),
    _of_pipeline("labelled_ratio", "gauge", "Share of predictions that have a label."),
    _of_pipeline("held", "gauge", "What is held in memory, by kind.", "kind"),
    _of_pipeline("held_limit", "gauge", "Bound of that, in all partitions together.", "kind"),
    _of_pipeline("idle_partitions", "gauge", "Partitions of events that hold up nothing: silent."),
    _of_pipeline("dead_letter_records", "gauge", "Records on `dead-letters`, at most."),
    _of_pipeline("score", "gauge", "A model's score.", "line", "form", "score"),
    _of_pipeline("scored_examples_total", "counter", "Examples scored.", "line"),
    _of_pipeline("answer_ratio", "gauge", "Share of predictions with an answer.", "line"),
    _of_pipeline("label_delay_seconds", "gauge", "From event to label.", "line", "percentile"),
    _of_pipeline("evidence", "gauge", "That a challenger beats the champion.", "line"),
    _of_pipeline("evidence_needed", "gauge", "What of it suffices.", "line"),
    _of_pipeline("evidence_blocks", "gauge", "Blocks won, lost, tied.", "line", "outcome"),
    _of_pipeline("serving_info", "gauge", "1 for each that answers.", "role", "line"),
    _of_pipeline("serving_version", "gauge", "Its version: a count of examples.", "role", "line"),
    _of_pipeline(
        "snapshot_age_seconds", "gauge", "Its age, in the time of events.", "role", "line"
    ),
    _of_pipeline(
        "champion_since_timestamp_seconds", "gauge", "When the log took in that it serves."
    ),
    _of_pipeline("decisions_total", "counter", "Decisions on the registry.", "kind"),
    _of_pipeline(
        "hold", "gauge", "Whether paused, frozen, suspended, or a change is proposed.", "kind"
    ),
    _of_pipeline("line_answer_seconds", "gauge", "Cost of an answer.", "line"),
    _of_pipeline("line_example_seconds", "gauge", "Cost of learning an example.", "line"),
    _of_pipeline("line_snapshot_seconds", "gauge", "Cost of a snapshot.", "line"),
    _of_pipeline("line_snapshot_bytes", "gauge", "Size of the newest snapshot.", "line"),
    _of_pipeline("alerts_open", "gauge", "Open alerts.", "kind", "severity"),
    _of_pipeline("drift_columns", "gauge", "Columns that are not as usual.", "sign"),
    _of_pipeline("drift_distance", "gauge", "The largest distance from what is usual, 0 to 1."),
    _of_pipeline("drift_causes", "gauge", "What lies behind it.", "kind", "origin"),
    _of_pipeline("late_events_total", "counter", "Events too late to be compared."),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _ALL})
