"""How far learn has come in the examples, and when it publishes: the same for every line.

All of it is a function of the examples log, so tasks that have read as far have the same.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord
from stream_ml.evaluation.changes import ServedLoss
from stream_ml.evaluation.scores import loss
from stream_ml.records import line_of
from stream_ml.stages.lines import TrainingExample
from stream_ml.stages.numbering import Numbers
from stream_ml.stages.refresh_clock import RefreshClock
from stream_ml.stages.watermark import ExamplesWatermark

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example

__all__ = ["GOLDEN_EXAMPLES", "LearningProgress", "mean"]

# A snapshot answers for so many recent examples again when it is loaded.
GOLDEN_EXAMPLES = 8


class LearningProgress:
    """The examples so far: their number, their watermark, what served there, the next instant.

    Args:
        pipeline: the declaration.
        counts_gone: whether those count that retention had removed before the first one came: then
            the numbers are those of who has read them all.

    Attributes:
        n: how many there were.
        gone: how many of them had been removed.
        epoch_n: how many since the last refresh.
        offsets: of the first and of the last; -1 before them.
        golden: the features of the newest ones.
        clock: tells the refresh instants.
    """

    def __init__(self, pipeline: Pipeline, *, counts_gone: bool = False) -> None:
        self._counts_gone = counts_gone
        self._kind = pipeline.target.kind
        self._hastens = pipeline.promotion.on_change == "refresh"
        refresh = pipeline.promotion.refresh
        self.clock = RefreshClock(pipeline.refresh_ms, refresh if isinstance(refresh, int) else 0)
        self.n = self.gone = 0
        self.epoch_n = 0
        self.offsets = (-1, -1)
        self.golden: deque[dict[str, float]] = deque(maxlen=GOLDEN_EXAMPLES)
        self._numbers = Numbers()
        self._watermark = ExamplesWatermark(pipeline.horizon_ms, pipeline.events.breadth)
        self._served_loss = 0.0
        self._served_scored = 0
        self._served_change = ServedLoss(pipeline.target.kind)

    @property
    def watermark_ms(self) -> int:
        """Of the examples, UTC milliseconds."""
        return self._watermark.ms

    @property
    def served_loss(self) -> float | None:
        """The mean loss of what was served since the last refresh; None where nothing was."""
        return mean(self._served_loss, self._served_scored)

    def is_new(self, example: Example, offset: int) -> bool:
        """Whether an example is no copy of one that came before; it is taken note of.

        Args:
            example: the next one.
            offset: where it lies on `examples`.
        """
        partition = example.label_source.partition
        first = offset if self.offsets[0] < 0 else self.offsets[0]
        are_gone = self._counts_gone and first > 0
        is_first = are_gone and not self._numbers.has(partition)
        try:
            self._numbers.take(partition, example.number)
        except BadRecord:
            return False
        if is_first:
            self.gone += example.number or 0
            self.n += example.number or 0
        return True

    def take(
        self, example: Example, offset: int, append_ms: int, features: dict[str, float]
    ) -> TrainingExample:
        """Count an example; what is to be learned from it.

        Args:
            example: a new one.
            offset: where it lies on `examples`.
            append_ms: when it was appended there, UTC milliseconds.
            features: to learn it with.
        """
        prediction, label = example.prediction, example.label
        self.n += 1
        self.epoch_n += 1
        partition = example.label_source.partition
        self._watermark.advance(partition, prediction.event_id, example.label_ts, append_ms)
        self.offsets = (offset if self.offsets[0] < 0 else self.offsets[0], offset)
        self.golden.append(features)
        own_answer = prediction.own_answer
        served_loss = None
        # What is corrected is what was wrong: its losses say nothing of the others.
        if own_answer is not None and example.correction is None:
            served_loss = loss(self._kind, label, own_answer)
            self._served_loss += served_loss
            self._served_scored += 1
            has_changed = self._served_change.add(own_answer, served_loss)
            if has_changed and self._hastens:
                self.clock.hasten(self.n)
        return TrainingExample(
            self.n,
            self._watermark.ms,
            line_of(prediction.model),
            served_loss,
            features,
            label,
            is_repeat=example.correction is not None,
        )

    def is_refresh(self) -> bool:
        """Whether the example that was taken last is a refresh instant; asked once for each."""
        return self.clock.strikes(self.n, self._watermark.ms)

    def refreshed(self) -> None:
        """Begin the figures since the last refresh anew."""
        self._served_loss, self._served_scored, self.epoch_n = 0.0, 0, 0

    def dump(self) -> dict[str, Any]:
        """The state by name, as JSON can hold it."""
        return {
            "n": self.n,
            "watermark": self._watermark.dump(),
            "numbers": self._numbers.dump(),
            "offsets": self.offsets,
            "golden": list(self.golden),
            "served": [self._served_loss, self._served_scored, self.epoch_n],
            "clock": self.clock.dump(),
            "change": self._served_change.dump(),
            **({"gone": self.gone} if self.gone else {}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self.n, self.gone = state["n"], state.get("gone", 0)
        self._watermark.load(state["watermark"])
        self._numbers.load(state.get("numbers", []))
        first, last = state["offsets"]
        self.offsets = (first, last)
        self.golden.extend(state["golden"])
        self._served_loss, self._served_scored, self.epoch_n = state["served"]
        self.clock.load(state["clock"], self._watermark.ms)
        if "change" in state:  # a former release watched for none
            self._served_change.load(state["change"])


def mean(total: float, n: int) -> float | None:
    """The mean of losses; None of none.

    Losses may add up past what a float holds, where labels come near its largest.

    >>> mean(3.0, 2), mean(0.0, 0), mean(float("inf"), 2)
    (1.5, None, None)
    """
    return total / n if n and math.isfinite(total) else None
