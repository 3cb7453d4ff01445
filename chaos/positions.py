"""Topics that are not what they were, under load: what retention removes unread, what is made anew.

    python -m chaos SEED --faults positions

Predict sleeps while events come, and they are removed before it wakes. Then labels are deleted and
made anew while they are published, and the join is told to take them for what they are. Each must
be told and counted, and whatever is left on the topics be worked on: nothing may be passed over in
silence.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from base64 import b64decode
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from chaos import parameters, topics
from chaos.fleet import Child, Fleet
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.log.reading import read_all
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]

PARTITIONS = 4
READY_S = 120.0
SETTLE_S = 120.0
TICK_S = 0.1
SLEEP_S = 4.0
# How many of the newest events are left in each partition.
LEFT = 20
# What a worker ends with that must not begin.
EXIT_REFUSED = 2
ACCEPT = "STREAM_ML_ACCEPT_TOPICS"


class _Scene:
    """A run under way."""

    def __init__(self, broker: str, fleet: Fleet, say: Callable[[str], None]) -> None:
        self.cluster = Cluster(broker, parameters.NAME)
        self.fleet = fleet
        self.say = say

    def wait_until(self, subject: str, condition: Callable[[], bool]) -> None:
        """Wait for it, and look after the workers meanwhile."""
        deadline = time.monotonic() + READY_S
        while not condition():
            for worker in self.fleet.look_after():
                self.say(f"  {worker.name} ended {worker.ending}: {worker.last_words()[:300]}")
            if time.monotonic() > deadline:
                words = "\n".join(f"  {w.name}: {w.last_words()}" for w in self.fleet.workers)
                raise TimeoutError(f"no {subject} within {READY_S:.0f} s:\n{words}")
            time.sleep(TICK_S)

    def partitions_with(self, stage: str, kind: str) -> set[int]:
        """The partitions of which the workers of a stage have said something."""
        workers = [worker for worker in self.fleet.workers if worker.stage == stage]
        return {m["partition"] for worker in workers for m in worker.sayings(kind)}

    def remove_unread(self) -> None:
        """Let events be removed while nobody reads them."""
        with KafkaLog(self.cluster) as log, _admin(self.cluster) as admin:
            self.wait_until("events", lambda: min(_ends(log)) > LEFT)
            (sleeper,) = self.fleet.living("predict")
            sleeper.signal(signal.SIGSTOP)
            time.sleep(SLEEP_S)
            name = self.cluster.topic("events")
            offsets = {TopicPartition(name, p): end - LEFT for p, end in enumerate(_ends(log))}
            admin.delete_records(offsets)
            sleeper.signal(signal.SIGCONT)
        self.wait_until(
            "records_lost", lambda: bool(self.partitions_with("predict", "records_lost"))
        )

    def make_labels_anew(self) -> None:
        """Delete the labels and make them anew, and have the join begin there."""
        with _admin(self.cluster) as admin:
            admin.delete_topics([self.cluster.topic("labels")])
            name = self.cluster.topic("labels")
            self.wait_until("end", lambda: bool(admin.describe_topics([name])[0]["error_code"]))
        self.fleet.run("topics", "apply", "--partitions", str(PARTITIONS))
        self.wait_until(
            "refusal", lambda: any(w.process.returncode == EXIT_REFUSED for w in self._joins())
        )
        self.fleet.set(ACCEPT, "labels")
        self.wait_until(
            "topic_made_anew", lambda: bool(self.partitions_with("join", "topic_made_anew"))
        )

    def _joins(self) -> list[Any]:
        return [worker for worker in self.fleet.workers if worker.stage == "join"]

    def failures(self, left: str | None) -> dict[str, list[str]]:
        """What was passed over in silence, by promise."""
        with KafkaLog(self.cluster) as log:
            alerts = [json.loads(record.value or b"{}") for record in read_all(log, "alerts")]
            event_ids = {
                json.loads(record.value or b"{}")["event_id"] for record in _predictions_of(log)
            }
            letters = [
                json.loads(record.value or b"{}") for record in read_all(log, "dead-letters")
            ]
            # By its bytes: a stray is refused where it was forwarded to.
            refusals = {
                b64decode(record.get("value") or "")
                for record in letters
                if record["topic"] == "events"
            }
            strange = [
                f"events-{record.partition} {record.offset}: neither predicted nor refused"
                for record in read_all(log, "events")
                if _asks(record.value, event_ids) and record.value not in refusals
            ]
        kinds = Counter(record["kind"] for record in alerts)
        lost_count = sum(
            alert["details"]["skipped"] for alert in alerts if alert["kind"] == "records_lost"
        )
        self.say(f"alerts {dict(kinds)}, {lost_count} records lost")
        return {
            "what is lost is told": [] if lost_count else ["no alert says what was lost"],
            "what is made anew is told": [] if kinds["topic_made_anew"] else ["no alert says so"],
            "what is left is predicted or refused": strange[:20],
            "all is read": [] if left is None else [left],
        }


def _ends(log: KafkaLog) -> list[int]:
    return [log.end_offset("events", partition) for partition in range(PARTITIONS)]


def _predictions_of(log: KafkaLog) -> Any:
    return read_all(log, "predictions")


def _asks(value: bytes | None, event_ids: set[str]) -> bool:
    """Whether a prediction is missing of an event that asks for one and may be one."""
    try:
        event = json.loads(value or b"")
        return event["kind"] == parameters.ASKING and event["event_id"] not in event_ids
    except (ValueError, KeyError, TypeError):
        return False


def _admin(cluster: Cluster) -> KafkaAdminClient:
    return KafkaAdminClient(bootstrap_servers=cluster.bootstrap)


def run(seed: int, seconds: float, rate: int, say: Callable[[str], None]) -> dict[str, list[str]]:
    """Carry it out; what was broken, by promise."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        broker = stack.enter_context(Broker(folder / "broker"))
        checkpoints = {"STREAM_ML_CHECKPOINT_SECONDS": "5"}
        fleet = stack.enter_context(Fleet(broker.address, folder, **checkpoints))
        scene = _Scene(broker.address, fleet, say)
        fleet.run("topics", "apply", "--partitions", str(PARTITIONS))
        for stage in ("predict", "join", "learn", "evaluate"):
            fleet.add(stage)
        scene.wait_until(
            "start", lambda: len(scene.partitions_with("predict", "recovered")) == PARTITIONS
        )
        destination = ["--broker", broker.address, "--partitions", str(PARTITIONS)]
        traffic_options = ["--seed", str(seed), "--seconds", str(seconds), "--rate", str(rate)]
        traffic = Child(
            [sys.executable, "-m", "chaos.traffic", *destination, *traffic_options],
            folder,
            "traffic",
        )
        try:
            began = time.monotonic()
            scene.wait_until("traffic", lambda: time.monotonic() - began > seconds / 4)
            say("events are removed before they are read")
            scene.remove_unread()
            say("labels are made anew")
            scene.make_labels_anew()
            scene.wait_until("end of the traffic", lambda: not traffic.lives)
        finally:
            traffic.end(signal.SIGTERM)
        left = topics.wait_until_settled(broker.address, parameters.NAME, SETTLE_S)
        say(left or "all is worked off")
        fleet.stop()
        return scene.failures(left)
