"""The transactions of a worker on a cluster, measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_ml.shell.kafka.transactions import Transactions
from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.kafka.transactions import Message
    from stream_ml.shell.log.port import PartitionId
    from stream_ml.shell.metering.meter import Meter

__all__ = ["MeasuredTransactions"]


class MeasuredTransactions(Transactions):
    """Transactions that tell a meter what they have committed.

    Args:
        meter: of this process.
        cluster: see `Transactions`; and what topics are called there.
        group: see `Transactions`.
        name: see `Transactions`.
        commit_s: see `Transactions`.
    """

    def __init__(
        self, meter: Meter, cluster: Cluster, group: str, name: str, commit_s: float
    ) -> None:
        super().__init__(cluster, group, name, commit_s)
        self._meter = meter
        self._topics = {cluster.topic(topic): topic for topic in catalogue()}

    def write(
        self, records: Iterable[tuple[str, Iterable[Message]]], positions: Mapping[PartitionId, int]
    ) -> None:
        """Put records on their way; see `Transactions`."""
        batches = [(topic, list(messages)) for topic, messages in records]
        super().write(batches, positions)
        for topic, messages in batches:
            self._meter.stage([self._topics.get(topic, topic)] * len(messages))

    def _commit(self, positions: Mapping[PartitionId, int], member: bytes) -> None:
        started_s = time.perf_counter()
        super()._commit(positions, member)
        self._meter.commit(time.perf_counter() - started_s)
