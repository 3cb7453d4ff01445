"""`export`: the work of the command, and its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.tables import format_counts
from stream_ml.errors import UsageError
from stream_ml.shell.export.run import export
from stream_ml.shell.export.tables import table_of
from stream_ml.shell.log.reading import offset_count
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import Progress
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from stream_ml.shell.export.run import Export
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Write the file, and print how many rows it has."""
    pipeline = pipeline_of(settings, "export")
    since, until = arguments.since, arguments.until
    if since is not None and until is not None and since >= until:
        raise UsageError(
            f"--until: expected a time after --since, {since} ms, given {until} ms: nothing lies "
            "between"
        )
    with existing_log(settings, archive=arguments.archive) as log:
        key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        topic = table_of(arguments.subject, pipeline, key).topic
        with Progress("exporting", offset_count(log, topic)) as progress:
            result = export(
                log,
                pipeline,
                key,
                arguments.subject,
                arguments.to,
                since=since,
                until=until,
                on_progress=progress,
            )
    if arguments.format == "json":
        write_json({"file": str(arguments.to), **result.as_dict()})
    else:
        write("\n".join(_lines(arguments.subject, str(arguments.to), result)))


def _lines(subject: str, path: str, result: Export) -> Iterator[str]:
    yield printable(f"{result.rows:,} {subject} written to {path}")
    if result.outside:
        yield f"{result.outside:,} are of other times"
    if result.left_out:
        yield f"left out, of `forget`: {format_counts(result.left_out)}"
    if result.refused:
        yield f"{result.refused.total():,} records are none: {format_counts(result.refused)}"
        yield printable(f"the first of them: {result.first_refused}")
