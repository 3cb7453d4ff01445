"""The cards work by everybody who can do it, in turns: what it costs, and how long it takes.

    python -m benchmarks.cards [--events N] [--rounds N] [--without-kafka]

`work` says what the work is. The contestants, each in processes of its own:

- a *bare* loop over Python objects, and the whole *system* on the embedded log (`in_memory`), the
  latter also with monitors and without (`monitors`);
- on a broker: our workers, exactly once; the same by hand on aiokafka without guarantees
  (`by_hand`); plain Faust, as its documentation teaches (`plain_faust`).

A round is one run of each, so that a noisy neighbour meets all of them; figures are medians over
rounds, and ratios are taken within a round first. CPU is that of all of a contestant's processes;
the broker's stands beside it. `drain` and `latency` say how each is measured. The broker is
`STREAM_ML_TEST_BROKER`, or one of our own for the time (Java and Maven; Linux, for what processes
cost is read from /proc).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from benchmarks.drain import CONTESTANTS, DrainResult, drain
from benchmarks.latency import ISOLATIONS, Latency, OfferResult, measure
from benchmarks.monitors import monitor_costs, print_costs
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

IN_MEMORY = {"bare": "bare loop", "system": "stream_ml, embedded log"}
US = 1e6
# Plain Faust needs this many times as long for an event, and its share of a round stays short.
FAUST_SHARE = 8
RATE = 1_000


def _in_memory(contestant: str, events: int) -> dict[str, float]:
    process = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "benchmarks.in_memory", contestant, str(events)],
        check=True,
        stdout=subprocess.PIPE,
    )
    result: dict[str, float] = json.loads(process.stdout)
    return result


@contextmanager
def _broker(folder: Path) -> Iterator[tuple[str, int | None]]:
    """The broker's address, and its process where it is ours."""
    address = os.environ.get("STREAM_ML_TEST_BROKER")
    if address is not None:
        yield address, None
        return
    with Broker(folder / "broker", heap="1g") as broker:
        yield broker.address, broker.pid


class _Rounds:
    """What every round of every contestant gave."""

    def __init__(self, options: argparse.Namespace, log: IO[bytes]) -> None:
        self._options = options
        self._log = log
        self.loads: list[float] = []
        self.in_memory: dict[str, list[dict[str, float]]] = {name: [] for name in IN_MEMORY}
        self.drain_results: dict[str, list[DrainResult]] = {name: [] for name in CONTESTANTS}
        self.monitors: list[dict[str, float]] = []
        self.latency: dict[str, list[OfferResult]] = {name: [] for name in CONTESTANTS}

    def run(self, broker: tuple[str, int | None] | None) -> None:
        """All rounds; those on a broker too where there is one."""
        for number in range(self._options.rounds):
            self._say(f"round {number + 1} of {self._options.rounds}")
            for name, results in self.in_memory.items():
                self._say(f"    {IN_MEMORY[name]}")
                results.append(_in_memory(name, self._options.events))
            self._say("    monitors")
            self.monitors += monitor_costs(self._options.events, 1)
            if broker is not None:
                for name in CONTESTANTS:
                    asyncio.run(self._drain(name, *broker))
        if broker is not None:
            for number in range(self._options.latency_rounds):
                self._say(f"latency, round {number + 1} of {self._options.latency_rounds}")
                for name in CONTESTANTS:
                    asyncio.run(self._measure(name, broker[0]))

    async def _drain(self, name: str, broker: str, pid: int | None) -> None:
        self._say(f"    {CONTESTANTS[name].title}")
        share = FAUST_SHARE if name == "faust" else 1
        # Whole thousands, for that is how often contestants say how far they are.
        count = max(1, self._options.events // share // 1_000) * 1_000
        self.drain_results[name].append(
            await drain(CONTESTANTS[name], broker, count, self._log, pid)
        )

    async def _measure(self, name: str, broker: str) -> None:
        self._say(f"    {CONTESTANTS[name].title}")
        seconds = self._options.seconds
        self.latency[name].append(
            await measure(CONTESTANTS[name], broker, RATE, seconds, self._log)
        )

    def _say(self, title: str) -> None:
        load = os.getloadavg()[0]
        self.loads.append(load)
        print(f"{title:<40} (load {load:.1f})", file=sys.stderr, flush=True)


# --- tables -----------------------------------------------------------------------------------


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _spread(ratios: list[float]) -> str:
    return f"{_median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _print_cpu(rounds: _Rounds, events: int) -> None:
    print(f"\n{'in one process: CPU':34}{'events/s':>10}{'µs/event':>10}{'peak MiB':>10}")
    for name, results in rounds.in_memory.items():
        rate = events / _median(r["seconds"] for r in results)
        peak = _median(r["peak_mib"] for r in results)
        print(f"{IN_MEMORY[name]:34}{rate:>10,.0f}{US / rate:>10.1f}{peak:>10.0f}")
    pairs = zip(*rounds.in_memory.values(), strict=True)
    ratios = [bare["seconds"] / system["seconds"] for bare, system in pairs]
    print(f"the system's speed as a share of the bare loop's: {_spread(ratios)}")


def _print_drain_results(rounds: _Rounds, events: int) -> None:
    columns = f"{'events/s':>10}{'µs/event':>10}{'+ broker':>10}{'peak MiB':>10}"
    print(f"\n{'on a broker: elapsed, and CPU':34}{columns}")
    for name, results in rounds.drain_results.items():
        rate = _median(d.events / d.seconds for d in results)
        cost = _median(_cost(d) for d in results)
        broker_costs = [US * d.broker_cpu / d.events for d in results if d.broker_cpu is not None]
        broker = f"{_median(broker_costs):.1f}" if broker_costs else "?"
        peak = _median(d.peak_mib for d in results)
        print(f"{CONTESTANTS[name].title:34}{rate:>10,.0f}{cost:>10.1f}{broker:>10}{peak:>10.0f}")
    ours, faust = rounds.drain_results["kafka"], rounds.drain_results["faust"]
    print(f"of that our {_parts(ours)}")
    bare = [US * result["seconds"] / events for result in rounds.in_memory["bare"]]
    ratios = [_cost(d) / cost for d, cost in zip(ours, bare, strict=True)]
    print(f"CPU of all our processes, of the bare loop's: {_spread(ratios)}")
    ratios = [_rate(mine) / _rate(theirs) for mine, theirs in zip(ours, faust, strict=True)]
    print(f"our events/s, of plain Faust's: {_spread(ratios)}")


def _cost(result: DrainResult) -> float:
    return US * sum(result.cpu.values()) / result.events


def _rate(result: DrainResult) -> float:
    return result.events / result.seconds


def _parts(ours: list[DrainResult]) -> str:
    return ", ".join(
        f"{stage} {_median(US * d.cpu[stage] / d.events for d in ours):.0f}"
        for stage in ours[0].cpu
    )


def _print_latency(rounds: _Rounds) -> None:
    title = f"{RATE:,} events/s offered: p50/p99, ms"
    columns = "".join(f"{isolation:>18}" for isolation in ISOLATIONS)
    print(f"\n{title:34}{columns}{'µs/event':>10}{'sender p99':>12}")
    for name, results in rounds.latency.items():
        cells = [
            _cell([offer.latencies[isolation] for offer in results]) for isolation in ISOLATIONS
        ]
        cost, late = (
            _median(offer.cost for offer in results),
            _median(offer.late for offer in results),
        )
        columns = "".join(f"{cell:>18}" for cell in cells)
        print(f"{CONTESTANTS[name].title:34}{columns}{cost:>10.1f}{late:>12.1f}")


def _cell(results: list[Latency]) -> str:
    part: Callable[[str], float] = lambda name: _median(getattr(r, name) for r in results)  # noqa: E731
    remark = "" if all(r.received_count == r.sent_count for r in results) else " lost some"
    return f"{part('p50'):.1f} / {part('p99'):.1f}{remark}"


def main() -> None:
    """Run the contestants in turns and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=40_000, help="thousands of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=10, help="how long events are offered")
    parser.add_argument("--without-kafka", action="store_true", help="in one process only")
    options = parser.parse_args()
    # What aiokafka says of topics that were made, or deleted, a moment ago.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, Path(folder, "errors").open("wb") as log:
        rounds = _Rounds(options, log)
        try:
            if options.without_kafka:
                rounds.run(None)
            else:
                with _broker(Path(folder)) as broker:
                    rounds.run(broker)
        except BaseException:
            sys.stderr.write(Path(log.name).read_text(errors="replace")[-4_000:])
            raise
    print(f"cards: {options.events:,} events, {options.rounds} rounds in turns, medians")
    print(
        f"{os.cpu_count()} cores, load average {min(rounds.loads):.1f} to {max(rounds.loads):.1f}: "
        "elapsed times and latencies are of worth only where few others were at work"
    )
    _print_cpu(rounds, options.events)
    if rounds.monitors:
        print_costs(rounds.monitors, options.events)
    if not options.without_kafka:
        if options.rounds:
            _print_drain_results(rounds, options.events)
        if options.latency_rounds:
            _print_latency(rounds)


if __name__ == "__main__":
    main()
