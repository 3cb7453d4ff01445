"""A late line on a cluster whose backlog is taught before all go on: who stops, what is kept."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import tree

from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.transactions import NEVER
from stream_ml.stages.learn import Learn
from tests.kafka.world import Bench
from tests.shop import KEY, declare, example, shop

if TYPE_CHECKING:
    from stream_ml.records import Record
    from stream_ml.shell.kafka.task import KafkaTask

KNOWN, ALL, STRETCH = 90, 200, 15
later = declare(models={**shop.models, "late": tree.HoeffdingTreeClassifier(grace_period=10)})


def recorded() -> list[Record]:
    """Examples, of which the others have learned the first `KNOWN`."""
    names = shop.feature_set.names
    return [example(n, n % 3 == 0, dict.fromkeys(names, float(n % 7))) for n in range(ALL)]


class Place:
    """The topic that the backlog is read from, in stretches, and the state that is committed.

    Args:
        records: of `examples`.
        task: of learn.
        stop_at: the number of the stretch during which the worker is asked to stop.
    """

    def __init__(self, records: list[Record], task: KafkaTask, stop_at: int) -> None:
        self._records, self._task, self._stop_at = records, task, stop_at
        self.stretches = 0
        self.taught: list[int] = []
        # What of the task needs brokers is here.
        stand_in: Any = task
        stand_in._backlog = self
        stand_in._commit = self.commit
        stand_in._unseal = lambda _: None
        stand_in._context.transactions.wait_until_writable = self.wait_until_writable

    async def read(self, offset: int, end: int) -> list[Any]:
        """The next stretch, as the client has it."""
        self.stretches += 1
        self._task._is_suspending = self.stretches == self._stop_at
        return [
            SimpleNamespace(
                partition=0,
                offset=record.offset,
                key=record.key,
                value=record.value,
                timestamp=record.append_ms,
                headers=(),
            )
            for record in self._records[offset : min(end, offset + STRETCH)]
        ]

    async def commit(self) -> None:
        """Note how many examples the line has learned that is written down."""
        keyless = dict(self._task._stage.dirty())[""]
        self.taught.append(orjson.loads(keyless or b"")["latecomers"]["late"]["learned"])
        self._task._next_check_s = NEVER

    async def wait_until_writable(self) -> None:
        """At once."""


async def fold(stop_at: int) -> tuple[Place, int]:
    """What is committed while examples are folded in; and up to where they are."""
    records = recorded()
    former = Learn(shop, KEY)
    former.start()
    former.apply(records[:KNOWN])
    learn = Learn(later, KEY, has_backlog=True)
    learn.restore((name, piece) for name, piece in former.dirty() if piece is not None)
    cluster = Cluster("127.0.0.1:1", "shop")
    bench = Bench(cluster, "learn", ("examples",), lambda _: learn, checkpoint_s=0.0)
    task = bench.task(0).task
    task._task.positions = {("examples", 0): KNOWN}
    place = Place(records, task, stop_at)
    await task._fold(records[KNOWN:])
    task._thread.stop()
    return place, task._task.positions["examples", 0]


@pytest.mark.parametrize(
    ("stop_at", "taught", "end"), [(0, [30, 45, 60, 75, 90], ALL), (3, [30, 45], KNOWN)]
)
def test_who_stops_does_not_wait_until_a_late_line_has_caught_up(
    stop_at: int, taught: list[int], end: int
) -> None:
    """What it was taught is kept, stretch by stretch; what was to come then comes again."""
    place, position = asyncio.run(fold(stop_at))

    assert (taught, end) == (place.taught, position)
