"""Comparisons of a run's models: by month, refresh by refresh, switch by switch, against the bound.

Everything is computed from the answers that `examples` hold, and from the registry's decisions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.evidence import suggested_block, variance_ladder
from stream_ml.records import line_of
from stream_ml.shell.report.answer_table import CHAMPION, FIRST
from stream_ml.shell.report.bound import LIVE
from stream_ml.shell.report.measures import GAP_MEASURES, MEASURES, mean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from stream_ml.evaluation.evidence import Rung
    from stream_ml.records import Decision
    from stream_ml.shell.report.answer_table import AnswerTable
    from stream_ml.shell.report.measures import Pairs

__all__ = [
    "BLOCK_LENGTHS",
    "HOUR_MS",
    "REFRESH_PAIRS_MIN",
    "TOTAL",
    "Gap",
    "Ladder",
    "MonthRow",
    "Refresh",
    "Switch",
    "gaps",
    "ladders",
    "month_rows",
    "refresh_summary",
    "refreshes",
    "switches",
]

TOTAL = "all"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# A snapshot that served for an hour or two is judged by the luck of that hour.
REFRESH_PAIRS_MIN = 200
# The lengths of blocks that the variance is looked at for, as people write them.
BLOCK_LENGTHS = {
    "1h": HOUR_MS,
    "6h": 6 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "7d": 7 * DAY_MS,
}


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
    """The worth that learning on could have, and how much of it was served.

    `since` is `all`, or the snapshot whose replacement it counts from. `losses` go by who
    answered, all of the same `n` examples: `served`, the never-updated `first`, copies of the live
    line that were frozen on the way, `live`. `closed` is the share of the gap between `first` and
    `live` that `served` closed; None where there is no gap. `parts` are the gap's, by name:
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


# --- months -------------------------------------------------------------------------------------


def month_rows(table: AnswerTable, zone: ZoneInfo) -> list[MonthRow]:
    """The scores of each month of event time, and of all of it as the last row.

    Args:
        table: labels and answers.
        zone: whose months are meant.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, ts in enumerate(table.times):
        groups[f"{datetime.fromtimestamp(ts / 1000, zone):%Y-%m}"].append(i)
    rows = [_month_row(table, month, groups[month]) for month in sorted(groups)]
    return [*rows, _month_row(table, TOTAL, range(len(table.times)))]


def _month_row(table: AnswerTable, month: str, group: Sequence[int]) -> MonthRow:
    columns = [name for name in table.columns() if table.has_answers(name, group)]
    common = table.common(group, columns)
    labels = [table.labels[i] for i in common]
    scores = {name: _scores(table.task_kind, table.pairs(name, common)) for name in columns}
    is_binary = table.task_kind == "binary" and labels
    true_share = mean(float(bool(label)) for label in labels) if is_binary else None
    return MonthRow(month, len(common), true_share, scores)


def _scores(task_kind: str, pairs: Pairs) -> dict[str, float]:
    values = {name: measure(pairs) for name, measure in MEASURES[task_kind].items() if pairs}
    return {name: value for name, value in values.items() if value is not None}


# --- refreshes ----------------------------------------------------------------------------------


def refreshes(table: AnswerTable, decisions: Sequence[Decision]) -> list[Refresh]:
    """Each refresh that was decided, and its gain.

    Args:
        table: labels and answers.
        decisions: in the order of the log.
    """
    results = []
    for decision in decisions:
        predecessor = decision.serving.predecessor
        if decision.kind == "refreshed" and predecessor is not None:
            model = decision.serving.champion.model
            gains = table.renewal_gains(model, predecessor.model)
            gain = mean(gains) if gains else None
            results.append(Refresh(model, predecessor.model, len(gains), gain))
    return results


def refresh_summary(results: Sequence[Refresh]) -> dict[str, Any]:
    """How many refreshes there were, how many beat their predecessor, and by how much."""
    scores = [(r.gain, r) for r in results if r.gain is not None and r.n >= REFRESH_PAIRS_MIN]
    summary: dict[str, Any] = {"count": len(results), "scored": len(scores)}
    if scores:
        summary["better"] = sum(gain > 0 for gain, _ in scores)
        summary["mean_gain"] = mean(gain for gain, _ in scores)
        summary["worst"] = asdict(min(scores, key=lambda pair: pair[0])[1])
    return summary


# --- switches -----------------------------------------------------------------------------------


def switches(table: AnswerTable, decisions: Sequence[Decision]) -> list[Switch]:
    """Each replacement and rollback, and its gain or cost.

    Args:
        table: labels and answers.
        decisions: in the order of the log.
    """
    return [
        _switch(table, decisions, number)
        for number, decision in enumerate(decisions)
        if number and decision.kind in {"replaced", "rolled_back"}
    ]


def _switch(table: AnswerTable, decisions: Sequence[Decision], number: int) -> Switch:
    former_decision, decision = decisions[number - 1], decisions[number]
    model, former = decision.serving.champion.model, former_decision.serving.champion.model
    if decision.kind == "rolled_back":
        gains = [-gain for gain in table.gains_over(former, model)]
    else:
        gains = list(table.gains_over(model, former))
    end_ts = _reign_end(decisions, number)
    line_gains = [
        -difference
        for ts, difference in table.differences(line_of(model), line_of(former))
        if decision.ts <= ts < end_ts
    ]
    return Switch(
        decision.kind,
        decision.ts,
        model,
        former,
        decision.actor,
        decision.reason,
        decision.evidence,
        len(gains),
        mean(gains) if gains else None,
        len(line_gains),
        mean(line_gains) if line_gains else None,
    )


def _reign_end(decisions: Sequence[Decision], number: int) -> float:
    """The time at which the line that a decision lets serve gives way to another."""
    line = line_of(decisions[number].serving.champion.model)
    for decision in decisions[number + 1 :]:
        if line_of(decision.serving.champion.model) != line:
            return decision.ts
    return math.inf


# --- the gap to the bound -----------------------------------------------------------------------


def gaps(table: AnswerTable, decisions: Sequence[Decision]) -> list[Gap]:
    """The gap between never updated and live, over everything, and since the last replacement.

    None without `live`, or before there was a first model.

    Args:
        table: labels and answers.
        decisions: in the order of the log.
    """
    first = decisions[-1].serving.first if decisions else None
    if first is None or not table.has(FIRST, LIVE):
        return []
    line = line_of(decisions[-1].serving.champion.model)
    first_of_line = f"{line}@{first.model.rpartition('@')[2]}"
    steps = [(FIRST, ""), (first_of_line, "tuning"), (LIVE, "learning_on")]
    results = [_gap(table, TOTAL, 0, steps)]
    replacements = [decision for decision in decisions if decision.kind == "replaced"]
    if replacements:
        last = replacements[-1]
        model = last.serving.champion.model
        steps.insert(-1, (model, "youth"))
        results.append(_gap(table, model, last.ts, steps))
    return [gap for gap in results if gap.n]


def _gap(table: AnswerTable, start: str, start_ts: int, steps: Sequence[tuple[str, str]]) -> Gap:
    steps = [(name, part) for name, part in steps if table.has(name)]
    names = [*(name for name, _ in steps[:-1]), CHAMPION, LIVE]
    common = [
        i
        for i in table.common(range(len(table.times)), {*table.columns(), *names})
        if table.times[i] >= start_ts
    ]
    if not common:
        return Gap(start, 0, {}, None, {})
    measure = MEASURES[table.task_kind][GAP_MEASURES[table.task_kind]]
    losses = {name: measure(table.pairs(name, common)) or 0.0 for name in names}
    parts = {part: losses[former] - losses[name] for (former, _), (name, part) in pairwise(steps)}
    total = losses[FIRST] - losses[LIVE]
    closed_share = (losses[FIRST] - losses[CHAMPION]) / total if total > 0 else None
    return Gap(start, len(common), losses, closed_share, parts)


# --- variance ladders ---------------------------------------------------------------------------


def ladders(table: AnswerTable) -> list[Ladder]:
    """The variance ladder of each line that served against each challenger."""
    results = []
    for champion in table.champion_lines():
        for challenger in table.challengers():
            pairs = list(table.differences(champion, challenger))
            rungs = variance_ladder(pairs, list(BLOCK_LENGTHS.values()))
            if rungs:
                block_ms = suggested_block(rungs)
                results.append(Ladder(champion, challenger, len(pairs), rungs, block_ms))
    return results
