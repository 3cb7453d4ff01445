"""`up`: the whole pipeline, on what others publish, until it is asked to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_log_options, add_metrics, add_standby, whole_number
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.stages.topology import STAGES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Run what there is to run on this kind of log."""
    from stream_ml.cli.execution import up  # noqa: PLC0415 - loads stages and models

    up.run(arguments, settings)


def _arguments(parser: ArgumentParser) -> None:
    add_log_options(parser)
    add_metrics(parser)
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="stop when standard input ends, as it does when whoever started this process is dead",
    )
    add_standby(parser)
    for stage in (name for name, spec in STAGES.items() if spec.scales):
        parser.add_argument(
            f"--{stage}",
            metavar="N",
            type=whole_number(1),
            help=f"on Kafka, how many workers the {stage} stage has (1); its tasks are shared out",
        )


COMMAND = Subcommand(
    name="up",
    help="run the pipeline on what is published, until stopped",
    description=(
        "Runs every stage of the pipeline on what lies on the log and on what others publish to\n"
        "it, in one process, and says whenever another model serves. Makes the log if there is\n"
        "none. Ctrl-C or SIGTERM stops it, with all it did written down; killed, it goes on from\n"
        "its last commit when it is started again. With --format json it says JSON lines.\n"
        "\n"
        "On Kafka every stage is a worker of its own, and all but evaluate may be several (learn\n"
        'where each line is a task: `learn_tasks="line"`; else one waits for the other). What\n'
        "they say is passed on. One that dies is started again, later each time; up gives up when\n"
        "one dies at once five times in a row, or finds its settings wrong. It waits for a broker\n"
        "as long as it takes. Make the topics first: `stream-ml topics apply`.\n"
        "\n"
        "Each task of a pipeline is worked on by an `up` of its own, which this one looks after;\n"
        "--task NAME works on one of them alone.\n"
        "\n"
        "With --standby it waits, ready, beside the worker of the declaration of before, until\n"
        "`stream-ml apply` has brought its own about, and takes its place then. On Kafka the\n"
        "`up` of before, asked to stop, has predict go on until that is decided."
    ),
    examples=(
        UsageExample("stream-ml --pipeline shop:fraud up", "the pipeline `fraud` of shop.py"),
        UsageExample(
            "stream-ml --pipeline shop:fraud --broker sqlite:shop.sqlite up --format json",
            "on a log of its own, telling a machine",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud --broker kafka://127.0.0.1:9092 up --predict 2",
            "on Apache Kafka, with two workers that predict",
        ),
    ),
    add_arguments=_arguments,
    run=run,
    acts=True,
)
