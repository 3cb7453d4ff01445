"""Metrics and probes of a command that works until it is stopped, where it was asked for them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stream_ml.client import open_log
from stream_ml.shell.metering.meter import Meter

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from stream_ml.metrics.families import Figure
    from stream_ml.metrics.health import Probes
    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.listening import ListenAddress
    from stream_ml.shell.settings.settings import Settings

__all__ = ["listen_address", "metered"]


def listen_address(arguments: Namespace, settings: Settings) -> ListenAddress | None:
    """Where to answer scrapes and probes; None where nobody asked for it.

    Args:
        arguments: of the command line.
        settings: that the environment has.
    """
    address: ListenAddress | None = arguments.metrics
    return settings.metrics if address is None else address


@contextmanager
def metered(
    address: ListenAddress | None,
    settings: Settings,
    pipeline: Pipeline,
    key: bytes | None,
    say: Callable[[ListenAddress], object],
    *,
    tells_pipeline: bool = True,
    workers: Mapping[Any, ListenAddress] | None = None,
    probes: Probes | None = None,
    figures: Callable[[], Iterable[Figure]] = tuple,
) -> Iterator[Meter | None]:
    """The meter of this process, which is asked over HTTP until it is left; None without address.

    Args:
        address: where to answer.
        settings: name the log.
        pipeline: the declaration.
        key: checks decisions and alerts.
        say: told where it listens.
        tells_pipeline: whether this process tells the figures of the whole pipeline.
        workers: where those answer that it looks after, by name; None: it is a worker itself.
        probes: whether it is healthy and ready; None: as its tasks, or its workers, are.
        figures: others that it tells of itself.
    """
    if address is None:
        yield None
        return
    # Only who is asked needs it: an HTTP server, and the client of Prometheus.
    from stream_ml.metrics.health import WorkersProbes  # noqa: PLC0415
    from stream_ml.metrics.setup import serving_metrics  # noqa: PLC0415

    meter = Meter()
    if workers is not None:
        probes = WorkersProbes({str(name): each for name, each in workers.items()})
    with serving_metrics(
        address,
        meter,
        lambda: open_log(settings, pipeline.name),
        pipeline=pipeline if tells_pipeline else None,
        key=key,
        probes=None if probes is None else lambda _: probes,
        figures=figures,
    ) as listening:
        say(listening)
        yield meter
