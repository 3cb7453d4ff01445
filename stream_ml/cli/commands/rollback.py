"""`rollback`: let the champion's predecessor, or what served before, serve again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import utf8_up_to
from stream_ml.cli.operator import TEXT_LENGTH_MAX, add_arguments, add_expect, give
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Ask for it."""
    give(arguments, settings, "rollback")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        dest="model",
        metavar="MODEL@VERSION",
        type=utf8_up_to(TEXT_LENGTH_MAX),
        help="any snapshot that has served (default: the predecessor)",
    )
    add_expect(parser)
    add_arguments(parser)


COMMAND = Subcommand(
    name="rollback",
    help="let the predecessor, or what served before, serve again",
    description=(
        "Asks the worker to let the champion's predecessor serve again, or with --to any snapshot\n"
        "that has served (`stream-ml audit log` lists them), and prints its answer. The line is\n"
        "then renewed no more until `resume` or the next replacement, and what was rolled back\n"
        "is promoted again only on new evidence. Refused (exit code 4) where another champion\n"
        "serves than --expect says, or where there is nothing to return to."
    ),
    examples=(
        UsageExample("stream-ml rollback --expect tree --reason 'too many alarms'", "back, now"),
        UsageExample(
            "stream-ml rollback --to tree@2000 --expect tree --reason 'good until then'",
            "a snapshot that served before",
        ),
        UsageExample(
            "stream-ml rollback --expect tree@4000 --reason alarms --actor ana --format json",
            "in somebody's name, the answer as JSON",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
