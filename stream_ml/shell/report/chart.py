"""What every picture of a report has: a title, words and a table beside it, and two themes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from stream_ml.shell.report.answer_table import CHAMPION, FIRST
from stream_ml.shell.report.bound import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from stream_ml.shell.report.run import Report

__all__ = [
    "DARK",
    "LIGHT",
    "PAGE_THEMES",
    "Picture",
    "Subject",
    "Theme",
    "adorn",
    "date_axis",
    "figure_text",
    "focus",
    "styles",
    "with_gaps",
]

# Told apart by who sees no red or green (Okabe and Ito, 2008), on white, and lighter on black.
PALETTE = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#8c564b", "#7a7a00")
DARK_PALETTE = ("#56b4e9", "#2fc79a", "#e59ac4", "#9db4ff", "#d2a48f", "#c8c84a")
FIRST_COLOR, LIVE_COLOR, SWITCH_COLOR = "#d55e00", "#e69f00", "#7f5fc9"
# So much of the first periods is warm-up, which an axis need not show whole.
WARM_UP = 0.12
# An axis is cut where the warm-up alone would make it longer by this factor.
STRETCH_MAX = 1.5
SERIES_LEGEND_MAX = 9


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of paper and ink.

    Attributes:
        name: of the theme.
        paper: behind all.
        ink: of texts and of what matters most.
        faint: of what is beside.
        palette: of lines.
        is_titled: whether a picture bears its title, which in a page stands over it.
    """

    name: str
    paper: str
    ink: str
    faint: str
    palette: tuple[str, ...]
    is_titled: bool = True


LIGHT = Theme("light", "#ffffff", "#1a1a1a", "#767676", PALETTE)
DARK = Theme("dark", "#15181c", "#e8e8e8", "#8f969e", DARK_PALETTE)
PAGE_THEMES = tuple(
    replace(theme, name=f"{theme.name} page", is_titled=False) for theme in (LIGHT, DARK)
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, and the same in words and figures.

    Attributes:
        name: of its file, without the end.
        title: the question that it answers.
        alt: what it shows, for who does not see it.
        head: of the table beside it.
        rows: of that table, as texts.
        paint: draws it on a figure of matplotlib.
        size: in inches.
        drawn: as it was drawn already, by the name of the theme.
    """

    name: str
    title: str
    alt: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    paint: Callable[[Any, Theme], None]
    size: tuple[float, float] = (9.0, 5.2)
    drawn: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)


def styles(report: Report, theme: Theme) -> dict[str, dict[str, Any]]:
    """How each column is drawn: the served champion stands out, the first model warns.

    Args:
        report: of the run.
        theme: whose ink.
    """
    colors = iter(theme.palette * 9)
    references: dict[str, dict[str, Any]] = {
        CHAMPION: {"color": theme.ink, "linewidth": 2.4, "label": "served champion", "zorder": 5},
        FIRST: {"color": FIRST_COLOR, "linewidth": 1.4, "label": "first model, never updated"},
        LIVE: {
            "color": LIVE_COLOR,
            "linewidth": 1.6,
            "linestyle": (0, (2, 1.5)),
            "label": "learner that predicts live (the bound)",
            "zorder": 6,
        },
    }
    result = {}
    dashes = iter(("--", ":", "-.") * 9)
    for name in report.table.columns():
        if name in report.table.baselines:
            style = {"color": theme.faint, "linewidth": 1.2, "linestyle": next(dashes)}
            result[name] = {**style, "label": f"{name} (no model)"}
        else:
            result[name] = references.get(name) or {
                "color": next(colors),
                "linewidth": 1.4,
                "label": f"line {name}",
            }
    return result


class Subject(Protocol):
    """The run that a picture is of."""

    @property
    def pipeline(self) -> str:
        """Its name; empty where it has none."""
        ...

    def span_text(self) -> str:
        """From when until when, and how many examples."""
        ...


def adorn(figure: Any, subject: Subject, title: str, theme: Theme, *, note: str = "") -> None:
    """Give a figure its title with pipeline and dates, its legend and its theme.

    Args:
        figure: that all is drawn on.
        subject: the run.
        title: of the picture.
        theme: whose colours.
        note: on which part of it is shown.
    """
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        _color(axes, theme)
    if len(handles) > 1 or any("needed" in label for label in handles):
        shown = list(handles.items())[:SERIES_LEGEND_MAX]
        figure.legend(
            [handle for _, handle in shown],
            [label for label, _ in shown],
            fontsize=9,
            loc="outside lower center",
            ncols=3,
            frameon=False,
            labelcolor=theme.ink,
        )
    figure.set_facecolor(theme.paper)
    if not theme.is_titled:
        figure.axes[0].set_title(note.strip(" ,"), fontsize=9, color=theme.faint, loc="left")
        return
    name = f"{subject.pipeline}: " if subject.pipeline else ""
    figure.suptitle(
        f"{name}{title}", fontsize=13, fontweight="bold", color=theme.ink, x=0.01, ha="left"
    )
    span = f"{subject.span_text()}{note}"
    figure.axes[0].set_title(span, fontsize=9, color=theme.faint, loc="left")


def _color(axes: Any, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.ink, which="both", labelsize=9)
    for spine in axes.spines.values():
        spine.set_color(theme.faint)
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_color(theme.ink)


def focus(axes: Any, series: Iterable[Sequence[float]], paper: str) -> None:
    """Let the axis show what comes after the warm-up; say where that goes beyond it.

    Args:
        axes: whose vertical axis.
        series: values in the order of time.
        paper: the colour behind it.
    """
    everything: list[float] = []
    settled: list[float] = []
    for values in series:
        everything += values
        settled += values[round(WARM_UP * len(values) + 0.5) :] or values
    if not settled:
        return
    low, high = min(settled), max(settled)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    bottom, top = min(everything), max(everything)
    is_cut = max(top, high) - min(bottom, low) > STRETCH_MAX * (high - low + 2 * margin)
    if not is_cut:
        low, high = bottom, top
    axes.set_ylim(low - margin, high + margin)
    if is_cut and top > high:
        axes.annotate(
            f"▲ warm-up, up to {figure_text(top)}",
            (0.01, 0.97),
            xycoords="axes fraction",
            va="top",
            fontsize=8,
            color=FIRST_COLOR,
            bbox={"facecolor": paper, "edgecolor": "none", "pad": 1.5},
            zorder=9,
        )


def with_gaps(
    values: Mapping[int, float], numbers: Sequence[int]
) -> tuple[list[float], dict[str, Any]]:
    """The heights of a line that is not drawn on where it has no value and others have one.

    A value with none on either side is a dot, by the style that is given beside.

    Args:
        values: by the number of their period.
        numbers: of the periods in which any line has a value, in their order.
    """
    places = [n in values for n in numbers]
    alone = [
        index
        for index, (before, here, after) in enumerate(
            zip([False, *places], places, [*places[1:], False], strict=False)
        )
        if here and not before and not after
    ]
    heights = [values.get(n, math.nan) for n in numbers]
    return heights, {"marker": "o", "markersize": 3.5, "markevery": alone} if alone else {}


def figure_text(value: float | None) -> str:
    """A figure with as many digits as it has something to say.

    >>> figure_text(0.12345), figure_text(1234.5), figure_text(None), figure_text(0.000123)
    ('0.1235', '1,234', '-', '0.000123')
    """
    if value is None:
        return "-"
    if abs(value) >= 100:  # noqa: PLR2004 - no more digits are read
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 0.001 or not value else f"{value:.3g}"  # noqa: PLR2004


def date_axis(axes: Any, zone: ZoneInfo) -> None:
    """Let an axis show times as a zone's clocks do, by the length of what is shown.

    Args:
        axes: whose horizontal axis.
        zone: whose clocks.
    """
    from matplotlib import dates  # noqa: PLC0415 - only who draws needs it installed

    locator: Any = dates.AutoDateLocator  # typed so, because matplotlib does not say its types
    formatter: Any = dates.ConciseDateFormatter
    ticks = locator(tz=zone, minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(formatter(ticks, tz=zone))
