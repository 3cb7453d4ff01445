"""`apply`: bring other features, or recipes of lines, about on a log that has been worked on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import seconds
from stream_ml.cli.operator import add_arguments
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

WAIT_S = 60.0


def run(arguments: Namespace, settings: Settings) -> None:
    """Prepare, take the worker's place for a moment, and write it down."""
    from stream_ml.cli.execution import apply  # noqa: PLC0415 - loads stages and models

    apply.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "declaration",
        nargs="?",
        metavar="MODULE:NAME",
        help="the changed declaration (default: the pipeline that is set)",
    )
    add_arguments(parser)
    parser.add_argument(
        "--wait",
        type=seconds,
        default=WAIT_S,
        metavar="SECONDS",
        help=f"how long to wait, prepared, for a worker to be stopped (default {WAIT_S:g})",
    )


COMMAND = Subcommand(
    name="apply",
    help="change features, or recipes of lines, on a log that has been worked on",
    description=(
        "Brings a declaration about that has other features than the log was worked on with, as\n"
        "`stream-ml plan` shows them. Windows are filled again from the events on the log. All\n"
        "lines begin anew under a name of their own (`tree` as `tree.2`), are taught the recorded\n"
        "examples with the features as they would have been served, and shadow then. What serves\n"
        "goes on with the features that it knows, until one of them has won.\n"
        "\n"
        "All but the last moment is done beside a worker that serves; then it says so, and waits\n"
        "for the worker to be stopped, on a cluster for all workers, of which those of predict\n"
        "fill their windows when they are started. Start the next under the new declaration. To\n"
        "take it back, apply the declaration of before.\n"
        "\n"
        "Where a line has another recipe, and features are as they were, the worker that runs is\n"
        "asked instead, as by `promote`: then restart it. The line goes on as a new\n"
        "version (`tree.2`); what serves stays the snapshot that it is until another line has\n"
        "won. That is a signed command: only there --actor and --id are taken."
    ),
    examples=(
        UsageExample(
            "stream-ml apply shop:fraud --reason 'orders of the last hour say more'",
            "the changed declaration `fraud` of shop.py",
        ),
        UsageExample(
            "stream-ml apply shop:fraud --reason 'a deeper tree' --wait 600",
            "leaving ten minutes to stop the worker in",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
