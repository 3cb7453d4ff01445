"""Examples, snapshots and commands in, decisions out: the only writer of the registry.

It reads the registry too, for what it has not written there.

Theory of operation:

1. What served has answered at event time. What shadowed answers here, when the label is there,
   from the same features and by the snapshots that shadowed then (`shadows`); its answers are
   recorded, and scored beside what was served (`scoreboard`).
2. What serves, and all that bears on it, is in `decisions`. Three change it: evidence and the guard
   (`promotions`), refreshes (`renewals`), and operators (`commands`).
3. A challenger replaces the champion on evidence if no gate rejects it, or because an operator says
   so. What is promoted is the very snapshot that shadows at that moment; the old champion's line
   goes on in the winner's slot, and evidence starts anew.
4. The guard answers gross harm at once (`guard`). What was switched from goes on as `predecessor`
   until a block was judged; models younger than `promotion.first` are too young to return to.
   After an operator's rollback, and a return to `first`, nothing is refreshed until `resume` or the
   next replacement; after the guard's other ones the next refresh goes on.
5. A command is answered once, accepted or refused, by a decision that names it and whose key
   signed it (`operators`). `expect` must be what serves.
6. Decisions are numbered, each names the record before it by hash, and all are signed
   (`registry`).
7. Until the champion's line has settled (`evaluation.settling`), the declared fallback is served,
   or else the running prior, which a few decisions `settling` tell; `settled` ends that. A
   challenger that has not settled replaces nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from stream_ml.codec import dead_letter, encode_answers
from stream_ml.defaults import COMMAND_AGE_MS
from stream_ml.errors import BadRecord
from stream_ml.generation import APPLIED
from stream_ml.records import Output, line_of
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.commands import Commands
from stream_ml.stages.decisions import Decisions
from stream_ml.stages.effort import DEATHS_MAX, NO_STOPWATCH
from stream_ml.stages.inputs import example_in, without_frames
from stream_ml.stages.loss_alarm import LossAlarm
from stream_ml.stages.monitor import Monitor, end_unwatched
from stream_ml.stages.numbering import Numbers
from stream_ml.stages.operators import Operators
from stream_ml.stages.positions import record_notice
from stream_ml.stages.promotions import Promotions
from stream_ml.stages.proposals import HARM, READY
from stream_ml.stages.refusals import Refusals
from stream_ml.stages.renewals import Renewals
from stream_ml.stages.scoreboard import PREDECESSOR
from stream_ml.stages.shadows import Shadows
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
    from collections.abc import Iterable, Sequence

    from stream_ml.generation import Generation
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Command, Correction, Evaluation, Example, Prediction, Record
    from stream_ml.signing import Keyring
    from stream_ml.stages.effort import Stopwatch
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.task import StateEntry

__all__ = ["EVALUATE_EVERY", "Evaluate"]

EVALUATE_EVERY = 1_000


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
        stopwatch: measures what the answers of shadows take; None: none is too slow.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        keyring: Keyring,
        log: str | None = None,
        *,
        command_age_ms: int = COMMAND_AGE_MS,
        in_order: bool = False,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._slots = {PREDECESSOR, "first", *pipeline.recipes}
        self._numbers = Numbers()
        self._watermark = ExamplesWatermark(pipeline.horizon_ms, pipeline.events.breadth)
        self._n = 0
        self._alarms = Alarms("evaluate")
        self._loss_alarm = LossAlarm(pipeline.target.kind, self._alarms)
        self._monitor = None
        self._unwatched: list[str] = []  # entries of monitors that are declared no more
        if pipeline.monitors is not None:
            self._monitor = Monitor(pipeline, self._alarms, in_order=in_order)
        self.counts = {"examples": 0, "refused": 0, "commands": 0, "commands_forgotten": 0}
        self.counts["examples_missing"] = 0
        key = keyring.pipeline_key
        self._decisions = Decisions(pipeline, key, log, self._alarms, self._watermark)
        self._operators = Operators(pipeline.name, log, keyring, command_age_ms)
        self._promotions = Promotions(self._decisions)
        self._stopwatch = NO_STOPWATCH if stopwatch is None else stopwatch
        self._shadows = Shadows(pipeline, key, log, stopwatch)
        self._decisions.slow_lines = self._shadows.quarantined
        self._renewals = Renewals(self._decisions, self._shadows)
        self._commands = Commands(self._decisions, self._operators, self.counts, self._stopwatch)
        self._refusals = {
            topic: Refusals(self._alarms, topic)
            for topic in ("examples", "models", "commands", "registry", "summaries")
        }
        self._must_checkpoint = self._is_restored = False

    def start(self) -> list[Output]:
        """Nothing: the first decision follows from the lines' first snapshots."""
        self._stop_suspect()
        return []

    def _stop_suspect(self) -> None:
        """Ask no more who was asked at one death of the worker after another."""
        suspect = self._stopwatch.begin(self._n, "evaluate")
        if suspect is not None and suspect.deaths >= DEATHS_MAX:
            reason = f"the worker has died {suspect.deaths} times running while it was asked"
            self._shadows.stop(suspect.line, reason)
            self._commands.stop(suspect)
            self._must_checkpoint = True

    def wanted(self, records: Sequence[Record]) -> list[int]:
        """The places on `models` of the snapshots that are to be supplied before these are folded.

        Args:
            records: that `apply` is given next, of one topic.
        """
        if records[0].topic != "examples":
            return []
        examples = [(record.offset, example_in(record, self._pipeline)) for record in records]
        return self._shadows.wanted(
            (offset, example.prediction)
            for offset, example in examples
            if not isinstance(example, BadRecord)
        )

    def supply(self, offset: int, value: bytes | None) -> None:
        """Take in what lies at a place that was wanted; None if nothing does."""
        self._shadows.supply(offset, value)

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in examples, snapshots or commands; of examples, those that `wanted` was asked."""
        outputs = self._end_gone() if self._is_restored else []
        topic = records[0].topic
        folds = {
            "examples": self._example,
            "models": self._renewals.add,
            "commands": self._commands.answer,
            "registry": self._decision,
            "summaries": self._summary,
        }
        inputs = self._decisions.inputs
        fold, is_counted, refusals = folds[topic], topic in inputs, self._refusals[topic]
        for part in refusals.parts(records):
            for number, record in enumerate(part):
                if is_counted:
                    inputs[topic] = record.offset + 1
                try:
                    fold(record, outputs)
                except BadRecord as error:
                    self.counts["refused"] += 1
                    outputs.append(dead_letter(record, "evaluate", without_frames(error)))
                    outputs += refusals.refuse(record, error, number + 1, self._watermark.ms)
            outputs += refusals.read(len(part), self._watermark.ms)
        for account in self._shadows.end():
            self._tell_slow(account, outputs)
        if self._shadows.quarantined:
            self._end_slow(outputs)
        self._must_checkpoint |= any(output.topic != "answers" for output in outputs)
        return outputs

    def _end_gone(self) -> list[Output]:
        """After a start: end what nothing else could, for its cause is not declared any more."""
        self._is_restored = False
        ts, outputs, decisions = self._watermark.ms, list[Output](), self._decisions
        lines = [f"line:{line}" for line in self._pipeline.recipes]
        for kind in ("line_refused", "challenger_ready"):
            outputs += self._alarms.retain(kind, lines, "the line is not declared any more", ts)
        lines += [s for s in self._alarms.subjects("shadow_slow") if s.startswith("model:")]
        reason = "the line is not declared any more"
        outputs += self._alarms.retain("shadow_slow", lines, reason, ts)
        for account in self._shadows.quarantined:
            if account in self._pipeline.recipes:
                self._tell_slow(account, outputs)
        outputs += end_unwatched(self._monitor, self._alarms, ts)
        faults = [] if self._monitor is None else self._monitor.faults()
        decisions.suspend(faults, outputs)
        proposal = decisions.proposal
        if proposal is not None and proposal.line not in self._pipeline.recipes:
            outputs += decisions.lapse(proposal.cause, "the line is not declared any more")
        promotion = self._pipeline.promotion
        if promotion.on_harm != "ask":
            outputs += decisions.lapse(HARM, "`on_harm` is not `ask` any more")
        if promotion.mode != "ask":
            outputs += decisions.lapse(READY, "`mode` is not `ask` any more")
        action = decisions.guard.stand_down(ts, outputs)
        if action is not None and decisions.registry.serving is not None:
            self._promotions.obey(action, decisions.registry.serving, outputs)
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
        self._answer(record.offset, example, outputs)
        self._n += 1
        self.counts["examples"] += 1
        watermark = self._watermark.advance(
            partition, example.prediction.event_id, example.label_ts, record.append_ms
        )
        decisions = self._decisions
        decisions.scoreboard.end_block(watermark)
        if example.correction is not None:
            self._correct(example, example.correction, outputs)
            return
        baseline_answers = decisions.scoreboard.add(example, self._watermark.newest_ms)
        if self._monitor is not None:
            outputs += self._monitor.example(example, watermark, record.append_ms)
            self._suspend(outputs)
        if self._n % EVALUATE_EVERY == 0 or decisions.has_day_ended():
            outputs += decisions.evaluations()
        outputs += self._loss_alarm.add(example, watermark)
        if not decisions.settling.is_over:
            serving = decisions.registry.serving
            step = decisions.settling.add(example, self._n, baseline_answers, serving)
            if step is not None:
                outputs.append(
                    decisions.decide(step.kind, step.reason, step.serving, evidence=step.evidence)
                )
        self._promotions.judge(example, watermark, outputs)
        if decisions.refresh:
            self._renewals.give_up_on_stale(self._n, outputs)

    def _correct(self, example: Example, correction: Correction, outputs: list[Output]) -> None:
        """Let the last word count: in scores, and in evidence of blocks that are open.

        The guard, the gates, settling and the alarms go by the first, when it comes.
        """
        decisions = self._decisions
        self.counts["corrections"] = self.counts.get("corrections", 0) + 1
        newest_ms = self._watermark.newest_ms
        slices = decisions.scoreboard.revise(example, correction, newest_ms)
        if decisions.registry.serving is not None:
            watermark_ms = self._watermark.ms
            decisions.contest.revise(example, correction.label, watermark_ms, slices)
        if self._n % EVALUATE_EVERY == 0 or decisions.has_day_ended():
            outputs += decisions.evaluations()
        if decisions.refresh:
            self._renewals.give_up_on_stale(self._n, outputs)

    def _answer(self, offset: int, example: Example, outputs: list[Output]) -> None:
        """Give the shadows of an example their answers, where it has none, and record them."""
        prediction = example.prediction
        self._decisions.superseded.see(prediction, self._watermark.ms)
        example.prediction = self._shadows.fill(offset, prediction)
        if example.prediction is not prediction:
            event_id, said = prediction.event_id, example.prediction.shadows
            shadows = {
                slot: said[slot]
                for slot, shadow in prediction.shadows.items()
                if shadow.offset is not None
            }
            value = encode_answers(event_id, offset, shadows)
            outputs.append(Output("answers", event_id.encode(), value))

    def _tell_slow(self, account: str, outputs: list[Output]) -> None:
        """Say that a line, or a snapshot, shadows without answers from now on."""
        reason = self._shadows.quarantined.get(account, "")
        if account in self._pipeline.recipes:
            subject, way_out = f"line:{account}", f"; way out: `stream-ml restart {account}`"
        else:
            subject, way_out = f"model:{account}", " for as long as it is kept to compare with"
        if subject.startswith("model:") and account not in self._compared():
            return
        message = f"{account!r} is asked no more: {reason}{way_out}"
        outputs += self._alarms.open("shadow_slow", subject, message, self._watermark.ms)

    def _end_slow(self, outputs: list[Output]) -> None:
        """End the alerts about snapshots that what serves is not compared with any more."""
        subjects = self._alarms.subjects("shadow_slow")
        kept = {f"model:{model}" for model in self._compared()}
        for subject in subjects:
            if subject.startswith("model:") and subject not in kept:
                message = "what serves is not compared with it any more"
                outputs += self._alarms.resolve("shadow_slow", subject, message, self._watermark.ms)

    def _compared(self) -> set[str]:
        """The snapshots that are kept to compare what serves with them."""
        serving = self._decisions.registry.serving
        refs = () if serving is None else (serving.predecessor, serving.first)
        return {ref.model for ref in refs if ref is not None}

    def _summary(self, record: Record, outputs: list[Output]) -> None:
        if self._monitor is None:
            return
        summary = self._monitor.parse(record)
        if isinstance(summary, BadRecord):
            raise summary
        outputs += self._monitor.summary(summary, record.append_ms)
        self._suspend(outputs)

    def _suspend(self, outputs: list[Output]) -> None:
        """Have promotions and refreshes stand still while there are faults, where declared."""
        if self._pipeline.promotion.on_fault != "alert":
            faults = [] if self._monitor is None else self._monitor.faults()
            self._decisions.suspend(faults, outputs)

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
            if slot in self._slots or slot in self._decisions.scoreboard:
                continue
            # A former version shadows in its slot until the next refresh after it was replaced; and
            # what was predicted with any other line of before may still wait for its label.
            if slot not in self._decisions.generation.version_names | self._former_slots():
                raise BadRecord(
                    "malformed",
                    "$.shadows",
                    f"expected answers of {', '.join(sorted(self._slots))}, given one of {slot!r}",
                )

    def _former_slots(self) -> set[str]:
        """Challengers that may not run any more, and that predictions may still name."""
        decisions = self._decisions
        serving = decisions.registry.serving
        present = set() if serving is None else {*serving.challengers}
        return present | {line_of(model) for model in decisions.superseded.models}

    # --- commands and decisions ----------------------------------------------------------------

    def parse(self, record: Record) -> Command | BadRecord:
        """The command in `record`, or what is wrong with it; kept as the record's memo."""
        return self._operators.parse(record)

    def _decision(self, record: Record, _: list[Output]) -> None:
        self._decisions.registry.check(record)

    def report(self) -> list[Evaluation]:
        """How every model stands now, the served one first."""
        return self._decisions.report()

    @property
    def champion(self) -> str | None:
        """The model that serves, `name@version`; None before the first."""
        serving = self._decisions.registry.serving
        return None if serving is None else serving.champion.model

    def begin_generation(self, generation: Generation, reason: str) -> Output:
        """Write down that the features are others from now on; what serves stays.

        Args:
            generation: as it runs from now on.
            reason: why, in the words of whoever applies it.
        """
        decisions = self._decisions
        serving = decisions.registry.serving
        assert serving is not None, "no features are changed before anything serves"
        self._must_checkpoint = True
        return decisions.decide(APPLIED, reason, serving, evidence=generation.as_dict())

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
            "instants_waiting": len(self._decisions.refresh),
            "sets_waiting": len(self._decisions.superseded),
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
        decisions = self._decisions
        keyless = {
            **decisions.dump(),
            "watermark": self._watermark.dump(),
            "numbers": self._numbers.dump(),
            "n": self._n,
            "alarms": self._alarms.dump(),
            "loss": self._loss_alarm.dump(),
            "refreshes": self._renewals.staleness.dump(),
            "shadows": self._shadows.dump(),
            "counts": self.counts,
            "held": self.sizes,
            "refusals": {topic: refusals.dump() for topic, refusals in self._refusals.items()},
        }
        monitors: list[tuple[str, bytes | None]] = [(name, None) for name in self._unwatched]
        self._unwatched = []
        if self._monitor is not None:
            keyless["monitors"] = self._monitor.dump()
            monitors = self._monitor.dirty()
        scores, answered = decisions.scoreboard.dump_scores(), self._operators.dirty()
        served = decisions.served_models.dirty()
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
        scores = {slot: orjson.loads(value) for slot, value in entries[SCORES]}
        served = {line: orjson.loads(value) for line, value in entries[SERVED]}
        self._decisions.load(keyless, scores, served)
        # A former release did not tell operators apart.
        former = keyless.get("answered")
        self._operators.load(
            ((operator, orjson.loads(value)) for operator, value in entries[COMMAND_IDS]), former
        )
        self._watermark.load(keyless["watermark"])
        self._numbers.load(keyless.get("numbers", []))
        self._n = keyless["n"]
        if self._monitor is not None:
            self._monitor.load(keyless.get("monitors", {}), dict(entries[MONITORS]))
        else:
            self._unwatched = [name for name, _ in entries[MONITORS]]
        self._alarms.load(keyless.get("alarms", ()))
        self._renewals.staleness.load(keyless.get("refreshes", ()))
        self._shadows.load(keyless.get("shadows", {}))
        if "loss" in keyless:  # a former release watched none
            self._loss_alarm.load(keyless["loss"])
        if keyless.get("announced") is not None:  # in the state of a former release
            self._alarms.adopt(
                "challenger_ready", f"line:{keyless['announced']}", self._watermark.ms
            )
        for topic, refusals in keyless.get("refusals", {}).items():
            self._refusals[topic].load(refusals)
        self.counts |= keyless.get("counts", {})
        self._is_restored = True
        self._stop_suspect()
