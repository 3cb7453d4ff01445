"""`plan`: what a changed declaration would do to the pipeline that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Compare, and print what differs."""
    from stream_ml.cli.execution import plan  # noqa: PLC0415 - loads stages and models

    plan.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "declaration",
        nargs="?",
        metavar="MODULE:NAME",
        help="the changed declaration (default: the pipeline that is set)",
    )


COMMAND = Subcommand(
    name="plan",
    help="what a changed declaration would do, before anything is started with it",
    description=(
        "Compares a declaration with the one that runs on the log, which the workers' state\n"
        "names under the pipeline's seal. Each difference is shown with its path, what it means\n"
        "and what it costs: `now` is taken up at the next start; `apply` and, of a line that has\n"
        "another recipe, `relearn` by `stream-ml apply`; `refused` is not, and says why\n"
        "(docs/changes.md). Exits with 2 where anything differs, with 0 where nothing does. Only\n"
        "reads, also while workers run."
    ),
    examples=(
        UsageExample("stream-ml --pipeline shop:fraud plan", "what a restart would change"),
        UsageExample(
            "stream-ml --broker kafka://127.0.0.1:9092 plan shop:fraud --format json",
            "on a cluster, for a script",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
