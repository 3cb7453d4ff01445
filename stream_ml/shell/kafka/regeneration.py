"""Features made again on a cluster: a task's own reader of the events, in a thread of its own.

Theory of operation: folding events is plain work that may take minutes, and the client's log
waits for answers. Both are done in one thread (the log is of the thread that made it), so that the
loop goes on hearing the brokers; the task waits for it, and nobody touches its stage meanwhile.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from stream_ml.shell.handover import Preparation, check_whole
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.regeneration import LearnFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_ml.records import Record
    from stream_ml.shell.handover import Handover
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.stages.learn import Learn
    from stream_ml.stages.predict import Predict

__all__ = ["TaskFeatures"]

T = TypeVar("T")


class TaskFeatures:
    """Makes features again for one task.

    Args:
        cluster: the pipeline's place.
        handover: the declaration, as it runs.
    """

    def __init__(self, cluster: Cluster, handover: Handover) -> None:
        self._cluster, self._handover = cluster, handover
        # Made when it is first needed.
        self._thread: ThreadPoolExecutor | None = None
        self._log: KafkaLog | None = None
        self._learn: LearnFeatures | None = None

    async def supply_past(self, learn: Learn, records: Sequence[Record]) -> None:
        """Before learn catches up with examples; see `LearnFeatures.supply_past`.

        Args:
            learn: the stage.
            records: that it is given next.
        """
        await self._run(lambda: self._features().supply_past(learn, records))

    async def end_past(self, learn: Learn) -> None:
        """Where learn is not behind any more.

        Args:
            learn: the stage.
        """
        await self._run(lambda: self._features().end_past(learn))

    async def supply_recent(self, learn: Learn, records: Sequence[Record]) -> None:
        """Before learn is given what has come; see `LearnFeatures.supply_recent`.

        Args:
            learn: the stage.
            records: that it is given next.
        """
        await self._run(lambda: self._features().supply_recent(learn, records))

    async def rebuild(
        self, stage: Predict, pieces: Iterable[tuple[str, bytes]], partition: int, end: int
    ) -> None:
        """Take up a state of predict whose windows were of other features.

        Args:
            stage: predict, which has folded nothing.
            pieces: the state.
            partition: of the events.
            end: the next event that is not in the state.

        Raises:
            UsageError: not all events of the partition are there.
        """

        def work() -> None:
            log = self._opened()
            check_whole(log, partition)
            preparation = Preparation(log, self._handover)
            stage.rebuild(pieces, preparation.events(partition, end))

        await self._run(work)

    def stop(self) -> None:
        """Let go of all, once what is under way has ended; what is asked for later begins anew."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._close, self._log)
            thread.shutdown(wait=False)
        self._log = self._learn = None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "regeneration")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _features(self) -> LearnFeatures:
        if self._learn is None:
            handover = self._handover
            self._learn = LearnFeatures(self._opened(), handover.pipeline, handover.erasures)
        return self._learn

    def _opened(self) -> KafkaLog:
        if self._log is None:
            self._log = KafkaLog(self._cluster)
        return self._log

    @staticmethod
    def _close(log: KafkaLog | None) -> None:
        if log is not None:
            log.close()
