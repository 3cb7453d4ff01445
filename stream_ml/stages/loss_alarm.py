"""The alarm about the loss of what is served: open from a detection until it is as it was before.

The champion's own answers are watched, also where a fallback is served in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.changes import USUAL_AFTER, ServedLoss
from stream_ml.evaluation.scores import loss

if TYPE_CHECKING:
    from stream_ml.records import Example, Output
    from stream_ml.stages.alarms import Alarms

__all__ = ["LossAlarm"]

KIND = "loss_change"


class LossAlarm:
    """Opens and resolves the alert `loss_change` of a pipeline.

    Args:
        kind: of the task.
        alarms: the stage's.
    """

    def __init__(self, kind: str, alarms: Alarms) -> None:
        self._kind = kind
        self._alarms = alarms
        self._served = ServedLoss(kind)
        self._n = 0

    def add(self, example: Example, watermark_ms: int) -> list[Output]:
        """Take in an example; what is to be said.

        Args:
            example: the newest one.
            watermark_ms: of the examples.
        """
        self._n += 1
        answer = example.prediction.own_answer
        if answer is None:
            return []
        change = self._served.change
        was_high = change.is_high
        self._served.add(answer, loss(self._kind, example.label, answer))
        if was_high == change.is_high:
            return []
        if was_high:
            message = "the loss of what is served is as it was before"
            if change.age >= USUAL_AFTER:
                message = f"the loss of what is served has stayed for {change.age} labels as it is"
            return self._alarms.resolve(KIND, "", message, watermark_ms)
        return self._open(example, watermark_ms)

    def _open(self, example: Example, watermark_ms: int) -> list[Output]:
        figures = self._served.change.report()
        unit = " (errors as a share of themselves and the usual one)"
        message = (
            f"the loss of what is served has grown: {figures['loss']:.3f} over the last "
            f"{figures['labels']} labels against {figures['usual']:.3f} before"
            f"{unit if self._kind == 'regression' else ''}; {example.prediction.model} served last"
        )
        details = {
            **figures,
            "since_example": self._n - figures["labels"] + 1,
            "model": example.prediction.model,
            "event_id": example.prediction.event_id,
        }
        return self._alarms.open(KIND, "", message, watermark_ms, details)

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it; which alarms are open is the stage's to keep."""
        return [self._n, self._served.dump()]

    def load(self, state: list[Any]) -> None:
        """Take up a dumped state."""
        self._n, served = state
        self._served.load(served)
