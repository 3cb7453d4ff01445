"""What metrics cost: the cards work with and without them, in turns.

    python -m benchmarks.metering [--events N] [--rounds N]

A piece is a round of 256 records with all that follows from them, or a commit; see `turns`. Whoever
is measured is scraped by HTTP every 20,000 events, some four seconds of work, and both sides of
that are counted; Prometheus asks every 15 seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from http.client import HTTPConnection
from math import inf
from pathlib import Path
from typing import Any

from benchmarks.in_memory import publish
from benchmarks.monitors import begin_turns
from benchmarks.turns import in_turns
from stream_ml.examples.cards import cards
from stream_ml.metrics.setup import serving_metrics
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.metering.meter import Meter
from stream_ml.shell.metering.runner import MeasuredRunner
from stream_ml.shell.settings.listening import ListenAddress

WITHOUT, WITH = "without", "with"
KEY = b"benchmark"
BATCH_RECORDS = 2_048
SCRAPE_EVENTS = 20_000


def _scrape(address: ListenAddress) -> None:
    with closing(HTTPConnection(*address)) as connection:
        connection.request("GET", "/metrics")
        assert b"stream_ml_answer_seconds_count" in connection.getresponse().read()


def _work(contestant: str, count: int, folder: Path) -> None:
    """The cards work on the embedded log, publishing and the last commit included."""
    outputs, label_count, turns, step = begin_turns(count)
    path = folder / "cards.sqlite"
    with ExitStack() as stack:
        log = stack.enter_context(SqliteLog.create(path))
        publish(log, outputs)
        make: Any = Runner
        address = None
        if contestant == WITH:
            meter = Meter()
            make = partial(MeasuredRunner, meter)
            listening = ListenAddress("127.0.0.1", 0)
            serving = serving_metrics(
                listening, meter, lambda: SqliteLog.open(path), pipeline=cards, key=KEY
            )
            address = stack.enter_context(serving)
        # By examples alone, for waiting takes time, too.
        runner = stack.enter_context(make(log, cards, KEY, checkpoint_s=inf, step=step))
        done = scraped = 0
        while records := runner.poll(BATCH_RECORDS):
            done += records
            if address is not None and done - scraped >= SCRAPE_EVENTS:
                scraped = done
                _scrape(address)
        assert runner.joins[0].counts["joined"] == label_count
    turns.end_piece(is_last=True)


def main() -> None:
    """Compare, or be one of those that are compared."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestant", choices=(WITHOUT, WITH), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        with tempfile.TemporaryDirectory() as folder:
            _work(options.contestant, options.events, Path(folder))
        return
    module = [sys.executable, "-m", "benchmarks.metering", "--events", f"{options.events}"]
    ratios = []
    for number in range(options.rounds):
        commands = [[*module, "--contestant", name] for name in (WITHOUT, WITH)]
        costs_s = [sum(each) for each in in_turns(commands, {"PYTHONHASHSEED": f"{number}"})]
        ratios.append(costs_s[1] / costs_s[0])
        us = [1e6 * cost_s / options.events for cost_s in costs_s]
        print(f"without {us[0]:.1f} µs/event, with {us[1]:.1f}: {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
