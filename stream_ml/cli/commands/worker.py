"""`worker`: one stage of a pipeline on a cluster, until it is asked to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_log_options, add_metrics, add_standby
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.stages.topology import STAGES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Run one stage."""
    from stream_ml.cli.execution import worker  # noqa: PLC0415 - loads stages and models

    worker.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    add_log_options(parser)
    parser.add_argument("stage", choices=tuple(STAGES), help="what it does")
    add_metrics(parser)
    parser.add_argument(
        "--instance",
        metavar="NAME",
        help="a name of this worker that stays when it is started again: it then gets back what it "
        "had, without a rebalance",
    )
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="stop when standard input ends, as it does when whoever started this worker is dead",
    )
    add_standby(parser)


COMMAND = Subcommand(
    name="worker",
    help="run one stage on a cluster, until stopped",
    description=(
        "Runs one stage of the pipeline on Apache Kafka. Several workers of a stage share its\n"
        "partitions. SIGTERM or Ctrl-C stops it with everything written down; killed, whoever\n"
        "gets its partitions goes on from its last commit. It ends with exit code 1 when it must\n"
        "not go on: start it again, as `up` does; with 2 where it is set up wrong, or another\n"
        "worker has its name: then starting it again does not mend it."
    ),
    examples=(
        UsageExample(
            "stream-ml --broker kafka://127.0.0.1:9092 --pipeline shop:fraud worker predict",
            "a worker that predicts, beside others",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud worker learn --instance learn-a --format json",
            "the learner, which gets its place back when it is started again",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
