"""Examples, snapshots and commands in, decisions out: the only writer of the registry.

It reads the registry too, for what it has not written there.

Theory of operation:

1. Scores come from the predictions that were made, never from predicting again: the served one,
   each challenger's, the never-updated first model's, and baselines that know no more.
2. Lines publish at the same instants, and are renewed together: a set is written when every
   line's snapshot of that instant is there, so that what is compared has the same age. A line
   still missing `STALE_EXAMPLES` later is stale and is not waited for until it publishes again.
3. The champion's snapshot must be sound (signed, loadable, its golden predictions made again and
   finite) and its live learner not have diverged; if it is refused, none is renewed.
4. A challenger replaces the champion on evidence (`evaluation.contest`), or because an operator
   says so. What is promoted is the very snapshot that shadows at that moment; the old champion's
   line goes on in the winner's slot, and evidence starts anew.
5. What was switched from goes on as `predecessor` until the guard has judged a block, or finds
   harm and rolls back; models younger than `promotion.first` are too young to return to. After an
   operator's rollback nothing is refreshed until `resume` or the next replacement; after the
   guard's, the next refresh goes on.
6. A command is meant for one pipeline on one log, which it names; elsewhere it is a dead letter.
   There it is answered once, accepted or refused, by a decision that names it and whose key signed
   it; of an operator's command id that was answered nothing more is said, whatever other operators
   have called theirs. `expect` must be what serves. A command whose time and arrival on the log
   are further apart than `command_age_ms` is refused, and its id stays free for another: whoever
   kept it from the log, or sends an old one, must not use it up.
7. Decisions are numbered, each names the record before it by hash, and all are signed.
8. Challengers' snapshots that never served are kept `keep` deep and then given tombstones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.codec import (
    dead_letter,
    decode_command,
    decode_decision,
    encode,
    encode_decision,
    record_hash,
    serving_set,
)
from stream_ml.errors import BadRecord, SnapshotRefused, UsageError
from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.contest import Contest
from stream_ml.evaluation.scores import Delays, Scores
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import (
    Alert,
    Answer,
    Command,
    Decision,
    Evaluation,
    Example,
    LabelValue,
    ModelRef,
    Output,
    Prediction,
    ServingSet,
    line_of,
    version_of,
)
from stream_ml.signing import ROLES
from stream_ml.stages.answered import Answered
from stream_ml.stages.intake import example_in, parsed, without_frames
from stream_ml.stages.numbering import Numbers
from stream_ml.stages.positions import noted
from stream_ml.stages.refusals import Refusals
from stream_ml.stages.watermark import ExamplesWatermark

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ml.evaluation.contest import Harm
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.signing import Keyring
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.task import Piece

__all__ = ["COMMAND_AGE_MS", "EVALUATE_EVERY", "OUT_OF_TIME", "STALE_EXAMPLES", "Evaluate"]

EVALUATE_EVERY = 1_000
STALE_EXAMPLES = 1_000
# Fewer examples between two refreshes say nothing about divergence.
DIVERGENCE_EXAMPLES_MIN = 50
ACTOR = "evaluate"
# An operator's command ids are remembered so many deep; what is older than one forgotten is
# refused, for it may have been answered.
ANSWERED_MAX = 1_000
# In the evidence of what was refused for its time, what was allowed.
OUT_OF_TIME = "command_age_ms"
# How far a command's time may be from its arrival on the log, unless a setting says otherwise.
COMMAND_AGE_MS = 3_600_000
# Whose ids those are that were answered when operators were not told apart: no operator's name.
ANYBODY = ""
_NONE_ANSWERED = Answered()
# What the first decision names as the record before it.
NO_RECORD = "0" * 64


class _Refusal(Exception):  # noqa: N818 - as the decision that it becomes
    """Raised where a command cannot be carried out, with the reason to answer."""


class _Asked(NamedTuple):
    """A command, and when the log took it in."""

    command: Command
    received_ms: int


@dataclass(slots=True)
class _Arrival:
    """A line's snapshot of one instant; `flaw` is what speaks against it, if anything."""

    ref: ModelRef
    flaw: str | None


class Evaluate:
    """The evaluate stage of a pipeline.

    Args:
        pipeline: the declaration.
        keyring: its own key signs the registry and must have signed snapshots; the operators'
            keys must have signed their commands.
        log: the identity of the log that is written to, which every decision names, and every
            command that is to be carried out.
        command_age_ms: how far a command's time may be from its arrival on the log.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        keyring: Keyring,
        log: str | None = None,
        *,
        command_age_ms: int = COMMAND_AGE_MS,
    ) -> None:
        self._pipeline = pipeline
        self._log = log
        self._command_age_ms = command_age_ms
        self._keyring = keyring
        self._key = keyring.own
        task = pipeline.task
        self._scores: dict[str, Scores] = {}
        self._slots = {"predecessor", "first", *pipeline.recipes}
        self._versions: dict[str, str] = {}
        self._baselines = Baselines(task.kind, task.classes, pipeline.horizon_ms)
        self._delays = Delays()
        self._numbers = Numbers()
        self._watermark = ExamplesWatermark(pipeline.horizon_ms, pipeline.events.breadth)
        self._n = 0
        self._number = 0
        self._serving: ServingSet | None = None
        self._version = -1
        self._waiting: dict[int, dict[str, _Arrival]] = {}
        self._stale: set[str] = set()
        self._newest: dict[str, int] = {}
        self._unserved: dict[str, list[str]] = {name: [] for name in pipeline.recipes}
        self._contest = Contest(pipeline.rules)
        self._paused = False
        self._frozen: str | None = None
        self._announced: str | None = None
        # By operator, the command ids that were answered; and those that changed since written.
        self._answered: dict[str, Answered] = {}
        self._answered_anew: set[str] = set()
        self._registered = 0
        self.counts = {"examples": 0, "refused": 0, "commands": 0, "commands_forgotten": 0}
        self.counts["examples_missing"] = 0
        self._previous = NO_RECORD
        self._inputs = {"examples": 0, "models": 0, "commands": 0}
        self._refusals = {
            topic: Refusals("evaluate", topic)
            for topic in ("examples", "models", "commands", "registry")
        }
        self._must_checkpoint = False

    def start(self) -> list[Output]:
        """Nothing: the first decision follows from the lines' first snapshots."""
        return []

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in examples, snapshots or commands."""
        outputs: list[Output] = []
        topic = records[0].topic
        folds = {
            "examples": self._example,
            "models": self._model,
            "commands": self._command,
            "registry": self._registry,
        }
        fold, counted, refusals = folds[topic], topic in self._inputs, self._refusals[topic]
        for part in refusals.parts(records):
            for number, record in enumerate(part):
                if counted:
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

    # --- examples ------------------------------------------------------------------------------

    def _example(self, record: Record, outputs: list[Output]) -> None:
        example = example_in(record, self._pipeline)
        if isinstance(example, BadRecord):
            raise example
        prediction, label = example.prediction, example.label
        missing = self._numbers.take(example.label_source.partition, example.number)
        if missing:
            self._miss(example, missing, outputs)
        self._check_slots(prediction)
        self._n += 1
        self.counts["examples"] += 1
        watermark = self._watermark.advance(
            example.label_source.partition,
            prediction.event_id,
            example.label_ts,
            record.append_ms,
        )
        self._delays.update(example.label_ts - prediction.ts)
        served = None if prediction.fallback else prediction.prediction
        self._score("served", prediction.model, label, served)
        for slot, shadow in prediction.shadows.items():
            if slot != "predecessor":
                self._score(slot, shadow.model, label, shadow.prediction)
        for name, said in self._baselines.answers(prediction.ts).items():
            self._score(name, name, label, said)
        self._baselines.learn(label, example.label_ts, self._watermark.newest_ms)
        if self._n % EVALUATE_EVERY == 0:
            outputs += self._evaluations()
        self._judge(example, watermark, outputs)
        if self._waiting:
            self._give_up_on_stale(outputs)

    def _miss(self, example: Example, missing: int, outputs: list[Output]) -> None:
        """Count examples that were taken away before we read them, and tell a person."""
        self.counts["examples_missing"] += missing
        partition = example.label_source.partition
        alert = Alert(
            "examples_missing",
            self._watermark.ms,
            "evaluate",
            f"{missing} examples of join's partition {partition} are missing before number "
            f"{example.number}: they were removed before they were learned from and judged by",
            {"partition": partition, "missing": missing, "number": example.number},
        )
        outputs.append(Output("alerts", b"examples_missing", encode(alert), alert))

    def _check_slots(self, prediction: Prediction) -> None:
        """Refuse an answer of who never was: each who answers is scored from then on."""
        if self._slots.issuperset(prediction.shadows):
            return
        for slot in prediction.shadows:
            if slot not in self._scores and slot not in self._slots:
                raise BadRecord(
                    "malformed",
                    "$.shadows",
                    f"expected answers of {', '.join(sorted(self._slots))}, given one of {slot!r}",
                )

    def _judge(self, example: Example, watermark: int, outputs: list[Output]) -> None:
        serving = self._serving
        if serving is None:
            return
        predecessor = None if serving.predecessor is None else serving.predecessor.model
        harm = self._contest.add(example, watermark, predecessor)
        if harm is not None:
            self._guard_rolls_back(harm, serving, outputs)
        elif self._contest.voted and not self._paused:
            self._replace_on_evidence(outputs)

    def _replace_on_evidence(self, outputs: list[Output]) -> None:
        serving, mode = self._serving, self._pipeline.promotion.mode
        assert serving is not None, "there is evidence only for what shadows"
        winner = self._contest.winner(filter(self._lives, serving.challengers))
        if winner is None or mode == "manual":
            return
        evidence = self._contest.report(winner)
        reason = f"the evidence that {winner} is better suffices"
        if mode == "automatic":
            outputs.append(self._replace(winner, reason, evidence))
            outputs += self._evaluations()
        elif winner != self._announced:
            self._announced = winner
            said = f"{reason}; `promote {winner}` would be accepted"
            alert = Alert("challenger_ready", self._watermark.ms, "evaluate", said, evidence or {})
            outputs.append(Output("alerts", b"challenger_ready", encode(alert), alert))

    def _lives(self, line: str) -> bool:
        """Whether a line can go on as champion: declared, and not behind the other lines."""
        behind = any(line not in lines for lines in self._waiting.values())
        # What shadows may still be of a line of that name that was taken out meanwhile.
        known = line in self._pipeline.recipes and line in self._contest.lines
        return known and line not in self._stale and not behind

    def _guard_rolls_back(self, harm: Harm, serving: ServingSet, outputs: list[Output]) -> None:
        reason = f"guard: {serving.champion.model} {harm.reason}"
        alert = Alert("guard", self._watermark.ms, "evaluate", reason, harm.evidence)
        outputs.append(Output("alerts", b"guard", encode(alert), alert))
        outputs.append(self._roll_back(reason, harm.evidence))
        outputs += self._evaluations()

    def _score(self, name: str, version: str, label: LabelValue, said: Answer) -> None:
        scores = self._scores.get(name)
        if scores is None:
            task = self._pipeline.task
            scores = self._scores[name] = Scores(task.kind, task.classes)
        self._versions[name] = version
        scores.update(label, said)

    def _evaluations(self) -> list[Output]:
        """How every model stands, to be written: now and then, and when another line may serve.

        Else what spoke for the champion while it challenged would be the last that is known.
        """
        return [
            Output("evaluations", each.model.encode(), encode(each), each) for each in self.report()
        ]

    def report(self) -> list[Evaluation]:
        """How every model stands now, the served one first."""
        delays = self._delays.report()
        return [
            Evaluation(
                model=name,
                version=self._versions[name],
                ts=self._watermark.ms,
                n=scores.n,
                scores=scores.report(),
                coverage=scores.coverage,
                delay_ms=delays,
                evidence=self._contest.report(name),
            )
            for name, scores in self._scores.items()
        ]

    # --- snapshots -----------------------------------------------------------------------------

    def _model(self, record: Record, outputs: list[Output]) -> None:
        if record.value is None:
            return  # our own tombstone
        snapshot: Snapshot = record.memo or decode(record.value)
        name = snapshot.name
        if name not in self._pipeline.recipes:
            lines = ", ".join(self._pipeline.recipes)
            raise BadRecord("unknown_line", "$.name", f"expected one of {lines}, given {name!r}")
        self._check_log(snapshot.log)
        try:
            flaw = self._flaw(snapshot)
        except SnapshotRefused as refusal:
            raise BadRecord(f"snapshot_{refusal.reason}", "$", str(refusal)) from None
        newest = self._newest.get(name, -1)
        if snapshot.version <= newest:
            raise BadRecord(
                "repeated", "$.version", f"expected above {newest}, given {snapshot.version}"
            )
        if snapshot.parent is None and newest >= 0:
            # It started anew: what spoke for its namesake must not speak for it.
            self._contest.renew([line for line in self._contest.lines if line != name])
        self._newest[name] = snapshot.version
        ref = ModelRef(snapshot.model, snapshot.digest, record.offset)
        self._stale.discard(name)
        self._unserved[name].append(snapshot.model)
        if snapshot.version > self._version:
            self._waiting.setdefault(snapshot.version, {})[name] = _Arrival(ref, flaw)
            self._renew_if_complete(snapshot.version, outputs)

    def _flaw(self, snapshot: Snapshot) -> str | None:
        """Why the champion's snapshot should not serve; other lines' need only be genuine."""
        if snapshot.name != self._champion_line():
            snapshot.verify(self._key)
            return None
        p = self._pipeline
        snapshot.verify(self._key)
        try:
            open_snapshot(snapshot, p.task, self._key, p.feature_set.hash)
        except SnapshotRefused as refusal:
            return str(refusal)
        return self._divergence(snapshot.epoch)

    def _divergence(self, epoch: dict[str, Any]) -> str | None:
        live, served = epoch["live_loss"], epoch["served_loss"]
        if epoch["n"] < DIVERGENCE_EXAMPLES_MIN or live is None or served is None:
            return None
        bound = self._pipeline.promotion.divergence
        excess = live - served
        if self._pipeline.task.kind == "regression":
            excess /= served or 1.0
        if excess <= bound:
            return None
        return (
            f"its learner has diverged: loss {live:.4f} live against {served:.4f} served over the "
            f"same {epoch['n']} examples, more than {bound} worse"
        )

    def _champion_line(self) -> str:
        if self._serving is None:
            return self._pipeline.champion
        return line_of(self._serving.champion.model)

    def _give_up_on_stale(self, outputs: list[Output]) -> None:
        version = min(self._waiting)
        if self._n >= version + STALE_EXAMPLES:
            self._stale |= self._pipeline.recipes.keys() - self._waiting[version].keys()
            self._renew_if_complete(version, outputs)

    def _renew_if_complete(self, version: int, outputs: list[Output]) -> None:
        arrived = self._waiting[version]
        if not self._pipeline.recipes.keys() <= arrived.keys() | self._stale:
            return
        self._waiting = {v: lines for v, lines in self._waiting.items() if v > version}
        self._version = version
        line = self._champion_line()
        silent = f"the line {line!r} published nothing; promote a challenger to go on"
        flaw = arrived[line].flaw if line in arrived else silent
        if self._paused or self._frozen == line:
            pass  # an operator, or the guard, has said that what serves shall stay
        elif flaw is None:
            self._renew(version, {name: arrival.ref for name, arrival in arrived.items()}, outputs)
        elif self._serving is not None:
            reason = f"{line}@{version} refused, none is renewed: {flaw}"
            outputs.append(self._decide("refused", reason, self._serving))
        self._drop_unserved(outputs)

    def _renew(self, version: int, refs: dict[str, ModelRef], outputs: list[Output]) -> None:
        champion = refs.pop(self._champion_line())
        former = self._serving
        self._unserved[line_of(champion.model)].remove(champion.model)
        every = "all lines" if len(refs) + 1 == len(self._pipeline.recipes) else "some lines"
        reason = f"{every} published @{version}"
        first = champion if version >= self._pipeline.promotion.first else None
        if former is None:
            self._contest.start(champion.model, refs)
            serving = ServingSet(champion, refs, None, first)
            outputs.append(self._decide("bootstrap", reason, serving))
            return
        self._contest.renew(refs)
        predecessor = former.predecessor
        if not self._contest.watching:
            predecessor = former.champion
            grown = version_of(predecessor.model) >= self._pipeline.promotion.first
            self._contest.watch(on=grown)
        serving = ServingSet(champion, refs, predecessor, former.first or first)
        outputs.append(self._decide("refreshed", reason, serving))

    # --- commands ------------------------------------------------------------------------------

    def parse(self, record: Record) -> Command | BadRecord:
        """The command in `record`, or what is wrong with it; kept as the record's memo."""
        return parsed(record, lambda record: decode_command(record.value, self._keyring))

    def _command(self, record: Record, outputs: list[Output]) -> None:
        command = self.parse(record)
        if isinstance(command, BadRecord):
            raise command
        self._check_meant_here(command)
        asked = _Asked(command, record.append_ms)
        if self._was_answered(asked):
            return
        self.counts["commands"] += 1
        serving = self._serving
        if serving is None:
            raise BadRecord("not_ready", "$", "nothing serves yet; send it again once it does")
        try:
            self._check(asked, serving)
            decision = self._carry_out(asked, serving)
        except _Refusal as refusal:
            reason = f"{command.kind} refused: {refusal}"
            # Tells whoever asks that the id is free.
            figures = {OUT_OF_TIME: self._command_age_ms} if self._is_out_of_time(asked) else None
            decision = self._decide("refused", reason, serving, evidence=figures, asked=asked)
        self._remember(asked)
        outputs.append(decision)
        if decision.memo.kind in {"replaced", "rolled_back"}:
            outputs += self._evaluations()

    def _check_meant_here(self, command: Command) -> None:
        """Refuse what was signed for another place: who has seen it there could send it here."""
        for member, given, expected in (
            ("pipeline", command.pipeline, self._pipeline.name),
            ("log", command.log, self._log),
        ):
            if given != expected:
                way_out = (
                    "it was signed for another one: give it there"
                    if given is not None
                    else "commands of former releases could be sent again anywhere: give it anew, "
                    "with this release"
                )
                raise BadRecord(
                    "foreign_command",
                    f"$.{member}",
                    f"expected this {member}, {expected!r}, given {given!r}; {way_out}",
                )

    def _was_answered(self, asked: _Asked) -> bool:
        """Whether there is nothing more to say of it.

        Raises:
            BadRecord: it may have been answered, and is too old to be carried out anyway.
        """
        answered = self._answered.get(asked.command.operator, _NONE_ANSWERED)
        command_id = asked.command.command_id
        if command_id in answered or command_id in self._answered.get(ANYBODY, _NONE_ANSWERED):
            return True
        if _dated(asked.command) in answered:
            return True  # then it was out of its time, and stays refused
        if self._is_out_of_time(asked) and asked.command.ts <= answered.forgotten_ms:
            raise BadRecord("repeated", "$.ts", f"{self._out_of_time(asked)}; give it anew")
        return False

    def _is_out_of_time(self, asked: _Asked) -> bool:
        return abs(asked.received_ms - asked.command.ts) > self._command_age_ms

    def _out_of_time(self, asked: _Asked) -> str:
        return (
            f"expected at most {self._command_age_ms} ms between when it was given, "
            f"{asked.command.ts}, and when the log took it in, {asked.received_ms}"
        )

    def _remember(self, asked: _Asked) -> None:
        command = asked.command
        operator = command.operator
        answered = self._answered.setdefault(operator, Answered())
        command_id = _dated(command) if self._is_out_of_time(asked) else command.command_id
        answered.add(command_id, command.ts)
        self.counts["commands_forgotten"] += answered.keep(ANSWERED_MAX)
        self._answered_anew.add(operator)

    def _check(self, asked: _Asked, serving: ServingSet) -> None:
        command = asked.command
        if self._is_out_of_time(asked):
            raise _Refusal(f"{self._out_of_time(asked)}; is a clock wrong? Give it anew")
        forgotten_ms = self._answered.get(command.operator, _NONE_ANSWERED).forgotten_ms
        if command.ts <= forgotten_ms:
            raise _Refusal(
                f"it is of {command.ts}, and of commands up to {forgotten_ms} it is known "
                "no more which were answered; send it anew"
            )
        operator = self._keyring.operator(command.operator)
        role = "nobody" if operator is None else operator.role
        if command.kind not in ROLES.get(role, ()):
            raise _Refusal(f"{command.operator} is {role}, which may not {command.kind}")
        present = serving.champion.model
        if command.expect is None and command.kind in {"promote", "rollback"}:
            raise _Refusal(f"expected the present champion in `expect`; it is {present}")
        if command.expect is not None and command.expect not in {present, line_of(present)}:
            raise _Refusal(f"expected {command.expect} to serve, but {present} does")

    def _carry_out(self, asked: _Asked, serving: ServingSet) -> Output:
        command = asked.command
        why = command.reason
        if command.kind == "promote":
            line = self._promotable(command, serving)
            return self._replace(line, why, self._contest.report(line), asked)
        if command.kind == "rollback":
            if serving.predecessor is None:
                raise _Refusal(f"{serving.champion.model} has no predecessor to return to")
            return self._roll_back(why, None, asked)
        self._paused = command.kind == "pause"
        if not self._paused:
            self._frozen = None
        kind = "paused" if self._paused else "resumed"
        return self._decide(kind, why, serving, asked=asked)

    def _promotable(self, command: Command, serving: ServingSet) -> str:
        """The challenger that a command names, if it may be promoted."""
        given = command.model or ""
        for line, ref in serving.challengers.items():
            if given in {line, ref.model}:
                break
        else:
            shadows = ", ".join(ref.model for ref in serving.challengers.values()) or "none"
            raise _Refusal(f"expected a challenger that shadows now ({shadows}), given {given!r}")
        if not self._lives(line):
            raise _Refusal(f"the line {line!r} publishes no more: it could not be renewed")
        if self._pipeline.promotion.mode == "gated" and not self._contest.suffices(line):
            report = self._contest.report(line) or {}
            raise _Refusal(
                f"the evidence for {line} does not suffice: E is {report['e_value']:.3g} of "
                f"{report['needed']:.3g}, from {report['wins']} blocks won and "
                f"{report['losses']} lost (the pipeline is gated)"
            )
        return line

    # --- the registry --------------------------------------------------------------------------

    def _registry(self, record: Record, _: list[Output]) -> None:
        """Look over what lies where this stage alone writes; nobody else refuses a forgery."""
        decision: Decision = record.memo or decode_decision(record.value, self._key)
        self._check_log(decision.log)
        if decision.number < self._registered:
            raise BadRecord(
                "repeated", "$.number", f"expected {self._registered}, given {decision.number}"
            )
        self._registered = decision.number + 1

    def _check_log(self, log: str | None) -> None:
        """Refuse what was signed for another log; what a former release signed names none."""
        if None not in (log, self._log) and log != self._log:
            raise BadRecord(
                "foreign_log",
                "$.log",
                f"expected {self._log}, which is this log, given {log}: it is genuine, and was "
                "written to another one",
            )

    # --- switches ------------------------------------------------------------------------------

    def _replace(
        self,
        line: str,
        reason: str,
        evidence: dict[str, Any] | None,
        asked: _Asked | None = None,
    ) -> Output:
        former = self._serving
        assert former is not None, "nothing can be replaced before anything serves"
        challengers = {
            line_of(former.champion.model) if name == line else name: (
                former.champion if name == line else ref
            )
            for name, ref in former.challengers.items()
        }
        champion = former.challengers[line]
        if champion.model in self._unserved[line]:
            self._unserved[line].remove(champion.model)
        self._frozen = self._announced = None
        self._contest.start(champion.model, challengers)
        self._contest.watch(on=True)
        serving = ServingSet(champion, challengers, former.champion, former.first)
        return self._decide("replaced", reason, serving, evidence=evidence, asked=asked)

    def _roll_back(
        self, reason: str, evidence: dict[str, Any] | None, asked: _Asked | None = None
    ) -> Output:
        former = self._serving
        assert former is not None, "nothing can be rolled back before anything serves"
        assert former.predecessor is not None, "a rollback returns to a predecessor"
        bad, champion = former.champion, former.predecessor
        line, challengers = line_of(champion.model), former.challengers
        if line != line_of(bad.model):
            challengers = {
                line_of(bad.model) if name == line else name: bad if name == line else ref
                for name, ref in challengers.items()
            }
            self._contest.start(champion.model, challengers)
        self._frozen = None if asked is None else line
        self._contest.watch(on=False)
        serving = ServingSet(champion, challengers, None, former.first)
        return self._decide("rolled_back", reason, serving, evidence=evidence, asked=asked)

    def _decide(
        self,
        kind: str,
        reason: str,
        serving: ServingSet,
        *,
        evidence: dict[str, Any] | None = None,
        asked: _Asked | None = None,
    ) -> Output:
        command = None if asked is None else asked.command
        decision = Decision(
            number=self._number,
            kind=kind,
            ts=self._watermark.ms,
            actor=ACTOR if command is None else command.actor,
            reason=reason,
            serving=serving,
            inputs=dict(self._inputs),
            previous=self._previous,
            evidence=evidence,
            command_id=None if command is None else command.command_id,
            log=self._log,
            signed_by=None if command is None else command.operator,
            given_ms=None if command is None else command.ts,
            received_ms=None if asked is None else asked.received_ms,
        )
        self._number += 1
        self._serving = serving
        value = encode_decision(decision, self._key)
        self._previous = record_hash(value)
        return Output("registry", self._pipeline.name.encode(), value, decision)

    def _drop_unserved(self, outputs: list[Output]) -> None:
        serving = self._serving
        # What shadows now is still needed: while nothing is renewed it grows old.
        needed = set() if serving is None else {ref.model for ref in serving.challengers.values()}
        for models in self._unserved.values():
            for model in models[: max(0, len(models) - self._pipeline.keep)]:
                if model not in needed:
                    models.remove(model)
                    outputs.append(Output("models", model.encode(), None))

    # --- state ---------------------------------------------------------------------------------

    def replay(self, records: Sequence[Record]) -> None:
        """As `apply`. On a cluster there is nothing to replay: every commit holds the state."""
        self.apply(records)

    def needs_checkpoint(self) -> bool:
        """Always: what is learned and judged depends on how the inputs alternated."""
        return True

    @property
    def held(self) -> dict[str, int]:
        """What memory is taken up by: instants that wait for lines, and commands answered."""
        answered = sum(map(len, self._answered.values()))
        return {"instants_waiting": len(self._waiting), "commands_answered": answered}

    def note(self, notice: Notice) -> Output:
        """Take note of what befell an input."""
        self._must_checkpoint = True
        return noted(notice, "evaluate", self._watermark.ms, self.counts)

    def must_checkpoint(self) -> bool:
        """When something was written since: a decision must not be made twice."""
        return self._must_checkpoint

    def dirty(self) -> list[Piece]:
        """Everything but answered commands that did not change: scores by name, and the rest."""
        self._must_checkpoint = False
        answered, self._answered_anew = sorted(self._answered_anew), set()
        rest = {
            "baselines": self._baselines.dump(),
            "delays": self._delays.dump(),
            "watermark": self._watermark.dump(),
            "numbers": self._numbers.dump(),
            "n": self._n,
            "number": self._number,
            "serving": None if self._serving is None else asdict(self._serving),
            "version": self._version,
            "waiting": [
                (version, name, asdict(arrival))
                for version, lines in self._waiting.items()
                for name, arrival in lines.items()
            ],
            "stale": sorted(self._stale),
            "newest": self._newest,
            "unserved": self._unserved,
            "contest": self._contest.dump(),
            "paused": self._paused,
            "frozen": self._frozen,
            "announced": self._announced,
            "registered": self._registered,
            "counts": self.counts,
            "held": self.held,
            "previous": self._previous,
            "inputs": self._inputs,
            "refusals": {topic: each.dump() for topic, each in self._refusals.items()},
            "versions": self._versions,
        }
        return [
            ("", orjson.dumps(rest)),
            *((f"s{name}", orjson.dumps(each.dump())) for name, each in self._scores.items()),
            *((f"c{name}", orjson.dumps(self._answered[name].dump())) for name in answered),
        ]

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state."""
        state = {name: orjson.loads(value) for name, value in pieces}
        rest = state.pop("")
        task = self._pipeline.task
        self._versions = rest["versions"]
        for name in self._versions:  # in the order in which they were first scored
            self._scores[name] = Scores(task.kind, task.classes)
            self._scores[name].load(state[f"s{name}"])
        self._baselines.load(rest["baselines"])
        self._delays.load(rest["delays"])
        self._watermark.load(rest["watermark"])
        self._numbers.load(rest.get("numbers", []))
        self._n, self._number = rest["n"], rest["number"]
        self._serving = None if rest["serving"] is None else serving_set(rest["serving"])
        self._version = rest["version"]
        if self._champion_line() not in self._pipeline.recipes:
            declared = ", ".join(self._pipeline.recipes)
            raise UsageError(
                f"the line {self._champion_line()!r} serves, but the declaration has only "
                f"{declared}: declare it, or promote another line before it is taken out"
            )
        for version, name, arrival in rest["waiting"]:
            ref = ModelRef(**arrival["ref"])
            self._waiting.setdefault(version, {})[name] = _Arrival(ref, arrival["flaw"])
        self._stale, self._newest = set(rest["stale"]), rest["newest"]
        self._contest.load(rest["contest"])
        # What spoke for a line that is declared no more must not speak for another of its name.
        self._contest.renew(
            [each for each in self._contest.lines if each in self._pipeline.recipes]
        )
        self._paused, self._frozen = rest["paused"], rest["frozen"]
        self._announced = rest["announced"]
        self._previous = rest["previous"]
        self._answered = {
            name[1:]: Answered(**each) for name, each in state.items() if name.startswith("c")
        }
        if rest.get("answered"):  # by a former release, which did not tell operators apart
            self._answered[ANYBODY] = Answered(rest["answered"])
            self._answered_anew.add(ANYBODY)
        # A line may have been declared since, or be declared no more.
        self._unserved |= rest["unserved"]
        self._inputs = rest["inputs"]
        # What was written before these were known has none.
        self._registered = rest.get("registered", 0)
        for topic, dumped in rest.get("refusals", {}).items():
            self._refusals[topic].load(dumped)
        self.counts |= rest.get("counts", {})


def _dated(command: Command) -> str:
    """What a command out of its time is known by: its id stays free for one that is in time."""
    return f"{command.ts} {command.command_id}"
