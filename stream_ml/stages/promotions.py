"""Who serves by evidence, and by what the guard has seen.

A challenger replaces the champion on evidence (`evaluation.contest`) if no gate rejects it
(`evaluation.gates`). The guard answers gross harm at once (`stages.guard`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ml.evaluation.scores import uniform_loss
from stream_ml.records import line_of
from stream_ml.stages.guard import FIRST, ComparedExample
from stream_ml.stages.proposals import HARM, READY, Proposal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.evaluation.contest import Comparison
    from stream_ml.records import Example, Output, Prediction, ServingSet
    from stream_ml.stages.decisions import Decisions
    from stream_ml.stages.guard import GuardAction

__all__ = ["Promotions"]


class Promotions:
    """What follows from each example for who serves.

    Args:
        decisions: what serves, and the evidence.
    """

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        target = decisions.pipeline.target
        self._uniform_loss = uniform_loss(target.kind, len(target.classes))

    def judge(self, example: Example, watermark: int, outputs: list[Output]) -> None:
        """Take in an example; what is decided is added to the outputs.

        Args:
            example: the newest one.
            watermark: of the examples, with it.
            outputs: of the stage.
        """
        decisions = self._decisions
        serving = decisions.registry.serving
        if serving is None:
            return
        comparison = decisions.contest.add(example, watermark, decisions.scoreboard.slices)
        action = None
        if comparison is not None:
            losses = decisions.scoreboard.baseline_losses
            self._hold_to_baselines(example.prediction, comparison, losses)
            action = decisions.guard.judge(
                ComparedExample(example, comparison, losses, watermark, serving)
            )
            if action is None and decisions.guard.has_judged:
                action = self._answer(serving, outputs)
        if action is not None:
            self.obey(action, serving, outputs)
        elif decisions.contest.has_new_vote and not decisions.promotions_stop:
            self._replace_on_evidence(outputs)

    def _answer(self, serving: ServingSet, outputs: list[Output]) -> GuardAction | None:
        """The guard's answer to a block that it has judged; what is only asked for is none."""
        decisions, ts = self._decisions, self._decisions.watermark.ms
        if decisions.pipeline.promotion.on_harm != "ask":
            return decisions.guard.answer(serving, ts, self._may_switch, outputs)
        action = decisions.guard.answer(serving, ts, self._is_healthy, outputs)
        champion = serving.champion.model
        if action is not None and action.kind in {"switch", "roll back"}:
            self._ask(action, serving, outputs)
            return None
        if not decisions.alarms.is_open(HARM, _subject(champion)):
            outputs += decisions.lapse(HARM, f"{champion} does no gross harm any more")
        return action

    def _ask(self, action: GuardAction, serving: ServingSet, outputs: list[Output]) -> None:
        """Propose to an operator what the guard would do."""
        decisions, expect = self._decisions, line_of(serving.champion.model)
        if action.kind == "switch":
            proposal = Proposal("promote", action.target, expect, HARM)
        else:
            ref = serving.first if action.target == FIRST else serving.predecessor
            assert ref is not None, "the guard returns to what there is"
            proposal = Proposal("rollback", ref.model, expect, HARM)
        outputs += decisions.lapse(READY, "the guard asks for more")
        former = decisions.proposal
        if former is not None and former != proposal:
            places = [(each.command, each.line, each.expect) for each in (former, proposal)]
            if proposal.command == "rollback" and places[0] == places[1]:
                return  # another snapshot of the line that was asked for: that question stands
            outputs += decisions.lapse(HARM, f"the guard asks for {proposal.model} in its place")
        outputs += decisions.propose(proposal, f"guard: {action.reason}", action.evidence)

    def _hold_to_baselines(
        self, prediction: Prediction, comparison: Comparison, losses: Mapping[str, float]
    ) -> None:
        """Hold every challenger that was asked against the baselines."""
        decisions = self._decisions
        uniform = self._uniform_loss
        baseline_losses = losses if uniform is None else {**losses, "uniform": uniform}
        for line in decisions.contest.lines:
            shadow = prediction.shadows.get(line)
            loss = comparison.losses.get(line)
            if loss is not None or (shadow is not None and shadow.prediction is None):
                decisions.gates.add(line, loss, baseline_losses)

    def obey(self, action: GuardAction, serving: ServingSet, outputs: list[Output]) -> None:
        """Do what the guard asks for, and say so."""
        decisions = self._decisions
        champion, ts = serving.champion.model, decisions.watermark.ms
        if action.kind == "recover":
            decisions.guard.start()
            reason = f"guard: {action.reason}"
            outputs += decisions.alarms.resolve(HARM, _subject(champion), reason, ts)
            recovered = replace(serving, fallback=None)
            outputs.append(decisions.decide("recovered", reason, recovered))
            return
        # What the guard that stands says names the model itself.
        is_complete = action.reason.startswith(f"{champion} ")
        reason = f"guard: {action.reason}" if is_complete else f"guard: {champion} {action.reason}"
        outputs += decisions.alarms.once("guard", reason, ts, action.evidence, f"model:{champion}")
        if action.kind == "fall back":
            outputs += decisions.guard.fall_back(_subject(champion), reason, ts)
            fallen = replace(serving, fallback=decisions.pipeline.fallback)
            outputs.append(decisions.decide("fell_back", reason, fallen, evidence=action.evidence))
            return
        if action.kind == "switch":
            outputs.append(decisions.replace(action.target, reason, action.evidence, is_harm=True))
        else:
            target = serving.first if action.target == FIRST else serving.predecessor
            outputs.append(decisions.roll_back(reason, action.evidence, target=target))
            if action.target == FIRST:
                # What its line has learned since did harm: somebody has to look before it serves.
                decisions.held_line = decisions.registry.line
        outputs += decisions.after_switch()

    def _replace_on_evidence(self, outputs: list[Output]) -> None:
        decisions = self._decisions
        serving, mode = decisions.registry.serving, decisions.pipeline.promotion.mode
        assert serving is not None, "there is evidence only for what shadows"
        winner = decisions.contest.winner(filter(self._is_promotable, serving.challengers))
        former = decisions.proposal
        if former is not None and former.model != winner:
            outputs += decisions.lapse(READY, f"the evidence for {former.model} suffices no more")
        if winner is None or mode == "manual":
            return
        evidence = decisions.case(winner)
        reason = f"the evidence that {winner} is better suffices"
        if mode == "automatic":
            outputs.append(decisions.replace(winner, reason, evidence))
            outputs += decisions.after_switch()
        else:
            if mode == "ask" and decisions.proposal is None:
                expect = line_of(serving.champion.model)
                proposal = Proposal("promote", winner, expect, READY)
                outputs += decisions.propose(proposal, reason, evidence)
            sentence = f"{reason}; `promote {winner}` would be accepted"
            outputs += decisions.alarms.open(
                READY, f"line:{winner}", sentence, decisions.watermark.ms, evidence
            )

    def _is_promotable(self, line: str) -> bool:
        return self._is_healthy(line) and self._decisions.objection(line) is None

    def _may_switch(self, line: str) -> bool:
        """Whether the guard may hand over to a challenger: nobody has kept that to themselves."""
        decisions = self._decisions
        is_automatic = decisions.pipeline.promotion.mode == "automatic"
        return is_automatic and not decisions.promotions_stop and self._is_healthy(line)

    def _is_healthy(self, line: str) -> bool:
        """Whether a challenger's line could go on as champion."""
        decisions = self._decisions
        return decisions.is_alive(line) and line not in decisions.settling


def _subject(model: str) -> str:
    """What an alert about a model's line is about."""
    return f"line:{line_of(model)}"
