"""`audit reproduce`: logged predictions made again, from their features and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import integer, whole_number
from stream_ml.cli.log import add_archive
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Make predictions again, and fail if one is not what was logged."""
    from stream_ml.cli.execution import reproduce  # noqa: PLC0415 - loads stages and models

    reproduce.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    selection = parser.add_mutually_exclusive_group(required=True)
    selection.add_argument("event_id", nargs="?", metavar="EVENT_ID", help="the event predicted on")
    selection.add_argument(
        "--sample", type=whole_number(1), metavar="N", help="so many, drawn at random"
    )
    parser.add_argument(
        "--seed", type=integer, default=0, metavar="S", help="draws the same again (default 0)"
    )
    add_archive(parser)


COMMAND = Subcommand(
    name="reproduce",
    help="make logged predictions again",
    description=(
        "Takes predictions from the log, opens the very snapshots that they name, and lets them\n"
        "answer again from the features as logged: the champion, and every shadow. Each must say\n"
        "what was logged, to 1e-12; one that does not is shown, and the exit code is 1. Snapshots\n"
        "that retention has dropped are counted, unless an archive has them."
    ),
    examples=(
        UsageExample("stream-ml --pipeline shop:fraud audit reproduce v9", "one, answer by answer"),
        UsageExample(
            "stream-ml --pipeline shop:fraud audit reproduce --sample 1000 --seed 7",
            "a thousand, drawn the same each time",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
