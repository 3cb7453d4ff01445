"""What the routes of a server share: a board, a predictor, a feed a topic, and their threads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stream_ml.client import open_log
from stream_ml.sealing import Seals
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.audit import Verdict, verify
from stream_ml.web.board import Board
from stream_ml.web.feed import Feed
from stream_ml.web.log_threads import Follower, LogPool, Outbox
from stream_ml.web.predictor import Predictor
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stream_ml.pipeline import Pipeline
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Isolation, Log
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.web.access import Access
    from stream_ml.web.gate import Limits

__all__ = ["Service", "Shared"]

HISTORY = 1_000
OPEN_S = 15.0
# A check of the whole registry is good for so long: it takes a while.
VERIFY_S = 10.0
T = TypeVar("T")


class Shared(Generic[T]):
    """A value that takes a while to make, made once for all who ask meanwhile, and soon after.

    Args:
        make: makes it.
        age_s: for how long it is good.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], age_s: float) -> None:
        self._make = make
        self._age_s = age_s
        self._task: asyncio.Task[T] | None = None
        self._made_s = 0.0

    async def get(self) -> T:
        """The value; raises as making it does."""
        task, now_s = self._task, asyncio.get_running_loop().time()
        is_old = now_s - self._made_s >= self._age_s
        if task is None or (task.done() and (is_old or task.exception() is not None)):
            task = self._task = asyncio.create_task(self._make())
            self._made_s = now_s
        return await asyncio.shield(task)


class Service:
    """What the routes share; it lies in `app.state.service`.

    Args:
        settings: which log, and which keys are set.
        pipeline: the declaration.
        access: tells callers.
        limits: what is taken on.
        isolation: of a cluster, whether predictions are answered once they are committed, or as
            soon as they are written, and then maybe made again and other ones.

    Attributes:
        board: the views of the log.
        predictor: answers requests for predictions.
        outbox: publishes.
        pool: reads from the log.
        commands: threads that wait for the answers to commands.
        verdicts: whether the registry is as it was written.
        closing: set when the server ends.
        stream_count: how many streams are open.
        command_count: how many commands wait for their answers.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        access: Access,
        limits: Limits,
        *,
        isolation: Isolation = "committed",
    ) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.access = access
        self.limits = limits
        self._open: Callable[[], Log] = partial(open_log, settings, pipeline.name)
        self._open_predictions = partial(self._open, isolation=isolation)
        self.board = Board(self._open, settings, pipeline.promotion.mode)
        self.outbox = Outbox(self._open)
        self.pool = LogPool(self._open)
        self.commands = LogPool(self._open)
        self._predictions = Feed("predictions", self.pool)
        self.predictor = Predictor(
            pipeline,
            self.outbox,
            self.pool,
            open_log=self._open_predictions,
            limit_s=limits.predict_s,
            on_records=self._predictions.add,
            read_seal=self._prediction_seal,
        )
        self._followers: dict[str, tuple[Feed, Follower]] = {}
        self.verdicts: Shared[Verdict] = Shared(self._verify, VERIFY_S)
        self.closing = asyncio.Event()
        self.stream_count = 0
        self.command_count = 0
        self._begun: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the event loop of the server."""
        self.board.start()
        self.outbox.start()
        self._begun = asyncio.create_task(self._begin())

    async def _begin(self) -> None:
        self._predictions.begin(await self.predictor.start())

    def close(self) -> None:
        """End all that was begun."""
        self.closing.set()
        if self._begun is not None:
            self._begun.cancel()
        self.predictor.close()
        for _, follower in self._followers.values():
            follower.close()
        self.outbox.close()
        self.board.close()
        self.pool.close()
        self.commands.close()

    def _prediction_seal(self, log: Log) -> RecordSeal | None:
        key = reading_key(self.settings, log)
        if key is None:
            return None
        return Seals(key, self.pipeline.name, log.identity).records("predictions")

    async def _verify(self) -> Verdict:
        return await self.pool.run(lambda log: verify(log, reading_key(self.settings, log)))

    async def feed(self, topic: str) -> Feed:
        """The feed of a topic, which is read from when it is first asked for.

        Args:
            topic: `predictions`, `registry` or `alerts`.

        Raises:
            Refusal: the log cannot be read now.
        """
        follower: Follower | None = None
        try:
            async with asyncio.timeout(OPEN_S):
                if topic == "predictions":
                    assert self._begun is not None, "the server has begun"
                    await asyncio.shield(self._begun)
                    return self._predictions
                if topic not in self._followers:
                    feed = Feed(topic, self.pool)
                    follower = Follower(self._open, topic, feed.add, history=HISTORY)
                    self._followers[topic] = (feed, follower)
                    # Before any record: both are handed over in their order.
                    follower.start().add_done_callback(partial(_begin_feed, feed))
                feed, follower = self._followers[topic]
                await asyncio.shield(follower.start())
                return feed
        except TimeoutError:
            error = None if follower is None else follower.error
            raise Refusal(
                503, f"{topic} cannot be read: {error or 'no answer'}", "log", retry_s=1
            ) from None


def _begin_feed(feed: Feed, offsets: asyncio.Future[dict[int, int]]) -> None:
    with suppress(asyncio.CancelledError):
        feed.begin(offsets.result())
