"""A task on a real broker: whatever happens to it, its outputs and its state come out once."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from river import tree

from stream_ml import Learner, Retrained
from stream_ml.codec import record_hash
from stream_ml.errors import Fenced
from stream_ml.models.snapshot import decode
from stream_ml.records import Output, Record, Source
from stream_ml.sealing import MARKER
from stream_ml.shell.kafka import task as task_module
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.records import to_records
from stream_ml.shell.kafka.task import KafkaTask
from stream_ml.shell.kafka.transactions import NEVER, CommittedOffset, Transactions
from stream_ml.shell.kafka.transport import Batch
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.inputs import open_sealed
from stream_ml.stages.join import LABELS_PER_ID_MAX, Join
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.testing import Driver
from stream_ml.topics import partition_of
from tests.kafka.world import (
    DEADLINE_S,
    SEALS,
    Bench,
    lying,
    outputs_of,
    place,
    publish,
    run_through,
    state_of,
)
from tests.shop import KEY, declare, example, shop, started, written
from tests.simulation import test_decisions as decisions
from tests.simulation.world import pipeline, stream
from tests.stages.test_replay import EVENT_PARTITIONS, _inputs, _meaning
from tests.trainers import Bag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.stages.task import Positions, Stage, StateEntry
    from tests.kafka.world import Inputs, Life

# Each run has a partition of its own, so that one set of topics serves them all.
PARTITIONS = 60
SEEDS = range(6)
# Enough that a planted bug shows in one of them.
PLANT_SEEDS = range(100, 108)
SERVING = started(pipeline)[2]

Found = dict[str, list[Record]]
# What a task wrote: by where it lies, in order.
Written = dict[tuple[str, int], list[tuple[bytes | None, bytes | None]]]


@pytest.fixture(scope="module")
def clusters(kafka_broker: str) -> Iterator[dict[str, Cluster]]:
    """By stage, topics wide enough for all its runs."""
    with (
        place(kafka_broker, PARTITIONS, "predict", "events", "predictions") as predict,
        place(kafka_broker, PARTITIONS, "join", "predictions", "labels") as join,
    ):
        yield {"predict": predict, "join": join}


@pytest.fixture(scope="module")
def partitions() -> Iterator[int]:
    """Partitions that no other run has."""
    return iter(range(PARTITIONS))


# --- what predict and join are fed, and what must come of it ------------------------------------


def _value(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(record.value or b"")
    return found


def _written(records: list[Record]) -> Written:
    placed: Written = {}
    for each in records:
        placed.setdefault((each.topic, each.partition), []).append((each.key, each.value))
    return placed


def _id_of(label: Record) -> bytes:
    """As it reads, for some are no labels."""
    return (label.value or b"").partition(b',"ts"')[0]


class PredictKind:
    """Predict: outputs in the very order, state byte for byte."""

    name = "predict"
    inputs = ("events",)

    def make(self, partition: int) -> Stage:
        """A stage whose events all lie where they belong."""
        del partition
        return Predict(pipeline, SERVING)

    def feed(self, seed: int) -> dict[str, list[Any]]:
        """Events of a world, good and bad."""
        values = [e if isinstance(e, bytes) else orjson.dumps(e) for e in stream(seed)[0]]
        return {"events": [Output("events", b"k", value) for value in values]}

    def flaw(self, read: Inputs, found: Found, pieces: dict[str, bytes], partition: int) -> str:
        """What differs from the uninterrupted run in memory, if anything."""
        stage = self.make(partition)
        expected: Written = {}
        for each in stage.apply(to_records("events", read["events"])):
            count = PARTITIONS if each.topic == "predictions" else 1
            at = (each.topic, partition_of(each.key or b"", count))
            expected.setdefault(at, []).append((each.key, each.value))
        ours = [r for r in found["predictions"] if _value(r)["source"]["partition"] == partition]
        letters = [r for r in found["dead-letters"] if _value(r)["topic"] == "events"]
        ours += [r for r in letters if _value(r)["partition"] == partition]
        ours += [r for r in found["summaries"] if _value(r)["partition"] == partition]
        if expected != _written(ours):
            return "outputs"
        whole = {name: piece for name, piece in stage.dirty() if piece is not None}
        return "" if whole == pieces else "state"


def _unnumbered(value: bytes | None) -> bytes:
    """Examples are numbered as they come, and that depends on how the inputs alternated."""
    return re.sub(rb',"number":\d+', b"", value or b"")


class JoinKind:
    """Join: the same outputs and the same meaning of the state, however its inputs alternate."""

    name = "join"
    inputs = ("predictions", "labels")

    def make(self, partition: int) -> Stage:
        """A stage whose records all lie where they belong."""
        del partition
        return Join(shop, EVENT_PARTITIONS)

    def feed(self, seed: int) -> dict[str, list[Any]]:
        """Predictions and labels with all that can go wrong."""
        rand = random.Random(seed)
        found = _inputs(rand)
        # So many labels of one id that some are refused while they wait: no function of the logs.
        while max(Counter(map(_id_of, found[1])).values()) > LABELS_PER_ID_MAX:
            found = _inputs(rand)
        for each in (*found[0], *found[1]):
            each.key = b"k"  # without a value Kafka's clients want one
        return dict(zip(self.inputs, found, strict=True))

    def flaw(self, read: Inputs, found: Found, pieces: dict[str, bytes], partition: int) -> str:
        """What differs from the uninterrupted run in memory, if anything."""
        stage = Join(shop, EVENT_PARTITIONS)
        expected: Counter[Any] = Counter()
        for topic in self.inputs:
            records = to_records(topic, read[topic])
            if topic == "predictions":
                open_sealed(records, SEALS.records(topic))
            for each in stage.apply(records) if records else ():
                expected[each.topic, each.key, _unnumbered(each.value)] += 1
        ours = [r for r in found["examples"] if _value(r)["label_source"]["partition"] == partition]
        letters = [r for r in found["dead-letters"] if _value(r)["topic"] in self.inputs]
        ours += [r for r in letters if _value(r)["partition"] == partition]
        ours += [r for r in found["summaries"] if _value(r)["partition"] == partition]
        if expected != Counter((each.topic, each.key, _unnumbered(each.value)) for each in ours):
            return "outputs"
        restored = Join(shop, EVENT_PARTITIONS)
        restored.restore(pieces.items())
        return "" if _meaning(restored) == _meaning(stage) else "state"


KINDS: dict[str, PredictKind | JoinKind] = {"predict": PredictKind(), "join": JoinKind()}


def bench(cluster: Cluster, kind: PredictKind | JoinKind, **options: Any) -> Bench:
    """Where a stage's tasks are tried."""
    counts = {"predictions": PARTITIONS}
    return Bench(cluster, kind.name, kind.inputs, kind.make, counts, **options)


def flaws(
    cluster: Cluster,
    kind: PredictKind | JoinKind,
    runs: dict[int, int],
    checkpoints_s: tuple[float, ...] = (0.0, 3_600.0, 3_600.0),
) -> dict[int, str]:
    """Tasks that die now and then, by seed at a partition; what is wrong in the end, by seed."""

    async def run(seed: int, partition: int) -> Inputs:
        rand = random.Random(seed)
        tried = bench(
            cluster,
            kind,
            commit_s=rand.choice([0.0, 0.002, 0.02]),
            checkpoint_s=rand.choice(checkpoints_s),
        )
        read = {
            topic: await publish(cluster, topic, partition, records)
            for topic, records in kind.feed(seed).items()
        }
        await run_through(tried, partition, read, rand, rand.randint(3, 6))
        return read

    async def look() -> dict[int, str]:
        ended = await asyncio.gather(*(run(*each) for each in runs.items()), return_exceptions=True)
        found = await outputs_of(cluster, partitions=PARTITIONS)
        wrong = {}
        for (seed, partition), read in zip(runs.items(), ended, strict=True):
            if isinstance(read, BaseException):
                wrong[seed] = repr(read)
                continue
            pieces, positions = await state_of(cluster, kind.name, partition)
            ends = {(t, partition): rs[-1].offset + 1 for t, rs in read.items() if rs}
            flaw = kind.flaw(read, found, pieces, partition)
            if flaw or positions != ends:
                wrong[seed] = flaw or "positions"
        return wrong

    return asyncio.run(look())


# --- deaths -----------------------------------------------------------------------------------


@pytest.fixture
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """By records, and so by the seed, at every few commits."""
    monkeypatch.setattr(task_module, "CHECKPOINT_RECORDS", 40)


@pytest.mark.usefixtures("frequent_checkpoints")
@pytest.mark.parametrize("name", KINDS)
def test_a_task_that_dies_anywhere_leaves_what_one_that_lives_does(
    clusters: dict[str, Cluster], partitions: Iterator[int], name: str
) -> None:
    """Outputs, positions and state equal those of the uninterrupted run in memory."""
    runs = {seed: next(partitions) for seed in SEEDS}

    assert {} == flaws(clusters[name], KINDS[name], runs), f"seeds {runs}"


def an_offset_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes over skips one record (not the last one, which it would wait for)."""
    write = Transactions.write

    def ahead(self: Transactions, records: Any, positions: dict[Any, int]) -> None:
        write(self, records, {place: at + (0 < at < 110) for place, at in positions.items()})

    monkeypatch.setattr(Transactions, "write", ahead)


def a_replay_that_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes over writes again what was written."""
    replay = KafkaTask._replay

    async def aloud(self: KafkaTask, committed: Positions) -> int:
        again: list[Output] = []
        stage: Any = self._stage
        stage.replay = lambda records: again.extend(stage.apply(records))
        replayed = await replay(self, committed)
        self._pending_outputs += again
        self._send()
        return replayed

    monkeypatch.setattr(KafkaTask, "_replay", aloud)


def a_marker_outside_its_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The marker is there at once, the pieces that it speaks of only when all commits."""
    write_state = KafkaTask._write_state

    async def rashly(self: KafkaTask) -> None:
        cluster = self._context.cluster
        producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap)
        await producer.start()
        topic, (entry,) = (
            cluster.changelog(self._spec.stage),
            self._state.write([], self._task.positions),
        )
        value = entry.value
        await producer.send_and_wait(topic, value, MARKER, self.partition)
        await producer.stop()
        await write_state(self)

    monkeypatch.setattr(KafkaTask, "_write_state", rashly)


def a_checkpoint_without_its_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces are new, and the marker says that they are old."""
    write_state = KafkaTask._write_state

    async def behind(self: KafkaTask) -> None:
        positions = self._task.positions
        self._task.positions = {at: max(0, position - 5) for at, position in positions.items()}
        await write_state(self)
        self._task.positions = positions

    monkeypatch.setattr(KafkaTask, "_write_state", behind)


@pytest.mark.usefixtures("frequent_checkpoints")
@pytest.mark.parametrize(
    "plant",
    [
        an_offset_too_far,
        a_replay_that_is_heard,
        a_marker_outside_its_transaction,
        a_checkpoint_without_its_positions,
    ],
)
def test_a_task_that_does_it_wrong_is_caught(
    clusters: dict[str, Cluster],
    partitions: Iterator[int],
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """The check above notices each of these bugs, by what came out of it."""
    plant(monkeypatch)
    runs = {seed: next(partitions) for seed in PLANT_SEEDS}

    found = flaws(clusters["predict"], KINDS["predict"], runs, (3_600.0,))

    assert {"outputs", "state"} & set(found.values()), f"seeds {runs}: {found}"


# --- taking over ------------------------------------------------------------------------------


async def fed(
    cluster: Cluster, partition: int, seed: int = 7
) -> tuple[list[Any], dict[tuple[str, int], int]]:
    """Events on a partition, as a consumer gives them, and where they end."""
    read = await publish(cluster, "events", partition, KINDS["predict"].feed(seed)["events"])
    return read, {("events", partition): read[-1].offset + 1}


def numbered(epoch: int, records: list[Any], number: int = 0) -> Batch:
    """A batch of an epoch."""
    return Batch(records, epoch, number)


async def parked(life: Life, epoch: int = 1, *, checkpoint: bool = False) -> None:
    """Park a task that is whole, and let go of it."""
    assert await life.task.suspend(epoch, checkpoint=checkpoint)
    assert life.runner is not None
    await life.runner
    await life.cut_off()


async def flaw_of(cluster: Cluster, partition: int, read: list[Any]) -> str:
    """What is wrong with what predict tasks have written about a partition."""
    pieces, _ = await state_of(cluster, "predict", partition)
    found = await outputs_of(cluster, partitions=PARTITIONS)
    return KINDS["predict"].flaw({"events": read}, found, pieces, partition)


def test_a_successor_fences_the_former_owner_and_nothing_of_it_is_seen(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """Thought dead, it wakes with an open transaction: its commit fails, and it says so."""
    cluster, partition = clusters["predict"], next(partitions)

    async def run() -> tuple[list[BaseException], str]:
        read, ends = await fed(cluster, partition)
        slow = bench(cluster, KINDS["predict"], commit_s=60.0)
        former = slow.task(partition)
        former.go()
        former.task.enqueue("events", numbered(1, read[:60]))
        await former.until_folded({("events", partition): 60})
        successor = bench(cluster, KINDS["predict"]).task(partition)
        successor.go()
        successor.task.enqueue("events", numbered(1, read))
        await successor.until_folded(ends)

        former.task.enqueue("events", numbered(1, read[60:], 1))
        await former.task.suspend(1)
        assert former.runner is not None
        await asyncio.wait([former.runner])
        failures = list(slow.failures)
        await former.cut_off()
        await parked(successor, checkpoint=True)
        return failures, await flaw_of(cluster, partition, read)

    failures, flaw = asyncio.run(run())
    assert [Fenced] == [type(failure) for failure in failures]
    assert "" == flaw


def test_what_another_task_commits_of_a_fresh_one_has_a_state_to_go_on_from(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """Tasks of a worker share transactions; a successor would find positions, and no state."""
    cluster, partition = clusters["predict"], next(partitions)

    async def run() -> str:
        read, ends = await fed(cluster, partition)
        life = bench(cluster, KINDS["predict"], commit_s=60.0).task(partition)
        life.go()
        life.task.enqueue("events", numbered(1, read[:20]))
        await life.until_folded({("events", partition): 20})
        life.transactions.write([], {(cluster.topic("events"), partition + 1): 0})
        await life.transactions.commit()
        assert {
            ("events", partition): CommittedOffset(20, is_ours=True)
        } == await life.task._committed_offsets()

        heir = bench(cluster, KINDS["predict"]).task(partition)
        heir.go()
        await heir.until_taken_over()
        heir.task.enqueue("events", numbered(1, read))
        await heir.until_folded(ends)
        await parked(heir, checkpoint=True)
        await life.cut_off()
        return await flaw_of(cluster, partition, read)

    assert "" == asyncio.run(run())


def test_a_parked_task_that_gets_its_partition_back_goes_on_without_reading_its_state(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """What it had not folded is put before it again; what it had folded is not said twice."""
    cluster, partition = clusters["predict"], next(partitions)
    tried = bench(cluster, KINDS["predict"])

    async def run() -> str:
        read, ends = await fed(cluster, partition)
        life = tried.task(partition)
        life.go()
        life.task.enqueue("events", numbered(1, read[:90]))
        await life.until_folded({("events", partition): 90})
        assert await life.task.suspend(1)
        assert await life.task.can_resume()
        life.go()
        life.task.enqueue("events", numbered(2, read[80:]))
        await life.until_folded(ends)
        await parked(life, 2, checkpoint=True)
        return await flaw_of(cluster, partition, read)

    assert "" == asyncio.run(run())
    assert ["recovering", "recovered"] == [each["said"] for each in tried.said]


def test_a_parked_task_does_not_go_on_where_another_has_committed_meanwhile(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """Its state is older than what was committed, so it is taken over anew."""
    cluster, partition = clusters["predict"], next(partitions)
    tried = bench(cluster, KINDS["predict"])

    async def run() -> tuple[list[bool], str]:
        read, ends = await fed(cluster, partition)
        goes_on = []
        first, second = tried.task(partition), tried.task(partition)
        first.go()
        first.task.enqueue("events", numbered(1, read[:50]))
        await first.until_folded({("events", partition): 50})
        assert await first.task.suspend(1)
        goes_on.append(await first.task.can_resume())
        second.go()
        second.task.enqueue("events", numbered(1, read[:51]))
        await second.until_folded({("events", partition): 51})
        assert await second.task.suspend(1)

        goes_on += [await first.task.can_resume(), await second.task.can_resume()]
        await first.cut_off()
        second.go()
        second.task.enqueue("events", numbered(2, read[51:]))
        await second.until_folded(ends)
        await parked(second, 2, checkpoint=True)
        return goes_on, await flaw_of(cluster, partition, read)

    assert ([True, False, True], "") == asyncio.run(run())


def test_parking_amid_a_take_over_ends_it_and_nothing_is_kept(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """At whichever step of taking over the rebalance comes: it begins anew, and all is once."""
    cluster, partition = clusters["predict"], next(partitions)
    tried = bench(cluster, KINDS["predict"])

    async def run() -> str:
        read, ends = await fed(cluster, partition)
        for step in range(1, 5):
            life = tried.task(partition)
            life.halt_at(step)
            life.go()
            life.task.enqueue("events", numbered(1, read))
            await life.until(lambda life=life: life.halted)
            assert not await life.task.suspend(1)
            await life.cut_off()
        life = tried.task(partition)
        life.go()
        life.task.enqueue("events", numbered(1, read))
        await life.until_folded(ends)
        await parked(life, checkpoint=True)
        return await flaw_of(cluster, partition, read)

    assert "" == asyncio.run(run())
    assert [] == tried.failures


def test_what_left_in_order_leaves_nothing_to_replay(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """A task that parks for good writes its state, if only what it replayed; a killed one not."""
    cluster, partition = clusters["predict"], next(partitions)
    tried = bench(cluster, KINDS["predict"])

    async def run() -> None:
        read, _ = await fed(cluster, partition)
        life = tried.task(partition)
        life.go()
        life.task.enqueue("events", numbered(1, read[:20]))
        await life.until_folded({("events", partition): 20})
        await life.until_committed()
        life.task.enqueue("events", numbered(1, read[20:50], 1))
        await life.until_folded({("events", partition): 50})
        await parked(life)
        for more, checkpoint in ((10, True), (10, False), (0, True), (0, True)):
            again = tried.task(partition)
            again.go()
            await again.until_taken_over()
            at = again.task._task.positions["events", partition]
            again.task.enqueue("events", numbered(1, read[at - 1 : at + more]))
            await again.until_folded({("events", partition): at + more})
            await parked(again, checkpoint=checkpoint)

    asyncio.run(run())
    assert [0, 50, 0, 10, 0] == [e["replayed"] for e in tried.said if e["said"] == "recovered"]


def test_the_marker_holds_where_the_cluster_forgot_what_a_group_had_committed(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """Offsets of an idle group expire: fed from the beginning, its successor says nothing twice."""
    cluster, partition = clusters["predict"], next(partitions)
    tried = bench(cluster, KINDS["predict"])

    async def run() -> str:
        read, ends = await fed(cluster, partition)
        life = tried.task(partition)
        life.go()
        life.task.enqueue("events", numbered(1, read[:100]))
        await life.until_folded({("events", partition): 100})
        await parked(life, checkpoint=True)
        forgotten = TopicPartition(cluster.topic("events"), partition)
        with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
            await asyncio.to_thread(
                admin.delete_group_offsets, cluster.group("predict"), [forgotten]
            )
        again = tried.task(partition)
        assert {} == await again.task._committed_offsets()
        again.go()
        again.task.enqueue("events", numbered(1, read))
        await again.until_folded(ends)
        await parked(again, checkpoint=True)
        return await flaw_of(cluster, partition, read)

    assert "" == asyncio.run(run())


class Hoard(Predict):
    """A stage with a piece of state as large as it likes."""

    hoard = b""

    def dirty(self) -> list[StateEntry]:
        """All of it, and the hoard."""
        return [*super().dirty(), ("x", self.hoard)]

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take all of it up."""
        state = dict(pieces)
        self.hoard = state.pop("x")
        super().restore(state.items())


def test_a_piece_larger_than_any_record_is_written_and_taken_up(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """40 MB of one key are no record that a broker takes: they lie in parts, and go with it."""
    cluster, partition = clusters["predict"], next(partitions)
    tried = Bench(
        cluster,
        "predict",
        ("events",),
        lambda _: Hoard(pipeline, SERVING),
        {"predictions": PARTITIONS},
    )
    hoards = [random.Random(1).randbytes(size) for size in (40_000_000, 700_000, 3)]

    async def run() -> list[int]:
        read, _ = await fed(cluster, partition)
        expected, sizes = b"", []
        for number, hoard in enumerate([*hoards, b""]):
            life = tried.task(partition)
            life.go()
            await life.until_taken_over()
            stage = life.task._stage
            assert isinstance(stage, Hoard)
            assert expected == stage.hoard
            expected = stage.hoard = hoard
            at = number * 10
            life.task.enqueue("events", numbered(1, read[at : at + 10]))
            await life.until_folded({("events", partition): at + 10})
            await parked(life, checkpoint=True)
            state, _ = await state_of(cluster, "predict", partition)
            sizes.append(sum("x" in name.split() or name == "x" for name in map(str, state)))
        return sizes

    assert [77, 2, 1, 1] == asyncio.run(run())


# --- batches ----------------------------------------------------------------------------------


def idle() -> KafkaTask:
    """A task that nobody has started."""
    return bench(Cluster("127.0.0.1:1", "nowhere"), KINDS["predict"]).task(0).task


def fetched(*offsets: int) -> list[Any]:
    """Events as a consumer gives them."""
    return [
        SimpleNamespace(partition=0, offset=o, key=None, value=b"{}", timestamp=1, headers=())
        for o in offsets
    ]


def test_a_batch_that_was_lost_on_the_way_is_no_gap_but_an_error() -> None:
    """Neither the first of an epoch nor one amid may be missing, nor may one come twice."""
    task = idle()
    task.enqueue("events", Batch(fetched(0, 1), 3, 0))
    for epoch, number in ((3, 2), (3, 0), (4, 1)):
        with pytest.raises(
            AssertionError, match=rf"batch {number} of epoch {epoch} of events came"
        ):
            task.enqueue("events", Batch(fetched(9), epoch, number))

    task.enqueue("events", Batch(fetched(2), 3, 1))
    task.enqueue("events", Batch(fetched(2), 4, 0))
    assert 4 == task.waiting


def test_what_was_fetched_before_a_rebalance_is_not_taken_after_it() -> None:
    """A batch of a former epoch, or of one that was closed by parking, is passed over."""
    task = idle()
    task.enqueue("events", Batch(fetched(0, 1), 3, 0))
    task.enqueue("events", Batch(fetched(2), 2, 7))
    assert 2 == task.waiting

    assert not asyncio.run(task.suspend(3))
    task.enqueue("events", Batch(fetched(2, 3), 3, 1))
    assert 0 == task.waiting
    task.enqueue("events", Batch(fetched(0), 4, 0))
    assert 1 == task.waiting


def test_a_task_with_enough_before_it_says_so() -> None:
    """More is fetched for it only when it has worked on some of it."""
    task = idle()
    task.enqueue("events", Batch(fetched(*range(7_999)), 1, 0))
    assert not task.is_full
    task.enqueue("events", Batch(fetched(7_999), 1, 1))
    assert task.is_full


def test_a_task_with_enough_bytes_before_it_says_so() -> None:
    """Of records of 1 MiB, 64 are enough: memory is bounded in bytes."""
    task = idle()
    records = fetched(*range(64))
    for record in records:
        record.value = bytes(1 << 20)
    task.enqueue("events", Batch(records[:63], 1, 0))
    assert not task.is_full
    task.enqueue("events", Batch(records[63:], 1, 1))
    assert task.is_full
    asyncio.run(task.suspend(1))
    assert not task.is_full


@pytest.mark.parametrize(
    ("header", "origin"),
    [
        (b"2:40:here", Source(2, 40)),
        (b":here", Source(-1, -1)),
        (b"-1:3:here", Source(-1, -1)),
        (b"\xff:\xff:here", Source(-1, -1)),
        (b"9" * 5_000 + b":1:here", Source(-1, -1)),
        (b"0:" + b"9" * 5_000 + b":here", Source(-1, -1)),
        (b"2:40", None),
        (b"2:40:elsewhere", None),
        (b"", None),
        (None, None),
    ],
)
def test_a_header_of_this_topic_says_that_a_record_was_forwarded(
    header: bytes | None, origin: Source | None
) -> None:
    """Any producer may set it to anything: it never stops who reads, nor lets a stray wander.

    A mirror's header, of another topic, is as good as none: what comes with it is forwarded once.
    """
    (record,) = fetched(0)
    record.headers = (("trace", b"1"), ("stream-ml-origin", header))
    assert [origin] == [each.origin for each in to_records("events", [record], "here")]


# --- what learns and judges -------------------------------------------------------------------


def examples(count: int) -> list[Record]:
    """Examples to learn from."""
    rand = random.Random(3)
    return [
        example(n, rand.random() < 0.4, {"amount": rand.random()}, shadows={"bayes": 0.4})
        for n in range(count)
    ]


# The shop with a line that is retrained.
retrained = declare(models={**shop.models, "bag": Retrained(Bag(), 50)})


def learning(cluster: Cluster, pipeline: Pipeline = shop, **options: Any) -> Bench:
    """Where the learn task is tried."""
    return Bench(
        cluster, "learn", ("examples",), lambda _: Learn(pipeline, KEY), commit_s=0.0, **options
    )


def digests(models: list[Record]) -> list[tuple[str, str]]:
    """What each snapshot is called, and what is in it."""
    found = [decode(each.value) for each in models]
    return [(each.model, each.digest) for each in found]


def test_what_learns_commits_only_together_with_its_state(kafka_broker: str) -> None:
    """Examples without a snapshot are not committed, however often commits fall due."""

    async def run(cluster: Cluster) -> None:
        read = await publish(cluster, "examples", 0, examples(50))
        life = learning(cluster).task(0)
        life.go()
        life.task.enqueue("examples", numbered(1, read[:19]))
        await life.until_folded({("examples", 0): 19})
        after = life.steps + 20
        await life.until(lambda: life.steps >= after)
        assert {} == await life.task._committed_offsets()
        assert {} == (await state_of(cluster, "learn", 0))[1]

        life.task.enqueue("examples", numbered(1, read[19:25], 1))
        await life.until_folded({("examples", 0): 25})
        await life.until(lambda: not life.transactions._is_open)
        life.task.enqueue("examples", numbered(1, read[25:], 2))
        await life.until_folded({("examples", 0): 50})
        await life.cut_off()
        assert life.runner is not None
        life.runner.cancel()

        heir = learning(cluster).task(0)
        committed = {
            at: found.offset for at, found in (await heir.task._committed_offsets()).items()
        }
        await heir.cut_off()
        assert committed == (await state_of(cluster, "learn", 0))[1]
        assert 25 <= committed["examples", 0] <= 50

    with place(kafka_broker, 1, "learn") as cluster:
        asyncio.run(run(cluster))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_learner_that_dies_learns_the_same_examples_to_the_same_weights(
    kafka_broker: str, seed: int
) -> None:
    """Snapshots are those of a learner that lived, each once; so are its figures in the end."""
    rand = random.Random(seed)

    async def run(cluster: Cluster) -> tuple[list[Record], dict[str, bytes]]:
        read = await publish(cluster, "examples", 0, examples(130))
        tried = learning(cluster, retrained, checkpoint_s=rand.choice([0.0, 0.05, 3_600.0]))
        await run_through(tried, 0, {"examples": read}, rand, 4)
        pieces, _ = await state_of(cluster, "learn", 0)
        return (await outputs_of(cluster))["models"], pieces

    with place(kafka_broker, 1, "learn") as cluster:
        models, pieces = asyncio.run(run(cluster))
    stage = Learn(retrained, KEY)
    expected = [*stage.start(), *stage.apply(examples(130))]
    assert digests(models) == [(each.memo.model, each.memo.digest) for each in expected], (
        f"seed {seed}"
    )
    rows = {name: piece for name, piece in stage.dirty() if name[:1] in {"", "r"}}
    assert rows == {name: pieces[name] for name in rows}, f"seed {seed}"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_line_declared_late_is_taught_what_lies_on_the_topic(
    kafka_broker: str, seed: int
) -> None:
    """From its first snapshot on it is what it had been from the start, whoever dies when."""
    rand = random.Random(seed)
    later = declare(models={**shop.models, "late": tree.HoeffdingTreeClassifier(grace_period=10)})

    async def run(cluster: Cluster) -> list[Record]:
        read = await publish(cluster, "examples", 0, examples(200))
        await run_through(learning(cluster), 0, {"examples": read[:90]}, rand, 1)
        tried = Bench(
            cluster,
            "learn",
            ("examples",),
            lambda _: Learn(later, KEY, has_backlog=True),
            checkpoint_s=rand.choice([0.0, 0.05]),
        )
        await run_through(tried, 0, {"examples": read}, rand, 3)
        return (await outputs_of(cluster))["models"]

    with place(kafka_broker, 1, "learn") as cluster:
        models = asyncio.run(run(cluster))
    stage = Learn(later, KEY)
    expected = dict(digests(written([*stage.start(), *stage.apply(examples(200))], "models")))
    late = [each for each in digests(models) if each[0].startswith("late@")]
    # An eighth of the 90 that were there, and then the next refresh.
    assert ["late@120", "late@140", "late@160", "late@180", "late@200"] == [m for m, _ in late], (
        f"seed {seed}"
    )
    assert [(model, expected[model]) for model, _ in digests(models)] == digests(models)


class Held(Learner):
    """Counts; its fortieth example has it wait for whoever holds it."""

    entered, released = Event(), Event()

    def __init__(self) -> None:
        self.count = 0

    def predict_one(self, features: Any) -> float:  # noqa: ARG002 - the protocol's
        """A share."""
        return 1 / (2 + self.count % 3)

    def learn_one(self, features: Any, label: Any) -> None:  # noqa: ARG002 - the protocol's
        """Count."""
        self.count += 1
        if self.count == 40:
            self.entered.set()
            assert self.released.wait(DEADLINE_S), "nothing else goes on meanwhile"

    def dump(self) -> bytes:
        """The count."""
        return orjson.dumps(self.count)

    def load(self, data: bytes) -> None:
        """The count."""
        self.count = int(orjson.loads(data))


@pytest.mark.parametrize("cancels", [False, True])
def test_a_line_that_keeps_learn_waiting_keeps_its_worker_from_nothing(
    kafka_broker: str, *, cancels: bool
) -> None:
    """The worker's loop goes on; parked or ended, it waits for the line, and loses nothing."""
    Held.entered, Held.released = Event(), Event()
    held = declare(models={**shop.models, "held": Held()})

    async def run(cluster: Cluster) -> list[Record]:
        read = await publish(cluster, "examples", 0, examples(100))
        life = learning(cluster, held).task(0)
        life.go()
        life.task.enqueue("examples", numbered(1, read[:50]))
        assert await asyncio.to_thread(Held.entered.wait, DEADLINE_S)
        assert life.runner is not None
        if cancels:
            life.runner.cancel()
        parking = asyncio.create_task(life.task.suspend(1))
        assert set() == (await asyncio.wait([parking, life.runner], timeout=0.05))[0]
        Held.released.set()
        await asyncio.wait([parking, life.runner])
        await life.cut_off()
        committed = 0 if cancels else 50
        positions = (await state_of(cluster, "learn", 0))[1] or {}
        assert committed == positions.get(("examples", 0), 0)
        heir = learning(cluster, held).task(0)
        heir.go()
        await heir.until_taken_over()
        heir.task.enqueue("examples", numbered(1, read[committed:]))
        await heir.until_folded({("examples", 0): 100})
        await parked(heir)
        return (await outputs_of(cluster))["models"]

    with place(kafka_broker, 1, "learn") as cluster:
        models = asyncio.run(run(cluster))
    stage = Learn(held, KEY)
    assert digests(written([*stage.start(), *stage.apply(examples(100))], "models")) == digests(
        models
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_judge_that_dies_decides_each_thing_once(kafka_broker: str, seed: int) -> None:
    """Decisions chain without a gap, every command has one answer, and its state knows the last."""
    rand = random.Random(seed)
    with Driver(decisions.restless, key=decisions.KEY) as driver:
        events, labels = stream(seed)
        driver.feed(events, labels)
        made = {topic: driver.records(topic) for topic in ("examples", "models")}
    asked = [Output("commands", b"world", value) for value in decisions.commands(seed)]

    async def run(cluster: Cluster) -> tuple[list[Record], dict[str, bytes]]:
        inputs = {
            topic: await publish(cluster, topic, 0, records)
            for topic, records in {**made, "commands": asked}.items()
        }
        # What evaluate wrote there itself, tombstones, comes after these on this cluster.
        tried = Bench(
            cluster,
            "evaluate",
            ("examples", "models", "commands"),
            lambda _: Evaluate(
                decisions.restless,
                Keyring(decisions.KEY, {}),
                decisions.LOG,
                # They are of a driver's time, and lie where there is a clock.
                command_age_ms=decisions.NOW_MS,
            ),
            checkpoint_s=rand.choice([0.0, 0.05, 3_600.0]),
        )
        await run_through(tried, 0, inputs, rand, 5)
        pieces, _ = await state_of(cluster, "evaluate", 0)
        return (await outputs_of(cluster))["registry"], pieces

    with place(kafka_broker, 1, "evaluate") as cluster:
        registry, pieces = asyncio.run(run(cluster))
    history = [_value(each) for each in registry]
    assert list(range(len(history))) == [each["number"] for each in history], f"seed {seed}"
    chained = ["0" * 64, *(record_hash(each.value or b"") for each in registry)]
    assert chained[:-1] == [each["previous"] for each in history], f"seed {seed}"
    answers = Counter(each["command_id"] for each in history if each["command_id"] is not None)
    assert {1} >= set(answers.values()), f"seed {seed}: {answers}"
    rest = orjson.loads(pieces[""])
    assert (len(history), chained[-1]) == (rest["number"], rest["previous"]), f"seed {seed}"


def test_a_change_is_said_once_wherever_amid_taking_it_up_a_stop_comes(kafka_broker: str) -> None:
    """With each step at which it is parked: said as often as alerts tell it, and from the last on.

    Each life has another declaration, so what is said and lost would be missing on the log.
    """
    steps = (4, *range(8, 19))  # What is read of the state; from the replay to the end.

    async def lived(cluster: Cluster, keep: int, step: float) -> tuple[list[str], bool]:
        tried = Bench(
            cluster,
            "evaluate",
            ("examples", "models", "commands"),
            lambda _: Evaluate(shop, Keyring(KEY, {}), "here"),
            declared={"keep": str(keep)},
        )
        life = tried.task(0)
        life.go()
        await life.until(lambda: life.task._has_taken_over or life.steps >= step)
        whole = await life.task.suspend(1)
        await life.cut_off()
        assert [] == tried.failures
        return [each["message"] for each in tried.said if each["said"] == "changed"], whole

    async def run(cluster: Cluster) -> tuple[list[str], list[str], list[bool]]:
        said, whole = [], []
        for keep, step in enumerate([NEVER, *steps, NEVER]):
            told, taken_over = await lived(cluster, keep, step)
            said += told
            whole.append(taken_over)
        alerts = (await outputs_of(cluster))["alerts"]
        return said, [_value(each)["message"] for each in alerts], whole

    with place(kafka_broker, 1, "evaluate") as cluster:
        said, alerts, whole = asyncio.run(run(cluster))
    assert alerts == said
    steps_told = [re.findall(r"\d+", each) for each in said]
    assert [each[1] for each in steps_told[:-1]] == [each[0] for each in steps_told[1:]]
    assert ["0", str(len(steps) + 1)] == [steps_told[0][0], steps_told[-1][1]]
    assert {False, True} == set(whole), "it was parked amid its take-over, and after it"


# --- what others put on a changelog ---------------------------------------------------------------


def test_what_others_put_on_a_changelog_is_passed_over_and_told(
    clusters: dict[str, Cluster], partitions: Iterator[int]
) -> None:
    """A forged watermark, a forged marker, a copy, a tombstone: the successor goes on as before."""
    kind, cluster, partition = KINDS["predict"], clusters["predict"], next(partitions)
    changelog = "predict-changelog"

    async def attacked() -> tuple[str, list[dict[str, Any]]]:
        tried = bench(cluster, kind)
        read = {
            topic: await publish(cluster, topic, partition, records)
            for topic, records in kind.feed(1).items()
        }
        await run_through(tried, partition, read, random.Random(1), 1)
        ours = (await lying(cluster, (changelog, partition)))[changelog, partition]
        foreign = [
            Output(changelog, b"", b'{"watermark":4102444800000,"counts":{}}'),
            Output(changelog, MARKER, b'{"positions":[["events",1,1000000000]]}'),
            Output(changelog, ours[0].key, None),
            Output(changelog, ours[0].key, ours[0].value),
            Output(changelog, b"\xff\xfe", b"x"),
        ]
        await publish(cluster, changelog, partition, foreign)
        await run_through(tried, partition, read, random.Random(2), 1)
        found = await outputs_of(cluster, partitions=PARTITIONS)
        pieces, _ = await state_of(cluster, kind.name, partition)
        told = [_value(alert) for alert in found["alerts"]]
        return kind.flaw(read, found, pieces, partition), told

    flaw, told = asyncio.run(attacked())

    assert flaw == ""
    (alert,) = [each for each in told if each["details"].get("task") == f"predict-{partition}"]
    assert ("foreign_state", 5) == (alert["kind"], alert["details"]["records"])
