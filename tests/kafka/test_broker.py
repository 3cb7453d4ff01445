"""The broker that tests use is there, and one of a test's own can be killed and comes back."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from tests.kafka_broker import a_name
from tools.kafka.broker import Broker, BrokerError, answers, jars


def test_there_is_a_broker(kafka_broker: str) -> None:
    """Whatever the machine has, the session's broker answers."""
    assert answers(kafka_broker)


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    """Killed and started again, a broker has the same address and the same records."""
    topic = a_name()
    with Broker(tmp_path) as broker:
        address = broker.address
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            admin.create_topics({topic: {"num_partitions": 1}})
        with KafkaProducer(bootstrap_servers=address, acks="all") as producer:
            producer.send(topic, b"stays").get(30)
        broker.kill()
        assert not answers(address)

        broker.start()

        assert address == broker.address
        with KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            found = consumer.poll(30_000)
    assert [b"stays"] == [record.value for records in found.values() for record in records]
    assert not answers(address)


ABANDONED = """
import sys
from pathlib import Path
from tools.kafka.broker import Broker
broker = Broker(Path(sys.argv[1]))
broker.start()
print(broker.pid, broker.address, flush=True)
sys.stdin.read()
"""


def test_a_broker_dies_with_whoever_started_it(tmp_path: Path) -> None:
    """A test session that is killed leaves no broker behind."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", ABANDONED, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        assert session.stdout is not None
        pid, address = session.stdout.readline().split()
        assert answers(address)
        ended = os.pidfd_open(int(pid))
        try:
            session.kill()
            gone, _, _ = select.select([ended], [], [], 10)
        finally:
            os.close(ended)

    assert gone
    assert not answers(address)


def test_without_java_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that cannot run a broker is told what to install; nothing is skipped."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BrokerError, match="given no java and no mvn; install a JDK and Apache"):
        jars(tmp_path)
    with pytest.raises(BrokerError, match="given no java"):
        Broker(tmp_path).start()


def test_a_broker_that_cannot_start_names_its_log(tmp_path: Path) -> None:
    """What ends at once is an error that says where the reason is, not a wait."""
    broker = Broker(tmp_path, properties={"num.partitions": "none"})

    with pytest.raises(BrokerError, match=f"see {broker.log}"):
        broker.start()
    assert broker.pid is None
