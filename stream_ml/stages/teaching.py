"""Teaches a line's live learner examples, and holds it to its budget.

An example is answered by the learner before it is learned from (test, then train). The line that
serves is asked each time, the others now and then, for that loss guards against divergence alone.
Whatever the learner raises ends its own line, and so does taking longer than its budget, again and
again (`effort`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from stream_ml.errors import STOPS, brief_error
from stream_ml.models.fast import fast_learner, fast_live_predictor
from stream_ml.models.learner import Lesson, RemoteLearner
from stream_ml.models.target import valid_answer
from stream_ml.stages.lines import TrainingExample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.models.learner import Reply
    from stream_ml.models.target import Target
    from stream_ml.records import Answer
    from stream_ml.stages.effort import Stopwatch
    from stream_ml.stages.lines import LiveLine

__all__ = ["LIVE_LOSS_EVERY", "Failure", "Teaching"]

# Asking costs as much as half of learning, and what only informs need not be asked each time.
LIVE_LOSS_EVERY = 8

# The example at which a line failed, and why.
Failure = tuple[TrainingExample, str]


class Teaching:
    """Teaches the lines of a task.

    Args:
        target: the question.
        stopwatch: measures what lines take.
    """

    def __init__(self, target: Target, stopwatch: Stopwatch) -> None:
        self._target, self._stopwatch = target, stopwatch

    def teach(
        self,
        name: str,
        line: LiveLine,
        examples: Sequence[TrainingExample],
        *,
        is_late: bool,
        is_retrained: bool,
    ) -> Failure | None:
        """Teach a line all of `examples`; the one at which it failed, and why, if it did.

        Args:
            name: of the line.
            line: with its live learner.
            examples: in their order.
            is_late: whether it is being taught what was there before it was declared.
            is_retrained: whether its window has been given them already, and it learns nothing.
        """
        if not examples:
            return None
        if isinstance(line.learner, RemoteLearner):
            lessons = [
                Lesson(
                    example.features,
                    None if is_retrained else example.label,
                    (example.serves == name or example.n % LIVE_LOSS_EVERY == 0)
                    and not (is_late or example.is_repeat),
                )
                for example in examples
            ]
            return self._teach_remote(name, line, line.learner, examples, lessons)
        target, effort = self._target, line.effort
        line.payload = None
        stopwatch, budget_s = self._stopwatch, self._stopwatch.budget_s
        seconds = stopwatch.seconds
        example = examples[0]
        stopwatch.attend(name)
        start_s = last_s = seconds()
        answer_s, answers = 0.0, 0
        try:
            teach = _no_lesson if is_retrained else fast_learner(line.learner, target)
            predict = fast_live_predictor(line.learner, target)
            for example in examples:
                serves = example.serves == name
                # Of a latecomer no figure may tell since when it has been level.
                if (serves or example.n % LIVE_LOSS_EVERY == 0) and not (
                    is_late or example.is_repeat
                ):
                    line.score(predict, target, example, serves=serves)
                    answers += 1
                    taken_s = seconds() - last_s
                    answer_s += taken_s
                    if effort.answers_too_slowly(is_slow=taken_s > budget_s):
                        return example, _over_budget(taken_s, budget_s)
                teach(example.features, example.label)
                now_s = seconds()
                if now_s - last_s > budget_s and effort.is_too_slow(example.n):
                    return example, _over_budget(now_s - last_s, budget_s)
                last_s = now_s
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - an estimator may raise anything
            return example, f"learning failed: {brief_error(error)}"
        effort.answered(answer_s, answers)
        effort.learned(last_s - start_s - answer_s, len(examples))
        return None

    def _teach_remote(
        self,
        name: str,
        line: LiveLine,
        learner: RemoteLearner,
        examples: Sequence[TrainingExample],
        lessons: Sequence[Lesson],
    ) -> Failure | None:
        """As `teach`, where the learner is in another process: all of `examples` at once."""
        target, effort, stopwatch = self._target, line.effort, self._stopwatch
        line.payload = None
        budget_s = stopwatch.budget_s
        stopwatch.attend(name)
        replies = learner.lessons(lessons)
        example, answer_s, example_s = examples[0], 0.0, 0.0
        try:
            for example, lesson in zip(examples, lessons, strict=True):
                reply = next(replies)
                stopwatch.seconds()  # it gets on
                if lesson.is_asked:
                    serves = example.serves == name
                    line.score(partial(_answer_of, reply, target), target, example, serves=serves)
                    if effort.answers_too_slowly(is_slow=reply.answer_s > budget_s):
                        return example, _over_budget(reply.answer_s, budget_s)
                taken_s = reply.answer_s + reply.example_s
                if taken_s > budget_s and effort.is_too_slow(example.n):
                    return example, _over_budget(taken_s, budget_s)
                answer_s += reply.answer_s
                example_s += reply.example_s
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - an estimator may raise anything
            return example, f"learning failed: {brief_error(error)}"
        finally:
            replies.close()
        effort.answered(answer_s, sum(lesson.is_asked for lesson in lessons))
        effort.learned(example_s, len(examples))
        return None


def _no_lesson(_features: Any, _label: Any) -> None:
    """Teach nothing."""


def _answer_of(reply: Reply, target: Target, _: Mapping[str, float]) -> Answer:
    """The answer in a reply, or what was raised in its place."""
    if reply.error is not None:
        raise reply.error
    return valid_answer(reply.answer, target)


def _over_budget(taken_s: float, budget_s: float) -> str:
    """Why a line is quarantined that takes longer than it may."""
    return f"it takes {taken_s:.1f} s over an example, longer than its budget of {budget_s} s"
