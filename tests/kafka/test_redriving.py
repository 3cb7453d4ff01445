"""Publishing again, and forgetting, on a cluster: once whatever dies, and where the key belongs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from stream_ml.codec import dead_letter
from stream_ml.errors import BadRecord, LogError
from stream_ml.records import Command, Output, Record
from stream_ml.shell.forget import append_markers, erasures_of, find_on_log
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.metadata import tasks_with_topics
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.redrive import Redrive, RedriveHistory
from stream_ml.shell.views.dead_letters import LetterFilter
from stream_ml.stages.predict import Predict
from stream_ml.topics import partition_of
from tests.kafka_broker import a_name
from tests.shop import EVENT, START_MS, event, shop, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = b"the key of the house"
PARTITIONS = 4
LETTERS = 5


@pytest.fixture
def cluster(kafka_broker: str) -> Iterator[Cluster]:
    """Topics of nobody else's, with dead letters about events that are good by now."""
    cluster = Cluster(kafka_broker, a_name("redrive"))
    apply(cluster, Demand(partitions=PARTITIONS))
    with KafkaProducer(bootstrap_servers=kafka_broker) as producer:
        for number in range(LETTERS):
            value = orjson.dumps({**EVENT, "event_id": f"r{number}", "shop": f"s{number}"})
            refused = Record("events", 0, number, None, value, START_MS)
            letter = dead_letter(refused, "predict", BadRecord("unknown_category", "$.kind", "no"))
            producer.send(cluster.topic("dead-letters"), value=letter.value, partition=0)
        producer.flush()
    yield cluster
    with KafkaAdminClient(bootstrap_servers=kafka_broker) as admin:
        ours = cluster.topic("")
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(ours)])


def publish(log: KafkaLog, new_command: Callable[[], Command] | None = None) -> Redrive:
    """Publish again what there is, by the pipeline's own operator."""
    command = Command("c", "redrive", START_MS, "local", "ana", "why", log=log.identity)
    command = replace(command, pipeline=shop.name)
    history = RedriveHistory(log, shop.name, "local", KEY)
    again = Redrive(log, shop, history, lambda: 2**42)
    again.publish(LetterFilter(), new_command or (lambda: command), KEY)
    return again


def ids(log: KafkaLog) -> Counter[str]:
    """How often each event can be read, committed."""
    return Counter(orjson.loads(each.value or b"")["event_id"] for each in read_all(log, "events"))


def test_whoever_dies_in_a_transaction_has_published_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one ends what was left open, and publishes each record once, in its partition."""

    def die(_: Any) -> None:
        raise KeyboardInterrupt

    with KafkaLog(cluster) as log, monkeypatch.context() as patched:
        patched.setattr(KafkaProducer, "commit_transaction", die)
        with pytest.raises(KeyboardInterrupt):
            publish(log)
    with KafkaLog(cluster) as log:
        first = publish(log)
        second = publish(log)
        records = list(read_all(log, "events"))
        told = list(read_all(log, "commands"))

        assert dict.fromkeys((f"r{n}" for n in range(LETTERS)), 1) == ids(log)
        assert ({"events": LETTERS}, 0) == (first.report.published, first.report.former)
        assert ({}, LETTERS) == (second.report.published, second.report.former)
        assert [record.partition for record in records] == [
            partition_of(record.key or b"", PARTITIONS) for record in records
        ]
        assert 1 == len(told)


def test_of_two_at_once_one_publishes(cluster: Cluster) -> None:
    """Whoever begins later fences the other, whose transaction is as if it had never been."""
    with KafkaLog(cluster) as log, KafkaLog(cluster) as other:
        done: list[Redrive] = []

        def prepare() -> list[Any]:
            done.append(publish(other))
            return [replace(each) for each in outputs]

        outputs: list[Any] = []
        history = RedriveHistory(log, shop.name, "local", KEY)
        first = Redrive(log, shop, history, lambda: 2**42)
        [batch] = first._batches(LetterFilter())
        outputs += [each.output for each in batch]
        with pytest.raises(LogError):
            log.append_whole("redrive", prepare)

        assert {"events": LETTERS} == done[0].report.published
        assert dict.fromkeys((f"r{n}" for n in range(LETTERS)), 1) == ids(other)


def test_markers_lie_where_the_key_belongs_and_are_obeyed(cluster: Cluster) -> None:
    """One on the key's partition of events, one on each of labels; none of them names the key."""
    with KafkaLog(cluster) as log:
        erasures = erasures_of(log, shop, KEY)
        command = Command("f", "forget", START_MS, "local", "ana", "asked for")
        positions = append_markers(log, shop, erasures, "ada", command)
        [marker] = read_all(log, "events")
        labels = list(read_all(log, "labels"))
        predict = Predict(shop, started(shop)[2], PARTITIONS, erasures=erasures)
        known = event(0, ts=START_MS, shop="ada", kind="order")
        predict.apply([replace(known, partition=marker.partition)])
        held = predict.sizes["keys"]
        said = predict.apply([replace(marker, offset=1)])

        assert ("events", partition_of(b"ada", PARTITIONS)) in positions
        assert partition_of(b"ada", PARTITIONS) == marker.partition
        assert set(range(PARTITIONS)) == {record.partition for record in labels}
        assert not [r for r in [marker, *labels] if b"ada" in (r.value or b"") + (r.key or b"")]
        assert (1, 0, []) == (held, predict.sizes["keys"], said)


def test_what_lies_of_a_key_is_found_in_a_task_that_is_declared_no_more(cluster: Cluster) -> None:
    """Its topics say that there is such a task, whatever is declared now."""
    refund = replace(cluster, pipeline=f"{cluster.pipeline}.refund")
    before = tasks_with_topics(cluster)
    apply(refund, Demand(partitions=PARTITIONS))
    with KafkaLog(refund) as log:
        log.append([Output("labels", b"e1", orjson.dumps({"event_id": "e1"}))])

        assert ([], ["refund"]) == (before, tasks_with_topics(cluster))
        assert {"labels": 1} == find_on_log(log, shop, "ada", ["e1"])
        assert {} == find_on_log(log, shop, "bob", ["e2"])
