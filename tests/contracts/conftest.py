"""Every implementation of the log, for the laws to be tried on.

A further one joins `LOGS` (and `DURABLE`, if it can be closed and opened again) and no test
changes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from stream_ml.shell.sqlite_log import MEMORY, SqliteLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_ml.shell.log import Log

PARTITIONS = 4


def sqlite_file(folder: Path) -> SqliteLog:
    """A log in a file of `folder`, made the first time."""
    return SqliteLog.open_or_create(folder / "log.db", partitions=PARTITIONS)


def sqlite_memory(_: Path) -> SqliteLog:
    """A log in memory."""
    return SqliteLog.create(MEMORY, partitions=PARTITIONS)


LOGS = {"sqlite-file": sqlite_file, "sqlite-memory": sqlite_memory}
DURABLE = {"sqlite-file": sqlite_file}


@pytest.fixture(params=LOGS.values(), ids=list(LOGS))
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """An empty log whose scaling topics have `PARTITIONS` partitions."""
    opened = request.param(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(params=DURABLE.values(), ids=list(DURABLE))
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Log]:
    """Opens the same durable log each time; whoever calls it closes it."""
    return partial(request.param, tmp_path)
