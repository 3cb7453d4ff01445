"""Makes kafka-python's clients: quietly, and leaving nothing behind if they fail.

It says only in its own log why it was not let in, at length, and by default on standard error. The
last reason is what we tell; for the rest its log says nothing unless somebody listens to it.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from stream_ml.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.kafka.cluster import Cluster

__all__ = ["admin_client", "translated_errors"]

_LOG = logging.getLogger("kafka")
_LOG.addHandler(logging.NullHandler())
# It calls a socket that is closed while it is read an error; a lost connection is told elsewhere.
logging.getLogger("kafka.net.transport").setLevel(logging.CRITICAL)


class _Reasons(logging.Handler):
    """Listens for why connections failed; `last` is the last reason, empty before the first."""

    _REASON = re.compile(r"Connection (?:lost|failed): (?:\w+: )?(.+)")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        match = self._REASON.search(record.getMessage())
        # A timeout says less than the reason that was logged before it.
        if match is not None and "Timeout" not in match[1]:
            self.last = match[1]


@contextmanager
def translated_errors(cluster: Cluster) -> Iterator[None]:
    """Turns what the client library raises into what we do, while connecting or in a short errand.

    Raises:
        LogError: nobody answers, or lets us in, or does as asked; and why.
    """
    reasons = _Reasons()
    propagates, _LOG.propagate = _LOG.propagate, False
    _LOG.addHandler(reasons)
    try:
        yield
    except KafkaTimeoutError as error:
        reason = f": {reasons.last}" if reasons.last else ""
        raise LogError(
            f"{cluster.bootstrap}: expected a Kafka cluster that answers and lets us in by "
            f"{cluster.security.protocol}, given no answer{reason}; is it running there, and are "
            "STREAM_ML_TLS_CA, STREAM_ML_SASL and STREAM_ML_PASSWORD as it wants them?"
        ) from error
    except KafkaError as error:
        raise LogError(
            f"{cluster.bootstrap}: expected the cluster to do as it is asked, given {error}"
        ) from error
    finally:
        _LOG.removeHandler(reasons)
        _LOG.propagate = propagates


def admin_client(**options: Any) -> KafkaAdminClient:
    """An admin client, connected.

    Raises:
        KafkaTimeoutError: nobody answered, or let us in.
    """
    clients: list[KafkaNetClient] = []

    def make_client(**configs: Any) -> KafkaNetClient:
        clients.append(KafkaNetClient(**configs))
        return clients[-1]

    try:
        return KafkaAdminClient(**options, kafka_client=make_client)
    except BaseException:
        # Its thread would go on trying to connect for as long as the process lives.
        for client in clients:
            client._net.stop()  # noqa: SLF001 - what the admin client's own `close` does
            client.close()
        raise
