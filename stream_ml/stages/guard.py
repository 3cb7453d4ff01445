"""The guard at work: with what that which serves is compared, and what is done about gross harm.

Theory of operation:

1. References are every challenger of equal age, the predecessor, the first model, the running
   baselines, the uniform answer, and the declared fallback. What serves is judged by the answer
   that was served, also where the champion had none; while the guard has it fall back, by the
   champion's own answers.
2. `switch` hands over to the best healthy challenger, else returns to the predecessor or, last, to
   the first model, whose line is then renewed no more until somebody resumes it. A challenger is
   taken only where nobody has kept promotions to themselves (`gated`, `manual`, paused).
   Where `ask` is declared the same is proposed to an operator, and not done.
3. `fall back` has the label's fallback served where what serves did harm against that very answer,
   until two whole blocks running show the champion no worse. Its own answers shadow meanwhile.
4. Where nothing of this can be done, or only an alert or a question is declared, an alert is open
   for as long as the harm is there: it resolves once two blocks running were over no reference.
5. Before the champion has learned `promotion.first` examples nothing is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stream_ml.evaluation.guard import LINE, StandingGuard, SuccessorGuard
from stream_ml.evaluation.scores import loss_of, uniform_loss
from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.evaluation.contest import Comparison
    from stream_ml.evaluation.guard import HarmFinding
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example, Output, ServingSet
    from stream_ml.stages.alarms import Alarms

__all__ = ["FIRST", "PREDECESSOR", "ComparedExample", "Guard", "GuardAction"]

PREDECESSOR = "predecessor"
FIRST = "first"
UNIFORM = "uniform"
FALLBACK = "fallback"
HARM = "gross_harm"


class ComparedExample(NamedTuple):
    """An example of the present reign, and what all lost on it.

    Attributes:
        example: the newest one.
        comparison: what the lines lost on it.
        baseline_losses: what each baseline lost on it.
        watermark_ms: of the examples, with it.
        serving: what serves now.
    """

    example: Example
    comparison: Comparison
    baseline_losses: Mapping[str, float]
    watermark_ms: int
    serving: ServingSet


@dataclass(frozen=True, slots=True)
class GuardAction:
    """What the guard has decided should be done.

    Attributes:
        kind: `roll back`, `switch`, `fall back` or `recover`.
        reason: for the decision.
        evidence: its figures.
        target: the line to switch to, or the role to roll back to: `predecessor` or `first`.
    """

    kind: Literal["roll back", "switch", "fall back", "recover"]
    reason: str
    evidence: dict[str, Any]
    target: str = ""


class Guard:
    """What serves against all that could serve in its place.

    Args:
        pipeline: the declaration.
        alarms: of the stage.

    Attributes:
        has_fallen_back: whether the fallback is served because of harm.
    """

    def __init__(self, pipeline: Pipeline, alarms: Alarms) -> None:
        self._promotion = pipeline.promotion
        self._bound = pipeline.rules.rollback_loss
        self._alarms = alarms
        self._loss = loss_of(pipeline.target.kind)
        self._fallback = pipeline.fallback
        self._is_fallback_declared = pipeline.label.fallback is not None
        self._uniform = uniform_loss(pipeline.target.kind, len(pipeline.target.classes))
        self._successor = SuccessorGuard(pipeline.rules)
        self._standing = StandingGuard(pipeline.rules, self._uniform)
        self.has_fallen_back = False

    def start(self, left: str | None = None) -> None:
        """Begin anew: another model serves.

        Args:
            left: the line that was left for its harm, if it was.
        """
        self._standing.start(left)
        self._successor.watch(active=False)
        self.has_fallen_back = False

    def watch(self, *, active: bool) -> None:
        """Watch what serves from now on against a predecessor, or watch no more."""
        self._successor.watch(active=active)

    @property
    def watching(self) -> bool:
        """Whether the predecessor is still needed."""
        return self._successor.watching

    def judge(self, compared: ComparedExample) -> GuardAction | None:
        """Take in an example of the present reign.

        Args:
            compared: the newest one, with what all lost on it.

        Returns:
            That the predecessor must serve again, if it must; for the rest see `answer`.
        """
        example, serving = compared.example, compared.serving
        predecessor = None if serving.predecessor is None else serving.predecessor.model
        own_loss = compared.comparison.own_loss
        harm = self._successor.add(example, own_loss, compared.watermark_ms, predecessor)
        if harm is not None:
            return GuardAction("roll back", harm.reason, harm.evidence, PREDECESSOR)
        self._compare(compared)
        return None

    @property
    def has_judged(self) -> bool:
        """Whether the last example closed a block that was judged, so that `answer` may act."""
        return self._standing.has_judged

    def _compare(self, compared: ComparedExample) -> None:
        example, comparison, serving = compared.example, compared.comparison, compared.serving
        prediction, label = example.prediction, example.label
        self._standing.has_judged = False
        is_settling = serving.fallback is not None and not self.has_fallen_back
        if is_settling or version_of(prediction.model) < self._promotion.first:
            return
        served_loss = comparison.own_loss
        if served_loss is None:
            served_loss = self._loss(label, prediction.prediction)
        if served_loss is None:
            return
        losses = {f"{LINE}{line}": loss for line, loss in comparison.losses.items()}
        models = {}
        for role, ref in ((PREDECESSOR, serving.predecessor), (FIRST, serving.first)):
            shadow = prediction.shadows.get(role)
            if ref is not None and shadow is not None and shadow.model == ref.model:
                loss = self._loss(label, shadow.prediction)
                if loss is not None:
                    losses[role], models[role] = loss, ref.model
        losses.update(compared.baseline_losses)
        if self._uniform is not None:
            losses[UNIFORM] = self._uniform
        if self._is_fallback_declared:
            loss = self._loss(label, self._fallback)
            if loss is not None:
                losses[FALLBACK] = loss
        self._standing.add(prediction.ts, served_loss, losses, compared.watermark_ms, models)

    def answer(
        self,
        serving: ServingSet,
        ts: int,
        may_switch: Callable[[str], bool],
        outputs: list[Output],
    ) -> GuardAction | None:
        """What to do, or to ask for, once a block was judged; alerts are added to the outputs.

        Args:
            serving: what serves now.
            ts: the watermark of the examples.
            may_switch: whether a challenger's line may be switched to.
            outputs: of the stage.
        """
        standing, promotion = self._standing, self._promotion
        standing.retain(self._references(serving))
        if self.has_fallen_back:
            return self._recovery(serving)
        findings = standing.findings()
        subject = f"{LINE}{line_of(serving.champion.model)}"
        if not findings:
            if standing.is_calm():
                message = f"{serving.champion.model} does no gross harm any more"
                outputs += self._alarms.resolve(HARM, subject, message, ts)
            return None
        if promotion.on_harm in {"switch", "ask"}:
            action = self._refuge(findings, serving, may_switch)
        elif promotion.on_harm == "fall back":
            action = self._fall_back(findings, serving)
        else:
            action = None
        if action is None or promotion.on_harm == "ask":
            message = self._sentence(findings[0], serving)
            details = {"findings": [finding.figures() for finding in findings]}
            outputs += self._alarms.open(HARM, subject, message, ts, details)
        return action

    def _references(self, serving: ServingSet) -> set[str]:
        """Those that there are now."""
        roles = [(PREDECESSOR, serving.predecessor), (FIRST, serving.first)]
        return {
            *(f"{LINE}{line}" for line in serving.challengers),
            *(role for role, ref in roles if ref is not None),
            *("prior", "mean", "last", UNIFORM, FALLBACK),
        }

    def _sentence(self, finding: HarmFinding, serving: ServingSet) -> str:
        reference = finding.reference
        name = self._model_of(reference, serving) or f"the answer {reference!r}"
        return (
            f"{serving.champion.model} lost {finding.excess:.4f} more than {name} per example in "
            f"{finding.blocks} guard blocks running, of {finding.pairs} examples; "
            f"{self._bound} is borne"
        )

    def _model_of(self, reference: str, serving: ServingSet) -> str | None:
        """The snapshot that a reference is now; None for a baseline."""
        if reference.startswith(LINE):
            ref = serving.challengers.get(reference.removeprefix(LINE))
        else:
            ref = {PREDECESSOR: serving.predecessor, FIRST: serving.first}.get(reference)
        return None if ref is None else ref.model

    def _refuge(
        self,
        findings: list[HarmFinding],
        serving: ServingSet,
        may_switch: Callable[[str], bool],
    ) -> GuardAction | None:
        """The best healthy model: a challenger before the predecessor, and that before `first`."""
        # The findings come with the greatest harm first; lines that go on learning go before.
        ranks = {PREDECESSOR: 1, FIRST: 2}
        for finding in sorted(findings, key=lambda each: ranks.get(each.reference, 0)):
            reference, model = finding.reference, self._model_of(finding.reference, serving)
            if model is None or not finding.is_healthy:
                continue
            line, is_role = line_of(model), reference in ranks
            is_other_line = line != line_of(serving.champion.model)
            if is_other_line and not self._standing.is_refuge(line):
                continue
            reason = self._sentence(finding, serving)
            if is_role and model != serving.champion.model:
                return GuardAction("roll back", reason, finding.figures(), reference)
            if not is_role and may_switch(line):
                return GuardAction("switch", reason, finding.figures(), line)
        return None

    def _fall_back(self, findings: list[HarmFinding], serving: ServingSet) -> GuardAction | None:
        for finding in findings:
            if finding.reference == self._fallback_reference:
                reason = f"{self._sentence(finding, serving)}; the fallback is served"
                return GuardAction("fall back", reason, finding.figures())
        return None

    @property
    def _fallback_reference(self) -> str:
        return FALLBACK if self._is_fallback_declared else UNIFORM

    def _recovery(self, serving: ServingSet) -> GuardAction | None:
        if not self._standing.is_calm(self._fallback_reference):
            return None
        reason = (
            f"{serving.champion.model} was no worse than the fallback, by more than is borne, in "
            "two guard blocks running"
        )
        return GuardAction("recover", reason, {})

    def fall_back(self, subject: str, message: str, ts: int) -> list[Output]:
        """Take note that the fallback serves, until the champion has recovered: an alert.

        Args:
            subject: of the alert.
            message: of the alert.
            ts: the watermark of the examples.
        """
        self._standing.start()
        self.has_fallen_back = True
        return self._alarms.open(HARM, subject, message, ts)

    def stand_down(self, ts: int, outputs: list[Output]) -> GuardAction | None:
        """After a start: end what no example could, for what it is judged by is not declared.

        Args:
            ts: the watermark of the examples.
            outputs: of the stage; that there is no alarm any more is added.

        Returns:
            That the champion must serve again, where the fallback does.
        """
        if self._bound is None:
            reason = "`rollback_loss` is not declared any more, so nothing is judged"
        elif self.has_fallen_back and self._fallback_reference == UNIFORM and self._uniform is None:
            reason = "`label.fallback` is not declared any more, so nothing is compared with it"
        else:
            return None
        if self.has_fallen_back:
            return GuardAction("recover", reason, {})
        outputs += self._alarms.resolve_group(HARM, self._alarms.subjects(HARM), reason, ts)
        return None

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "successor": self._successor.dump(),
            "standing": self._standing.dump(),
            "fallen_back": self.has_fallen_back,
        }

    def load(self, state: Mapping[str, Any] | None, former: Mapping[str, Any]) -> None:
        """Take up a dumped state.

        Args:
            state: what `dump` gave; None in the state of a former release.
            former: where such a release kept what it guarded.
        """
        if state is None:
            self._successor.load(former)
            return
        self._successor.load(state["successor"])
        self._standing.load(state["standing"])
        self.has_fallen_back = state["fallen_back"]
