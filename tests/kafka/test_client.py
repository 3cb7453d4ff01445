"""A cluster's log beyond the laws: transactions, groups, state, the wire, and what goes wrong."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from stream_ml.cli.main import main
from stream_ml.client import Publisher, connect, predictions
from stream_ml.codec import encode_prediction
from stream_ml.errors import BadRecord, LogError, NotAcknowledged, UnknownTopic
from stream_ml.records import Output, Prediction, Source
from stream_ml.sealing import MARKER
from stream_ml.shell.alerting.bookmarks import GroupBookmark, Place
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.assignor import TaskAssignor
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.metadata import (
    group_names,
    members_since_ms,
    stages_at_work,
    stages_with_members,
    topic_ids,
)
from stream_ml.shell.kafka.native_log import NativeLog
from stream_ml.shell.log.reading import last_records, read_all
from stream_ml.shell.views import status
from stream_ml.shell.views.stalled import SILENT_MS, read_stalled
from stream_ml.topics import catalogue, needed, partition_of
from tests.kafka_broker import a_name, cluster_of_its_own
from tests.shell.cli_toy import stream, toy
from tools.kafka.broker import QUICK_START, Broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTITIONS = 2
# Far more than any step takes, even on a machine that is busy with something else.
DEADLINE_S = 60.0


@pytest.fixture
def cluster(kafka_broker: str) -> Iterator[Cluster]:
    """A pipeline's topics on the broker, of nobody else's, for a while."""
    with cluster_of_its_own(kafka_broker, "client", PARTITIONS) as cluster:
        yield cluster


@pytest.fixture
def log(cluster: Cluster) -> Iterator[KafkaLog]:
    """The log of that pipeline, as a client has it."""
    with KafkaLog(cluster) as log:
        yield log


class Worker(KafkaProducer):
    """Goes on once readers can see what it has committed: the broker marks partitions later."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(bootstrap_servers=cluster.bootstrap, transactional_id=cluster.pipeline)
        self._cluster = cluster

    def commit_transaction(self) -> None:
        """Commit, and wait for the marks."""
        super().commit_transaction()
        deadline = time.monotonic() + DEADLINE_S
        while self._ends("read_committed") != self._ends("read_uncommitted"):
            assert time.monotonic() < deadline, "a commit that no reader sees"

    def _ends(self, isolation: str) -> dict[TopicPartition, int]:
        with closing(
            KafkaConsumer(bootstrap_servers=self._cluster.bootstrap, isolation_level=isolation)
        ) as consumer:
            names = [self._cluster.topic(name) for name in needed(catalogue())]
            parts = {name: consumer.partitions_for_topic(name) or () for name in names}
            ends: dict[TopicPartition, int] = consumer.end_offsets(
                [TopicPartition(name, number) for name in names for number in parts[name]]
            )
            return ends


@contextmanager
def worker(cluster: Cluster) -> Iterator[KafkaProducer]:
    """A producer of transactions, as a worker has one."""
    with closing(Worker(cluster)) as producer:
        producer.init_transactions()
        yield producer


def prediction(number: int, key: str = "JFK") -> Prediction:
    """A prediction on an event of a second that its number says."""
    return Prediction(
        event_id=f"e{number}",
        key=key,
        ts=1_000 * number,
        source=Source(0, number),
        model="plain@0",
        example=-1,
        prediction=0.5,
        fallback=False,
        features={"x": 1.0},
        shadows={},
    )


def write(producer: KafkaProducer, cluster: Cluster, *wrote: Prediction) -> None:
    """Write predictions within the open transaction."""
    for each in wrote:
        key = each.event_id.encode()
        producer.send(
            cluster.topic("predictions"),
            key=key,
            value=encode_prediction(each),
            partition=partition_of(key, PARTITIONS),
        )
    producer.flush()


# --- transactions -----------------------------------------------------------------------------


def test_what_is_not_committed_is_seen_by_who_asks_for_it(log: KafkaLog, cluster: Cluster) -> None:
    """A transaction is seen whole after its commit; uncommitted, its records are seen at once."""
    with worker(cluster) as producer, KafkaLog(cluster, isolation="uncommitted") as early:
        producer.begin_transaction()
        write(producer, cluster, *map(prediction, range(10)))

        assert list(read_all(log, "predictions")) == []
        assert [log.end_offset("predictions", p) for p in range(PARTITIONS)] == [0, 0]
        assert len(list(read_all(early, "predictions"))) == 10

        producer.commit_transaction()
        assert list(read_all(early, "predictions")) == list(read_all(log, "predictions"))
        assert len(list(read_all(log, "predictions"))) == 10


def test_what_was_aborted_is_passed_over_without_waiting(log: KafkaLog, cluster: Cluster) -> None:
    """Where only marks of transactions and aborted records lie, there is nothing, at once."""
    with worker(cluster) as producer:
        for _ in range(20):
            producer.begin_transaction()
            write(producer, cluster, *map(prediction, range(4)))
            producer.abort_transaction()
        assert list(read_all(log, "predictions")) == []
        producer.begin_transaction()
        write(producer, cluster, prediction(7))
        producer.commit_transaction()
    started = time.monotonic()
    found = list(read_all(log, "predictions"))

    assert [record.key for record in found] == [b"e7"]
    end = log.end_offset("predictions", found[0].partition)
    assert end > found[0].offset + 1  # a mark follows
    assert log.read("predictions", found[0].partition, found[0].offset + 1, 10) == []
    assert last_records(log, "predictions", 1) == found
    assert time.monotonic() - started < DEADLINE_S / 10


def test_reading_on_across_marks_gives_each_record_once(log: KafkaLog, cluster: Cluster) -> None:
    """Reads of any size follow each other over the gaps that marks of transactions leave."""
    with worker(cluster) as producer:
        for start in range(0, 40, 4):
            producer.begin_transaction()
            write(producer, cluster, *map(prediction, range(start, start + 4)))
            producer.commit_transaction()
    whole = list(read_all(log, "predictions"))
    assert sorted(record.key or b"" for record in whole) == sorted(b"e%d" % n for n in range(40))
    for limit in (1, 3, 1_000):
        seen = []
        for partition in range(PARTITIONS):
            at = 0
            while batch := log.read("predictions", partition, at, limit):
                assert len(batch) <= limit
                seen += batch
                at = batch[-1].offset + 1
        assert whole == seen
    with closing(log.tail("predictions", dict.fromkeys(range(PARTITIONS), 0))) as tail:
        ends = {p: log.end_offset("predictions", p) for p in range(PARTITIONS)}
        tailed = []
        while not tail.has_reached(ends):
            tailed += tail.poll(0.2)
    assert sorted(tailed, key=lambda r: (r.partition, r.offset)) == whole


# --- groups and state -------------------------------------------------------------------------


def test_where_a_task_goes_on(log: KafkaLog, cluster: Cluster) -> None:
    """What a stage's group has committed for the partitions of a task, by the catalogue's names."""
    offsets = {
        TopicPartition(cluster.topic("predictions"), 1): OffsetAndMetadata(40, "", -1),
        TopicPartition(cluster.topic("labels"), 1): OffsetAndMetadata(7, "", -1),
        TopicPartition(cluster.topic("labels"), 0): OffsetAndMetadata(5, "", -1),
    }
    assert log.committed("join-0") == {}
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.alter_group_offsets(cluster.group("join"), offsets)

    assert log.committed("join-1") == {("predictions", 1): 40, ("labels", 1): 7}
    assert log.committed("join-0") == {("labels", 0): 5}
    assert log.committed("predict-0") == {}


def test_the_state_of_a_task(log: KafkaLog, cluster: Cluster) -> None:
    """The newest of each piece, without those that are gone, and without the marker."""

    def checkpoint(producer: KafkaProducer, pieces: dict[bytes, bytes | None]) -> None:
        producer.begin_transaction()
        for key, value in {**pieces, MARKER: b"the marker"}.items():
            producer.send(cluster.changelog("predict"), key=key, value=value, partition=1)
        producer.commit_transaction()

    with worker(cluster) as producer:
        checkpoint(producer, {b"": b'{"watermark":1}', b"k/JFK": b"1", b"k/LGA": b"2"})
        checkpoint(producer, {b"": b'{"watermark":2}', b"k/JFK": None, b"k/BOS": b"3"})
        producer.begin_transaction()
        producer.send(cluster.changelog("predict"), key=b"", value=b"no", partition=1)
        producer.abort_transaction()

    assert log.state("predict-1") == [
        ("", b'{"watermark":2}'),
        ("k/BOS", b"3"),
        ("k/LGA", b"2"),
    ]
    assert log.piece("predict-1", "") == b'{"watermark":2}'
    assert log.piece("predict-1", "k/LGA") == b"2"
    assert log.piece("predict-1", "k/JFK") is None
    assert log.state("predict-0") == []


def test_a_piece_is_found_however_far_back_it_lies(
    log: KafkaLog, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for from the end back, further each time."""
    monkeypatch.setattr("stream_ml.shell.kafka.log.PIECE_RECORDS", 2)
    with worker(cluster) as producer:
        for n in range(30):
            producer.begin_transaction()
            producer.send(cluster.changelog("join"), key=b"k%d" % n, value=b"%d" % n, partition=0)
            producer.commit_transaction()

    assert [log.piece("join-0", f"k{n}") for n in (0, 17, 29)] == [b"0", b"17", b"29"]
    assert log.piece("join-0", "absent") is None
    assert log.written_ms("join-0") is None, "there is no checkpoint without its marker"


def test_the_stages_at_work_are_those_that_have_a_worker(log: KafkaLog, cluster: Cluster) -> None:
    """Before there was one, while there is one, and once it has left."""
    before = log.stages_at_work()
    with closing(
        KafkaConsumer(
            cluster.topic("events"),
            bootstrap_servers=cluster.bootstrap,
            group_id=cluster.group("predict"),
        )
    ) as consumer:
        deadline = time.monotonic() + DEADLINE_S
        while not consumer.assignment():
            assert time.monotonic() < deadline, "the group does not come about"
            consumer.poll(100)
        during = log.stages_at_work()
    after = log.stages_at_work()

    assert [frozenset(), frozenset({"predict"}), frozenset()] == [before, during, after]
    assert [before, after] == [stages_at_work(cluster)] * 2


def test_after_an_outage_a_worker_is_not_stuck_for_what_waited_before_it_came(
    log: KafkaLog, cluster: Cluster
) -> None:
    """It is given its minutes from when it joined, however long nobody was there before."""
    log.append([Output("events", b"k", b"{}")])
    stages = status.read_status(log, bytes(32)).stages
    since_ms = next(each.waiting_since_ms for each in stages if each.lag)
    assert since_ms is not None
    came_ms = since_ms + 600_000

    async def while_at_work() -> list[list[bool]]:
        consumer = AIOKafkaConsumer(
            cluster.topic("events"),
            bootstrap_servers=cluster.bootstrap,
            group_id=cluster.group("predict"),
            partition_assignment_strategy=[TaskAssignor(now_ms=lambda: came_ms)],
        )
        async with asyncio.timeout(DEADLINE_S), consumer:
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=100)
            at_work = await asyncio.to_thread(log.stages_at_work)
            return [
                [
                    each.has_worker
                    for each in await asyncio.to_thread(
                        read_stalled, log, stages, at_work, came_ms + after_ms
                    )
                ]
                for after_ms in (1, SILENT_MS, SILENT_MS + 1)
            ]

    assert [[], [], [True]] == asyncio.run(while_at_work())


def test_a_group_has_its_workers_since_the_first_of_them_joined() -> None:
    """While it is shared out anew since now; and of those who do not say it nobody knows."""

    def group(state: str, *user_data: bytes | str | None) -> dict[str, Any]:
        members = [{"member_metadata": {"user_data": each}} for each in user_data]
        return {"group_state": state, "members": [*members, {"member_metadata": b""}]}

    first, second = (
        TaskAssignor(now_ms=lambda ms=ms: ms).metadata(set()).user_data for ms in (5, 3)
    )

    assert 3 == members_since_ms(group("Stable", first, "[0]", second.decode(), None, b"\xff"), 9)
    assert None is members_since_ms(group("Stable", b"[0]", None), 9)
    assert 9 == members_since_ms(group("PreparingRebalance", first), 9)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, frozenset({"join"})),
        ("[Error 69] GroupIdNotFoundError", frozenset({"join"})),
        ("[Error 14] CoordinatorLoadInProgressError", None),
        ("[Error 30] GroupAuthorizationFailedError", None),
    ],
)
def test_nobody_is_thought_stopped_whom_the_brokers_do_not_tell_of(
    error: str | None, expected: frozenset[str] | None
) -> None:
    """A group whose coordinator moves is described without members, whoever is at work."""
    at = Cluster("127.0.0.1:9092", "toy")
    groups = {name: {"error": None, "members": []} for name in group_names(at)}
    groups[at.group("join")] = {"error": None, "members": [{"member_id": "a"}]}
    groups[at.group("learn")] = {"error": error, "members": []}

    assert expected == stages_with_members(at, groups)


# --- what clients may write, and what it looks like -------------------------------------------


@pytest.mark.parametrize("topic", ["predictions", "examples", "models", "registry", "alerts"])
def test_what_stages_write_is_theirs(log: KafkaLog, topic: str) -> None:
    """A client does not write what only stages do, and nothing of such a batch is sent."""
    expected = rf"{topic}: expected a topic that clients write \(.*\), given one that only "
    with pytest.raises(LogError, match=expected):
        log.append([Output("events", b"k", b"{}"), Output(topic, b"k", b"{}")])
    assert list(read_all(log, "events")) == []


def test_what_is_on_the_wire_is_plain(log: KafkaLog, cluster: Cluster) -> None:
    """Any consumer reads the very bytes; any producer with Kafka's partitioner agrees on places."""
    outputs = [Output("events", f"key-{n} ü".encode(), b'{"n":%d}' % n) for n in range(20)]
    placed = log.append(outputs)
    with closing(KafkaProducer(bootstrap_servers=cluster.bootstrap)) as producer:
        theirs = [
            producer.send(cluster.topic("events"), key=each.key, value=each.value).get(DEADLINE_S)
            for each in outputs
        ]
    assert [record.partition for record in placed] == [each.partition for each in theirs]

    consumer = KafkaConsumer(
        cluster.topic("events"),
        bootstrap_servers=cluster.bootstrap,
        auto_offset_reset="earliest",
        group_id=None,
        consumer_timeout_ms=int(DEADLINE_S * 1000),
    )
    with closing(consumer):
        found = [next(consumer) for _ in range(40)]
    assert {each.value for each in found} == {each.value for each in outputs}
    assert {each.key for each in found} == {each.key for each in outputs}
    assert {len(each.headers) for each in found} == {0}
    times = {(each.partition, each.offset): each.timestamp for each in found}
    assert all(times[each.partition, each.offset] == each.append_ms for each in placed)


def test_a_forwarded_record_says_where_it_lay(log: KafkaLog, cluster: Cluster) -> None:
    """What a header says of a record's origin here is read with it; of another topic nothing is."""
    here = topic_ids(cluster, ["events"])["events"]
    with worker(cluster) as producer:
        producer.begin_transaction()
        producer.send(
            cluster.topic("events"),
            key=b"k",
            value=b"{}",
            partition=0,
            headers=[("stream-ml-origin", f"1:17:{here}".encode()), ("trace", b"x")],
        )
        producer.send(
            cluster.topic("events"),
            key=b"k",
            value=b"{}",
            partition=0,
            headers=[("stream-ml-origin", b"1:18:of-a-mirror")],
        )
        producer.commit_transaction()

    assert [record.origin for record in read_all(log, "events")] == [Source(1, 17), None]


@pytest.mark.parametrize("labels", [0, 1])
def test_what_an_open_transaction_holds_back_is_told(
    log: KafkaLog,
    cluster: Cluster,
    labels: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No lag shows what stages may not read yet: `status` says where, how much, and since when.

    Also on a log that is empty as far as anybody may read.
    """
    monkeypatch.setattr(status, "OPEN_MS_MAX", -1)
    log.append([Output("labels", b"e0", b"{}")] * labels)
    with worker(cluster) as producer:
        producer.begin_transaction()
        producer.send(cluster.topic("events"), key=b"k", value=b"{}", partition=0)
        producer.flush()
        held = log.held_back("events", 0)
        code = main(["--broker", f"kafka://{cluster.bootstrap}/{cluster.pipeline}", "status"])
        producer.commit_transaction()

    assert held is not None
    assert 1 == held[0]
    assert 0 == code
    said = capsys.readouterr().out
    assert "events-0: up to 1 records are held back by an open transaction since" in said
    assert (not labels) == ("an empty log: nothing that is committed was published to it" in said)
    assert None is log.held_back("events", 1)


# --- the Python interface ---------------------------------------------------------------------


@pytest.fixture
def address(cluster: Cluster) -> str:
    """Of the log, with the pipeline's name."""
    return f"kafka://{cluster.bootstrap}/{cluster.pipeline}"


def test_publishing_from_python(address: str) -> None:
    """What was posted is there when the block is left; what the pipeline refuses is not sent."""
    events, labels = stream(600)
    with connect(address) as log, Publisher(log, toy) as publisher:
        for event in events:
            publisher.post_event(event)
        for label in labels:
            publisher.post_label(label)
        with pytest.raises(BadRecord):
            publisher.post_event({**events[0], "x": "high"})
        placed = publisher.publish_event(events[0])
    with connect(address) as log:
        assert log.read("events", placed.partition, placed.offset, 1) == [placed]
        counts = {topic: len(list(read_all(log, topic))) for topic in ("events", "labels")}
    assert counts == {"events": 601, "labels": 590}


def test_reading_predictions_from_python(address: str, cluster: Cluster) -> None:
    """A plain iterator of typed records: to the end, or on and on until it is closed."""
    with worker(cluster) as producer, connect(address) as log:
        producer.begin_transaction()
        write(producer, cluster, prediction(1), prediction(2, key="LGA"), prediction(3))
        producer.commit_transaction()

        ids = {each.event_id for each in predictions(log)}
        assert ids == {"e1", "e2", "e3"}
        assert [each.event_id for each in predictions(log, key="LGA")] == ["e2"]
        assert [each.event_id for each in predictions(log, since_ms=3_000)] == ["e3"]

        following = predictions(log, follow=True)
        seen = {next(following).event_id for _ in range(3)}
        producer.begin_transaction()
        write(producer, cluster, prediction(4))
        producer.commit_transaction()
        assert (seen, next(following)) == (ids, prediction(4))
        following.close()


def test_uncommitted_predictions_come_at_once(address: str, cluster: Cluster) -> None:
    """Who asks for uncommitted ones has a prediction while its transaction is still open."""
    with worker(cluster) as producer, connect(address, isolation="uncommitted") as log:
        producer.begin_transaction()
        write(producer, cluster, prediction(1))
        with closing(predictions(log, follow=True)) as following:
            first = next(following)
            write(producer, cluster, prediction(2))
            assert [first, next(following)] == [prediction(1), prediction(2)]
        producer.abort_transaction()


# --- what goes wrong --------------------------------------------------------------------------


@contextmanager
def refusals() -> Iterator[None]:
    """Connections may be refused: the client library forgets to close sockets that were."""
    made: list[socket.socket] = []

    class Kept(socket.socket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Kept)
        yield
    for each in made:
        each.close()


def test_a_broker_that_is_not_there(cluster: Cluster) -> None:
    """It is named within the time that was given, with what to look at."""
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        threads = threading.active_count()
        with refusals():
            with pytest.raises(LogError) as refused:
                KafkaLog(Cluster(address, cluster.pipeline), timeout_s=1.0)
            message = str(refused.value)
            del refused
    assert time.monotonic() - started < DEADLINE_S / 10
    assert threading.active_count() == threads
    assert message.startswith(
        f"{address}: expected a Kafka cluster that answers and lets us in by PLAINTEXT, given no "
        "answer: "
    )
    assert message.endswith(
        "; is it running there, and are STREAM_ML_TLS_CA, STREAM_ML_SASL and STREAM_ML_PASSWORD as "
        "it wants them?"
    )


def test_a_broker_that_dies_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever publishes learns in bounded time what was not taken; whoever follows goes on."""
    monkeypatch.setattr("stream_ml.shell.kafka.log.DELIVERY_S", 2.0)
    with refusals(), Broker(tmp_path, java_options=QUICK_START) as broker:
        cluster = Cluster(broker.address, a_name("dies"))
        apply(cluster, Demand(partitions=PARTITIONS))
        with KafkaLog(cluster, timeout_s=3.0) as log:
            offsets = dict.fromkeys(range(PARTITIONS), 0)
            with closing(log.tail("events", offsets)) as tail:
                log.append([Output("events", b"a", b"before")])
                assert [record.value for record in tail.poll(DEADLINE_S)] == [b"before"]
                broker.kill()
                started = time.monotonic()
                with pytest.raises(NotAcknowledged, match=r"2 that were not: no answer within 2 s"):
                    log.append([Output("events", b"a", b"lost")] * 2)
                with pytest.raises(LogError, match="expected the cluster to name offsets"):
                    log.end_offset("events", 0)
                assert tail.poll(0.0) == []
                assert time.monotonic() - started < DEADLINE_S / 2
                broker.restart()
                log.append([Output("events", b"a", b"after")])
                assert [record.value for record in tail.poll(DEADLINE_S)] == [b"after"]
        _native_client_outlives(broker, cluster, monkeypatch)


def _native_client_outlives(
    broker: Broker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of a client that has librdkafka do it."""
    monkeypatch.setattr("stream_ml.shell.kafka.native_log.DELIVERY_S", 2.0)
    with NativeLog(cluster, timeout_s=3.0) as log:
        ends = {partition: log.end_offset("events", partition) for partition in range(PARTITIONS)}
        with closing(log.tail("events", ends)) as tail:
            log.append([Output("events", b"a", b"before")])
            assert [record.value for record in tail.poll(DEADLINE_S)] == [b"before"]
            broker.kill()
            started = time.monotonic()
            with pytest.raises(NotAcknowledged, match=r"2 that were not: "):
                log.append([Output("events", b"a", b"lost")] * 2)
            assert tail.poll(0.0) == []
            assert time.monotonic() - started < DEADLINE_S / 2
            broker.restart()
            log.append([Output("events", b"a", b"after")])
            assert [record.value for record in tail.poll(DEADLINE_S)] == [b"after"]


def test_a_pipeline_without_topics(kafka_broker: str) -> None:
    """Who comes before the topics are made is told how they are made."""
    with pytest.raises(UnknownTopic) as refused:
        KafkaLog(Cluster(kafka_broker, "nobodys"))
    assert str(refused.value) == (
        f"{kafka_broker}: expected topics of the pipeline nobodys, given none that we may see; "
        "make the pipeline's topics with `stream-ml topics apply`"
    )


def test_a_topic_that_is_missing(cluster: Cluster) -> None:
    """One topic less is named when it is asked for; the others work."""
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.delete_topics([cluster.topic("alerts")])
        deadline = time.monotonic() + DEADLINE_S
        while cluster.topic("alerts") in admin.list_topics():
            assert time.monotonic() < deadline
    with KafkaLog(cluster) as log:
        assert "alerts" not in log.partitions
        with pytest.raises(UnknownTopic, match=rf"{cluster.topic('alerts')}, given none.*apply"):
            log.end_offset("alerts", 0)
        assert len(log.append([Output("events", b"k", b"{}")])) == 1


def test_what_was_not_acknowledged_is_counted(log: KafkaLog, cluster: Cluster) -> None:
    """Of a batch that is taken in part, it is told which part, and why not the rest."""
    resource = ConfigResource(
        ConfigResourceType.TOPIC, cluster.topic("labels"), {"max.message.bytes": "5000"}
    )
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.alter_configs([resource])
    batch = [Output("events", b"a", b"{}"), Output("labels", b"b", b"x" * 20_000)]

    with pytest.raises(NotAcknowledged) as refused:
        log.append(batch)

    assert "expected every record to be acknowledged, given 1 that were not" in str(refused.value)
    assert refused.value.positions == ((partition_of(b"a", PARTITIONS), 0), None)
    assert len(log.append([Output("labels", b"b", b"short")])) == 1  # and it goes on
    with pytest.raises(NotAcknowledged), Publisher(log, toy):
        log.post([Output("labels", b"b", b"x" * 20_000)])


def test_a_cluster_is_used_in_bounded_memory(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who posts more than may be on its way waits for what was posted before."""
    monkeypatch.setattr("stream_ml.shell.kafka.log.PENDING_MAX", 100)
    for start in range(0, 1_000, 10):
        log.post([Output("events", b"k%d" % n, b"{}") for n in range(start, start + 10)])
        assert len(log._pending) < 100
    log.flush()
    assert len(list(read_all(log, "events"))) == 1_000


def test_the_place_of_a_route_outlives_who_keeps_it(cluster: Cluster, log: KafkaLog) -> None:
    """It is the offset of a group without members: any other client finds it."""
    bookmark = GroupBookmark(log, "oncall.webhook")
    assert bookmark.load() is None
    places = [Place(0, is_begun=False), Place(7, is_begun=True)]
    for place in places:
        bookmark.store(place)
        with KafkaLog(cluster) as other:
            assert place == GroupBookmark(other, "oncall.webhook").load()
    assert GroupBookmark(log, "oncall.command").load() is None
    assert {} == log.committed("evaluate-0")
