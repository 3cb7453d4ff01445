"""What happened, for people: scores by month, what every switch was worth, how long luck lasts.

Everything is computed from stored predictions, as `examples` and the registry hold them; no
model predicts again but the bound. The columns are who answered:

    served      the champion of the moment, whichever line it came from
    <line>      a line under its own name, while it challenged and while it served
    first       the champion line's first settled snapshot, never updated
    live        the bound: the last champion's line, had it predicted live (`shell.report.bound`)
    prior, ...  what one would have answered without a model, from the labels known by then

Scores stand beside each other only where they are of the same examples, so a month counts the
examples that everyone who answered at all in that month has answered.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.evidence import RUNG_BLOCKS_MIN, suggested_block, variance_ladder
from stream_ml.evaluation.scores import absolute_error, brier, is_scorable, log_loss, loss, roc_auc
from stream_ml.records import line_of
from stream_ml.shell.printable import printable
from stream_ml.shell.report.bound import LIVE
from stream_ml.stages.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from stream_ml.evaluation.evidence import Rung
    from stream_ml.records import Answer, Decision, Evaluation, Example, LabelValue

__all__ = [
    "ALL",
    "FIRST",
    "NOTHING_TO_SCORE",
    "SERVED",
    "Gap",
    "Ladder",
    "MonthRow",
    "Refresh",
    "Report",
    "Switch",
]

SERVED = "served"
FIRST = "first"
PREDECESSOR = "predecessor"
ALL = "all"
NOTHING_TO_SCORE = "no label met its prediction: nothing to score"

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# A snapshot that served for an hour or two is judged by the luck of that hour.
REFRESH_PAIRS_MIN = 200
# The lengths of blocks that the variance is looked at for, as people write them.
LENGTHS = {"1h": HOUR_MS, "6h": 6 * HOUR_MS, "1d": DAY_MS, "3d": 3 * DAY_MS, "7d": 7 * DAY_MS}
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

Pairs = list[tuple[Any, Any]]
T = TypeVar("T")


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
# What the gap between never updated and live is told in.
GAP_MEASURES = {"binary": "log loss", "multiclass": "log loss", "regression": "MAE"}


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


@dataclass(frozen=True, slots=True)
class Switch:
    """A replacement or a rollback: `model` serves instead of `former`.

    `gain` is the mean loss of `former` less that of `model` over the `n` examples that both
    answered while the newer of them, or a renewal of it, served with the other as predecessor:
    after a replacement, before a rollback. `line_gain` is the same of their lines, over refreshes,
    until another line serves. None where there was nothing to compare; positive: it paid.
    """

    kind: str
    ts: int
    model: str
    former: str
    actor: str
    reason: str
    evidence: dict[str, Any] | None
    n: int
    gain: float | None
    line_n: int
    line_gain: float | None


@dataclass(frozen=True, slots=True)
class Gap:
    """What learning on could be worth, and how much of it was served.

    `since` is `all`, or the snapshot whose replacement it counts from. `losses` go by who
    answered, all of the same `n` examples: `served`, the never-updated `first`, copies of the live
    line that were frozen on the way, `live`. `closed` is the share of the gap between `first` and
    `live` that `served` closed; None where there is no gap. `parts` says what the gap is made of:
    `tuning` (another recipe, the same labels), `youth` (the same recipe, more labels, then frozen
    too), `learning_on` (the rest).
    """

    since: str
    n: int
    losses: dict[str, float]
    closed: float | None
    parts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Ladder:
    """How long luck lasts between a served line and a challenger, and the block this suggests."""

    champion: str
    challenger: str
    pairs: int
    rungs: list[Rung]
    block_ms: int | None


class Report:
    """What a run was worth, from its examples and decisions.

    Args:
        task_kind: `binary`, `multiclass` or `regression`.
        examples: in the order of the log; more may follow by `add`.
        decisions: in the order of the log; more may follow by `decide`.
        accounting: counts to be shown as they are, such as `events` or `late labels`. With
            `predictions` among them, the share that got a label is shown.
        horizon_ms: how long after its event a label may come, as declared.
        breadth: how many labels must have come as far for their time to count, as declared.
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
        breadth: int = 1,
        classes: tuple[str, ...] = (),
        positive: str = "true",
        zone: str = "UTC",
    ) -> None:
        self.task_kind = task_kind
        self.accounting = dict(accounting or {})
        self.positive = positive
        self.zone = ZoneInfo(zone)
        self.times: list[int] = []
        self.labels: list[LabelValue] = []
        self.delays: list[int] = []
        self.baselines: list[str] = []
        self.decisions: list[Decision] = []
        # By challenger: when, E, and how many blocks had voted.
        self.evidence: dict[str, list[tuple[int, float, int]]] = defaultdict(list)
        self.needed: float | None = None
        self._known = Baselines(task_kind, classes, horizon_ms)
        self._labels = Watermark(breadth)
        self._lines: list[str] = []
        # Who answered: the answer to each example, None where there was none.
        self._answers: dict[str, list[Answer]] = {SERVED: []}
        self._challenged: set[str] = set()
        # By snapshot and predecessor: the differences of their losses.
        self._gains: dict[tuple[str, str], list[float]] = defaultdict(list)
        # What is computed is kept until more comes in: text, JSON and plots all show it.
        self._kept: dict[str, Any] = {}
        for example in examples:
            self.add(example)
        for decision in decisions:
            self.decide(decision)

    def add(self, example: Example, said: Mapping[str, Answer] | None = None) -> None:
        """Take one more example into account, and what `live` and its frozen copies said of it.

        Args:
            example: the next one, in the order of `examples`.
            said: by name, the answers of learners that no stage knows.
        """
        prediction, label = example.prediction, example.label
        served = None if prediction.fallback else prediction.prediction
        baselines = self._known.answers(prediction.ts)
        self._labels.advance(prediction.event_id, example.label_ts, example.label_ts)
        self._known.learn(label, example.label_ts, self._labels.ms)
        self.baselines = list(baselines)
        lines = {
            slot: shadow.prediction
            for slot, shadow in prediction.shadows.items()
            if slot != PREDECESSOR
        }
        self._challenged.update(lines)
        line = line_of(prediction.model)
        answers = {SERVED: served, line: served, **lines, **baselines, **(said or {})}
        for name, answer in answers.items():
            self._answer(name, answer)
        self._lines.append(line)
        self.times.append(prediction.ts)
        self.labels.append(label)
        self.delays.append(example.label_ts - prediction.ts)
        predecessor = prediction.shadows.get(PREDECESSOR)
        if predecessor is not None and self._scored(served, predecessor.prediction):
            gain = self.loss(label, predecessor.prediction) - self.loss(label, served)
            self._gains[prediction.model, predecessor.model].append(gain)
        self._kept.clear()

    def decide(self, decision: Decision) -> None:
        """Take one more decision into account."""
        self.decisions.append(decision)
        self._kept.clear()
        if decision.kind == "replaced" and "e_value" in (decision.evidence or {}):
            # It turned between two evaluations, and started anew at once.
            self._weigh(line_of(decision.serving.champion.model), decision.ts, decision.evidence)

    def evaluate(self, evaluation: Evaluation) -> None:
        """Take into account how a model stood, for its evidence."""
        evidence = evaluation.evidence
        if evidence is not None:
            self._weigh(evaluation.model, evaluation.ts, evidence)

    def _weigh(self, line: str, ts: int, evidence: Mapping[str, Any] | None) -> None:
        assert evidence is not None
        votes = evidence["wins"] + evidence["losses"]
        self.evidence[line].append((ts, evidence["e_value"], votes))
        self.needed = evidence["needed"]

    def months(self) -> list[MonthRow]:
        """The scores of each month, and of all of it as the last row."""
        return self._keep("months", self._compute_months)

    def refreshes(self) -> list[Refresh]:
        """Each refresh that was decided, and what it gained."""
        found = []
        for decision in self.decisions:
            before = decision.serving.predecessor
            if decision.kind == "refreshed" and before is not None:
                model = decision.serving.champion.model
                gains = self._gains.get((model, before.model), [])
                found.append(
                    Refresh(model, before.model, len(gains), _mean(gains) if gains else None)
                )
        return found

    def switches(self) -> list[Switch]:
        """Each replacement and rollback, and what it gained or cost."""
        return self._keep("switches", self._compute_switches)

    def gaps(self) -> list[Gap]:
        """The gap between never updated and live, over everything, and since the last replacement.

        None without `live`, or before there was a first model.
        """
        return self._keep("gaps", self._compute_gaps)

    def ladders(self) -> list[Ladder]:
        """For each champion's line and its challengers: how the luck of blocks is shared."""
        return self._keep("ladders", self._compute_ladders)

    def delays_ms(self) -> dict[str, int]:
        """How long after its event a label came: quantiles, empty without examples."""
        delays = sorted(self.delays)
        n = len(delays)
        if not n:
            return {}
        return {name: delays[max(0, math.ceil(q * n) - 1)] for name, q in QUANTILES.items()}

    def coverage(self) -> dict[str, float]:
        """The share of examples that the champion answered, and of predictions with a label."""
        n = len(self.times)
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
            "examples": len(self.times),
            "months": [asdict(row) for row in self.months()],
            "gaps": [asdict(gap) for gap in self.gaps()],
            "refreshes": self._refresh_summary(),
            "switches": [asdict(switch) for switch in self.switches()],
            "decisions": [
                {
                    "number": decision.number,
                    "kind": decision.kind,
                    "ts": decision.ts,
                    "champion": decision.serving.champion.model,
                    "actor": decision.actor,
                    "reason": decision.reason,
                }
                for decision in self.decisions
                if decision.kind not in {"bootstrap", "refreshed"}
            ],
            "ladders": [asdict(ladder) for ladder in self.ladders()],
            "delays_ms": self.delays_ms(),
            "coverage": self.coverage(),
            "accounting": self.accounting,
        }

    def text(self) -> str:
        """The report as a terminal shows it."""
        if not self.times:
            return f"{NOTHING_TO_SCORE}\n"
        parts = [self.tables(), self.changes(), self.luck(), "\n".join(self._ends())]
        return "\n\n".join(part for part in parts if part) + "\n"

    def tables(self) -> str:
        """The scores by month, a table for each."""
        if not self.times:
            return NOTHING_TO_SCORE
        tables = [self._table(measure) for measure in MEASURES[self.task_kind]]
        return "\n\n".join([self._headline(), *tables])

    def changes(self) -> str:
        """What learning on was worth, and each switch; nothing where there was none."""
        changes = "\n".join([*self._refresh_lines(), *self._decision_lines()])
        return "\n\n".join(part for part in [self._gap_text(), changes] if part)

    def luck(self) -> str:
        """The variance ladders and the blocks that they suggest; nothing without challengers."""
        ladders = [each for each in self.ladders() if _reliable(each.rungs)]
        if not ladders:
            return ""
        lengths = [
            name
            for name, length in LENGTHS.items()
            if any(rung.block_ms == length for each in ladders for rung in _reliable(each.rungs))
        ]
        lines = [["champion", "challenger", "examples", *lengths, "suggested block"]]
        for each in ladders:
            found = {rung.block_ms: f"{rung.inflation:.1f}" for rung in _reliable(each.rungs)}
            cells = [found.get(LENGTHS[name], "-") for name in lengths]
            suggested = next((n for n, ms in LENGTHS.items() if ms == each.block_ms), "-")
            lines.append([each.champion, each.challenger, f"{each.pairs:,}", *cells, suggested])
        return (
            "how long luck lasts: by how much blocks of time differ more in who did better\n"
            "than they would if every example were luck of its own (1: no more)\n"
            f"{_aligned(lines, left=2)}\n"
            "While this grows with the length, luck lasts longer than a block, and shorter\n"
            "blocks count the same luck twice. Suggested is the shortest from which it grows\n"
            "by a quarter at most. That is coarse: in doubt take the longer one, which costs\n"
            f"days, not truth. Lengths with fewer than {RUNG_BLOCKS_MIN} blocks say nothing (-)."
        )

    def columns(self) -> list[str]:
        """Who answered, in the order shown.

        A line that never challenged is the champion throughout: `served` shows it already.
        """
        others = [name for name in (FIRST, LIVE) if name in self._answers]
        return [SERVED, *self._challengers(), *others, *self.baselines]

    def answers(self, name: str) -> list[Answer]:
        """What somebody answered to each example, None where there was no answer."""
        answers = self._answers[name]
        answers.extend([None] * (len(self.times) - len(answers)))
        return answers

    def at(self, ms: int) -> datetime:
        """A time as the zone's clocks show it."""
        return datetime.fromtimestamp(ms / 1000, self.zone)

    def loss(self, label: LabelValue, answer: Answer) -> float:
        """What the models of this kind of task are compared by.

        Args:
            label: the truth, of the task's type.
            answer: one that can be scored.
        """
        return loss(self.task_kind, label, answer)

    # What follows computes.

    def _answer(self, name: str, answer: Answer) -> None:
        answers = self._answers.setdefault(name, [])
        # Whoever comes late, or stays out for a while, had no answer until now.
        answers.extend([None] * (len(self.times) - len(answers)))
        answers.append(answer if is_scorable(self.task_kind, answer) else None)

    def _scored(self, *answers: Answer) -> bool:
        return all(is_scorable(self.task_kind, answer) for answer in answers)

    def _challengers(self) -> list[str]:
        return [name for name in self._answers if name in self._challenged - {FIRST}]

    def _common(self, group: Sequence[int], names: Iterable[str]) -> list[int]:
        """Those of a group that everyone has answered who answered any of it."""
        given = [answers for answers in map(self.answers, names) if _any(answers, group)]
        return [i for i in group if all(answers[i] is not None for answers in given)]

    def _keep(self, name: str, compute: Callable[[], list[T]]) -> list[T]:
        if name not in self._kept:
            self._kept[name] = compute()
        kept: list[T] = self._kept[name]
        return kept

    def _compute_months(self) -> list[MonthRow]:
        groups: dict[str, list[int]] = defaultdict(list)
        for i, ts in enumerate(self.times):
            groups[f"{self.at(ts):%Y-%m}"].append(i)
        rows = [self._row(month, groups[month]) for month in sorted(groups)]
        return [*rows, self._row(ALL, range(len(self.times)))]

    def _compute_switches(self) -> list[Switch]:
        found = []
        for i, (before, decision) in enumerate(pairwise(self.decisions), start=1):
            if decision.kind not in {"replaced", "rolled_back"}:
                continue
            new, old = decision.serving.champion.model, before.serving.champion.model
            gains = list(self._against(new, old))
            if decision.kind == "rolled_back":
                gains = [-gain for gain in self._against(old, new)]
            until = self._reign(i)
            over = [
                -difference
                for ts, difference in self._pairs(line_of(new), line_of(old))
                if decision.ts <= ts < until
            ]
            found.append(
                Switch(
                    decision.kind,
                    decision.ts,
                    new,
                    old,
                    decision.actor,
                    decision.reason,
                    decision.evidence,
                    len(gains),
                    _mean(gains) if gains else None,
                    len(over),
                    _mean(over) if over else None,
                )
            )
        return found

    def _compute_gaps(self) -> list[Gap]:
        first = self.decisions[-1].serving.first if self.decisions else None
        if first is None or not {FIRST, LIVE} <= self._answers.keys():
            return []
        line = line_of(self.decisions[-1].serving.champion.model)
        tuned = f"{line}@{first.model.rpartition('@')[2]}"
        steps = [(FIRST, ""), (tuned, "tuning"), (LIVE, "learning_on")]
        gaps = [self._gap(ALL, 0, steps)]
        replaced = [d for d in self.decisions if d.kind == "replaced"]
        if replaced:
            last = replaced[-1]
            settled = last.serving.champion.model
            steps.insert(-1, (settled, "youth"))
            gaps.append(self._gap(settled, last.ts, steps))
        return [gap for gap in gaps if gap.n]

    def _compute_ladders(self) -> list[Ladder]:
        found = []
        for champion in dict.fromkeys(self._lines):
            for challenger in self._challengers():
                pairs = list(self._pairs(champion, challenger))
                rungs = variance_ladder(pairs, list(LENGTHS.values()))
                if rungs:
                    block_ms = suggested_block(rungs)
                    found.append(Ladder(champion, challenger, len(pairs), rungs, block_ms))
        return found

    def _against(self, newer: str, older: str) -> Iterator[float]:
        """What `newer` and its renewals gained while `older` was their predecessor."""
        for (model, predecessor), gains in self._gains.items():
            if predecessor == older and line_of(model) == line_of(newer):
                yield from gains

    def _reign(self, number: int) -> float:
        """When the line that a decision puts in place gives way to another."""
        line = line_of(self.decisions[number].serving.champion.model)
        for decision in self.decisions[number + 1 :]:
            if line_of(decision.serving.champion.model) != line:
                return decision.ts
        return math.inf

    def _gap(self, since: str, from_ts: int, steps: Sequence[tuple[str, str]]) -> Gap:
        steps = [(name, part) for name, part in steps if name in self._answers]
        names = [*(name for name, _ in steps[:-1]), SERVED, LIVE]
        scored = self._common(range(len(self.times)), {*self.columns(), *names})
        common = [i for i in scored if self.times[i] >= from_ts]
        if not common:
            return Gap(since, 0, {}, None, {})
        measure = MEASURES[self.task_kind][GAP_MEASURES[self.task_kind]]
        losses = {name: measure(self._pairs_of(name, common)) or 0.0 for name in names}
        parts = {
            part: losses[before] - losses[name] for (before, _), (name, part) in pairwise(steps)
        }
        whole = losses[FIRST] - losses[LIVE]
        closed = (losses[FIRST] - losses[SERVED]) / whole if whole > 0 else None
        return Gap(since, len(common), losses, closed, parts)

    def _pairs(self, champion: str, challenger: str) -> Iterator[tuple[int, float]]:
        """When `champion` served and both answered: the time, and by how much it lost more."""
        if champion == challenger or challenger not in self._answers:
            return
        answers = zip(self._answers[SERVED], self.answers(challenger), strict=True)
        for ts, line, label, (served, theirs) in zip(
            self.times, self._lines, self.labels, answers, strict=True
        ):
            if line == champion and served is not None and theirs is not None:
                yield ts, self.loss(label, served) - self.loss(label, theirs)

    def _row(self, month: str, group: Sequence[int]) -> MonthRow:
        columns = [name for name in self.columns() if _any(self.answers(name), group)]
        common = self._common(group, columns)
        labels = [self.labels[i] for i in common]
        scores = {name: self._scores(self._pairs_of(name, common)) for name in columns}
        binary = self.task_kind == "binary" and labels
        share = _mean(float(bool(label)) for label in labels) if binary else None
        return MonthRow(month, len(common), share, scores)

    def _scores(self, pairs: Pairs) -> dict[str, float]:
        values = {name: measure(pairs) for name, measure in self._measures() if pairs}
        return {name: value for name, value in values.items() if value is not None}

    def _measures(self) -> Iterable[tuple[str, Callable[[Pairs], float | None]]]:
        return MEASURES[self.task_kind].items()

    def _pairs_of(self, name: str, group: Iterable[int]) -> Pairs:
        answers = self.answers(name)
        return [(self.labels[i], answers[i]) for i in group]

    def _refresh_summary(self) -> dict[str, Any]:
        refreshes = self.refreshes()
        known = [(r.gain, r) for r in refreshes if r.gain is not None and r.n >= REFRESH_PAIRS_MIN]
        summary: dict[str, Any] = {"count": len(refreshes), "scored": len(known)}
        if known:
            summary["better"] = sum(gain > 0 for gain, _ in known)
            summary["mean_gain"] = _mean(gain for gain, _ in known)
            summary["worst"] = asdict(min(known, key=lambda pair: pair[0])[1])
        return summary

    # What follows renders.

    def _headline(self) -> str:
        first, last = self.at(min(self.times)), self.at(max(self.times))
        total = self.months()[-1]
        return (
            f"{len(self.times):,} examples, {first:%Y-%m-%d} to {last:%Y-%m-%d} ({self.zone}); "
            f"{total.n:,} answered by all, and scored here"
        )

    def _table(self, measure: str) -> str:
        binary = self.task_kind == "binary"
        columns = self.columns()
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
        switches = {switch.ts: switch for switch in self.switches()}
        lines = []
        for decision in self.decisions:
            if decision.kind in {"bootstrap", "refreshed"}:
                continue
            lines.append(
                printable(
                    f"{decision.kind} on {self.at(decision.ts):%Y-%m-%d %H:%M} by "
                    f"{decision.actor}: {decision.serving.champion.model} serves "
                    f"({decision.reason})"
                )
            )
            if decision.ts in switches and decision.kind == switches[decision.ts].kind:
                lines += [f"  {line}" for line in self._worth(switches[decision.ts])]
        return lines

    def _worth(self, switch: Switch) -> list[str]:
        """What a switch rested on, and what it was worth."""
        lines, name = [], LOSS_NAMES[self.task_kind]
        evidence = switch.evidence or {}
        if "e_value" in evidence:
            lines.append(
                f"evidence: E {evidence['e_value']:.1f} of {evidence['needed']:.0f}, from "
                f"{evidence['wins']} blocks won and {evidence['losses']} lost"
            )
        if switch.gain is not None:
            what = f"gained against {switch.former} while that was its predecessor"
            if switch.kind == "rolled_back":
                what = "that its successors had cost against it"
            lines.append(f"{name} {what}: {switch.gain:+.4f} ({switch.n:,} labels)")
        if switch.line_gain is not None:
            lines.append(
                f"{name} gained, {line_of(switch.model)} against {line_of(switch.former)} over "
                f"refreshes, until another line served: {switch.line_gain:+.4f} "
                f"({switch.line_n:,} labels)"
            )
        return lines

    def _gap_text(self) -> str:
        gaps = self.gaps()
        if not gaps:
            return ""
        measure = GAP_MEASURES[self.task_kind]
        names = list(gaps[-1].losses)
        lines = [[f"{measure} since", "examples", *names, "gap closed"]]
        for gap in gaps:
            cells = [_figure(gap.losses.get(name)) for name in names]
            closed = "-" if gap.closed is None else f"{gap.closed:.1%}"
            lines.append([gap.since, f"{gap.n:,}", *cells, closed])
        told = []
        for gap in gaps:
            when = "over all of it" if gap.since == ALL else f"since {gap.since}"
            share = "there is no gap" if gap.closed is None else f"serving closed {gap.closed:.1%}"
            parts = [f"{name.replace('_', ' ')} {part:.4f}" for name, part in gap.parts.items()]
            told.append(f"{when} {share}; made of {', '.join(parts)}")
        return "\n".join(
            [
                "the gap between a first model that is never updated and a learner that predicts",
                "live (names with @: copies of that learner, frozen after so many labels)",
                _aligned(lines),
                *told,
                "(tuning: another recipe on the labels that the first model had; youth: more",
                "labels before it was frozen, too; learning on: the rest, the only part that",
                "can be drift)",
            ]
        )

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


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _any(answers: Sequence[Answer], group: Iterable[int]) -> bool:
    return any(answers[i] is not None for i in group)


def _reliable(rungs: Iterable[Rung]) -> list[Rung]:
    return [rung for rung in rungs if rung.blocks >= RUNG_BLOCKS_MIN]


def _aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell: the first ones to the left, the others to the right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
