"""Whose turn it is: of several processes one does what must be done once, and another takes over.

Theory of operation:

1. They are members of a consumer group on a topic with one partition, which the cluster gives to
   one of them. Nothing is read through it, and no offset is kept: whoever has the partition has
   the turn.
2. Who ends gives it up at once. Who is killed, or cut off, has lost it after `SESSION_MS`, and may
   not know it yet for as long: for that while two may have it, never none for longer.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

from kafka import KafkaConsumer

from stream_ml.shell.kafka.security import client_options

if TYPE_CHECKING:
    from stream_ml.shell.kafka.cluster import Cluster

__all__ = ["GroupTurn"]

SESSION_MS, HEARTBEAT_MS = 10_000, 3_000
POLL_MS = 500
RETRY_S = 1.0


class GroupTurn:
    """The turn among all processes that name the same group.

    Args:
        cluster: the pipeline's place.
        group: names what is done in turn.
        topic: one of the catalogue that has one partition.
    """

    def __init__(self, cluster: Cluster, group: str, topic: str) -> None:
        self._cluster, self._topic = cluster, topic
        self._group = cluster.group(group)
        self._ours = threading.Event()

    def is_ours(self) -> bool:
        """Whether this process has the turn."""
        return self._ours.is_set()

    def run(self, stop: threading.Event) -> None:
        """Take part until asked to stop, whatever becomes of the cluster meanwhile.

        Args:
            stop: set when it is to end.
        """
        while not stop.is_set():
            try:
                with closing(self._consumer()) as consumer:
                    consumer.subscribe([self._cluster.topic(self._topic)])
                    self._take_part(consumer, stop)
            # Whatever it is: who takes part no more would never get the turn.
            except Exception:  # noqa: BLE001
                self._ours.clear()
                stop.wait(RETRY_S)
        self._ours.clear()

    def _consumer(self) -> KafkaConsumer:
        return KafkaConsumer(
            bootstrap_servers=self._cluster.bootstrap.split(","),
            client_id="stream-ml",
            group_id=self._group,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            allow_auto_create_topics=False,
            metrics_enabled=False,
            **client_options(self._cluster.security),
        )

    def _take_part(self, consumer: KafkaConsumer, stop: threading.Event) -> None:
        while not stop.is_set():
            consumer.poll(timeout_ms=POLL_MS)
            assignment = consumer.assignment()
            if assignment:
                consumer.pause(*assignment)
                self._ours.set()
            else:
                self._ours.clear()
        self._ours.clear()
