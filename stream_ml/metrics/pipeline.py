"""Figures of the whole pipeline, as the views have them.

They are read when somebody scrapes, by a thread beside the worker, and seldom enough that reading
takes at most a hundredth of a processor: what was read is given out until then.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from stream_ml.metrics.families import Figure
from stream_ml.shell.log.reading import offset_count
from stream_ml.shell.views.alerts import read_alerts
from stream_ml.shell.views.drift import read_drift
from stream_ml.shell.views.models import read_models
from stream_ml.shell.views.status import read_status
from stream_ml.stages.alert_kinds import ALERT_KINDS, SEVERITIES
from stream_ml.stages.topology import parse_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from typing import Any

    from stream_ml.metrics.reader import LogReader
    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.alerts import AlertsView
    from stream_ml.shell.views.drift import DriftView
    from stream_ml.shell.views.models import ModelsView
    from stream_ml.shell.views.status import StatusView, TaskProgress

__all__ = ["PipelineFigures", "read_figures"]

REFRESH_S = 5.0
# Reading may take this part of a processor.
SHARE_MAX = 0.01
# How long a scrape waits for what is being read; Prometheus waits 10 s by default.
WAIT_S = 5.0
# Prometheus has `quantile` for summaries alone.
PERCENTILES = {"p50": "50", "p90": "90", "p99": "99"}
SIGNS = ("shift", "missing", "frozen", "units", "category")
HOLDS = ("paused", "frozen", "suspended", "proposed")


class PipelineFigures:
    """The figures, read anew now and then.

    Args:
        reader: reads the log that they come from.
        pipeline: the declaration.
        key: checks decisions and alerts.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        reader: LogReader,
        pipeline: Pipeline,
        key: bytes | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader, self._pipeline, self._key, self._clock = reader, pipeline, key, clock
        self._asking = threading.Lock()
        self._future: Future[None] | None = None
        self._due_s = 0.0
        self._failures = 0
        self._samples: list[Figure] = []

    def samples(self) -> list[Figure]:
        """The figures as last read; waits a moment where they are being read."""
        with self._asking:
            future = self._future
            if future is None or (future.done() and self._clock() >= self._due_s):
                future = self._future = self._reader.ask(self._read)
                future.add_done_callback(self._count)
        with suppress(Exception):  # it is counted
            future.result(WAIT_S)
        return [*self._samples, Figure("stream_ml_view_failures_total", self._failures)]

    def _count(self, future: Future[None]) -> None:
        if future.exception() is not None:
            self._failures += 1
            self._due_s = self._clock() + REFRESH_S

    def _read(self, log: Log) -> None:
        started_s, cpu_s = time.monotonic(), time.thread_time()
        samples = list(read_figures(log, self._pipeline, self._key))
        samples += [
            Figure("stream_ml_view_timestamp_seconds", time.time()),
            Figure("stream_ml_view_read_seconds", time.monotonic() - started_s),
        ]
        self._samples = samples
        cpu_s = time.thread_time() - cpu_s
        self._due_s = self._clock() + max(REFRESH_S, cpu_s / SHARE_MAX)


def read_figures(log: Log, pipeline: Pipeline, key: bytes | None) -> Iterator[Figure]:
    """The figures of a pipeline on a log.

    Args:
        log: to look at; a worker may be at work on it.
        pipeline: the declaration.
        key: checks decisions and alerts; without one all are believed.
    """
    status = read_status(log, key)
    yield Figure("stream_ml_pipeline_info", 1, (pipeline.name,))
    for progress in status.stages:
        yield from _lag(log, progress)
    yield from _progress(status, pipeline)
    yield Figure("stream_ml_dead_letter_records", offset_count(log, "dead-letters"))
    yield from _serving(status, read_models(log, status.registry, key))
    for evaluation in status.models:
        yield from _scores(evaluation)
    yield from _alerts(read_alerts(log, key))
    yield from _drift(read_drift(log))


def _lag(log: Log, progress: TaskProgress) -> Iterator[Figure]:
    task = parse_task(progress.task)
    labels = (task.stage, str(task.partition), task.line or "", progress.topic)
    yield Figure("stream_ml_lag_records", progress.lag, labels)
    yield Figure("stream_ml_lag_seconds", _waiting_s(log, progress), labels)


def _waiting_s(log: Log, progress: TaskProgress) -> float:
    """How long the first record that waits has lain on the log."""
    if not progress.lag:
        return 0.0
    records = log.read(progress.topic, progress.partition, progress.position, 1)
    return max(0.0, time.time() - records[0].append_ms / 1_000) if records else 0.0


def _progress(status: StatusView, pipeline: Pipeline) -> Iterator[Figure]:
    watermarks = {
        "predict": status.watermarks.events,
        "join": status.watermarks.labels,
        "evaluate": (status.watermarks.examples,),
    }
    for stage, times in watermarks.items():
        for partition, ms in enumerate(times):
            if ms >= 0:
                labels = (stage, str(partition))
                yield Figure("stream_ml_watermark_timestamp_seconds", ms / 1_000, labels)
    for name, written_ms in status.checkpoints.items():
        if written_ms is not None:
            task = parse_task(name)
            labels = (task.stage, str(task.partition))
            yield Figure("stream_ml_checkpoint_timestamp_seconds", written_ms / 1_000, labels)
    yield from _outcomes(status)
    for kind, count in status.held.items():
        yield Figure("stream_ml_held", count, (kind,))
    yield Figure("stream_ml_idle_partitions", len(status.idle_partitions))
    # What is held is counted over all tasks of join, and so is its bound.
    limit = pipeline.pending_max * len(status.watermarks.labels)
    for kind in ("predictions", "labels"):
        yield Figure("stream_ml_held_limit", limit, (kind,))


def _outcomes(status: StatusView) -> Iterator[Figure]:
    for name, counts in (("events", status.events), ("labels", status.labels)):
        for outcome, count in counts.items():
            yield Figure(f"stream_ml_{name}_total", count, (outcome,))
    if status.labelled is not None:
        yield Figure("stream_ml_labelled_ratio", status.labelled)


def _serving(status: StatusView, models: ModelsView) -> Iterator[Figure]:
    for model in models.models:
        line, _, version = model.model.rpartition("@")
        yield Figure("stream_ml_serving_info", 1, (model.role, line))
        yield Figure("stream_ml_serving_version", int(version), (model.role, line))
        if model.age_ms is not None:
            yield Figure("stream_ml_snapshot_age_seconds", model.age_ms / 1_000, (model.role, line))
    if status.since is not None:
        since_s = status.since.append_ms / 1_000
        yield Figure("stream_ml_champion_since_timestamp_seconds", since_s)
    kinds = Counter(entry.decision.kind for entry in status.registry.decisions)
    for kind, count in kinds.items():
        yield Figure("stream_ml_decisions_total", count, (kind,))
    for kind in HOLDS:
        yield Figure("stream_ml_hold", getattr(status, kind) is not None, (kind,))
    for line, cost in status.costs.items():
        figures = {
            "answer_seconds": None if cost.answer_us is None else cost.answer_us / 1e6,
            "example_seconds": None if cost.example_us is None else cost.example_us / 1e6,
            "snapshot_seconds": cost.snapshot_s,
            "snapshot_bytes": cost.snapshot_bytes,
        }
        for name, figure in figures.items():
            if figure is not None:
                yield Figure(f"stream_ml_line_{name}", figure, (line,))


def _scores(evaluation: Mapping[str, Any]) -> Iterator[Figure]:
    line = evaluation["model"]
    for form, scores in evaluation["scores"].items():
        for score, figure in scores.items():
            yield Figure("stream_ml_score", figure, (line, form, score))
    yield Figure("stream_ml_scored_examples_total", evaluation["n"], (line,))
    yield Figure("stream_ml_answer_ratio", evaluation["coverage"], (line,))
    for name, percentile in PERCENTILES.items():
        delay_ms = (evaluation.get("delay_ms") or {}).get(name)
        if isinstance(delay_ms, int | float):
            yield Figure("stream_ml_label_delay_seconds", delay_ms / 1_000, (line, percentile))
    evidence = evaluation.get("evidence")
    if evidence:
        yield Figure("stream_ml_evidence", evidence["e_value"], (line,))
        yield Figure("stream_ml_evidence_needed", evidence["needed"], (line,))
        for outcome in ("wins", "losses", "ties"):
            yield Figure("stream_ml_evidence_blocks", evidence[outcome], (line, outcome))


def _alerts(alerts: AlertsView) -> Iterator[Figure]:
    # A kind that we do not know is of another release, or anybody's words.
    kinds = Counter(
        (alert.kind if alert.kind in ALERT_KINDS else "other", alert.severity)
        for alert in alerts.open
    )
    for severity in SEVERITIES:
        yield Figure(
            "stream_ml_alerts_open", kinds.pop(("other", severity), 0), ("other", severity)
        )
    for labels, count in kinds.items():
        yield Figure("stream_ml_alerts_open", count, labels)


def _drift(drift: DriftView) -> Iterator[Figure]:
    signs = Counter(each.sign for each in drift.moved)
    for sign in SIGNS:
        yield Figure("stream_ml_drift_columns", signs[sign], (sign,))
    distance = max((each.distance for each in drift.moved), default=0.0)
    yield Figure("stream_ml_drift_distance", distance)
    for (kind, origin), count in Counter((each.kind, each.origin) for each in drift.causes).items():
        yield Figure("stream_ml_drift_causes", count, (kind, origin))
    yield Figure("stream_ml_late_events_total", drift.late)
