"""What an archive costs: megabytes of records a second of CPU time, written, checked and read back.

    PYTHONPATH=.venv/extras python -m benchmarks.archive [--events N]

The cards at work on a log file, all of whose records are archived in a folder beside it, verified,
and read as the log is; then learned again (`rebuild`) from the log and from the archive. A megabyte
is one of keys and values as they lie on the log.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.examples.cards import cards, transactions
from stream_ml.shell.archive.reading import Archive, JoinedLog, verify
from stream_ml.shell.archive.storage import Storage
from stream_ml.shell.archive.writing import Archiver
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.export.parquet import records_file
from stream_ml.shell.export.run import export
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.views.rebuild import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

KEY = b"k" * 32
MEGABYTE = 1e6


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    events = parser.parse_args().events
    records_file([])  # what the library loads is no part of what it does
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sqlite"
        with SqliteLog.create(path) as log:
            made = transactions(events, seed=1)
            outputs = [
                output_of(cards, topic, members)
                for topic, records in zip(("events", "labels"), made, strict=True)
                for members in records
            ]
            replay(log, cards, KEY, outputs)
            _measure(log, Path(folder))


def _measure(log: SqliteLog, folder: Path) -> None:
    storage = Storage(str(folder / "archive"))
    archiver = Archiver(log, storage, lambda: time.time_ns() // 1_000_000)
    seconds = [_timed(archiver.run)]
    archive = Archive(storage)
    seconds.append(_timed(lambda: verify(archive, log)))
    alone = Archive(storage)
    seconds.append(_timed(lambda: [alone.load(file) for file in alone.files]))
    seconds.append(_timed(lambda: _read(log)))
    written = archiver.written
    size = written.record_bytes / MEGABYTE
    print(
        f"{written.rows:,} records, {size:,.1f} MB, in {written.files:,} files of "
        f"{written.file_bytes / MEGABYTE:,.1f} MB"
    )
    for name, taken in zip(("archive", "verify", "read back", "log"), seconds, strict=True):
        print(f"{name:10} {size / taken:8.1f} MB/s of CPU time")
    target = folder / "examples.parquet"
    taken = _timed(lambda: export(log, cards, KEY, "examples", target))
    examples = log.end_offset("examples", 0)
    print(f"export     {examples / taken:8,.0f} examples/s of CPU time, as Parquet")
    model = max(
        (record.key.decode() for record in read_all(log, "models") if record.key and record.value),
        key=lambda name: (name.startswith("adagrad@"), int(name.partition("@")[2])),
    )
    for name, source in (("log", log), ("archive", JoinedLog(log, archive))):
        taken = _timed(lambda source=source: rebuild(source, cards, KEY, model))  # type: ignore[misc]
        print(f"rebuild    {taken:8.2f} s of CPU time: {model} from the {name}")


def _read(log: SqliteLog) -> int:
    return sum(1 for topic in log.partitions for _ in read_all(log, topic))


def _timed(work: Callable[[], object]) -> float:
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


if __name__ == "__main__":
    main()
