"""`rollback`: let the champion's predecessor serve again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.operator import add_arguments, add_expect, give
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Ask for it."""
    give(arguments, settings, "rollback")


def _add_arguments(parser: ArgumentParser) -> None:
    add_expect(parser)
    add_arguments(parser)


COMMAND = Subcommand(
    name="rollback",
    help="let the predecessor serve again",
    description=(
        "Asks the worker to let the champion's predecessor serve again, and prints its answer.\n"
        "The line is then renewed no more until `resume` or the next replacement. Refused (exit\n"
        "code 4) where another champion serves than --expect says, or where none came before."
    ),
    examples=(
        UsageExample("stream-ml rollback --expect tree --reason 'too many alarms'", "back, now"),
        UsageExample(
            "stream-ml rollback --expect tree@4000 --reason alarms --actor ana --format json",
            "in somebody's name, the answer as JSON",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
