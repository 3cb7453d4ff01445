"""What serves, as a predict worker on Kafka follows it: also back to what it had let go."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stream_ml.shell.kafka.serving_feed import ServingFeed
from stream_ml.stages.serving import Serving
from stream_ml.testing import Driver
from tests.kafka.world import DEADLINE_S, place, publish
from tests.stages.test_promotion import DAY, ask, declared, run

if TYPE_CHECKING:
    from stream_ml.records import Record
    from stream_ml.shell.kafka.cluster import Cluster

KEY = b"testing"
PIPELINE = declared("better", mode="manual")


def history() -> tuple[list[Record], list[Record], str, str]:
    """Snapshots, decisions up to a rollback, and what served before and after that."""
    with Driver(PIPELINE) as driver:
        run(driver, 0, DAY)
        served = [d["serving"]["champion"]["model"] for d in driver.read("registry")]
        [answer] = ask(driver, "rollback", "c1", expect="better", model=served[0])
        assert "rolled_back" == answer["kind"]
        return driver.records("models"), driver.records("registry"), served[-1], served[0]


def test_a_rollback_to_what_was_let_go_is_followed(kafka_broker: str) -> None:
    """The snapshot is read again where it lies, and new ones after it are still read."""
    models, decided, newest, oldest = history()
    with place(kafka_broker, 1, "predict", "events") as cluster:
        assert [newest, oldest, newest] == asyncio.run(_serves(cluster, models, decided))


async def _serves(cluster: Cluster, models: list[Record], decided: list[Record]) -> list[str]:
    """What serves at the start, after the rollback, and after one more decision."""
    seen: list[str] = []
    await publish(cluster, "models", 0, models)
    await publish(cluster, "registry", 0, decided[:-1])
    serving = Serving(PIPELINE, KEY)
    feed = ServingFeed(cluster, serving, seen.append)
    await feed.start()
    following = asyncio.create_task(feed.follow())
    try:
        await asyncio.wait_for(feed.caught_up(), DEADLINE_S)
        found = [_champion(serving)]
        await publish(cluster, "registry", 0, decided[-1:])
        await asyncio.wait_for(_until(feed, lambda: _champion(serving) != found[0]), DEADLINE_S)
        found.append(_champion(serving))
        # What the set before named is let go by now, too.
        serving._number = -1
        await publish(cluster, "registry", 0, decided[-2:-1])
        await asyncio.wait_for(_until(feed, lambda: _champion(serving) != found[1]), DEADLINE_S)
        return [*found, _champion(serving)]
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await feed.stop()


def _champion(serving: Serving) -> str:
    current = serving.current()
    return "" if current is None else current.champion.ref.model


async def _until(feed: ServingFeed, holds: Any) -> None:
    async with feed._progress:
        await feed._progress.wait_for(holds)
