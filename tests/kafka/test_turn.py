"""Of several processes that could deliver alerts one does, and another takes over."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import orjson
from kafka import KafkaProducer

import stream_ml as sml
from stream_ml.codec import encode
from stream_ml.records import Alert
from stream_ml.sealing import Seals
from stream_ml.shell.alerting.bookmarks import GroupBookmark
from stream_ml.shell.alerting.courier import Address, Courier, Couriers
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.turn import GroupTurn
from tests.kafka_broker import a_name

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"k" * 32
DEADLINE_S = 60.0


class House:
    """Couriers as one `up` has them, that note what they deliver."""

    def __init__(self, cluster: Cluster) -> None:
        self.delivered: list[str] = []
        self.arrived = threading.Event()
        self.turn = GroupTurn(cluster, "couriers", "alerts")
        route = sml.Route("oncall", webhook="http://127.0.0.1:9/", severity="info")
        recipient: Any = self

        def make(stop: threading.Event) -> Courier:
            return Courier(
                Address(route, "oncall.webhook", recipient),
                KEY,
                cluster.pipeline,
                open_log=lambda: KafkaLog(cluster),
                bookmark=GroupBookmark,  # type: ignore[arg-type]
                say=str,
                stop=stop,
                turn=self.turn,
            )

        self.couriers = Couriers([make], self.turn)

    def deliver(self, body: bytes) -> None:
        """As a webhook would."""
        alerts = orjson.loads(body)["alerts"]
        self.delivered += [each["annotations"]["summary"] for each in alerts]
        self.arrived.set()


def write(cluster: Cluster, identity: str, *numbers: int) -> None:
    """Alerts, as a stage has them written."""
    seal = Seals(KEY, cluster.pipeline, identity).records("alerts")
    alerts = [Alert("guard", n, "evaluate", f"n{n}", {}) for n in numbers]
    with closing(KafkaProducer(bootstrap_servers=cluster.bootstrap)) as producer:
        for alert in alerts:
            producer.send(cluster.topic("alerts"), seal.seal(encode(alert)), b"guard")
        producer.flush()


def until(holds: Callable[[], bool], *houses: House) -> None:
    """Wait until something is so, for every delivery, and at most a while."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, [house.delivered for house in houses]
        houses[0].arrived.wait(0.2)
        houses[0].arrived.clear()


def test_of_several_one_delivers_and_another_takes_over(kafka_broker: str) -> None:
    """Each alert comes once, from one of them; when that one ends the other goes on."""
    cluster = Cluster(kafka_broker, a_name("turn"))
    apply(cluster, Demand(partitions=1))
    houses = [House(cluster) for _ in range(2)]
    with KafkaLog(cluster) as log, houses[0].couriers, houses[1].couriers:
        for house in houses:
            house.couriers.start()
        until(lambda: any(house.turn.is_ours() for house in houses), *houses)
        # A route begins with what is open, so it must be there before.
        until(lambda: log.mark("route-oncall.webhook", "alerts") is not None, *houses)
        write(cluster, log.identity, *range(5))
        until(lambda: sum(len(house.delivered) for house in houses) >= 5, *houses)
        first, second = sorted(houses, key=lambda house: -len(house.delivered))
        assert ([f"n{n}" for n in range(5)], []) == (first.delivered, second.delivered)

        first.couriers.__exit__(None, None, None)
        until(second.turn.is_ours, second)
        write(cluster, log.identity, 5, 6)
        until(lambda: len(second.delivered) >= 2, second)

    assert (["n5", "n6"], 5) == (second.delivered, len(first.delivered))
