"""Draws a report: one picture per question, none that the task gives no meaning to.

story          did learning on pay? The mean loss by week, switches marked
evidence       why was it replaced, and when? E of each challenger against what is needed
label_delay    how long does the truth take?
auc_by_month   who ranks well, month by month (binary)
reliability    does a probability mean what it says? (binary)
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from stream_ml.errors import UsageError
from stream_ml.shell.report.answer_table import CHAMPION, FIRST
from stream_ml.shell.report.bound import LIVE
from stream_ml.shell.report.comparisons import HOUR_MS, TOTAL
from stream_ml.shell.report.measures import LOSS_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from stream_ml.shell.report.run import Report

__all__ = ["draw", "require_matplotlib"]

WEEK_MS = 7 * 24 * HOUR_MS
# Means of fewer pairs say more of luck than of models: they are no point of a curve.
PAIRS_MIN = 50
RELIABILITY_BINS = 10
SWITCH_COLORS = {"replaced": "#1f77b4", "rolled_back": "#d97706"}


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw the pictures that this kind of task has.

    Args:
        report: of the run.
        folder: where the PNG files go; made if it is not there.

    Returns:
        The files written; none without examples.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figure = require_matplotlib()
    if not report.table.times:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"story.png": _story, "label_delay.png": _delays}
    if report.evidence:
        drawings["evidence.png"] = _evidence
    if report.task_kind == "binary":
        drawings |= {"auc_by_month.png": _auc, "reliability.png": _reliability}
    paths = []
    for name, paint in drawings.items():
        canvas = figure(figsize=(9, 5.4), dpi=110, layout="constrained")
        paint(report, canvas)
        canvas.savefig(folder / name)
        paths.append(folder / name)
    return paths


def require_matplotlib() -> Any:
    """The figure of matplotlib, without its global state and without a display.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it installed
    except ImportError:
        raise UsageError('plots need matplotlib: pip install "stream-ml[demo]"') from None
    return Figure


def _styles(report: Report) -> dict[str, dict[str, Any]]:
    """How each column is drawn: the served champion stands out, the first model warns."""
    palette = iter(["#2a9d3a", "#1f77b4", "#9467bd", "#8c564b", "#e377c2", "#17becf"] * 9)
    reference_styles = {
        CHAMPION: {"color": "black", "linewidth": 2.2, "label": "served champion", "zorder": 5},
        FIRST: {"color": "#d62728", "linewidth": 1.4, "label": "first model, never updated"},
        LIVE: {
            "color": "#ff9500",
            "linewidth": 1.6,
            "linestyle": (0, (2, 1.5)),
            "label": "a learner that predicts live (the bound)",
            "zorder": 6,
        },
    }
    grey = {"color": "#999999", "linewidth": 1.1, "linestyle": "--"}
    styles = {}
    for name in report.table.columns():
        if name in report.table.baselines:
            styles[name] = {**grey, "label": f"{name} (no model)"}
        else:
            styles[name] = reference_styles.get(name) or {
                "color": next(palette),
                "linewidth": 1.4,
                "label": f"line {name}",
            }
    return styles


def _story(report: Report, figure: Any) -> None:
    if report.task_kind == "binary":
        bars, lines = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.6])
        bars.bar(
            *_by_week(report, list(map(float, map(bool, report.table.labels)))),
            width=6.2,
            color="#bbbbbb",
        )
        bars.set_ylabel(f"share {report.positive}")
    else:
        lines = figure.subplots()
    for name, style in _styles(report).items():
        losses = [
            None if answer is None else report.table.loss(label, answer)
            for label, answer in zip(report.table.labels, report.table.answers(name), strict=True)
        ]
        lines.plot(*_by_week(report, losses), **style)
    _mark_switches(report, lines)
    lines.set_ylabel(f"{LOSS_NAMES[report.task_kind]}, weekly mean (less is better)")
    lines.grid(alpha=0.25)
    figure.legend(fontsize=9, loc="outside upper center", ncols=3)
    _date_axis(report, lines)


def _mark_switches(report: Report, axes: Any) -> None:
    """A line per replacement and rollback, its name at the foot, each a step higher."""
    for number, switch in enumerate(report.switches()):
        color, time = SWITCH_COLORS[switch.kind], report.local_time(switch.ts)
        axes.axvline(time, color=color, linestyle="--", linewidth=1.2)
        axes.annotate(
            f" {switch.kind.replace('_', ' ')}: {switch.model}",
            (time, 0.02 + 0.05 * (number % 5)),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            color=color,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8},
            zorder=7,
        )


def _by_week(report: Report, values: Iterable[float | None]) -> tuple[list[datetime], list[float]]:
    """The mean of each week with enough values, at its middle; the first example begins one."""
    start = report.table.times[0]
    weeks: dict[int, list[float]] = defaultdict(list)
    for ts, value in zip(report.table.times, values, strict=True):
        if value is not None:
            weeks[(ts - start) // WEEK_MS].append(value)
    full = sorted(week for week, numbers in weeks.items() if len(numbers) >= PAIRS_MIN)
    middles = [report.local_time(start + week * WEEK_MS + WEEK_MS // 2) for week in full]
    return middles, [math.fsum(weeks[week]) / len(weeks[week]) for week in full]


def _evidence(report: Report, figure: Any) -> None:
    axes = figure.subplots()
    styles = _styles(report)
    for line, points in report.evidence.items():
        times, values, votes = [], [], 0
        for ts, e_value, vote_count in sorted(points):
            if vote_count < votes:  # it began anew: another line serves
                times.append(report.local_time(ts))
                values.append(math.nan)
            times.append(report.local_time(ts))
            values.append(e_value)
            votes = vote_count
        style = styles.get(line, {})
        axes.plot(times, values, drawstyle="steps-post", marker=".", markersize=3, **style)
    axes.set_yscale("log")
    axes.axhline(
        report.e_value_min,
        color="black",
        linestyle=":",
        label=f"needed to replace: {report.e_value_min:g}",
    )
    axes.axhline(1, color="#cccccc", linewidth=0.8, zorder=0)
    _mark_switches(report, axes)
    axes.set_ylabel("E: evidence against the present champion (log scale)")
    axes.grid(alpha=0.25)
    figure.legend(fontsize=9, loc="outside upper center", ncols=4)
    _date_axis(report, axes)


def _auc(report: Report, figure: Any) -> None:
    axes = figure.subplots()
    rows = [row for row in report.months() if row.month != TOTAL]
    for name, style in _styles(report).items():
        # One answer for everybody ranks nobody: near one half, it would only flatten the rest.
        if name not in report.table.baselines:
            values = [row.scores.get(name, {}).get("ROC AUC", math.nan) for row in rows]
            axes.plot([row.month for row in rows], values, marker="o", markersize=4, **style)
    axes.set_ylabel("ROC AUC by month (more is better)")
    axes.grid(alpha=0.25)
    figure.legend(fontsize=9, loc="outside upper center", ncols=3)


def _delays(report: Report, figure: Any) -> None:
    axes = figure.subplots()
    hours = [ms / HOUR_MS for ms in report.table.delays]
    # The last bin holds all beyond the 99.9th percentile: a few stragglers else squeeze it.
    end = sorted(hours)[max(0, math.ceil(0.999 * len(hours)) - 1)] or 1.0
    groups, names = [hours], ["all"]
    if report.task_kind == "binary":
        groups = [
            [h for h, label in zip(hours, report.table.labels, strict=True) if bool(label) is value]
            for value in (False, True)
        ]
        names = [f"not {report.positive}", report.positive]
    clipped_groups = [[min(h, end) for h in group] for group in groups]
    colors = ["#8ab6d6", "#d62728"][: len(groups)]
    axes.hist(clipped_groups, bins=60, range=(0, end), stacked=True, label=names, color=colors)
    median = report.delays_ms()["p50"] / HOUR_MS
    axes.axvline(median, color="black", linewidth=1, label=f"median {median:.1f} h")
    axes.set_xlabel("hours from the event to its label (the last bin holds all beyond)")
    axes.set_ylabel("examples")
    axes.legend(fontsize=9)


def _reliability(report: Report, figure: Any) -> None:
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curve.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="perfect")
    styles = _styles(report)
    for name in (CHAMPION, FIRST):
        if name in styles:
            bins = _bins(report, name)
            means = [math.fsum(p for p, _ in pairs) / len(pairs) for pairs in bins]
            shares = [math.fsum(y for _, y in pairs) / len(pairs) for pairs in bins]
            curve.plot(means, shares, marker="o", markersize=4, **styles[name])
    answers = [answer for answer in report.table.answers(CHAMPION) if answer is not None]
    counts.hist(answers, bins=40, range=(0, 1), color="#bbbbbb")
    counts.set_ylabel("predictions")
    counts.set_xlabel("probability that was predicted")
    curve.set_ylabel(f"share {report.positive}, as it came out")
    curve.grid(alpha=0.25)
    curve.legend(fontsize=9)


def _bins(report: Report, name: str) -> list[list[tuple[float, float]]]:
    """Predicted probability and outcome, in bins of equal width with enough of them."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(RELIABILITY_BINS)]
    for label, answer in zip(report.table.labels, report.table.answers(name), strict=True):
        if isinstance(answer, float):
            number = min(int(answer * RELIABILITY_BINS), RELIABILITY_BINS - 1)
            bins[number].append((answer, float(bool(label))))
    return [pairs for pairs in bins if len(pairs) >= PAIRS_MIN]


def _date_axis(report: Report, axes: Any) -> None:
    from matplotlib import dates  # noqa: PLC0415 - only who draws needs it installed

    locator: Any = dates.AutoDateLocator  # typed so, because matplotlib does not say its types
    formatter: Any = dates.ConciseDateFormatter
    ticks = locator(tz=report.zone)
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(formatter(ticks, tz=report.zone))
