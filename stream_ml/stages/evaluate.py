"""Examples, snapshots and commands in, decisions out: the only writer of the registry.

It reads the registry too, for what it has not written there.

Theory of operation:

1. Scores come from the predictions that were made, never from predicting again (`scoreboard`).
2. Lines publish at the same instants, and are renewed at once: a set is written when every
   line's snapshot of that instant is there, so that what is compared has the same age (`refresh`).
3. A snapshot must be sound (signed, loadable, its golden predictions made again and finite), and
   the live learner of the champion's not have diverged (`evaluation.divergence`). A line whose
   snapshot is refused, or that published none, stays as it is, and all others are renewed.
4. A challenger replaces the champion on evidence (`evaluation.contest`) if no gate rejects it
   (`evaluation.gates`), or because an operator says so. What is promoted is the very snapshot that
   shadows at that moment; the old champion's line goes on in the winner's slot, and evidence
   starts anew.
5. The guard answers gross harm at once (`guard`). What was switched from goes on as `predecessor`
   until a block was judged; models younger than `promotion.first` are too young to return to.
   After an operator's rollback, and a return to `first`, nothing is refreshed until `resume` or the
   next replacement; after the guard's other ones the next refresh goes on.
6. A command is answered once, accepted or refused, by a decision that names it and whose key
   signed it (`operators`). `expect` must be what serves.
7. Decisions are numbered, each names the record before it by hash, and all are signed
   (`registry`).
8. Until the champion's line has settled (`evaluation.settling`), the declared fallback is served,
   or else the running prior, which a few decisions `settling` tell; `settled` ends that. A
   challenger that has not settled replaces nobody.
9. Challengers' snapshots that never served are kept `keep` deep and then given tombstones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import dead_letter, encode
from stream_ml.defaults import COMMAND_AGE_MS
from stream_ml.errors import BadRecord, SnapshotRefused, UsageError
from stream_ml.evaluation.contest import Contest
from stream_ml.evaluation.divergence import Divergence
from stream_ml.evaluation.gates import Gates, PromotionVerdict
from stream_ml.evaluation.scores import uniform_loss
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import (
    ModelRef,
    Output,
    ServingSet,
    line_of,
    version_of,
)
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.guard import FIRST, Guard
from stream_ml.stages.inputs import example_in, without_frames
from stream_ml.stages.loss_alarm import LossAlarm
from stream_ml.stages.monitor import Monitor, end_unwatched
from stream_ml.stages.numbering import Numbers
from stream_ml.stages.operators import CommandRefusal, Operators
from stream_ml.stages.positions import record_notice
from stream_ml.stages.refresh import Refresh
from stream_ml.stages.refusals import Refusals
from stream_ml.stages.registry import Registry, serving_after_promotion, serving_after_rollback
from stream_ml.stages.scoreboard import PREDECESSOR, Scoreboard
from stream_ml.stages.served_models import ServedModels
from stream_ml.stages.settling import Settlement
from stream_ml.stages.staleness import Staleness
from stream_ml.stages.state import (
    COMMAND_IDS,
    KEYLESS,
    MONITORS,
    SCORES,
    SERVED,
    split_by_prefix,
)
from stream_ml.stages.watermark import ExamplesWatermark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_ml.evaluation.contest import Comparison
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Command, Evaluation, Example, Prediction, Record
    from stream_ml.signing import Keyring
    from stream_ml.stages.guard import GuardAction
    from stream_ml.stages.operators import ReceivedCommand
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.refresh import Fault, Renewal
    from stream_ml.stages.task import StateEntry

__all__ = ["EVALUATE_EVERY", "Evaluate"]

EVALUATE_EVERY = 1_000
DAY_MS = 86_400_000


class Evaluate:
    """The evaluate stage of a pipeline.

    Args:
        pipeline: the declaration.
        keyring: its own key signs the registry and must have signed snapshots; the operators'
            keys must have signed their commands.
        log: the identity of the log that is written to, which every decision names, and every
            command that is to be carried out.
        command_age_ms: how far a command's time may be from its arrival on the log.
        in_order: whether all inputs are read in the order of event time, by one process.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        keyring: Keyring,
        log: str | None = None,
        *,
        command_age_ms: int = COMMAND_AGE_MS,
        in_order: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._key = keyring.pipeline_key
        self._slots = {PREDECESSOR, "first", *pipeline.recipes}
        self._scoreboard = Scoreboard(pipeline.target, pipeline.horizon_ms)
        self._refresh = Refresh(pipeline.recipes)
        self._registry = Registry(pipeline.name, keyring.pipeline_key, log)
        self._operators = Operators(pipeline.name, log, keyring, command_age_ms)
        self._contest = Contest(pipeline.rules)
        self._divergence = Divergence(
            pipeline.promotion.divergence, is_relative=pipeline.target.kind == "regression"
        )
        self._settling = Settlement(pipeline)
        self._numbers = Numbers()
        self._watermark = ExamplesWatermark(pipeline.horizon_ms, pipeline.events.breadth)
        self._n = 0
        self._is_paused = False
        # Lines whose snapshot serves on: for an operator with all others, after harm alone.
        self._frozen_line: str | None = None
        self._held_line: str | None = None
        self._alarms = Alarms("evaluate")
        self._staleness = Staleness(self._alarms)
        self._loss_alarm = LossAlarm(pipeline.target.kind, self._alarms)
        self._monitor = None
        self._unwatched: list[str] = []  # entries of monitors that are declared no more
        if pipeline.monitors is not None:
            self._monitor = Monitor(pipeline, self._alarms, in_order=in_order)
        self._guard = Guard(pipeline, self._alarms)
        self._served_models = ServedModels()
        self._gates = Gates(pipeline.promotion.coverage_min)
        self._uniform_loss = uniform_loss(pipeline.target.kind, len(pipeline.target.classes))
        self.counts = {"examples": 0, "refused": 0, "commands": 0, "commands_forgotten": 0}
        self.counts["examples_missing"] = 0
        self._inputs = {"examples": 0, "models": 0, "commands": 0}
        self._refusals = {
            topic: Refusals(self._alarms, topic)
            for topic in ("examples", "models", "commands", "registry", "summaries")
        }
        # The day of event time in which evaluations were written last.
        self._evaluated_day: int | None = None
        self._must_checkpoint = self._is_restored = False

    def start(self) -> list[Output]:
        """Nothing: the first decision follows from the lines' first snapshots."""
        return []

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in examples, snapshots or commands."""
        outputs = self._end_gone() if self._is_restored else []
        topic = records[0].topic
        folds = {
            "examples": self._example,
            "models": self._model,
            "commands": self._command,
            "registry": self._decision,
            "summaries": self._summary,
        }
        fold, is_counted, refusals = folds[topic], topic in self._inputs, self._refusals[topic]
        for part in refusals.parts(records):
            for number, record in enumerate(part):
                if is_counted:
                    self._inputs[topic] = record.offset + 1
                try:
                    fold(record, outputs)
                except BadRecord as error:
                    self.counts["refused"] += 1
                    outputs.append(dead_letter(record, "evaluate", without_frames(error)))
                    outputs += refusals.refuse(record, error, number + 1, self._watermark.ms)
            outputs += refusals.read(len(part), self._watermark.ms)
        self._must_checkpoint |= bool(outputs)
        return outputs

    def _end_gone(self) -> list[Output]:
        """After a start: end what nothing else could, for its cause is not declared any more."""
        self._is_restored = False
        ts, serving, outputs = self._watermark.ms, self._registry.serving, list[Output]()
        lines = [f"line:{line}" for line in self._pipeline.recipes]
        for kind in ("line_refused", "challenger_ready"):
            outputs += self._alarms.retain(kind, lines, "the line is not declared any more", ts)
        outputs += end_unwatched(self._monitor, self._alarms, ts)
        action = self._guard.stand_down(ts, outputs)
        if action is not None and serving is not None:
            self._obey(action, serving, outputs)
        return outputs

    # --- examples ------------------------------------------------------------------------------

    def _example(self, record: Record, outputs: list[Output]) -> None:
        example = example_in(record, self._pipeline)
        if isinstance(example, BadRecord):
            raise example
        partition = example.label_source.partition
        missing = self._numbers.take(partition, example.number)
        if missing:
            self._miss(example, missing, outputs)
        self._check_slots(example.prediction)
        self._n += 1
        self.counts["examples"] += 1
        watermark = self._watermark.advance(
            partition, example.prediction.event_id, example.label_ts, record.append_ms
        )
        baseline_answers = self._scoreboard.add(example, self._watermark.newest_ms)
        if self._monitor is not None:
            outputs += self._monitor.example(example, watermark, record.append_ms)
        if self._n % EVALUATE_EVERY == 0 or self._has_day_ended():
            outputs += self._evaluations()
        outputs += self._loss_alarm.add(example, watermark)
        if not self._settling.is_over:
            serving = self._registry.serving
            step = self._settling.add(example, self._n, baseline_answers, serving)
            if step is not None:
                outputs.append(
                    self._decide(step.kind, step.reason, step.serving, evidence=step.evidence)
                )
        self._judge(example, watermark, outputs)
        if self._refresh:
            self._give_up_on_stale(outputs)

    def _summary(self, record: Record, outputs: list[Output]) -> None:
        if self._monitor is None:
            return
        summary = self._monitor.parse(record)
        if isinstance(summary, BadRecord):
            raise summary
        outputs += self._monitor.summary(summary, record.append_ms)

    def _has_day_ended(self) -> bool:
        """Whether the watermark is in another day than when evaluations were last written.

        Of a pipeline with few labels, that is when its status moves.
        """
        if self._watermark.ms < 0:
            return False
        day = self._watermark.ms // DAY_MS
        if self._evaluated_day is None:
            self._evaluated_day = day
        return day > self._evaluated_day

    def _miss(self, example: Example, missing: int, outputs: list[Output]) -> None:
        """Count examples that were taken away before we read them, and tell a person."""
        self.counts["examples_missing"] += missing
        partition = example.label_source.partition
        outputs += self._alarms.once(
            "examples_missing",
            f"{missing} examples of join's partition {partition} are missing before number "
            f"{example.number}: they were removed before they were learned from and judged by",
            self._watermark.ms,
            {"partition": partition, "missing": missing, "number": example.number},
            f"examples-of-join-{partition}",
        )

    def _check_slots(self, prediction: Prediction) -> None:
        """Refuse an answer of who never was: each who answers is scored from then on."""
        if self._slots.issuperset(prediction.shadows):
            return
        for slot in prediction.shadows:
            if slot not in self._scoreboard and slot not in self._slots:
                raise BadRecord(
                    "malformed",
                    "$.shadows",
                    f"expected answers of {', '.join(sorted(self._slots))}, given one of {slot!r}",
                )

    def _judge(self, example: Example, watermark: int, outputs: list[Output]) -> None:
        serving = self._registry.serving
        if serving is None:
            return
        comparison = self._contest.add(example, watermark)
        action = None
        if comparison is not None:
            losses = self._scoreboard.baseline_losses
            self._hold_to_baselines(example.prediction, comparison, losses)
            action = self._guard.judge(example, comparison, losses, watermark, serving)
            if action is None and self._guard.has_judged:
                action = self._guard.answer(serving, self._watermark.ms, self._may_switch, outputs)
        if action is not None:
            self._obey(action, serving, outputs)
        elif self._contest.has_new_vote and not self._is_paused:
            self._replace_on_evidence(outputs)

    def _hold_to_baselines(
        self, prediction: Prediction, comparison: Comparison, losses: Mapping[str, float]
    ) -> None:
        """Hold every challenger that was asked against the baselines."""
        uniform = self._uniform_loss
        baseline_losses = losses if uniform is None else {**losses, "uniform": uniform}
        for line in self._contest.lines:
            shadow = prediction.shadows.get(line)
            loss = comparison.losses.get(line)
            if loss is not None or (shadow is not None and shadow.prediction is None):
                self._gates.add(line, loss, baseline_losses)

    def _verdict(self, line: str, figures: Mapping[str, Any]) -> PromotionVerdict:
        """Whether a challenger may be promoted now, and why."""
        rejection = self._gates.rejection(line)
        if rejection is not None:
            return PromotionVerdict("reject", rejection)
        if not self._is_alive(line) or line in self._settling:
            is_new = line in self._settling
            reason = "has not settled" if is_new else "publishes no more, or is behind other lines"
            return PromotionVerdict("hold", f"it {reason}")
        if self._contest.suffices(line):
            if self._is_paused:
                return PromotionVerdict("hold", "the pipeline is paused")
            by_hand = self._pipeline.promotion.mode != "automatic"
            return PromotionVerdict(
                "promote", "an operator may promote it" if by_hand else "it will be"
            )
        if figures["e_value"] < figures["needed"]:
            reason = f"E is {figures['e_value']:.3g} of {figures['needed']:.3g}"
            return PromotionVerdict("hold", reason)
        gain_min = self._pipeline.promotion.gain_min
        return PromotionVerdict("hold", f"its gain is not {gain_min} per example")

    def _case(self, line: str) -> dict[str, Any] | None:
        """The evidence for a challenger with the verdict on it; None for what is no challenger."""
        figures = self._contest.report(line)
        if figures is None:
            return None
        verdict = self._verdict(line, figures)
        return {**figures, "verdict": verdict.kind, "verdict_reason": verdict.reason}

    def _is_promotable(self, line: str) -> bool:
        is_able = self._is_alive(line) and line not in self._settling
        return is_able and self._gates.rejection(line) is None

    def _may_switch(self, line: str) -> bool:
        """Whether the guard may hand over to a challenger: nobody has kept that to themselves."""
        is_automatic = self._pipeline.promotion.mode == "automatic" and not self._is_paused
        return is_automatic and self._is_alive(line) and line not in self._settling

    def _obey(self, action: GuardAction, serving: ServingSet, outputs: list[Output]) -> None:
        """Do what the guard asks for, and say so."""
        champion, ts = serving.champion.model, self._watermark.ms
        if action.kind == "recover":
            self._guard.start()
            reason = f"guard: {action.reason}"
            outputs += self._alarms.resolve("gross_harm", _subject(champion), reason, ts)
            recovered = replace(serving, fallback=None)
            outputs.append(self._decide("recovered", reason, recovered))
            return
        # What the guard that stands says names the model itself.
        is_complete = action.reason.startswith(f"{champion} ")
        reason = f"guard: {action.reason}" if is_complete else f"guard: {champion} {action.reason}"
        outputs += self._alarms.once("guard", reason, ts, action.evidence, f"model:{champion}")
        if action.kind == "fall back":
            outputs += self._guard.fall_back(_subject(champion), reason, ts)
            fallen = replace(serving, fallback=self._pipeline.fallback)
            outputs.append(self._decide("fell_back", reason, fallen, evidence=action.evidence))
            return
        if action.kind == "switch":
            outputs.append(self._replace(action.target, reason, action.evidence, is_harm=True))
        else:
            target = serving.first if action.target == FIRST else serving.predecessor
            outputs.append(self._roll_back(reason, action.evidence, target=target))
            if action.target == FIRST:
                # What its line has learned since did harm: somebody has to look before it serves.
                self._held_line = self._registry.line
        outputs += self._after_switch()

    def _replace_on_evidence(self, outputs: list[Output]) -> None:
        serving, mode = self._registry.serving, self._pipeline.promotion.mode
        assert serving is not None, "there is evidence only for what shadows"
        winner = self._contest.winner(filter(self._is_promotable, serving.challengers))
        if winner is None or mode == "manual":
            return
        evidence = self._case(winner)
        reason = f"the evidence that {winner} is better suffices"
        if mode == "automatic":
            outputs.append(self._replace(winner, reason, evidence))
            outputs += self._after_switch()
        else:
            sentence = f"{reason}; `promote {winner}` would be accepted"
            outputs += self._alarms.open(
                "challenger_ready", f"line:{winner}", sentence, self._watermark.ms, evidence
            )

    def _is_alive(self, line: str) -> bool:
        """Whether a line can go on as champion: declared, and not behind the other lines."""
        # What shadows may still be of a line of that name that was taken out meanwhile.
        is_known = line in self._pipeline.recipes and line in self._contest.lines
        return is_known and self._refresh.keeps_up(line)

    def _after_switch(self) -> list[Output]:
        """What is to be written when another model serves: what spoke for others is void."""
        serving = self._registry.serving
        champion = None if serving is None else serving.champion.model
        resolved = [
            output
            for kind in ("challenger_ready", "gross_harm")
            for output in self._alarms.resolve_group(
                kind,
                self._alarms.subjects(kind),
                f"{champion} serves now, and evidence starts anew",
                self._watermark.ms,
            )
        ]
        return [*self._evaluations(), *resolved]

    def _evaluations(self) -> list[Output]:
        """How every model stands, to be written: now and then, and when another line may serve.

        Else what spoke for the champion while it challenged would be the last that is known.
        """
        if self._watermark.ms >= 0:
            self._evaluated_day = self._watermark.ms // DAY_MS
        return [
            Output("evaluations", evaluation.model.encode(), encode(evaluation), evaluation)
            for evaluation in self.report()
        ]

    def report(self) -> list[Evaluation]:
        """How every model stands now, the served one first."""
        return self._scoreboard.evaluations(self._watermark.ms, self._case)

    # --- snapshots -----------------------------------------------------------------------------

    def _model(self, record: Record, outputs: list[Output]) -> None:
        if record.value is None:
            self._refresh.tombstone((record.key or b"").decode(errors="replace"))
            return
        snapshot: Snapshot = record.memo or decode(record.value)
        name = snapshot.name
        if name not in self._pipeline.recipes:
            lines = ", ".join(self._pipeline.recipes)
            raise BadRecord("unknown_line", "$.model", f"expected one of {lines}, given {name!r}")
        self._registry.check_log(snapshot.log)
        try:
            snapshot.verify(self._key)
        except SnapshotRefused as refusal:
            raise BadRecord(f"snapshot_{refusal.reason}", "$", str(refusal)) from None
        self._refresh.check(snapshot)
        flaw = self._flaw(snapshot)
        if snapshot.parent is None and self._refresh.newest(name) >= 0:
            # It started anew: what spoke for its namesake must not speak for it.
            self._contest.renew([line for line in self._contest.lines if line != name])
            self._gates.retain([line for line in self._pipeline.recipes if line != name])
            self._settling.restart(name)
        ref = ModelRef(snapshot.model, snapshot.digest, record.offset)
        if self._refresh.add(snapshot, ref, flaw):
            self._renew_if_complete(snapshot.version, outputs)

    def _flaw(self, snapshot: Snapshot) -> str | None:
        """Why a genuine snapshot should not serve."""
        p = self._pipeline
        try:
            open_snapshot(snapshot, p.target, self._key, p.feature_set.hash)
        except SnapshotRefused as refusal:
            return str(refusal)
        if snapshot.name != self._champion_line():
            return None
        if snapshot.parent is None:
            self._divergence.restart()
        diverged = self._divergence.judge(snapshot.epoch.get("excess"))
        return None if diverged is None else f"its learner has diverged: {diverged}"

    def _champion_line(self) -> str:
        return self._registry.line or self._pipeline.champion

    def _give_up_on_stale(self, outputs: list[Output]) -> None:
        version = self._refresh.overdue(self._n)
        if version is not None:
            self._renew_if_complete(version, outputs)

    def _renew_if_complete(self, version: int, outputs: list[Output]) -> None:
        arrivals = self._refresh.complete(version)
        if arrivals is None:
            return
        former = self._registry.serving
        # Else an operator has said that what serves shall stay.
        if not self._is_paused and self._frozen_line != self._champion_line():
            refs = {} if former is None else former.lines
            renewal = self._refresh.renewal(arrivals, refs)
            if self._held_line == self._champion_line() and self._held_line in refs:
                renewal.hold(self._held_line, refs[self._held_line])
            for line, fault in renewal.begun.items():
                self._tell_fault(line, fault, outputs)
            for line, fault in renewal.ended.items():
                outputs += self._alarms.resolve(
                    "line_refused",
                    f"line:{line}",
                    f"the line {line!r} is renewed again @{version}, after {fault.count} refreshes "
                    "without it",
                    self._watermark.ms,
                    {"refreshes": fault.count},
                )
            if former is not None:
                kept_models = [renewal.refs[line].model for line in renewal.kept]
                self._contest.refresh(version, kept_models)
            if len(renewal.refs) > len(renewal.kept) and self._champion_line() in renewal.refs:
                outputs.append(self._renew(version, renewal))
        self._drop_unserved(outputs)
        serving = self._registry.serving
        if serving is not None:
            reason = self._stay_reason()
            outputs += self._staleness.refresh(version, serving, reason, self._watermark.ms)

    def _stay_reason(self) -> str:
        """Why what serves is not renewed before a person says so; empty where it is."""
        if self._is_paused:
            return "an operator has paused, until `resume`"
        if self._frozen_line == self._champion_line():
            return "an operator has rolled back to it, until `resume` or the next replacement"
        if self._held_line == self._champion_line():
            return (
                "the guard has rolled back to it, for the harm that its line did, until `resume` "
                "or the next replacement"
            )
        return ""

    def _tell_fault(self, line: str, fault: Fault, outputs: list[Output]) -> None:
        """Say that a line is not renewed any more, once; `_renew` says that it is again."""
        serving = self._registry.serving
        is_champion = line == self._champion_line()
        if serving is None or (fault.is_silence and not is_champion):
            return  # learn has said why it publishes no more, and nothing hangs on it
        ref = serving.lines.get(line)
        stays = "" if ref is None else f"; {ref.model} stays, and other lines are renewed"
        way_out = "; promote a challenger to go on" if is_champion else ""
        reason = f"{line}@{fault.version} refused: {fault.reason}{stays}{way_out}"
        outputs += self._alarms.open(
            "line_refused",
            f"line:{line}",
            reason,
            self._watermark.ms,
            {"version": fault.version, "stays": None if ref is None else ref.model},
        )
        outputs.append(self._decide("refused", reason, serving))

    def _renew(self, version: int, renewal: Renewal) -> Output:
        """The decision that renews all lines that can be; the champion may not be one of them."""
        former, line, refs = self._registry.serving, self._champion_line(), dict(renewal.refs)
        champion = refs.pop(line)
        reason = renewal.reason(version, len(self._pipeline.recipes))
        if former is None:
            first = champion if version >= self._pipeline.promotion.first else None
            self._refresh.serves(line, champion.model)
            self._contest.start(champion.model, refs)
            serving = self._settling.cover(ServingSet(champion, refs, None, first))
            return self._decide("bootstrap", reason, serving)
        self._contest.renew(refs)
        serving = replace(former, champion=champion, challengers=refs)
        if line not in renewal.kept:
            self._refresh.serves(line, champion.model)
            if line in self._settling and former.fallback is None:  # it has started anew
                serving = self._settling.cover(serving)
            if former.first is None and version >= self._pipeline.promotion.first:
                serving = replace(serving, first=champion)
            if not self._guard.watching:
                serving = replace(serving, predecessor=former.champion)
                is_mature = version_of(former.champion.model) >= self._pipeline.promotion.first
                self._guard.watch(active=is_mature)
        return self._decide("refreshed", reason, serving)

    def _drop_unserved(self, outputs: list[Output]) -> None:
        serving = self._registry.serving
        # What shadows now is still needed: while nothing is renewed it grows old.
        needed_models = (
            set() if serving is None else {ref.model for ref in serving.challengers.values()}
        )
        dropped_models = self._refresh.drop_unserved(self._pipeline.keep, needed_models)
        outputs += [Output("models", model.encode(), None) for model in dropped_models]

    # --- commands ------------------------------------------------------------------------------

    def parse(self, record: Record) -> Command | BadRecord:
        """The command in `record`, or what is wrong with it; kept as the record's memo."""
        return self._operators.parse(record)

    def _command(self, record: Record, outputs: list[Output]) -> None:
        request = self._operators.receive(record)
        if request is None:
            return  # it was answered
        self.counts["commands"] += 1
        serving = self._registry.serving
        if serving is None:
            raise BadRecord("not_ready", "$", "nothing serves yet; send it again once it does")
        try:
            self._operators.check(request, serving)
            decision = self._carry_out(request, serving)
        except CommandRefusal as refusal:
            decision = self._decide(
                "refused",
                f"{request.command.kind} refused: {refusal}",
                serving,
                evidence=self._operators.figures(request),
                request=request,
            )
        self.counts["commands_forgotten"] += self._operators.remember(request)
        outputs.append(decision)
        if decision.memo.kind in {"replaced", "rolled_back"}:
            outputs += self._after_switch()

    def _carry_out(self, request: ReceivedCommand, serving: ServingSet) -> Output:
        command = request.command
        reason = command.reason
        if command.kind == "promote":
            line = self._promotable(command, serving)
            return self._replace(line, reason, self._case(line), request)
        if command.kind == "rollback":
            target = self._returnable(command, serving)
            return self._roll_back(reason, None, request, target=target)
        self._is_paused = command.kind == "pause"
        if not self._is_paused:
            self._frozen_line = self._held_line = None
        kind = "paused" if self._is_paused else "resumed"
        return self._decide(kind, reason, serving, request=request)

    def _returnable(self, command: Command, serving: ServingSet) -> ModelRef:
        """The snapshot that a rollback returns to, if there is one."""
        present, model = serving.champion.model, command.model
        if model is None:
            if serving.predecessor is None:
                raise CommandRefusal(
                    f"{present} has no predecessor to return to; name one that has served, as "
                    "`--to MODEL@VERSION`"
                )
            return serving.predecessor
        if model == present:
            raise CommandRefusal(f"{model} serves already")
        line, served = line_of(model), self._served_models.find(model)
        if line not in self._pipeline.recipes:
            lines = ", ".join(self._pipeline.recipes)
            raise CommandRefusal(
                f"expected name@version of a declared line ({lines}), given {model!r}"
            )
        if served is None:
            newest = ", ".join(self._served_models.newest(line, 5)) or "none"
            raise CommandRefusal(
                f"{model} has not served: of {line!r} served last {newest} (see `stream-ml audit "
                "log`)"
            )
        return served

    def _promotable(self, command: Command, serving: ServingSet) -> str:
        """The challenger that a command names, if it may be promoted."""
        model = command.model or ""
        for line, ref in serving.challengers.items():
            if model in {line, ref.model}:
                break
        else:
            shadows = ", ".join(ref.model for ref in serving.challengers.values()) or "none"
            raise CommandRefusal(
                f"expected a challenger that shadows now ({shadows}), given {model!r}"
            )
        if not self._is_alive(line):
            raise CommandRefusal(
                f"the line {line!r} publishes no more, or nothing sound: it could not be renewed"
            )
        if line in self._settling:
            raise CommandRefusal(
                f"the line {line!r} has not settled: it has learned too little, or does worse than "
                "the prior"
            )
        is_gated = self._pipeline.promotion.mode == "gated"
        rejection = self._gates.rejection(line)
        if is_gated and rejection is not None:
            raise CommandRefusal(f"{line} is rejected: {rejection} (the pipeline is gated)")
        if is_gated and not self._contest.suffices(line):
            report = self._contest.report(line) or {}
            raise CommandRefusal(
                f"the evidence for {line} does not suffice: E is {report['e_value']:.3g} of "
                f"{report['needed']:.3g}, from {report['wins']} blocks won and "
                f"{report['losses']} lost (the pipeline is gated)"
            )
        return line

    # --- decisions -----------------------------------------------------------------------------

    def _decision(self, record: Record, _: list[Output]) -> None:
        self._registry.check(record)

    def _replace(
        self,
        line: str,
        reason: str,
        evidence: dict[str, Any] | None,
        request: ReceivedCommand | None = None,
        *,
        is_harm: bool = False,
    ) -> Output:
        former = self._registry.serving
        assert former is not None, "nothing can be replaced before anything serves"
        serving = self._settling.cover(serving_after_promotion(former, line))
        self._refresh.serves(line, serving.champion.model)
        self._frozen_line = self._held_line = None
        self._contest.start(serving.champion.model, serving.challengers)
        self._divergence.restart()
        self._guard.start(line_of(former.champion.model) if is_harm else None)
        # What has lost two blocks running is not returned to for a single one.
        self._guard.watch(active=not is_harm)
        return self._decide("replaced", reason, serving, evidence=evidence, request=request)

    def _roll_back(
        self,
        reason: str,
        evidence: dict[str, Any] | None,
        request: ReceivedCommand | None = None,
        *,
        target: ModelRef | None = None,
    ) -> Output:
        former = self._registry.serving
        assert former is not None, "nothing can be rolled back before anything serves"
        serving = self._settling.cover(serving_after_rollback(former, target))
        champion, left = serving.champion.model, line_of(former.champion.model)
        line = line_of(champion)
        if line != left or version_of(champion) < self._contest.first_version:
            self._contest.start(champion, serving.challengers)
        self._divergence.restart()
        self._frozen_line, self._held_line = None if request is None else line, None
        self._guard.start(left if line != left else None)
        return self._decide("rolled_back", reason, serving, evidence=evidence, request=request)

    def _decide(
        self,
        kind: str,
        reason: str,
        serving: ServingSet,
        *,
        evidence: dict[str, Any] | None = None,
        request: ReceivedCommand | None = None,
    ) -> Output:
        self._served_models.add(serving.champion)
        return self._registry.decide(
            kind,
            reason,
            serving,
            ts=self._watermark.ms,
            inputs=self._inputs,
            evidence=evidence,
            request=request,
        )

    # --- state ---------------------------------------------------------------------------------

    def replay(self, records: Sequence[Record]) -> None:
        """As `apply`. On a cluster there is nothing to replay: every commit holds the state."""
        self.apply(records)

    def needs_checkpoint(self) -> bool:
        """Always: what is learned and judged depends on how the inputs alternated."""
        return True

    @property
    def sizes(self) -> dict[str, int]:
        """What memory is taken up by: instants that wait for lines, and commands answered."""
        return {
            "instants_waiting": len(self._refresh),
            "commands_answered": len(self._operators),
        }

    def note(self, notice: Notice) -> Output:
        """Take note of what befell an input."""
        self._must_checkpoint = True
        return record_notice(notice, self._alarms, self._watermark.ms, self.counts)

    def must_checkpoint(self) -> bool:
        """When something was written since: a decision must not be made twice."""
        return self._must_checkpoint

    def dirty(self) -> list[StateEntry]:
        """Everything but answered commands that did not change: scores by name, and the rest."""
        self._must_checkpoint = False
        keyless = {
            **self._scoreboard.dump(),
            **self._refresh.dump(),
            **self._registry.dump(),
            "watermark": self._watermark.dump(),
            "numbers": self._numbers.dump(),
            "n": self._n,
            "contest": self._contest.dump(),
            "divergence": self._divergence.dump(),
            "guard": self._guard.dump(),
            "gates": self._gates.dump(),
            "evaluated_day": self._evaluated_day,
            "settling": self._settling.dump(),
            "paused": self._is_paused,
            "frozen": self._frozen_line,
            "held_line": self._held_line,
            "alarms": self._alarms.dump(),
            "loss": self._loss_alarm.dump(),
            "refreshes": self._staleness.dump(),
            "counts": self.counts,
            "held": self.sizes,
            "inputs": self._inputs,
            "refusals": {topic: refusals.dump() for topic, refusals in self._refusals.items()},
        }
        monitors: list[tuple[str, bytes | None]] = [(name, None) for name in self._unwatched]
        self._unwatched = []
        if self._monitor is not None:
            keyless["monitors"] = self._monitor.dump()
            monitors = self._monitor.dirty()
        scores, answered = self._scoreboard.dump_scores(), self._operators.dirty()
        served = self._served_models.dirty()
        return [
            (KEYLESS, orjson.dumps(keyless)),
            *((f"{SCORES}{name}", orjson.dumps(state)) for name, state in scores.items()),
            *((f"{COMMAND_IDS}{name}", orjson.dumps(state)) for name, state in answered.items()),
            *((f"{MONITORS}{name}", value) for name, value in monitors),
            *((f"{SERVED}{line}", orjson.dumps(state)) for line, state in served.items()),
        ]

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state."""
        entries = split_by_prefix(pieces, SCORES, COMMAND_IDS, MONITORS, SERVED)
        ((_, value),) = entries[KEYLESS]
        keyless = orjson.loads(value)
        self._registry.load(keyless)
        if self._champion_line() not in self._pipeline.recipes:
            lines = ", ".join(self._pipeline.recipes)
            raise UsageError(
                f"the line {self._champion_line()!r} serves, but the declaration has only "
                f"{lines}: declare it, or promote another line before it is taken out"
            )
        self._scoreboard.load(
            keyless, {slot: orjson.loads(value) for slot, value in entries[SCORES]}
        )
        self._refresh.load(keyless)
        self._served_models.load((line, orjson.loads(value)) for line, value in entries[SERVED])
        # A former release kept no more than what serves.
        self._served_models.know(self._registry.serving)
        # A former release did not tell operators apart.
        former = keyless.get("answered")
        self._operators.load(
            ((operator, orjson.loads(value)) for operator, value in entries[COMMAND_IDS]), former
        )
        self._watermark.load(keyless["watermark"])
        self._numbers.load(keyless.get("numbers", []))
        self._n = keyless["n"]
        self._contest.load(keyless["contest"])
        self._guard.load(keyless.get("guard"), keyless["contest"])
        self._gates.load(keyless.get("gates", {}))
        self._gates.retain(list(self._pipeline.recipes))
        # What spoke for a line that is declared no more must not speak for another of its name.
        self._contest.renew(
            [line for line in self._contest.lines if line in self._pipeline.recipes]
        )
        self._settling.load(keyless.get("settling"))
        if "divergence" in keyless:
            self._divergence.load(keyless["divergence"])
        if self._monitor is not None:
            self._monitor.load(keyless.get("monitors", {}), dict(entries[MONITORS]))
        else:
            self._unwatched = [name for name, _ in entries[MONITORS]]
        self._is_paused, self._frozen_line = keyless["paused"], keyless["frozen"]
        self._held_line = keyless.get("held_line")
        self._evaluated_day = keyless.get("evaluated_day")
        self._alarms.load(keyless.get("alarms", ()))
        self._staleness.load(keyless.get("refreshes", ()))
        if "loss" in keyless:  # a former release watched none
            self._loss_alarm.load(keyless["loss"])
        if keyless.get("announced") is not None:  # in the state of a former release
            self._alarms.adopt(
                "challenger_ready", f"line:{keyless['announced']}", self._watermark.ms
            )
        self._inputs = keyless["inputs"]
        for topic, refusals in keyless.get("refusals", {}).items():
            self._refusals[topic].load(refusals)
        self.counts |= keyless.get("counts", {})
        self._is_restored = True


def _subject(model: str) -> str:
    """What an alert about a model's line is about."""
    return f"line:{line_of(model)}"
