"""`worker`: what it says, and where nobody hears it; the rest of it is under `tests/kafka`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from stream_ml.cli.logs import AGAIN_S, Seldom

FAILING = """
import os
from stream_ml.shell.kafka.worker import Worker
worker = Worker.__new__(Worker)
worker._stage = "predict"
try:
    worker.fail(ValueError("a task has failed"))
except BaseException:
    os._exit(77)
"""


def test_a_failure_ends_a_worker_also_where_nobody_hears_it() -> None:
    """A worker whose task has failed must not live on, and hold its partitions, for want of a pipe.

    Both of its outputs go to a reader that is gone.
    """
    read, written = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(  # noqa: S603 - our own interpreter and words
            [sys.executable, "-c", FAILING], stdout=written, stderr=written, check=False, timeout=60
        )
    finally:
        os.close(written)
    assert ended.returncode == 1


def test_a_complaint_is_heard_once_in_a_while_and_another_one_beside_it() -> None:
    """A client that says many times a second that no broker answers does not fill the log."""
    now = 100.0
    seldom = Seldom(clock=lambda: now)
    gone, refused = (
        logging.LogRecord("client", logging.ERROR, "client.py", line, "node %s", (1,), None)
        for line in (10, 20)
    )
    heard = [seldom.filter(each) for each in (gone, gone, refused, gone)]
    assert heard == [True, False, True, False]
    now += AGAIN_S
    assert [seldom.filter(each) for each in (gone, refused, gone)] == [True, True, False]
