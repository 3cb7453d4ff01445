"""`what-if`: any recipe taught and scored on a log, beside what served there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_report, instant
from stream_ml.cli.log import add_archive
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Teach, score, and print what would have come of it."""
    from stream_ml.cli.execution import what_if  # noqa: PLC0415 - loads stages and models

    what_if.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "candidate",
        metavar="MODULE:NAME",
        help="an untrained estimator, a dict of them by the name of a line, or a pipeline for all "
        "of its lines",
    )
    parser.add_argument(
        "--since",
        type=instant,
        metavar="TIME",
        help="score only predictions from then on; all examples are taught",
    )
    add_archive(parser)
    add_report(parser)


COMMAND = Subcommand(
    name="what-if",
    help="how a recipe would have done on a log that is there",
    description=(
        "Teaches a recipe the recorded examples of a log, in order, and freezes it when the lines\n"
        "of the log were renewed; each recorded prediction is answered by the snapshot that would\n"
        "have been asked then. Shows its losses by month beside those of what served, the\n"
        "evidence as it would have grown against the champions that really served, when it would\n"
        "have been promoted, and what it costs. A line that ran is compared with what was\n"
        "recorded of it. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud what-if candidates:forest",
            "the estimator `forest` of candidates.py, on the log that is set",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud what-if shop:fraud --format json",
            "the lines of the pipeline itself, again, as JSON",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud what-if candidates:both --since 2026-05",
            "taught everything, scored from May on",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
