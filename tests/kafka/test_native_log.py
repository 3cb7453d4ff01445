"""A cluster's log whose appends and tails are librdkafka's keeps what the others keep."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from stream_ml.errors import LogError, NotAcknowledged, UnknownTopic
from stream_ml.records import Output, Source
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.native_log import NativeLog
from stream_ml.topics import partition_of
from tests.kafka_broker import cluster_of_its_own

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.records import Record
    from stream_ml.shell.kafka.cluster import Cluster

PARTITIONS = 2


@pytest.fixture(scope="module")
def cluster(kafka_broker: str) -> Iterator[Cluster]:
    """A pipeline's topics on the broker, of nobody else's, for a while."""
    with cluster_of_its_own(kafka_broker, "native", PARTITIONS) as cluster:
        yield cluster


@pytest.fixture
def log(cluster: Cluster) -> Iterator[NativeLog]:
    """The log of that pipeline."""
    with NativeLog(cluster) as log:
        yield log


def events(numbers: range) -> list[Output]:
    """Records of several keys."""
    return [Output("events", b"k%d" % (n % 7), b"v%d" % n) for n in numbers]


def ends_of(log: NativeLog, topic: str) -> dict[int, int]:
    """Where a topic ends."""
    return {partition: log.end_offset(topic, partition) for partition in range(PARTITIONS)}


def by_place(records: list[Record]) -> list[Record]:
    """In the order of partitions and offsets."""
    return sorted(records, key=lambda record: (record.partition, record.offset))


def test_what_is_appended_is_what_others_read_and_what_a_tail_gives(
    log: NativeLog, cluster: Cluster
) -> None:
    """Records come once and in order, with the places and times that the append has told."""
    begin = ends_of(log, "events")
    with closing(log.tail("events", begin)) as tail:
        placed = log.append(events(range(30)))
        seen: list[Record] = []
        while not tail.has_reached(ends_of(log, "events")):
            seen += tail.poll(1.0)
        placed += log.append(events(range(30, 60)))
        while not tail.has_reached(ends_of(log, "events")):
            seen += tail.poll(1.0)
        assert [] == tail.poll(0.0)
    with KafkaLog(cluster) as other:
        read = [r for p, offset in begin.items() for r in other.read("events", p, offset, 1_000)]

    assert by_place(placed) == by_place(seen) == by_place(read)
    assert [b"v%d" % n for n in range(60) if n % 7 == 3] == [
        record.value for record in seen if record.key == b"k3"
    ]


def test_of_transactions_a_tail_gives_what_is_committed_and_passes_their_marks(
    log: NativeLog, cluster: Cluster
) -> None:
    """What was aborted is not there, and the end behind the last mark is reached all the same."""
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=cluster.pipeline)
    begin = ends_of(log, "predictions")
    with closing(producer), closing(log.tail("predictions", begin)) as tail:
        producer.init_transactions()
        for value, is_kept in ((b"aborted", False), (b"kept", True)):
            producer.begin_transaction()
            producer.send(cluster.topic("predictions"), key=b"e1", value=value, partition=0)
            producer.flush()
            if is_kept:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
        seen: list[Record] = []
        while not seen or not tail.has_reached(ends_of(log, "predictions")):
            seen += tail.poll(1.0)

    assert [b"kept"] == [record.value for record in seen]


def test_a_forwarded_record_is_what_other_clients_read(log: NativeLog) -> None:
    """Its headers change nothing: whoever follows by either client gets the same record."""
    [placed] = log.append([Output("events", b"k1", b"moved", origin=Source(1, 7))])
    with closing(log.tail("events", {placed.partition: placed.offset})) as tail:
        [seen] = tail.poll(30.0)
    with (
        KafkaLog(log._cluster) as other,
        closing(other.tail("events", {placed.partition: placed.offset})) as expected,
    ):
        [same] = expected.poll(30.0)

    assert same == seen
    assert same.origin == seen.origin


def test_what_is_not_taken_is_told_record_by_record(log: NativeLog, cluster: Cluster) -> None:
    """Of a batch that is taken in part, it is told which part; and appending goes on."""
    resource = ConfigResource(
        ConfigResourceType.TOPIC, cluster.topic("labels"), {"max.message.bytes": "5000"}
    )
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.alter_configs([resource])
    end = ends_of(log, "events")[partition_of(b"a", PARTITIONS)]
    batch = [Output("events", b"a", b"{}"), Output("labels", b"b", b"x" * 20_000)]

    with pytest.raises(
        NotAcknowledged, match="given 1 that were not: MSG_SIZE_TOO_LARGE"
    ) as refused:
        log.append(batch)

    assert ((partition_of(b"a", PARTITIONS), end), None) == refused.value.positions
    assert 1 == len(log.append([Output("labels", b"b", b"short")]))
    with pytest.raises(UnknownTopic):
        log.append([Output("nothing", b"a", b"{}")])
    with pytest.raises(LogError, match="at most"):
        log.append([Output("events", b"a", b"{}"), Output("events", b"a", b"x" * 5_000_000)])
    assert end + 1 == ends_of(log, "events")[partition_of(b"a", PARTITIONS)]
