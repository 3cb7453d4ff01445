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
        comparison = decisions.contest.add(example, watermark)
        action = None
        if comparison is not None:
            losses = decisions.scoreboard.baseline_losses
            self._hold_to_baselines(example.prediction, comparison, losses)
            action = decisions.guard.judge(
                ComparedExample(example, comparison, losses, watermark, serving)
            )
            if action is None and decisions.guard.has_judged:
                action = decisions.guard.answer(
                    serving, decisions.watermark.ms, self._may_switch, outputs
                )
        if action is not None:
            self.obey(action, serving, outputs)
        elif decisions.contest.has_new_vote and not decisions.is_paused:
            self._replace_on_evidence(outputs)

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
            outputs += decisions.alarms.resolve("gross_harm", _subject(champion), reason, ts)
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
        if winner is None or mode == "manual":
            return
        evidence = decisions.case(winner)
        reason = f"the evidence that {winner} is better suffices"
        if mode == "automatic":
            outputs.append(decisions.replace(winner, reason, evidence))
            outputs += decisions.after_switch()
        else:
            sentence = f"{reason}; `promote {winner}` would be accepted"
            outputs += decisions.alarms.open(
                "challenger_ready", f"line:{winner}", sentence, decisions.watermark.ms, evidence
            )

    def _is_promotable(self, line: str) -> bool:
        decisions = self._decisions
        is_able = decisions.is_alive(line) and line not in decisions.settling
        return is_able and decisions.gates.rejection(line) is None

    def _may_switch(self, line: str) -> bool:
        """Whether the guard may hand over to a challenger: nobody has kept that to themselves."""
        decisions = self._decisions
        is_automatic = decisions.pipeline.promotion.mode == "automatic" and not decisions.is_paused
        return is_automatic and decisions.is_alive(line) and line not in decisions.settling


def _subject(model: str) -> str:
    """What an alert about a model's line is about."""
    return f"line:{line_of(model)}"
