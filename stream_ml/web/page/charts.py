"""Charts of lines as SVG: pure text, with a title and a description for who does not see them.

Colours, widths and dashes are classes (`s0` ...), so that a style sheet may draw them in the dark,
and nothing of it needs a style in the page. Values come from logs: every text is escaped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING

from markupsafe import Markup

from stream_ml.web.page.phrases import figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Chart", "Curve", "Mark", "draw", "log_ticks", "pictures", "ticks", "time_ticks"]

# In CSS pixels where it is as wide as that: on a desk, and on a phone, where texts are as large.
WIDTH, NARROW, HEIGHT = 640.0, 360.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 96.0, 24.0, 30.0
UNIT_Y = 12.0
POINTS_MAX = 240
LABEL_PX = 17.0
ENDED_PX = 60.0
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# Steps of a time axis, in ms, each with how its ticks are written.
TIME_STEPS = (
    (60_000, "%H:%M"),
    (5 * 60_000, "%H:%M"),
    (15 * 60_000, "%H:%M"),
    (HOUR_MS, "%H:%M"),
    (3 * HOUR_MS, "%d %b %H:%M"),
    (6 * HOUR_MS, "%d %b %H:%M"),
    (12 * HOUR_MS, "%d %b %H:%M"),
    (DAY_MS, "%d %b"),
    (2 * DAY_MS, "%d %b"),
    (7 * DAY_MS, "%d %b"),
    (14 * DAY_MS, "%d %b"),
    (28 * DAY_MS, "%d %b"),
    (91 * DAY_MS, "%b %Y"),
    (365 * DAY_MS, "%Y"),
)
TICKS_MAX, TICKS_NARROW = 6, 4
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# 1970 began on a Thursday; weeks begin on Mondays.
MONDAY_MS = 4 * DAY_MS
E_SMALLEST = 1e-300


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: written at its end.
        style: which of the styles it is drawn in, from 0.
        points: time (UTC ms) and value, in the order of time; a value that is no number is a gap.
        ranges: of each point from where to where its value may be, if that is drawn.
    """

    name: str
    style: int
    points: Sequence[tuple[float, float]]
    ranges: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, at a time (UTC ms): an upright line with a text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of series over time, or over another number.

    Attributes:
        name: an identifier, of letters; ids in the page begin with it.
        title: a few words.
        description: a sentence.
        series: the lines.
        logarithmic: whether the upright axis is.
        threshold: a value that matters, and what it is called.
        marks: what happened meanwhile.
        unit: what the upright axis shows.
        along: what the other axis shows in the place of time, if it does; equal values of both
            then lie on a line that is drawn.
    """

    name: str
    title: str
    description: str
    series: Sequence[Curve]
    logarithmic: bool = False
    threshold: tuple[float, str] | None = None
    marks: Sequence[Mark] = ()
    unit: str = ""
    along: str = ""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two: steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.13, 0.29)
    [0.15, 0.2, 0.25]
    """
    if not low < high:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    digits = max(0, 1 - math.floor(math.log10(step)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, digits) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two, not more than can be read.

    >>> log_ticks(0.05, 2000)
    [0.1, 1.0, 10.0, 100.0, 1000.0]
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / TICKS_MAX))
    return [10.0**power for power in range(first, last + 1, step)]


def time_ticks(low: float, high: float, count_max: int = TICKS_MAX) -> list[tuple[float, str]]:
    """Times between two (UTC ms) at which days, hours or minutes begin, with their names.

    >>> time_ticks(0, 3 * 86_400_000)
    [(0, '01 Jan'), (86400000, '02 Jan'), (172800000, '03 Jan'), (259200000, '04 Jan')]
    """
    step, form = next(
        (each for each in TIME_STEPS if (high - low) / each[0] < count_max - 1), TIME_STEPS[-1]
    )
    origin = MONDAY_MS if step >= 7 * DAY_MS else 0
    first = math.ceil((low - origin) / step)
    last = math.floor((high - origin) / step)
    stride = max(1, math.ceil((last - first + 1) / count_max))
    times = [number * step + origin for number in range(first, last + 1, stride)]
    return [(ms, _time_text(ms, form)) for ms in times]


def _time_text(ms: float, form: str) -> str:
    try:
        return (EPOCH + timedelta(milliseconds=ms)).strftime(form)
    except OverflowError:
        return ""


def pictures(chart: Chart) -> Markup:
    """A chart as two SVG elements, of which a style sheet shows the one that fits the screen.

    Args:
        chart: what is drawn.
    """
    return draw(chart) + draw(chart, NARROW)


def draw(chart: Chart, width: float = WIDTH) -> Markup:
    """A chart as an SVG element; empty without points.

    Args:
        chart: what is drawn.
        width: in pixels; texts are as large in any.
    """
    series = [
        replace(each, points=_thin(_drawable(each.points, positive=chart.logarithmic)))
        for each in chart.series
    ]
    series = [each for each in series if each.points]
    if not series:
        return Markup("")
    scale = _Scale.of(chart, series, width)
    parts = [
        *_upright_axis(chart, scale),
        *(_number_axis(chart, scale) if chart.along else _time_axis(scale)),
        *_marks(chart.marks, scale),
        *_threshold(chart, scale),
        *_ranges(series, scale),
        *(shape for each in series for shape in _shapes(each, scale, dots=bool(chart.along))),
        *_names(series, scale, HEIGHT - BOTTOM - (LABEL_PX if chart.along else 0.0)),
    ]
    head = Markup(
        '<svg class="chart {form}" viewBox="0 0 {w:.0f} {h:.0f}" role="img" '
        'aria-labelledby="{name}-title {name}-desc">'
        '<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>'
    ).format(
        form="on-phone" if scale.is_narrow else "on-desk",
        w=width,
        h=HEIGHT,
        name=f"{chart.name}-phone" if scale.is_narrow else chart.name,
        title=chart.title,
        description=chart.description,
    )
    return head + Markup("").join(parts) + Markup("</svg>")


@dataclass(frozen=True, slots=True)
class _Scale:
    """From times and values to places in the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    logarithmic: bool
    width: float

    @classmethod
    def of(cls, chart: Chart, series: Sequence[Curve], width: float) -> _Scale:
        xs = [x for each in series for x, _ in each.points]
        ys = [y for each in series for _, y in each.points if not math.isnan(y)]
        ys += [y for each in series for ends in each.ranges for y in ends]
        if chart.threshold is not None:
            ys.append(chart.threshold[0])
        low, high = min(ys), max(ys)
        if chart.logarithmic:
            low, high = low / 1.6, high * 1.6
        else:
            margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
            low, high = low - margin, high + margin
        first, last = min(xs), max(xs)
        if chart.along:
            margin = (last - first) * 0.04 or abs(last) * 0.1 or 1.0
            first, last = first - margin, last + margin
        elif first == last:
            first, last = first - HOUR_MS, last + HOUR_MS
        return cls(first, last, low, high, chart.logarithmic, width)

    @property
    def is_narrow(self) -> bool:
        return self.width < WIDTH

    @property
    def right(self) -> float:
        """Where the picture ends and the names begin."""
        return self.width - RIGHT

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (self.right - LEFT)

    def y(self, value: float) -> float:
        low, high = self.y_low, self.y_high
        if self.logarithmic:
            value, low, high = (math.log10(max(each, E_SMALLEST)) for each in (value, low, high))
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _drawable(
    points: Iterable[tuple[float, float]], *, positive: bool
) -> list[tuple[float, float]]:
    """Those that have a place, with one that has none where there is a gap between two."""
    found: list[tuple[float, float]] = []
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            found.append((x, max(y, E_SMALLEST) if positive else y))
        elif math.isfinite(x) and found and not math.isnan(found[-1][1]):
            found.append((x, math.nan))
    return found[:-1] if found and math.isnan(found[-1][1]) else found


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Not more of them than can be seen; the last one always, and no gap lost."""
    if len(points) <= POINTS_MAX:
        return points
    stride = math.ceil(len(points) / POINTS_MAX)
    last = len(points) - 1
    return [
        point
        for index, point in enumerate(points)
        if index % stride == 0 or index == last or math.isnan(point[1])
    ]


def _upright_axis(chart: Chart, scale: _Scale) -> Iterator[Markup]:
    places = log_ticks if chart.logarithmic else ticks
    for value in places(scale.y_low, scale.y_high):
        y = scale.y(value)
        yield Markup(
            '<line class="grid" x1="{0}" x2="{1:.0f}" y1="{2:.1f}" y2="{2:.1f}"/>'
            '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
        ).format(LEFT, scale.right, y, LEFT - 7, y + 4, figure(value))
    if chart.unit:
        yield Markup('<text class="unit" x="{0}" y="{1}">{2}</text>').format(0, UNIT_Y, chart.unit)


def _number_axis(chart: Chart, scale: _Scale) -> Iterator[Markup]:
    y = HEIGHT - BOTTOM
    yield Markup('<line class="axis" x1="{0}" x2="{1:.0f}" y1="{2}" y2="{2}"/>').format(
        LEFT, scale.right, y
    )
    for value in ticks(
        scale.x_low, scale.x_high, TICKS_NARROW if scale.is_narrow else TICKS_MAX + 2
    ):
        yield Markup(
            '<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(scale.x(value), y, y + 4, y + 18, figure(value))
    yield Markup('<text class="unit" x="{0:.0f}" y="{1}" text-anchor="end">{2}</text>').format(
        scale.width - 2, y + 4, chart.along
    )
    low, high = max(scale.x_low, scale.y_low), min(scale.x_high, scale.y_high)
    if low < high:
        yield Markup(
            '<line class="equal" x1="{0:.1f}" y1="{1:.1f}" x2="{2:.1f}" y2="{3:.1f}"/>'
        ).format(scale.x(low), scale.y(low), scale.x(high), scale.y(high))


def _time_axis(scale: _Scale) -> Iterator[Markup]:
    count_max = TICKS_NARROW if scale.is_narrow else TICKS_MAX
    y = HEIGHT - BOTTOM
    yield Markup('<line class="axis" x1="{0}" x2="{1:.0f}" y1="{2}" y2="{2}"/>').format(
        LEFT, scale.right, y
    )
    for ms, text in time_ticks(scale.x_low, scale.x_high, count_max):
        yield Markup(
            '<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(scale.x(ms), y, y + 4, y + 18, text)


def _marks(marks: Sequence[Mark], scale: _Scale) -> Iterator[Markup]:
    for mark in marks:
        if scale.x_low <= mark.at <= scale.x_high:
            yield Markup(
                '<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}">'
                "<title>{3}</title></line>"
            ).format(scale.x(mark.at), TOP, HEIGHT - BOTTOM, mark.text)


def _threshold(chart: Chart, scale: _Scale) -> Iterator[Markup]:
    if chart.threshold is not None:
        value, text = chart.threshold
        y = scale.y(value)
        yield Markup(
            '<line class="threshold" x1="{0}" x2="{1:.0f}" y1="{2:.1f}" y2="{2:.1f}"/>'
            '<text class="threshold-text" x="{3}" y="{4:.1f}">{5}</text>'
        ).format(LEFT, scale.right, y, LEFT + 6, y - 5, text)


def _ranges(curves: Sequence[Curve], scale: _Scale) -> Iterator[Markup]:
    for each in curves:
        for (x, _), (low, high) in zip(each.points, each.ranges, strict=False):
            yield Markup(
                '<line class="range s{0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>'
            ).format(each.style, scale.x(x), scale.y(low), scale.y(high))


def _shapes(curve: Curve, scale: _Scale, *, dots: bool) -> Iterator[Markup]:
    """The line, a piece of it for each stretch without a gap; dots for what stands alone."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in curve.points:
        if math.isnan(y):
            pieces.append([])
        else:
            pieces[-1].append((scale.x(x), scale.y(y)))
    for piece in pieces:
        if len(piece) > 1:
            places = " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
            yield Markup('<polyline class="line s{}" points="{}"/>').format(curve.style, places)
        for x, y in piece if dots or len(piece) == 1 else ():
            yield Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
                curve.style, x, y
            )


def _names(curves: Sequence[Curve], scale: _Scale, bottom: float) -> Iterator[Markup]:
    """The names at the ends of the lines, moved apart where they would cover each other.

    A line that has ended long before the others has its name where it ends.
    """
    recent = [each for each in curves if scale.x(each.points[-1][0]) > scale.right - ENDED_PX]
    for each in curves:
        if each not in recent:
            x, y = each.points[-1]
            yield _name(each, scale.x(x) + 4, scale.y(y) - 6)
    ends = sorted(((scale.y(each.points[-1][1]), each) for each in recent), key=itemgetter(0))
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + LABEL_PX) if places else y)
    # What was pushed out of the picture pushes the others back.
    for index in reversed(range(len(places))):
        places[index] = min(places[index], bottom)
        bottom = places[index] - LABEL_PX
    for place, (_, each) in zip(places, ends, strict=True):
        yield _name(each, scale.right + 7, place)


def _name(curve: Curve, x: float, y: float) -> Markup:
    return Markup('<text class="name s{}" x="{:.0f}" y="{:.1f}">{}</text>').format(
        curve.style, x, y + 4, _short(curve.name)
    )


def _short(name: str) -> str:
    return name if len(name) <= 13 else f"{name[:12]}…"  # noqa: PLR2004 - as wide as the margin
