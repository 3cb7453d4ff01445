"""Draws a report: one picture per question, none that the task gives no meaning to.

story             did learning on pay? The mean loss over time, switches marked
evidence          why was it replaced, and when? E of each challenger against what is needed
label_delay       how long does the truth take?
ranking           who ranks well, over time (binary)
precision_recall  what is found among those with the highest answers (binary)
confusion         which class is taken for which (multiclass)
classes           how well is each class told (multiclass)
forecast          forecasts beside the truth (regression)
reliability       does an answer mean what it says?
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

from stream_ml.errors import UsageError
from stream_ml.shell.report.chart import (
    LIGHT,
    Picture,
    adorn,
    date_axis,
    figure_text,
    focus,
    with_gaps,
)
from stream_ml.shell.report.chart import styles as styles_of
from stream_ml.shell.report.measures import LOSS_NAMES
from stream_ml.shell.report.task_pictures import task_pictures
from stream_ml.shell.whole_files import output_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stream_ml.shell.report.chart import Theme
    from stream_ml.shell.report.run import Report

__all__ = ["as_png", "draw", "pictures", "require_matplotlib"]

# Read on white and on black.
SWITCH_COLORS = {"replaced": "#9a7bea", "rolled_back": "#d55e00"}
DOTS_PER_INCH = 120
# By how many ms there are in it: the unit that delays are told in.
DELAY_UNITS = ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1_000, "seconds"))
DELAY_UNIT_MIN = 2
# An E below this is as good as none; the axis goes no further.
E_MIN = 1e-3
SWITCHES_NAMED_MAX = 8


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
    require_matplotlib()
    paths = []
    for picture in pictures(report):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{picture.name}.png"
        with output_file(path) as file:
            file.write(as_png(picture, LIGHT))
        paths.append(path)
    return paths


def as_png(picture: Picture, theme: Theme) -> bytes:
    """A picture as PNG.

    Args:
        picture: of `pictures`.
        theme: its colours.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if theme.name in picture.drawn:
        return picture.drawn[theme.name]
    figure = require_matplotlib()
    canvas = figure(figsize=picture.size, dpi=DOTS_PER_INCH, layout="constrained")
    picture.paint(canvas, theme)
    file = BytesIO()
    canvas.savefig(file, format="png")
    picture.drawn[theme.name] = file.getvalue()
    return picture.drawn[theme.name]


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


def pictures(report: Report) -> list[Picture]:
    """The pictures of a report, in the order in which they are looked at.

    Args:
        report: of the run.
    """
    return report.cached("pictures", lambda: _pictures(report)) if report.table.times else []


def _pictures(report: Report) -> list[Picture]:
    found = [_story(report)]
    if any(report.evidence.values()):
        found.append(_evidence(report))
    return [*found, *task_pictures(report), _delays(report)]


# --- over time ------------------------------------------------------------------------------------


def _story(report: Report) -> Picture:
    table, periods = report.table, report.periods()
    losses = {
        name: periods.means(
            None if answer is None else table.loss(label, answer)
            for label, answer in zip(table.labels, table.answers(name), strict=True)
        )
        for name in table.columns()
    }
    is_binary = report.task_kind == "binary"
    shares = periods.means(float(bool(label)) for label in table.labels) if is_binary else {}
    numbers = sorted({n for values in losses.values() for n in values})
    times = [periods.middle(n) for n in numbers]
    loss = LOSS_NAMES[report.task_kind]
    title = f"{loss} by {periods.period.name}, less is better"

    def paint(figure: Any, theme: Theme) -> None:
        if is_binary:
            bars, lines = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3.2])
            width = periods.period.ms / 86_400_000 * 0.9
            bars.bar(
                [periods.middle(n) for n in shares], [*shares.values()], width, color=theme.faint
            )
            bars.set_ylabel(f"share {report.positive}")
            bars.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        else:
            lines = figure.subplots()
        series_styles = styles_of(report, theme)
        for name, values in losses.items():
            heights, alone = with_gaps(values, numbers)
            lines.plot(times, heights, **alone, **series_styles[name])
        focus(lines, [[*values.values()] for values in losses.values()], theme.paper)
        _mark_switches(report, lines, theme)
        lines.set_ylabel(f"mean {loss}")
        lines.grid(alpha=0.2)
        date_axis(lines, report.zone)
        adorn(figure, report, title, theme)

    return Picture(
        "story",
        title,
        f"Lines over time: {_ends(losses)}.",
        [periods.period.name, *losses],
        [
            [periods.label(n), *(figure_text(losses[name].get(n)) for name in losses)]
            for n in numbers
        ],
        paint,
    )


def _ends(losses: Mapping[str, Mapping[int, float]]) -> str:
    """The first and the last figure of each line, in words."""
    parts = []
    for name, values in losses.items():
        if values:
            first, *_, last = [*values.values()] * 2
            parts.append(f"{name} from {figure_text(first)} to {figure_text(last)}")
    return "; ".join(parts) or "too few examples for a point"


def _mark_switches(report: Report, axes: Any, theme: Theme) -> None:
    """A line per replacement and rollback, the last ones named at the foot, each a step higher."""
    switches = report.switches()
    for number, switch in enumerate(switches):
        color, time = SWITCH_COLORS[switch.kind], report.local_time(switch.ts)
        axes.axvline(time, color=color, linestyle="--", linewidth=1.1, alpha=0.8)
        if len(switches) - number > SWITCHES_NAMED_MAX:
            continue
        is_late = switch.ts > (min(report.table.times) + 2 * max(report.table.times)) / 3
        axes.annotate(
            f" {switch.kind.replace('_', ' ')}: {switch.model} ",
            (time, 0.02 + 0.06 * (number % 5)),
            xycoords=("data", "axes fraction"),
            ha="right" if is_late else "left",
            fontsize=8,
            color=color,
            bbox={"facecolor": theme.paper, "alpha": 0.85, "edgecolor": "none", "pad": 0.8},
            zorder=7,
        )


# --- evidence -------------------------------------------------------------------------------------


def _blocks(points: list[tuple[int, float, int]]) -> list[tuple[int, float, int]]:
    """E after each block that voted; where fewer have voted than before, it began anew."""
    found: list[tuple[int, float, int]] = []
    for ts, e_value, votes in sorted(points):
        if not found or votes != found[-1][2]:
            found.append((ts, e_value, votes))
    return found


def _evidence(report: Report) -> Picture:
    lines = {line: _blocks(points) for line, points in report.evidence.items()}
    needed = report.e_value_min
    title = "evidence that a challenger is better, block by block"

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        series_styles = styles_of(report, theme)
        for line, points in lines.items():
            times, values, before = [], [], 0
            for ts, e_value, votes in points:
                if votes < before:  # it began anew: another line serves
                    times.append(report.local_time(ts))
                    values.append(math.nan)
                times.append(report.local_time(ts))
                values.append(max(e_value, E_MIN))
                before = votes
            style = series_styles.get(line, {"label": f"line {line}"})
            axes.plot(times, values, drawstyle="steps-post", marker="o", markersize=3.5, **style)
        axes.set_yscale("log")
        if needed is not None:
            label = f"needed to replace: {needed:g}"
            axes.axhline(needed, color=theme.ink, linestyle=":", label=label)
        axes.axhline(1, color=theme.faint, linewidth=0.8, zorder=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylabel("E against the present champion (log scale)")
        axes.grid(alpha=0.2)
        _mark_switches(report, axes, theme)
        shown = [*report.table.times, *(ts for points in lines.values() for ts, _, _ in points)]
        if min(shown) < max(shown):
            # One block alone says nothing of how long a run is.
            axes.set_xlim(report.local_time(min(shown)), report.local_time(max(shown)))
        date_axis(axes, report.zone)
        adorn(figure, report, title, theme)

    ends = "; ".join(
        f"{line} at {figure_text(points[-1][1])} after {points[-1][2]} blocks"
        for line, points in lines.items()
        if points
    )
    return Picture(
        "evidence",
        title,
        f"Steps over time on a log axis, {needed or 0:g} needed: {ends}.",
        ["challenger", "time", "blocks that voted", "E"],
        [
            [line, f"{report.local_time(ts):%Y-%m-%d %H:%M}", f"{votes:,}", f"{e_value:.3g}"]
            for line, points in lines.items()
            for ts, e_value, votes in points
        ],
        paint,
    )


# --- delays ---------------------------------------------------------------------------------------


def _delay_unit(ms: float) -> tuple[int, str]:
    return next((unit for unit in DELAY_UNITS if ms >= DELAY_UNIT_MIN * unit[0]), DELAY_UNITS[-1])


def _delays(report: Report) -> Picture:
    table, quantiles = report.table, report.delays_ms()
    size, unit = _delay_unit(quantiles["p90"])
    # The last bin holds all beyond the 99th percentile: a few stragglers else squeeze it.
    end = max(quantiles["p99"], 1) / size
    groups: dict[str, Callable[[Any], bool]] = {"all labels": lambda _: True}
    if report.task_kind == "binary":
        groups = {f"not {report.positive}": lambda v: not v, report.positive: bool}
    delays = [
        [min(ms / size, end) for ms, v in zip(table.delays, table.labels, strict=True) if is_in(v)]
        for is_in in groups.values()
    ]
    median = quantiles["p50"] / size
    title = "how long labels take"

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        colors = ["#56b4e9", "#d55e00"][: len(delays)]
        axes.hist(delays, bins=50, range=(0, end), stacked=True, label=[*groups], color=colors)
        label = f"median {median:.2g} {unit}"
        axes.axvline(median, color=theme.ink, linewidth=1.2, label=label)
        axes.set_xlabel(f"{unit} from the event to its label (the last bar holds all beyond)")
        axes.set_ylabel("examples")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        adorn(figure, report, title, theme)

    rows = [[name, f"{ms / size:.3g} {unit}"] for name, ms in quantiles.items()]
    alt = f"Bars: half of the labels came within {median:.2g} {unit}."
    return Picture("label_delay", title, alt, ["quantile", "delay"], rows, paint, (9.0, 4.2))
