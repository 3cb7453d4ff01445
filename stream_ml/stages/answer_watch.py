"""Answers that are broken by themselves, which is seen before any label: missing, or all alike.

Theory of operation. An answer that is no number, or out of its range, is none: the fallback is
served in its place, at once and event by event. Here that is told, and so is a champion that gives
one answer for ever where it used to vary. Join sees every prediction as it is made, before its
label, and what it holds is part of its state; predict's follows from the events alone. Nothing is
decided here: what serves is judged by its labels (`guard`).

A run of equal answers is told by what the line itself used to do. If c of its n answers before the
run were another than the one before, a run of k is as good as impossible where k c / n is 20
(e^-20, were they independent), and in no case shorter than 300, or than three times the longest
run so far. So a constant model, and a tree of one large leaf, are left in peace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.records import Answer, Output, Prediction
    from stream_ml.stages.alarms import Alarms

__all__ = ["AnswerWatch"]

BLOCK = 200
# The alarm of missing answers opens at one share of a block, and resolves at another.
MISSING_OPEN, MISSING_RESOLVED = 0.5, 0.1
RUN_MIN = 300
RUN_EXPECTED = 20
RUN_LONGEST = 3
CHANGES_MIN = 10
MISSING, CONSTANT = "answers_missing", "answers_constant"


class AnswerWatch:
    """The champion's own answers, one after the other.

    Args:
        alarms: of the stage.
    """

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._start("")

    def _start(self, line: str) -> None:
        self._line = line
        self._asked = self._missing = 0
        self._answers = self._changes = 0
        self._run = self._longest = 0
        self._last: Answer = None

    def add(self, prediction: Prediction, ts: int) -> list[Output]:
        """Take in a prediction: what is to be told.

        Args:
            prediction: the newest one.
            ts: the watermark of predictions.
        """
        outputs: list[Output] = []
        line = line_of(prediction.model)
        if line != self._line:
            outputs += self._resolve_all(f"{prediction.model} serves now", ts)
            self._start(line)
        if not version_of(prediction.model):
            return outputs  # it has learned nothing, and owes nothing
        answer = prediction.own_answer
        self._asked += 1
        if answer is None:
            self._missing += 1
        elif answer == self._last:
            self._run += 1
            if self._run >= RUN_MIN:
                outputs += self._judge_run(prediction, ts)
        else:
            outputs += self._end_run(answer, prediction, ts)
        if self._asked == BLOCK:
            outputs += self._end_block(prediction, ts)
        return outputs

    def _end_run(self, answer: Answer, prediction: Prediction, ts: int) -> list[Output]:
        outputs = []
        if self._alarms.is_open(CONSTANT, self._subject):
            message = f"the answers of {prediction.model} vary again"
            outputs += self._alarms.resolve(CONSTANT, self._subject, message, ts)
        elif self._changes:  # the first run is that of a model which has learned nothing yet
            self._longest = max(self._longest, self._run)
            self._answers += self._run
        self._changes += self._last is not None
        self._last, self._run = answer, 1
        return outputs

    def _judge_run(self, prediction: Prediction, ts: int) -> list[Output]:
        usual = self._changes >= CHANGES_MIN and self._run >= RUN_LONGEST * self._longest
        if not usual or self._run * self._changes < RUN_EXPECTED * self._answers:
            return []
        message = (
            f"{prediction.model} has given one answer {self._run} times running; of "
            f"{self._answers} answers of its line before, {self._changes} were another than the "
            "one before"
        )
        details = {"run": self._run, "answer": self._last, "longest_before": self._longest}
        return self._alarms.open(CONSTANT, self._subject, message, ts, details)

    def _end_block(self, prediction: Prediction, ts: int) -> list[Output]:
        missing, self._asked, self._missing = self._missing, 0, 0
        details = {"missing": missing, "asked": BLOCK, "model": prediction.model}
        if missing >= MISSING_OPEN * BLOCK:
            message = (
                f"{prediction.model} had no answer for {missing} of {BLOCK} events: the fallback "
                "is served in its place"
            )
            return self._alarms.open(MISSING, self._subject, message, ts, details)
        if missing <= MISSING_RESOLVED * BLOCK:
            message = f"{prediction.model} had no answer for {missing} of {BLOCK} events"
            return self._alarms.resolve(MISSING, self._subject, message, ts, details)
        return []

    def _resolve_all(self, message: str, ts: int) -> list[Output]:
        return [
            output
            for kind in (MISSING, CONSTANT)
            for output in self._alarms.resolve(kind, self._subject, message, ts)
        ]

    @property
    def _subject(self) -> str:
        return f"line:{self._line}"

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [
            self._line,
            self._asked,
            self._missing,
            self._answers,
            self._changes,
            self._run,
            self._longest,
            self._last,
        ]

    def load(self, state: Sequence[Any]) -> None:
        """Take up a dumped state."""
        self._line, self._asked, self._missing, self._answers, *rest = state
        self._changes, self._run, self._longest, self._last = rest
