"""`drift`: what has moved in the data, since when, how much, and what lies behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.cli.arguments import add_limit
from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import NO_VALUE, format_duration, format_table, format_time
from stream_ml.shell.printable import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Mapping

    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.drift import DriftView

__all__ = ["COMMAND"]

# Before the names of slices, among those of models.
SLICE = "slice "


def run(arguments: Namespace, settings: Settings) -> None:
    """Print what has moved."""
    # What compares blocks is slow to load, and no other command needs it.
    from stream_ml.shell.views.drift import read_drift  # noqa: PLC0415

    with existing_log(settings) as log:
        view = read_drift(log)
    if arguments.format == "json":
        write_json({"log": settings.path, **view.as_dict()})
    else:
        write("\n\n".join(_blocks(view, arguments.limit)))


def _blocks(view: DriftView, limit: int | None) -> Iterator[str]:
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
        yield format_table(rows, head=head)
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
        table = format_table(rows[:limit], head=head)
        hidden = 0 if limit is None else len(rows) - limit
        yield f"{table}\n... and {hidden:,} more" if hidden > 0 else table
    yield from _tables(view)
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
        yield format_table(rows, head=head)


def _tables(view: DriftView) -> Iterator[str]:
    """The last blocks against what is usual: losses, slices, labels."""
    usual, *blocks = view.blocks or [{"scores": {}}]
    if blocks:
        models = [name for name in blocks[-1]["scores"] if not name.startswith(SLICE)]
        rows = [
            [_start(block["start"]), *(_loss(block["scores"].get(name)) for name in models)]
            for block in (*blocks, usual)
        ]
        yield format_table(rows, head=["loss by block", *models], right=range(1, len(models) + 1))
        slices = sorted({n for b in (*blocks, usual) for n in b["scores"] if n.startswith(SLICE)})
        rows = [
            [
                printable(name.removeprefix(SLICE)),
                *(_loss(block["scores"].get(name)) for block in (*blocks, usual)),
            ]
            for name in slices
        ]
        head = ["served loss by slice", *(_start(block["start"]) for block in (*blocks, usual))]
        if rows:
            yield format_table(rows, head=head, right=range(1, len(head)))
    first, *labels = view.labels or [{}]
    if labels:
        head = [
            "labels by block",
            "predictions",
            "labelled",
            "labels",
            "half within",
            "90 % within",
        ]
        rows = [_label_row(row) for row in (*labels, first)]
        yield format_table(rows, head=head, right=range(1, len(head)))


def _start(ts: int | None) -> str:
    return "usually" if ts is None else format_time(ts)


def _loss(scores: Mapping[str, Any] | None) -> str:
    value = None if scores is None else scores.get("brier", scores.get("mae"))
    return NO_VALUE if value is None else f"{value:.4f}"


def _label_row(row: Mapping[str, Any]) -> list[str]:
    predictions, labelled, labels = (row.get(n) for n in ("predictions", "labelled", "labels"))
    return [
        _start(row["start"]),
        NO_VALUE if predictions is None else f"{predictions:,}",
        NO_VALUE if labelled is None else f"{labelled:.1%}",
        NO_VALUE if labels is None else f"{labels:,}",
        *(format_duration(row.get(name)) for name in ("p50", "p90")),
    ]


def _add_arguments(parser: ArgumentParser) -> None:
    add_limit(parser, "only so many of what has moved, in the text")


COMMAND = Subcommand(
    name="drift",
    help="what has moved in the data, since when, and what lies behind it",
    description=(
        "Shows which fields, features and labels are not what they were at the same hours of the\n"
        "weeks before, since when and by how much; and whether that looks like the world (inputs,\n"
        "concept, labels) or like a fault of the pipeline (units, missing or frozen values, an\n"
        "outage), with the figures that say so; and of the last blocks, beside what is usual, the\n"
        "loss of every model, that of what was served by slice, and how labels came. As of the\n"
        "last checkpoint. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample("stream-ml drift", "on the log that is set"),
        UsageExample("stream-ml drift --format json", "with all figures, as JSON"),
    ),
    add_arguments=_add_arguments,
    run=run,
    is_view=True,
)
