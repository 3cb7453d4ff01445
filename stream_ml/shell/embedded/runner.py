"""Drives the stages on the embedded log, all in one process.

Theory of operation:

1. The next record is picked by a fixed rule: the earliest time; a label before an event at the
   same time; then the lower partition; within a partition in offset order. So what comes out is a
   function of what lies in the log, not of when it was read. (A command is picked at once: its
   time is an operator's, not the events'. And of a log that is still being written to, what is
   there is picked: what was committed stands, but another cut might have renewed models a round
   sooner or later.)
2. What is picked is worked on in rounds of `ROUND_RECORDS`, counted from the start of the log: a
   round's events are predicted, then its labels joined, then its examples learned from and
   evaluated. A stage at a time, and in it a model at a time, keeps what it works with in the
   processor's caches (over a third faster than a record at a time through all of them). So a new
   serving set takes effect at the next round. Where `refresh` counts examples, a round is one
   record, and it takes effect at once.
3. A transaction holds what a batch of inputs led to: outputs, positions and state of every stage.
   Learn and evaluate may stay behind (their state is dear to write); after a crash they fold the
   same examples again, which the log still holds, and write nothing twice.
   What shadows said (`answers`) waits for evaluate's state, as nobody waits for it.
4. Where a line's process does not answer, predicting and joining go on within the wait (`wait`):
   it delays renewals, and no prediction. What is written for learn and evaluate waits for them.
5. An exception in a stage stops the process: a batch is never skipped.
"""

from __future__ import annotations

import heapq
import math
import time
from contextlib import contextmanager, nullcontext
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from stream_ml.defaults import CHECKPOINT_EXAMPLES, CHECKPOINT_S, COMMAND_AGE_MS
from stream_ml.differences import accepted_changes
from stream_ml.errors import StreamMLError
from stream_ml.models.snapshot import Snapshot
from stream_ml.sealing import SEALED_TOPICS, RestoredState, Seals, checkpoint_seal
from stream_ml.shell.embedded.cursor import READ_RECORDS, Cursor, heads_of
from stream_ml.shell.embedded.garbage import collect_less_often
from stream_ml.shell.embedded.wait import INBOX_RECORDS, SERVE_S, Wait
from stream_ml.shell.handover import BEGIN_ANEW, Preparation, handover
from stream_ml.shell.log.manifest import NAME, OWNER, TOPIC, Manifest, refuse_unread
from stream_ml.shell.log.port import whole_piece
from stream_ml.shell.log.reading import ends_of
from stream_ml.shell.processes.isolation import isolated
from stream_ml.shell.regeneration import LearnFeatures
from stream_ml.shell.restoration import (
    ahead_alert,
    changed_notice,
    exclusive_alert,
    positions_alert,
    refuse_forgotten,
    remade_alert,
    setback_alert,
    take_up,
)
from stream_ml.signing import Keyring
from stream_ml.stages.delayed import new_predict
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.inputs import open_sealed
from stream_ml.stages.join import Join
from stream_ml.stages.latecomers import PACE
from stream_ml.stages.learn import Learn, quarantined_in
from stream_ml.stages.partitioning import refuse_partitions
from stream_ml.stages.positions import Extent, ResumePoint, find_resume_point
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.stages.task import Task
from stream_ml.stages.topology import STAGES, parse_task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from stream_ml.generation import Generation
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output, Record
    from stream_ml.sealing import Marker, SealedState
    from stream_ml.shell.embedded.cursor import Head
    from stream_ml.shell.log.port import PartitionId, WorkerLog
    from stream_ml.shell.processes.isolation import Isolations
    from stream_ml.shell.restoration import TakenUp
    from stream_ml.signing import Operator
    from stream_ml.stages.effort import Stopwatch
    from stream_ml.stages.retraining import Trainings

__all__ = ["Runner"]

# Inputs per transaction: large enough that a commit costs little (half as many would cost 2 %
# more), small enough (a second of work) that readers of a busy log wait no longer for predictions.
BATCH_RECORDS = 10_000
BATCH_S = 2.0
# Inputs per round: 64 would cost 3 % more, and 512 no less. Whatever waits for the end of a round
# waits for some 25 ms of work.
ROUND_RECORDS = 256
# So many examples are one stretch of what a line that was declared late is taught.
CATCH_UP_RECORDS = 256
# Between two batches it is taught as many stretches as keep its pace, but for no longer than this:
# what is left then is taught before it is due at the latest.
CATCH_UP_S = 0.5
# How long all others are kept from writing, where somebody writes too often to commit beside him;
# and for how long nobody may have done so before they are let write again.
EXCLUSIVE_S = 0.5
QUIET_S = 10.0
OFFSET_MAX = 2**63 - 1
# Written with the state of who writes it, and not sooner.
WITH_STATE = "answers"

T = TypeVar("T")


class Runner:
    """The worker of a pipeline on the embedded log; a context manager.

    Args:
        log: where everything is read from and written to.
        pipeline: the declaration.
        key: signs and verifies snapshots, checkpoints and the registry.
        operators: whose commands are obeyed, by name, beside those signed with `key` itself.
        checkpoint_examples: after how many examples the live learners are written down at the
            latest.
        checkpoint_s: after how many seconds they are.
        restart_lines: quarantined lines to start anew, from nothing.
        stopwatch: measures what lines take; None: nothing is measured, and none is too slow.
        trainings: whoever trains the lines that are retrained; None: this process, in its turn.
        isolations: by stage, learn and evaluate, the processes of lines that have some; None: all
            run in this process.
        command_age_s: how far a command's time may be from its arrival on the log, in seconds.
        accept_unsealed: whether what a former release wrote, which did not seal, is believed.
        apply: why other features are to be brought about than the log has been worked on with;
            None: they are not, and a declaration of others is refused.
        preparation: windows for that which were filled meanwhile.
        accepted_topics: topics that are taken for what they are now, whatever was read of them.
        exclusive: whether others are kept from writing while a batch is worked on, until nobody
            has written where only the worker may for a while.
        step: called between any two steps with the name of the one that was done; for tests.

    Raises:
        LogLocked: another worker is at work on this log.
        UsageError: what lies there is of another key, pipeline or log.
        StateRefused: the state is not what was written, and cannot be made again.
        StreamMLError: the models that should serve cannot be loaded.
    """

    def __init__(
        self,
        log: WorkerLog,
        pipeline: Pipeline,
        key: bytes,
        *,
        operators: Mapping[str, Operator] | None = None,
        checkpoint_examples: int = CHECKPOINT_EXAMPLES,
        checkpoint_s: float = CHECKPOINT_S,
        restart_lines: Collection[str] = (),
        stopwatch: Stopwatch | None = None,
        trainings: Trainings | None = None,
        isolations: Isolations | None = None,
        command_age_s: float = COMMAND_AGE_MS / 1_000,
        accept_unsealed: bool = False,
        accepted_topics: Collection[str] = (),
        exclusive: bool = False,
        apply: str | None = None,
        preparation: Preparation | None = None,
        step: Callable[[str], None] | None = None,
    ) -> None:
        self._log, self.key = log, key
        self._accepted_topics, self.exclusive = accepted_topics, exclusive
        self._checkpoint_s = checkpoint_s
        self._quiet_since = self._checkpointed_s = time.monotonic()
        self._step = step or (lambda _: None)
        self._accept_unsealed = accept_unsealed
        pipeline = self._take_over(pipeline, apply, preparation)
        self._declaration = pipeline.declaration()
        self.serving = Serving(pipeline, key, log.identity)
        events, labels = log.partitions["events"], log.partitions["predictions"]
        serving, parts, erasures = self.serving, range(events), self._handover.erasures
        self._features = LearnFeatures(log, pipeline, erasures)
        self.predicts = [new_predict(pipeline, serving, p, erasures=erasures) for p in parts]
        self.joins = [Join(pipeline, events, partition=p, erasures=erasures) for p in range(labels)]
        learned, judged = isolated(pipeline, isolations)
        options: Any = {"stopwatch": stopwatch, "trainings": trainings, "log": log.identity}
        options |= {"checkpoint_examples": checkpoint_examples, "restart": restart_lines}
        self.learns = [
            Learn(learned, key, line=line, has_backlog=True, **options)
            for line in pipeline.learn_task_lines
        ]
        given = judged, Keyring(key, operators or {}), log.identity
        options = {"command_age_ms": round(command_age_s * 1_000), "stopwatch": stopwatch}
        self.evaluate = Evaluate(*given, in_order=True, **options)
        self.tasks = self._make_tasks()
        self._states: dict[str, SealedState] = {}
        self._manifest = Manifest(None, self._seals.records(TOPIC))
        self._alerts: list[Output] = []  # that wait until all states are taken up
        self._has_warned_ahead = False
        # What of the declaration is another than it was, and was taken up: a sentence each.
        self.changes: list[str] = []
        # Tasks whose positions in the log's table, or whose declaration, are not as in their state.
        self._astray: set[str] = set()
        # Of each task with a state, how its last checkpoint ended.
        self.markers: dict[str, Marker] = {}
        self._readers = self._reader_table()
        self._inbox: dict[PartitionId, list[Record]] = {}
        # The snapshots that wait for the commit, by offset; the examples, while a line is behind;
        # what shadows said, until evaluate's state is written.
        self._staged_models: dict[int, Record] = {}
        self._staged_examples: list[Record] = []
        self._answers: list[Output] = []
        self._wait = Wait()
        self._round = ROUND_RECORDS if pipeline.refresh_ms is not None else 1
        self._committed_positions = {task.name: dict(task.positions) for task in self.tasks}
        collect_less_often()
        self._or_close(self._restore)
        self._cursors = list(self._inputs())
        self._isolate(isolations or {})

    def _take_over(
        self, pipeline: Pipeline, apply: str | None, preparation: Preparation | None
    ) -> Pipeline:
        """Take the worker's place, and up the declaration as it runs there."""
        log, key = self._log, self.key
        refuse_partitions(pipeline, log.partitions["events"], is_embedded=True)
        self._seals = Seals(key, pipeline.name, log.identity)
        self._topic_seals = {topic: self._seals.records(topic) for topic in SEALED_TOPICS}
        self._log_name = getattr(log, "path", "the log")
        self._preparation = preparation
        self._session = log.session(pipeline.extra_topics)
        self._handover = self._or_close(
            lambda: handover(log, pipeline, key, self._seals, apply=apply, log_name=self._log_name)
        )
        return self._handover.pipeline

    def _or_close(self, step: Callable[[], T]) -> T:
        """Take a step of the start; where it fails, the worker's place is given up."""
        try:
            return step()
        except BaseException:
            self._session.close()
            raise

    def _make_tasks(self) -> list[Task]:
        """A task for each stage and partition, in the order in which the data flows."""
        return [
            *(Task(f"predict-{p}", stage) for p, stage in enumerate(self.predicts)),
            *(Task(f"join-{p}", stage) for p, stage in enumerate(self.joins)),
            *(Task(stage.name, stage) for stage in self.learns),
            Task("evaluate-0", self.evaluate),
        ]

    def _reader_table(self) -> dict[PartitionId, tuple[Task | Serving, ...]]:
        """Who reads what a stage writes, in the order in which the data flows."""
        joins = [task for task in self.tasks if isinstance(task.stage, Join)]
        *learns, evaluate = self.tasks[-1 - len(self.learns) :]
        return {
            **{("predictions", p): (task,) for p, task in enumerate(joins)},
            ("examples", 0): (*learns, evaluate),
            ("models", 0): (evaluate, self.serving),
            ("registry", 0): (*learns, evaluate, self.serving),
            ("summaries", 0): (evaluate,),
        }

    def _inputs(self) -> Iterator[Cursor]:
        """What is read of what clients write, by the task that works on it."""
        stages: Mapping[str, Sequence[Predict | Join | Evaluate]] = {
            "events": self.predicts,
            "labels": self.joins,
            "commands": [self.evaluate],
        }
        tasks = {id(task.stage): task for task in self.tasks}
        for topic, group in stages.items():
            for p, stage in enumerate(group):
                yield Cursor(self._session, topic, p, tasks[id(stage)], stage.parse)

    @property
    def generation(self) -> Generation:
        """The generation of features that runs."""
        return self._handover.pipeline.generation

    @property
    def lines(self) -> list[str]:
        """The lines, by the names that they run under."""
        return list(self._handover.pipeline.recipes)

    # --- start ---------------------------------------------------------------------------------

    def _restore(self) -> None:
        # With the worker's place: nobody else's commit comes between the states and the manifest.
        self._manifest = Manifest(self._log.piece(OWNER, NAME), self._seals.records(TOPIC))
        fresh = [task for task in self.tasks if not self._take_up(task)]
        fresh = [task for task in fresh if not self._join_siblings(task, fresh)]
        own_writes = self._manifest.own_writes
        if own_writes is not None:
            self._refuse_unread(own_writes.ends)
        self._session.resume(own_writes)
        self._load_serving()
        with self._session.exclusive() if self.exclusive else nullcontext():
            self._begin(fresh)
        if self.serving.current() is None:
            raise StreamMLError(f"nothing can serve: {self._refusal_reason()}")

    def _begin(self, fresh: Sequence[Task]) -> None:
        """Tell what befell, and work on what lies between the stages."""
        if self._session.setback_ms:
            self._alerts.append(setback_alert(self._session.setback_ms))
        if self.exclusive:
            self._alerts.append(exclusive_alert())
        self._deliver(self._alerts)
        self._alerts = []
        if self._handover.generation is not None:
            generation, reason = self._handover.generation, self._handover.reason
            self._deliver([self.evaluate.begin_generation(generation, reason)])
        for (topic, partition), readers in self._readers.items():
            for reader in readers:
                if isinstance(reader, Task):
                    self._catch_up(reader, topic, partition)
        for task in fresh:
            self._deliver(task.stage.start())
        if self.changes:
            self._deliver([self.evaluate.note(changed_notice(self.changes))])
        self._flow()
        self.commit()

    def _refuse_unread(self, ends: Mapping[PartitionId, int]) -> None:
        """Refuse states that are older than what lies behind the worker's last commit."""
        read = {
            topic_partition: offset
            for task in self.tasks
            for topic_partition, offset in task.positions.items()
        }
        log = self._log
        input_ends = ends_of(log, ("events", "labels"))
        for topic in ("predictions", "examples"):
            for partition in range(log.partitions[topic]):
                end = ends.get((topic, partition), OFFSET_MAX)
                for records in self._scan(topic, partition, end):
                    refuse_unread(records, read, input_ends)

    def _take_up(self, task: Task) -> bool:
        """Give a task its state; False if it never had one."""
        name, log = task.name, self._log
        state = self._states[name] = self._seals.state(name)
        pieces = dict(log.state(name))
        restoration = state.restore(pieces.items())
        self._manifest.compare(name, restoration, pieces)
        committed_positions = log.committed(name)
        if self._handover.is_outdated(name, restoration):
            state.begin_anew()
            restoration, committed_positions = RestoredState(), {}
        positions = {} if restoration.marker is None else restoration.marker.positions
        begins = {(topic, p): log.first_offset(topic, p) for topic, p in positions}
        start = take_up(
            name,
            restoration,
            committed_positions,
            begins,
            accept_unsealed=self._accept_unsealed,
        )
        if start.marker is not None:
            self.markers[name] = start.marker
            # No number is given twice, whatever was put back.
            state.number = start.marker.number
            self._agree(name, start.marker.declaration)
            if isinstance(task.stage, Predict):
                task.stage.former_declaration = start.marker.declaration
            if start.marker.manifest:
                self._manifest.note(
                    name, state.number, checkpoint_seal(pieces), start.marker.positions
                )
            else:
                self._astray.add(name)
        self._committed_positions[name] = committed_positions
        resume_point = self._resume_point(name, start.positions or {})
        if start.positions is None:
            self._go_on(task, resume_point)
            return False
        if restoration.plain:
            state.adopt(restoration.plain)
        if start.marker is not None and committed_positions != start.positions:
            # What counts is sealed; the table beside it is for readers.
            self._alerts.append(positions_alert(name))
            self._astray.add(name)
        if start.remade is None and self._handover.generation and isinstance(task.stage, Predict):
            self._rebuild(task, task.stage, start)
        elif start.remade is None:
            task.restore(start.pieces)
        else:
            state.begin_anew()
            self._astray.add(name)
            records = self._remake(task, start.positions)
            self._alerts.append(remade_alert(name, start.remade, records))
        self._go_on(task, resume_point)
        return True

    def _join_siblings(self, task: Task, fresh: Collection[Task]) -> bool:
        """Let a line that is declared on a running log go on from where another one is."""
        if not isinstance(task.stage, Learn):
            return False
        for sibling in self.tasks:
            if isinstance(sibling.stage, Learn) and sibling not in fresh:
                task.restore(sibling.stage.sibling_state())
                task.positions = dict(sibling.positions)
                self._astray.add(task.name)
                return True
        return False

    def _go_on(self, task: Task, resume_point: ResumePoint) -> None:
        """Take up positions, and tell what befell them."""
        task.positions = dict(resume_point.read)
        for notice in resume_point.notices:
            self._alerts.append(task.stage.note(notice))

    def _agree(self, task: str, declaration: Mapping[str, str]) -> None:
        """Make sure that the state of a task may be gone on with as it is declared now.

        Raises:
            UsageError: it was made under a declaration that differs too much.
        """
        changes = accepted_changes(
            declaration,
            self._declaration,
            self._log_name,
            BEGIN_ANEW,
            [
                self.generation.declared(line)
                for stage in self.learns
                for line in quarantined_in(whole_piece(self._log, stage.name, ""))
            ],
            applied_texts=self._declaration if self._handover.generation is not None else None,
            applied_lines=self.generation.applied_lines(self._declaration),
        )
        if changes:
            # With what is told goes the declaration, so that it is told once.
            self._astray.add(task)
        self.changes += [change for change in changes if change not in self.changes]

    def _rebuild(self, task: Task, stage: Predict, start: TakenUp) -> None:
        """Take up the state of predict, with windows of other features, made from its events."""
        preparation = self._preparation or Preparation(self._log, self._handover)
        partition = self.predicts.index(stage)
        end = (start.positions or {}).get(("events", partition), 0)
        stage.rebuild(task.entries(start.pieces), preparation.events(partition, end))

    def _remake(self, task: Task, ends: Mapping[PartitionId, int]) -> int:
        """Fold again what led to a state, without writing anything; how many records it was."""
        count = 0
        for (topic, partition), end in ends.items():
            for records in self._scan(topic, partition, 0, end):
                refuse_forgotten(task.name, records)
                task.replay(records)
                count += len(records)
        return count

    def _resume_point(self, task: str, positions: Mapping[PartitionId, int]) -> ResumePoint:
        """Where a task goes on, of what there is of its inputs."""
        log = self._log
        stage, number, _ = parse_task(task)
        inputs = [(topic, number) for topic in STAGES[stage].inputs]
        return find_resume_point(
            task,
            state=dict(positions),
            read={},
            # State of another log is not believed in the first place.
            identities={},
            extents={
                topic_partition: Extent(
                    "", log.first_offset(*topic_partition), log.end_offset(*topic_partition)
                )
                for topic_partition in inputs
            },
            accepted_topics=self._accepted_topics,
        )

    def _refusal_reason(self) -> str:
        missing = ", ".join(map(str, self.serving.missing()))
        if missing:
            return f"the newest serving set names snapshots that `models` lacks, at {missing}"
        return "; ".join(self.serving.refusals) or "no serving set of ours is on the registry"

    def _load_serving(self) -> None:
        for records in self._scan("registry", 0, 0):
            self.serving.apply(records)
        newest = 0
        for offset in self.serving.missing():
            self.serving.apply(self._log.read("models", 0, offset, 1))
            newest = max(newest, offset + 1)
        for records in self._scan("models", 0, newest):
            self.serving.apply(records)

    def _catch_up(self, task: Task, topic: str, partition: int) -> None:
        begin = task.positions.get((topic, partition), 0)
        for records in self._scan(topic, partition, begin, first_time=True):
            self._work(task, records)
            self._flow()

    def _scan(
        self,
        topic: str,
        partition: int,
        offset: int,
        end: int = OFFSET_MAX,
        *,
        first_time: bool = False,
    ) -> Iterator[list[Record]]:
        """What lies there, as it is worked on: without seals, or with what is wrong with it."""
        seal = self._topic_seals.get(topic)
        read = self._session.read if first_time else self._log.read
        while offset < end and (
            records := read(topic, partition, offset, min(READ_RECORDS, end - offset))
        ):
            offset = records[-1].offset + 1
            records = [record for record in records if record.offset < end]
            if seal is not None:
                # Whatever is there now was there before we began to seal, where that is allowed.
                unsealed_end = end if self._accept_unsealed else 0
                open_sealed(records, seal, unsealed_before=unsealed_end)
            if records:
                yield records

    # --- work ----------------------------------------------------------------------------------

    def run(self, progress: Callable[[int], None] | None = None) -> int:
        """Work until every input has been read, and return how many records that were.

        Args:
            progress: called after each transaction with the number of records so far.
        """
        processed = 0
        while count := self.poll():
            processed += count
            if progress is not None:
                progress(processed)
        self.answer_waiting(OFFSET_MAX)
        return processed

    def answer_waiting(self, now_ms: int) -> None:
        """Have predict answer what waits for later events: nothing comes, or came for a while."""
        outputs = [output for stage in self.predicts for output in stage.close(now_ms)]
        if outputs:
            self._deliver(outputs)
            self._flow()
            self.commit()

    def poll(self, limit: int = BATCH_RECORDS) -> int:
        """Work on about `limit` inputs in whole rounds, commit, and return how many there were.

        On fewer where they take longer than `BATCH_S`: what is killed soon after each start still
        gets on. What comes out follows from the rounds, which begin with the log, not with a batch.
        """
        if not self.exclusive:
            return self._poll(limit, BATCH_S)
        with self._exclusive_batch() as foreign:
            processed = self._poll(limit, EXCLUSIVE_S)
            # An alert may be staged with nothing to work on.
            if (foreign or self._session.staged_count) and not processed:
                self.commit()
        now_s = time.monotonic()
        if foreign:
            self._quiet_since = now_s
        elif now_s - self._quiet_since >= QUIET_S:
            self.exclusive = False
        return processed

    @contextmanager
    def _exclusive_batch(self) -> Iterator[bool]:
        """Keep all others from writing; whether they have written where only we may."""
        with self._session.exclusive() as foreign:
            for (topic, partition), first, end in foreign:
                self._absorb(topic, partition, first, end)
            yield bool(foreign)

    def _absorb(self, topic: str, partition: int, first: int, end: int) -> None:
        """Work on what somebody else wrote where only we may, as at a start."""
        readers = self._readers.get((topic, partition), ())
        if readers:
            for records in self._scan(topic, partition, first, end, first_time=True):
                for reader in readers:
                    self._work(reader, records)
                self._flow()

    def _poll(self, limit: int, batch_s: float) -> int:
        heads = heads_of(self._cursors)
        processed, deadline_s = 0, time.monotonic() + batch_s
        learned = self._examples_read()
        while heads and processed < limit and (not processed or time.monotonic() < deadline_s):
            processed += self._pick_round(heads)
            while self._wait.rest:
                cursor, records = self._wait.rest.pop(0)
                self._work(cursor.task, records)
                self._flow()
            if self._wait.served_count:  # which has moved the cursors
                processed, self._wait.served_count = processed + self._wait.served_count, 0
                heads = heads_of(self._cursors)
        if self._session.ahead is not None and not self._has_warned_ahead:
            self._has_warned_ahead = True
            self._deliver([ahead_alert(*self._session.ahead)])
        if processed:
            self.commit()
            # After it: nobody waits for the teaching who waits for what was worked on.
            self._keep_pace(self._examples_read() - learned)
        return processed

    def _examples_read(self) -> int:
        """How many records of `examples` evaluate has worked on."""
        return self.tasks[-1].positions.get(("examples", 0), 0)

    def _keep_pace(self, examples: int) -> None:
        """Bring a line that was declared late so far that it is level when it is due.

        Args:
            examples: how many have come meanwhile. For each it is taught twice `PACE`, for they are
                to be learned as well, and those of the batch in which it is due come at once.
        """
        deadline_s = time.monotonic() + CATCH_UP_S
        for _ in range(1 + 2 * PACE * examples // CATCH_UP_RECORDS):
            if not self.catch_up() or time.monotonic() > deadline_s:
                break
        if self.has_news:
            self.commit()

    def _pick_round(self, heads: list[tuple[Head, int]]) -> int:
        """Pick the records up to the end of the round, fewer where the log has no more.

        How many they are. They lie in `Wait.rest` then, behind what is there.
        """
        batch: dict[Cursor, list[Record]] = {}
        position = sum(cursor.next for cursor in self._cursors)
        for _ in range(self._round - position % self._round):
            if not heads:
                break
            number = heads[0][1]
            cursor = self._cursors[number]
            batch.setdefault(cursor, []).append(cursor.pop())
            head = cursor.head()
            if head is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (head, number))
        # Events before labels: a label of this round may be about an event of this round.
        # Commands last: what they ask for is judged by all that came before.
        order = sorted(batch, key=lambda cursor: (-cursor.rank, cursor.partition))
        self._wait.rest += [(cursor, batch[cursor]) for cursor in order]
        return sum(map(len, batch.values()))

    # --- while a line's process does not answer --------------------------------------------------

    @property
    def _learning(self) -> list[Task]:
        """The tasks that lines' processes may hold up: learn's and evaluate's."""
        return self.tasks[-1 - len(self.learns) :]

    def _isolate(self, isolations: Isolations) -> None:
        """Have serving go on within waits for lines' processes, where there are some."""
        if isolations:
            stages = [task.stage for task in self._learning]
            self._wait.begin(stages, commit=self.commit, serve=self._serve_rounds)
        for isolation in isolations.values():
            isolation.on_wait(self._wait.serve)

    def _serve_rounds(self) -> None:
        """Work on what comes, but for learn and evaluate."""
        if sum(map(len, self._inbox.values())) > INBOX_RECORDS:
            return
        deadline_s, count = time.monotonic() + SERVE_S, 0
        while True:
            rest, self._wait.rest = self._wait.rest, []
            for cursor, records in rest:
                if cursor.topic == "commands":
                    self._wait.rest.append((cursor, records))
                else:
                    self._work(cursor.task, records)
                    count += len(records)
                    for partition in range(len(self.joins)):
                        self._hand_on(("predictions", partition))
            heads = heads_of(self._cursors)
            if not heads or time.monotonic() > deadline_s:
                break
            self._wait.served_count += self._pick_round(heads)
        if count:
            self.commit(tasks=self.tasks[: -len(self._learning)])

    def _learn(self, tasks: Iterable[Task | Serving], records: Sequence[Record]) -> None:
        """Let each line's task learn; they publish as one would, an instant after the other."""
        outputs: list[tuple[float, Output]] = []
        self._wait.settle(exclusive=self.exclusive)
        for task in tasks:
            version, own = math.inf, []
            for output in reversed(self._apply(task, records)):
                if isinstance(output.memo, Snapshot):
                    version = output.memo.version
                own.append((version, output))
            outputs += reversed(own)
        self._wait.end()
        if outputs:
            self._deliver([output for _, output in sorted(outputs, key=itemgetter(0))])

    def _work(self, consumer: Task | Serving, records: Sequence[Record]) -> None:
        """Let a stage fold records in, and put what it wrote before those who read it."""
        if isinstance(consumer, Task) and isinstance(consumer.stage, Learn | Evaluate):
            self._wait.settle(exclusive=self.exclusive)
            outputs = self._apply(consumer, records)
            self._wait.end()
        else:
            outputs = self._apply(consumer, records)
        if outputs:
            self._deliver(outputs)

    def _apply(self, consumer: Task | Serving, records: Sequence[Record]) -> Sequence[Output]:
        """Let a stage fold records in; what it wrote."""
        if isinstance(consumer, Task) and isinstance(consumer.stage, Learn):
            while consumer.stage.must_catch_up(records):
                self._bring_backlog(consumer.stage)
            self._features.supply_recent(consumer.stage, records)
        if isinstance(consumer, Task) and consumer.stage is self.evaluate:
            outputs = self._evaluate(consumer, records)
        else:
            outputs = consumer.apply(records)
            if isinstance(consumer, Task) and isinstance(consumer.stage, Learn):
                consumer.stage.prepare()
        if consumer is self.serving:
            self._bring_forgotten()
        self._step(records[0].topic)
        return outputs

    @property
    def has_news(self) -> bool:
        """Whether something waits for the next commit."""
        return self._session.staged_count > 0

    def catch_up(self) -> bool:
        """Bring a line that was declared late a little further; whether one is still behind."""
        for learn in self._learns_behind():
            self._wait.settle(exclusive=self.exclusive)
            self._bring_backlog(learn)
            self._wait.end()
        return bool(self._learns_behind())

    def _learns_behind(self) -> list[Learn]:
        return [learn for learn in self.learns if learn.backlog() is not None]

    def _bring_backlog(self, learn: Learn) -> None:
        """Give learn the next stretch of the examples that somebody has not been taught."""
        offset = learn.backlog()
        if offset is None:
            return
        stretch = next(self._scan("examples", 0, offset, offset + CATCH_UP_RECORDS), [])
        first = self._log.first_offset("examples", 0)
        if not stretch and offset < first:  # retention has taken what was there
            stretch = next(self._scan("examples", 0, first, first + CATCH_UP_RECORDS), [])
        if not stretch:
            stretch = [record for record in self._staged_examples if record.offset >= offset]
        self._features.supply_past(learn, stretch)
        if outputs := learn.catch_up(stretch):
            self._wait.may_serve = False
            self._deliver(outputs)
        if learn.backlog() is None:
            self._features.end_past(learn)

    def _evaluate(self, task: Task, records: Sequence[Record]) -> list[Output]:
        """Let evaluate fold records in; what waits for its state is put aside."""
        for offset in self.evaluate.wanted(records):
            record = self._snapshot_at(offset)
            self.evaluate.supply(offset, None if record is None else record.value)
        outputs = task.apply(records)
        self._answers += [output for output in outputs if output.topic == WITH_STATE]
        return [output for output in outputs if output.topic != WITH_STATE]

    def _bring_forgotten(self) -> None:
        """Read again the snapshot that a set returns to, or promotes."""
        for offset in self.serving.forgotten():
            record = self._snapshot_at(offset)
            if record is not None:
                self.serving.apply([record])

    def _snapshot_at(self, offset: int) -> Record | None:
        """What lies at an offset of `models`, also where it waits for the commit."""
        staged = self._staged_models.get(offset)
        records = self._log.read("models", 0, offset, 1) if staged is None else [staged]
        return records[0] if records and records[0].offset == offset else None

    def _deliver(self, outputs: Sequence[Output]) -> None:
        """Stage what a stage wrote, sealed; whoever reads it here has it as it was."""
        seals, readers, inbox = self._topic_seals, self._readers, self._inbox
        bodies = []
        for output in outputs:
            body = output.value
            bodies.append(body)
            if output.topic in seals and body is not None:
                output.value = seals[output.topic].seal(body)
        last, waiting = None, None
        for record, body in zip(self._session.stage(outputs), bodies, strict=True):
            topic_partition = (record.topic, record.partition)
            if topic_partition != last:
                last = topic_partition
                waiting = (
                    inbox.setdefault(topic_partition, []) if topic_partition in readers else None
                )
            if waiting is not None:
                record.value = body
                waiting.append(record)
                if record.topic == "models":
                    self._staged_models[record.offset] = record
                elif record.topic == "examples" and self._learns_behind():
                    self._staged_examples.append(record)
        self._step("stage")

    def _flow(self) -> None:
        """Hand on what stages wrote, in the order in which the data flows, until all is read."""
        while self._inbox:
            for topic_partition in self._readers:
                self._hand_on(topic_partition)

    def _hand_on(self, topic_partition: PartitionId) -> None:
        """Hand on what stages wrote to one partition."""
        readers, records = self._readers[topic_partition], self._inbox.pop(topic_partition, None)
        if not records:
            return
        learning = len(self.learns) if topic_partition == ("examples", 0) else 0
        if learning > 1:
            self._learn(readers[:learning], records)
        for reader in readers[learning if learning > 1 else 0 :]:
            self._work(reader, records)

    def commit(self, *, checkpoint: bool = False, tasks: Sequence[Task] | None = None) -> None:
        """Write what was staged, with the positions and state of every task that must be.

        After an error this runner is of no more use: start another on the same log.

        Args:
            checkpoint: write down the live learners and scores as well, due or not.
            tasks: whose positions and states may be written; None: of all.
        """
        now_s = time.monotonic()
        if tasks is None and now_s - self._checkpointed_s >= self._checkpoint_s:
            checkpoint = True
        if checkpoint and self._wait.is_settled:
            self._wait.settle(exclusive=self.exclusive)
            for learn in self.learns:
                learn.prepare(is_due=True)
            self._wait.end()
        positions: dict[str, dict[PartitionId, int]] = {}
        state: list[tuple[str, str, bytes | None]] = []
        for task in self.tasks if tasks is None else tasks:
            name, sealed_state = task.name, self._states[task.name]
            has_moved = task.positions != self._committed_positions[name]
            due = task.stage.must_checkpoint() or sealed_state.must_write or name in self._astray
            if due or (checkpoint and has_moved):
                if task.stage is self.evaluate and self._answers:
                    answers, self._answers = self._answers, []
                    self._deliver(answers)
                positions[name] = self._committed_positions[name] = dict(task.positions)
                entries = sealed_state.write(
                    task.dirty(), task.positions, declaration=self._declaration, manifest=True
                )
                pieces = [(name, entry.name.decode(), entry.value) for entry in entries]
                seal = checkpoint_seal({pieces[-1][1]: pieces[-1][2] or b""})
                self._manifest.note(name, sealed_state.number, seal, task.positions)
                state += pieces
        if state or self._session.staged_count:
            state.append((OWNER, NAME, self._manifest.encode_sealed(self._session.own_writes())))
        self._step("dirty")
        self._session.commit(positions, state)
        self._staged_models.clear()
        self._staged_examples.clear()
        self._astray -= positions.keys()
        self._step("commit")
        if checkpoint:
            self._checkpointed_s = now_s

    @property
    def learn(self) -> Learn:
        """The stage that teaches all lines; where each is a task of its own, the champion's."""
        return self.learns[0]

    @property
    def quarantine_reasons(self) -> dict[str, str]:
        """Of each line that learns no more, why, and how it goes on."""
        return {
            line: reason
            for learn in self.learns
            for line, reason in learn.quarantine_reasons.items()
        }

    def close(self) -> None:
        """Give up the worker's place; what was not committed is gone."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with self._exclusive_batch() if self.exclusive else nullcontext():
                    self.commit(checkpoint=True)
        finally:
            self.close()
