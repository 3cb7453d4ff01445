"""What is served until the champion's line has settled, and the decisions that say so.

Which lines have is `evaluation.settling`'s to say. Here is what follows from it: the fallback of
the serving set, which is the declared one, or else the running prior, told at few numbers of
labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.settling import Settling
from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Example, ServingSet

__all__ = ["Settlement", "SettlingStep"]


@dataclass(frozen=True, slots=True)
class SettlingStep:
    """A decision to make: `settled`, or `settling` where another prior is served."""

    kind: str
    reason: str
    serving: ServingSet
    evidence: dict[str, Any] | None = None


class Settlement:
    """The lines that have not settled, and what is served in the champion's place.

    Args:
        pipeline: the declaration.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        target = pipeline.target
        self._fallback: Answer = pipeline.fallback
        self._is_declared = pipeline.label.fallback is not None
        self._settling = Settling(target.kind, target.classes, pipeline.settle_labels)
        self._settling.begin(pipeline.recipes)

    def __contains__(self, line: str) -> bool:
        return line in self._settling

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow from another example."""
        return self._settling.is_over

    def restart(self, line: str) -> None:
        """Let a line begin anew, from nothing."""
        self._settling.restart(line)

    def cover(self, serving: ServingSet) -> ServingSet:
        """The set with a fallback in front of a champion whose line has not settled."""
        is_needed = line_of(serving.champion.model) in self._settling
        self._settling.serves_fallback = is_needed
        if not is_needed:
            return serving
        prior = None if self._is_declared else self._settling.prior
        return replace(serving, fallback=self._fallback if prior is None else prior)

    def add(
        self,
        example: Example,
        n: int,
        baseline_answers: Mapping[str, Answer],
        serving: ServingSet | None,
    ) -> SettlingStep | None:
        """Take in an example, which every line learns.

        Args:
            example: the newest one.
            n: its number, from 1.
            baseline_answers: what the baselines answered, by name.
            serving: what serves now.

        Returns:
            What is to be decided, if anything.
        """
        settling, prediction, label = self._settling, example.prediction, example.label
        settling.learn(label, n)
        prior = baseline_answers.get("prior", baseline_answers.get("mean"))
        answers = {slot: (each.model, each.prediction) for slot, each in prediction.shadows.items()}
        answers[line_of(prediction.model)] = prediction.model, prediction.own_answer
        figures = {
            line: settling.compare(line, version_of(model), label, answer, prior)
            for line, (model, answer) in answers.items()
            if line in settling
        }
        if serving is None or not settling.serves_fallback:
            return None
        line = line_of(serving.champion.model)
        if line not in settling:
            settling.serves_fallback = False
            reason = f"{line} has settled: its own answers are served from now on"
            return SettlingStep(
                "settled", reason, replace(serving, fallback=None), figures.get(line)
            )
        if not self._is_declared and settling.is_prior_due():
            reason = f"{line} has not settled: the prior of {n} labels is served"
            return SettlingStep("settling", reason, self.cover(serving))
        return None

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return self._settling.dump()

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Take up a dumped state; None of a former release, whose lines have served before."""
        self._settling.load(state)
