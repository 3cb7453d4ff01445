"""What happened, for people: scores by month, what refreshing was worth, and plots.

Everything is computed from stored predictions, as `examples` and the registry hold them; no
model predicts again. The columns are who answered:

    served      the champion of the moment, whichever line it came from
    <line>      a line under its own name, while it challenged and while it served
    first       the champion line's first settled snapshot, never updated
    prior, ...  what one would have answered without a model, from the labels known by then

Scores stand beside each other only where they are of the same examples, so a month counts the
examples that everyone who answered at all in that month has answered.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from stream_ml.errors import UsageError
from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.scores import absolute_error, answered, brier, log_loss, loss, roc_auc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from stream_ml.records import Answer, Decision, Example, LabelValue

__all__ = ["MonthRow", "Refresh", "Report"]

SERVED = "served"
FIRST = "first"
PREDECESSOR = "predecessor"
ALL = "all"

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS
# Means of fewer pairs say more of luck than of models: they are no point of a curve.
PAIRS_MIN = 50
# A snapshot that served for an hour or two is judged by the luck of that hour.
REFRESH_PAIRS_MIN = 200
RELIABILITY_BINS = 10
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

Pairs = list[tuple[Any, Any]]


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def _rmse(pairs: Pairs) -> float:
    return math.sqrt(_mean(absolute_error(label, answer) ** 2 for label, answer in pairs))


def _accuracy(pairs: Pairs) -> float:
    # Of equally probable classes, the one that sorts first: the same on every run.
    return _mean(
        float(label == min(answer, key=lambda name: (-answer[name], name)))
        for label, answer in pairs
    )


def _log_loss(pairs: Pairs) -> float:
    return _mean(log_loss(label, answer) for label, answer in pairs)


def _brier(pairs: Pairs) -> float:
    return _mean(brier(label, answer) for label, answer in pairs)


def _mae(pairs: Pairs) -> float:
    return _mean(absolute_error(label, answer) for label, answer in pairs)


# By kind of task: each measure's name and how it is computed; None: not defined on these pairs.
MEASURES: dict[str, dict[str, Callable[[Pairs], float | None]]] = {
    "binary": {"ROC AUC": roc_auc, "log loss": _log_loss, "Brier": _brier},
    "multiclass": {"accuracy": _accuracy, "log loss": _log_loss},
    "regression": {"MAE": _mae, "RMSE": _rmse},
}
# What a kind of task is compared by, under the name that people know it by.
LOSS_NAMES = {"binary": "Brier", "multiclass": "Brier", "regression": "absolute error"}


@dataclass(frozen=True, slots=True)
class MonthRow:
    """A month of event time, or `all` of it.

    `n` counts the examples scored. `true_share` is the share of true labels among them (None
    unless binary). `scores` holds score by measure by who answered.
    """

    month: str
    n: int
    true_share: float | None
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Refresh:
    """A champion's renewal. `gain` is its predecessor's mean loss less its own, while it served.

    Both answered the same `n` events; None where there was none. Positive: the renewal paid.
    """

    model: str
    predecessor: str
    n: int
    gain: float | None


class Report:
    """What a run was worth, from its examples and decisions.

    Args:
        task_kind: `binary`, `multiclass` or `regression`.
        examples: in the order of the log; more may follow by `add`.
        decisions: in the order of the log; more may follow by `decide`.
        accounting: counts to be shown as they are, such as `events` or `late labels`. With
            `predictions` among them, the share that got a label is shown.
        horizon_ms: how long after its event a label may come, as declared.
        classes: the classes of a multiclass task, as declared.
        positive: the word for a true label, as in "share late".
        zone: whose months and days are meant.
    """

    def __init__(
        self,
        task_kind: str,
        examples: Iterable[Example] = (),
        decisions: Iterable[Decision] = (),
        accounting: Mapping[str, int] | None = None,
        *,
        horizon_ms: int,
        classes: tuple[str, ...] = (),
        positive: str = "true",
        zone: str = "UTC",
    ) -> None:
        self.task_kind = task_kind
        self.accounting = dict(accounting or {})
        self.positive = positive
        self.zone = ZoneInfo(zone)
        self._baselines = Baselines(task_kind, classes, horizon_ms)
        self._times: list[int] = []
        self._labels: list[LabelValue] = []
        self._delays: list[int] = []
        # Who answered: the answer to each example, None where there was none.
        self._answers: dict[str, list[Answer]] = {SERVED: []}
        self._challenged: set[str] = set()
        self._baseline_names: list[str] = []
        # By snapshot and predecessor: the differences of their losses.
        self._gains: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._decisions: list[Decision] = []
        self._months: list[MonthRow] | None = None
        for example in examples:
            self.add(example)
        for decision in decisions:
            self.decide(decision)

    def add(self, example: Example) -> None:
        """Take one more example into account."""
        prediction, label = example.prediction, example.label
        served = None if prediction.fallback else prediction.prediction
        baselines = self._baselines.answers(prediction.ts)
        self._baselines.learn(label, example.label_ts)
        self._baseline_names = list(baselines)
        lines = {
            slot: shadow.prediction
            for slot, shadow in prediction.shadows.items()
            if slot != PREDECESSOR
        }
        self._challenged.update(lines)
        line = prediction.model.partition("@")[0]
        for name, answer in {SERVED: served, line: served, **lines, **baselines}.items():
            self._answer(name, answer)
        self._times.append(prediction.ts)
        self._labels.append(label)
        self._delays.append(example.label_ts - prediction.ts)
        predecessor = prediction.shadows.get(PREDECESSOR)
        if predecessor is not None and self._scored(served, predecessor.prediction):
            gain = self._loss(label, predecessor.prediction) - self._loss(label, served)
            self._gains[prediction.model, predecessor.model].append(gain)
        self._months = None

    def decide(self, decision: Decision) -> None:
        """Take one more decision into account."""
        self._decisions.append(decision)

    def months(self) -> list[MonthRow]:
        """The scores of each month, and of all of it as the last row."""
        if self._months is None:
            groups: dict[str, list[int]] = defaultdict(list)
            for i, ts in enumerate(self._times):
                groups[f"{self._at(ts):%Y-%m}"].append(i)
            rows = [self._row(month, groups[month]) for month in sorted(groups)]
            self._months = [*rows, self._row(ALL, range(len(self._times)))]
        return self._months

    def refreshes(self) -> list[Refresh]:
        """Each refresh that was decided, and what it gained."""
        found = []
        for decision in self._decisions:
            before = decision.serving.predecessor
            if decision.kind == "refreshed" and before is not None:
                model = decision.serving.champion.model
                gains = self._gains.get((model, before.model), [])
                found.append(
                    Refresh(model, before.model, len(gains), _mean(gains) if gains else None)
                )
        return found

    def delays_ms(self) -> dict[str, int]:
        """How long after its event a label came: quantiles, empty without examples."""
        delays = sorted(self._delays)
        n = len(delays)
        if not n:
            return {}
        return {name: delays[max(0, math.ceil(q * n) - 1)] for name, q in QUANTILES.items()}

    def coverage(self) -> dict[str, float]:
        """The share of examples that the champion answered, and of predictions with a label."""
        n = len(self._times)
        shares = {}
        if n:
            shares["answered"] = sum(a is not None for a in self._answers[SERVED]) / n
        if self.accounting.get("predictions"):
            shares["labelled"] = n / self.accounting["predictions"]
        return shares

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "task": self.task_kind,
            "examples": len(self._times),
            "months": [asdict(row) for row in self.months()],
            "refreshes": self._refresh_summary(),
            "decisions": [
                {
                    "number": decision.number,
                    "kind": decision.kind,
                    "ts": decision.ts,
                    "champion": decision.serving.champion.model,
                    "actor": decision.actor,
                    "reason": decision.reason,
                }
                for decision in self._notable()
            ],
            "delays_ms": self.delays_ms(),
            "coverage": self.coverage(),
            "accounting": self.accounting,
        }

    def text(self) -> str:
        """The report as a terminal shows it."""
        if not self._times:
            return "no examples yet: nothing to score\n"
        parts = [self._headline()]
        parts += [self._table(measure) for measure in MEASURES[self.task_kind]]
        parts.append("\n".join([*self._refresh_lines(), *self._decision_lines(), *self._ends()]))
        return "\n\n".join(parts) + "\n"

    def plots(self, folder: Path) -> list[Path]:
        """Draw what can be drawn of this kind of task.

        Args:
            folder: where the PNG files go; made if it is not there.

        Returns:
            The files written; none without examples.

        Raises:
            UsageError: matplotlib is not installed.
        """
        figure = _figure_class()
        if not self._times:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {"story.png": self._draw_story, "label_delay.png": self._draw_delays}
        if self.task_kind == "binary":
            drawn |= {"auc_by_month.png": self._draw_auc, "reliability.png": self._draw_reliability}
        paths = []
        for name, draw in drawn.items():
            canvas = figure(figsize=(9, 5.4), dpi=110, layout="constrained")
            draw(canvas)
            canvas.savefig(folder / name)
            paths.append(folder / name)
        return paths

    # What follows computes.

    def _answer(self, name: str, answer: Answer) -> None:
        answers = self._answers.setdefault(name, [])
        # Whoever comes late, or stays out for a while, had no answer until now.
        answers.extend([None] * (len(self._times) - len(answers)))
        answers.append(answer if answered(self.task_kind, answer) else None)

    def _at(self, ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, self.zone)

    def _scored(self, *answers: Answer) -> bool:
        return all(answered(self.task_kind, answer) for answer in answers)

    def _loss(self, label: LabelValue, answer: Answer) -> float:
        return loss(self.task_kind, label, answer)

    def _columns(self) -> list[str]:
        """Who answered, in the order shown.

        A line that never challenged is the champion throughout: `served` shows it already.
        """
        lines = [name for name in self._answers if name in self._challenged - {FIRST}]
        first = [FIRST] if FIRST in self._answers else []
        return [SERVED, *lines, *first, *self._baseline_names]

    def _row(self, month: str, group: Sequence[int]) -> MonthRow:
        answers = {}
        for name in self._columns():
            given = self._padded(name)
            if any(given[i] is not None for i in group):
                answers[name] = given
        common = [i for i in group if all(given[i] is not None for given in answers.values())]
        labels = [self._labels[i] for i in common]
        scores: dict[str, dict[str, float]] = {}
        for name, given in answers.items():
            pairs = [(label, given[i]) for i, label in zip(common, labels, strict=True)]
            scores[name] = self._scores(pairs)
        binary = self.task_kind == "binary" and labels
        share = _mean(float(bool(label)) for label in labels) if binary else None
        return MonthRow(month, len(common), share, scores)

    def _scores(self, pairs: Pairs) -> dict[str, float]:
        values = {name: measure(pairs) for name, measure in self._measures() if pairs}
        return {name: value for name, value in values.items() if value is not None}

    def _measures(self) -> Iterable[tuple[str, Callable[[Pairs], float | None]]]:
        return MEASURES[self.task_kind].items()

    def _padded(self, name: str) -> list[Answer]:
        answers = self._answers[name]
        answers.extend([None] * (len(self._times) - len(answers)))
        return answers

    def _notable(self) -> list[Decision]:
        return [d for d in self._decisions if d.kind not in {"bootstrap", "refreshed"}]

    def _refresh_summary(self) -> dict[str, Any]:
        refreshes = self.refreshes()
        known = [(r.gain, r) for r in refreshes if r.gain is not None and r.n >= REFRESH_PAIRS_MIN]
        summary: dict[str, Any] = {"count": len(refreshes), "scored": len(known)}
        if known:
            summary["better"] = sum(gain > 0 for gain, _ in known)
            summary["mean_gain"] = _mean(gain for gain, _ in known)
            summary["worst"] = asdict(min(known, key=lambda pair: pair[0])[1])
        return summary

    def _weekly(self, name: str) -> tuple[list[datetime], list[float]]:
        """The mean loss of each week with enough answers, at the middle of the week."""
        weeks: dict[int, list[float]] = defaultdict(list)
        answers = zip(self._times, self._labels, self._padded(name), strict=True)
        for ts, label, answer in answers:
            if answer is not None:
                weeks[self._week(ts)].append(self._loss(label, answer))
        return self._curve(weeks)

    def _week(self, ts: int) -> int:
        """The middle of its week, counted from the first example: so the first week is whole."""
        start = self._times[0]
        return start + (ts - start) // WEEK_MS * WEEK_MS + WEEK_MS // 2

    def _curve(self, weeks: dict[int, list[float]]) -> tuple[list[datetime], list[float]]:
        full = sorted(week for week, values in weeks.items() if len(values) >= PAIRS_MIN)
        return [self._at(week) for week in full], [_mean(weeks[week]) for week in full]

    # What follows renders.

    def _headline(self) -> str:
        first, last = self._at(min(self._times)), self._at(max(self._times))
        total = self.months()[-1]
        return (
            f"{len(self._times):,} examples, {first:%Y-%m-%d} to {last:%Y-%m-%d} ({self.zone}); "
            f"{total.n:,} answered by all, and scored here"
        )

    def _table(self, measure: str) -> str:
        binary = self.task_kind == "binary"
        columns = self._columns()
        share = [f"share {self.positive}"] if binary else []
        lines = [[measure, "examples", *share, *columns]]
        for row in self.months():
            percent = ["-" if row.true_share is None else f"{row.true_share:.1%}"] if binary else []
            values = [row.scores.get(name, {}).get(measure) for name in columns]
            lines.append([row.month, f"{row.n:,}", *percent, *map(_figure, values)])
        return _aligned(lines)

    def _refresh_lines(self) -> list[str]:
        summary = self._refresh_summary()
        if not summary["scored"]:
            return [f"refreshes: {summary['count']}"]
        worst = summary["worst"]
        head = (
            f"refreshes: {summary['count']}; of {summary['scored']} with at least "
            f"{REFRESH_PAIRS_MIN} labels, {summary['better']} beat their predecessor "
            "while they served"
        )
        gain = (
            f"  {LOSS_NAMES[self.task_kind]} gained against the predecessor: "
            f"mean {summary['mean_gain']:+.4f}, worst {worst['gain']:+.4f} "
            f"({worst['model']}, {worst['n']:,} labels)"
        )
        return [head, gain]

    def _decision_lines(self) -> list[str]:
        return [
            f"{decision.kind} on {self._at(decision.ts):%Y-%m-%d %H:%M} by {decision.actor}: "
            f"{decision.serving.champion.model} serves ({decision.reason})"
            for decision in self._notable()
        ]

    def _ends(self) -> list[str]:
        delays = {name: f"{ms / HOUR_MS:.1f} h" for name, ms in self.delays_ms().items()}
        came = (
            f"labels came {delays['p50']} after the event (median), 90% within {delays['p90']}, "
            f"99% within {delays['p99']}, the last after {delays['max']}"
        )
        shares = self.coverage()
        lines = [came, f"the champion answered {shares['answered']:.2%} of the examples"]
        if "labelled" in shares:
            lines.append(f"{shares['labelled']:.2%} of the predictions got a label")
        if self.accounting:
            counts = [f"{count:,} {name}" for name, count in self.accounting.items()]
            lines.append(f"counted: {', '.join(counts)}")
        return lines

    # What follows draws.

    def _styles(self) -> dict[str, dict[str, Any]]:
        """How each column is drawn: the served champion stands out, the first model warns."""
        palette = iter(["#2a9d3a", "#1f77b4", "#9467bd", "#8c564b", "#e377c2", "#17becf"] * 9)
        fixed = {
            SERVED: {"color": "black", "linewidth": 2.2, "label": "served champion", "zorder": 5},
            FIRST: {"color": "#d62728", "linewidth": 1.4, "label": "first model, never updated"},
        }
        grey = {"color": "#999999", "linewidth": 1.1, "linestyle": "--"}
        styles = {}
        for name in self._columns():
            if name in self._baseline_names:
                styles[name] = {**grey, "label": f"{name} (no model)"}
            else:
                styles[name] = fixed.get(name) or {
                    "color": next(palette),
                    "linewidth": 1.4,
                    "label": f"challenger {name}",
                }
        return styles

    def _draw_story(self, figure: Any) -> None:
        if self.task_kind == "binary":
            bars, lines = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.6])
            self._draw_share(bars)
        else:
            lines = figure.subplots()
        for name, style in self._styles().items():
            lines.plot(*self._weekly(name), **style)
        for decision in self._decisions:
            if decision.kind in {"replaced", "rolled_back"}:
                lines.axvline(self._at(decision.ts), color="#1f77b4", linestyle="--", linewidth=1)
                lines.annotate(
                    f" {decision.kind.replace('_', ' ')}: {decision.serving.champion.model}",
                    (self._at(decision.ts), 1),
                    xycoords=("data", "axes fraction"),
                    va="top",
                    fontsize=8,
                    color="#1f77b4",
                )
        lines.set_ylabel(f"{LOSS_NAMES[self.task_kind]}, weekly mean (less is better)")
        lines.grid(alpha=0.25)
        figure.legend(fontsize=9, loc="outside upper center", ncols=3)
        _date_axis(lines, self.zone)

    def _draw_share(self, bars: Any) -> None:
        weeks: dict[int, list[float]] = defaultdict(list)
        for ts, label in zip(self._times, self._labels, strict=True):
            weeks[self._week(ts)].append(float(bool(label)))
        bars.bar(*self._curve(weeks), width=6.2, color="#bbbbbb")
        bars.set_ylabel(f"share {self.positive}")

    def _draw_auc(self, figure: Any) -> None:
        axes = figure.subplots()
        rows = [row for row in self.months() if row.month != ALL]
        for name, style in self._styles().items():
            # One answer for everybody ranks nobody: near one half, it would only flatten the rest.
            if name not in self._baseline_names:
                values = [row.scores.get(name, {}).get("ROC AUC", math.nan) for row in rows]
                axes.plot([row.month for row in rows], values, marker="o", markersize=4, **style)
        axes.set_ylabel("ROC AUC by month (more is better)")
        axes.grid(alpha=0.25)
        figure.legend(fontsize=9, loc="outside upper center", ncols=4)

    def _draw_delays(self, figure: Any) -> None:
        axes = figure.subplots()
        hours = [ms / HOUR_MS for ms in self._delays]
        # The last bin holds all beyond the 99.9th percentile: a few stragglers else squeeze it.
        end = sorted(hours)[max(0, math.ceil(0.999 * len(hours)) - 1)] or 1.0
        groups, names = [hours], ["all"]
        if self.task_kind == "binary":
            groups = [
                [h for h, label in zip(hours, self._labels, strict=True) if bool(label) is value]
                for value in (False, True)
            ]
            names = [f"not {self.positive}", self.positive]
        clipped = [[min(h, end) for h in group] for group in groups]
        colors = ["#8ab6d6", "#d62728"][: len(groups)]
        axes.hist(clipped, bins=60, range=(0, end), stacked=True, label=names, color=colors)
        median = self.delays_ms()["p50"] / HOUR_MS
        axes.axvline(median, color="black", linewidth=1, label=f"median {median:.1f} h")
        axes.set_xlabel("hours from the event to its label (the last bin holds all beyond)")
        axes.set_ylabel("examples")
        axes.legend(fontsize=9)

    def _draw_reliability(self, figure: Any) -> None:
        curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        curve.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="perfect")
        styles = self._styles()
        for name in (SERVED, FIRST):
            if name in styles:
                bins = self._bins(name)
                means = [_mean(p for p, _ in pairs) for pairs in bins]
                shares = [_mean(y for _, y in pairs) for pairs in bins]
                curve.plot(means, shares, marker="o", markersize=4, **styles[name])
        answers = [answer for answer in self._answers[SERVED] if answer is not None]
        counts.hist(answers, bins=40, range=(0, 1), color="#bbbbbb")
        counts.set_ylabel("predictions")
        counts.set_xlabel("probability that was predicted")
        curve.set_ylabel(f"share {self.positive}, as it came out")
        curve.grid(alpha=0.25)
        curve.legend(fontsize=9)

    def _bins(self, name: str) -> list[list[tuple[float, float]]]:
        """Predicted probability and outcome, in bins of equal width with enough of them."""
        bins: list[list[tuple[float, float]]] = [[] for _ in range(RELIABILITY_BINS)]
        for label, answer in zip(self._labels, self._padded(name), strict=True):
            if isinstance(answer, float):
                place = min(int(answer * RELIABILITY_BINS), RELIABILITY_BINS - 1)
                bins[place].append((answer, float(bool(label))))
        return [pairs for pairs in bins if len(pairs) >= PAIRS_MIN]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell: the first to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _figure_class() -> Any:
    """The figure of matplotlib, without its global state and without a display.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it installed
    except ImportError:
        raise UsageError('plots need matplotlib: pip install "stream-ml[demo]"') from None
    return Figure


def _date_axis(axes: Any, zone: ZoneInfo) -> None:
    from matplotlib import dates  # noqa: PLC0415 - only who draws needs it installed

    locator: Any = dates.AutoDateLocator  # typed so, because matplotlib does not say its types
    formatter: Any = dates.ConciseDateFormatter
    ticks = locator(tz=zone)
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(formatter(ticks, tz=zone))
