"""The log that a command's settings name, which a worker may be at work on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import utf8
from stream_ml.client import open_log
from stream_ml.errors import LogError
from stream_ml.shell.settings.keys import check_name
from stream_ml.shell.settings.loader import declared_pipeline

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from stream_ml.shell.log.port import Isolation, Log
    from stream_ml.shell.processes.stop import Stop
    from stream_ml.shell.settings.settings import Settings

__all__ = ["add_archive", "awaited_log", "existing_log"]

# How often a log that is not there yet is looked for.
LOOK_S = 0.2


def add_archive(parser: ArgumentParser) -> None:
    """Let a command read an archive before what the log still has.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--archive",
        type=utf8,
        metavar="ADDRESS",
        help="an archive of the log: what retention has removed is read there",
    )


def existing_log(
    settings: Settings, *, isolation: Isolation = "committed", archive: str | None = None
) -> Log:
    """The log that is set, in a file or on a cluster, which must be there: reading makes none.

    Args:
        settings: say where.
        isolation: what readers see of transactions; the embedded log's are all committed.
        archive: the address of an archive that is read before it; None: none is.

    Raises:
        LogError: it is not there, or the archive is not.
        UsageError: it is on a cluster, and the pipeline's name is not known; or it is the file of
            another pipeline than the command line names.
    """
    name = None
    # A command that only reads a file need not wait for a declaration that the surroundings name.
    has_declaration = settings.on_kafka or settings.by_option("pipeline")
    pipeline = declared_pipeline(settings) if has_declaration else None
    if pipeline is not None:
        name = pipeline.name
    log = open_log(settings, name, isolation=isolation)
    try:
        if name is not None:
            check_name(settings, log, name)
        if archive is not None:
            log = _joined(log, archive)
    except BaseException:
        log.close()
        raise
    return log


def awaited_log(settings: Settings, stop: Stop, wait_s: float) -> Log:
    """The log that is set, as soon as it is there, such as when the worker that makes it starts.

    Args:
        settings: say where.
        stop: ends the wait.
        wait_s: for how long at most; with 0 it is there, or is refused.

    Raises:
        LogError: it is not there then.
        UsageError: as `existing_log`.
        KeyboardInterrupt: somebody asked for the end.
    """
    until_s = time.monotonic() + wait_s
    while True:
        try:
            return existing_log(settings)
        except LogError:
            if time.monotonic() >= until_s:
                raise
        stop.wait(LOOK_S)
        if stop.is_requested:
            raise KeyboardInterrupt


def _joined(log: Log, address: str) -> Log:
    # Extras, which whoever reads no archive need not have.
    from stream_ml.shell.archive.reading import Archive, JoinedLog  # noqa: PLC0415
    from stream_ml.shell.archive.storage import Storage  # noqa: PLC0415

    return JoinedLog(log, Archive(Storage(address)))
