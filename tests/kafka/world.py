"""Tasks at work on a real broker without Faust: inputs cut and alternated by a seed, and deaths.

A task is fed what a consumer of committed records read, as the transport would feed it: in epochs
of numbered batches, from what is committed, sometimes from before. It dies at any step of its
(folding, sending, committing, writing state, taking over), by its own coroutine's end; its
connections go down with it as a process's would, or linger until the successor has fenced them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from stream_ml.sealing import SEALED_TOPICS, Seals
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.changelog import read_changelog
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.records import to_records
from stream_ml.shell.kafka.task import KafkaTask, TaskContext, TaskSpec
from stream_ml.shell.kafka.transactions import NEVER as NOT_DUE
from stream_ml.shell.kafka.transactions import Transactions
from stream_ml.shell.kafka.transport import Batch
from stream_ml.stages.inputs import open_sealed
from stream_ml.topics import catalogue, needed
from tests.kafka_broker import a_name
from tests.shell.processes import Terminal

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stream_ml.records import Output, Record
    from stream_ml.shell.log.port import PartitionId
    from stream_ml.stages.task import Positions, Stage

# Far more than anything here takes, even on a machine that is busy with something else.
DEADLINE_S = 60.0
# What everything is sealed with.
SEALS = Seals(b"of the tasks tried here", "tried", "the log tried here")
# Of a life without a death in it.
NEVER = -1


# --- a place ----------------------------------------------------------------------------------


@contextmanager
def place(
    broker: str, partitions: int, stage: str, *scaled: str, extra: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """A pipeline's topics on the broker, of nobody else's, for a while.

    Args:
        broker: its address.
        partitions: of what scales.
        stage: whose changelog is wanted.
        scaled: of the topics that scale, those that are wanted; where none is named, all are.
        extra: of the topics that only some declarations have.
    """
    cluster = Cluster(broker, a_name(stage))
    unwanted = {name for name, topic in catalogue().items() if scaled and topic.scales}
    unwanted -= {*scaled, f"{stage}-changelog"}
    topics = {n: topic for n, topic in needed(catalogue(), extra).items() if n not in unwanted}
    apply(cluster, Demand(partitions=partitions, extra_topics=extra), topics)
    try:
        yield cluster
    finally:
        with KafkaAdminClient(bootstrap_servers=broker) as admin:
            admin.delete_topics([cluster.topic(name) for name in topics])


def make_anew(cluster: Cluster, topic: str, partitions: int = 1) -> None:
    """Delete a topic, and make it as `topics apply` does."""
    deadline = time.monotonic() + DEADLINE_S
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.delete_topics([cluster.topic(topic)])
        while not admin.describe_topics([cluster.topic(topic)])[0]["error_code"]:
            assert time.monotonic() < deadline, f"{topic} is still there"
    apply(cluster, Demand(partitions), {each: catalogue()[each] for each in ("layout", topic)})


def sealed(topic: str, value: bytes | None) -> bytes | None:
    """A record as a stage's would lie there."""
    if topic not in SEALED_TOPICS or value is None:
        return value
    return SEALS.records(topic).seal(value)


async def publish(
    cluster: Cluster, topic: str, partition: int, records: Sequence[Record | Output]
) -> list[Any]:
    """Append keys and values to a partition; what lies there then, as a client gives it.

    What only stages write is sealed, as a stage's would be.
    """
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, linger_ms=5)
    await producer.start()
    try:
        sent = [
            await producer.send(
                cluster.topic(topic), sealed(topic, each.value), each.key, partition
            )
            for each in records
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return (await lying(cluster, (topic, partition)))[topic, partition]


@asynccontextmanager
async def reader(
    cluster: Cluster, isolation: str = "read_committed"
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer with nothing assigned."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap,
        isolation_level=isolation,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def lying(
    cluster: Cluster, *places: tuple[str, int], isolation: str = "read_committed"
) -> dict[tuple[str, int], list[Any]]:
    """What lies on some partitions, as a client gives it, up to their ends as of now.

    Waits for transactions that lie open: one that another test's dead task has left hides from
    readers of committed records what was committed after it began.
    """
    tps = {TopicPartition(cluster.topic(topic), p): (topic, p) for topic, p in places}
    found: dict[tuple[str, int], list[Any]] = {each: [] for each in places}
    async with asyncio.timeout(DEADLINE_S), reader(cluster, isolation) as consumer:
        consumer.assign(list(tps))
        await consumer.seek_to_beginning()
        ends = await ends_of(cluster, list(tps))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, batch in (await consumer.getmany(timeout_ms=200)).items():
                found[tps[tp]] += batch
    return found


async def ends_of(cluster: Cluster, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
    """The ends of partitions, what lies in open transactions included."""
    async with reader(cluster, "read_uncommitted") as consumer:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(tps)
        return ends


async def outputs_of(
    cluster: Cluster,
    isolation: str = "read_committed",
    partitions: int = 1,
    extra: tuple[str, ...] = (),
) -> dict[str, list[Record]]:
    """What stages have written, by topic, in the order of each partition."""
    topics = [
        "predictions",
        "examples",
        "models",
        "registry",
        "alerts",
        "dead-letters",
        "summaries",
        "answers",
        *extra,
    ]
    places = [
        (topic, p) for topic in topics for p in range(partitions if topic == "predictions" else 1)
    ]
    found = await lying(cluster, *places, isolation=isolation)
    outputs = {
        topic: [r for at in places if at[0] == topic for r in to_records(topic, found[at])]
        for topic in topics
    }
    for topic in SEALED_TOPICS & outputs.keys():
        open_sealed(outputs[topic], SEALS.records(topic))
    return outputs


async def state_of(
    cluster: Cluster, stage: str, partition: int, seals: Seals = SEALS
) -> tuple[dict[str, bytes], Positions | None]:
    """What a successor would take up: pieces by name, and where they are valid."""
    async with asyncio.timeout(DEADLINE_S), reader(cluster) as consumer:
        tp = TopicPartition(cluster.changelog(stage), partition)
        state = seals.state(f"{stage}-{partition}")
        restored = await read_changelog(consumer, tp, (await ends_of(cluster, [tp]))[tp], state)
        assert restored.flaws == [], f"{stage}-{partition}"
        marker = restored.marker
        return restored.pieces, None if marker is None else marker.positions


# --- a task -----------------------------------------------------------------------------------


@dataclass
class Bench:
    """Where tasks of one stage are tried: the place, how it is worked there, what was said.

    Args:
        cluster: the place.
        stage: the stage's name.
        inputs: the topics it reads.
        make: a fresh stage.
        partitions: of each topic that outputs go to.
        commit_s: how long a transaction gathers.
        checkpoint_s: how often state is written.
        topics: the ids of topics.
        accepted: those that are taken for what they are.
        declared: the declaration, as checkpoints keep it.
        sends: whether a task that goes on elsewhere has records fetched anew.
        sent_for: from where on records were to be fetched anew.
    """

    cluster: Cluster
    stage: str
    inputs: tuple[str, ...]
    make: Callable[[int], Stage]
    partitions: dict[str, int] = field(default_factory=dict)
    commit_s: float = 0.0
    checkpoint_s: float = 3_600.0
    topics: dict[str, str] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()
    declared: dict[str, str] = field(default_factory=dict)
    sends: bool = False
    sent_for: dict[PartitionId, int] = field(default_factory=dict)
    said: list[dict[str, Any]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def task(self, partition: int) -> Life:
        """A task that was not there before."""
        counts = dict.fromkeys(catalogue(), 1) | self.partitions
        group = self.cluster.group(self.stage)
        transactions = Transactions(self.cluster, group, self.name(partition), self.commit_s)
        context = TaskContext(
            self.cluster,
            transactions,
            counts,
            self.checkpoint_s,
            lambda kind, **members: self.said.append({"said": kind, **members}),
            self.failures.append,
            SEALS,
            self.declared,
            topics=self.topics,
            accepted_topics=self.accepted,
            seek=self._seek if self.sends else None,
        )
        spec = TaskSpec(self.stage, self.inputs, self.make, _ready)
        return Life(KafkaTask(context, spec, partition), transactions)

    async def _seek(self, offsets: Mapping[PartitionId, int]) -> int:
        self.sent_for |= offsets
        return 1

    def name(self, partition: int) -> str:
        """What is written under by whoever has a partition: here, a worker has one."""
        return self.cluster.transactional_id(self.stage, f"has-{partition}")


async def _ready() -> None:
    """Nothing is shared."""


class Life:
    """A task, every step of which can be waited for, and can be its last."""

    def __init__(self, task: KafkaTask, transactions: Transactions) -> None:
        self.task = task
        self.transactions = transactions
        self.runner: asyncio.Task[None] | None = None
        self.steps = 0
        self._last = NEVER
        self._amid = self._halts = self._cut_off = False
        self._within: dict[str, int] = {}
        self._stepped = asyncio.Event()
        for name in (
            "_committed_offsets",
            "_read_changelog",
            "_replay",
            "_fold",
            "_commit",
            "_write_state",
        ):
            setattr(task, name, self._step_by_step(name, getattr(task, name)))
        for name in ("start", "wait_until_writable", "commit"):
            setattr(transactions, name, self._step_by_step(name, getattr(transactions, name)))
        take_over = task._take_over

        async def as_new_worker() -> None:
            await transactions.start()
            await take_over()

        task._take_over = as_new_worker  # type: ignore[method-assign]  # that is the point

    def halt_at(self, step: int) -> None:
        """Let it come no further than a step."""
        self._last, self._halts = self.steps + step, True

    @property
    def halted(self) -> bool:
        """Whether it has come as far as it may."""
        return self._halts and self.steps >= self._last

    def die_at(self, step: int, *, amid: bool) -> None:
        """Let it end at a step: before it, or amid what it does next."""
        self._last, self._amid = self.steps + step, amid

    def die_within(self, name: str, step: int, *, amid: bool) -> None:
        """Let it end so many steps on from where it first does what is named."""
        self._within, self._amid = {name: step}, amid

    def _step_by_step(
        self, name: str, work: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def stepping(*arguments: Any, **options: Any) -> Any:
            if name in self._within:
                self._last = self.steps + self._within.pop(name)
            await self._step()
            result = await work(*arguments, **options)
            await self._step()
            return result

        return stepping

    async def _step(self) -> None:
        self.steps += 1
        self._stepped.set()
        if self.steps == self._last:
            assert self.runner is not None, "only what runs takes steps"
            if self._halts:
                await asyncio.get_running_loop().create_future()
            elif self._amid:
                asyncio.get_running_loop().call_soon(self.runner.cancel)
            else:
                self.runner.cancel()
                await asyncio.get_running_loop().create_future()

    def go(self) -> None:
        """Begin, or go on."""
        self.task.start()
        # Parking, a task lets go of its own; a step of its last commit may be its last.
        self.runner = self.task._runner
        assert self.runner is not None, "it has just begun"
        self.runner.add_done_callback(lambda _: self._stepped.set())

    @property
    def dead(self) -> bool:
        """Whether its coroutine has ended."""
        return self.runner is not None and self.runner.done()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that a step may bring about, or for its death."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition() and not self.dead:
                self._stepped.clear()
                await self._stepped.wait()

    async def until_taken_over(self) -> None:
        """Wait until it works."""
        await self.until(lambda: self.task._has_taken_over)

    async def until_folded(self, ends: Positions) -> None:
        """Wait until it has folded all before some offsets."""
        work = self.task._task
        await self.until(lambda: all(work.positions.get(at, 0) >= end for at, end in ends.items()))

    async def until_committed(self) -> None:
        """Wait until nothing is under way."""
        ours = self.transactions
        await self.until(lambda: ours.due == NOT_DUE and not ours._is_open)

    async def cut_off(self) -> None:
        """Take its connections down, as of a process that ends."""
        if not self._cut_off:
            self._cut_off = True
            await self.transactions.close()


# --- a run of lives ---------------------------------------------------------------------------


Inputs = dict[str, list[Any]]


async def run_through(
    bench: Bench, partition: int, inputs: Inputs, rand: random.Random, deaths: int
) -> None:
    """Feed a task all its inputs while it dies so many times, and write everything down."""
    life, lingering, lasted = None, None, False
    try:
        for death in range(deaths + 1):
            life = bench.task(partition)
            if death < deaths:
                _doom(life, rand)
            life.go()
            lasted = await _live(life, inputs, rand)
            if lingering is not None:
                await lingering.cut_off()
                lingering = None
            assert not bench.failures, bench.failures
            if lasted:
                break
            if rand.random() < 0.5:
                await life.cut_off()
            else:
                lingering = life
        assert life is not None
        assert lasted, "it died once too often"
        await life.cut_off()
    finally:
        for each in (life, lingering):
            if each is not None:
                if each.runner is not None:
                    each.runner.cancel()
                await each.cut_off()
        if not lasted:
            await end_transaction(bench.cluster, bench.name(partition))


def _doom(life: Life, rand: random.Random) -> None:
    """Say when it dies: anywhere, or where much depends on it."""
    amid = rand.random() < 0.5
    if rand.random() < 0.5:
        life.die_at(rand.randrange(1, rand.choice([10, 60])), amid=amid)
    else:
        life.die_within(
            rand.choice(["_write_state", "commit", "_replay"]),
            rand.randrange(1, 11),
            amid=amid,
        )


async def end_transaction(cluster: Cluster, name: str) -> None:
    """End what was left open under a name: readers of committed records would wait for it."""
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=name)
    await producer.start()
    await producer.stop()


async def _live(life: Life, inputs: Inputs, rand: random.Random) -> bool:
    """Feed it all that is left, with rebalances between; whether it lived to the end of it."""
    task, partition = life.task, life.task.partition
    ends = {
        (topic, partition): records[-1].offset + 1 for topic, records in inputs.items() if records
    }
    epoch = 1
    feed = _Feed(inputs, {}, rand)
    if rand.random() < 0.5:
        await life.until_taken_over()
        feed = _Feed(inputs, _back(rand, task._task.positions), rand)
    while feed.left and not life.dead:
        topic, records, number = feed.take()
        task.enqueue(topic, Batch(records, epoch, number))
        if rand.random() < 0.6:
            await life.until(lambda: task.waiting == 0)
        if rand.random() < 0.05 and task._has_taken_over and not life.dead:
            if not await _rebalance(life, epoch):
                return False
            epoch += 1
            feed = _Feed(inputs, _back(rand, task._task.positions), rand)
    await life.until_folded(ends)
    if rand.random() < 0.5:
        await life.until_committed()
    return not life.dead and await _park(life, epoch, checkpoint=True)


async def _rebalance(life: Life, epoch: int) -> bool:
    if not await _park(life, epoch):
        return False
    assert await life.task.can_resume(), "nobody else was there"
    life.go()
    return True


async def _park(life: Life, epoch: int, *, checkpoint: bool = False) -> bool:
    """Park it; False where it died of that."""
    async with asyncio.timeout(DEADLINE_S):
        whole = await life.task.suspend(epoch, checkpoint=checkpoint)
    return whole and life.runner is not None and not life.runner.cancelled()


def _back(rand: random.Random, positions: Positions) -> Positions:
    """Some way before: a consumer may be given again what was folded."""
    if rand.random() < 0.5:
        return dict(positions)
    return {at: max(0, position - rand.randrange(30)) for at, position in positions.items()}


class _Feed:
    """Cuts what is left of each input into numbered batches, and alternates between inputs."""

    def __init__(self, inputs: Inputs, start: Positions, rand: random.Random) -> None:
        starts = {topic: at for (topic, _), at in start.items()}
        self._left = {
            topic: [each for each in records if each.offset >= starts.get(topic, 0)]
            for topic, records in inputs.items()
        }
        self._numbers: Counter[str] = Counter()
        self._rand = rand
        self._bias = rand.choice([0.1, 0.5, 0.9])

    @property
    def left(self) -> bool:
        """Whether anything is."""
        return any(self._left.values())

    def take(self) -> tuple[str, list[Any], int]:
        """The next batch: its topic, its records, its number."""
        topics = [topic for topic, records in self._left.items() if records]
        topic = topics[-1] if self._rand.random() < self._bias else topics[0]
        size = self._rand.choice([1, 3, 20, 100])
        records, self._left[topic] = self._left[topic][:size], self._left[topic][size:]
        number = self._numbers[topic]
        self._numbers[topic] += 1
        return topic, records, number


# --- processes --------------------------------------------------------------------------------


class House:
    """A folder with a declaration, and what every terminal there is told.

    Args:
        folder: the folder.
        cluster: where the pipeline is; its name is the pipeline's.
        declaration: Python that gives `declared` of the name `name`.
    """

    def __init__(self, folder: Path, cluster: Cluster, declaration: str) -> None:
        self.folder = folder
        source = f"name = {cluster.pipeline!r}\n{declaration}"
        (folder / "declaration.py").write_text(source)
        self.variables = {
            "STREAM_ML_PIPELINE": "declaration:declared",
            "STREAM_ML_BROKER": f"kafka://{cluster.bootstrap}",
            "STREAM_ML_KEY": "5a" * 32,
        }

    def worker(self, stage: str, **variables: str) -> Terminal:
        """A worker that says JSON lines."""
        return self.terminal("worker", stage, "--format", "json", **variables)

    def terminal(self, *arguments: str, **variables: str) -> Terminal:
        """A `stream-ml` command."""
        return Terminal(*arguments, folder=self.folder, **{**self.variables, **variables})


def until_said(terminal: Terminal, **members: object) -> dict[str, Any]:
    """The next thing said with these members."""
    while True:
        said: dict[str, Any] = orjson.loads(terminal.line())
        if members.items() <= said.items():
            return said
