"""`archive`: the work of the command, and its words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.errors import StreamMLError
from stream_ml.shell.archive.reading import Archive, JoinedLog, verify
from stream_ml.shell.archive.storage import Storage
from stream_ml.shell.archive.writing import Archiver
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import Progress
from stream_ml.shell.processes.stop import Stop

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.shell.archive.writing import Written
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]

# Hours end seldom, and nobody waits for them.
LOOK_S = 10.0
MEGABYTE = 1e6


def run(arguments: Namespace, settings: Settings) -> None:
    """Archive, follow or verify, and print what came of it."""
    storage = Storage(arguments.to)
    if arguments.verify:
        _verify(arguments, settings, storage)
        return
    with existing_log(settings) as log, storage.only_writer(), Stop() as stop:
        archiver = Archiver(log, storage, _now_ms)
        with Progress("archiving", archiver.remaining) as progress:
            archiver.run(
                only_past=arguments.follow,
                on_progress=progress,
                is_stopped=lambda: stop.is_requested,
            )
        while arguments.follow and not stop.is_requested:
            stop.wait(LOOK_S)
            archiver.run(only_past=True, is_stopped=lambda: stop.is_requested)
        written = archiver.written
        is_cut_short = stop.is_requested and not arguments.follow
    if arguments.format == "json":
        write_json({"archive": storage.address, **written.as_dict()})
    else:
        write("\n".join(map(printable, _lines(written, storage.address))))
    if written.gaps:
        raise StreamMLError(f"archive: records were lost: {'; '.join(written.gaps)}")
    if is_cut_short:
        raise KeyboardInterrupt


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _lines(written: Written, address: str) -> list[str]:
    sizes = f"{written.record_bytes / MEGABYTE:,.1f} MB in {written.file_bytes / MEGABYTE:,.1f} MB"
    return [
        f"{written.rows:,} records archived in {written.files:,} files of {address} ({sizes})",
        *written.ahead,
    ]


def _verify(arguments: Namespace, settings: Settings, storage: Storage) -> None:
    archive = Archive(storage)
    total = sum(file.rows for file in archive.files)
    with existing_log(settings) as log, Progress("verifying", total) as progress:
        JoinedLog(log, archive)  # refuses the archive of another log
        result = verify(archive, log, progress)
    if arguments.format == "json":
        write_json({"archive": storage.address, **result.as_dict()})
    else:
        write(
            f"{result.rows:,} records in {result.files:,} files; {result.compared:,} of them "
            f"compared with the log; {result.remaining:,} offsets of it are not archived yet"
        )
        if result.forgotten:
            write(
                f"{result.forgotten:,} forgotten since on the log, and still in the archive: see "
                "docs/archive.md"
            )
    if result.faults:
        raise StreamMLError(f"archive: {'; '.join(result.faults[:10])}")
