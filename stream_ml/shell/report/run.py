"""A run's report: typed answers to what it was worth, computed from stored predictions.

No model predicts again but the bound. `shell.report.text` renders it, `shell.report.plots` draws
it, and `as_dict` is its machine-readable form.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

from stream_ml.records import line_of
from stream_ml.shell.report.answer_table import CHAMPION, AnswerTable
from stream_ml.shell.report.comparisons import (
    gaps,
    ladders,
    month_rows,
    refresh_summary,
    refreshes,
    switches,
)
from stream_ml.shell.report.periods import Periods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_ml.records import Answer, Decision, Evaluation, Example
    from stream_ml.shell.report.comparisons import Gap, Ladder, MonthRow, Refresh, Switch

__all__ = ["Report"]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

T = TypeVar("T")


class Report:
    """A run's worth, from its examples and decisions.

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
        pipeline: its name, for titles.

    Attributes:
        table: labels and answers of the examples.
        evidence: by challenger: time, E, and the number of blocks that had voted.
        e_value_min: the E that a replacement needs; None before any evidence.
        slices: how each model stands on each declared slice, by model and slice.
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
        pipeline: str = "",
    ) -> None:
        self.task_kind = task_kind
        self.pipeline = pipeline
        self.accounting = dict(accounting or {})
        self.positive = positive
        self.zone = ZoneInfo(zone)
        self.table = AnswerTable(task_kind, horizon_ms, breadth, classes)
        self.decisions: list[Decision] = []
        self.evidence: dict[str, list[tuple[int, float, int]]] = defaultdict(list)
        self.e_value_min: float | None = None
        self.slices: dict[str, dict[str, Any]] = {}
        # Answers until more comes in: text, JSON and plots all show them.
        self._cache: dict[str, Any] = {}
        for example in examples:
            self.add(example)
        for decision in decisions:
            self.decide(decision)

    # --- what goes in -----------------------------------------------------------------------

    def add(self, example: Example, extra: Mapping[str, Answer] | None = None) -> None:
        """Take one more example into account, and the answers of `live` and its frozen copies.

        Args:
            example: the next one, in the order of `examples`.
            extra: by name, the answers of learners that no stage knows.
        """
        self.table.add(example, extra or {})
        self._cache.clear()

    def decide(self, decision: Decision) -> None:
        """Take one more decision into account."""
        self.decisions.append(decision)
        self._cache.clear()
        if decision.kind == "replaced" and "e_value" in (decision.evidence or {}):
            # It turned between two evaluations, and started anew at once.
            self._weigh(line_of(decision.serving.champion.model), decision.ts, decision.evidence)

    def evaluate(self, evaluation: Evaluation) -> None:
        """Take a model's evidence and slices into account, as an evaluation states them."""
        if evaluation.slices is not None:
            self.slices[evaluation.model] = evaluation.slices
        if evaluation.evidence is not None:
            self._weigh(evaluation.model, evaluation.ts, evaluation.evidence)

    def _weigh(self, line: str, ts: int, evidence: Mapping[str, Any] | None) -> None:
        assert evidence is not None
        votes = evidence["wins"] + evidence["losses"]
        self.evidence[line].append((ts, evidence["e_value"], votes))
        self._cache.pop("pictures", None)
        self.e_value_min = evidence["needed"]

    # --- what comes out ---------------------------------------------------------------------

    def months(self) -> list[MonthRow]:
        """The scores of each month, and of all of it as the last row."""
        return self.cached("months", lambda: month_rows(self.table, self.zone))

    def refreshes(self) -> list[Refresh]:
        """Each refresh that was decided, and its gain."""
        return refreshes(self.table, self.decisions)

    def refresh_summary(self) -> dict[str, Any]:
        """How many refreshes there were, how many beat their predecessor, and by how much."""
        return refresh_summary(self.refreshes())

    def switches(self) -> list[Switch]:
        """Each replacement and rollback, and its gain or cost."""
        return self.cached("switches", lambda: switches(self.table, self.decisions))

    def gaps(self) -> list[Gap]:
        """The gap between never updated and live, over everything, and since the last replacement.

        None without `live`, or before there was a first model.
        """
        return self.cached("gaps", lambda: gaps(self.table, self.decisions))

    def ladders(self) -> list[Ladder]:
        """For each champion's line and its challengers: how the luck of blocks is shared."""
        return self.cached("ladders", lambda: ladders(self.table))

    def delays_ms(self) -> dict[str, int]:
        """How long after its event a label came: quantiles, empty without examples."""
        delays = sorted(self.table.delays)
        n = len(delays)
        if not n:
            return {}
        return {name: delays[max(0, math.ceil(q * n) - 1)] for name, q in QUANTILES.items()}

    def coverage(self) -> dict[str, float]:
        """The share of examples that the champion answered, and of predictions with a label."""
        answers = self.table.answers(CHAMPION)
        shares = {}
        if answers:
            shares["answered"] = sum(answer is not None for answer in answers) / len(answers)
        if self.accounting.get("predictions"):
            shares["labelled"] = len(answers) / self.accounting["predictions"]
        return shares

    def periods(self) -> Periods:
        """The stretches of time that it is looked at by; there are examples."""
        return self.cached("periods", lambda: [Periods(self.table.times, self.zone)])[0]

    def span_text(self) -> str:
        """From when until when, and how many examples; for titles."""
        times = self.table.times
        if not times:
            return "no examples"
        first, last = (f"{self.local_time(ms):%Y-%m-%d}" for ms in (min(times), max(times)))
        if first == last:
            begin, end = (f"{self.local_time(ms):%H:%M}" for ms in (min(times), max(times)))
            first, last = f"{first} {begin}", end
        return f"{first} to {last} ({self.zone.key}), {len(times):,} examples"

    def local_time(self, ms: int) -> datetime:
        """A time as the zone's clocks show it."""
        return datetime.fromtimestamp(ms / 1000, self.zone)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "task": self.task_kind,
            "examples": len(self.table.times),
            "months": [asdict(row) for row in self.months()],
            "gaps": [asdict(gap) for gap in self.gaps()],
            "refreshes": self.refresh_summary(),
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
            **({"slices": self.slices} if self.slices else {}),
        }

    def cached(self, name: str, compute: Callable[[], list[T]]) -> list[T]:
        """An answer that holds until more comes in.

        Args:
            name: of the answer.
            compute: makes it.
        """
        if name not in self._cache:
            self._cache[name] = compute()
        answer: list[T] = self._cache[name]
        return answer
