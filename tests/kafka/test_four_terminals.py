"""The manual's walk on Apache Kafka: topics, workers, a publisher, a reader and an operator."""

from __future__ import annotations

import json
import re
import signal
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition, codec
from kafka.record import default_records

from stream_ml.examples.cards import transactions
from tests.kafka_broker import a_name
from tests.shell.processes import Ended, Terminal

RUNNING = Path(__file__).parents[2] / "docs" / "running.md"
# The learners publish at 500, 1,000 and 2,000 examples; labels are known 1,000 events later.
EVENTS = 3_100
DECLARATION = """
import dataclasses
from stream_ml.examples.cards import cards
mine = dataclasses.replace(cards, name={name!r})
"""


class _Place:
    """A folder with a declaration of its own name, and what every terminal there is told."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder = folder
        self.broker = broker
        self.name = a_name("cards")
        (folder / "declared.py").write_text(DECLARATION.format(name=self.name))
        self.variables = {
            "STREAM_ML_PIPELINE": "declared:mine",
            "STREAM_ML_BROKER": f"kafka://{broker}",
            "STREAM_ML_KEY": "5a" * 32,
        }

    def terminal(self, *arguments: str) -> Terminal:
        return Terminal(*arguments, folder=self.folder, **self.variables)

    def run(self, *arguments: str, given: bytes = b"") -> Ended:
        with self.terminal(*arguments) as terminal:
            if given:
                terminal.write(given)
            return terminal.ended()


@pytest.fixture
def place(tmp_path: Path, kafka_broker: str) -> _Place:
    """Where a walk goes on; its topics are on the broker."""
    place = _Place(tmp_path, kafka_broker)
    applied = place.run("topics", "apply", "--partitions", "2")
    assert (applied.code, applied.err) == (0, "")
    return place


def _lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def _until(terminal: Terminal, **members: object) -> dict[str, Any]:
    """The next thing said with these members."""
    while True:
        said: dict[str, Any] = orjson.loads(terminal.line())
        if members.items() <= said.items():
            return said


def test_four_terminals_on_kafka(place: _Place) -> None:
    """What the manual shows, in its order, each a real process; then all of it is stopped."""
    events, labels = transactions(EVENTS, seed=1)
    assert place.run("topics", "plan").code == 0
    with place.terminal("up", "--predict", "2", "--format", "json") as workers:
        assert orjson.loads(workers.line()) == {
            "said": "started",
            "pipeline": place.name,
            "workers": 5,
        }
        _until(workers, said="serves", model="logistic@0")
        follow = ("predictions", "--follow", "--from", "beginning", "--format", "json")
        with (
            place.terminal("publish", "events", "-") as publisher,
            place.terminal(*follow) as reader,
        ):
            publisher.write(_lines(events[:1]))
            assert orjson.loads(reader.line())["event_id"] == "t0"
            publisher.write(_lines(events[1:-1]))
            published = place.run("publish", "labels", "-", given=_lines(labels))
            assert (published.code, published.out) == (0, "")
            assert published.err.startswith(f"published {len(labels):,} labels in ")
            _until(workers, said="serves", model="logistic@2000")

            _operate(place, workers)

            publisher.write(_lines(events[-1:]))
            while (last := orjson.loads(reader.line()))["event_id"] != f"t{EVENTS - 1}":
                pass
            assert last["model"] == "adagrad@2000"
            assert publisher.ended().code == 0
            assert reader.stopped(signal.SIGINT).code == 0
        stopped = workers.stopped()

    assert stopped.code == 0
    assert orjson.loads(stopped.out.splitlines()[-1]) == {"said": "stopped"}
    told = place.run("predictions", "--format", "json").out.splitlines()
    assert sorted(orjson.loads(line)["event_id"] for line in told) == sorted(
        event["event_id"] for event in events
    )
    assert place.run("audit", "verify").code == 0
    status = place.run("status").out
    share = re.search(
        r"([0-9.]+)% of predictions have a label \(as of the checkpoint at 20", status
    )
    assert share is not None, status
    # The last event of all may have been predicted, and not have come to join.
    assert abs(float(share[1]) - 100 * len(labels) / EVENTS) < 0.2


def _operate(place: _Place, workers: Terminal) -> None:
    """Promote wrongly, then rightly, then the same once more."""
    promote = ("promote", "adagrad", "--reason", "a walk", "--actor", "ana")

    refused = place.run(*promote, "--expect", "tree")
    once = place.run(*promote, "--expect", "logistic", "--id", "walk-1")
    _until(workers, said="serves", model="adagrad@2000")
    again = place.run(*promote, "--expect", "logistic", "--id", "walk-1")

    message = "promote refused: expected tree to serve, but logistic@2000 does"
    assert refused == Ended(4, "", f"stream-ml: {message}\n")
    assert (once.code, once.err) == (0, "")
    assert once.out.startswith("replaced: adagrad@2000 serves (decision ")
    assert again == once


def _lz4(payload: bytes) -> bytes:
    """An LZ4 frame of one block that is stored as it is: no library for it is needed."""
    header = b"\x04\x22\x4d\x18\x60\x40\x82"
    return header + struct.pack("<I", len(payload) | 1 << 31) + payload + bytes(4)


@pytest.fixture
def lz4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kafka-python compress, for which it wants a library that workers do not have."""
    assert not codec.has_lz4(), "then this shows nothing"
    monkeypatch.setattr(codec, "has_lz4", lambda: True)
    monkeypatch.setattr(default_records, "lz4_encode", _lz4)
    (_, attributes) = KafkaProducer._COMPRESSORS["lz4"]
    monkeypatch.setitem(KafkaProducer._COMPRESSORS, "lz4", (lambda: True, attributes))


def test_its_python_publishes_and_reads(
    place: _Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manual's client in Python gets the answer to what it asks, committed."""
    (block,) = re.findall(r"```py\n(.*?)```", RUNNING.read_text(encoding="utf-8"), flags=re.DOTALL)
    block = block.replace("127.0.0.1:9092", place.broker)
    block = block.replace("from stream_ml.examples.cards import cards", "from declared import mine")
    monkeypatch.syspath_prepend(place.folder)
    with place.terminal("up", "--format", "json") as workers:
        _until(workers, said="serves", model="logistic@0")
        exec(compile(block.replace("cards", "mine"), "running.md", "exec"), {})  # noqa: S102
        assert workers.stopped().code == 0

    assert capsys.readouterr().out.startswith("p1 logistic@0 ")


@pytest.mark.usefixtures("lz4")
def test_any_client_may_publish_and_read(place: _Place) -> None:
    """JSON in the topics that docs/wire.md names is enough: no key, no header, any compression."""
    event = {"event_id": "e1", "ts": 1_700_000_000_000, "card": "c9"}
    event |= {"amount": 12.5, "distance": 3.0, "age": 40.0}
    with place.terminal("up", "--format", "json") as workers:
        _until(workers, said="serves", model="logistic@0")
        with KafkaProducer(bootstrap_servers=place.broker, compression_type="lz4") as producer:
            for partition in range(2):
                # The same event in both partitions: one of them is a stray, and then a duplicate.
                producer.send(
                    f"{place.name}.events", json.dumps(event).encode(), partition=partition
                )
            producer.flush()
        predicted = _first(place, "predictions")
        refused = _first(place, "dead-letters")
        assert workers.stopped().code == 0

    prediction = json.loads(predicted.value)
    assert predicted.key == b"e1"
    assert (prediction["key"], prediction["model"]) == ("c9", "logistic@0")
    assert json.loads(refused.value)["reason"] == "duplicate"


def _first(place: _Place, topic: str) -> Any:
    """The first committed record of a topic."""
    with KafkaConsumer(
        bootstrap_servers=place.broker,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        consumer_timeout_ms=60_000,
    ) as consumer:
        name = f"{place.name}.{topic}"
        partitions = sorted(consumer.partitions_for_topic(name) or ())
        consumer.assign([TopicPartition(name, partition) for partition in partitions])
        return next(consumer)
