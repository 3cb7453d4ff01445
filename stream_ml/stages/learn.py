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

from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.defaults import CHECKPOINT_EXAMPLES
from stream_ml.errors import (
    BadRecord,
    SnapshotRefused,
    StateRefused,
    UsageError,
)
from stream_ml.generation import generation_after
from stream_ml.models.learner import RemoteLearner
from stream_ml.models.pickles import compress
from stream_ml.models.snapshot import Snapshot, pack, signed, take, unpack
from stream_ml.records import Output, version_of
from stream_ml.stages.backfill import Backfill
from stream_ml.stages.batches import LineBatches, batch_of
from stream_ml.stages.effort import (
    DEATHS_MAX,
    LOST,
    NO_STOPWATCH,
    SLOW_RUNNING,
    SNAPSHOT_BUDGETS,
)
from stream_ml.stages.inputs import example_in
from stream_ml.stages.kept_learners import KeptLearners
from stream_ml.stages.latecomers import Latecomer
from stream_ml.stages.learning_progress import LearningProgress, mean
from stream_ml.stages.lessons import Lessons
from stream_ml.stages.line_alerts import QUARANTINED, LineAlerts
from stream_ml.stages.lines import LiveLine, Quarantine, TrainingExample
from stream_ml.stages.positions import record_notice
from stream_ml.stages.restarts import Restart, Restarts, restart_of
from stream_ml.stages.retraining import Retrainings
from stream_ml.stages.state import KEPT, KEYLESS, LEARNERS, ROWS, split_by_prefix
from stream_ml.stages.teaching import Teaching
from stream_ml.stages.topology import task_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Decision, Example, Record
    from stream_ml.stages.effort import Stopwatch, Suspect
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.retraining import Trainings
    from stream_ml.stages.task import StateEntry
    from stream_ml.stages.teaching import Failure

__all__ = ["Learn", "quarantined_in"]

# A learner of more bytes than this (as its digest counts them: equal learners' pickles differ) for
# each example since the snapshot before costs more to write, check and load than learning from
# them did (a forest of Mondrian trees: about as much at half of it).
DEAR_BYTES = 16 * 1024
RESTART_SETTING = "STREAM_ML_RESTART_LINES"
# Why our own seal may hold what cannot be taken up again: the learner has outgrown it, or does not
# know its own bytes. Any other reason is about the seal itself, and stops the start.
UNREADABLE = frozenset({"class_not_allowed", "too_large", "unreadable", LOST})


class Learn:
    """The learn stage: all lines of a pipeline, or one of them where each is a task.

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
        line: the one that this task is about, where lines are tasks of their own; None: all.
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
        line: str | None = None,
    ) -> None:
        self._recipes = {
            name: recipe for name, recipe in pipeline.recipes.items() if line in {None, name}
        }
        self._is_line = line is not None
        self.name = task_name("learn", line=line)
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
            name: LiveLine(recipe.fresh(), is_relative=is_relative)
            for name, recipe in self._recipes.items()
        }
        self._views = {name: pipeline.line_view(name) for name in self._recipes}
        self._backfill = Backfill(pipeline)
        # What they know was logged: a task of a line that goes on has no features made again.
        present = pipeline.feature_set.hash
        self._knows_former = all(view.hash != present for view in self._views.values())
        self._retrainings = Retrainings(self._recipes, pipeline.target, trainings)
        # A line whose task begins on a running log publishes under the numbers of the others.
        self._progress = LearningProgress(pipeline, counts_gone=self._is_line)
        self._since_checkpoint = 0
        # What was passed over; evaluate counts the rest.
        self.counts: dict[str, int] = {}
        self._alerts = LineAlerts()
        self._teaching = Teaching(pipeline.target, self._stopwatch)
        self._restarts = Restarts(key, log)
        self._generation = pipeline.generation
        self._batches = LineBatches()
        self._lessons = Lessons()
        restores = pipeline.promotion.on_failure == "restore"
        self._kept = KeptLearners(self._recipes if restores else ())
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
        suspect = self._stopwatch.begin(0, self.name)
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
        progress = self._progress
        outputs = self._alerts.say_unsaid(progress.n, progress.watermark_ms)
        if records[0].topic == "registry":
            outputs += self._read_decisions(records)
            self._must_checkpoint |= bool(outputs)
            return outputs
        self._level()
        examples: list[TrainingExample] = []
        for record in records:
            example = example_in(record, self._pipeline)
            if isinstance(example, BadRecord) or not progress.is_new(example, record.offset):
                continue  # evaluate, which reads the same topic, writes the dead letter
            taken = self._take(example, record)
            if taken is not None:
                examples.append(taken)
            if progress.is_refresh():
                outputs += self._learn(examples)
                examples = []
                outputs += self._publish()
        outputs += self._learn(examples)
        self._since_checkpoint += len(records)
        self._must_checkpoint |= bool(outputs)
        return outputs

    @property
    def is_outdated(self) -> bool:
        """Whether other features were applied than are learned with here."""
        return self._generation.number > self._pipeline.generation.number

    def _read_decisions(self, records: Sequence[Record]) -> list[Output]:
        """Start the lines anew that decisions say."""
        outputs: list[Output] = []
        for record in records:
            decision = self._restarts.decision(record)
            if decision is None:
                continue
            self._generation = generation_after(self._generation, decision)
            for ref in decision.serving.lines.values():
                self._kept.serve(ref.model)
            batch = batch_of(decision)
            if batch is not None and batch.line in self._lines:
                self._batches.request(batch, decision.number)
                self._must_checkpoint = True
            restart = restart_of(decision)
            if restart is not None and restart.line in self._lines:
                outputs += self._start_anew(restart, decision)
        return outputs

    def _start_anew(self, restart: Restart, decision: Decision) -> list[Output]:
        """Let a line go on from a snapshot that is kept, else from nothing."""
        name = restart.line
        recipe, learner = self._recipes[name], None
        packed = self._kept.find(restart.model)
        if packed is not None:
            with suppress(SnapshotRefused):
                learner = unpack(packed, recipe, self._key)
        is_relative = self._pipeline.target.kind == "regression"
        origin = "from nothing" if learner is None else f"from {restart.model}"
        is_new = learner is None
        line = LiveLine(recipe.fresh() if is_new else learner, is_relative=is_relative)
        line.parent = None if is_new else restart.model
        version = None if is_new else version_of(restart.model or "")
        line.begin(self._lines[name], self._progress.n, self._progress.offsets[1], version)
        self._lines[name] = line
        self._retrainings.clear(name)
        self._latecomers.pop(name, None)
        self._restarted_by[name] = decision.number
        self._batches.begin_anew(name)
        self._must_checkpoint = True
        progress = self._progress
        return self._alerts.restarted(name, origin, progress.n, progress.watermark_ms, decision)

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

    def _take(self, example: Example, record: Record) -> TrainingExample | None:
        """Count an example; what is to be learned from it, if anything."""
        features, is_partial = self._backfill.features(example)
        taken = self._progress.take(example, record.offset, record.append_ms, features)
        if not self._lessons.takes(example, self._pipeline.label):
            return None
        if self._retrainings:
            self._retrainings.add(self._active(), taken.watermark_ms, taken.features, taken.label)
        logged = example.prediction.features
        if features is logged and not is_partial:
            return taken
        return taken._replace(is_partial=is_partial, logged=logged)

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
                failure = self._teach(name, line, self._known(name, line, examples))
                if failure is not None:
                    example, reason = failure
                    self._quarantine(name, example.n, reason)
                    n, watermark_ms = example.n, example.watermark_ms
                    told = self._alerts.quarantined(name, reason, n, watermark_ms)
                    alerts += [(n, alert) for alert in told]
        # In the order of the examples, however many came at once.
        return [alert for _, alert in sorted(alerts, key=itemgetter(0))]

    def _known(
        self, name: str, line: LiveLine, examples: Sequence[TrainingExample]
    ) -> Sequence[TrainingExample]:
        """The examples with what a line knows of their features; some are passed over for that."""
        view = self._views[name]
        if view.hash != self._pipeline.feature_set.hash:
            return [
                each._replace(features=view.select({**each.features, **(each.logged or {})}))
                for each in examples
            ]
        known = [each for each in examples if not each.is_partial]
        line.missed += len(examples) - len(known)
        if view.is_whole:
            return known
        return [each._replace(features=view.select(each.features)) for each in known]

    def _teach(
        self, name: str, line: LiveLine, examples: Sequence[TrainingExample]
    ) -> Failure | None:
        """Teach a line all of `examples`; the one at which it failed, and why, if it did."""
        is_late, is_retrained = name in self._latecomers, name in self._retrainings
        return self._teaching.teach(
            name, line, examples, is_late=is_late, is_retrained=is_retrained
        )

    def _publish(self) -> list[Output]:
        # Who trains is bounded by itself, and may be waited for longer than a learner.
        models, failures = self._retrainings.publish(self._active())
        outputs: list[Output] = []
        for name, reason in failures.items():
            self._quarantine(name, self._progress.n, reason)
            outputs += self._alert(name, reason)
        self._latecomers = {
            name: latecomer
            for name, latecomer in self._latecomers.items()
            if not (
                latecomer.is_level
                and latecomer.is_due(self._progress.n, self._progress.watermark_ms)
            )
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
                        line.learner = self._recipes[name].load(models[name])
                    self._set_batch(name, line)
                    draft = self._draft(name, line)
                    self._check_pace(line, self._stopwatch.seconds() - start_s, draft)
                    drafts += [draft, *self._price(name, line, draft.extent or 0)]
                except SnapshotRefused as error:
                    self._quarantine(name, self._progress.n, str(error))
                    drafts += self._alert(name, str(error))
        outputs += [self._output(each) if isinstance(each, Snapshot) else each for each in drafts]
        is_sooner = self._progress.clock.is_sooner
        self._retrainings.begin(
            self._active(), self._progress.n, self._progress.watermark_ms, is_sooner=is_sooner
        )
        self._progress.refreshed()
        return outputs

    def _set_batch(self, name: str, line: LiveLine) -> None:
        """Carry out what was asked of a line's batches.

        Raises:
            SnapshotRefused: the learner fails at it.
        """
        size = self._batches.due_size(name)
        if size is not None:
            line.payload = None
            self._recipes[name].set_batch(line.learner, size)
            self._batches.complete(name, self._progress.offsets[1])

    def _check_pace(self, line: LiveLine, taken_s: float, draft: Snapshot) -> None:
        """Take note of what a snapshot took.

        Raises:
            SnapshotRefused: it is one too many that took longer than it may.
        """
        line.effort.published(taken_s, len(draft.payload))
        most_s = SNAPSHOT_BUDGETS * self._stopwatch.budget_s
        if line.effort.publishes_too_slowly(is_slow=taken_s > most_s):
            raise SnapshotRefused(
                "too_slow",
                f"its snapshot took {taken_s:.3g} s, longer than {most_s:g} s, {SNAPSHOT_BUDGETS} "
                f"times its budget of an example, {SLOW_RUNNING} times running",
            )

    def _price(self, name: str, line: LiveLine, size: int) -> list[Output]:
        """Say once of a line that its snapshots cost more than they should."""
        progress = self._progress
        if line.dear or size <= DEAR_BYTES * progress.epoch_n:
            return []
        line.dear = True
        message = (
            f"the learner of the line {name!r} took {size} bytes after {progress.epoch_n} "
            f"examples, more than {DEAR_BYTES} for each: writing, checking and loading it costs "
            "more than they did; way out: a longer `refresh`, or a learner with a bound "
            "(`max_depth`)"
        )
        figures = {"line": name, "examples": progress.n, "bytes": size, "since": progress.epoch_n}
        return self._alerts.alarms.once(
            "snapshot_dear", message, progress.watermark_ms, figures, f"line:{name}"
        )

    def _draft(self, name: str, line: LiveLine) -> Snapshot:
        """A snapshot of a line, but for its signature, and the lines that publish with it."""
        recipe = self._recipes[name]
        snapshot = take(
            line.learner,
            recipe,
            self._pipeline.target,
            version=self._progress.n,
            feature_hash=self._views[name].hash,
            parent=line.parent,
            examples={
                "count": self._progress.n - self._progress.gone - line.missed,
                "first": self._progress.offsets[0] if line.first is None else line.first,
                "last": self._progress.offsets[1],
            },
            epoch={
                "n": self._progress.epoch_n,
                "watermark": self._progress.watermark_ms,
                "live_loss": mean(line.live_loss, line.scored_count),
                "served_loss": self._progress.served_loss,
                **({"cause": "loss_change"} if self._progress.clock.is_sooner else {}),
                **({"restarted": self._restarted_by[name]} if name in self._restarted_by else {}),
                **self._retrainings.figures(name),
                **self._batches.figures(name, self._progress.offsets[1]),
                "excess": line.blocks.take(),
                "lines": [],
            },
            golden_features=map(self._views[name].select, self._progress.golden),
            key=None,
            log=self._log,
        )
        line.parent, line.payload = snapshot.model, snapshot.payload
        self._restarted_by.pop(name, None)
        if self._kept.is_active:
            packed = pack(line.learner, recipe, self._key, snapshot.payload)
            self._kept.add(name, self._progress.n, packed)
        line.live_loss, line.scored_count = 0.0, 0
        return snapshot

    def _output(self, draft: Snapshot) -> Output:
        """A draft, whole: who publishes with it is known when every line has been tried.

        Else evaluate would wait for one that has failed at this very instant.
        """
        lines = [name for name in self._active() if name not in self._latecomers]
        late = {"late": sorted(self._latecomers)} if self._latecomers else {}
        # Where lines are tasks of their own nothing is said of those of other tasks.
        task = {"task": list(self._lines)} if self._is_line else {}
        snapshot = signed(draft, self._key, {"lines": lines, **late, **task})
        return Output("models", snapshot.model.encode(), snapshot.encode(), snapshot)

    def _quarantine(self, name: str, n: int, reason: str) -> None:
        line = self._lines[name]
        line.quarantine = Quarantine(n, reason, self._recipes[name].description)
        line.learner = None  # it would stand in the way of checkpoints
        self._retrainings.clear(name)
        self._latecomers.pop(name, None)

    def _alert(self, name: str, reason: str) -> list[Output]:
        progress = self._progress
        return self._alerts.quarantined(name, reason, progress.n, progress.watermark_ms)

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
        n, newest_ms = self._progress.n + len(records), self.newest_ms(records)
        return any(
            each.is_due(n, max(newest_ms, self._progress.watermark_ms))
            for name, each in self._latecomers.items()
            if self._is_behind(name)
        )

    def wanted(self, records: Sequence[Record]) -> list[tuple[int, int]]:
        """The events, by partition and offset, whose features these records need beside their own.

        Args:
            records: that `apply` or `catch_up` is given next.
        """
        if records[0].topic != "examples" or self._knows_former:
            return []
        return self._backfill.wanted(records)

    def newest_ms(self, records: Sequence[Record]) -> int:
        """The event time that these examples have come to, in ms; -1: none has a time.

        Args:
            records: of `examples`.
        """
        examples = [example_in(record, self._pipeline) for record in records]
        times = [each.label_ts for each in examples if not isinstance(each, BadRecord)]
        return max(times, default=-1)

    def supply(self, vectors: Mapping[tuple[int, int], dict[str, float] | None]) -> None:
        """Take in features that were wanted.

        Args:
            vectors: by event; None where they cannot be made.
        """
        self._backfill.supply(vectors)

    def catch_up(self, records: Sequence[Record]) -> list[Output]:
        """Teach those who are behind, and tell what befell them.

        Args:
            records: of `examples`, from `backlog` on; none if nothing is left there.
        """
        self._since_checkpoint += len(records)
        with self._stopwatch.watch():
            for name, latecomer in list(self._latecomers.items()):
                if not self._is_behind(name):
                    continue
                taken = latecomer.take(records, self._progress.offsets[1], self._pipeline)
                line, examples = self._lines[name], list[TrainingExample]()
                for number, each in taken:
                    features, is_partial = self._backfill.features(each)
                    examples.append(
                        TrainingExample(number, -1, "", None, features, each.label, is_partial)
                    )
                failure = self._teach(name, line, self._known(name, line, examples))
                if failure is not None:
                    self._give_up(name, failure[1])
                    self._must_checkpoint = True
        self._level()
        return self._alerts.say_unsaid(self._progress.n, self._progress.watermark_ms)

    def _is_behind(self, name: str) -> bool:
        latecomer = self._latecomers.get(name)
        return latecomer is not None and not latecomer.is_level

    def _level(self) -> None:
        """Let those learn with the others who have learned all that they have."""
        for name, latecomer in self._latecomers.items():
            if not latecomer.is_level and latecomer.next > self._progress.offsets[1]:
                latecomer.is_level = self._must_checkpoint = True
                line = self._lines[name]
                line.missed += self._progress.n - latecomer.learned
                if line.missed:
                    line.first = latecomer.first

    # --- state ---------------------------------------------------------------------------------

    def replay(self, records: Sequence[Record]) -> None:
        """As `apply`. On a cluster there is nothing to replay: every commit holds the state.

        Raises:
            StateRefused: a decision among them started a line anew, or changed its batches, and
                nothing says after which example.
        """
        former = self._change_decisions()
        self.apply(records)
        changed = sorted({line for line, _ in self._change_decisions() - former})
        if changed and records[0].topic == "registry":
            raise StateRefused(
                f"{self.name}: expected its state as it was written; it cannot be made again from "
                f"the examples, for decisions have started {', '.join(changed)} anew, or changed "
                "their batches: restore the log from a copy, or begin another"
            )

    def _change_decisions(self) -> set[tuple[str, int]]:
        """The lines that decisions have changed, each with the number of the newest ones."""
        return {*self._restarted_by.items(), *self._batches.decisions()}

    def note(self, notice: Notice) -> Output:
        """Take note of what befell the input."""
        self._must_checkpoint = True
        return record_notice(notice, self._alerts.alarms, self._progress.watermark_ms, self.counts)

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
            **self._progress.dump(),
            "unsaid": self._alerts.unsaid,
            **self._retrainings.dump(),
            "alarms": self._alerts.alarms.dump(),
            "decisions": self._restarts.dump(),
            **self._batches.dump(),
            **({"kept": self._kept.served} if self._kept.is_active else {}),
            **({"restarted_by": self._restarted_by} if self._restarted_by else {}),
            **({"counts": self.counts} if self.counts else {}),
            **self._dump_efforts(),
            **self._dump_latecomers(),
            **({"lessons": lessons} if (lessons := self._lessons.dump()) else {}),
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
            name: [line.missed, line.first, *line.beginnings]
            for name, line in self._lines.items()
            if line.missed or line.beginnings
        }
        return {
            name: value for name, value in (("latecomers", latecomers), ("missed", missed)) if value
        }

    def prepare(self, *, is_due: bool = False) -> None:
        """Write down what is in other processes, so that `dirty` need not wait for them.

        Args:
            is_due: whether the state is written next, must it be or not.
        """
        if not (is_due or self.must_checkpoint()):
            return
        with self._stopwatch.watch():
            for name, line in self._lines.items():
                if isinstance(line.learner, RemoteLearner) and line.payload is None:
                    self._stopwatch.attend(name)
                    try:
                        line.payload = compress(self._recipes[name].dump(line.learner))
                    except SnapshotRefused as error:
                        self._give_up(name, str(error))

    def _pack_line(self, name: str, line: LiveLine) -> bytes | None:
        if line.quarantine:
            return None
        self._stopwatch.attend(name)
        try:
            return pack(line.learner, self._recipes[name], self._key, line.payload)
        except SnapshotRefused as error:
            self._give_up(name, str(error))
            return None

    def _give_up(self, name: str, reason: str) -> None:
        """Quarantine a line where nothing can be written now."""
        self._quarantine(name, self._progress.n, reason)
        self._alerts.later(QUARANTINED, name, reason)

    def sibling_state(self) -> list[tuple[str, bytes]]:
        """The state that a task of another line goes on from which has none yet.

        To it that line is declared on a running log, and is taught what this one has learned.
        """
        state = {
            **self._progress.dump(),
            "unsaid": [],
            "alarms": [],
            "decisions": self._restarts.dump(),
            "lines": {},
        }
        return [(KEYLESS, orjson.dumps(state))]

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state; the learners are unpickled only where their seal is ours."""
        entries = split_by_prefix(pieces, LEARNERS, KEPT, ROWS)
        ((_, value),) = entries[KEYLESS]
        keyless, learners = orjson.loads(value), dict(entries[LEARNERS])
        self._progress.load(keyless)
        self._lessons = Lessons.of(keyless.get("lessons", ()))
        self.counts |= keyless.get("counts", {})
        self._restarts.load(keyless.get("decisions", 0))
        self._restarted_by = keyless.get("restarted_by", {})
        self._batches.load(keyless, self._lines)
        self._kept.load(entries[KEPT], keyless.get("kept", {}))
        # One that is declared again later starts anew.
        self._undeclared_lines = [name for name in keyless["lines"] if name not in self._lines]
        gone = self._alerts.load(keyless, self._undeclared_lines, self._progress.watermark_ms)
        self._must_checkpoint |= bool(gone)
        suspect = self._stopwatch.begin(self._progress.n, self.name)
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
                if self._has_backlog and self._progress.n and name not in self._retrainings:
                    self._latecomers[name] = Latecomer.begin(
                        self._progress.n, self._progress.watermark_ms
                    )
                    self._must_checkpoint = True
                continue
            parent, is_stopped, *figures = keyless["lines"][name]
            if is_stopped:
                was = quarantines.get(name, [self._progress.n, "see the alerts", None])
                self._stay_or_restart(name, line, Quarantine(*was))
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
            line.missed, line.first, *beginnings = keyless.get("missed", {}).get(name, (0, None))
            line.beginnings = [(n, missed, first) for n, missed, first in beginnings]
            if not is_stopped:
                self._stopwatch.attend(name)
                line.learner = self._unpack_line(name, learners[name])

    def _stay_or_restart(self, name: str, line: LiveLine, was: Quarantine) -> None:
        """Rule 4: a line stays quarantined, or starts anew as it was declared."""
        if name in self._restart:
            reason = f"{RESTART_SETTING} names it"
        elif was.recipe not in {None, self._recipes[name].description}:
            reason = "its recipe is another"
        else:
            line.learner, line.quarantine = None, was
            return
        if was.recipe in {None, self._recipes[name].description}:
            self._batches.begin_anew(name)
        else:
            self._batches.forget(name)
        self._must_checkpoint = True
        line.begin(line, self._progress.n, self._progress.offsets[1], None)
        self._alerts.later("line_restarted", name, f"{reason}; it had stopped: {was.reason}")

    def _unpack_line(self, name: str, data: bytes) -> Any:
        try:
            return unpack(data, self._recipes[name], self._key)
        except SnapshotRefused as error:
            if error.reason not in UNREADABLE:
                raise
            self._give_up(name, str(error))
            return None


def quarantined_in(keyless: bytes | None) -> list[str]:
    """The lines that learn no more, of the piece of state that is no line's.

    Of one that is not as it was written, none: nobody has looked at its seal yet.
    """
    try:
        return list(orjson.loads(keyless or b"{}").get("quarantined", {}))
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return []
