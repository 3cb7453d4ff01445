"""A report as a page of HTML: what matters first, then pictures, then all that was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.shell.report.answer_table import CHAMPION, FIRST
from stream_ml.shell.report.bound import LIVE
from stream_ml.shell.report.chart import figure_text
from stream_ml.shell.report.comparisons import HOUR_MS, TOTAL
from stream_ml.shell.report.html import Page, PageTable
from stream_ml.shell.report.measures import LOSS_NAMES, MEASURES
from stream_ml.shell.report.plots import pictures
from stream_ml.shell.report.text import luck_text, slices_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.report.run import Report

__all__ = ["report_page"]

NAMES = {
    CHAMPION: "served champion",
    FIRST: "first model, never updated",
    LIVE: "learner that predicts live (the bound)",
}
TASKS = {"binary": "yes or no", "multiclass": "one of several classes", "regression": "a number"}


def report_page(report: Report, kind: str) -> str:
    """The whole page.

    Args:
        report: of a run.
        kind: such as `backtest`.

    Raises:
        UsageError: matplotlib is not installed.
    """
    name = report.pipeline or "a pipeline"
    page = Page(f"{name}: {kind}", report.span_text(), [*_facts(report)])
    if report.table.times:
        page.add_table(_scores(report))
        drawn = pictures(report)
        for picture in drawn[:2]:
            page.add_picture(picture)
        page.add_table(_changes(report))
        for picture in drawn[2:]:
            page.add_picture(picture)
        for table in _months(report):
            page.add_table(table)
        page.add_text("Loss by slice", slices_text(report))
        page.add_text("How long luck lasts, and the block that this suggests", luck_text(report))
    counts = [[name, f"{count:,}"] for name, count in report.accounting.items()]
    page.add_table(PageTable("Counted", ["what", "how many"], counts))
    return page.render()


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "answers", TASKS[report.task_kind]
    yield "examples", f"{len(report.table.times):,}"
    if report.decisions:
        yield "serves at the end", report.decisions[-1].serving.champion.model
    if not report.table.times:
        return
    scores = report.months()[-1].scores
    measures = list(MEASURES[report.task_kind])
    served = scores.get(CHAMPION, {})
    for measure in measures[:2]:
        if measure in served:
            yield f"{measure}, served", figure_text(served[measure])
    gaps = report.gaps()
    if gaps and gaps[0].closed is not None:
        yield "gap to the bound closed", f"{gaps[0].closed:.1%}"
    yield "replacements and rollbacks", f"{len(report.switches()):,}"
    shares = report.coverage()
    yield "answered", f"{shares['answered']:.2%}"
    if "labelled" in shares:
        yield "predictions with a label", f"{shares['labelled']:.2%}"
    yield "half of the labels within", f"{report.delays_ms()['p50'] / HOUR_MS:.2g} h"


def _scores(report: Report) -> PageTable:
    total = report.months()[-1]
    measures = list(MEASURES[report.task_kind])
    rows = [
        [NAMES.get(name, name), *(figure_text(scores.get(measure)) for measure in measures)]
        for name, scores in total.scores.items()
        if scores
    ]
    title = f"Scores over all of it, on the {total.n:,} examples that all have answered"
    return PageTable(title, ["who answered", *measures], rows)


def _months(report: Report) -> Iterator[PageTable]:
    rows = [row for row in report.months() if row.month != TOTAL]
    if len(rows) < 2:  # noqa: PLR2004 - one month is all of it
        return
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    for measure in MEASURES[report.task_kind]:
        cells = [
            [
                row.month,
                f"{row.n:,}",
                *(figure_text(row.scores.get(name, {}).get(measure)) for name in names),
            ]
            for row in rows
        ]
        yield PageTable(f"{measure} by month", ["month", "examples", *names], cells)


def _changes(report: Report) -> PageTable:
    loss = LOSS_NAMES[report.task_kind]
    rows = []
    for switch in report.switches():
        evidence = switch.evidence or {}
        words = "-"
        if "e_value" in evidence:
            words = (
                f"E {evidence['e_value']:.3g} of {evidence['needed']:.3g}, "
                f"{evidence['wins']} blocks won and {evidence['losses']} lost"
            )
        rows.append(
            [
                f"{report.local_time(switch.ts):%Y-%m-%d %H:%M}",
                f"{switch.kind.replace('_', ' ')}: {switch.model} in the place of {switch.former}",
                switch.actor,
                switch.reason,
                words,
                "-" if switch.line_gain is None else f"{switch.line_gain:+.4f}",
            ]
        )
    head = ["when", "what", "by", "why", "evidence", f"{loss} gained over the lines"]
    return PageTable("What was changed, and what it gained", head, rows, is_prose=True)
