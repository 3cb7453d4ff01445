"""What the routes of a server share: a board, a predictor, a feed a topic, and their threads."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stream_ml.client import open_log
from stream_ml.sealing import Seals
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.audit import Verdict, verify
from stream_ml.web.authenticity import Authenticity, NothingServesError
from stream_ml.web.board import Board
from stream_ml.web.feed import Feed
from stream_ml.web.log_threads import Follower, LogPool, Outbox
from stream_ml.web.predictor import Predictor
from stream_ml.web.problems import Refusal
from stream_ml.web.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stream_ml.pipeline import Pipeline
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Isolation, Log
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.web.access import Access
    from stream_ml.web.gate import Limits

__all__ = ["CommandSlots", "Service", "Shared"]

HISTORY = 1_000
OPEN_S = 15.0
# A check of the whole registry is good for so long: it takes a while.
VERIFY_S = 10.0
# Whoever probes, a cluster is asked so seldom.
AT_WORK_S = 1.0
# At once, of those that the server signs and of those that callers do.
COMMANDS_MAX = 2
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


class CommandSlots:
    """A few threads in which commands wait for their answers; none waits for a thread.

    Args:
        open_log: opens the log, in a thread.
    """

    def __init__(self, open_log: Callable[[], Log]) -> None:
        self._pool = LogPool(open_log, COMMANDS_MAX)
        self._count = 0

    async def run(self, give: Callable[[Log], T]) -> T:
        """What `give` makes of the log.

        Args:
            give: called in a thread, with the log.

        Raises:
            Refusal: as many wait as may.
            StreamMLError: as `give` does, or the log cannot be opened.
        """
        if self._count >= COMMANDS_MAX:
            raise Refusal(503, f"{COMMANDS_MAX} commands wait for their answers", "busy", retry_s=1)
        self._count += 1
        try:
            return await self._pool.run(give)
        finally:
            self._count -= 1

    def close(self) -> None:
        """End, once what is at work is done."""
        self._pool.close()


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
        authenticity: tells predictions from forgeries.
        predictor: answers requests for predictions.
        outbox: publishes.
        pool: reads from the log.
        commands: threads that wait for the answers to commands.
        signed_commands: such threads for commands that callers have signed, and who may give them
            need not be able to command: they must not hold up those who can.
        verdicts: whether the registry is as it was written.
        closing: set when the server ends.
        stream_count: how many streams are open.
        traffic: what was answered.
        at_work: the stages that have a worker; None where that cannot be told.
        loop: of the server; None before it has begun.
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
        self._open: Callable[[], Log] = partial(open_log, settings, pipeline.name, is_native=True)
        self._open_predictions = partial(self._open, isolation=isolation)
        self.board = Board(
            self._open, settings, pipeline.promotion.mode, trusted=pipeline.label.trusted
        )
        self.outbox = Outbox(self._open)
        self.pool = LogPool(self._open)
        # Views and searches take long, and must not hold up requests for predictions.
        self._lookups = LogPool(self._open)
        self.authenticity = Authenticity(self._lookups, self._prediction_seal)
        self.at_work: Shared[frozenset[str] | None] = Shared(self._at_work, AT_WORK_S)
        self.commands = CommandSlots(self._open)
        self.signed_commands = CommandSlots(self._open)
        predictions = Feed("predictions", self.pool)
        # Streams send what is committed, whatever predictions are answered with.
        is_shared = isolation == "committed"
        self.predictor = Predictor(
            pipeline,
            self.outbox,
            self._lookups,
            self.pool,
            open_log=self._open_predictions,
            limit_s=limits.predict_s,
            on_begin=predictions.begin if is_shared else _ignore,
            on_records=predictions.add if is_shared else _ignore,
            authenticity=self.authenticity,
            at_work=self.at_work.get,
        )
        self._followers: dict[str, tuple[Feed, Follower]] = {}
        if is_shared:
            self._followers["predictions"] = (predictions, self.predictor.predictions)
        self.verdicts: Shared[Verdict] = Shared(self._verify, VERIFY_S)
        self.closing = asyncio.Event()
        self.stream_count = 0
        self.traffic = Traffic()
        self.loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin, in the event loop of the server."""
        self.loop = asyncio.get_running_loop()
        self.board.start()
        self.outbox.start()
        self.authenticity.start()
        self.predictor.start()

    def close(self) -> None:
        """End all that was begun."""
        self.closing.set()
        self.authenticity.close()
        self.predictor.close()
        for _, follower in self._followers.values():
            follower.close()
        self.outbox.close()
        self.board.close()
        self.pool.close()
        self._lookups.close()
        self.commands.close()
        self.signed_commands.close()

    def open_stream(self) -> Callable[[], None]:
        """Take a place among the streams, before anything is waited for: others come meanwhile.

        Returns:
            Gives it back.

        Raises:
            Refusal: all are taken.
        """
        if self.stream_count >= self.limits.streams:
            raise Refusal(503, f"{self.limits.streams:,} streams are open", "busy", retry_s=5)
        self.stream_count += 1
        return self._close_stream

    def _close_stream(self) -> None:
        self.stream_count -= 1

    def wait(self, seconds: float) -> None:
        """Wait in a thread; not for long where the server is about to end.

        Args:
            seconds: how long.

        Raises:
            Refusal: the server ends (503).
        """
        if self.closing.is_set():
            raise Refusal(
                503,
                "the server ends before the answer has come; the command stays on the log and may "
                "still be answered: ask again with the same id, which does nothing twice",
                "ending",
                retry_s=1,
            )
        time.sleep(seconds)

    def _prediction_seal(self, log: Log) -> RecordSeal | None:
        # In this order: a worker makes the key before it writes its first decision.
        is_begun = log.end_offset("registry", 0) > 0
        key = reading_key(self.settings, log)
        if key is None:
            if is_begun:
                return None
            raise NothingServesError(
                "expected the key that predictions are sealed with, given none yet, and no worker "
                "has been at work on this log; start one with `stream-ml up`"
            )
        return Seals(key, self.pipeline.name, log.identity).records("predictions")

    async def _verify(self) -> Verdict:
        return await self.pool.run(lambda log: verify(log, reading_key(self.settings, log)))

    async def _at_work(self) -> frozenset[str] | None:
        return await self._lookups.run(lambda log: log.stages_at_work())

    async def feed(self, topic: str) -> Feed:
        """The feed of a topic, which is read from when it is first asked for.

        Args:
            topic: `predictions`, `registry` or `alerts`.

        Raises:
            Refusal: the log cannot be read now.
        """
        if topic not in self._followers:
            feed = Feed(topic, self.pool)
            self._followers[topic] = (
                feed,
                Follower(self._open, topic, feed.add, history=HISTORY, on_begin=feed.begin),
            )
        feed, follower = self._followers[topic]
        try:
            async with asyncio.timeout(OPEN_S):
                await asyncio.shield(follower.start())
        except TimeoutError:
            raise Refusal(
                503, f"{topic} cannot be read: {follower.error or 'no answer'}", "log", retry_s=1
            ) from None
        return feed


def _ignore(_: object) -> None:
    pass
