"""Pictures that one kind of task has: rankings, classes, forecasts, and what answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.scores import roc_auc
from stream_ml.shell.report.answer_table import CHAMPION
from stream_ml.shell.report.chart import (
    Picture,
    adorn,
    date_axis,
    figure_text,
    focus,
    styles,
    with_gaps,
)
from stream_ml.shell.report.curves import (
    average_precision,
    calibration,
    class_scores,
    confusion,
    likeliest,
    precision_recall,
    top_shares,
)
from stream_ml.shell.report.measures import mean
from stream_ml.shell.report.periods import PAIRS_MIN, Periods

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.shell.report.chart import Theme
    from stream_ml.shell.report.curves import CalibrationPoint, RankingPoint
    from stream_ml.shell.report.run import Report

__all__ = ["task_pictures"]

# Of each kind in a period, for a rank to say more of models than of luck.
KIND_MIN, KIND_FULL = 5, 20
# Fewer points are no curve.
POINTS_MIN = 2
# A twentieth of the examples, in which models begin, is left out of what answers mean.
WARM_UP_PART = 20
WARM_UP_NOTE = ", without the first 5 %: warm-up"
# Below this share of true labels, probabilities are looked at on log axes.
RARE = 0.1
CLASSES_MAX = 12
OTHERS = "others"
TOP_CHART_SHARES = (0.01, 0.05, 0.1)
DOTS_MAX = 4_000
BINS = 40
CURVE_POINTS_MAX = 2_000


def task_pictures(report: Report) -> list[Picture]:
    """Those of the kind of task that a report is of.

    Args:
        report: with examples.
    """
    if report.task_kind == "binary":
        found = [_ranking(report), _precision_recall(report), _reliability(report)]
    elif report.task_kind == "multiclass":
        found = [_confusion(report), _classes(report), _reliability(report)]
    else:
        found = [_forecast(report), _reliability(report)]
    return [picture for picture in found if picture is not None]


def _models(report: Report) -> list[str]:
    """Columns that differ by example: a baseline has one answer for everybody."""
    return [name for name in report.table.columns() if name not in report.table.baselines]


def _pairs(report: Report, name: str, begin: int = 0) -> list[tuple[Any, Any]]:
    """Labels and answers, from an example on."""
    answers = report.table.answers(name)[begin:]
    pairs = zip(report.table.labels[begin:], answers, strict=True)
    return [(label, answer) for label, answer in pairs if answer is not None]


def _warm(report: Report) -> int:
    """The example from which on models have warmed up: their first answers are none of theirs."""
    return len(report.table.times) // WARM_UP_PART


# --- rankings -------------------------------------------------------------------------------------


def _auc(pairs: list[tuple[bool, float]]) -> float | None:
    positives = sum(label for label, _ in pairs)
    return roc_auc(pairs) if KIND_MIN <= positives <= len(pairs) - KIND_MIN else None


def _ranking(report: Report) -> Picture | None:
    positives = [
        ts for ts, label in zip(report.table.times, report.table.labels, strict=True) if label
    ]
    # Where true ones are rare, a rank wants longer to say something.
    periods = Periods(report.table.times, report.zone, counted=positives, full=KIND_FULL)
    values = {
        name: periods.figures(
            (
                (bool(label), answer) if isinstance(answer, float) else None
                for label, answer in zip(
                    report.table.labels, report.table.answers(name), strict=True
                )
            ),
            _auc,
        )
        for name in _models(report)
    }
    numbers = sorted({n for each in values.values() for n in each})
    if len(numbers) < POINTS_MIN:
        return None
    times = [periods.middle(n) for n in numbers]
    title = f"ranking by {periods.period.name}: ROC AUC, more is better"

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        series_styles = styles(report, theme)
        for name, each in values.items():
            heights, _ = with_gaps(each, numbers)
            axes.plot(times, heights, marker="o", markersize=3.5, **series_styles[name])
        focus(axes, [[*each.values()] for each in values.values()], theme.paper)
        axes.set_ylabel("ROC AUC (0.5 is chance)")
        axes.grid(alpha=0.2)
        date_axis(axes, report.zone)
        adorn(figure, report, title, theme)

    rows = [
        [periods.label(n), *(figure_text(each.get(n)) for each in values.values())] for n in numbers
    ]
    served = [*values[CHAMPION].values()] or [0.0]
    alt = f"Lines over time: what was served lies between {min(served):.3f} and {max(served):.3f}."
    return Picture("ranking", title, alt, [periods.period.name, *values], rows, paint)


def _precision_recall(report: Report) -> Picture | None:
    curves: dict[str, list[RankingPoint]] = {
        name: precision_recall(
            [(bool(label), answer) for label, answer in _pairs(report, name, _warm(report))]
        )
        for name in _models(report)
    }
    served = curves[CHAMPION]
    if not served or served[-1].count < PAIRS_MIN:
        return None
    share = served[-1].precision
    areas = {name: average_precision(points) for name, points in curves.items()}
    tops = top_shares(served)
    title = f"finding {report.positive}: precision, recall and the top of the list"

    def paint(figure: Any, theme: Theme) -> None:
        curve, bars = figure.subplots(1, 2, width_ratios=[1.25, 1])
        series_styles = styles(report, theme)
        for name, points in curves.items():
            style = series_styles[name]
            style["label"] = f"{style['label']}: {areas[name]:.3f}"
            shown = _thinned(points)
            curve.plot([p.recall for p in shown], [p.precision for p in shown], **style)
        label = f"share {report.positive}: {share:.2%}"
        curve.axhline(share, color=theme.faint, linestyle=":", label=label)
        curve.set_xlabel(f"recall: of all {report.positive}, how many are found")
        curve.set_ylabel(f"precision: of those found, share {report.positive}")
        curve.set_ylim(0, min(1.0, 1.15 * max(_typical_precision(c) for c in curves.values())))
        curve.grid(alpha=0.2)
        _paint_tops(bars, tops, theme)
        adorn(figure, report, title, theme, note=WARM_UP_NOTE)

    rows = [
        [
            f"{part:.1%}",
            f"{point.count:,}",
            figure_text(point.threshold),
            f"{point.precision:.1%}",
            f"{point.recall:.1%}",
            f"{point.precision / share:.1f}",
        ]
        for part, point in tops
    ]
    best = next(((part, point) for part, point in tops if part == TOP_CHART_SHARES[0]), None)
    words = (
        ""
        if best is None
        else (
            f" Of the {best[0]:.0%} with the highest answers {best[1].precision:.1%} are "
            f"{report.positive}, {best[1].recall:.1%} of all."
        )
    )
    alt = f"A curve, average precision of what was served {areas[CHAMPION]:.3f}.{words}"
    head = ["top", "predictions", "answers from", "precision", "recall", "times the share"]
    return Picture("precision_recall", title, alt, head, rows, paint, (10.5, 5.2))


def _thinned(points: Sequence[RankingPoint]) -> list[RankingPoint]:
    """As many points as can be told apart, the last one among them."""
    step = max(1, len(points) // CURVE_POINTS_MAX)
    return [*points[::step], points[-1]] if points else []


def _typical_precision(points: Sequence[RankingPoint]) -> float:
    """The highest precision but for the first few, which are luck."""
    total = points[-1].count if points else 0
    return max((p.precision for p in points if p.count >= max(10, total // 500)), default=1.0)


def _paint_tops(axes: Any, tops: Sequence[tuple[float, RankingPoint]], theme: Theme) -> None:
    places = range(len(tops))
    precisions, recalls = ([getattr(p, name) for _, p in tops] for name in ("precision", "recall"))
    axes.bar(
        [p - 0.2 for p in places], precisions, 0.4, color=theme.palette[0], label="top: precision"
    )
    axes.bar([p + 0.2 for p in places], recalls, 0.4, color="#e69f00", label="top: recall")
    axes.set_xticks([*places], [f"{part * 100:g} %" for part, _ in tops], rotation=45)
    axes.set_xlabel("part with the highest answers, of what was served")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(0, 1.08)
    for place, (_, point) in enumerate(tops):
        axes.annotate(
            f"{point.count:,}",
            (place, max(point.precision, point.recall)),
            ha="center",
            va="bottom",
            fontsize=7,
            color=theme.ink,
        )


# --- classes --------------------------------------------------------------------------------------


def _confusion(report: Report) -> Picture | None:
    counts = confusion(_pairs(report, CHAMPION))
    if not counts:
        return None
    scores = class_scores(counts)
    names = [each.name for each in scores[:CLASSES_MAX]]
    if len(scores) > CLASSES_MAX:
        names.append(OTHERS)

    def shown(name: str) -> str:
        return name if name in names else OTHERS

    cells: dict[tuple[str, str], int] = {}
    for (label, answer), count in counts.items():
        cell = shown(label), shown(answer)
        cells[cell] = cells.get(cell, 0) + count
    totals = {name: sum(cells.get((name, other), 0) for other in names) for name in names}
    shares = [[cells.get((a, b), 0) / (totals[a] or 1) for b in names] for a in names]
    title = "which class is taken for which, by what was served"

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        places = range(len(names))
        axes.set_xticks([*places], names, rotation=30 if len(names) > 5 else 0)  # noqa: PLR2004
        axes.set_yticks([*places], [f"{name} ({totals[name]:,})" for name in names])
        for row in places:
            for column in places:
                share = shares[row][column]
                axes.text(
                    column,
                    row,
                    f"{share:.0%}\n{cells.get((names[row], names[column]), 0):,}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="#ffffff" if share > 0.55 else "#1a1a1a",  # noqa: PLR2004 - the blue
                )
        axes.set_xlabel("the likeliest class, as it was served")
        axes.set_ylabel("the truth (how many)")
        bar = figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}")
        bar.set_label("share of the true class", color=theme.ink)
        adorn(figure, report, title, theme)

    hits = sum(count for (label, answer), count in counts.items() if label == answer)
    alt = f"A table of colours: {hits / counts.total():.1%} of all lie on the diagonal."
    rows = [[a, *(f"{cells.get((a, b), 0):,}" for b in names)] for a in names]
    return Picture("confusion", title, alt, ["truth", *names], rows, paint, (8.0, 5.6))


def _classes(report: Report) -> Picture | None:
    scores = class_scores(confusion(_pairs(report, CHAMPION)))[: 2 * CLASSES_MAX]
    if not scores:
        return None
    title = "how well each class is told, by what was served"

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        kinds = {"precision": theme.palette[0], "recall": "#e69f00", "f1": theme.palette[1]}
        for step, (kind, color) in enumerate(kinds.items()):
            places = [place + 0.27 * (step - 1) for place in range(len(scores))]
            values = [getattr(each, kind) or 0.0 for each in scores]
            axes.bar(places, values, 0.25, color=color, label=kind.replace("f1", "F1"))
        labels = [f"{each.name}\n{each.count:,}" for each in scores]
        axes.set_xticks(range(len(scores)), labels)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("class, and how many there were")
        axes.grid(axis="y", alpha=0.2)
        adorn(figure, report, title, theme)

    rows = [
        [each.name, f"{each.count:,}", *map(figure_text, (each.precision, each.recall, each.f1))]
        for each in scores
    ]
    worst = min(scores, key=lambda each: each.f1 or 0.0)
    alt = f"Bars by class: the worst told is {worst.name}, F1 {figure_text(worst.f1)}."
    head = ["class", "examples", "precision", "recall", "F1"]
    return Picture("classes", title, alt, head, rows, paint, (9.0, 4.6))


# --- forecasts ------------------------------------------------------------------------------------


def _forecast(report: Report) -> Picture | None:
    periods, pairs = report.periods(), _pairs(report, CHAMPION)
    if not pairs:
        return None
    truth = periods.means(float(label) for label in report.table.labels)
    answers = {
        name: periods.means(
            None if answer is None or isinstance(answer, dict) else float(answer)
            for answer in report.table.answers(name)
        )
        for name in _models(report)
    }
    numbers = [*truth]
    times = [periods.middle(n) for n in numbers]
    title = f"forecast against truth, means by {periods.period.name}"
    low, high = _middle_range([float(value) for pair in pairs for value in pair])
    dots = pairs[:: max(1, len(pairs) // DOTS_MAX)]

    def paint(figure: Any, theme: Theme) -> None:
        lines, scatter = figure.subplots(1, 2, width_ratios=[1.6, 1])
        series_styles = styles(report, theme)
        lines.plot(
            times,
            [*truth.values()],
            color=theme.faint,
            alpha=0.55,
            linewidth=6,
            solid_capstyle="round",
            label="truth",
            zorder=1,
        )
        for name, means in answers.items():
            heights, alone = with_gaps(means, numbers)
            lines.plot(times, heights, **alone, **series_styles[name])
        focus(lines, [[*means.values()] for means in (truth, *answers.values())], theme.paper)
        lines.set_ylabel("mean of the forecasts, and of the truth")
        lines.grid(alpha=0.2)
        date_axis(lines, report.zone)
        scatter.scatter(
            [answer for _, answer in dots],
            [label for label, _ in dots],
            s=5,
            alpha=0.25,
            color=theme.palette[0],
            linewidths=0,
            rasterized=True,
        )
        scatter.plot([low, high], [low, high], color=theme.faint, linestyle="--", linewidth=1)
        scatter.set_xlim(low, high)
        scatter.set_ylim(low, high)
        scatter.set_xlabel("forecast that was served")
        scatter.set_ylabel("truth (all but the outermost 1 %)")
        adorn(figure, report, title, theme)

    rows = [
        [
            periods.label(n),
            figure_text(truth[n]),
            *(figure_text(means.get(n)) for means in answers.values()),
        ]
        for n in truth
    ]
    error = mean(abs(float(label) - answer) for label, answer in pairs)
    alt = (
        f"Two lines over time and a cloud: the mean distance to the truth is {figure_text(error)}."
    )
    head = [periods.period.name, "truth", *answers]
    return Picture("forecast", title, alt, head, rows, paint, (10.5, 5.0))


def _middle_range(values: list[float]) -> tuple[float, float]:
    """Where all but the outermost hundredth lie, with a margin."""
    ordered = sorted(values)
    cut = len(ordered) // 200
    low, high = ordered[cut], ordered[-1 - cut]
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


# --- what answers mean ----------------------------------------------------------------------------


def _numbers(report: Report, name: str) -> list[tuple[float, float]]:
    """Truth and answer as numbers: of several classes, whether the likeliest one is it."""
    pairs = _pairs(report, name, _warm(report))
    if report.task_kind == "multiclass":
        return [
            (float(label == likeliest(answer)), max(answer.values())) for label, answer in pairs
        ]
    return [(float(label), float(answer)) for label, answer in pairs]


def _reliability(report: Report) -> Picture | None:
    points = {name: calibration(_numbers(report, name)) for name in _models(report)}
    points = {name: found for name, found in points.items() if found}
    if CHAMPION not in points:
        return None
    is_rare = (
        report.task_kind == "binary"
        and sum(map(bool, report.table.labels)) / len(report.table.labels) < RARE
        and all(p.answer > 0 and p.truth > 0 for found in points.values() for p in found)
    )
    words = {
        "binary": ("probability that was predicted", f"share {report.positive}, as it came out"),
        "multiclass": ("probability of the likeliest class", "how often it was right"),
        "regression": ("forecast", "mean of the truth"),
    }
    answer_words, truth_words = words[report.task_kind]
    title = "does an answer mean what it says? A point is a tenth of the examples"
    answers = [answer for _, answer in _numbers(report, CHAMPION)]

    def paint(figure: Any, theme: Theme) -> None:
        curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        _paint_calibration(curve, points, styles(report, theme), theme)
        counts.hist(answers, bins=_bin_edges(answers, is_log=is_rare), color=theme.faint)
        counts.set_ylabel("answers")
        counts.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        counts.set_xlabel(answer_words)
        curve.set_ylabel(truth_words)
        if is_rare:
            curve.set_xscale("log")
            curve.set_yscale("log")
            for axis in (counts.xaxis, curve.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:g}")
        curve.grid(alpha=0.2)
        adorn(figure, report, title, theme, note=WARM_UP_NOTE)

    rows = [
        [
            name,
            f"{p.count:,}",
            *map(figure_text, (p.answer, p.truth, p.low, p.high)),
        ]
        for name, found in points.items()
        for p in found
    ]
    far = max(points[CHAMPION], key=lambda p: abs(p.truth - p.answer))
    alt = (
        f"A curve beside the diagonal: what was served is furthest from it where it says "
        f"{figure_text(far.answer)} and the truth is {figure_text(far.truth)}."
    )
    head = ["answers of", "examples", "mean answer", "mean truth", "95 % from", "to"]
    return Picture("reliability", title, alt, head, rows, paint, (9.0, 5.8))


def _bin_edges(answers: list[float], *, is_log: bool) -> list[float]:
    """Of bins that look equally wide on the axis."""
    if not is_log:
        low, high = _middle_range(answers)
        return [low + (high - low) * step / BINS for step in range(BINS + 1)]
    ordered = sorted(answer for answer in answers if answer > 0)
    low, high = ordered[len(ordered) // 200], ordered[-1]
    return [low * (high / low) ** (step / BINS) for step in range(BINS + 1)]


def _paint_calibration(
    axes: Any,
    points: Mapping[str, Sequence[CalibrationPoint]],
    series_styles: Mapping[str, dict[str, Any]],
    theme: Theme,
) -> None:
    everything = [p.answer for found in points.values() for p in found]
    ends = [min(everything), max(everything)]
    axes.plot(ends, ends, color=theme.faint, linestyle="--", linewidth=1, label="it does")
    for name, found in points.items():
        style = {**series_styles[name], "marker": "o", "markersize": 4}
        xs, ys = [p.answer for p in found], [p.truth for p in found]
        axes.plot(xs, ys, **style)
        if name == CHAMPION:
            axes.fill_between(
                xs,
                [max(p.low, 0.2 * p.truth) if p.truth > 0 else p.low for p in found],
                [p.high for p in found],
                color=theme.faint,
                alpha=0.25,
                linewidth=0,
                label="95 % of luck, served",
            )
