"""The flights of a year under other settings: what serving was worth, what was decided.

    python -m benchmarks.year [--months 12] [--set NAME=VALUE ...]

`stream-ml demo --all` shows evidence at work: its example only tells of harm and of change. Here
the same flights are replayed with any settings of `Promotion`, by default with those that hold
where none is declared (`on_harm="switch"`, `on_change="refresh"`). Printed are the gap closed
between a model that is never updated and one that predicts live, each switch, and the alerts by
kind.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from stream_ml.codec import decode_alert
from stream_ml.examples.flights import flights
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import decisions, read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.report.bound import bound_answers
from stream_ml.shell.report.run import Report

__all__ = ["main"]

KEY = b"benchmark".ljust(32, b".")
SETTINGS = ("on_harm=switch", "on_change=refresh")


def main() -> None:
    """Replay, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--set", nargs="*", default=SETTINGS, metavar="NAME=VALUE")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        name: _value(text) for name, text in (setting.split("=", 1) for setting in options.set)
    }
    promotion = dataclasses.replace(flights.promotion, **settings)
    pipeline = dataclasses.replace(flights, promotion=promotion)
    with tempfile.TemporaryDirectory() as folder, SqliteLog.create(Path(folder, "log")) as log:
        records = flights_data.records(1, options.months)
        replay(log, pipeline, KEY, (output_of(pipeline, *record) for record in records))
        decided = list(decisions(log, KEY))
        report = Report("binary", (), decided, horizon_ms=pipeline.horizon_ms)
        for example, answers in bound_answers(log, pipeline, decided):
            report.add(example, answers)
        alerts = [decode_alert(record.value) for record in read_all(log, "alerts")]
    for gap in report.gaps():
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in gap.losses.items())
        print(f"{gap.since}: {gap.n:,} examples, {losses}; {gap.closed or 0:.2%} of the gap closed")
    for switch in report.switches():
        print(f"{switch.kind} on {report.local_time(switch.ts):%Y-%m-%d %H:%M}: {switch.reason}")
        gain = "" if switch.line_gain is None else f", of the line {switch.line_gain:+.4f}"
        print(f"    {switch.model} against {switch.former}: {switch.gain or 0:+.4f}{gain}")
    kinds = Counter(alert.kind for alert in alerts if alert.state != "resolved")
    print("alerts:", ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
