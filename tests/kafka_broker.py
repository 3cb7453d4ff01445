"""Which Apache Kafka the tests run on; there always is one, or the tests that need it fail.

In this order: the one that `STREAM_ML_TEST_BROKER` names, a container where a Docker engine
answers, the jars where there are Java and Maven. A broker that we start is new, is used by the
whole session, and ends with it, however it ends: the container by testcontainers' reaper, the
server of the jars by its guard.

Whoever uses it shares it: name pipelines by `a_name`, so that no two tests meet.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
import uuid
import warnings
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from tools.kafka.broker import (
    PROPERTIES,
    QUICK_START,
    VERSION,
    Broker,
    answers,
    free_ports,
    missing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["a_name", "broker", "cluster_of_its_own"]

VARIABLE = "STREAM_ML_TEST_BROKER"
ENGINE_S_MAX = 3
CONTAINER_S_MAX = 120
GROUPS_S_MAX = 60


@contextmanager
def cluster_of_its_own(address: str, prefix: str, partitions: int) -> Iterator[Cluster]:
    """A pipeline's topics on a broker, of nobody else's, for a while."""
    cluster = Cluster(address, a_name(prefix))
    apply(cluster, Demand(partitions=partitions))
    yield cluster
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        ours = cluster.topic("")
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(ours)])


def a_name(prefix: str = "t") -> str:
    """A name that no other test has, for a pipeline."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


@contextmanager
def broker() -> Iterator[str]:
    """The `host:port` of a broker to test with.

    Raises:
        AssertionError: there is none, and none can be started; never a reason to skip.
    """
    with _a_broker() as address:
        _await_groups(address)
        yield address


@contextmanager
def _a_broker() -> Iterator[str]:
    named = os.environ.get(VARIABLE)
    if named is not None:
        assert answers(named), f"{VARIABLE}: expected a broker at {named}, given no answer"
        yield named
    elif _engine_answers():
        with _container() as address:
            yield address
    else:
        assert not missing(), (
            f"expected an Apache Kafka to test with: one named by {VARIABLE}, a Docker engine, or "
            f"Java 17 and Maven to run it from its jars; given no {' and no '.join(missing())}"
        )
        with (
            tempfile.TemporaryDirectory(prefix="stream-ml-kafka-") as home,
            Broker(Path(home), java_options=QUICK_START) as started,
        ):
            yield started.address


def _await_groups(address: str) -> None:
    """A new broker makes its topic of groups when first asked for one, and refuses till then."""
    deadline = time.monotonic() + GROUPS_S_MAX
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        while True:
            try:
                admin.describe_groups(["first"])
                break
            except KafkaError:
                assert time.monotonic() < deadline, f"{address} has not come to answer for groups"


def _engine_answers() -> bool:
    import docker  # noqa: PLC0415 - it takes a while, and most runs do not need it
    from docker.errors import DockerException  # noqa: PLC0415

    with warnings.catch_warnings():
        # Without an engine it forgets to close the socket that it tried; so it is closed here.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(docker.from_env(timeout=ENGINE_S_MAX)) as client:
                return bool(client.ping())
        except (DockerException, OSError):
            return False
        finally:
            gc.collect()


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - as above
    from testcontainers.core.waiting_utils import wait_for_logs  # noqa: PLC0415

    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    properties = {
        **PROPERTIES,
        # The same port inside and outside, for clients are told to come back to it.
        "listeners": f"CLIENT://0.0.0.0:{port},CONTROLLER://localhost:9093",
        "advertised.listeners": f"CLIENT://{address}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.quorum.voters": "1@localhost:9093",
    }
    container = DockerContainer(f"apache/kafka:{VERSION}").with_bind_ports(port, port)
    for name, value in properties.items():
        container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
    with container:
        wait_for_logs(container, "Kafka Server started", timeout=CONTAINER_S_MAX)
        yield address
