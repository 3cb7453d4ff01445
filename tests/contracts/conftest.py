"""Every implementation of the log, for the laws to be tried on.

A further one joins `LOGS` (and `WORKER_LOGS`, if the embedded runner can have a session on it, and
`DURABLE`, if it can be closed and opened again) and no test changes.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from tests.kafka_broker import cluster_of_its_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from stream_ml.shell.log.port import Log, WorkerLog

    Opens = Callable[[pytest.FixtureRequest], AbstractContextManager[Callable[[], Log]]]

PARTITIONS = 4


@contextmanager
def sqlite_file(request: pytest.FixtureRequest) -> Iterator[Callable[[], SqliteLog]]:
    """Opens a log in a file, made the first time."""
    folder: Path = request.getfixturevalue("tmp_path")
    yield lambda: SqliteLog.open_or_create(folder / "log.db", partitions=PARTITIONS)


@contextmanager
def sqlite_memory(_: pytest.FixtureRequest) -> Iterator[Callable[[], SqliteLog]]:
    """Makes a log in memory."""
    yield lambda: SqliteLog.create(MEMORY, partitions=PARTITIONS)


@contextmanager
def kafka(request: pytest.FixtureRequest) -> Iterator[Callable[[], KafkaLog]]:
    """Opens the log of a pipeline that nobody else has, on a real broker."""
    broker: str = request.getfixturevalue("kafka_broker")
    with cluster_of_its_own(broker, "laws", PARTITIONS) as cluster:
        yield lambda: KafkaLog(cluster)


WORKER_LOGS: dict[str, Opens] = {"sqlite-file": sqlite_file, "sqlite-memory": sqlite_memory}
LOGS: dict[str, Opens] = {**WORKER_LOGS, "kafka": kafka}
DURABLE: dict[str, Opens] = {"sqlite-file": sqlite_file, "kafka": kafka}
DURABLE_WORKER_LOGS: dict[str, Opens] = {"sqlite-file": sqlite_file}


def _opened(request: pytest.FixtureRequest) -> Iterator[Log]:
    with request.param(request) as open_, open_() as opened:
        yield opened


def _opens(request: pytest.FixtureRequest) -> Iterator[Callable[[], Log]]:
    with request.param(request) as open_:
        yield open_


@pytest.fixture(params=LOGS.values(), ids=list(LOGS))
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    """An empty log whose scaling topics have `PARTITIONS` partitions, as clients have it."""
    yield from _opened(request)


@pytest.fixture(params=WORKER_LOGS.values(), ids=list(WORKER_LOGS))
def worker_log(request: pytest.FixtureRequest) -> Iterator[WorkerLog]:
    """The same, where the embedded runner can have a session."""
    yield from _opened(request)  # type: ignore[misc] # those of WORKER_LOGS are


@pytest.fixture(params=DURABLE.values(), ids=list(DURABLE))
def open_log(request: pytest.FixtureRequest) -> Iterator[Callable[[], Log]]:
    """Opens the same durable log each time; whoever calls it closes it."""
    yield from _opens(request)


@pytest.fixture(params=DURABLE_WORKER_LOGS.values(), ids=list(DURABLE_WORKER_LOGS))
def open_worker_log(request: pytest.FixtureRequest) -> Iterator[Callable[[], WorkerLog]]:
    """The same, where the embedded runner can have a session."""
    yield from _opens(request)  # type: ignore[misc] # those of DURABLE_WORKER_LOGS are
