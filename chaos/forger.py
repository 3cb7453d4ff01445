"""The forger: a client without the key, who writes wherever only stages should, all along.

    python -m chaos.forger --broker HOST:PORT --seed N [--rate 50]

What stages have committed is copied, altered, put elsewhere and in another order; other values are
made up, sealed by a guessed key or for another log, or are none at all. Each has a header by which
the judge knows it; nobody else looks at that.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from chaos import parameters
from stream_ml.sealing import MARKER, Seals

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CHANGELOGS",
    "FORGERY_HEADER",
    "SEALED_TOPICS",
    "SIGNED_TOPICS",
    "UNSEALED_KINDS",
    "Forger",
    "Forgery",
    "Genuine",
]

FORGERY_HEADER = "chaos-forged"
SEALED_TOPICS = ("predictions", "examples", "answers", "evaluations", "alerts", "summaries")
SIGNED_TOPICS = ("models", "registry")
# Kinds of forgeries that bear no seal of ours.
UNSEALED_KINDS = frozenset({"altered", "foreign", "junk", "made"})
CHANGELOGS = ("predict-changelog", "join-changelog", "learn-changelog", "evaluate-changelog")
SEAL = "stream-ml-seal"
# Of each partition so many of the newest records are looked at, so often.
NEWEST = 100
LOOK_S = 1.0
AGAIN_S = 0.5
POLL_MS = 20
TIMEOUT_MS = 120_000
# After this, before which a watermark would be that was believed, everything would be too late.
FAR_MS = 4_102_444_800_000


class Genuine(NamedTuple):
    """A record of ours, as anybody can read it."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    seal: bytes | None


class Forgery(NamedTuple):
    """A record to put somewhere, and what is wrong with it."""

    kind: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    seal: bytes | None = None


class Forger:
    """Makes forgeries of what it is shown.

    Args:
        seed: of what is drawn.
        partitions: of each topic.
    """

    def __init__(self, seed: int, partitions: dict[str, int]) -> None:
        self._rand = random.Random(seed)
        self._partitions = partitions
        self._kinds: tuple[Callable[[list[Genuine]], list[Forgery]], ...] = (
            self._copy,
            self._reorder,
            self._move,
            self._alter,
            self._make_up,
            self._foreign,
            self._junk,
        )

    def forgeries(self, genuine: list[Genuine]) -> list[Forgery]:
        """Some of one kind, of what lies on one partition, oldest first."""
        return self._rand.choice(self._kinds)(genuine)

    def first(self, topic: str) -> list[Forgery]:
        """Something on a topic that has nothing yet; what is signed, or state, is left alone."""
        return [Forgery("junk", topic, 0, b"key", b"[]")] if topic in SEALED_TOPICS else []

    def _copy(self, genuine: list[Genuine]) -> list[Forgery]:
        return [Forgery("copied", *self._rand.choice(genuine))]

    def _reorder(self, genuine: list[Genuine]) -> list[Forgery]:
        """A stretch of them again, the newest first; of a changelog perhaps a whole checkpoint."""
        start = self._rand.randrange(len(genuine))
        stretch = genuine[start : start + self._rand.randint(2, 5)]
        if self._rand.choice((True, False)):
            stretch.reverse()
        return [Forgery("reordered", *record) for record in stretch]

    def _move(self, genuine: list[Genuine]) -> list[Forgery]:
        """To another partition, or to another topic of those that are sealed alike."""
        record = self._rand.choice(genuine)
        topics = next(
            group for group in (SEALED_TOPICS, SIGNED_TOPICS, CHANGELOGS) if record.topic in group
        )
        topic = self._rand.choice(topics)
        partitions = [p for p in range(self._partitions[topic]) if (topic, p) != record[:2]]
        if not partitions:
            return self._copy(genuine)
        copy = record._replace(topic=topic, partition=self._rand.choice(partitions))
        return [Forgery("moved", *copy)]

    def _alter(self, genuine: list[Genuine]) -> list[Forgery]:
        """With another byte somewhere, or the seal of another record."""
        record, donor = self._rand.choice(genuine), self._rand.choice(genuine)
        value = bytearray(record.value or b"{}")
        value[self._rand.randrange(len(value))] ^= 1 << self._rand.randrange(8)
        return [Forgery("altered", *record._replace(value=bytes(value), seal=donor.seal))]

    def _make_up(self, genuine: list[Genuine]) -> list[Forgery]:
        """Of what never happened, without a seal."""
        record = self._rand.choice(genuine)
        if record.topic in CHANGELOGS:
            bodies: list[tuple[bytes, Any]] = [
                (b"", {"watermark": FAR_MS, "counts": {}}),
                (MARKER, {"positions": [["events", record.partition, 10**9]]}),
            ]
            key, body = self._rand.choice(bodies)
            return [Forgery("made", record.topic, record.partition, key, orjson.dumps(body))]
        body = orjson.dumps(self._change(record))
        return [Forgery("made", record.topic, record.partition, record.key, body)]

    def _foreign(self, genuine: list[Genuine]) -> list[Forgery]:
        """Sealed by a key that was guessed, or by our seal for what lies elsewhere."""
        record = self._rand.choice(genuine)
        seals = Seals(self._rand.randbytes(32), parameters.NAME, "a log")
        if record.topic in CHANGELOGS:
            state = seals.state(f"{record.topic.partition('-')[0]}-{record.partition}")
            entries = state.write([("", b'{"watermark":%d}' % FAR_MS)], {})
            return [
                Forgery("foreign", record.topic, record.partition, entry.name, entry.value)
                for entry in entries
            ]
        value = seals.records(record.topic).seal(orjson.dumps(self._change(record)))
        return [Forgery("foreign", record.topic, record.partition, record.key, value)]

    def _junk(self, genuine: list[Genuine]) -> list[Forgery]:
        """None, or no JSON; under the key of one of ours it hides that from compaction."""
        record = self._rand.choice(genuine)
        value = self._rand.choice([None, b"", b"\xff", b"null", b"[]"])
        key = self._rand.choice([record.key, None, b"\xff\xfe"])
        if key is None and value is None:
            key = record.key
        if key is None and record.topic in (*CHANGELOGS, "models", "registry"):
            key = record.key  # brokers take nothing without a key where they compact
        return [Forgery("junk", record.topic, record.partition, key, value)]

    def _change(self, record: Genuine) -> dict[str, Any]:
        try:
            body = orjson.loads(record.value or b"{}")
        except orjson.JSONDecodeError:
            body = {}
        body.pop("seal", None)
        number = self._rand.randrange(2**40)
        changes = {"event_id": f"forged-{number}", "prediction": 0.99}
        if self._rand.choice((True, False)):
            changes["ts"] = FAR_MS  # else nothing but the missing seal speaks against it
        return {**body, **changes}


class _NewestRecords:
    """The newest of what stages have committed, partition by partition."""

    def __init__(self, broker: str, pipeline: str) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=broker,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_poll_records=2_000,
        )
        self._prefix = f"{pipeline}."
        self._tps: list[TopicPartition] = []
        self.newest: dict[TopicPartition, list[Genuine]] = {}
        self._refresh_s = 0.0

    def partitions(self) -> dict[str, int]:
        """Of each topic that only stages write."""
        counts = {
            topic: len(self._consumer.partitions_for_topic(self._prefix + topic) or ())
            for topic in (*SEALED_TOPICS, *SIGNED_TOPICS, *CHANGELOGS)
        }
        self._tps = [
            TopicPartition(self._prefix + topic, p)
            for topic, count in counts.items()
            for p in range(count)
        ]
        self._consumer.assign(self._tps)
        return counts

    def look(self) -> None:
        """Read on; now and then only the newest."""
        if time.monotonic() - self._refresh_s > LOOK_S:
            self._refresh_s = time.monotonic()
            for tp, end in self._consumer.end_offsets(self._tps).items():
                self._consumer.seek(tp, max(0, end - NEWEST))
            self.newest = {}
        for tp, records in self._consumer.poll(timeout_ms=POLL_MS).items():
            newest = self.newest.setdefault(tp, [])
            for record in records:
                headers = dict(record.headers)
                if FORGERY_HEADER not in headers:
                    topic = tp.topic.removeprefix(self._prefix)
                    position = topic, record.partition
                    newest.append(Genuine(*position, record.key, record.value, headers.get(SEAL)))


def run(broker: str, pipeline: str, seed: int, rate: float) -> Counter[str]:
    """Forge until SIGTERM; how many of each kind."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    rand = random.Random(seed)
    watcher = _NewestRecords(broker, pipeline)
    forger = Forger(seed, watcher.partitions())
    producer = KafkaProducer(
        bootstrap_servers=broker,
        acks="all",
        linger_ms=5,
        delivery_timeout_ms=TIMEOUT_MS,
        max_block_ms=TIMEOUT_MS,
        max_request_size=16 << 20,
    )
    count: Counter[str] = Counter()
    names = [f"{pipeline}.{topic}" for topic in (*SEALED_TOPICS, *SIGNED_TOPICS, *CHANGELOGS)]
    print(json.dumps({"said": "begins"}), flush=True)
    while not signals:
        try:
            watcher.look()
        except KafkaError:  # the broker is dead, and will be back
            time.sleep(AGAIN_S)
            continue
        # Topics alike, however many partitions they have, and whether or not they have something.
        topic = rand.choice(names)
        tps = sorted(p for p, records in watcher.newest.items() if records and p.topic == topic)
        for forgery in (
            forger.forgeries(watcher.newest[rand.choice(tps)])
            if tps
            else forger.first(topic.removeprefix(f"{pipeline}."))
        ):
            headers = [(FORGERY_HEADER, forgery.kind.encode())]
            if forgery.seal is not None:
                headers.append((SEAL, forgery.seal))
            name = f"{pipeline}.{forgery.topic}"
            producer.send(
                name, forgery.value, forgery.key, headers=headers, partition=forgery.partition
            )
            count[f"{forgery.topic} {forgery.kind}"] += 1
        time.sleep(rand.expovariate(rate))
    producer.flush(timeout=TIMEOUT_MS / 1_000)
    producer.close()
    return count


def main() -> None:
    """Forge, and say as JSON what was forged."""
    parser = argparse.ArgumentParser(description="Puts forgeries on the topics of a chaos run.")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--pipeline", default=parameters.NAME)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, default=50.0)
    arguments = parser.parse_args()
    count = run(arguments.broker, arguments.pipeline, arguments.seed, arguments.rate)
    print(json.dumps({"said": "forged", "count": dict(count)}), flush=True)


if __name__ == "__main__":
    main()
