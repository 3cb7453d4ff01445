"""HTML from snapshots of the views: one rendering for all who look, of what has changed alone.

Everything that is written into a page goes through the templates' escaping, and first through
`printable`: what clients wrote neither steers a browser nor turns the direction of writing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stream_ml.records import line_of
from stream_ml.shell.printable import printable
from stream_ml.web.page import contents, phrases, quality
from stream_ml.web.page.rates import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.web.board import BoardSnapshot
    from stream_ml.web.page.recent import Recent

__all__ = ["PARTS", "PagePart", "Painter", "part_rows", "render"]


@dataclass(frozen=True, slots=True)
class PagePart:
    """A part of the page.

    Attributes:
        name: of its template, and its place in the page.
        title: a heading.
        explanation: a sentence for who sees it for the first time.
        column: `wide`, or that of the two in which it stands, `left` or `right`.
        link: in a word, for the list of parts; by default the title.
    """

    name: str
    title: str
    explanation: str
    column: str = "wide"
    link: str = ""


PARTS = (
    PagePart(
        "champion",
        "Champion",
        "The model whose answers are served now, and why it and no other. A loss below that of the "
        "others in the table further down is good.",
    ),
    PagePart(
        "health",
        "Needs attention",
        "Alerts that are open, and whatever stands still or falls behind: each stays until its "
        "cause has ended. Empty is good.",
        link="Attention",
    ),
    PagePart(
        "flow",
        "Dataflow",
        "Events are predicted on at once, joined with their labels when these come, and then teach "
        "and score every model. Lag is how many records wait before a stage: near 0 is good, and "
        "growing is not.",
    ),
    PagePart(
        "scores",
        "Loss over time",
        "How far the answers of each model were from the truth, over its last labelled examples: "
        "lower is better, and the thick line is what was served.",
        column="left",
        link="Loss",
    ),
    PagePart(
        "evidence",
        "Evidence",
        "How strongly the votes so far speak for putting a challenger in the champion's place. One "
        "that reaches the dashed line has earned it; lines that stay low say that the champion is "
        "the right one.",
        column="right",
    ),
    PagePart(
        "lines",
        "Champion and challengers",
        "Every line learns from each example; challengers answer in the champion's shadow, and a "
        "block of labels is a vote for the better one.",
        link="Challengers",
    ),
    PagePart(
        "timeline",
        "Time line",
        "What was decided, by whom and why, and which alerts came and went, the newest first.",
        column="left",
    ),
    PagePart(
        "blocks",
        "Loss by block",
        "The same loss, block of time by block, beside what is usual: a block in which all do "
        "worse was a hard one, and one in which a single model does is that model's fault.",
        column="left",
        link="Blocks",
    ),
    PagePart(
        "drift",
        "Drift",
        "Whether the incoming data still look as they usually do, field by field: where they do "
        "not, models answer what they were never taught.",
        column="left",
    ),
    PagePart(
        "labels",
        "Labels",
        "The truth comes later than the prediction: how long it takes, and how often it never "
        "comes. Steady is good.",
        column="left",
    ),
    PagePart(
        "calibration",
        "Calibration",
        "Whether answers mean what they say: each dot is a group of answers alike, and on the "
        "diagonal what was said is what came.",
        column="right",
    ),
    PagePart(
        "slices",
        "Slices",
        "The loss for parts of the events by themselves: a challenger that is better on the whole "
        "may still be worse for some.",
        column="right",
    ),
    PagePart(
        "predictions",
        "Predictions",
        "The newest answers, and the newest whose truth is known by now; each opens with its "
        "features, and can be made again.",
        column="right",
    ),
    PagePart(
        "letters",
        "Dead letters",
        "Records that could not be used: each is put aside with its reason and changes nothing. "
        "None, or few beside what is read, is good.",
        column="right",
    ),
    PagePart(
        "costs",
        "Costs",
        "The time that each line takes where it learns, and its size: what a challenger costs "
        "beside what it may gain.",
        column="right",
    ),
)


def part_rows(parts: Iterable[PagePart]) -> list[tuple[list[PagePart], list[PagePart]]]:
    """The parts as they lie on a page: a wide one by itself, others in two columns.

    Args:
        parts: in the order in which they are read, a left column before the right one beside it.

    Returns:
        What is in the left column, or wide, and what is in the right one, from above.
    """
    rows: list[tuple[list[PagePart], list[PagePart]]] = []
    for is_wide, group in groupby(parts, key=lambda part: part.column == "wide"):
        members = list(group)
        if is_wide:
            rows += [([part], []) for part in members]
        else:
            left, right = ([m for m in members if m.column == c] for c in ("left", "right"))
            rows.append((left, right))
    return rows


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stream_ml.web.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "answer": phrases.answer_text,
        "bytes_text": phrases.bytes_text,
        "clock": phrases.clock,
        "count": phrases.count,
        "day_time": phrases.day_time,
        "figure": phrases.figure,
        "iso": _iso,
        "meter": _meter,
        "percent": phrases.percent,
        "span": phrases.span,
    }
    return environment


def _shown(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    return printable(value) if isinstance(value, str) else value


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _meter(value: float, needed: float) -> Markup:
    """How far evidence is from 1, which is none, to what is needed: in powers of ten."""
    share = 0.0
    if value > 1 and needed > 1:
        share = min(1.0, math.log(value) / math.log(needed))
    return Markup(
        '<meter min="0" max="1" value="{0:.3f}" aria-label="evidence">{0:.2f}</meter> '
        '<span class="nowrap">{1} of {2} needed</span>'
    ).format(share, phrases.figure(value), phrases.figure(needed))


def render(template: str, **values: Any) -> Markup:
    """A template with values.

    Args:
        template: its name, without `.html`.
        values: that it speaks of.
    """
    return Markup(_environment().get_template(f"{template}.html").render(**values))  # noqa: S704 - escaped by the template


class Painter:
    """Renders one snapshot after the other; of a part that says the same, nothing is made anew.

    Args:
        pipeline: the declaration.
        checkpoint_s: how often learn and evaluate write down where they are, in seconds.
    """

    def __init__(self, pipeline: Pipeline, checkpoint_s: float = 0.0) -> None:
        self._pipeline = pipeline
        self._pace = Pace(checkpoint_s)
        self._number: int | None = None
        self._calibrated: object = None
        self._bodies: dict[str, Markup] = {}
        self._charts: dict[str, tuple[object, Markup]] = {}

    def paint(self, snapshot: BoardSnapshot, recent: Recent) -> Mapping[str, Markup]:
        """The content of every part, by name.

        Args:
            snapshot: the newest one.
            recent: single predictions.
        """
        self._pace.add(snapshot)
        if snapshot.number != self._number:
            self._bodies |= self._paint_all(snapshot)
            self._bodies["predictions"] = render("predictions", recent=recent)
            if recent.calibration is not self._calibrated or "calibration" not in self._bodies:
                values = quality.calibration(recent, self._pipeline)
                self._bodies["calibration"] = render("calibration", **values)
                self._calibrated = recent.calibration
            self._number = snapshot.number
        elif snapshot.stalled or snapshot.backlogs:  # the wait grows, though nothing is written
            self._bodies["health"] = render("health", **contents.health(snapshot))
        self._bodies["flow"] = render("flow", **contents.flow(snapshot, self._pace))
        return dict(self._bodies)

    def _paint_all(self, snapshot: BoardSnapshot) -> dict[str, Markup]:
        plain: dict[str, dict[str, Any]] = {
            "champion": contents.champion(snapshot),
            "health": contents.health(snapshot),
            "lines": contents.lines(snapshot, self._pipeline),
            "timeline": contents.timeline(snapshot),
            "drift": contents.drift(snapshot),
            "labels": contents.labels(snapshot),
            "letters": contents.letters(snapshot),
            "costs": contents.costs(snapshot),
            "blocks": quality.blocks(snapshot, self._pipeline),
            "slices": quality.slices(snapshot, self._pipeline),
        }
        bodies = {name: render(name, **values) for name, values in plain.items()}
        bodies["state"] = render("state", counts=snapshot.status.open_alerts, **plain["champion"])
        line = plain["champion"]["line"]
        bodies["choices"] = render("choices", names=_choices(snapshot), champion=line)
        for name, chart in (
            ("scores", contents.score_chart),
            ("evidence", contents.evidence_chart),
        ):
            bodies[name] = self._chart(name, chart, snapshot)
        return bodies

    def _chart(
        self,
        name: str,
        chart: Callable[[BoardSnapshot, Pipeline], dict[str, Any]],
        snapshot: BoardSnapshot,
    ) -> Markup:
        """Drawn when there are other evaluations or decisions than last time."""
        decisions = snapshot.status.registry.decisions
        drawn_from = (len(snapshot.evaluations), snapshot.evaluations[-1:], decisions[-1:])
        former = self._charts.get(name)
        if former is None or former[0] != drawn_from:
            self._charts[name] = former = (
                drawn_from,
                render(name, **chart(snapshot, self._pipeline)),
            )
        return former[1]


def _choices(snapshot: BoardSnapshot) -> list[str]:
    """The lines, challengers first: they are what is promoted."""
    newest = snapshot.status.registry.newest
    if newest is None:
        return []
    serving = newest.serving
    return [*serving.challengers, line_of(serving.champion.model)]
