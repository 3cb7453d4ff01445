"""What-if as a page of HTML: each candidate beside what served."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stream_ml.shell.report.chart import Picture, adorn, figure_text
from stream_ml.shell.report.html import Page, PageTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.report.chart import Theme
    from stream_ml.shell.views.what_if import CandidateView, WhatIfView

__all__ = ["what_if_page"]

BARS_WIDTH = 0.8


@dataclass(frozen=True, slots=True)
class _Subject:
    """What the pictures are of."""

    pipeline: str
    span: str

    def span_text(self) -> str:
        return self.span


def what_if_page(view: WhatIfView, pipeline: str, loss: str) -> str:
    """The whole page.

    Args:
        view: of the candidates.
        pipeline: its name.
        loss: its name, such as `Brier`.

    Raises:
        UsageError: matplotlib is not installed.
    """
    months = sorted({row.month for each in view.candidates for row in each.months})
    dates = f"{months[0]} to {months[-1]} (UTC), " if months else ""
    subject = _Subject(pipeline, f"{dates}{view.scored:,} predictions scored")
    facts = [("examples taught", f"{view.examples:,}"), ("predictions scored", f"{view.scored:,}")]
    facts += [(f"{each.name} promoted", _fate(each)) for each in view.candidates]
    page = Page(f"{pipeline}: what if", subject.span, facts)
    page.add_table(_scores(view))
    if months:
        page.add_picture(_losses(view, subject, months, loss))
    for candidate in view.candidates:
        page.add_table(_reigns(candidate))
        page.add_table(_slices(view, candidate, loss))
    return page.render()


def _fate(candidate: CandidateView) -> str:
    return "never" if candidate.promotable is None else _time(candidate.promotable)


def _time(ms: int) -> str:
    return "the start" if ms < 0 else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}Z"


def _scores(view: WhatIfView) -> PageTable:
    evaluations = [view.served, *(each.scores for each in view.candidates)]
    names = ["served", *(each.name for each in view.candidates)]
    found = [(n, each) for n, each in zip(names, evaluations, strict=True) if each is not None]
    measures = list(dict.fromkeys(m for _, each in found for m in each.scores["cumulative"]))
    rows = [
        [name, f"{each.n:,}", *(figure_text(each.scores["cumulative"].get(m)) for m in measures)]
        for name, each in found
    ]
    return PageTable("Scores over all of it", ["who answered", "examples", *measures], rows)


def _losses(view: WhatIfView, subject: _Subject, months: list[str], loss: str) -> Picture:
    series: dict[str, dict[str, float]] = {"served": {}}
    for each in view.candidates:
        series["served"] |= {row.month: row.served for row in each.months}
        series[each.name] = {row.month: row.candidate for row in each.months}
    title = f"{loss} by month, less is better"

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        width = BARS_WIDTH / len(series)
        for number, (name, values) in enumerate(series.items()):
            places = [months.index(month) + number * width for month in values]
            color = theme.ink if number == 0 else theme.palette[(number - 1) % len(theme.palette)]
            axes.bar(places, [*values.values()], 0.9 * width, color=color, label=name)
        middle = (BARS_WIDTH - width) / 2
        axes.set_xticks([place + middle for place in range(len(months))], months)
        axes.set_ylabel(f"mean {loss}")
        axes.grid(axis="y", alpha=0.2)
        adorn(figure, subject, title, theme)

    rows = [
        [month, *(figure_text(values.get(month)) for values in series.values())] for month in months
    ]
    alt = "Bars by month: " + "; ".join(
        f"{name} {figure_text(values.get(months[-1]))} in {months[-1]}"
        for name, values in series.items()
    )
    return Picture("months", title, f"{alt}.", ["month", *series], rows, paint, (9.0, 4.6))


def _reigns(candidate: CandidateView) -> PageTable:
    return PageTable(
        f"Evidence for {candidate.name}, against each champion that served",
        ["champion", "since", "blocks won", "lost", "E", "needed", "promotable"],
        [[*cells] for cells in _reign_rows(candidate)],
    )


def _reign_rows(candidate: CandidateView) -> Iterator[list[str]]:
    for reign in candidate.reigns:
        figures = reign.evidence
        cells = ["-"] * 4
        if figures is not None:
            cells = [f"{figures['wins']:,}", f"{figures['losses']:,}"]
            cells += [f"{figures['e_value']:.3g}", f"{figures['needed']:.3g}"]
        fate = "never" if reign.promotable is None else _time(reign.promotable)
        yield [reign.champion, _time(reign.since), *cells, fate]


def _slices(view: WhatIfView, candidate: CandidateView, loss: str) -> PageTable:
    own = {} if candidate.scores is None else candidate.scores.slices or {}
    served = {} if view.served is None else view.served.slices or {}
    rows = [
        [name, f"{part['n']:,}", _slice_loss(served.get(name)), _slice_loss(part)]
        for name, part in own.items()
    ]
    return PageTable(
        f"{loss} of {candidate.name} by slice",
        ["slice", "examples", "served", candidate.name],
        rows,
    )


def _slice_loss(part: dict[str, Any] | None) -> str:
    figures = {} if part is None else part["scores"]["cumulative"]
    return figure_text(figures.get("brier", figures.get("mae")))
