"""What a scrape gets: the figures of a process, and of its pipeline where it tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.errors import UsageError
from stream_ml.metrics.families import FAMILIES, Figure
from stream_ml.shell.metering.meter import STATES, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from stream_ml.shell.metering.meter import Meter
    from stream_ml.stages.topology import TaskName

__all__ = ["Exposition", "meter_samples"]


class Exposition:
    """Writes figures as Prometheus reads them.

    Args:
        sources: give the figures.

    Raises:
        UsageError: prometheus-client is not installed.
    """

    def __init__(self, sources: Iterable[Callable[[], Iterable[Figure]]]) -> None:
        try:
            import prometheus_client  # noqa: PLC0415 - an extra; only who is scraped needs it
            from prometheus_client import core, exposition  # noqa: PLC0415 - as above
        except ImportError:
            raise UsageError(
                'metrics need prometheus-client: pip install "stream-ml[metrics]"'
            ) from None
        self._sources = list(sources)
        self._core: Any = core
        self._choose = exposition.choose_encoder
        self._registry = prometheus_client.CollectorRegistry()
        # CPU, memory and open files of this process, by the names that all clients have.
        prometheus_client.ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def write(self, accept: str) -> tuple[bytes, str]:
        """What there is to tell now, and its content type.

        Args:
            accept: the header of whoever asks: text or OpenMetrics.
        """
        encode, content_type = self._choose(accept)
        return encode(self._registry), content_type

    def describe(self) -> list[Any]:
        """Nothing: whatever is registered is asked when somebody scrapes, and not before."""
        return []

    def collect(self) -> Iterator[Any]:
        """The figures, as the client library has them; it asks."""
        by_name: dict[str, list[Figure]] = {}
        for source in self._sources:
            for sample in source():
                by_name.setdefault(sample.name, []).append(sample)
        for name, family in FAMILIES.items():
            if name in by_name:
                yield self._metric(name, by_name[name], family.labels)

    def _metric(self, name: str, samples: list[Figure], labels: tuple[str, ...]) -> Any:
        family, core = FAMILIES[name], self._core
        kinds = {
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
        }
        metric = kinds[family.kind](name.removesuffix("_total"), family.meaning, labels=labels)
        for sample in samples:
            if isinstance(sample.value, Histogram):
                metric.add_metric(sample.labels, _buckets(sample.value), sample.value.total)
            else:
                metric.add_metric(sample.labels, float(sample.value))
        return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound."""
    counts, so_far, buckets = list(histogram.counts), 0, []
    for bound, count in zip([*histogram.bounds, float("inf")], counts, strict=True):
        so_far += count
        buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(so_far)))
    return buckets


def meter_samples(meter: Meter) -> Iterator[Figure]:
    """The figures of a process.

    Args:
        meter: of the process.
    """
    for (task, topic), count in meter.records_in.copy().items():
        yield Figure("stream_ml_records_in_total", count, (*_labels(task), topic))
    for topic, count in meter.records_out.copy().items():
        yield Figure("stream_ml_records_out_total", count, (topic,))
    for labels, count in meter.dead_letters.copy().items():
        yield Figure("stream_ml_dead_letters_total", count, labels)
    for stage, histogram in meter.batch_seconds.copy().items():
        yield Figure("stream_ml_batch_seconds", histogram, (stage,))
    yield Figure("stream_ml_commit_seconds", meter.commit_seconds)
    yield Figure("stream_ml_answer_seconds", meter.answer_seconds)
    yield from _recoveries(meter)


def _recoveries(meter: Meter) -> Iterator[Figure]:
    for task, state in meter.states.copy().items():
        for each in STATES:
            yield Figure("stream_ml_task_state", each == state, (*_labels(task), each))
    by_task: dict[str, Mapping[TaskName, float]] = {
        "recoveries_total": meter.recoveries.copy(),
        "recovery_seconds": meter.recovery_seconds.copy(),
        "replayed_records_total": meter.replayed.copy(),
    }
    for name, figures in by_task.items():
        for task, figure in figures.items():
            yield Figure(f"stream_ml_{name}", figure, _labels(task))
    for task, (records, size) in meter.inbox().items():
        yield Figure("stream_ml_inbox_records", records, _labels(task))
        yield Figure("stream_ml_inbox_bytes", size, _labels(task))
    for stage, count in meter.restarts.copy().items():
        yield Figure("stream_ml_restarts_total", count, (stage,))


def _labels(task: TaskName) -> tuple[str, str, str]:
    return task.stage, str(task.partition), task.line or ""
