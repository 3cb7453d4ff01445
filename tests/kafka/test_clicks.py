"""Silence as an answer, corrections, sources and hashed merchants: on Kafka as on one file."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.client import connect
from stream_ml.models.envelope import decode
from stream_ml.records import Output
from stream_ml.sealing import MARKER, content, marker_in
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.testing import Driver
from tests.kafka.shop_world import DEADLINE_S, STAGES, Reader, alive, shop_on, started, stopped
from tests.kafka.world import until_said
from tests.shop import clicks, stream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.log.port import Log
    from tests.shell.processes import Terminal

COUNT, DAY_MS = 150, 86_400_000
KEY = bytes.fromhex("5a" * 32)
# Of each topic what is the same wherever it lies: no seals, and no offsets among marks of commits.
MEMBERS = {
    "predictions": ("event_id", "key", "ts", "source", "model", "prediction", "features"),
    "examples": ("event_id", "label", "label_ts", "label_source", "implicit", "correction"),
    "evaluations": ("model", "version", "ts", "n", "scores", "coverage", "evidence"),
    "dead-letters": ("topic", "stage", "reason", "path", "value"),
}
Records = list[dict[str, Any]]


class Part(NamedTuple):
    """Events, what is said of them, and the model that all of them are served by."""

    events: Records
    labels: Records
    model: str


def part(number: int, model: str) -> Part:
    """Events late, too late and twice; labels at once, after the window, and other words later."""
    rand, events, labels = random.Random(number), list[dict[str, Any]](), list[dict[str, Any]]()
    for event in stream(seed=number, count=COUNT)[0]:
        event |= {"event_id": f"{number}-{event['event_id']}", "merchant": f"m{rand.randrange(12)}"}
        event["ts"] += (
            number * COUNT * 500 - rand.choices([0, 3_000, 15_000, 60_000], [9, 1, 1, 1])[0]
        )
        events += [event] * rand.choice([1, 1, 1, 2])
        if rand.random() < 0.5:
            label = {
                "event_id": event["event_id"],
                "ts": event["ts"] + rand.randrange(60_000),
                "label": event["merchant"] < "m3",
                "source": rand.choice(["desk", "page"]),
            }
            other = {**label, "ts": label["ts"] + 500, "label": not label["label"]}
            labels += [label, {**label, "source": "bot", "label": False}]
            labels += [other] * (rand.random() < 0.3)
    return Part(events, sorted(labels, key=lambda each: each["ts"]), model)


def parts() -> list[Part]:
    """Two that teach a version each, and a last event a day later, at which scores are written."""
    first, second = part(0, "logistic@0"), part(1, "logistic@90")
    ts = second.events[-1]["ts"] + DAY_MS
    last = {**second.events[-1], "event_id": "last", "ts": ts, "kind": "visit"}
    return [
        first,
        second,
        Part([last], [{"event_id": "last", "ts": ts, "label": True}], "logistic@180"),
    ]


def embedded() -> dict[str, Records]:
    """What lies on one file, and the digests of what was learned."""
    with Driver(clicks) as driver:
        for events, labels, _ in parts():
            driver.publish("events", events)
            driver.run()
            driver.publish("labels", labels)
            driver.run()
        values = [each.value for each in driver.records("models")]
        return {topic: driver.read(topic) for topic in MEMBERS} | {"models": digests(values)}


def digests(values: list[bytes | None]) -> Records:
    """The digests of snapshots, by line and version."""
    found = [decode(value) for value in values if value]
    return [{"name": each.name, "version": each.version, "digest": each.digest} for each in found]


class House:
    """A cluster on which the parts are worked on, by workers that write their state often.

    Args:
        cluster: the place.
        folder: with the declaration.
        stack: ends the workers.
        log: of the cluster.
    """

    def __init__(self, cluster: Cluster, folder: Path, stack: ExitStack, log: Log) -> None:
        self._place = cluster, folder, stack
        self._log, self._reader = log, Reader(cluster)
        self._counts: Counter[str] = Counter()
        self.workers = self._started(STAGES)

    def work(self, expected: dict[str, Records]) -> None:
        """Publish a part at a time; predict and join die in the midst of the first labels."""
        for number, (events, labels, model) in enumerate(parts()):
            if number:
                until_said(self.workers[0], said="serves", model=model)
            self._publish("events", "shop", events)
            self._counts["predictions"] += sum(
                each["model"] == model for each in expected["predictions"]
            )
            self._until_joined()
            self._publish("labels", "event_id", labels[:20])
            if number == 0:
                self._until_written()
                for worker in self.workers[:2]:
                    worker.process.kill()
                self.workers[:2] = self._started(("predict", "join"))
            self._publish("labels", "event_id", labels[20:])
            self._until_joined()
        self._reader.until("evaluations", len(expected["evaluations"]), self.workers)

    def _started(self, stages: Sequence[str]) -> list[Terminal]:
        return started(*self._place, stages, STREAM_ML_CHECKPOINT_SECONDS="1")

    def _publish(self, topic: str, key: str, values: Records) -> None:
        self._counts[topic] += len(values)
        self._log.append([Output(topic, each[key].encode(), orjson.dumps(each)) for each in values])

    def _until_written(self) -> None:
        """Wait until the state of join tells of all labels: who takes over goes by it alone."""
        at, end = ("labels", 0), self._counts["labels"]
        deadline = time.monotonic() + DEADLINE_S
        while (piece := self._log.piece("join-0", MARKER.decode())) is None or marker_in(
            content(piece)
        ).positions.get(at, 0) < end:
            assert time.monotonic() < deadline, f"join is to write its state up to {end} labels"
            alive(self.workers)

    def _until_joined(self) -> None:
        """Wait until join has read all there is: its two inputs come in the order of one file."""
        self._reader.until("predictions", self._counts["predictions"], self.workers)
        last = self._reader.raw("predictions")[-1].offset
        ends = {("predictions", 0): last + 1, ("labels", 0): self._counts["labels"]}
        deadline = time.monotonic() + DEADLINE_S
        while any(self._log.committed("join-0").get(at, 0) < end for at, end in ends.items()):
            assert time.monotonic() < deadline, f"join is to read up to {ends}"
            alive(self.workers)


def meaning(records: dict[str, Records]) -> dict[str, list[str]]:
    """What is the same wherever it lies, in order; refusals, which two stages write, sorted."""
    found = {
        topic: [
            orjson.dumps([each.get(name) for name in names]).decode() for each in records[topic]
        ]
        for topic, names in MEMBERS.items()
    }
    return {**found, "dead-letters": sorted(found["dead-letters"])}


def test_clicks_are_the_same_on_a_cluster_whose_workers_are_killed(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Predictions, examples, scores, evidence and what is learned equal those of one file."""
    expected = embedded()
    with shop_on(kafka_broker, tmp_path, 1, "clicks") as cluster, ExitStack() as stack:
        log = stack.enter_context(connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}"))
        house = House(cluster, tmp_path, stack, log)
        house.work(expected)
        reader = Reader(cluster)
        found = {topic: reader.read(topic) for topic in MEMBERS}
        found["models"] = digests([each.value for each in reader.raw("models")])
        assert [0] * 4 == [each.code for each in stopped(house.workers)]
        rebuilt = rebuild(log, replace(clicks, name=cluster.pipeline), KEY, "logistic@180")

    assert meaning(expected) == meaning(found)
    assert expected["models"] == found["models"]
    assert rebuilt.equal
    # The stream holds what it is meant to hold.
    kinds = {(each.get("implicit", False), "correction" in each) for each in found["examples"]}
    assert {(True, False), (False, False), (False, True)} == kinds
    assert {"duplicate", "too_late", "orphan"} == {each["reason"] for each in found["dead-letters"]}
