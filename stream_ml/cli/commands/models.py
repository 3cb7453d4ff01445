"""`models`: what serves, what challenges it, and how that came to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import whole_number
from stream_ml.cli.colour import StyledText, paint
from stream_ml.cli.commands.alerts import quarantines_text
from stream_ml.cli.decisions import (
    decider,
    decision_time,
    decisions_table,
    registry_notes,
)
from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.scores import evidence_table, slices_table
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import NO_VALUE, format_duration, format_table, format_time
from stream_ml.shell.printable import printable
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.models import read_models
from stream_ml.shell.views.registry import effects, read_registry

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.costs import LineCost
    from stream_ml.shell.views.models import ModelsView
    from stream_ml.shell.views.newcomers import Newcomer
    from stream_ml.shell.views.registry import RegistryView

__all__ = ["COMMAND"]

DECISIONS = 10


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the serving set and the last decisions."""
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        registry = read_registry(log, key, arguments.decisions)
        view = read_models(log, registry, key)
    notes = registry_notes(
        registry, settings.unverified_reason(settings.path) if key is None else None
    )
    if arguments.format == "json":
        write_json(
            {
                "log": settings.path,
                "pipeline": registry.pipeline,
                "since": None if registry.since is None else registry.since.as_dict(),
                "effect": effects(registry),
                **view.as_dict(),
                "decisions": [entry.as_dict() for entry in registry.decisions],
                "notes": notes,
            }
        )
    else:
        write("\n\n".join([*_blocks(settings.path, registry, view), *notes]))


def _blocks(path: str, registry: RegistryView, view: ModelsView) -> Iterator[str]:
    entry = registry.since
    if entry is None:
        path = printable(path)
        yield f"{path}: nothing serves yet: the log holds no decision that we can believe"
    else:
        decision = entry.decision
        serves = "from the start" if decision.ts < 0 else f"since {decision_time(entry)}"
        headline = printable(
            f"pipeline {registry.pipeline}: {decision.serving.champion.model} serves {serves} "
            f"(decision {decision.number}, {decision.kind} by "
            f"{decider(decision.actor, decision.signed_by)})"
        )
        yield f"{headline}\n{effects(registry)}"
        rows = [
            [
                model.role,
                StyledText(model.model, "good") if model.role == "champion" else model.model,
                NO_VALUE if model.examples is None else f"{model.examples:,}",
                format_time(model.taken_ts),
                format_duration(model.age_ms),
            ]
            for model in view.models
        ]
        head = ["role", "model", "examples", "taken at", "age"]
        if any(model.batch is not None for model in view.models):
            head.append("batch")
            for row, model in zip(rows, view.models, strict=True):
                row.append(NO_VALUE if model.batch is None else f"{model.batch:,}")
        yield format_table(rows, head=head, right=[2, 5])
    if view.newcomers:
        yield "\n".join(map(_newcomer, view.newcomers))
    if view.quarantines:
        yield quarantines_text(view.quarantines)
    evidence = evidence_table(
        [{"model": model, "evidence": figures} for model, figures in (view.evidence or {}).items()]
    )
    if evidence is not None:
        yield evidence
    if view.costs:
        head = ["line", "µs an answer", "µs an example", "s a snapshot", "bytes"]
        yield format_table([*map(_cost, view.costs.items())], head=head, right=range(1, len(head)))
    slices = slices_table(view.evaluations)
    if slices is not None:
        yield f"{paint('loss by slice, of the last examples of each', 'heading')}\n{slices}"
    if registry.decisions:
        yield decisions_table(registry.decisions)


def _newcomer(newcomer: Newcomer) -> str:
    """How far a line is that does not contend yet, and when it will."""
    progress = f"has learned {newcomer.learned:,} of {newcomer.examples:,} examples"
    if newcomer.is_level:
        progress = f"has learned all {newcomer.learned:,} examples that there are for it"
    return printable(
        f"{newcomer.line} {progress}, and contends from the first refresh on with "
        f"{newcomer.due_examples:,} examples or after {format_time(newcomer.due_ms)}"
    )


def _cost(item: tuple[str, LineCost]) -> list[str]:
    line, cost = item
    figures = [
        ("{:,.1f}", cost.answer_us),
        ("{:,.1f}", cost.example_us),
        ("{:.4f}", cost.snapshot_s),
        ("{:,}", cost.snapshot_bytes),
    ]
    return [line, *(NO_VALUE if value is None else text.format(value) for text, value in figures)]


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        "--decisions",
        dest="decisions",
        type=whole_number(0),
        default=DECISIONS,
        metavar="N",
        help=f"how many of the last decisions to show (default {DECISIONS})",
    )


COMMAND = Subcommand(
    name="models",
    help="what serves, what challenges it, evidence, decisions",
    description=(
        "Shows the models that answer: the champion, which serves; its challengers, which are\n"
        "asked as well and scored; its predecessor, and the first one, never updated; what speaks\n"
        "for each challenger; and what each line costs on the machine where it learns. Times and\n"
        "ages are those of events, but for when decisions were made. Only reads, also while a\n"
        "worker runs."
    ),
    examples=(
        UsageExample("stream-ml models", "those on the log that is set"),
        UsageExample("stream-ml --broker sqlite:runs/demo/log.sqlite models", "those of the demo"),
        UsageExample(
            "stream-ml models --decisions 100 --format json", "with more history, as JSON"
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    is_view=True,
)
