"""`archive`: what lies on a log, kept elsewhere by the hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import utf8
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Archive what is not archived yet, or check what is."""
    from stream_ml.cli.execution import archive  # noqa: PLC0415 - loads the codecs of files

    archive.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        required=True,
        type=utf8,
        metavar="ADDRESS",
        help="a folder, or any address that fsspec knows, such as s3://BUCKET/PATH",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--follow",
        action="store_true",
        help="go on with each hour once it is over, until Ctrl-C",
    )
    mode.add_argument(
        "--verify",
        action="store_true",
        help="write nothing: read all files, and compare them with their checksums and the log",
    )


COMMAND = Subcommand(
    name="archive",
    help="keep what lies on the log elsewhere, by the hour, as Parquet",
    description=(
        "Writes all records of the log, of every topic, to files of one hour each (by the time at\n"
        "which the log took them in), with manifests and checksums: each record once, whoever\n"
        "dies when. It goes on where the archive ends. What is archived can be read back once\n"
        "retention has removed it: see --archive of what-if, rebuild and export. Exit code 1\n"
        "where records were removed before they were archived, or --verify finds a fault."
    ),
    examples=(
        UsageExample(
            "stream-ml archive --to /mnt/archive/fraud",
            "what has come since the last time, once",
        ),
        UsageExample(
            "stream-ml archive --to /mnt/archive/fraud --follow",
            "hour after hour, beside the worker",
        ),
        UsageExample(
            "stream-ml archive --to /mnt/archive/fraud --verify --format json",
            "whether all of it is there and as it was",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
