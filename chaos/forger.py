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

from chaos import ground
from stream_ml.sealing import MARKER, Seals

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CHANGELOGS", "FORGED", "SEALED", "SIGNED", "Forger", "Forgery", "Genuine"]

FORGED = "chaos-forged"
SEALED = ("predictions", "examples", "evaluations", "alerts")
SIGNED = ("models", "registry")
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
            self._copied,
            self._reordered,
            self._moved,
            self._altered,
            self._made,
            self._foreign,
            self._junk,
        )

    def forgeries(self, known: list[Genuine]) -> list[Forgery]:
        """Some of one kind, of what lies on one partition, oldest first."""
        return self._rand.choice(self._kinds)(known)

    def _copied(self, known: list[Genuine]) -> list[Forgery]:
        return [Forgery("copied", *self._rand.choice(known))]

    def _reordered(self, known: list[Genuine]) -> list[Forgery]:
        """A stretch of them again, the newest first; of a changelog perhaps a whole checkpoint."""
        start = self._rand.randrange(len(known))
        stretch = known[start : start + self._rand.randint(2, 5)]
        if self._rand.choice((True, False)):
            stretch.reverse()
        return [Forgery("reordered", *each) for each in stretch]

    def _moved(self, known: list[Genuine]) -> list[Forgery]:
        """To another partition, or to another topic of those that are sealed alike."""
        one = self._rand.choice(known)
        alike = next(each for each in (SEALED, SIGNED, CHANGELOGS) if one.topic in each)
        topic = self._rand.choice(alike)
        places = [p for p in range(self._partitions[topic]) if (topic, p) != one[:2]]
        if not places:
            return self._copied(known)
        moved = one._replace(topic=topic, partition=self._rand.choice(places))
        return [Forgery("moved", *moved)]

    def _altered(self, known: list[Genuine]) -> list[Forgery]:
        """With another byte somewhere, or the seal of another record."""
        one, other = self._rand.choice(known), self._rand.choice(known)
        value = bytearray(one.value or b"{}")
        value[self._rand.randrange(len(value))] ^= 1 << self._rand.randrange(8)
        return [Forgery("altered", *one._replace(value=bytes(value), seal=other.seal))]

    def _made(self, known: list[Genuine]) -> list[Forgery]:
        """Of what never happened, without a seal."""
        one = self._rand.choice(known)
        if one.topic in CHANGELOGS:
            bodies: list[tuple[bytes, Any]] = [
                (b"", {"watermark": FAR_MS, "counts": {}}),
                (MARKER, {"positions": [["events", one.partition, 10**9]]}),
            ]
            key, body = self._rand.choice(bodies)
            return [Forgery("made", one.topic, one.partition, key, orjson.dumps(body))]
        body = orjson.dumps(self._changed(one))
        return [Forgery("made", one.topic, one.partition, one.key, body)]

    def _foreign(self, known: list[Genuine]) -> list[Forgery]:
        """Sealed by a key that was guessed, or by our seal for what lies elsewhere."""
        one = self._rand.choice(known)
        seals = Seals(self._rand.randbytes(32), ground.NAME, "a log")
        if one.topic in CHANGELOGS:
            state = seals.state(f"{one.topic.partition('-')[0]}-{one.partition}")
            entries = state.write([("", b'{"watermark":%d}' % FAR_MS)], {})
            return [
                Forgery("foreign", one.topic, one.partition, each.name, each.value)
                for each in entries
            ]
        value = seals.records(one.topic).sealed(orjson.dumps(self._changed(one)))
        return [Forgery("foreign", one.topic, one.partition, one.key, value)]

    def _junk(self, known: list[Genuine]) -> list[Forgery]:
        """None, or no JSON; under the key of one of ours it hides that from compaction."""
        one = self._rand.choice(known)
        value = self._rand.choice([None, b"", b"\xff", b"null", b"[]"])
        key = self._rand.choice([one.key, None, b"\xff\xfe"])
        if key is None and value is None:
            key = one.key
        if key is None and one.topic in (*CHANGELOGS, "models", "registry"):
            key = one.key  # brokers take nothing without a key where they compact
        return [Forgery("junk", one.topic, one.partition, key, value)]

    def _changed(self, one: Genuine) -> dict[str, Any]:
        try:
            body = orjson.loads(one.value or b"{}")
        except orjson.JSONDecodeError:
            body = {}
        body.pop("seal", None)
        number = self._rand.randrange(2**40)
        return {**body, "event_id": f"forged-{number}", "ts": FAR_MS, "prediction": 0.99}


class _Known:
    """The newest of what stages have committed, partition by partition."""

    def __init__(self, broker: str, pipeline: str) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=broker,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_poll_records=2_000,
        )
        self._prefix = f"{pipeline}."
        self._places: list[TopicPartition] = []
        self.newest: dict[TopicPartition, list[Genuine]] = {}
        self._looked = 0.0

    def partitions(self) -> dict[str, int]:
        """Of each topic that only stages write."""
        counts = {
            topic: len(self._consumer.partitions_for_topic(self._prefix + topic) or ())
            for topic in (*SEALED, *SIGNED, *CHANGELOGS)
        }
        self._places = [
            TopicPartition(self._prefix + topic, p)
            for topic, count in counts.items()
            for p in range(count)
        ]
        self._consumer.assign(self._places)
        return counts

    def look(self) -> None:
        """Read on; now and then only the newest."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            for place, end in self._consumer.end_offsets(self._places).items():
                self._consumer.seek(place, max(0, end - NEWEST))
            self.newest = {}
        for place, records in self._consumer.poll(timeout_ms=POLL_MS).items():
            kept = self.newest.setdefault(place, [])
            for each in records:
                headers = dict(each.headers)
                if FORGED not in headers:
                    topic = place.topic.removeprefix(self._prefix)
                    where = topic, each.partition
                    kept.append(Genuine(*where, each.key, each.value, headers.get(SEAL)))


def run(broker: str, pipeline: str, seed: int, rate: float) -> Counter[str]:
    """Forge until SIGTERM; how many of each kind."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    rand = random.Random(seed)
    known = _Known(broker, pipeline)
    forger = Forger(seed, known.partitions())
    producer = KafkaProducer(
        bootstrap_servers=broker,
        acks="all",
        linger_ms=5,
        delivery_timeout_ms=TIMEOUT_MS,
        max_block_ms=TIMEOUT_MS,
        max_request_size=16 << 20,
    )
    count: Counter[str] = Counter()
    print(json.dumps({"said": "begins"}), flush=True)
    while not stopped:
        try:
            known.look()
        except KafkaError:  # the broker is dead, and will be back
            time.sleep(AGAIN_S)
            continue
        # Topics alike, however many partitions they have; of those that have something.
        topics = sorted({place.topic for place, some in known.newest.items() if some})
        if not topics:
            continue
        topic = rand.choice(topics)
        places = sorted(p for p, some in known.newest.items() if some and p.topic == topic)
        for each in forger.forgeries(known.newest[rand.choice(places)]):
            headers = [(FORGED, each.kind.encode())]
            if each.seal is not None:
                headers.append((SEAL, each.seal))
            name = f"{pipeline}.{each.topic}"
            producer.send(name, each.value, each.key, headers=headers, partition=each.partition)
            count[f"{each.topic} {each.kind}"] += 1
        time.sleep(rand.expovariate(rate))
    producer.flush(timeout=TIMEOUT_MS / 1_000)
    producer.close()
    return count


def main() -> None:
    """Forge, and say as JSON what was forged."""
    parser = argparse.ArgumentParser(description="Puts forgeries on the topics of a chaos run.")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--pipeline", default=ground.NAME)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, default=50.0)
    given = parser.parse_args()
    count = run(given.broker, given.pipeline, given.seed, given.rate)
    print(json.dumps({"said": "forged", "count": dict(count)}), flush=True)


if __name__ == "__main__":
    main()
