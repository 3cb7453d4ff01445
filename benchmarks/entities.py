"""Features of merchants over all cards, against an oracle, and what they cost.

    python -m benchmarks.entities [--events N] [--kafka [--partitions N]] [--kills N] [--cost]

Payments of 1,000 cards at 200 merchants, out of order, with duplicates, without a merchant now and
then. Every feature of every prediction is compared with what an oracle says that looks at all
payments that came before: on the embedded log, with `--kafka` also on a broker
(`STREAM_ML_TEST_BROKER`, or one of our own for the time), where predict is killed `--kills` times
while it works. `--cost`: CPU per event of predict's fold, in turns, with no window, with windows of
the card, and with the same windows of the merchant.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson
from kafka.admin import KafkaAdminClient
from river import linear_model

import stream_ml as sml
from stream_ml.client import connect
from stream_ml.records import Output, Record
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.stages.delayed import new_predict
from stream_ml.stages.serving import Serving
from stream_ml.testing import Driver
from stream_ml.topics import catalogue, needed, partition_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.pipeline import Pipeline

__all__ = [
    "DELAY_MS",
    "LATENESS_MS",
    "declare",
    "declare_late",
    "differences",
    "expected",
    "expected_late",
    "payments",
]

START_MS = 1_700_000_000_000
LATENESS_MS = 20_000
HOUR_MS, MINUTES_MS = 3_600_000, 600_000
DELAY_MS = 10_000
# Windows are named by a digest of what is so long.
HOSTILE = "m" * 3_000
DECLARATION = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from benchmarks.entities import declare, declare_late
declared = declare(name)
"""


def windows(**whose: str) -> list[Any]:
    """The features of one entity, of the card where none is named."""
    hour, minutes = sml.window("1h", **whose), sml.window("10m", by="kind", **whose)
    return [
        hour.count(kind="refused"),
        hour.mean("amount", fill=0.0),
        hour.distinct("card"),
        minutes.max("amount"),
        minutes.time_since_last(),
    ]


def declare(name: str = "market", features: Sequence[Any] | None = None) -> Pipeline:
    """Payments of cards at merchants; every payment asks.

    Args:
        name: of the pipeline.
        features: others than those of the merchant, and one of the card.
    """
    return sml.Pipeline(
        name,
        events=sml.Events(
            key="card",
            fields={
                "card": str,
                "merchant": sml.Optional[str],
                "kind": sml.Enum("paid", "refused"),
                "amount": float,
            },
            lateness=LATENESS_MS,
            breadth=1,
        ),
        features=[sml.window("1h").count(), *windows(entity="merchant")]
        if features is None
        else features,
        label=sml.Label(bool, horizon="1h"),
        champion="logistic",
        models={"logistic": linear_model.LogisticRegression()},
    )


def declare_late(name: str = "market") -> Pipeline:
    """The same with a delay: for any number of partitions."""
    features = [sml.window("1h").count(), *windows(entity="merchant", delay="10s")]
    return declare(name, features)


def payments(
    seed: int, count: int, *, cards: int = 1_000, merchants: int = 200, pace: int = 1
) -> list[dict[str, Any]]:
    """Payments as they come: some late, some too late, some twice, some of no or an odd merchant.

    Args:
        seed: of the world.
        count: how many, copies apart.
        cards: how many there are.
        pace: how many times as far apart they are as some 0.2 s.
        merchants: how many there are; a tenth of all payments are at the first.
    """
    rand, sent, now = random.Random(seed), [], START_MS
    for number in range(count):
        now += pace * rand.choice([0, 0, 100, 300, 600])
        late = rand.random() < 0.2
        merchant = 0 if rand.random() < 0.1 else rand.randrange(merchants)
        event = {
            "event_id": f"p{number}",
            "ts": now - rand.randrange(LATENESS_MS + 500) if late else now,
            "card": f"card {rand.randrange(cards)}",
            "merchant": rand.choices([f"m{merchant}", None, HOSTILE], [96, 2, 2])[0],
            "kind": "refused" if rand.random() < 0.2 else "paid",
            "amount": round(rand.expovariate(0.02), 2),
        }
        sent.append(event)
        if rand.random() < 0.03:
            sent.append(rand.choice(sent[-50:]))
    return sent


def taken(sent: Sequence[dict[str, Any]], partitions: int) -> list[tuple[int, dict[str, Any]]]:
    """The payments that are taken, each with its partition: by its own partition alone."""
    newest, ids, result = [-1] * partitions, set[str](), []
    for event in sent:
        partition = partition_of(event["card"].encode(), partitions)
        if event["event_id"] in ids or event["ts"] < newest[partition] - LATENESS_MS:
            continue
        newest[partition] = max(newest[partition], event["ts"])
        ids.add(event["event_id"])
        result.append((partition, event))
    return result


def expected_late(
    sent: Sequence[dict[str, Any]],
    partitions: int,
    *,
    left_out: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """The features with a delay: what was taken in any partition, whenever it came.

    Args:
        sent: as they came.
        partitions: of the events.
        left_out: those that came after their partition was silent, by id: where it was closed.
    """
    events = [event for _, event in taken(sent, partitions)]
    by_merchant = defaultdict[str, list[Any]](list)
    for event in events:
        if event["merchant"] is not None and event["event_id"] not in left_out:
            by_merchant[event["merchant"]].append(event)
    before = expected_of_cards(events)
    return {
        event["event_id"]: {
            "count 1h": before[event["event_id"]],
            **_late_of_merchant(
                {**event, "ts": max(event["ts"], left_out.get(event["event_id"], 0))},
                by_merchant[event["merchant"] or ""],
            ),
        }
        for event in events
    }


def expected_of_cards(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How many payments of its card lie in the hour before each, of those that came before it."""
    of_card, counts = defaultdict[str, list[int]](list), dict[str, float]()
    for event in events:
        times = of_card[event["card"]]
        counts[event["event_id"]] = float(sum(-HOUR_MS <= t - event["ts"] < 0 for t in times))
        times.append(event["ts"])
    return counts


def _late_of_merchant(event: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, float]:
    if event["merchant"] is None:
        return {"mean(amount) 1h of merchant delay 10s": 0.0}
    features = _of_merchant({**event, "ts": event["ts"] - DELAY_MS}, events)
    return {
        name.replace("of merchant", "of merchant delay 10s"): value
        for name, value in features.items()
    }


def expected(sent: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The features of every payment that is taken, by id, by looking at all that came before it."""
    newest, taken = -1, dict[str, dict[str, float]]()
    of_card, of_merchant = defaultdict[str, list[Any]](list), defaultdict[str, list[Any]](list)
    for event in sent:
        t, merchant = event["ts"], event["merchant"]
        if event["event_id"] in taken or t < newest - LATENESS_MS:
            continue
        newest = max(newest, t)
        own = [e for e in of_card[event["card"]] if t - HOUR_MS <= e["ts"] < t]
        features = {"count 1h": float(len(own))}
        if merchant is None:
            features["mean(amount) 1h of merchant"] = 0.0
        else:
            features |= _of_merchant(event, of_merchant[merchant])
            of_merchant[merchant].append(event)
        of_card[event["card"]].append(event)
        taken[event["event_id"]] = features
    return taken


def _of_merchant(event: dict[str, Any], before: list[dict[str, Any]]) -> dict[str, float]:
    t = event["ts"]
    hour = [e for e in before if t - HOUR_MS <= e["ts"] < t]
    alike = [e for e in hour if t - MINUTES_MS <= e["ts"] and e["kind"] == event["kind"]]
    refused = sum(e["kind"] == "refused" for e in hour)
    mean = statistics.fmean(e["amount"] for e in hour) if hour else 0.0
    features = {
        "count 1h of merchant kind=refused": float(refused),
        "mean(amount) 1h of merchant": mean,
        "distinct(card) 1h of merchant": float(len({e["card"] for e in hour})),
    }
    if alike:
        features["max(amount) 10m of merchant by kind"] = max(e["amount"] for e in alike)
        newest = max(e["ts"] for e in alike)
        features["seconds_since_last 10m of merchant by kind"] = (t - newest) / 1_000
    return features


def differences(
    oracle: dict[str, dict[str, float]], predictions: Sequence[dict[str, Any]]
) -> list[str]:
    """Where predictions are not what the oracle says, in words; a mean may be off by 1e-9 of it."""
    served = {each["event_id"]: each["features"] for each in predictions}
    found = [f"{len(predictions) - len(served)} predicted twice"] * (len(served) < len(predictions))
    found += [f"{name}: not predicted" for name in oracle.keys() - served.keys()]
    found += [f"{name}: predicted" for name in served.keys() - oracle.keys()]
    for name in oracle.keys() & served.keys():
        wanted, given = dict(oracle[name]), dict(served[name])
        mean = next(column for column in wanted if column.startswith("mean(amount) 1h of merchant"))
        if abs(wanted.pop(mean) - given.pop(mean)) > 1e-9 * 1e4 or wanted != given:
            found.append(f"{name}: {served[name]} not {oracle[name]}")
    return sorted(found)


def embedded(sent: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The predictions of the embedded log."""
    with Driver(declare()) as driver:
        driver.feed(sent)
        return driver.read("predictions")


def last_words(sent: Sequence[dict[str, Any]], partitions: int) -> list[dict[str, Any]]:
    """A payment a day later in each partition, which tells that nothing older comes."""
    ts = max(event["ts"] for event in sent) + 24 * HOUR_MS
    cards = [f"last {number}" for number in range(100)]
    of_partition = {partition_of(card.encode(), partitions): card for card in cards}
    return [
        {**sent[0], "event_id": f"last {number}", "ts": ts, "card": card}
        for number, card in sorted(of_partition.items())
    ]


def on_kafka(
    sent: Sequence[dict[str, Any]], broker: str, kills: int, partitions: int | None = None
) -> list[dict[str, Any]]:
    """The predictions of a broker, predict being killed so often while it works.

    Args:
        sent: the payments.
        broker: its address.
        kills: how often.
        partitions: of the events, with windows over all of them; None: one, without a delay.
    """
    from tests.kafka.shop_world import Reader  # noqa: PLC0415 - only with a broker
    from tests.kafka.world import House, until_said  # noqa: PLC0415
    from tests.kafka_broker import a_name  # noqa: PLC0415

    def worker(stage: str) -> Any:
        return stack.enter_context(house.worker(stage, STREAM_ML_CHECKPOINT_SECONDS="1"))

    cluster = Cluster(broker, a_name("market"))
    outputs = [Output("events", each["card"].encode(), orjson.dumps(each)) for each in sent]
    share = len(outputs) // (kills + 1) + 1
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        text = DECLARATION
        if partitions is not None:
            text = text.replace("declare(name)", "declare_late(name)")
        house = House(Path(name), cluster, text)
        pipeline = declare() if partitions is None else declare_late()
        has_entities, extra = bool(pipeline.feature_set.entities), pipeline.extra_topics
        apply(cluster, Demand(partitions or 2, has_entities=has_entities, extra_topics=extra))
        workers = [worker(stage) for stage in ("learn", "evaluate", "predict")]
        for given in workers:
            until_said(given, said="started")
        log = stack.enter_context(connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}"))
        reader = Reader(cluster)
        for part in range(kills + 1):
            log.append(outputs[part * share : (part + 1) * share])
            if part < kills:
                # It is amid them: what it has predicted of these is not all that there are.
                reader.until("predictions", share * part + share // 10, workers)
                workers[-1].process.kill()
                workers[-1] = worker("predict")
        oracle = expected(sent) if partitions is None else expected_late(sent, partitions)
        if partitions is not None:
            log.append(
                [
                    Output("events", each["card"].encode(), orjson.dumps(each))
                    for each in last_words(sent, partitions)
                ]
            )
        predictions = reader.until("predictions", len(oracle), workers)
        for worker in workers:
            assert worker.stopped().code == 0
    with KafkaAdminClient(bootstrap_servers=broker) as admin:
        there = needed(catalogue(), () if partitions is None else ("entities",))
        admin.delete_topics([cluster.topic(topic) for topic in there])
    return predictions


def cost(sent: Sequence[dict[str, Any]], rounds: int) -> dict[str, float]:
    """Microseconds of CPU for each event of predict's fold, the median of rounds in turns."""
    declared = {
        "no window": [sml.field("amount")],
        "windows of the card": windows(),
        "windows of the merchant": windows(entity="merchant"),
        "windows of the merchant with a delay": windows(entity="merchant", delay="10s"),
    }
    values = [orjson.dumps(event) for event in sent]
    spent: dict[str, list[float]] = {name: [] for name in declared}
    for _ in range(rounds):
        for name, features in declared.items():
            pipeline = declare(features=features)
            stage = new_predict(pipeline, Serving(pipeline, b""), 0)
            records = [
                Record("events", 0, offset, None, value, 2**42)
                for offset, value in enumerate(values)
            ]
            start_s = time.process_time()
            for first in range(0, len(records), 10_000):
                stage.replay(records[first : first + 10_000])
                stage.dirty()
            spent[name].append((time.process_time() - start_s) / len(records) * 1e6)
    return {name: statistics.median(each) for name, each in spent.items()}


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sent = payments(1, arguments.events)
    if arguments.cost:
        for name, us in cost(sent, arguments.rounds).items():
            print(f"{name}: {us:.1f} us an event")
        return
    found: list[str] = []
    if arguments.partitions is None:
        oracle = expected(sent)
        found = differences(oracle, embedded(sent))
        print(f"embedded: {len(oracle):,} predictions, {len(found)} differ {found[:3]}")
    else:
        oracle = expected_late(sent, arguments.partitions)
    if arguments.kafka:
        from tests.kafka_broker import broker  # noqa: PLC0415 - only with a broker

        with broker() as address:
            served = on_kafka(sent, address, arguments.kills, arguments.partitions)
            differ = differences(oracle, served)
        print(
            f"kafka, predict killed {arguments.kills} times: {len(oracle):,} predictions, "
            f"{len(differ)} differ {differ[:3]}"
        )
        found += differ
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
