"""A pipeline's address on a Kafka cluster, and the names of all that is its there.

A pipeline's topics, groups and transactional ids all begin with its name, so that several share a
cluster, and access can be granted by prefix. A task of a pipeline has its own, which begin with the
name of the pipeline as well, but for the events, which are the pipeline's.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from uuid import UUID

from stream_ml.task_names import SHARED_TOPICS, pipeline_in

__all__ = ["Cluster", "Security", "topic_id"]


@dataclass(frozen=True, slots=True)
class Security:
    """Encryption and authentication between clients and brokers; by default none (PLAINTEXT).

    Attributes:
        tls: whether connections are encrypted and the brokers' certificates checked.
        ca_file: the certificates that vouch for the brokers; None for those of the system.
        mechanism: of SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; None for no SASL.
        username: who we are, where there is a mechanism.
        password: what proves it.
    """

    tls: bool = False
    ca_file: str | None = None
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def protocol(self) -> str:
        """The security protocol, in Kafka's word.

        >>> Security(tls=True, mechanism="SCRAM-SHA-512").protocol
        'SASL_SSL'
        """
        wire = "SSL" if self.tls else "PLAINTEXT"
        return wire if self.mechanism is None else f"SASL_{wire}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A pipeline's place on a cluster.

    Args:
        bootstrap: `host:port` of some brokers, with commas between.
        pipeline: the pipeline's name.
        security: how to connect.

    >>> cluster = Cluster("127.0.0.1:9092", "flights")
    >>> cluster.topic("events"), cluster.changelog("predict")
    ('flights.events', 'flights.predict-changelog')
    >>> cluster.group("predict"), cluster.transactional_id("predict", "a")
    ('flights.predict', 'flights.predict.a')
    >>> task = Cluster("127.0.0.1:9092", "shop.purchase")
    >>> task.topic("events"), task.topic("labels"), task.group("predict")
    ('shop.events', 'shop.purchase.labels', 'shop.purchase.predict')
    """

    bootstrap: str
    pipeline: str
    security: Security = field(default_factory=Security)

    def topic(self, name: str) -> str:
        """The name on the cluster of a topic of the catalogue."""
        return f"{pipeline_in(self.pipeline) if name in SHARED_TOPICS else self.pipeline}.{name}"

    def changelog(self, stage: str) -> str:
        """The topic that holds the state of a stage's tasks, a partition a task."""
        return self.topic(f"{stage}-changelog")

    def group(self, stage: str) -> str:
        """The consumer group of a stage's workers, which its positions are committed for."""
        return f"{self.pipeline}.{stage}"

    def transactional_id(self, stage: str, worker: str) -> str:
        """The transactional id of a worker's producer; a new producer fences the old one (KIP-98).

        Args:
            stage: the worker's.
            worker: a name that stays when it is started again.
        """
        return f"{self.group(stage)}.{worker}"


def topic_id(number: str) -> str:
    """A topic's id, a UUID to client libraries, as Kafka's own tools write it.

    >>> topic_id("00000000-0000-0000-0000-000000000001")
    'AAAAAAAAAAAAAAAAAAAAAQ'
    """
    return urlsafe_b64encode(UUID(number).bytes).rstrip(b"=").decode()
