"""`promote`: let a challenger serve."""

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
    give(arguments, settings, "promote")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL[@VERSION]", help="a challenger: its line, or the very snapshot"
    )
    add_expect(parser)
    add_arguments(parser)


COMMAND = Subcommand(
    name="promote",
    help="let a challenger serve",
    description=(
        "Asks the worker to let a challenger serve, and prints its answer. What is promoted is\n"
        "the snapshot that shadows at that moment; the champion's line goes on as a challenger,\n"
        "and the guard watches the new one. Refused (exit code 4) where another champion serves\n"
        "than --expect says, and in a gated pipeline where the evidence does not suffice."
    ),
    examples=(
        UsageExample(
            "stream-ml promote tree --expect logistic --reason 'better on all of May'",
            "the newest snapshot of the line `tree`",
        ),
        UsageExample(
            "stream-ml promote tree@4000 --expect logistic@4000 --reason checked --id change-17",
            "this very snapshot, once, however often it is asked for",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
