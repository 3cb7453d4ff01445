"""Features made again on a cluster: a task's own reader of the events, in a thread of its own.

Theory of operation: folding events is plain work that may take minutes, and the client's log
waits for answers. Both are done in one thread (the log is of the thread that made it), so that the
loop goes on hearing the brokers; the task waits for it, and nobody touches its stage meanwhile. A
task that is cancelled does not wait: it has not taken over yet, so its stage goes with it, and what
is under way ends by itself, and closes what it has opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.shell.handover import Preparation, check_whole
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.task_thread import TaskThread
from stream_ml.shell.regeneration import LearnFeatures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ml.records import Record
    from stream_ml.sealing import SealedState
    from stream_ml.shell.handover import Handover
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.kafka.standby import Standby
    from stream_ml.stages.learn import Learn
    from stream_ml.stages.predict import Predict

__all__ = ["TaskFeatures"]


class TaskFeatures:
    """Makes features again for one task.

    Args:
        cluster: the pipeline's place.
        handover: the declaration, as it runs.
        standby: that this worker was before, which has windows ready; None: it was none.
    """

    def __init__(
        self, cluster: Cluster, handover: Handover, standby: Standby | None = None
    ) -> None:
        self._cluster, self._handover, self._standby = cluster, handover, standby
        self._thread = TaskThread("regeneration")
        self._reader = _EventReader(cluster, handover)

    async def supply_past(self, learn: Learn, records: Sequence[Record]) -> None:
        """Before learn catches up with examples; see `LearnFeatures.supply_past`.

        Args:
            learn: the stage.
            records: that it is given next.
        """
        reader = self._reader
        await self._thread.call(lambda: reader.features().supply_past(learn, records))

    async def end_past(self, learn: Learn) -> None:
        """Where learn is not behind any more.

        Args:
            learn: the stage.
        """
        reader = self._reader
        await self._thread.call(lambda: reader.features().end_past(learn))

    async def supply_recent(self, learn: Learn, records: Sequence[Record]) -> None:
        """Before learn is given what has come; see `LearnFeatures.supply_recent`.

        Args:
            learn: the stage.
            records: that it is given next.
        """
        reader = self._reader
        await self._thread.call(lambda: reader.features().supply_recent(learn, records))

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
        reader, ready = self._reader, None
        if self._standby is not None:
            ready = await self._standby.events(self._handover, partition, end)

        def work() -> None:
            events = ready
            if events is None:
                log = reader.log()
                check_whole(log, partition)
                events = Preparation(log, self._handover).events(partition, end)
            stage.rebuild(pieces, events)

        await self._thread.call(work)

    def changelog(self, partition: int, state: SealedState) -> tuple[SealedState, int]:
        """The state of a task of predict as far as it was read, and from where on it was not.

        Args:
            partition: of the changelog.
            state: of the task, of which nothing was read.
        """
        found = None if self._standby is None else self._standby.changelog(partition)
        return (state, 0) if found is None else found

    def stop(self) -> None:
        """Let go of all, once what is under way has ended; what is asked for later begins anew."""
        self._thread.stop(self._reader.close)
        self._reader = _EventReader(self._cluster, self._handover)


class _EventReader:
    """What one thread reads events with, made when it is first needed, and there alone."""

    def __init__(self, cluster: Cluster, handover: Handover) -> None:
        self._cluster, self._handover = cluster, handover
        self._log: KafkaLog | None = None
        self._features: LearnFeatures | None = None

    def log(self) -> KafkaLog:
        """The log."""
        if self._log is None:
            self._log = KafkaLog(self._cluster)
        return self._log

    def features(self) -> LearnFeatures:
        """Of learn."""
        if self._features is None:
            handover = self._handover
            self._features = LearnFeatures(self.log(), handover.pipeline, handover.erasures)
        return self._features

    def close(self) -> None:
        """Close the log, if there is one."""
        if self._log is not None:
            self._log.close()
