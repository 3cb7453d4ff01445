"""The threads in which tasks ask learners and read events, without a broker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from stream_ml import Learner
from stream_ml.shell.handover import Handover
from stream_ml.shell.kafka import regeneration
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.regeneration import TaskFeatures
from stream_ml.shell.restoration import TakenUp
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from tests.kafka.world import DEADLINE_S, Bench
from tests.shop import KEY, declare, shop

if TYPE_CHECKING:
    from stream_ml.shell.kafka.task import KafkaTask

NOWHERE = Cluster("127.0.0.1:1", "shop")


class Slow(Learner):
    """Is read from a snapshot when whoever holds it lets it."""

    entered, released = Event(), Event()

    def predict_one(self, features: Any) -> float:  # noqa: ARG002 - the protocol's
        """A half."""
        return 0.5

    def learn_one(self, features: Any, label: Any) -> None:
        """Nothing."""

    def dump(self) -> bytes:
        """Nothing of it."""
        return b"slow"

    def load(self, data: bytes) -> None:  # noqa: ARG002 - the protocol's
        """Wait."""
        self.entered.set()
        assert self.released.wait(DEADLINE_S), "nothing else goes on meanwhile"


def restoring() -> tuple[KafkaTask, TakenUp]:
    """A task of learn, and a state with a line that is slow to read."""
    Slow.released.set()  # a declaration tries its learners
    slow = declare(models={**shop.models, "slow": Slow()})
    stage = Learn(slow, KEY)
    stage.start()
    pieces = [(name, piece) for name, piece in stage.dirty() if piece is not None]
    bench = Bench(NOWHERE, "learn", ("examples",), lambda _: Learn(slow, KEY))
    task = bench.task(0).task
    Slow.entered, Slow.released = Event(), Event()
    return task, TakenUp(pieces, {}, None)


def test_a_task_that_is_taken_away_waits_for_the_lines_that_it_restores() -> None:
    """Whoever has it next would ask the same lines' processes beside it."""

    async def run() -> None:
        task, state = restoring()
        restoration = asyncio.create_task(task._restore_state(state))
        assert await asyncio.to_thread(Slow.entered.wait, DEADLINE_S)
        restoration.cancel()
        assert set() == (await asyncio.wait([restoration], timeout=0.05))[0]
        Slow.released.set()
        with pytest.raises(asyncio.CancelledError):
            await restoration
        task._thread.stop()

    asyncio.run(run())


def test_a_line_that_hangs_takes_no_thread_that_others_share() -> None:
    """Look-ups of clients, restorations and checkpoints go on, were it their only thread."""

    async def run() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        task, state = restoring()
        restoration = asyncio.create_task(task._restore_state(state))
        assert await loop.run_in_executor(ThreadPoolExecutor(1), Slow.entered.wait, DEADLINE_S)
        look_up = asyncio.create_task(asyncio.to_thread(lambda: "an address"))
        done, _ = await asyncio.wait([look_up], timeout=DEADLINE_S / 20)
        Slow.released.set()
        await restoration
        task._thread.stop()
        return look_up.result() if done else "waits"

    assert "an address" == asyncio.run(run())


def test_a_log_is_closed_whose_task_was_taken_away_as_it_was_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No client stays connected that nobody reads with."""
    entered, released, closed = Event(), Event(), Event()

    def opened(_: Cluster) -> Any:
        entered.set()
        assert released.wait(DEADLINE_S)
        return SimpleNamespace(close=closed.set, first_offset=lambda *_: 1)

    async def run() -> None:
        monkeypatch.setattr(regeneration, "KafkaLog", opened)
        features = TaskFeatures(NOWHERE, Handover(shop))
        stage: Any = object.__new__(Predict)
        rebuild = asyncio.create_task(features.rebuild(stage, [], 0, 1))
        assert await asyncio.to_thread(entered.wait, DEADLINE_S)
        rebuild.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rebuild
        features.stop()
        released.set()
        assert await asyncio.to_thread(closed.wait, DEADLINE_S)

    asyncio.run(run())
