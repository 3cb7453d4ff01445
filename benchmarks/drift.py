"""What `stream-ml drift` says of scripted changes, against the truth.

    $ python -m benchmarks.drift --seeds 10 [SCENARIO ...]

Each scenario is run through the whole system up to some hours after its change (`HOURS`: later,
models have learned what is new, or what is slow has come); then the diagnosis is read as the
command reads it. Right is a first kind that is the truth's, and its field. Models are renewed each
8 hours, some 480 labels: as often as `payments` says, and at half the cost of counting labels.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from stream_ml.codec import decode_alert
from stream_ml.examples import payments as declared
from stream_ml.scenarios import generate
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.views.drift import read_drift

if TYPE_CHECKING:
    from collections.abc import Iterator

payments = replace(declared.payments, promotion=replace(declared.promotion, refresh="8h"))
SCENARIOS = (
    "sudden",
    "gradual",
    "inputs",
    "label_share",
    "units",
    "frozen",
    "nulls",
    "category",
    "label_outage",
    "label_delay",
    "label_source",
    "flood",
    "silence",
)
EVENTS = 24_000
# What is slow: a concept that turns over days, labels' shares by day, labels that take 20 hours.
HOURS = {"gradual": 40.0, "label_share": 48.0, "label_delay": 36.0}
HOUR_MS = 3_600_000
KINDS = ("drift", "data_fault", "label_outage", "event_outage", "loss_change", "poison_rate")


class _Quiet(AbstractContextManager["_Quiet"]):
    """Shows no progress."""

    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def diagnosed(name: str, seed: int, after_ms: int) -> dict[str, Any]:
    """What is said a while after the change of a scenario."""
    scenario = generate(name, seed=seed, events=EVENTS)
    records = list(scenario)
    truth = scenario.truth()
    change = truth["changes"][0]
    until = change["ts"] + after_ms
    with SqliteLog.create(MEMORY, partitions=truth["partitions"]) as log:
        replay(
            log,
            payments,
            b"benchmark",
            (output_of(payments, topic, each) for topic, each in records if each["ts"] < until),
            _Quiet,  # type: ignore[arg-type]  # a progress that shows nothing
        )
        view = read_drift(log)
        alerts = [decode_alert(record.value) for record in read_all(log, "alerts")]
    kinds = [cause.kind for cause in view.causes]
    fields = [cause.subject for cause in view.causes if cause.kind == change["diagnosis"]]
    told = [a.ts for a in alerts if a.kind in KINDS and a.state == "open" and a.ts >= change["ts"]]
    false = [a for a in alerts if a.kind in KINDS and a.state == "open" and a.ts < change["ts"]]
    return {
        "truth": change["diagnosis"],
        "field": change["field"],
        "said": kinds,
        "right": kinds[:1] == [change["diagnosis"]],
        "field_right": change["field"] is None or fields[:1] == [change["field"]],
        "delay_h": (min(told) - change["ts"]) / HOUR_MS if told else None,
        "before": [f"{a.kind} {a.subject}" for a in false],
    }


def rows(names: list[str], seeds: range, hours: float) -> Iterator[str]:
    """A row of the table for each scenario."""
    yield "| scenario | truth | kind right | field right | median hours to the alert | said else |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        after_ms = round(HOURS.get(name, hours) * HOUR_MS)
        found = [diagnosed(name, seed, after_ms) for seed in seeds]
        delays = sorted(each["delay_h"] for each in found if each["delay_h"] is not None)
        wrong = sorted({" ".join(each["said"]) or "nothing" for each in found if not each["right"]})
        before = sorted({text for each in found for text in each["before"]})
        yield (
            f"| {name} | {found[0]['truth']} {found[0]['field'] or ''} | "
            f"{sum(each['right'] for each in found)}/{len(seeds)} | "
            f"{sum(each['field_right'] for each in found)}/{len(seeds)} | "
            f"{f'{delays[len(delays) // 2]:.1f}' if delays else '-'} | "
            f"{'; '.join([*wrong, *(f'before: {text}' for text in before)])} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=8.0)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    for row in rows(arguments.scenarios, seeds, arguments.hours):
        print(row, flush=True)


if __name__ == "__main__":
    main()
