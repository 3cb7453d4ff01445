"""What holds for every test, and the broker of those that need one."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell that starts us in the background has its children ignore Ctrl-C, and theirs as well;
# tests of what Ctrl-C does need it as it is in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[str]:
    """The `host:port` of an Apache Kafka that all tests share; started when first asked for."""
    from tests.kafka_broker import broker  # noqa: PLC0415 - few tests need it

    with broker() as address:
        yield address
