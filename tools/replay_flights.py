"""Publishes half a year of real flights out of New York, as what they were once known by.

    python -m tools.replay_flights --rate 500

Events and labels come in the order in which they became known, so many a second; where to is set
as for every command (STREAM_ML_BROKER). SIGTERM and Ctrl-C stop it with all delivered that it has
sent; run again, it begins at the beginning, and what is there already is refused as a duplicate.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from stream_ml.client import Publisher, connect
from stream_ml.errors import StreamMLError
from stream_ml.examples.flights import flights
from stream_ml.shell.flights_data import records
from stream_ml.shell.processes.stop import Stop

if TYPE_CHECKING:
    from stream_ml.shell.log.port import Log

# So many at once, and then a pause: pauses of less than that are not kept.
PACE_S = 0.05
# How often it is asked how far the worker is, and how long it is waited for where it is behind.
LOOK_RECORDS, WAIT_S = 500, 0.25


def replay(rate: float, first_month: int, last_month: int, lag_max: int | None = None) -> int:
    """Publish, until all is or we are asked to stop; returns how many were.

    Args:
        rate: records a second, at most.
        first_month: of the flights.
        last_month: of them.
        lag_max: so many events may wait for predict; where more do, it waits too. None: any.
    """
    count, waited_s = 0, 0.0
    with Stop() as stop, connect(None, flights) as log, Publisher(log, flights) as publisher:
        began = time.monotonic()
        for topic, members in records(first_month, last_month):
            if topic == "events":
                publisher.post_event(members)
            else:
                publisher.post_label(members)
            count += 1
            if lag_max is not None and count % LOOK_RECORDS == 0:
                behind_s = wait_for_worker(log, stop, lag_max)
                if behind_s and not waited_s:
                    print(f"fewer than {rate:,.0f} a second: as fast as the worker is", flush=True)
                waited_s += behind_s
            ahead = count / rate - (time.monotonic() - began - waited_s)
            if ahead > PACE_S:
                stop.wait(ahead)
            if stop.is_requested:
                break
    return count


def wait_for_worker(log: Log, stop: Stop, lag_max: int) -> float:
    """Wait until no more than so many events wait for predict; returns for how many seconds.

    Args:
        log: that both are on.
        stop: ends the wait.
        lag_max: how many may wait.
    """
    began = None
    while lag(log) > lag_max and not stop.is_requested:
        # A look that takes long on a busy machine is no wait.
        began = began or time.monotonic()
        stop.wait(WAIT_S)
    return 0.0 if began is None else time.monotonic() - began


def lag(log: Log) -> int:
    """How many events wait for predict.

    Args:
        log: that both are on.
    """
    return sum(
        log.end_offset("events", number)
        - log.committed(f"predict-{number}").get(("events", number), 0)
        for number in range(log.partitions["events"])
    )


def main() -> int:
    """Publish as the command line says."""
    parser = argparse.ArgumentParser(description="Publishes half a year of real flights.")
    parser.add_argument("--rate", type=float, default=500.0, help="records a second (500)")
    parser.add_argument("--months", type=int, nargs=2, default=(1, 6), help="first and last (1 6)")
    parser.add_argument("--lag-max", type=int, help="wait where more events wait for predict")
    arguments = parser.parse_args()
    try:
        count = replay(arguments.rate, *arguments.months, lag_max=arguments.lag_max)
    except StreamMLError as error:
        print(f"replay: {error}", file=sys.stderr)
        return error.exit_code
    print(f"published {count:,} events and labels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
