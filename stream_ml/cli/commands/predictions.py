"""`predictions`: what was served, and what is being served now."""

from __future__ import annotations

import math
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_limit, instant, utf8
from stream_ml.cli.log import existing_log
from stream_ml.cli.output import complain, flush, write_json_line, write_line
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import NO_VALUE, format_time
from stream_ml.client import read_batches
from stream_ml.shell.log.reading import predictions_in
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.settings.loader import declared_pipeline

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.errors import BadRecord
    from stream_ml.records import Prediction, Record
    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

BEGINNING, END = "beginning", "end"


def run(arguments: Namespace, settings: Settings) -> None:
    """Print predictions, those to come as well if they are to be followed."""
    start = arguments.start or (END if arguments.follow else BEGINNING)
    since_ms = start if isinstance(start, int) else None
    with ExitStack() as stack:
        log = stack.enter_context(existing_log(settings, isolation=arguments.isolation))
        stop = stack.enter_context(Stop()) if arguments.follow else None
        batches = read_batches(
            log,
            "predictions",
            from_end=start == END,
            since_ms=since_ms,
            skew_ms=_skew_ms(settings),
            stop=stop,
        )
        as_json = arguments.format == "json"
        passed_over, room = _PassedOver(), arguments.limit or math.inf
        for records in stack.enter_context(closing(batches)):
            for record, prediction in predictions_in(records, passed_over):
                is_recent = since_ms is None or prediction.ts >= since_ms
                if is_recent and arguments.key in {None, prediction.key}:
                    if as_json:
                        write_json_line(record.value)
                    else:
                        write_line(_line(prediction))
                    room -= 1
                    if not room:
                        return
            if not flush():
                return  # nobody reads on


class _PassedOver:
    """Tells of the first record that is no prediction; the dead letters have them all."""

    def __init__(self) -> None:
        self._has_warned = False

    def __call__(self, record: Record, error: BadRecord) -> None:
        if not self._has_warned:
            self._has_warned = True
            complain(
                f"stream-ml: predictions-{record.partition} offset {record.offset}: passed over, "
                f"for it is no prediction ({error}); only workers write there: see who else may. "
                "Others like it are passed over as well"
            )


def _skew_ms(settings: Settings) -> int | None:
    pipeline = declared_pipeline(settings)
    return None if pipeline is None else pipeline.skew_ms


def _line(prediction: Prediction) -> str:
    answer = prediction.prediction
    if isinstance(answer, dict):
        likeliest = max(answer, key=lambda name: answer[name], default=NO_VALUE)
        answer_text = f"{likeliest} {answer.get(likeliest, 0.0):.4f}"
    else:
        answer_text = NO_VALUE if answer is None else f"{answer:.4f}"
    model = prediction.model
    if prediction.fallback:
        model = f"{model}, {'no answer' if prediction.own_answer is None else 'fallback'}"
    cells = [format_time(prediction.ts), prediction.event_id, prediction.key, answer_text, model]
    # Two spaces are what tells columns apart.
    return "  ".join(printable(cell).replace("  ", " \\x20") for cell in cells)


def _start(text: str) -> str | int:
    return text if text in {BEGINNING, END} else instant(text)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--follow", action="store_true", help="go on with those that come, until Ctrl-C"
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=_start,
        metavar="beginning|end|TIME",
        help="where to begin; TIME is of the events (default: the beginning; with --follow the "
        "end)",
    )
    parser.add_argument("--key", metavar="KEY", type=utf8, help="only those of this entity")
    add_limit(parser, "end after so many")
    parser.add_argument(
        "--isolation",
        choices=("committed", "uncommitted"),
        default="committed",
        help="on Kafka: each prediction exactly once, as soon as its worker commits (the default), "
        "or within milliseconds, with some twice if a worker dies",
    )


COMMAND = Subcommand(
    name="predictions",
    help="read predictions, those to come as well",
    description=(
        "Prints the predictions on the log, a line each, and ends where they do; with --follow it\n"
        "goes on until Ctrl-C. With --format json the lines are the records themselves: features,\n"
        "model, shadows and all. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample("stream-ml predictions --follow", "as they are made"),
        UsageExample(
            "stream-ml --broker kafka://10.0.0.1:9092/shop predictions --follow "
            "--isolation uncommitted",
            "from a cluster, without its pipeline's declaration, as soon as can be",
        ),
        UsageExample(
            "stream-ml predictions --from 2013-05-01 --key JFK --format json",
            "one entity's from May on, as JSON lines",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
