"""How good every model is, from the predictions that were made.

Nothing is predicted again: scored are the served answers, each challenger's beside them, the
never-updated first model's, and baselines that know no more than was known then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.block_scores import ScoresByBlock
from stream_ml.evaluation.scores import Delays, Scores, loss_of, pair_name
from stream_ml.evaluation.slices import SliceNames
from stream_ml.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.models.recipes import Target
    from stream_ml.records import Answer, Correction, Example, LabelValue

__all__ = ["Scoreboard"]

# Where the scores of what was served stand, whichever line served.
SERVED_SLOT = "served"
PREDECESSOR = "predecessor"


class Scoreboard:
    """Scores by slot: `served`, each challenger's line, `first`, and each baseline.

    Args:
        target: the question, and its classes.
        horizon_ms: how long a label may take; a baseline knows no label sooner than we do.
        slices: those that scores are kept of.
        block_ms: the length of a block that scores are kept of as well; None: of none.
        corrections_ms: how long after its horizon a label may be corrected; None: none may.

    Attributes:
        baseline_losses: what each baseline that had an answer lost on the last example.
        slices: that the last example is in.
    """

    def __init__(
        self,
        target: Target,
        horizon_ms: int,
        slices: SliceNames | None = None,
        block_ms: int | None = None,
        corrections_ms: int | None = None,
    ) -> None:
        self._target = target
        self._is_revisable = corrections_ms is not None
        self._blocks: ScoresByBlock | None = None
        if block_ms is not None:
            self._blocks = ScoresByBlock(block_ms, target.kind, target.classes)
        self._scores: dict[str, Scores] = {}
        self._versions: dict[str, str] = {}
        self._baselines = Baselines(target.kind, target.classes, horizon_ms + (corrections_ms or 0))
        self._delays = Delays()
        self._pair_name = ""
        # The time of the last example's label, where its block is not the open one.
        self._elsewhere_ms: int | None = None
        self._loss = loss_of(target.kind)
        self.baseline_losses: dict[str, float] = {}
        self._slice_names = SliceNames((), {}) if slices is None else slices
        # By slot and slice.
        self._slice_scores: dict[str, dict[str, Scores]] = {}
        self.slices: list[str] = []

    def __contains__(self, slot: str) -> bool:
        return slot in self._scores

    def add(self, example: Example, newest_ms: int) -> dict[str, Answer]:
        """Score all answers of an example.

        Args:
            example: a prediction and its label.
            newest_ms: the newest time of a label so far, in ms.

        Returns:
            What the baselines answered, by name.
        """
        prediction, label = example.prediction, example.label
        self._delays.update(example.label_ts - prediction.ts)
        self._pair_name = pair_name(prediction.event_id) if self._is_revisable else ""
        self._elsewhere_ms = None
        if self._is_revisable and self._blocks is not None:
            is_open = self._blocks.is_open(example.label_ts)
            self._elsewhere_ms = None if is_open else example.label_ts
        ts = prediction.ts if self._is_revisable else None
        self.slices = self._slice_names.take(prediction.slices, ts) if prediction.slices else []
        served_answer = None if prediction.fallback else prediction.prediction
        self._score(SERVED_SLOT, prediction.model, label, served_answer)
        for slot, shadow in prediction.shadows.items():
            if slot != PREDECESSOR:
                self._score(slot, shadow.model, label, shadow.prediction)
        self.baseline_losses = {}
        baseline_answers = self._baselines.answers(prediction.ts)
        for name, answer in baseline_answers.items():
            self._score(name, name, label, answer)
            loss = self._loss(label, answer)
            if loss is not None:
                self.baseline_losses[name] = loss
        self._baselines.learn(label, example.label_ts, newest_ms)
        return baseline_answers

    def revise(self, example: Example, correction: Correction, newest_ms: int) -> list[str]:
        """Let the label of an example take the place of the one that it was scored by.

        Args:
            example: with the answers of all that shadowed.
            correction: what its label takes the place of.
            newest_ms: the newest time of a label so far, in ms.

        Returns:
            The slices that it is in.
        """
        prediction = example.prediction
        answers = {SERVED_SLOT: None if prediction.fallback else prediction.prediction}
        for slot, shadow in prediction.shadows.items():
            if slot != PREDECESSOR:
                answers[slot] = shadow.prediction
        answers |= self._baselines.answers(prediction.ts)
        slices: list[str] = []
        if prediction.slices:
            slices = self._slice_names.counted(prediction.slices, prediction.ts)
        for slot, answer in answers.items():
            if slot not in self._scores:
                continue
            self._revise(slot, self._scores[slot], example, correction, answer)
            parts = self._slice_scores.get(slot, {})
            for name in slices:
                if name in parts:
                    block = f"slice {name}" if slot == SERVED_SLOT else None
                    self._revise(block, parts[name], example, correction, answer)
        self._baselines.learn(example.label, example.label_ts, newest_ms, correction.label)
        return slices

    def _revise(
        self,
        name: str | None,
        scores: Scores,
        example: Example,
        correction: Correction,
        answer: Answer,
    ) -> None:
        """Correct scores, and those of the blocks that they are kept by under a name."""
        blocks = None if name is None else self._blocks
        before = [] if blocks is None else scores.totals()
        name_of_pair = pair_name(example.prediction.event_id)
        scores.revise(name_of_pair, correction.label, example.label, answer)
        if blocks is not None and name is not None:
            change = [b - a for a, b in zip(before, scores.totals(), strict=True)]
            blocks.book(name, change, correction.scored_ms)

    def end_block(self, watermark_ms: int) -> None:
        """End the block of scores that is over with an example, before that is scored.

        Args:
            watermark_ms: of the examples, with it.
        """
        if self._blocks is None or not self._blocks.is_over(watermark_ms):
            return
        slices = self._slice_scores.get(SERVED_SLOT, {})
        named = {f"slice {name}": scores for name, scores in slices.items()}
        self._blocks.close(watermark_ms, {**self._scores, **named})

    def _score(self, slot: str, version: str, label: LabelValue, answer: Answer) -> None:
        scores = self._scores.get(slot)
        if scores is None:
            scores = self._scores[slot] = self._new_scores()
        self._versions[slot] = version
        # What they come to, where the example is not of the open block.
        before = None if self._elsewhere_ms is None else scores.totals()
        if self._is_revisable:
            scores.update_of(self._pair_name, label, answer)
        else:
            scores.update(label, answer)
        if before is not None:
            self._book(slot, scores, before)
        for name in self.slices:
            parts = self._slice_scores.setdefault(slot, {})
            if name not in parts:
                parts[name] = self._new_part()
            is_elsewhere = slot == SERVED_SLOT and self._elsewhere_ms is not None
            before = parts[name].totals() if is_elsewhere else None
            parts[name].update(label, answer)
            if before is not None:
                self._book(f"slice {name}", parts[name], before)

    def _book(self, name: str, scores: Scores, before: list[float]) -> None:
        """Count what an example has added in the block of its label, which is not the open one."""
        assert self._blocks is not None, "an example is elsewhere only where blocks are kept"
        assert self._elsewhere_ms is not None, "scores of before are kept only then"
        change = [b - a for a, b in zip(before, scores.totals(), strict=True)]
        self._blocks.book(name, change, self._elsewhere_ms, is_new=True)

    def _new_scores(self) -> Scores:
        is_by_class = self._blocks is not None
        return Scores(
            self._target.kind,
            self._target.classes,
            by_class=is_by_class,
            revisable=self._is_revisable,
        )

    def _new_part(self) -> Scores:
        # Scores of the last thousand of each slice would be many times as much state.
        return Scores(self._target.kind, self._target.classes, window=1)

    def evaluations(
        self, ts: int, evidence: Callable[[str], dict[str, Any] | None]
    ) -> list[Evaluation]:
        """How every model stands, the served one first.

        Args:
            ts: the event time of the evaluations, in ms.
            evidence: the evidence for a slot, if it is a challenger's.
        """
        delays = self._delays.report()
        return [
            Evaluation(
                model=slot,
                version=self._versions[slot],
                ts=ts,
                n=scores.n,
                scores=scores.report(),
                coverage=scores.coverage,
                delay_ms=delays,
                evidence=evidence(slot),
                slices=self._slice_report(slot),
            )
            for slot, scores in self._scores.items()
        ]

    def counts_slice(self, name: str) -> bool:
        """Whether scores are kept of a slice.

        Args:
            name: of the slice.
        """
        return self._slice_names.is_counted(name)

    def _slice_report(self, slot: str) -> dict[str, Any] | None:
        parts = self._slice_scores.get(slot)
        if not parts:
            return None
        report = {}
        for name, scores in sorted(parts.items()):
            forms = scores.report()
            del forms["windowed"]
            report[name] = {"n": scores.n, "coverage": scores.coverage, "scores": forms}
        return report

    def dump(self) -> dict[str, Any]:
        """The state but the scores themselves, as JSON can hold it."""
        optional: dict[str, Any] = {}
        if self._slice_scores:
            optional["slice_names"] = self._slice_names.dump()
        if self._blocks is not None:
            optional["blocks"] = self._blocks.dump()
        return {
            **optional,
            "versions": self._versions,
            "baselines": self._baselines.dump(),
            "delays": self._delays.dump(),
        }

    def dump_scores(self) -> dict[str, Any]:
        """The scores by slot, as JSON can hold them."""
        dumped = {slot: scores.dump() for slot, scores in self._scores.items()}
        for slot, parts in self._slice_scores.items():
            dumped[slot]["slices"] = {name: scores.dump() for name, scores in sorted(parts.items())}
        return dumped

    def load(self, state: dict[str, Any], scores: dict[str, Any]) -> None:
        """Take up what `dump` and `dump_scores` gave.

        Args:
            state: what `dump` gave.
            scores: what `dump_scores` gave.
        """
        self._slice_names.load(state.get("slice_names", {}))
        if self._blocks is not None:
            self._blocks.load(state.get("blocks", {}))
        self._versions = state["versions"]
        for slot in self._versions:  # in the order in which they were first scored
            self._scores[slot] = self._new_scores()
            self._scores[slot].load(scores[slot])
            for name, part in scores[slot].get("slices", {}).items():
                # Those that are declared no more are left behind.
                if self._slice_names.is_counted(name):
                    parts = self._slice_scores.setdefault(slot, {})
                    parts[name] = self._new_part()
                    parts[name].load(part)
        self._baselines.load(state["baselines"])
        self._delays.load(state["delays"])
