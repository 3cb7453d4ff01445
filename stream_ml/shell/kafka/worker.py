"""A worker: one stage on the cluster, as a Faust application that hosts tasks.

Theory of operation:

1. Faust holds the place in the group and tells which partitions are ours; the transport hands over
   what was fetched of them; each task (see `task`) does the rest in a coroutine of its own, so that
   one recovers while others flow.
2. Only an assignment makes tasks. When partitions are revoked every task commits what it has
   folded, and parks; when the next assignment brings its partition back it goes on, else it is
   dropped. A task that was still taking over starts again.
3. Whatever ends a task otherwise ends the process, at once and without another commit: whoever
   supervises it starts it again, and it takes over what is committed.
4. Waiting for the brokers, a place in the group, or something that serves, is no failure: it is
   said every 10 s.
5. Python's collector looks for cycles among all that lives. What was imported is a quarter of a
   million objects that stay: they are put out of its sight at the start, and it looks less often.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faust.types import TP

from stream_ml.defaults import LEARN_BUDGET_S, TRAINING_MEMORY_MB, TRAINING_S
from stream_ml.errors import Fenced, LogError, StreamMLError, UsageError
from stream_ml.sealing import Seals
from stream_ml.shell.handover import Handover
from stream_ml.shell.kafka.assignor import TaskAssignor
from stream_ml.shell.kafka.entity_feed import EntityFeed
from stream_ml.shell.kafka.handover import cluster_handover, latest_offsets
from stream_ml.shell.kafka.header_names import read_any_header
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.metadata import leave_group, rival, topic_ids
from stream_ml.shell.kafka.regeneration import TaskFeatures
from stream_ml.shell.kafka.security import async_options
from stream_ml.shell.kafka.serving_feed import ServingFeed
from stream_ml.shell.kafka.snapshots import SnapshotReader
from stream_ml.shell.kafka.standby import Standby
from stream_ml.shell.kafka.task import KafkaTask, TaskContext, TaskSpec
from stream_ml.shell.kafka.transactions import Transactions
from stream_ml.shell.kafka.transport import SCHEME
from stream_ml.shell.metering.tasks import MeasuredTask
from stream_ml.shell.metering.transactions import MeasuredTransactions
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from stream_ml.shell.processes.trainings import ProcessTrainings
from stream_ml.signing import Keyring
from stream_ml.stages.delayed import new_predict
from stream_ml.stages.entity_windows import EntityWindows
from stream_ml.stages.erasure import Erasures
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.join import Join
from stream_ml.stages.learn import Learn
from stream_ml.stages.partitioning import refuse_partitions
from stream_ml.stages.positions import ACCEPT
from stream_ml.stages.serving import Serving
from stream_ml.stages.task import Task
from stream_ml.stages.topology import STAGES, TaskName
from stream_ml.topics import catalogue, needed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.kafka.transport import Batch
    from stream_ml.shell.log.port import PartitionId
    from stream_ml.shell.metering.meter import Meter
    from stream_ml.shell.processes.isolation import Isolation
    from stream_ml.signing import Operator
    from stream_ml.stages.task import Stage

__all__ = ["Worker"]

# Somebody waits for predictions; the rest comes in steps anyway, as transactions commit.
GATHER_S = {"predict": 0.001, "join": 0.1, "learn": 0.1, "evaluate": 0.1}
# Records, tasks and commits have threads of their own. Where somebody waits for what they do, none
# waits Python's 5 ms for its turn; it costs some 5 % of CPU time.
SWITCH_S = {"predict": 0.0005}
RETRY_S = 1.0
# A topic that was made anew is told by its offsets, soon, or where they go on by its id, by then.
TOPIC_CHECK_S = 10.0
REPORT_EVERY_S = 10.0
# By when a worker that was asked to stop has committed, or gives up.
STOP_S = 20.0
# By when it has taken leave of the brokers, where they answer.
CLOSE_S = 5.0
EXIT_FAILURE = 1
# After how many more objects the collector looks at the young ones; Python's 700 is a few records.
COLLECT_AFTER = 10_000


class Worker:
    """Runs one stage until it is asked to stop.

    Args:
        cluster: the pipeline's place.
        pipeline: the declaration.
        stage: one of `STAGES`.
        key: signs and verifies what the stages write.
        operators: whose commands are obeyed.
        instance: a name of this worker that outlives it: started again under it, it gets back what
            it had without a rebalance.
        commit_s: how long a transaction gathers.
        checkpoint_s: how often state is written down.
        checkpoint_examples: after how many examples the learners are written down at the latest.
        restart_lines: quarantined lines to start anew, from nothing.
        learn_budget_s: how long a line may take over an example.
        isolation: the lines that have processes of their own, for learn and evaluate.
        training_s: how long the training of a retrained line may take.
        training_memory_mb: how much memory its process may have.
        command_age_s: how far a command's time may be from its arrival on the log.
        say: told what happens, as a kind and members.
        accepted_topics: topics that are taken for what they are now, whatever was read of them.
        accept_unsealed: whether what a former release wrote, which did not seal, is believed.
        meter: told what the tasks do; None: nothing is measured.
        apply: of evaluate, why other features are to be brought about, where it is started for
            that: it ends once they are. None: it works on.
        is_predicting: whether predict is at work meanwhile, and a standby goes on in its place.
        is_standby: whether it waits, ready, until the declaration is applied by others.
    """

    def __init__(
        self,
        cluster: Cluster,
        pipeline: Pipeline,
        stage: str,
        key: bytes,
        *,
        operators: Mapping[str, Operator],
        instance: str | None,
        commit_s: float,
        checkpoint_s: float,
        checkpoint_examples: int,
        restart_lines: Collection[str] = (),
        learn_budget_s: float = LEARN_BUDGET_S,
        isolation: Isolation | None = None,
        training_s: float = TRAINING_S,
        training_memory_mb: int = TRAINING_MEMORY_MB,
        command_age_s: float,
        say: Callable[..., None],
        accepted_topics: Iterable[str] = (),
        accept_unsealed: bool = False,
        meter: Meter | None = None,
        apply: str | None = None,
        is_predicting: bool = False,
        is_standby: bool = False,
    ) -> None:
        self.cluster, self.instance = cluster, instance
        self.gather_s = GATHER_S[stage]
        self._pipeline, self._stage = pipeline, stage
        self._key, self._operators = key, operators
        self._commit_s, self._checkpoint_s = commit_s, checkpoint_s
        self._checkpoint_examples = checkpoint_examples
        self._accept_unsealed, self._restart_lines = accept_unsealed, restart_lines
        self._learn_budget_s = learn_budget_s
        # The lines that are tasks of their own, in the order of their numbers.
        self._lines: list[str] = []
        if stage == "learn":
            self._lines = [line for line in pipeline.learn_task_lines if line is not None]
        self.assignor = TaskAssignor(self._lines)
        self._stopwatches: dict[str, ProcessStopwatch] = {}
        self._trainings = ProcessTrainings(training_s, training_memory_mb)
        self._command_age_s = command_age_s
        self._say = say if apply is None else self._until_recovered(say)
        self._apply, self._is_predicting = apply, is_predicting
        self._handover = Handover(pipeline)
        self._standby = Standby(cluster, pipeline, stage, key, say) if is_standby else None
        # Why it has to end, in order, where other features were applied.
        self._outdated: UsageError | None = None
        self._meter, self._isolation = meter, isolation
        if meter is not None:
            self._say = partial(_tell, meter, say)
            meter.inbox = self._waiting
        self._isolated = pipeline
        self._accepted_topics = frozenset(accepted_topics)
        self._serving = Serving(pipeline, key)
        self._names = {cluster.topic(topic): topic for topic in STAGES[stage].inputs}
        self._tasks: dict[int, KafkaTask] = {}
        self._suspended_tasks: dict[int, KafkaTask] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._stop_event, self._suspension = asyncio.Event(), asyncio.Lock()
        self._app: Any = None
        self._partitions: dict[str, int] = {}
        # The id of each topic that we depend on.
        self._topics: dict[str, str] = {}
        self._serving_feed: ServingFeed | None = None
        self._entity_feed: EntityFeed | None = None
        self._following: asyncio.Task[None] | None = None
        self._snapshots = SnapshotReader(cluster)
        self._transactions: Transactions

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT.

        Raises:
            LogError: the topics are not there, or not as the pipeline needs them.
            UsageError: events lie in several partitions, and must not.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_event.set)
        read_any_header()
        sys.setswitchinterval(SWITCH_S.get(self._stage, sys.getswitchinterval()))
        await self._until_stopped(self._find_topics())
        if self._stop_event.is_set():
            return
        # Without a name that stays nobody ends what it leaves open, but the brokers' clock.
        name = self.instance or secrets.token_hex(8)
        self._transactions = self._make_transactions(
            self.cluster,
            self.cluster.group(self._stage),
            self.cluster.transactional_id(self._stage, name),
            self._commit_s,
        )
        feed = await self._start_clients()
        if self._outdated is not None:
            self.fail(self._outdated)
        if self._stop_event.is_set():
            return
        topic_watch = asyncio.create_task(self._watch_topics(), name="topics")
        topic_watch.add_done_callback(self._watch)
        self._app = self._application()
        _spare_collector()
        await self._work()
        if self._app.crash_reason is not None:
            self.fail(self._app.crash_reason)
        await self._suspend_finally()
        if self._outdated is not None:
            await self._leave(self._outdated)
        for background in (topic_watch, feed, self._following):
            if background is not None:
                background.cancel()
        closing = asyncio.create_task(self._close(), name="close")
        await asyncio.wait([closing], timeout=CLOSE_S)
        self._say("stopped", stage=self._stage)
        if not closing.done() or closing.cancelled() or closing.exception() is not None:
            # All is committed; what nobody answers may end with the process.
            os._exit(0)

    async def _start_clients(self) -> asyncio.Task[None] | None:
        """Be who may write, and of predict, read what serves; then the place is free."""
        try:
            starting = self._reported(self._transactions.start(), lambda: "its transactions")
            await self._until_stopped(starting)
        except LogError as error:
            self.fail(error)  # what waits for brokers may wait for ever: nothing waits for it
        if self._stop_event.is_set():
            return None
        feed = await self._start_feed() if self._stage == "predict" else None
        if self._standby is not None:
            await self._until_stopped(self._standby.until_left())
        return feed

    async def _work(self) -> None:
        """Have a place in the group, until it is gone, or we are asked to stop."""
        joining = self._reported(self._app.start(), lambda: "its place in the group")
        await self._until_stopped(joining)
        if not self._stop_event.is_set():
            self._say("started", stage=self._stage, pipeline=self._pipeline.name)
            await self._until_stopped(self._app.wait_until_stopped())

    @property
    def _make_transactions(self) -> Callable[..., Transactions]:
        return Transactions if self._meter is None else partial(MeasuredTransactions, self._meter)

    def _task_name(self, number: int) -> TaskName:
        if self._lines:
            return TaskName(self._stage, 0, self._lines[number])
        return TaskName(self._stage, number, None)

    def _waiting(self) -> dict[TaskName, tuple[int, int]]:
        """How many records, and bytes, wait inside each task."""
        return {
            self._task_name(number): (task.waiting, task.waiting_bytes)
            for number, task in self._tasks.copy().items()
        }

    async def _start_feed(self) -> asyncio.Task[None]:
        """Read what serves now, and go on reading beside the tasks."""
        self._serving_feed = ServingFeed(
            self.cluster,
            self._serving,
            lambda model: self._say("serves", model=model),
            strict="models" not in self._accepted_topics,
        )
        try:
            starting = self._reported(self._serving_feed.start(), lambda: "what serves to be read")
            await self._until_stopped(starting)
        except UsageError as error:
            self.fail(error)
        feed = asyncio.create_task(self._serving_feed.follow(), name="control")
        feed.add_done_callback(self._on_feed_end)
        if self._is_delayed:
            await self._start_entity_feed()
        return feed

    def _on_feed_end(self, feed: asyncio.Task[None]) -> None:
        self._watch(feed)
        if not feed.cancelled() and self._serving_feed is not None:
            self._end_outdated(self._serving_feed.outdated())

    def _end_outdated(self, error: UsageError) -> None:
        """End in order where others go on from here; at once where they cannot."""
        offsets = {n: task.read_offset("events") or 0 for n, task in self._tasks.items()}
        if self._serving.has_begun(offsets):
            self.fail(error)
        self._outdated = error
        self._stop_event.set()

    @property
    def _is_delayed(self) -> bool:
        """Whether windows of entities are over all partitions."""
        return self._pipeline.feature_set.delay_ms is not None

    async def _start_entity_feed(self) -> None:
        """Read what partitions have told of entities, and go on reading beside the tasks."""
        seals = Seals(self._key, self._pipeline.name, self._topics["registry"])
        pipeline, seal = self._pipeline, seals.records("entities")
        windows = EntityWindows(pipeline.feature_set, self._partitions["events"])
        reach_ms = pipeline.feature_set.horizon_ms + pipeline.skew_ms
        self._entity_feed = EntityFeed(
            self.cluster,
            windows,
            reach_ms=reach_ms,
            seal=seal,
            say=self._say,
            on_progress=self._wake_tasks,
        )
        await self._until_stopped(self._entity_feed.start())
        self._following = asyncio.create_task(self._entity_feed.follow(), name="entities")
        self._following.add_done_callback(self._watch)

    def _wake_tasks(self) -> None:
        for task in self._tasks.values():
            task.wake()

    async def _until_stopped(self, work: Any) -> None:
        """Until `work` is done, or we are asked to stop."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop_event.wait())
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if doing.done():
            doing.result()
        else:
            doing.cancel()
            with suppress(asyncio.CancelledError):
                await doing

    async def _reported(self, work: Awaitable[Any], awaited: Callable[[], str]) -> None:
        """Until `work` is done; while it is not, it is said what is waited for."""
        doing = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([doing], timeout=REPORT_EVERY_S))[0]:
                self._say("waiting", for_=awaited())
        except asyncio.CancelledError:
            doing.cancel()
            with suppress(asyncio.CancelledError):
                await doing
            raise
        doing.result()

    # --- start ---------------------------------------------------------------------------------

    async def _find_topics(self) -> None:
        reported_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                counts = await self._partition_counts()
                self._topics = await self._topic_ids()
                break
            except (KafkaError, LogError, OSError) as error:
                if loop.time() - reported_s >= REPORT_EVERY_S:
                    reported_s = loop.time()
                    self._say("waiting", for_=self.cluster.bootstrap, error=str(error))
                await asyncio.sleep(RETRY_S)
        topics = needed(catalogue(), self._pipeline.extra_topics)
        missing = [name for name in topics if self.cluster.topic(name) not in counts]
        if missing:
            raise LogError(
                f"worker {self._stage}: expected the topics of {self._pipeline.name!r} on "
                f"{self.cluster.bootstrap}, given none of the name "
                f"{', '.join(map(self.cluster.topic, missing))}; make them with "
                "`stream-ml topics apply`"
            )
        self._partitions = {name: counts[self.cluster.topic(name)] for name in topics}
        self._check_partitions()
        refuse_partitions(self._pipeline, self._partitions["events"])
        if self._standby is not None:
            await self._standby.until_applied()
        offsets = {} if self._apply is None else await self._predicted_offsets()
        self._handover = await asyncio.to_thread(self._take_handover, offsets)
        pipeline = self._pipeline = self._handover.pipeline
        self._isolated = pipeline if self._isolation is None else self._isolation.running(pipeline)
        if self._lines:
            self._lines = [line for line in pipeline.learn_task_lines if line is not None]
            self.assignor = TaskAssignor(self._lines)
        self._serving = Serving(self._pipeline, self._key, self._topics["registry"])

    def _take_handover(self, offsets: Mapping[int, int]) -> Handover:
        """The declaration as it runs, of which registry and state tell, or as it begins to."""
        with KafkaLog(self.cluster) as log:
            now_ms = time.time_ns() // 1_000_000
            return cluster_handover(
                log,
                self.cluster,
                self._pipeline,
                self._key,
                apply=self._apply,
                offsets=offsets,
                latest=latest_offsets(log, now_ms) if self._is_predicting else None,
            )

    async def _predicted_offsets(self) -> dict[int, int]:
        """By partition of events, up to where predict has committed, where nobody is at work."""
        topic, group = self.cluster.topic("events"), self.cluster.group("predict")
        transactions = Transactions(self.cluster, group, group, self._commit_s)
        try:
            partitions = range(self._partitions["events"])
            committed = await transactions.committed_offsets((topic, p) for p in partitions)
        finally:
            await transactions.close()
        return {p: entry.offset for (_, p), entry in committed.items() if entry.is_ours}

    def _until_recovered(self, say: Callable[..., None]) -> Callable[..., None]:
        """Have it end once its task has recovered: what is brought about is committed then."""

        def say_and_stop(kind: str, **members: Any) -> None:
            say(kind, **members)
            if kind == "recovered":
                self._stop_event.set()

        return say_and_stop

    async def _partition_counts(self) -> dict[str, int]:
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self.cluster.bootstrap, **async_options(self.cluster.security)
        )
        try:
            await admin.start()
            descriptions = await admin.describe_topics()
        finally:
            await admin.close()
        return {
            description["topic"]: len(description["partitions"]) for description in descriptions
        }

    async def _topic_ids(self) -> dict[str, str]:
        """The ids of the topics that we depend on."""
        # By the id of its registry a log is known.
        spec = STAGES[self._stage]
        names = {*spec.inputs, *spec.feed, f"{self._stage}-changelog", "registry"}
        names |= {*spec.exchanged} & {*self._pipeline.extra_topics}
        return await asyncio.to_thread(topic_ids, self.cluster, sorted(names))

    async def _watch_topics(self) -> None:
        """End where a topic is another than it was at the start: its offsets begin anew."""
        while True:
            await asyncio.sleep(TOPIC_CHECK_S)
            with suppress(LogError):  # what does not answer is waited for elsewhere
                self._expect_ids(await self._topic_ids())

    def _expect_ids(self, ids: Mapping[str, str]) -> None:
        differences = {
            name: topic_id for name, topic_id in ids.items() if topic_id != self._topics.get(name)
        }
        if differences:
            texts = ", ".join(
                f"{self.cluster.topic(name)} of the id {self._topics.get(name)}, given {topic_id}"
                for name, topic_id in differences.items()
            )
            raise UsageError(
                f"expected {texts}: it was made anew while it was in use. Put back what was "
                "there, or have the tasks begin where it begins, by starting once with "
                f"{ACCEPT}={','.join(differences)}"
            )

    def _check_partitions(self) -> None:
        """A task needs the partition of its number of every input, and of its changelog."""
        together = [*STAGES[self._stage].inputs, f"{self._stage}-changelog"]
        counts = {self.cluster.topic(name): self._partitions[name] for name in together}
        if len(set(counts.values())) > 1:
            actual = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise LogError(
                f"worker {self._stage}: expected as many partitions of each topic it reads, given "
                f"{actual}; `stream-ml topics plan` tells how they should be"
            )

    def _application(self) -> Any:
        app = faust.App(
            self.cluster.group(self._stage),
            broker=f"{SCHEME}://" + self.cluster.bootstrap.replace(",", f";{SCHEME}://"),
            # It makes folders there, and puts nothing in them: workers may share one.
            datadir=str(Path(tempfile.gettempdir()) / "stream-ml-faust"),
            # State is the tasks' own business: Faust keeps none, makes no topics, commits nothing.
            store="memory://",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            broker_commit_interval=3_600.0,
        )
        app.task_host = self  # type: ignore[attr-defined]  # the transport asks for it
        app.finalize()
        for topic in self._names:
            app.topics.add(app.topic(topic, value_serializer="raw"))
        app.on_partitions_revoked.connect(self._on_revocation, weak=False)  # type: ignore[arg-type]
        app.on_partitions_assigned.connect(self._on_assignment, weak=False)  # type: ignore[arg-type]
        return app

    def _make(self, partition: int) -> Stage:
        pipeline, counts = self._pipeline, self._partitions
        match self._stage:
            case "predict":
                feed = self._entity_feed
                return new_predict(
                    pipeline,
                    self._serving,
                    partition,
                    partitions=counts["events"],
                    erasures=self._erasures(),
                    entities=None if feed is None else feed.windows,
                )
            case "join":
                return Join(
                    pipeline,
                    counts["events"],
                    counts["labels"],
                    keep_decoded=False,
                    partition=partition,
                    erasures=self._erasures(),
                )
            case "learn":
                line = self._lines[partition] if self._lines else None
                return Learn(
                    self._isolated,
                    self._key,
                    self._checkpoint_examples,
                    self._restart_lines,
                    log=self._topics["registry"],
                    stopwatch=self._stopwatch("learning" if line is None else f"learning-{line}"),
                    trainings=self._trainings,
                    has_backlog=line is None,
                    line=line,
                )
            case _:
                return Evaluate(
                    self._isolated,
                    Keyring(self._key, self._operators),
                    self._topics["registry"],
                    command_age_ms=round(self._command_age_s * 1_000),
                    stopwatch=self._stopwatch("evaluation"),
                )

    def _stopwatch(self, ending: str) -> ProcessStopwatch:
        """The one that notes whose turn it is in the file of that ending."""
        if ending not in self._stopwatches:
            self._stopwatches[ending] = ProcessStopwatch(
                self._turn_file(ending), budget_s=self._learn_budget_s
            )
        return self._stopwatches[ending]

    def _erasures(self) -> Erasures:
        return Erasures(self._key, self._pipeline.name, self._topics["registry"])

    def _turn_file(self, ending: str) -> Path:
        """The file that says, after a death, whose turn it was: one for this log and machine."""
        return Path(tempfile.gettempdir()) / f"stream-ml-{self._topics['registry']}.{ending}"

    async def _ready(self) -> None:
        if self._serving_feed is None:
            return
        await self._reported(self._serving_feed.caught_up(), self._serving_wait)
        if self._entity_feed is not None:
            await self._entity_feed.caught_up()

    def _serving_wait(self) -> str:
        refusals = self._serving.refusals[-1:]
        reasons = refusals or ["are learn and evaluate at work, with this key?"]
        return f"something that serves: {reasons[0]}"

    # --- what the transport asks ---------------------------------------------------------------

    def partitions_with_capacity(self, assignment: Iterable[TP]) -> set[TP]:
        """The partitions there is room for."""
        if self._lines:
            # Tasks of lines fetch for themselves; of who fetches nothing the group takes leave.
            return {tp for tp in assignment if self._names[tp.topic] == "registry"}
        return {
            tp
            for tp in assignment
            if (task := self._tasks.get(tp.partition)) is not None and not task.is_full
        }

    def deliver(self, batches: Mapping[TP, Batch]) -> None:
        """Put each batch before its task."""
        if self._lines:
            return
        try:
            for tp, batch in batches.items():
                task = self._tasks.get(tp.partition)
                if task is not None:
                    task.enqueue(self._names[tp.topic], batch)
        except AssertionError as error:
            self.fail(error)

    def out_of_range(self, offsets: Mapping[TP, int]) -> None:
        """End where a task was to go on from there; who takes over finds out why, and tells it."""
        if self._lines:
            return
        for tp, offset in offsets.items():
            task = self._tasks.get(tp.partition)
            if task is not None and task.read_offset(self._names[tp.topic]) is not None:
                self.fail(
                    LogError(
                        f"{tp.topic}-{tp.partition}: expected to go on from {offset}, given a "
                        "partition that does not reach to there: records were removed before they "
                        "were read, or the topic was made anew or cut off"
                    )
                )

    async def _seek_in_new_epoch(self, offsets: Mapping[PartitionId, int]) -> int:
        """Have records of our tasks fetched from other offsets on."""
        tps = {TP(topic, partition): offset for (topic, partition), offset in offsets.items()}
        return int(await self._app.consumer.seek_in_new_epoch(tps))

    async def on_eviction(self, member: str) -> None:
        """End where another worker has our name; else join anew."""
        if self.instance is not None:
            group = self.cluster, self._stage, self.instance
            error = await asyncio.to_thread(rival, *group, member)
            if error is not None:
                self.fail(error)

    async def wait_for_capacity(self) -> None:
        """Wait until a task may have room; at most a moment."""
        await asyncio.sleep(0.005)

    # --- assignment ----------------------------------------------------------------------------

    async def _on_revocation(self, app: Any, assignment: Iterable[TP], **_: Any) -> None:
        del app, assignment  # a rebalance takes all, and gives some back
        await self._suspend_all()

    async def _suspend_all(self, *, leaving: bool = False) -> None:
        # One after the other: who leaves the group, or goes on with it, has committed all before.
        async with self._suspension:
            for starting in list(self._starting):
                starting.cancel()
            tasks, self._tasks = self._tasks, {}
            epoch = self._app.consumer.epoch
            intact = await asyncio.gather(
                *(task.suspend(epoch, checkpoint=leaving) for task in tasks.values())
            )
            for (partition, task), is_intact in zip(tasks.items(), intact, strict=True):
                if is_intact:
                    self._suspended_tasks[partition] = task
                    self._say("parked", stage=self._stage, partition=partition)
            try:
                await self._transactions.commit()
            except LogError as error:
                self.fail(error)

    async def _on_assignment(self, app: Any, assignment: Iterable[TP], **_: Any) -> None:
        del app
        if self._stop_event.is_set():
            return
        try:
            self._transactions.join(self._app.consumer.membership)
        except Fenced as error:
            self.fail(error)
        numbers = {tp.partition for tp in assignment}
        if self._lines:
            ours = self.assignor.lines
            numbers = {number for number, line in enumerate(self._lines) if line in ours}
        if self._meter is not None:
            self._meter.assign(map(self._task_name, numbers))
        for partition in [number for number in self._suspended_tasks if number not in numbers]:
            del self._suspended_tasks[partition]
            self._say("released", stage=self._stage, partition=partition)
        work = [
            (f"begin-{partition}", self._start_task(partition)) for partition in sorted(numbers)
        ]
        for name, begin in [("layout", self._check_layout()), *work]:
            starting = asyncio.create_task(begin, name=name)
            self._starting.add(starting)
            starting.add_done_callback(self._on_task_start)

    async def _check_layout(self) -> None:
        """End, to be started anew, where there are more partitions than we place keys in."""
        counts = await self._partition_counts()
        self._expect_ids(await self._topic_ids())
        changed_topics = [
            name
            for name, count in self._partitions.items()
            if counts.get(self.cluster.topic(name), count) != count
        ]
        if changed_topics:
            topics = ", ".join(map(self.cluster.topic, changed_topics))
            raise LogError(f"expected as many partitions as at the start, given others of {topics}")

    async def _start_task(self, partition: int) -> None:
        task = self._suspended_tasks.get(partition)
        if task is not None:
            can_resume = await task.can_resume()
            del self._suspended_tasks[partition]
            if can_resume:
                self._say("resumed", stage=self._stage, partition=partition)
            else:
                task = None
        if task is None:
            task = KafkaTask(self._task_context(), self._task_spec(), partition)
        self._tasks[partition] = task
        task.start()

    def _on_task_start(self, starting: asyncio.Task[None]) -> None:
        self._starting.discard(starting)
        self._watch(starting)

    def _task_context(self) -> TaskContext:
        return TaskContext(
            self.cluster,
            self._transactions,
            self._partitions,
            self._checkpoint_s,
            self._say,
            self.fail,
            Seals(self._key, self._pipeline.name, self._topics["registry"]),
            self._pipeline.declaration(),
            self._accept_unsealed,
            self._topics,
            self._accepted_topics,
            self._seek_in_new_epoch,
            self._restart_lines,
            self._pipeline.generation.applied_lines(self._pipeline.declaration()),
            Task if self._meter is None else partial(MeasuredTask, self._meter),
            self._handover,
        )

    def _task_spec(self) -> TaskSpec:
        inputs, read_snapshot = STAGES[self._stage].inputs, self._snapshots.read
        features = None
        if self._pipeline.generation.number > 1 and self._stage in {"predict", "learn"}:
            features = self._task_features
        return TaskSpec(
            self._stage,
            inputs,
            self._make,
            self._ready,
            read_snapshot,
            lines=self._lines,
            features=features,
            idle_s=self._pipeline.idle_ms / 1_000,
        )

    def _task_features(self) -> TaskFeatures:
        return TaskFeatures(self.cluster, self._handover, self._standby)

    # --- end -----------------------------------------------------------------------------------

    async def _suspend_finally(self) -> None:
        self._app.consumer.stop_flow()
        try:
            async with asyncio.timeout(STOP_S):
                await self._suspend_all(leaving=True)
        except TimeoutError:
            self.fail(LogError(f"asked to stop, it could not commit within {STOP_S:g} s"))

    async def _leave(self, error: UsageError) -> None:
        """Give up our place for good, so that nobody waits for it, and end with an error."""
        await asyncio.wait([asyncio.create_task(self._app.stop())], timeout=CLOSE_S)
        if self.instance is not None:
            await asyncio.to_thread(leave_group, self.cluster, self._stage, self.instance)
        self.fail(error)

    async def _close(self) -> None:
        await self._app.stop()
        await self._transactions.close()
        await self._snapshots.stop()
        for each in (self._serving_feed, self._entity_feed):
            if each is not None:
                await each.stop()
        if self._standby is not None:
            self._standby.stop()

    def _watch(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the process: nothing may be committed after what went wrong."""
        code = EXIT_FAILURE
        try:
            sys.stdout.flush()
            error = self._root_cause(error)
            if isinstance(error, StreamMLError) and error.exit_code == UsageError.exit_code:
                # The surroundings are wrong, and not the code: a sentence says more than a trace.
                code = error.exit_code
                sys.stderr.write(f"stream-ml: worker {self._stage}: {error}\n")
            else:
                traceback.print_exception(error)
                sys.stderr.write(
                    f"stream-ml: worker {self._stage}: {type(error).__name__}: {error}; what is "
                    "not committed is worked on again when it is started again\n"
                )
            sys.stderr.flush()
        finally:  # also where nobody hears it
            os._exit(code)

    def _root_cause(self, error: BaseException) -> BaseException:
        """The cause of an error that says only that somebody else has our place."""
        if self.instance is None or not isinstance(error, (Fenced, KafkaError)):
            return error
        member = "" if self._app is None else self._app.consumer.member
        return rival(self.cluster, self._stage, self.instance, member) or error


def _tell(meter: Meter, say: Callable[..., None], event: str, **members: Any) -> None:
    """Tell the meter before others, who may ask it."""
    meter.observe(event, members)
    say(event, **members)


def _spare_collector() -> None:
    """Let the collector pass over what lives now (measured: 8 to 20 % of a worker's CPU)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
