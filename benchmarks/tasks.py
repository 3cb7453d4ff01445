"""Two tasks of one pipeline: what they cost, and that on Apache Kafka each is as it would be alone.

    python -m benchmarks.tasks [--events N] [--rounds N] [--kafka]

Views, of which some are clicked and fewer bought. In turns, on the embedded log: CPU per event of a
pipeline alone, of the same with a second task, and of the features and windows alone, which each
task computes for itself. With `--kafka` on a broker (`STREAM_ML_TEST_BROKER`, or one of our own for
the time): `topics apply` and `up` of the tests' shop with two tasks, events and labels put by a
client of another partitioner, a worker of the second task killed while it works; features and the
last word of each label of both against each alone on the embedded log.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import confluent_kafka
import orjson
from river import linear_model, preprocessing

import stream_ml as sml
from stream_ml.records import Record
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.testing import Driver

__all__ = ["cost", "on_kafka"]

PARTITIONS = 2
START_MS = 1_700_000_000_000
DECLARATION = f"""
import dataclasses, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.shop import two_tasks
declared = dataclasses.replace(two_tasks, name=name)
"""


def _models() -> dict[str, Any]:
    return {"logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression()}


views = sml.Pipeline(
    "views",
    events=sml.Events(key="user", fields={"user": str, "price": float}, breadth=1),
    features=[
        sml.field("price"),
        sml.window("1h").count(),
        sml.window("1h").mean("price", fill=0.0),
        sml.window("1d").max("price", fill=0.0),
    ],
    label=sml.Label(bool, window="10m", absent=False),
    champion="logistic",
    models=_models(),
    tasks=[
        sml.Task(
            "purchase",
            label=sml.Label(bool, window="1h", absent=False),
            champion="logistic",
            models=_models(),
        )
    ],
)


def stream(count: int) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Views, a second apart, and of each task its labels.

    Args:
        count: of views.
    """
    world = random.Random(1)
    events, labels = [], dict[str, list[dict[str, Any]]](main=[], purchase=[])
    for number in range(count):
        ts, price = START_MS + 1_000 * number, round(world.expovariate(0.1), 2)
        event_id = f"e{number}"
        events.append(
            {"event_id": event_id, "ts": ts, "user": f"u{world.randrange(500)}", "price": price}
        )
        for task, share, delay in (("main", 0.2, 60_000), ("purchase", 0.05, 1_200_000)):
            if world.random() < share:
                labels[task].append({"event_id": event_id, "ts": ts + delay, "label": True})
    return events, labels


def cost(count: int, rounds: int) -> dict[str, float]:
    """Microseconds of CPU for each event, the median of rounds in turns.

    Args:
        count: of events.
        rounds: of each.
    """
    events, labels = stream(count)
    spent: dict[str, list[float]] = {"alone": [], "with a second task": [], "features": []}
    for _ in range(rounds):
        for name, pipelines in (
            ("alone", [replace(views, tasks=())]),
            ("with a second task", [views, *views.task_pipelines.values()]),
        ):
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                path = Path(folder) / "log.sqlite"
                drivers = [stack.enter_context(Driver(each, path=path)) for each in pipelines]
                for driver, task in zip(drivers, labels, strict=False):
                    driver.publish("labels", labels[task])
                drivers[0].publish("events", events)
                start_s = time.process_time()
                for driver in drivers:
                    driver.run()
                spent[name].append((time.process_time() - start_s) / count * 1e6)
        stage = Predict(views, Serving(views, b""))
        records = [
            Record("events", 0, n, None, orjson.dumps(each), 2**42) for n, each in enumerate(events)
        ]
        start_s = time.process_time()
        for first in range(0, count, 10_000):
            stage.replay(records[first : first + 10_000])
        spent["features"].append((time.process_time() - start_s) / count * 1e6)
    return {name: statistics.median(each) for name, each in spent.items()}


# --- on a broker ------------------------------------------------------------------------------


def _publish(cluster: Cluster, topic: str, member: str, records: list[dict[str, Any]]) -> None:
    """Send records by confluent-kafka, which puts them by another hash than ours."""
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap})
    for each in records:
        producer.produce(cluster.topic(topic), orjson.dumps(each), each[member].encode())
    assert producer.flush(60.0) == 0


def on_kafka(broker: str, count: int) -> list[str]:
    """What differs from each task alone; nothing should.

    Args:
        broker: its address.
        count: of events.
    """
    from tests.kafka.shop_world import Reader  # noqa: PLC0415 - only with a broker
    from tests.kafka.world import House, until_said  # noqa: PLC0415
    from tests.kafka_broker import a_name  # noqa: PLC0415
    from tests.shop import stream as shop_stream  # noqa: PLC0415
    from tests.shop import two_tasks  # noqa: PLC0415

    events, labels = shop_stream(seed=5, count=count)
    visits = [event for event in events if event["kind"] == "visit"]
    refunds = [
        {"event_id": e["event_id"], "ts": e["ts"] + 12_000, "label": True} for e in visits[::2]
    ]
    main = Cluster(broker, a_name("shop"))
    tasks = {
        "main": (main, replace(two_tasks, tasks=()), labels),
        "refund": (
            Cluster(broker, f"{main.pipeline}.refund"),
            two_tasks.task_pipelines["refund"],
            refunds,
        ),
    }
    found = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        house = House(Path(folder), main, DECLARATION)
        apply = house.terminal("topics", "apply", "--partitions", str(PARTITIONS))
        made = stack.enter_context(apply).ended()
        assert made.code == 0, made.err
        up = stack.enter_context(house.terminal("up", "--format", "json"))
        _publish(main, "events", "shop", events[: count // 2])
        victim = until_said(up, said="starts", task="refund", worker="predict-1")
        for cluster, _, given in tasks.values():
            _publish(cluster, "labels", "event_id", given)
        Reader(tasks["refund"][0]).until("predictions", count // 12, [up])
        os.kill(victim["process"], signal.SIGKILL)
        _publish(main, "events", "shop", events[count // 2 :])
        for name, (cluster, alone, given) in tasks.items():
            with Driver(alone, partitions=PARTITIONS) as quiet:
                quiet.feed(events, given)
                expected = quiet.read("predictions"), quiet.read("examples")
            reader = Reader(cluster)
            predictions = reader.until("predictions", len(expected[0]), [up])
            examples = reader.until("examples", len(expected[1]), [up])
            for what, member, wanted, given_out in (
                ("predictions", "features", expected[0], predictions),
                ("examples", "label", expected[1], examples),
            ):
                # Of examples the last word: a label that is forwarded may come after silence.
                words = [
                    {r["event_id"]: r[member] for r in records} for records in (wanted, given_out)
                ]
                print(f"{name}: {len(given_out):,} {what}")
                is_doubled = what == "predictions" and len(wanted) != len(given_out)
                if words[0] != words[1] or is_doubled:
                    found.append(f"{name}: {what} differ")
            found += [f"{name}: refused {letter}" for letter in reader.read("dead-letters")]
        forwarded = [record.value for record in Reader(main).raw("events") if record.headers]
        print(f"forwarded: {len(forwarded):,} events, {len({*forwarded}):,} of them different")
        if len({*forwarded}) != len(forwarded):
            found.append("an event was forwarded twice")
        ended = up.stopped()
        if (ended.code, ended.err) != (0, ""):
            found.append(f"up ended with {ended}")
    return found


def main() -> None:
    """Measure or compare, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kafka", action="store_true")
    arguments = parser.parse_args()
    if arguments.kafka:
        from tests.kafka_broker import broker  # noqa: PLC0415 - only with a broker

        with broker() as address:
            found = on_kafka(address, arguments.events)
        print("\n".join(found) or "each task is as it is alone")
        sys.exit(bool(found))
    for name, us in cost(arguments.events, arguments.rounds).items():
        print(f"{name}: {us:.1f} us of CPU an event")


if __name__ == "__main__":
    main()
