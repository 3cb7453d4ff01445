"""The endpoint of a process, as its settings want it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from stream_ml import __version__
from stream_ml.metrics.endpoint import Endpoint
from stream_ml.metrics.exposition import Exposition, meter_samples
from stream_ml.metrics.families import Figure
from stream_ml.metrics.health import WorkerProbes
from stream_ml.metrics.pipeline import PipelineFigures
from stream_ml.metrics.reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_ml.metrics.health import Probes
    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.metering.meter import Meter
    from stream_ml.shell.settings.listening import ListenAddress

__all__ = ["serving_metrics"]


@contextmanager
def serving_metrics(
    address: ListenAddress,
    meter: Meter,
    open_log: Callable[[], Log],
    *,
    pipeline: Pipeline | None = None,
    key: bytes | None = None,
    probes: Callable[[LogReader], Probes] | None = None,
    figures: Callable[[], Iterable[Figure]] = tuple,
) -> Iterator[ListenAddress]:
    """Answer scrapes and probes of this process, until it is left.

    Args:
        address: where to listen; port 0 takes a free one.
        meter: of this process.
        open_log: opens the log, which threads beside the worker read.
        pipeline: the declaration, where this process tells the figures of the whole pipeline;
            None: it does not.
        key: checks decisions and alerts for that.
        probes: makes what tells whether it is healthy and ready; None: as its tasks are.
        figures: others of the process.

    Returns:
        Where it listens.

    Raises:
        UsageError: it cannot listen there, or prometheus-client is not installed.
    """
    reader, probe_reader = LogReader(open_log), LogReader(open_log)
    make_probes = probes or partial(WorkerProbes, meter, wall_clock=time.time)
    asked: Probes = make_probes(probe_reader)
    sources: list[Callable[[], Iterable[Figure]]] = [
        partial(_of_process, asked),
        partial(meter_samples, meter),
        figures,
    ]
    if pipeline is not None:
        sources.append(PipelineFigures(reader, pipeline, key).samples)
    try:
        with Endpoint(
            address,
            write_metrics=Exposition(sources).write,
            healthy=asked.healthy,
            ready=asked.ready,
        ) as endpoint:
            yield endpoint.address
    finally:
        reader.close()
        probe_reader.close()


def _of_process(probes: Probes) -> Iterator[Figure]:
    yield Figure("stream_ml_build_info", 1, (__version__,))
    yield Figure("stream_ml_ready", not probes.ready().problems)
