"""Baselines: answers without a model, from the labels known at that moment.

Theory of operation. A baseline must not know more than the models it is held against: at event
time t it may use the labels whose own time is at most t, although by the time an example is
scored many more have come. So the baselines keep, for each moment at which a label became known,
the totals up to then, and look the moment up by bisection. Predictions are scored at most a
label horizon after they were made; older moments are forgotten. A label that is ahead of the
labels' watermark waits until that has come as far: one wrong clock must not make what was known
until then a thing of the past.

(The zero rule and the no-change classifier as yardsticks of streams: Bifet et al. 2015,
"Efficient online evaluation of big data stream classifiers", KDD.)
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.scores import clamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.records import Answer, LabelValue

__all__ = ["Baselines"]

# About 10 MB of binary history, and a dump of 1 MB. With more moments than that inside the
# horizon, moments are merged to a coarser grid: see `Baselines._coarsen`.
MOMENTS_MAX = 32_768

# Labels known, then by kind: how many per class (binary: True), or their sum and the last one.
Totals = tuple[Any, ...]


class Baselines:
    """The baselines of one task, each answering as of any event time within the horizon.

    Binary: `prior`, the share of True. Multiclass: `prior`, the share of each class; its accuracy
    is that of always answering the majority. Regression: `last`, the last label known, and `mean`.

    For each example call `answers` before `learn`, so that no label is part of its own answer
    even where it came without delay.

    Args:
        kind: `binary`, `multiclass` or `regression`.
        classes: the classes of a multiclass task, as declared.
        horizon_ms: how far before the newest label's time answers are asked for.
        moments_max: how many distinct times are kept before they are merged.

    >>> baselines = Baselines("binary", (), horizon_ms=1_000)
    >>> for label, label_ts in [(True, 10), (False, 20), (False, 30)]:
    ...     baselines.learn(label, label_ts, watermark_ms=label_ts)
    >>> [baselines.answers(ts)["prior"] for ts in (9, 10, 29)]
    [None, 1.0, 0.5]
    """

    __slots__ = (
        "_ahead",
        "_ahead_n",
        "_class_indexes",
        "_grain_ms",
        "_head",
        "_moments",
        "_moments_max",
        "_totals",
        "_watermark",
        "classes",
        "horizon_ms",
        "kind",
    )

    def __init__(
        self,
        kind: str,
        classes: tuple[str, ...],
        horizon_ms: int,
        moments_max: int = MOMENTS_MAX,
    ) -> None:
        if kind not in ("binary", "multiclass", "regression"):
            raise ValueError(f"kind: expected binary, multiclass or regression, given {kind!r}")
        self.kind = kind
        self.classes = classes
        self.horizon_ms = horizon_ms
        self._class_indexes = {name: i for i, name in enumerate(classes, start=1)}
        # Less cannot hold the far end of the horizon and, on any grid, both sides of zero.
        self._moments_max = max(4, moments_max)
        self._grain_ms = 1
        self._watermark: int | None = None
        # By time, then in the order in which they came.
        # What is corrected has the former label behind it.
        self._ahead: list[tuple[Any, ...]] = []
        self._ahead_n = 0
        self._moments: list[int] = []
        self._totals: list[Totals] = []
        # Moments before the head are forgotten, but only cut off now and then: a cut is O(n).
        self._head = 0

    def answers(self, ts: int) -> dict[str, Answer]:
        """The answer of each baseline as of `ts`; a label with that very time was known.

        None before the first label, and for a moment older than the horizon remembers: a
        baseline that no longer knows what was known then says so, rather than knowing too much.
        """
        totals: Totals | None = None
        if self._watermark is not None and ts >= self._watermark - self.horizon_ms:
            i = bisect_right(self._moments, ts, lo=self._head)
            totals = self._totals[i - 1] if i > self._head else None
        if self.kind == "regression":
            if totals is None:
                return {"last": None, "mean": None}
            return {"last": totals[2], "mean": totals[1] / totals[0]}
        if totals is None:
            return {"prior": None}
        if self.kind == "binary":
            return {"prior": totals[1] / totals[0]}
        return {"prior": {name: totals[i] / totals[0] for name, i in self._class_indexes.items()}}

    def learn(
        self, label: LabelValue, label_ts: int, watermark_ms: int, *former: LabelValue
    ) -> None:
        """Know one more label, from `label_ts` on, once the labels' watermark is there.

        A label older than the newest counts as known only since the newest one's time: it was
        not among the examples before, and answers already given must not change.

        Args:
            label: the truth, of the task's type.
            label_ts: when it was known, UTC milliseconds.
            watermark_ms: the labels' watermark.
            former: the label that was known before, where this one takes its place.
        """
        ahead = self._ahead
        if not ahead and label_ts <= watermark_ms:
            self._know(label, label_ts, *former)
            return
        self._ahead_n += 1
        heapq.heappush(ahead, (label_ts, self._ahead_n, label, *former))
        while ahead and ahead[0][0] <= watermark_ms:
            ts, _, due_label, *due_former = heapq.heappop(ahead)
            self._know(due_label, ts, *due_former)

    def _know(self, label: LabelValue, label_ts: int, *former: LabelValue) -> None:
        if self._watermark is None or label_ts > self._watermark:
            self._watermark = label_ts
        moment = self._on_grid(self._watermark)
        totals = self._totals[-1] if self._totals else None
        if former and totals is not None:
            totals = self._less_label(totals, former[0])
        totals = self._add_label(totals, label)
        if self._moments and self._moments[-1] == moment:
            self._totals[-1] = totals
            return
        self._moments.append(moment)
        self._totals.append(totals)
        self._forget(self._watermark - self.horizon_ms)
        if len(self._moments) - self._head > self._moments_max:
            self._coarsen()

    def dump(self) -> dict[str, Any]:
        """The state as plain JSON; the configuration is the constructor's and not in it."""
        return {
            "watermark": self._watermark,
            "grain_ms": self._grain_ms,
            "moments": self._moments[self._head :],
            "totals": self._totals[self._head :],
            "ahead": sorted(self._ahead),
            "ahead_n": self._ahead_n,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a dump, bit for bit; the task may have had fewer classes then.

        Args:
            state: what `dump` gave.
        """
        self._watermark = state["watermark"]
        self._grain_ms = state["grain_ms"]
        self._moments = list(state["moments"])
        self._totals = [self._widened(totals) for totals in state["totals"]]
        self._head = 0
        # A state that was written before labels could be ahead has none.
        self._ahead = [tuple(each) for each in state.get("ahead", ())]
        self._ahead_n = state.get("ahead_n", 0)

    def _widened(self, totals: Sequence[Any]) -> Totals:
        """Totals with none yet of the classes that came since, behind the others."""
        if self.kind != "multiclass":
            return tuple(totals)
        return (*totals, *(0 for _ in self.classes[len(totals) - 1 :]))

    def _less_label(self, totals: Totals, label: Any) -> Totals | None:
        """The totals without a label; None of none."""
        if totals[0] <= 1:
            return None
        if self.kind == "binary":
            return (totals[0] - 1, totals[1] - (1 if label else 0))
        if self.kind == "regression":
            return (totals[0] - 1, totals[1] - clamp(label), totals[2])
        counts = list(totals)
        counts[0] -= 1
        counts[self._class_indexes[label]] -= 1
        return tuple(counts)

    def _add_label(self, totals: Totals | None, label: Any) -> Totals:
        if self.kind == "binary":
            n, trues = totals or (0, 0)
            return (n + 1, trues + 1 if label else trues)
        if self.kind == "regression":
            n, total, _ = totals or (0, 0.0, None)
            value = clamp(label)
            return (n + 1, total + value, value)
        counts = list(totals or (0, *(0 for _ in self.classes)))
        counts[0] += 1
        counts[self._class_indexes[label]] += 1
        return tuple(counts)

    def _on_grid(self, moment: int) -> int:
        # Upwards: a label may count as known later than it was, never sooner.
        return -(-moment // self._grain_ms) * self._grain_ms

    def _forget(self, bound_ms: int) -> None:
        # The last moment at or before the bound still answers for the time from the bound on.
        while self._head + 1 < len(self._moments) and self._moments[self._head + 1] <= bound_ms:
            self._head += 1
        if self._head > len(self._moments) // 2:
            del self._moments[: self._head], self._totals[: self._head]
            self._head = 0

    def _coarsen(self) -> None:
        """Double the grid until half the moments are enough; the last of a step speaks for it.

        Exact as long as memory allows, and then late by less than a step, evenly over the
        horizon: for two days and 32,768 moments at most 17 s.
        """
        first, *moments = self._moments[self._head :]
        base, *totals = self._totals[self._head :]
        totals_by_moment = dict(zip(moments, totals, strict=True))
        while len(totals_by_moment) > self._moments_max // 2:
            self._grain_ms *= 2
            totals_by_moment = {
                self._on_grid(moment): value for moment, value in totals_by_moment.items()
            }
        # The first stays where it was: it answers for the far end of the horizon.
        self._moments, self._totals, self._head = (
            [first, *totals_by_moment],
            [base, *totals_by_moment.values()],
            0,
        )
