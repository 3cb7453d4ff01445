"""`generate`: a made-up world that changes by a script, as files or straight onto the log."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.arguments import whole_number
from stream_ml.cli.output import complain, write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import format_table
from stream_ml.errors import BadRecord, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from stream_ml.scenarios import Scenario
    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

EVENTS = 20_000
SEED_MAX = 2**32
EVENTS_MAX = 100_000_000
CHUNK_RECORDS = 1_000


def run(arguments: Namespace, settings: Settings) -> None:
    """List the scenarios, or make one."""
    from stream_ml.scenarios import SCENARIOS, generate  # noqa: PLC0415 - not for other commands

    if arguments.list:
        _list(SCENARIOS, as_json=arguments.format == "json")
        return
    if arguments.scenario is None:
        raise UsageError("generate: expected a scenario, given none; see `generate --list`")
    try:
        scenario = generate(arguments.scenario, seed=arguments.seed, events=arguments.events)
    except ValueError as error:
        raise UsageError(f"generate: {error}") from None
    folder = arguments.out or Path(f"{scenario.name}-{scenario.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.publish:
        _publish(scenario, settings)
    else:
        _write(scenario, folder)
    truth = scenario.truth()
    (folder / "truth.json").write_bytes(orjson.dumps(truth, option=orjson.OPT_INDENT_2) + b"\n")
    if arguments.format == "json":
        write_json({"folder": str(folder), **truth})
        return
    where = "published" if arguments.publish else f"events.jsonl and labels.jsonl in {folder}"
    complain(
        f"{truth['events']:,} payments and {truth['labels']:,} labels: {where}; "
        f"what happened is in {folder / 'truth.json'}"
    )
    complain(f"declared by --pipeline {scenario.pipeline}")


def _list(scenarios: dict[str, type[Scenario]], *, as_json: bool) -> None:
    if as_json:
        write_json({name: scenario.summary for name, scenario in scenarios.items()})
    else:
        write(format_table([[name, each.summary] for name, each in scenarios.items()]))


def _write(scenario: Scenario, folder: Path) -> None:
    with ExitStack() as stack:
        files = {
            topic: stack.enter_context((folder / f"{topic}.jsonl").open("wb"))
            for topic in ("events", "labels")
        }
        for topic, record in scenario:
            files[topic].write(orjson.dumps(record) + b"\n")


def _publish(scenario: Scenario, settings: Settings) -> None:
    # They load declarations and models, which files need not.
    from stream_ml.cli.log import existing_log  # noqa: PLC0415
    from stream_ml.client import Publisher  # noqa: PLC0415
    from stream_ml.shell.settings.keys import check_name  # noqa: PLC0415
    from stream_ml.shell.settings.loader import pipeline_of  # noqa: PLC0415

    pipeline = pipeline_of(settings, "generate")
    with existing_log(settings) as log:
        check_name(settings, log, pipeline.name)
        publisher = Publisher(log, pipeline)
        for chunk in _chunks(scenario):
            try:
                outputs = [publisher.check(topic, orjson.dumps(value)) for topic, value in chunk]
            except BadRecord as error:
                raise UsageError(
                    f"generate: expected a pipeline that takes these payments, such as "
                    f"{scenario.pipeline}, given {pipeline.name!r}, which refuses one: {error}"
                ) from None
            publisher.send(outputs)


def _chunks(scenario: Scenario) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    records = iter(scenario)
    while chunk := list(islice(records, CHUNK_RECORDS)):
        yield chunk


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO", help="which one; see --list")
    parser.add_argument("--list", action="store_true", help="name the scenarios, and make none")
    parser.add_argument(
        "--seed",
        type=whole_number(0, SEED_MAX),
        default=1,
        metavar="N",
        help="the same one gives the same bytes (default 1)",
    )
    parser.add_argument(
        "--events",
        type=whole_number(1, EVENTS_MAX),
        default=EVENTS,
        metavar="N",
        help=f"how many payments (default {EVENTS:,})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the files go (default SCENARIO-SEED)",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="publish events and labels to the log; only truth.json is written",
    )


COMMAND = Subcommand(
    name="generate",
    help="make a world that changes by a script, to try a pipeline on",
    description=(
        "Makes payments and the labels about them, of a made-up world in which something changes:\n"
        "the concept, the inputs, the labels, or what reaches us of them. Writes events.jsonl,\n"
        "labels.jsonl and truth.json: what changed when, how good answers can be, which line\n"
        "should serve, and what a monitor should say. The same scenario, seed and number of\n"
        "events give the same bytes."
    ),
    examples=(
        UsageExample("stream-ml generate --list", "which scenarios there are"),
        UsageExample(
            "stream-ml generate sudden --seed 7 --events 50000 --out flip",
            "a concept that turns into its opposite, as three files in the folder flip",
        ),
        UsageExample(
            "stream-ml --pipeline stream_ml.examples.payments:payments generate units --publish",
            "onto the log of a worker that is up; the truth into units-1/truth.json",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
