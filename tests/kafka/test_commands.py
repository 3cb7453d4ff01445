"""Client commands on a cluster, as processes: what they take, what they read, how they end."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING

import orjson
import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from stream_ml.codec import encode_prediction
from stream_ml.records import Prediction, Source
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.log.reading import read_all
from tests.kafka_broker import a_name
from tests.shell.cli_toy import stream, write_lines
from tests.shell.processes import Ended, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DECLARED = """
import dataclasses
from cli_toy import toy
mine = dataclasses.replace(toy, name={name!r})
"""


class Place:
    """A folder with a declaration of its own name, and its topics on the broker."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder = folder
        self.cluster = Cluster(broker, a_name("commands"))
        (folder / "declared.py").write_text(DECLARED.format(name=self.cluster.pipeline))
        apply(self.cluster, Demand(partitions=2))

    def terminal(self, *arguments: str, **variables: str) -> Terminal:
        """A command in a process of its own, with variables beside those of the place."""
        return Terminal(
            *arguments,
            folder=self.folder,
            STREAM_ML_BROKER=f"kafka://{self.cluster.bootstrap}",
            STREAM_ML_PIPELINE="declared:mine",
            STREAM_ML_KEY="5a" * 32,
            **variables,
        )

    def run(self, *arguments: str) -> Ended:
        """How a command ends by itself."""
        with self.terminal(*arguments) as terminal:
            return terminal.ended()


@pytest.fixture
def place(tmp_path: Path, kafka_broker: str) -> Iterator[Place]:
    """A place of nobody else's, for a while."""
    place = Place(tmp_path, kafka_broker)
    yield place
    with KafkaAdminClient(bootstrap_servers=kafka_broker) as admin:
        ours = place.cluster.topic("")
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(ours)])


def test_publishing_a_file(place: Place) -> None:
    """All good lines are there, each where the report says; a bad one is named, and counts."""
    file = write_lines(place.folder / "events.jsonl", stream(2_500)[0], b"nope")

    ended = place.run("publish", "events", file, "--report", "report.jsonl", "--format", "json")

    assert ended.code == 1
    assert f"{file}:2501: not_json" in ended.err
    told = orjson.loads(ended.out)
    assert (told["events"], told["refused"], told["unacknowledged"]) == (
        2_500,
        {"not_json": 1},
        0,
    )
    lines = (place.folder / "report.jsonl").read_bytes().splitlines()
    report = [orjson.loads(line) for line in lines]
    with KafkaLog(place.cluster) as log:
        found = list(read_all(log, "events"))
    places = {(each["partition"], each["offset"]) for each in report if "offset" in each}
    assert {(record.partition, record.offset) for record in found} == places
    assert len(found) == 2_500


def test_publishing_ends_in_order_when_it_is_asked_to(place: Place) -> None:
    """What was typed before SIGTERM is on the cluster when the command has ended."""
    with place.terminal("publish", "events", "-", "--report", "/dev/stdout") as terminal:
        for number, event in enumerate(stream(20)[0], start=1):
            terminal.write(orjson.dumps(event) + b"\n")
            if number in {1, 20}:
                terminal.line_with(f'"line":{number},')
        ended = terminal.stopped(signal.SIGTERM)

    assert ended.code == 130
    assert "published 20 events" in ended.err
    with KafkaLog(place.cluster) as log:
        assert len(list(read_all(log, "events"))) == 20


def test_publishing_what_is_not_acknowledged(place: Place) -> None:
    """The exit code is 3, and it is said how many records that were, which, and why."""
    resource = ConfigResource(
        ConfigResourceType.TOPIC, place.cluster.topic("events"), {"max.message.bytes": "300"}
    )
    with KafkaAdminClient(bootstrap_servers=place.cluster.bootstrap) as admin:
        admin.alter_configs([resource])
    events = stream(3)[0]
    events[1]["note"] = "x" * 500
    file = write_lines(place.folder / "events.jsonl", events[1:2])

    ended = place.run("publish", "events", file, "--report", "report.jsonl")

    assert ended.code == 3
    assert "published 0 events" in ended.err
    assert "; not acknowledged: 1" in ended.err
    assert "given 1 that were not: " in ended.err.splitlines()[-1]
    report = orjson.loads((place.folder / "report.jsonl").read_bytes())
    assert report == {"file": file, "line": 1, "unacknowledged": True}


def test_following_predictions(place: Place) -> None:
    """Lines come while a transaction is open, for who asks for that; Ctrl-C ends it well."""
    given = Prediction(
        "e1", "u1", 1_700_000_000_000, Source(0, 0), "plain@0", -1, 0.5, False, {"x": 1.0}, {}
    )
    follow = ("predictions", "--follow", "--from", "beginning", "--format", "json")
    producer = KafkaProducer(
        bootstrap_servers=place.cluster.bootstrap, transactional_id=place.cluster.pipeline
    )
    with (
        closing(producer),
        place.terminal(*follow, "--isolation", "uncommitted") as early,
        place.terminal(*follow) as late,
    ):
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(place.cluster.topic("predictions"), key=b"e1", value=encode_prediction(given))
        producer.flush()
        assert orjson.loads(early.line())["event_id"] == "e1"
        producer.commit_transaction()
        assert orjson.loads(late.line())["event_id"] == "e1"
        assert [each.stopped(signal.SIGINT).code for each in (early, late)] == [0, 0]
    of_key = ("predictions", "--key", "u1", "--from", "2023-11-14")
    assert "  e1  u1  0.5000  plain@0\n" in place.run(*of_key).out
    assert place.run("predictions", "--key", "u2").out == ""


def test_looking_at_a_pipeline_that_nobody_runs(place: Place) -> None:
    """What a cluster knows is shown, and no command hangs for want of a worker."""
    file = write_lines(place.folder / "events.jsonl", stream(30)[0])
    assert place.run("publish", "events", file).code == 0

    status = place.run("status", "--format", "json")
    told = orjson.loads(status.out)
    models = place.run("models")
    promoted = place.run("promote", "scaled", "--expect", "plain", "--reason", "x")

    assert status.code == models.code == 0
    assert told["labelled"] is None
    assert set(told["checkpoints"].values()) == {None}
    as_text = place.run("status").out.splitlines()
    assert "events        not known before a worker's first checkpoint" in as_text
    waiting = {each["task"]: each["lag"] for each in told["stages"] if each["topic"] == "events"}
    assert sum(waiting.values()) == 30
    assert told["champion"] is None
    assert any("last checkpoint" in note for note in told["notes"])
    assert "nothing serves yet" in models.out
    assert promoted.code == 1
    assert "nothing serves on this log yet" in promoted.err
