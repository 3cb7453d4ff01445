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

from stream_ml.client import Publisher, connect
from stream_ml.errors import StreamMLError
from stream_ml.examples.flights import flights
from stream_ml.shell.flights_data import records
from stream_ml.shell.processes.stop import Stop

# So many at once, and then a pause: pauses of less than that are not kept.
PACE_S = 0.05


def replay(rate: float, first_month: int, last_month: int) -> int:
    """Publish, until all is or we are asked to stop; returns how many were."""
    count = 0
    with Stop() as stop, connect(None, flights) as log, Publisher(log, flights) as publisher:
        began = time.monotonic()
        for topic, members in records(first_month, last_month):
            if topic == "events":
                publisher.post_event(members)
            else:
                publisher.post_label(members)
            count += 1
            ahead = count / rate - (time.monotonic() - began)
            if ahead > PACE_S:
                stop.wait(ahead)
            if stop.is_requested:
                break
    return count


def main() -> int:
    """Publish as the command line says."""
    parser = argparse.ArgumentParser(description="Publishes half a year of real flights.")
    parser.add_argument("--rate", type=float, default=500.0, help="records a second (500)")
    parser.add_argument("--months", type=int, nargs=2, default=(1, 6), help="first and last (1 6)")
    arguments = parser.parse_args()
    try:
        count = replay(arguments.rate, *arguments.months)
    except StreamMLError as error:
        print(f"replay: {error}", file=sys.stderr)
        return error.exit_code
    print(f"published {count:,} events and labels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
