"""Examples in, snapshots out: one live learner per line, learning in the order of the log.

Theory of operation:

1. An example is answered by the live learner before it is learned from (test, then train). That
   loss is a guard against divergence and no more, so only the line that serves is asked each
   time, the others at every `LIVE_LOSS_EVERY`-th example. Each snapshot of the line that serves
   brings how much worse its learner did than what was served (`evaluation.divergence`), and names
   the lines that publish with it, so that nobody waits for others.
2. What learns does not predict: a line's learner is seen by the rest of the system only as
   snapshots, published by all lines at the same instants.
3. A refresh instant is a function of the examples log: example n (counted, not its offset) is a
   warm-up step (500, 1,000, 2,000, ... until the cadence is reached), or the watermark first
   passes a multiple of `refresh` there, or n is a multiple of it where it is a number. Where the
   loss of what is served has grown (`evaluation.changes`), examples 100, 200, 400, ... after the
   detection are instants too, until the cadence is reached again (`promotion.on_change`).
4. A line whose learner fails (raises, or outgrows the snapshot limit) is quarantined: alerted
   once, it learns and publishes no more. The others go on. It starts anew, from nothing, when its
   recipe is another at a start, the start says so (`restart`), or a decision does (`restarts`). So
   it is with one that takes longer than its budget, that does not return, or during whose work the
   worker dies again and again (`effort`).
5. A line that is declared on a running log is taught what was there before, if whoever drives the
   stage brings it (`latecomers`), and publishes nothing before it is what it would be had it been
   there from the start. Where nobody brings it, it starts with what is still to come.
6. A snapshot is published only together with a checkpoint of the learners that made it, so that
   after a crash the same examples give the same weights, and nothing is published twice.
7. A retrained line learns nothing from an example: it is added to the line's window, on which the
   next model is trained while the others go on (`retraining`).
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.defaults import CHECKPOINT_EXAMPLES
from stream_ml.errors import (
    STOPS,
    BadRecord,
    SnapshotRefused,
    StateRefused,
    UsageError,
    brief_error,
)
from stream_ml.evaluation.changes import ServedLoss
from stream_ml.evaluation.divergence import BlockScores
from stream_ml.evaluation.scores import loss
from stream_ml.models.fast import fast_learner, fast_live_predictor
from stream_ml.models.recipes import BadAnswer
from stream_ml.models.snapshot import Snapshot, pack, signed, take, unpack
from stream_ml.records import Example, Output, line_of
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.effort import DEATHS_MAX, NO_STOPWATCH, Effort
from stream_ml.stages.inputs import example_in
from stream_ml.stages.kept_learners import KeptLearners
from stream_ml.stages.latecomers import Latecomer
from stream_ml.stages.numbering import Numbers
from stream_ml.stages.positions import record_notice
from stream_ml.stages.refresh_clock import RefreshClock
from stream_ml.stages.restarts import Restart, Restarts, restart_of
from stream_ml.stages.retraining import Retrainings
from stream_ml.stages.state import KEPT, KEYLESS, LEARNERS, ROWS, split_by_prefix
from stream_ml.stages.watermark import ExamplesWatermark

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from stream_ml.models.fast import Predictor, Teacher
    from stream_ml.models.recipes import Target
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Decision, LabelValue, Record
    from stream_ml.stages.effort import Stopwatch, Suspect
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.retraining import Trainings
    from stream_ml.stages.task import StateEntry

__all__ = ["Learn", "RefreshClock", "quarantined_in"]

# Asking costs as much as half of learning, and what only informs need not be asked each time.
LIVE_LOSS_EVERY = 8
# A snapshot answers for so many recent examples again when it is loaded.
GOLDEN_EXAMPLES = 8
# A learner of more bytes than this (as its digest counts them: equal learners' pickles differ) for
# each example since the snapshot before costs more to write, check and load than learning from
# them did (a forest of Mondrian trees: about as much at half of it).
DEAR_BYTES = 16 * 1024
RESTART_SETTING = "STREAM_ML_RESTART_LINES"
QUARANTINED = "line_quarantined"
# How an alert of that is resolved, by what is written in the state until it can be said.
_ENDS_OF_QUARANTINES = {
    "line_restarted": "starts anew, from nothing",
    "line_gone": "is gone",
}
# Why our own seal may hold what cannot be taken up again: the learner has outgrown it, or does not
# know its own bytes. Any other
# reason is about the seal itself, and stops the start.
UNREADABLE = frozenset({"class_not_allowed", "too_large", "unreadable"})


class TrainingExample(NamedTuple):
    """An example to learn from: its number, the watermark there, and which line had served.

    `served_loss` is that of the line's own answer; None if it had none.
    """

    n: int
    watermark_ms: int
    serves: str
    served_loss: float | None
    features: dict[str, float]
    label: LabelValue


class _Quarantine(NamedTuple):
    """That a line learns no more: after which example, why, and what its recipe was."""

    n: int
    reason: str
    recipe: str | None


class _Line:
    """A live learner and its losses since the last refresh."""

    __slots__ = (
        "blocks",
        "dear",
        "effort",
        "first",
        "learner",
        "live_loss",
        "missed",
        "parent",
        "payload",
        "quarantine",
        "scored_count",
    )

    def __init__(self, learner: Any, *, is_relative: bool) -> None:
        self.learner = learner
        self.effort = Effort()
        self.blocks = BlockScores(is_relative=is_relative)
        self.parent: str | None = None
        # Of its snapshot, as long as it has learned nothing since.
        self.payload: bytes | None = None
        self.quarantine: _Quarantine | None = None
        # How many examples it has not learned, as they were gone; its first one, if it is another.
        self.missed = 0
        self.first: int | None = None
        # Whether it was told that its snapshots cost much.
        self.dear = False
        self.live_loss = 0.0
        self.scored_count = 0

    def score(
        self,
        predict: Predictor,
        target: Target,
        example: TrainingExample,
        *,
        serves: bool,
    ) -> None:
        """Add the learner's loss on an example that it has not learned.

        Args:
            predict: the learner's.
            target: the question.
            example: the next one.
            serves: whether the line had served there, so that both losses are compared.
        """
        with suppress(BadAnswer):
            live = predict(example.features)
            if live is not None:
                live_loss = loss(target.kind, example.label, live)
                self.live_loss += live_loss
                self.scored_count += 1
                if serves and example.served_loss is not None:
                    self.blocks.add(live_loss, example.served_loss)


class Learn:
    """The learn stage: all lines of a pipeline.

    Args:
        pipeline: the declaration.
        key: signs snapshots and checkpoints.
        checkpoint_examples: after how many examples the learners are written down at the latest.
        restart: lines to start anew, from nothing, where they are quarantined.
        log: the identity of the log that is written to, which every snapshot names.
        stopwatch: measures what lines take, and watches over what may not return; None measures
            nothing, and no line is ever too slow.
        trainings: whoever trains the lines that are retrained; None: this process, in its turn.
        has_backlog: whether `backlog` is asked, and what it names brought to `catch_up`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        key: bytes,
        checkpoint_examples: int = CHECKPOINT_EXAMPLES,
        restart: Collection[str] = (),
        *,
        log: str | None = None,
        stopwatch: Stopwatch | None = None,
        trainings: Trainings | None = None,
        has_backlog: bool = False,
    ) -> None:
        self._has_backlog = has_backlog
        # Lines that were declared on a running log, and do not contend yet.
        self._latecomers: dict[str, Latecomer] = {}
        self._log = log
        self._stopwatch = NO_STOPWATCH if stopwatch is None else stopwatch
        self._is_timed = stopwatch is not None
        self._restart = restart
        self._pipeline = pipeline
        self._key = key
        self._checkpoint_examples = checkpoint_examples
        is_relative = pipeline.target.kind == "regression"
        self._lines = {
            name: _Line(recipe.fresh(), is_relative=is_relative)
            for name, recipe in pipeline.recipes.items()
        }
        self._retrainings = Retrainings(pipeline.recipes, pipeline.target, trainings)
        refresh = pipeline.promotion.refresh
        self._clock = RefreshClock(pipeline.refresh_ms, refresh if isinstance(refresh, int) else 0)
        self._n = 0
        self._numbers = Numbers()
        self._watermark = ExamplesWatermark(pipeline.horizon_ms, pipeline.events.breadth)
        self._offsets = (-1, -1)
        self._golden: deque[dict[str, float]] = deque(maxlen=GOLDEN_EXAMPLES)
        self._served_loss = 0.0
        self._served_scored = 0
        self._served_change = ServedLoss(pipeline.target.kind)
        self._epoch_n = 0
        self._since_checkpoint = 0
        # What was passed over; evaluate counts the rest.
        self.counts: dict[str, int] = {}
        # Kind, line and reason of alerts where nothing can be written: said with the next outputs.
        self._unsaid: list[tuple[str, str, str]] = []
        self._alarms = Alarms("learn")
        self._restarts = Restarts(key, log)
        restores = pipeline.promotion.on_failure == "restore"
        self._kept = KeptLearners(pipeline.recipes if restores else ())
        # By line: the decision that started it anew, until its next snapshot has said so.
        self._restarted_by: dict[str, int] = {}
        # Lines that are declared no more, whose learners are still to be dropped from the state.
        self._undeclared_lines: list[str] = []
        self._must_checkpoint = False

    def start(self) -> list[Output]:
        """Publish every line as it is before the first example, for bootstrap.

        Raises:
            UsageError: a line cannot be published at all, which no log can mend.
        """
        self._must_checkpoint = True
        suspect = self._stopwatch.begin(0)
        try:
            drafts = [self._draft(name, line) for name, line in self._lines.items()]
        except SnapshotRefused as error:
            raise UsageError(
                f"models: a line cannot be published, even untrained: {error}"
            ) from None
        outputs = [self._output(draft) for draft in drafts]
        self._stop_suspect(suspect)
        return outputs

    def _stop_suspect(self, suspect: Suspect | None) -> None:
        """Let a line learn no more that was at work at one death of the worker after another."""
        line = None if suspect is None else self._lines.get(suspect.line)
        if suspect is None or line is None or suspect.deaths < DEATHS_MAX or line.quarantine:
            return
        self._must_checkpoint = True
        self._give_up(
            suspect.line,
            f"the worker has died {suspect.deaths} times running while the line was at work",
        )

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in examples, or decisions."""
        outputs = self._say_unsaid()
        if records[0].topic == "registry":
            outputs += self._read_decisions(records)
            self._must_checkpoint |= bool(outputs)
            return outputs
        self._level()
        examples: list[TrainingExample] = []
        for record in records:
            example = example_in(record, self._pipeline)
            if isinstance(example, BadRecord) or not self._is_new(example):
                continue  # evaluate, which reads the same topic, writes the dead letter
            examples.append(self._take(example, record))
            if self._clock.strikes(self._n, self._watermark.ms):
                outputs += self._learn(examples)
                examples = []
                outputs += self._publish()
        outputs += self._learn(examples)
        self._since_checkpoint += len(records)
        self._must_checkpoint |= bool(outputs)
        return outputs

    def _read_decisions(self, records: Sequence[Record]) -> list[Output]:
        """Start the lines anew that decisions say."""
        outputs: list[Output] = []
        for record in records:
            decision = self._restarts.decision(record)
            if decision is None:
                continue
            for ref in decision.serving.lines.values():
                self._kept.serve(ref.model)
            restart = restart_of(decision)
            if restart is not None and restart.line in self._lines:
                outputs += self._start_anew(restart, decision)
        return outputs

    def _start_anew(self, restart: Restart, decision: Decision) -> list[Output]:
        """Let a line go on from a snapshot that is kept, else from nothing."""
        name = restart.line
        recipe, learner = self._pipeline.recipes[name], None
        packed = self._kept.find(restart.model)
        if packed is not None:
            with suppress(SnapshotRefused):
                learner = unpack(packed, recipe, self._key)
        is_relative = self._pipeline.target.kind == "regression"
        origin = "from nothing" if learner is None else f"from {restart.model}"
        is_new = learner is None
        line = _Line(recipe.fresh() if is_new else learner, is_relative=is_relative)
        line.parent = None if is_new else restart.model
        self._lines[name] = line
        self._retrainings.clear(name)
        self._latecomers.pop(name, None)
        self._restarted_by[name] = decision.number
        self._must_checkpoint = True
        message = (
            f"the line {name!r} starts anew, {origin}, after example {self._n}: decision "
            f"{decision.number} by {decision.actor}: {decision.reason}"
        )
        figures = {"line": name, "examples": self._n, "decision": decision.number}
        return self._alarms.resolve(
            QUARANTINED, f"line:{name}", message, self._watermark.ms, figures
        )

    def _say_unsaid(self) -> list[Output]:
        unsaid, self._unsaid = self._unsaid, []
        outputs = []
        for kind, name, reason in unsaid:
            if kind == QUARANTINED:
                outputs += self._alert(name, reason)
            else:
                message = f"the line {name!r} {_ENDS_OF_QUARANTINES[kind]}: {reason}"
                figures = {"line": name, "examples": self._n}
                outputs += self._alarms.resolve(
                    QUARANTINED, f"line:{name}", message, self._watermark.ms, figures
                )
        return outputs

    @property
    def quarantine_reasons(self) -> dict[str, str]:
        """Of each line that learns no more, why, and how it goes on."""
        return {
            name: f"the line {name!r} learns no more after example {line.quarantine.n}: "
            f"{line.quarantine.reason}; way out: declare another recipe for it, "
            f"`stream-ml restart {name} --reason ...`, or start once with "
            f"{RESTART_SETTING}={name}: it then starts anew, from nothing"
            for name, line in self._lines.items()
            if line.quarantine is not None
        }

    def _active(self) -> list[str]:
        """The lines that learn."""
        return [name for name, line in self._lines.items() if not line.quarantine]

    def _is_new(self, example: Example) -> bool:
        try:
            self._numbers.take(example.label_source.partition, example.number)
        except BadRecord:
            return False
        return True

    def _take(self, example: Example, record: Record) -> TrainingExample:
        """Count an example; what is to be learned from it."""
        prediction, label = example.prediction, example.label
        features, kind = prediction.features, self._pipeline.target.kind
        self._n += 1
        self._epoch_n += 1
        partition, offset = example.label_source.partition, record.offset
        self._watermark.advance(partition, prediction.event_id, example.label_ts, record.append_ms)
        self._offsets = (offset if self._offsets[0] < 0 else self._offsets[0], offset)
        self._golden.append(features)
        if self._retrainings:
            self._retrainings.add(self._active(), self._watermark.ms, features, label)
        own_answer = prediction.own_answer
        served_loss = None
        if own_answer is not None:
            served_loss = loss(kind, label, own_answer)
            self._served_loss += served_loss
            self._served_scored += 1
            has_changed = self._served_change.add(own_answer, served_loss)
            if has_changed and self._pipeline.promotion.on_change == "refresh":
                self._clock.hasten(self._n)
        return TrainingExample(
            self._n, self._watermark.ms, line_of(prediction.model), served_loss, features, label
        )

    def _learn(self, examples: Sequence[TrainingExample]) -> list[Output]:
        """Teach every line all of `examples`, and give the alerts of those that failed.

        A line at a time: what its learner works with then stays in the processor's caches
        (measured: a tenth of the whole work).
        """
        alerts: list[tuple[int, Output]] = []
        if not examples:
            return []
        with self._stopwatch.watch():
            for name, line in self._lines.items():
                if line.quarantine or self._is_behind(name):
                    continue
                failure = self._teach(name, line, examples)
                if failure is not None:
                    example, reason = failure
                    self._quarantine(name, example.n, reason)
                    alerts += [(example.n, alert) for alert in self._alert(name, reason, example)]
        # In the order of the examples, however many came at once.
        return [alert for _, alert in sorted(alerts, key=itemgetter(0))]

    def _teach(
        self, name: str, line: _Line, examples: Sequence[TrainingExample]
    ) -> tuple[TrainingExample, str] | None:
        """Teach a line all of `examples`; the one at which it failed, and why, if it did."""
        target, effort = self._pipeline.target, line.effort
        line.payload = None
        is_late = name in self._latecomers
        stopwatch, budget_s = self._stopwatch, self._stopwatch.budget_s
        seconds = stopwatch.seconds
        example = examples[0]
        stopwatch.attend(name)
        start_s = last_s = seconds()
        answer_s, answers = 0.0, 0
        try:
            teach = self._teacher(name, line)
            predict = fast_live_predictor(line.learner, target)
            for example in examples:
                serves = example.serves == name
                # Of a latecomer no figure may tell since when it has been level.
                if (serves or example.n % LIVE_LOSS_EVERY == 0) and not is_late:
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

    def _teacher(self, name: str, line: _Line) -> Teacher:
        """Whatever teaches a line one example; a retrained line has been given it already."""
        if name in self._retrainings:
            return lambda _features, _label: None
        return fast_learner(line.learner, self._pipeline.target)

    def _publish(self) -> list[Output]:
        # Who trains is bounded by itself, and may be waited for longer than a learner.
        models, failures = self._retrainings.publish(self._active())
        outputs: list[Output] = []
        for name, reason in failures.items():
            self._quarantine(name, self._n, reason)
            outputs += self._alert(name, reason)
        self._latecomers = {
            name: latecomer
            for name, latecomer in self._latecomers.items()
            if not (latecomer.is_level and latecomer.is_due(self._n, self._watermark.ms))
        }
        drafts: list[Snapshot | Output] = []
        with self._stopwatch.watch():
            for name, line in self._lines.items():
                if line.quarantine or name in self._latecomers:
                    continue
                self._stopwatch.attend(name)
                start_s = self._stopwatch.seconds()
                try:
                    if name in models:
                        line.learner = self._pipeline.recipes[name].load(models[name])
                    draft = self._draft(name, line)
                    drafts += [draft, *self._price(name, line, draft.extent or 0)]
                except SnapshotRefused as error:
                    self._quarantine(name, self._n, str(error))
                    drafts += self._alert(name, str(error))
                else:
                    taken_s = self._stopwatch.seconds() - start_s
                    line.effort.published(taken_s, len(draft.payload))
        outputs += [self._output(each) if isinstance(each, Snapshot) else each for each in drafts]
        is_sooner = self._clock.is_sooner
        self._retrainings.begin(self._active(), self._n, self._watermark.ms, is_sooner=is_sooner)
        self._served_loss, self._served_scored, self._epoch_n = 0.0, 0, 0
        return outputs

    def _price(self, name: str, line: _Line, size: int) -> list[Output]:
        """Say once of a line that its snapshots cost more than they should."""
        if line.dear or size <= DEAR_BYTES * self._epoch_n:
            return []
        line.dear = True
        message = (
            f"the learner of the line {name!r} took {size} bytes after {self._epoch_n} examples, "
            f"more than {DEAR_BYTES} for each: writing, checking and loading it costs more than "
            "they did; way out: a longer `refresh`, or a learner with a bound (`max_depth`)"
        )
        figures = {"line": name, "examples": self._n, "bytes": size, "since": self._epoch_n}
        return self._alarms.once(
            "snapshot_dear", message, self._watermark.ms, figures, f"line:{name}"
        )

    def _draft(self, name: str, line: _Line) -> Snapshot:
        """A snapshot of a line, but for its signature, and the lines that publish with it."""
        recipe = self._pipeline.recipes[name]
        snapshot = take(
            line.learner,
            recipe,
            self._pipeline.target,
            version=self._n,
            feature_hash=self._pipeline.feature_set.hash,
            parent=line.parent,
            examples={
                "count": self._n - line.missed,
                "first": self._offsets[0] if line.first is None else line.first,
                "last": self._offsets[1],
            },
            epoch={
                "n": self._epoch_n,
                "watermark": self._watermark.ms,
                "live_loss": _mean(line.live_loss, line.scored_count),
                "served_loss": _mean(self._served_loss, self._served_scored),
                **({"cause": "loss_change"} if self._clock.is_sooner else {}),
                **({"restarted": self._restarted_by[name]} if name in self._restarted_by else {}),
                **self._retrainings.figures(name),
                "excess": line.blocks.take(),
                "lines": [],
            },
            golden_features=self._golden,
            key=None,
            log=self._log,
        )
        line.parent, line.payload = snapshot.model, snapshot.payload
        self._restarted_by.pop(name, None)
        if self._kept.is_active:
            packed = pack(line.learner, recipe, self._key, snapshot.payload)
            self._kept.add(name, self._n, packed)
        line.live_loss, line.scored_count = 0.0, 0
        return snapshot

    def _output(self, draft: Snapshot) -> Output:
        """A draft, whole: who publishes with it is known when every line has been tried.

        Else evaluate would wait for one that has failed at this very instant.
        """
        lines = [name for name in self._active() if name not in self._latecomers]
        late = {"late": sorted(self._latecomers)} if self._latecomers else {}
        snapshot = signed(draft, self._key, {"lines": lines, **late})
        return Output("models", snapshot.model.encode(), snapshot.encode(), snapshot)

    def _quarantine(self, name: str, n: int, reason: str) -> None:
        line = self._lines[name]
        line.quarantine = _Quarantine(n, reason, self._pipeline.recipes[name].description)
        line.learner = None  # it would stand in the way of checkpoints
        self._retrainings.clear(name)
        self._latecomers.pop(name, None)

    def _alert(
        self, name: str, reason: str, example: TrainingExample | None = None
    ) -> list[Output]:
        n = self._n if example is None else example.n
        watermark_ms = self._watermark.ms if example is None else example.watermark_ms
        message = f"the line {name!r} learns no more after example {n}: {reason}"
        evidence = {"line": name, "examples": n}
        return self._alarms.open(QUARANTINED, f"line:{name}", message, watermark_ms, evidence)

    # --- latecomers ----------------------------------------------------------------------------

    def backlog(self) -> int | None:
        """The offset on `examples` from which on somebody has still to be taught; None: nobody."""
        waiting = [each.next for name, each in self._latecomers.items() if self._is_behind(name)]
        return min(waiting, default=None)

    def must_catch_up(self, records: Sequence[Record]) -> bool:
        """Whether all of the backlog must have been brought before these are folded in.

        Args:
            records: that `apply` is given next.
        """
        if self.backlog() is None or records[0].topic != "examples":
            return False
        n = self._n + len(records)
        examples = [example_in(record, self._pipeline) for record in records]
        newest_ms = max(
            (each.label_ts for each in examples if not isinstance(each, BadRecord)), default=-1
        )
        return any(
            each.is_due(n, max(newest_ms, self._watermark.ms))
            for name, each in self._latecomers.items()
            if self._is_behind(name)
        )

    def catch_up(self, records: Sequence[Record]) -> None:
        """Teach those who are behind; what befell them is told with the next outputs.

        Args:
            records: of `examples`, from `backlog` on; none if nothing is left there.
        """
        with self._stopwatch.watch():
            for name, latecomer in list(self._latecomers.items()):
                if not self._is_behind(name):
                    continue
                first = latecomer.learned + 1
                taken = latecomer.take(records, self._offsets[1], self._pipeline)
                examples = [
                    TrainingExample(number, -1, "", None, each.prediction.features, each.label)
                    for number, each in enumerate(taken, first)
                ]
                failure = self._teach(name, self._lines[name], examples) if examples else None
                if failure is not None:
                    self._give_up(name, failure[1])
        self._level()

    def _is_behind(self, name: str) -> bool:
        latecomer = self._latecomers.get(name)
        return latecomer is not None and not latecomer.is_level

    def _level(self) -> None:
        """Let those learn with the others who have learned all that they have."""
        for name, latecomer in self._latecomers.items():
            if not latecomer.is_level and latecomer.next > self._offsets[1]:
                latecomer.is_level = self._must_checkpoint = True
                line = self._lines[name]
                line.missed = self._n - latecomer.learned
                if line.missed:
                    line.first = latecomer.first

    # --- state ---------------------------------------------------------------------------------

    def replay(self, records: Sequence[Record]) -> None:
        """As `apply`. On a cluster there is nothing to replay: every commit holds the state.

        Raises:
            StateRefused: a decision started a line anew, and nothing says after which example.
        """
        self.apply(records)
        if self._restarted_by and records[0].topic == "registry":
            lines = ", ".join(sorted(self._restarted_by))
            raise StateRefused(
                f"learn-0: expected its state as it was written; it cannot be made again from the "
                f"examples, for decisions have started {lines} anew: restore the log from a copy, "
                "or begin another"
            )

    def note(self, notice: Notice) -> Output:
        """Take note of what befell the input."""
        self._must_checkpoint = True
        return record_notice(notice, self._alarms, self._watermark.ms, self.counts)

    def needs_checkpoint(self) -> bool:
        """Always: what is learned and judged depends on how the inputs alternated."""
        return True

    def must_checkpoint(self) -> bool:
        """When something was written (rule 6), or so many examples have been learned."""
        return self._must_checkpoint or self._since_checkpoint >= self._checkpoint_examples

    def dirty(self) -> list[StateEntry]:
        """The learners, each sealed by itself, and the figures beside them."""
        self._must_checkpoint = False
        self._since_checkpoint = 0
        with self._stopwatch.watch():
            learners = [
                (f"{LEARNERS}{name}", self._pack_line(name, line))
                for name, line in self._lines.items()
                if self._retrainings.has_new_model(name)
            ]
        keyless = {
            "n": self._n,
            "watermark": self._watermark.dump(),
            "numbers": self._numbers.dump(),
            "offsets": self._offsets,
            "golden": list(self._golden),
            "served": [self._served_loss, self._served_scored, self._epoch_n],
            "clock": self._clock.dump(),
            "change": self._served_change.dump(),
            "unsaid": self._unsaid,
            **self._retrainings.dump(),
            "alarms": self._alarms.dump(),
            "decisions": self._restarts.dump(),
            **({"kept": self._kept.served} if self._kept.is_active else {}),
            **({"restarted_by": self._restarted_by} if self._restarted_by else {}),
            **({"counts": self.counts} if self.counts else {}),
            **self._dump_efforts(),
            **self._dump_latecomers(),
            "lines": {
                name: [
                    line.parent,
                    bool(line.quarantine),
                    line.live_loss,
                    line.scored_count,
                    line.dear,
                ]
                for name, line in self._lines.items()
            },
            "blocks": {
                name: line.blocks.dump()
                for name, line in self._lines.items()
                if not line.quarantine
            },
            "quarantined": {
                name: [*line.quarantine] for name, line in self._lines.items() if line.quarantine
            },
        }
        deletions: list[StateEntry] = [
            (f"{LEARNERS}{name}", None) for name in self._undeclared_lines
        ]
        self._undeclared_lines = []
        rows = self._retrainings.dirty()
        kept = [(f"{KEPT}{name}", packed) for name, packed in self._kept.dirty()]
        return [(KEYLESS, orjson.dumps(keyless)), *learners, *kept, *deletions, *rows]

    def _dump_efforts(self) -> dict[str, Any]:
        """What the lines took, where it was measured."""
        if not self._is_timed:
            return {}
        efforts = {name: line.effort.dump() for name, line in self._lines.items()}
        return {"efforts": efforts}

    def _dump_latecomers(self) -> dict[str, Any]:
        """Who came late: where there is nobody, nothing."""
        latecomers = {name: each.dump() for name, each in self._latecomers.items()}
        missed = {
            name: [line.missed, line.first] for name, line in self._lines.items() if line.missed
        }
        return {
            name: value for name, value in (("latecomers", latecomers), ("missed", missed)) if value
        }

    def _pack_line(self, name: str, line: _Line) -> bytes | None:
        if line.quarantine:
            return None
        self._stopwatch.attend(name)
        try:
            return pack(line.learner, self._pipeline.recipes[name], self._key, line.payload)
        except SnapshotRefused as error:
            self._give_up(name, str(error))
            return None

    def _give_up(self, name: str, reason: str) -> None:
        """Quarantine a line where nothing can be written now."""
        self._quarantine(name, self._n, reason)
        self._unsaid.append((QUARANTINED, name, reason))

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state; the learners are unpickled only where their seal is ours."""
        entries = split_by_prefix(pieces, LEARNERS, KEPT, ROWS)
        ((_, value),) = entries[KEYLESS]
        keyless, learners = orjson.loads(value), dict(entries[LEARNERS])
        self._n = keyless["n"]
        self._watermark.load(keyless["watermark"])
        self._numbers.load(keyless.get("numbers", []))
        self._offsets = tuple(keyless["offsets"])
        self._golden.extend(keyless["golden"])
        self._served_loss, self._served_scored, self._epoch_n = keyless["served"]
        self._clock.load(keyless["clock"], self._watermark.ms)
        if "change" in keyless:  # a former release watched for none
            self._served_change.load(keyless["change"])
        self.counts |= keyless.get("counts", {})
        self._restarts.load(keyless.get("decisions", 0))
        self._restarted_by = keyless.get("restarted_by", {})
        self._kept.load(entries[KEPT], keyless.get("kept", {}))
        # What was written before there were other kinds has none.
        self._unsaid = [
            (kind[0] if kind else QUARANTINED, name, reason)
            for *kind, name, reason in keyless["unsaid"]
        ]
        # One that is declared again later starts anew.
        self._undeclared_lines = [name for name in keyless["lines"] if name not in self._lines]
        self._load_alarms(keyless)
        suspect = self._stopwatch.begin(self._n)
        with self._stopwatch.watch():
            self._load_lines(keyless, learners)
        self._retrainings.load(keyless, entries[ROWS], self._active(), learners)
        self._stop_suspect(suspect)

    def _load_lines(self, keyless: dict[str, Any], learners: dict[str, bytes]) -> None:
        """Take up the lines that go on; what is written once of a former release has defaults."""
        quarantines, blocks = keyless.get("quarantined", {}), keyless.get("blocks", {})
        efforts = keyless.get("efforts", {})
        for name, line in self._lines.items():
            if name not in keyless["lines"]:  # declared since
                # A retrained line's window begins now: what it is trained on is recent.
                if self._has_backlog and self._n and name not in self._retrainings:
                    self._latecomers[name] = Latecomer.begin(self._n, self._watermark.ms)
                    self._must_checkpoint = True
                continue
            parent, is_stopped, *figures = keyless["lines"][name]
            if is_stopped:
                was = quarantines.get(name, [self._n, "see the alerts", None])
                self._stay_or_restart(name, line, _Quarantine(*was))
                if line.quarantine is None:
                    continue
            line.live_loss, line.scored_count, *dear = figures
            if name in blocks:
                line.blocks.load(blocks[name])
            line.parent, line.dear = parent, any(dear)
            if name in efforts:
                line.effort.load(efforts[name])
            if name in keyless.get("latecomers", {}):
                self._latecomers[name] = Latecomer.of(keyless["latecomers"][name])
            line.missed, line.first = keyless.get("missed", {}).get(name, (0, None))
            if not is_stopped:
                self._stopwatch.attend(name)
                line.learner = self._unpack_line(name, learners[name])

    def _load_alarms(self, keyless: dict[str, Any]) -> None:
        """Take up what is open; of the state of a former release, what it has told."""
        self._alarms.load(keyless.get("alarms", ()))
        if "alarms" not in keyless:
            untold_lines = {name for _, name, _ in self._unsaid}
            for name, (_, is_stopped, *_) in keyless["lines"].items():
                if is_stopped and name not in untold_lines:
                    self._alarms.adopt(QUARANTINED, f"line:{name}", self._watermark.ms)
        for name in self._undeclared_lines:
            if self._alarms.is_open(QUARANTINED, f"line:{name}"):
                self._must_checkpoint = True
                self._unsaid.append(("line_gone", name, "it is not declared any more"))

    def _stay_or_restart(self, name: str, line: _Line, was: _Quarantine) -> None:
        """Rule 4: a line stays quarantined, or starts anew as it was declared."""
        if name in self._restart:
            reason = f"{RESTART_SETTING} names it"
        elif was.recipe not in {None, self._pipeline.recipes[name].description}:
            reason = "its recipe is another"
        else:
            line.learner, line.quarantine = None, was
            return
        self._must_checkpoint = True
        self._unsaid.append(("line_restarted", name, f"{reason}; it had stopped: {was.reason}"))

    def _unpack_line(self, name: str, data: bytes) -> Any:
        try:
            return unpack(data, self._pipeline.recipes[name], self._key)
        except SnapshotRefused as error:
            if error.reason not in UNREADABLE:
                raise
            self._give_up(name, str(error))
            return None


def _over_budget(taken_s: float, budget_s: float) -> str:
    """Why a line is quarantined that takes longer than it may."""
    return f"it takes {taken_s:.1f} s over an example, longer than its budget of {budget_s} s"


def quarantined_in(keyless: bytes | None) -> list[str]:
    """The lines that learn no more, of the piece of state that is no line's.

    Of one that is not as it was written, none: nobody has looked at its seal yet.
    """
    try:
        return list(orjson.loads(keyless or b"{}").get("quarantined", {}))
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return []


def _mean(total: float, n: int) -> float | None:
    # Losses may add up past what a float holds, where labels come near its largest.
    return total / n if n and math.isfinite(total) else None
