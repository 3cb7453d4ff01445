"""`what-if`: the work of the command, and its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.execution.report_file import check_report, write_report
from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.scores import evidence_line, scores_table
from stream_ml.cli.tables import NO_VALUE, format_table, format_time
from stream_ml.shell.log.reading import offset_count
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import Progress
from stream_ml.shell.report.measures import LOSS_NAMES
from stream_ml.shell.report.what_if_page import what_if_page
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import load_estimators, pipeline_of
from stream_ml.shell.views.what_if import what_if

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from stream_ml.records import Evaluation
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.costs import LineCost
    from stream_ml.shell.views.what_if import CandidateView, Recorded, WhatIfView

__all__ = ["run"]


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Teach and score the candidates, and print how they would have done."""
    pipeline = pipeline_of(settings, "what-if")
    estimators = load_estimators(arguments.candidate, settings.task)
    check_report(arguments.report)
    with existing_log(settings, archive=arguments.archive) as log:
        key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        with Progress("learning", offset_count(log, "examples")) as progress:
            view = what_if(
                log, pipeline, key, estimators, since=arguments.since, on_progress=progress
            )
    loss_name = LOSS_NAMES[pipeline.target.kind]
    if arguments.report is not None:
        write_report(arguments.report, what_if_page(view, pipeline.name, loss_name))
    if arguments.format == "json":
        write_json({"log": settings.path, **view.as_dict()})
    else:
        write("\n\n".join(_blocks(view, loss_name)))


def _blocks(view: WhatIfView, loss_name: str) -> Iterator[str]:
    rate = f", {view.examples / view.seconds:,.0f}/s" if view.seconds else ""
    yield f"{view.examples:,} examples taught{rate}; {view.scored:,} scored"
    if view.missed:
        yield (
            f"{view.missed:,} examples were passed over: the features that were declared since "
            "cannot be made again for them, as where retention has removed events; an archive may "
            "have those (--archive ADDRESS)"
        )
    evaluations = [view.served, *(candidate.scores for candidate in view.candidates)]
    rows = [vars_of for vars_of in map(_members, evaluations) if vars_of]
    if rows:
        caption = "lines as shadows scored them, not while they served"
        yield f"{caption}\n{scores_table(rows, 'cumulative')}"
    for candidate in view.candidates:
        yield "\n".join(_candidate(candidate, loss_name))
        table = _slices(view.served, candidate)
        if table is not None:
            yield table


def _members(evaluation: object) -> dict[str, object]:
    names = ("model", "version", "n", "coverage", "scores")
    return {} if evaluation is None else {name: getattr(evaluation, name) for name in names}


def _candidate(candidate: CandidateView, loss_name: str) -> Iterator[str]:
    promotable = candidate.promotable
    fate = "would never have been promoted"
    if promotable is not None:
        fate = f"would have been promoted on {format_time(promotable)}"
    yield printable(f"{candidate.name}: {fate}; {_cost(candidate.cost)}")
    if candidate.failure is not None:
        yield printable(f"it learns no more {candidate.failure}")
    if candidate.recorded is not None and candidate.recorded.answers:
        yield from _recorded(candidate.recorded)
    rows = [
        [each.month, f"{each.pairs:,}", f"{each.served:.4f}", f"{each.candidate:.4f}"]
        for each in candidate.months
    ]
    if rows:
        head = ["month", "examples", f"{loss_name} of what served", candidate.name]
        yield format_table(rows, head=head, right=[1, 2, 3])
    reigns = [
        [
            reign.champion,
            format_time(reign.since),
            "itself" if reign.evidence is None else evidence_line(reign.evidence),
            format_time(reign.promotable),
        ]
        for reign in candidate.reigns
    ]
    if reigns:
        yield format_table(reigns, head=["against", "since", "evidence", "promotable"])


def _slices(served: Evaluation | None, candidate: CandidateView) -> str | None:
    """The losses on each slice; None where none is declared, or nothing was scored."""
    if served is None or candidate.scores is None or not candidate.scores.slices:
        return None
    rows = []
    for name, own in candidate.scores.slices.items():
        other = (served.slices or {}).get(name, {"scores": {"cumulative": {}}})
        figures = [other["scores"]["cumulative"], own["scores"]["cumulative"]]
        losses = [each.get("brier", each.get("mae")) for each in figures]
        texts = [NO_VALUE if loss is None else f"{loss:.4f}" for loss in losses]
        rows.append([name, f"{own['n']:,}", *texts])
    return format_table(rows, head=["slice", "examples", "served", candidate.name], right=[1, 2, 3])


def _cost(cost: LineCost) -> str:
    figures = [
        (cost.answer_us, "{:,.1f} µs an answer"),
        (cost.example_us, "{:,.1f} µs an example"),
        (cost.snapshot_bytes, "{:,} bytes a snapshot"),
        (cost.snapshot_s, "{:.4f} s to write and read one"),
    ]
    return ", ".join(text.format(value) for value, text in figures if value is not None) or NO_VALUE


def _recorded(recorded: Recorded) -> Iterator[str]:
    yield (
        f"it ran: {recorded.answers_equal:,} of {recorded.answers:,} recorded answers again, the "
        f"largest difference is {recorded.worst:g}"
    )
    if recorded.evaluations:
        yield (
            f"{recorded.evaluations_equal:,} of {recorded.evaluations:,} recorded evaluations "
            "again, with their evidence"
        )
    if recorded.different is not None:
        yield printable(f"the first answer that differs: event {recorded.different}")
