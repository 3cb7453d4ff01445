"""What serves, and all that bears on whether another model should.

One object that those who decide share: what evidence and the guard do by themselves (`promotions`),
what a refresh does (`renewals`), and what operators command (`commands`). Each changes what serves
by `decide`, `replace` or `roll_back` alone.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from stream_ml.codec import encode
from stream_ml.errors import UsageError
from stream_ml.evaluation.contest import Contest
from stream_ml.evaluation.divergence import Divergence
from stream_ml.evaluation.gates import Gates, PromotionVerdict
from stream_ml.evaluation.slices import SliceNames
from stream_ml.features.durations import DAY_MS
from stream_ml.generation import APPLIED, VERSIONS, generation_after
from stream_ml.records import Output, line_of, version_of
from stream_ml.stages.batches import BATCHED, batch_evidence
from stream_ml.stages.guard import Guard
from stream_ml.stages.plans import CHANGES
from stream_ml.stages.proposals import Proposal
from stream_ml.stages.refresh import Refresh
from stream_ml.stages.registry import Registry, serving_after_promotion, serving_after_rollback
from stream_ml.stages.restarts import RESTARTED, restart_evidence
from stream_ml.stages.scoreboard import Scoreboard
from stream_ml.stages.served_models import ServedModels
from stream_ml.stages.settling import Settlement
from stream_ml.stages.superseded import SupersededSets
from stream_ml.stages.suspension import Suspension

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Evaluation, ModelRef, ServingSet
    from stream_ml.stages.alarms import Alarms
    from stream_ml.stages.batches import LineBatch
    from stream_ml.stages.operators import ReceivedCommand
    from stream_ml.stages.plans import PlannedText
    from stream_ml.stages.watermark import ExamplesWatermark

__all__ = ["Decisions"]

# The member of the state with the versions of lines, and the generation that they are of.
LINE_VERSIONS = "line_versions"


class Decisions:
    """What serves, the evidence for and against it, and the way to change it.

    Args:
        pipeline: the declaration.
        key: signs the registry, and must have signed snapshots.
        log: the identity of the log that is written to, which every decision names.
        alarms: of the stage.
        watermark: of the examples.

    Attributes:
        inputs: by topic, the next offset to read, which every decision names.
        is_paused: whether an operator has paused.
        frozen_line: the line that an operator has rolled back to: nothing is renewed.
        held_line: the line that the guard has rolled back to, for its harm: all others are renewed.
        evaluated_day: the day of event time in which evaluations were written last.
        slow_lines: those that take too long to answer, and so cannot serve.
        suspension: whether promotions or refreshes stand still for a fault of the pipeline.
        proposal: what a person is asked to do, if anything.
        generation: that whoever starts now runs.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        key: bytes,
        log: str | None,
        alarms: Alarms,
        watermark: ExamplesWatermark,
    ) -> None:
        self.pipeline, self.key = pipeline, key
        self.alarms, self.watermark = alarms, watermark
        slices = SliceNames(pipeline.slicing.names, pipeline.slicing.tops)
        block_ms = None if pipeline.monitors is None else pipeline.monitors.block_ms
        label = pipeline.label
        self.scoreboard = Scoreboard(
            pipeline.target, pipeline.horizon_ms, slices, block_ms, label.revisable_ms
        )
        self.refresh = Refresh(pipeline.recipes, are_tasks=pipeline.learn_tasks == "line")
        self.registry = Registry(pipeline.name, key, log)
        self.contest = Contest(pipeline.rules, revisable=label.revisable_ms is not None)
        self.divergence = Divergence(
            pipeline.promotion.divergence, is_relative=pipeline.target.kind == "regression"
        )
        self.settling = Settlement(pipeline)
        self.guard = Guard(pipeline, alarms)
        self.gates = Gates(pipeline.promotion.coverage_min)
        self.served_models = ServedModels()
        self.generation = pipeline.generation
        self.slow_lines: Collection[str] = ()
        self.superseded = SupersededSets(
            pipeline.horizon_ms + pipeline.lateness_ms + label.corrections_ms
        )
        self.inputs = {"examples": 0, "models": 0, "commands": 0}
        self.is_paused = False
        self.frozen_line: str | None = None
        self.held_line: str | None = None
        self.evaluated_day: int | None = None
        self.suspension = Suspension(pipeline.promotion.on_fault, alarms)
        self.proposal: Proposal | None = None

    def decide(
        self,
        kind: str,
        reason: str,
        serving: ServingSet,
        *,
        evidence: dict[str, Any] | None = None,
        request: ReceivedCommand | None = None,
    ) -> Output:
        """Make the next decision. Arguments: see `Registry.decide`."""
        self.served_models.add(serving.champion)
        if self.registry.serving is not None:
            self.superseded.add(self.registry.serving, serving)
        return self.registry.decide(
            kind,
            reason,
            serving,
            ts=self.watermark.ms,
            inputs=self.inputs,
            evidence=evidence,
            request=request,
        )

    def replace(
        self,
        line: str,
        reason: str,
        evidence: dict[str, Any] | None,
        request: ReceivedCommand | None = None,
        *,
        is_harm: bool = False,
    ) -> Output:
        """Let a challenger's line serve in the champion's place.

        Args:
            line: the challenger's.
            reason: for the decision.
            evidence: the figures behind it.
            request: the command that is answered by it.
            is_harm: whether the champion is left for its harm.
        """
        former = self.registry.serving
        assert former is not None, "nothing can be replaced before anything serves"
        serving = self.settling.cover(serving_after_promotion(former, line))
        self.refresh.serves(line, serving.champion.model)
        self.frozen_line = self.held_line = None
        self.contest.start(serving.champion.model, serving.challengers)
        self.divergence.restart()
        self.guard.start(line_of(former.champion.model) if is_harm else None)
        # What has lost two blocks running is not returned to for a single one.
        self.guard.watch(active=not is_harm)
        return self.decide("replaced", reason, serving, evidence=evidence, request=request)

    def roll_back(
        self,
        reason: str,
        evidence: dict[str, Any] | None,
        request: ReceivedCommand | None = None,
        *,
        target: ModelRef | None = None,
    ) -> Output:
        """Let a snapshot serve again.

        Args:
            reason: for the decision.
            evidence: the figures behind it.
            request: the command that is answered by it.
            target: the snapshot; None: the predecessor, which there must be.
        """
        former = self.registry.serving
        assert former is not None, "nothing can be rolled back before anything serves"
        serving = self.settling.cover(serving_after_rollback(former, target))
        champion, left = serving.champion.model, line_of(former.champion.model)
        line = line_of(champion)
        if line != left or version_of(champion) < self.contest.first_version:
            self.contest.start(champion, serving.challengers)
        self.divergence.restart()
        self.frozen_line, self.held_line = None if request is None else line, None
        self.guard.start(left if line != left else None)
        return self.decide("rolled_back", reason, serving, evidence=evidence, request=request)

    def restart(
        self,
        line: str,
        reason: str,
        cause: Mapping[str, Any] | None = None,
        request: ReceivedCommand | None = None,
        *,
        model: str | None = None,
    ) -> Output:
        """Let a line learn anew; what of it serves, or shadows, stays until then.

        Args:
            line: which.
            reason: for the decision.
            cause: the kind, subject and figures of what it follows from, where nobody asks for it.
            request: the command that is answered by it.
            model: the snapshot that it goes on from, `name@version`; None: from nothing.
        """
        serving = self.registry.serving
        assert serving is not None, "nothing is started anew before anything serves"
        self.refresh.restart(line, is_asked=request is not None)
        evidence = restart_evidence(line, cause, model)
        return self.decide(RESTARTED, reason, serving, evidence=evidence, request=request)

    def batch(self, batch: LineBatch, reason: str, request: ReceivedCommand) -> Output:
        """Let a line fit so many examples at once, from its next snapshot on.

        Args:
            batch: of which line, and how many.
            reason: for the decision.
            request: the command that is answered by it.
        """
        serving = self.registry.serving
        assert serving is not None, "nobody is answered before anything serves"
        evidence = batch_evidence(batch)
        return self.decide(BATCHED, reason, serving, evidence=evidence, request=request)

    def apply(
        self, changes: Sequence[PlannedText], reason: str, request: ReceivedCommand
    ) -> Output:
        """Take a plan as decided: who starts under the changed declaration goes by it.

        Args:
            changes: all that differs from what runs.
            reason: for the decision.
            request: the command that is answered by it.
        """
        serving = self.registry.serving
        assert serving is not None, "nothing is applied before anything serves"
        running = self.pipeline.declaration()
        learned = {each.path: each.new or "" for each in changes if each.effect == "relearn"}
        versions = self.generation.versions_with(running, {**running, **learned})
        evidence = {CHANGES: [each._asdict() for each in changes], VERSIONS: versions}
        output = self.decide(APPLIED, reason, serving, evidence=evidence, request=request)
        self.generation = generation_after(self.generation, output.memo)
        return output

    def suspend(self, faults: Sequence[list[str]], outputs: list[Output]) -> None:
        """Let promotions and refreshes stand still, or go on, as faults begin and end.

        Args:
            faults: alert and subject of those that are there now, and of which no alarm is open.
            outputs: of the stage; a decision is added where that changes.
        """
        if self.registry.serving is None:
            return  # there is nothing yet that could stand still
        kind = self.suspension.step(faults)
        if kind is None:
            return
        evidence, causes = self.suspension.evidence(), self.suspension.causes
        if kind == "suspended":
            reason = f"{evidence['action']} while there is {causes}"
        else:
            reason = f"there is no fault any more; it was {causes}"
        outputs.append(self.decide(kind, reason, self.registry.serving, evidence=evidence))

    def propose(
        self, proposal: Proposal, reason: str, figures: Mapping[str, Any] | None
    ) -> list[Output]:
        """Ask a person for a change, once: the decision that says so.

        Args:
            proposal: what is asked for.
            reason: for the decision.
            figures: the evidence for it.
        """
        serving = self.registry.serving
        assert serving is not None, "nothing is proposed before anything serves"
        if self.proposal == proposal:
            return []
        self.proposal = proposal
        reason = f"{reason}; to carry it out: `{proposal.command_line}`"
        evidence = proposal.evidence(figures)
        return [self.decide("proposed", reason, serving, evidence=evidence)]

    def lapse(self, cause: str, reason: str) -> list[Output]:
        """Ask no more for what has this cause: the decision that says so, if it was asked for.

        Args:
            cause: of the proposal, the kind of alert that goes with it.
            reason: for the decision and the alert.
        """
        proposal, serving = self.proposal, self.registry.serving
        if proposal is None or proposal.cause != cause or serving is None:
            return []
        self.proposal = None
        evidence = proposal.evidence(None)
        outputs = [self.decide("lapsed", reason, serving, evidence=evidence)]
        subject = f"line:{proposal.model}"
        return outputs + self.alarms.resolve(cause, subject, reason, self.watermark.ms)

    def after_switch(self) -> list[Output]:
        """What is to be written when another model serves: what spoke for others is void.

        Harm by the line that serves is not over because an older snapshot of it serves: that a
        block shows which the guard has judged.
        """
        serving = self.registry.serving
        champion = None if serving is None else serving.champion.model
        reason = f"{champion} serves now, and evidence starts anew"
        own_subject = f"line:{self.champion_line()}"
        self.proposal = None  # it was carried out, or is void
        outputs = self.evaluations()
        for kind, lasting in (("challenger_ready", None), ("gross_harm", own_subject)):
            subjects = [each for each in self.alarms.subjects(kind) if each != lasting]
            outputs += self.alarms.resolve_group(kind, subjects, reason, self.watermark.ms)
        return outputs

    def evaluations(self) -> list[Output]:
        """How every model stands, to be written: now and then, and when another line may serve.

        Else what spoke for the champion while it challenged would be the last that is known.
        """
        if self.watermark.ms >= 0:
            self.evaluated_day = self.watermark.ms // DAY_MS
        return [
            Output("evaluations", evaluation.model.encode(), encode(evaluation), evaluation)
            for evaluation in self.report()
        ]

    def report(self) -> list[Evaluation]:
        """How every model stands now, the served one first."""
        return self.scoreboard.evaluations(self.watermark.ms, self.case)

    def has_day_ended(self) -> bool:
        """Whether the watermark is in another day than when evaluations were last written.

        Of a pipeline with few labels, that is when its status moves.
        """
        if self.watermark.ms < 0:
            return False
        day = self.watermark.ms // DAY_MS
        if self.evaluated_day is None:
            self.evaluated_day = day
        return day > self.evaluated_day

    def case(self, line: str) -> dict[str, Any] | None:
        """The evidence for a line with the verdict on it; None for one that challenges nobody."""
        figures = self.contest.report(line)
        if figures is None:
            return None
        verdict = self.verdict(line, figures)
        return {**figures, "verdict": verdict.kind, "verdict_reason": verdict.reason}

    def verdict(self, line: str, figures: Mapping[str, Any]) -> PromotionVerdict:
        """Whether a challenger may be promoted now, and why.

        Args:
            line: the challenger's.
            figures: the evidence for it, as `contest` reports it.
        """
        objection = self.objection(line)
        if objection is not None and (objection.kind == "reject" or self.contest.suffices(line)):
            return objection
        if not self.is_alive(line) or line in self.settling:
            is_new = line in self.settling
            reason = "has not settled" if is_new else "publishes no more, or is behind other lines"
            return PromotionVerdict("hold", f"it {reason}")
        if self.contest.suffices(line):
            if self.promotions_stop:
                return PromotionVerdict("hold", self.promotions_stop)
            by_hand = self.pipeline.promotion.mode != "automatic"
            return PromotionVerdict(
                "promote", "an operator may promote it" if by_hand else "it will be"
            )
        if figures["e_value"] < figures["needed"]:
            reason = f"E is {figures['e_value']:.3g} of {figures['needed']:.3g}"
            return PromotionVerdict("hold", reason)
        gain_min = self.pipeline.promotion.gain_min
        return PromotionVerdict("hold", f"its gain is not {gain_min} per example")

    @property
    def promotions_stop(self) -> str:
        """Why nothing is promoted by itself now; empty where nothing keeps it from being."""
        if self.is_paused:
            return "the pipeline is paused"
        if self.suspension.holds_promotions:
            return f"promotions are paused while there is {self.suspension.causes}"
        return ""

    def objection(self, line: str) -> PromotionVerdict | None:
        """What speaks against promoting a challenger, whatever the evidence; None: nothing does.

        Args:
            line: the challenger's.
        """
        rejection = self.gates.rejection(line)
        if rejection is not None:
            return PromotionVerdict("reject", rejection)
        doubt = self.contest.doubt(line)
        return None if doubt is None else PromotionVerdict(doubt.kind, doubt.reason)

    def is_alive(self, line: str) -> bool:
        """Whether a line can go on as champion: declared, not behind the others, nor too slow."""
        # What shadows may still be of a line of that name that was taken out meanwhile.
        is_known = line in self.pipeline.recipes and line in self.contest.lines
        is_slow = line in self.slow_lines
        return is_known and not is_slow and self.refresh.keeps_up(line)

    def is_known(self, line: str) -> bool:
        """Whether a line is declared, or a former version of one that is."""
        pipeline = self.pipeline
        return line in pipeline.recipes or self.generation.is_version(line, pipeline.models)

    def is_young(self, version: int) -> bool:
        """Whether the champion's line was started anew, and has learned too little to be renewed.

        Args:
            version: of the snapshot that it has published.
        """
        return self.refresh.is_young(self.champion_line(), version, self.pipeline.promotion.first)

    def champion_line(self) -> str:
        """The line that serves, or will first."""
        return self.registry.line or self.pipeline.champion

    def stay_reason(self) -> str:
        """Why what serves is not renewed before a person says so; empty where it is."""
        if self.is_paused:
            return "an operator has paused, until `resume`"
        if self.suspension.holds_refreshes:
            return f"refreshes are paused while there is {self.suspension.causes}"
        if self.frozen_line == self.champion_line():
            return "an operator has rolled back to it, until `resume` or the next replacement"
        return self._line_stay_reason()

    def _line_stay_reason(self) -> str:
        """Why the champion's line is not renewed while the others are; empty where it is."""
        if self.champion_line() not in self.pipeline.recipes:
            return "its line has another recipe now, whose version has to win first"
        if self.is_young(self.refresh.version):
            return (
                f"its line was started anew, and has not learned {self.pipeline.promotion.first} "
                "examples since"
            )
        if self.held_line == self.champion_line():
            return (
                "the guard has rolled back to it, for the harm that its line did, until `resume` "
                "or the next replacement"
            )
        return ""

    def dump(self) -> dict[str, Any]:
        """The state but the scores and what has served, as JSON can hold it."""
        return {
            **self.scoreboard.dump(),
            **self.refresh.dump(),
            **self.registry.dump(),
            "contest": self.contest.dump(),
            "divergence": self.divergence.dump(),
            "guard": self.guard.dump(),
            "gates": self.gates.dump(),
            "evaluated_day": self.evaluated_day,
            "settling": self.settling.dump(),
            "paused": self.is_paused,
            "frozen": self.frozen_line,
            "held_line": self.held_line,
            "superseded": self.superseded.dump(),
            "inputs": self.inputs,
            "suspension": self.suspension.dump(),
            "proposal": None if self.proposal is None else asdict(self.proposal),
            **self._dump_versions(),
        }

    def _dump_versions(self) -> dict[str, Any]:
        """The versions of lines, where there are any: who started before a plan has none of it."""
        generation = self.generation
        versions = {line: dict(names) for line, names in generation.versions.items()}
        return {LINE_VERSIONS: [generation.number, versions]} if versions else {}

    def _load_versions(self, number: int, versions: Mapping[str, Mapping[str, str]]) -> None:
        """Take up versions of lines that were dumped; a new generation begins without."""
        if number == self.generation.number:
            versions = {**self.generation.versions, **versions}
            self.generation = replace(self.generation, versions=versions)

    def load(self, state: dict[str, Any], scores: dict[str, Any], served: dict[str, Any]) -> None:
        """Take up a dumped state.

        Args:
            state: what `dump` gave.
            scores: by slot, what `Scoreboard.dump_scores` gave.
            served: by line, what `ServedModels.dirty` gave.

        Raises:
            UsageError: the line that serves is not declared any more.
        """
        self.registry.load(state)
        self._load_versions(*state.get(LINE_VERSIONS, (0, {})))
        recipes = self.pipeline.recipes
        if not self.is_known(self.champion_line()):
            raise UsageError(
                f"the line {self.champion_line()!r} serves, but the declaration has only "
                f"{', '.join(recipes)}: declare it, or promote another line before it is taken out"
            )
        self.scoreboard.load(state, scores)
        self.refresh.load(state, state["n"])
        self.served_models.load(served.items())
        # A former release kept no more than what serves.
        self.served_models.know(self.registry.serving)
        self.contest.load(state["contest"], self.scoreboard.counts_slice)
        self.guard.load(state.get("guard"), state["contest"])
        self.gates.load(state.get("gates", {}))
        self.gates.retain(list(recipes))
        # What spoke for a line that is declared no more must not speak for another of its name.
        self.contest.renew([line for line in self.contest.lines if line in recipes])
        self.settling.load(state.get("settling"))
        if "divergence" in state:
            self.divergence.load(state["divergence"])
        self.is_paused, self.frozen_line = state["paused"], state["frozen"]
        self.held_line = state.get("held_line")
        self.superseded.load(state.get("superseded", ()))
        self.evaluated_day = state.get("evaluated_day")
        self.inputs = state["inputs"]
        if "suspension" in state:  # a former release stood still for nothing
            self.suspension.load(state["suspension"])
        if state.get("proposal") is not None:
            self.proposal = Proposal(**state["proposal"])
