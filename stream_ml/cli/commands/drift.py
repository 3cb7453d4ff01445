"""`drift`: what has moved in the data, since when, how much, and what lies behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample, no_arguments
from stream_ml.cli.tables import NO_VALUE, format_table, format_time
from stream_ml.shell.printable import printable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.drift import DriftView

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Print what has moved."""
    # What compares blocks is slow to load, and no other command needs it.
    from stream_ml.shell.views.drift import read_drift  # noqa: PLC0415

    with existing_log(settings) as log:
        view = read_drift(log)
    if arguments.format == "json":
        write_json({"log": settings.path, **view.as_dict()})
    else:
        write("\n\n".join(_blocks(view)))


def _blocks(view: DriftView) -> Iterator[str]:
    if view.since is None:
        yield "nothing is watched yet: no block of events is over, or the pipeline has no monitors"
        return
    span = f"watched from {format_time(view.since)} to {format_time(view.until)}"
    if not view.has_reference:
        span += "; there is no week before to compare with: only faults would be told"
    if view.late:
        span += f"; {view.late} events came after their block was over, and are not compared"
    if not view.causes and not view.moved:
        yield f"nothing has moved\n{span}"
    else:
        yield span
    if view.causes:
        head = ["looks like", "a matter of", "in", "since", "why"]
        rows = [
            [
                cause.kind,
                "the world" if cause.origin == "world" else "the pipeline",
                printable(cause.subject or NO_VALUE),
                format_time(cause.since),
                printable(cause.message),
            ]
            for cause in view.causes
        ]
        yield format_table([head, *rows])
    if view.moved:
        head = ["moved", "sign", "by", "since", "now and usually"]
        rows = [
            [
                printable(each.column),
                each.sign,
                f"{each.distance:.2f} in a {each.horizon}",
                format_time(each.since),
                printable(each.change),
            ]
            for each in view.moved
        ]
        yield format_table([head, *rows])
    if view.recent:
        head = ["over", "kind", "since", "until"]
        rows = [
            [
                printable(each["subject"]),
                each["kind"],
                format_time(each["since"]),
                format_time(each["until"]),
            ]
            for each in view.recent
        ]
        yield format_table([head, *rows])


COMMAND = Subcommand(
    name="drift",
    help="what has moved in the data, since when, and what lies behind it",
    description=(
        "Shows which fields, features and labels are not what they were at the same hours of the\n"
        "weeks before, since when and by how much; and whether that looks like the world (inputs,\n"
        "concept, labels) or like a fault of the pipeline (units, missing or frozen values, an\n"
        "outage), with the figures that say so. As of the last checkpoint. Only reads, also while\n"
        "a worker runs."
    ),
    examples=(
        UsageExample("stream-ml drift", "on the log that is set"),
        UsageExample("stream-ml drift --format json", "with all figures, as JSON"),
    ),
    add_arguments=no_arguments,
    run=run,
)
