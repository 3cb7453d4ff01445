"""How soon a world that turns over is followed, and whether one that stays leaves all quiet.

    python -m benchmarks.changes flips --seeds 20
    python -m benchmarks.changes quiet --seeds 20
    python -m benchmarks.changes alone --seeds 20

*Flips.* The scenario `sudden` under `stream_ml.examples.payments`: labels are independent, blocks
are of 50 labels, all lines are renewed each 500. At label 0 every chance is inverted. Judged is not
the loss on labels, which is mostly luck, but what an answer is expected to lose, given the chance
that the scenario knows. Served is good again from the first label on from which 250 in a row
are expected to lose at most 5 % more than the best line does over the last 1,500 of the run.

*Quiet.* The scenarios `steady` and `cycle`: every alert `loss_change` or of the guard, and every
replacement, is false: the champion is as good as any line.

*Alone.* The detector without a log, at a tenth of the cost: snapshots of one line answer, and are
renewed as `learn` renews them; labels come 35 payments later. The same three scenarios.

One line a seed, the verdict at the end. The stages are those that run live, in one process.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import random
import sys
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.evaluation.changes import ServedLoss
from stream_ml.evaluation.scores import loss
from stream_ml.examples import payments as declared
from stream_ml.models.fast import fast_learner, fast_predictor
from stream_ml.records import line_of
from stream_ml.scenarios import generate
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import decisions, examples, read_all
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes.progress import Progress
from stream_ml.stages.refresh_clock import RefreshClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example

__all__ = ["main"]

KEY = b"benchmark".ljust(32, b".")
WINDOW = 250
SETTLED = 1_500
TOLERANCE = 1.05
BEFORE = AFTER = 4_000
DELAY = 35
QUIET_LABELS = 50_000
# What may say that something has changed.
ALERTS = ("loss_change", "gross_harm", "guard", "drift")


class _Silent(Progress):
    """Shows nothing."""

    def __init__(self, *_: object) -> None:
        super().__init__("", None)

    def _show(self, text: str) -> None:
        del text


class Run(NamedTuple):
    """What came of a scenario: examples with the chance of each, decisions, alerts."""

    found: list[Example]
    chances: list[float]
    decided: list[Any]
    alerts: list[dict[str, Any]]
    truth: dict[str, Any]


def _run(name: str, seed: int, events: int, pipeline: Pipeline | None = None) -> Run:
    scenario = generate(name, seed=seed, events=events)
    pipeline = pipeline or getattr(declared, scenario.pipeline.split(":")[1])
    chances: dict[str, float] = {}

    def outputs() -> Iterator[Any]:
        for topic, record in scenario:
            if topic == "events":
                at = int(record["event_id"][1:]) / events
                logit = scenario.logit(record, at)
                chances[record["event_id"]] = 1 / (1 + math.exp(-logit))
            yield output_of(pipeline, topic, record)

    with SqliteLog.create(MEMORY, partitions=scenario.partitions) as log:
        replay(log, pipeline, KEY, outputs(), _Silent)
        found = list(examples(log))
        decided = list(decisions(log, KEY))
        alerts = [orjson.loads(record.value or b"{}") for record in read_all(log, "alerts")]
    of_each = [chances[example.prediction.event_id] for example in found]
    return Run(found, of_each, decided, alerts, scenario.truth())


def _expected(chance: float, answer: float | None) -> float:
    """What an answer is expected to lose, as Brier has it."""
    answer = 0.5 if answer is None else answer
    return (answer - chance) ** 2 + chance * (1 - chance)


def _line_losses(found: list[Example], chances: list[float]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for example, chance in zip(found, chances, strict=True):
        p = example.prediction
        answers = {s: shadow.prediction for s, shadow in p.shadows.items()}
        if not p.fallback:
            answers.setdefault(line_of(p.model), p.prediction)
        for slot, answer in answers.items():
            if slot not in {"predecessor", "first"}:
                sums[slot] += _expected(chance, answer)  # type: ignore[assignment, arg-type]
                counts[slot] += 1
    return {slot: sums[slot] / counts[slot] for slot in sums}


def _first_good(losses: list[float], bound: float) -> int | None:
    """From which label on the next `WINDOW` in a row lose no more than the bound on average."""
    total = math.fsum(losses[:WINDOW])
    for n in range(len(losses) - WINDOW + 1):
        if total / WINDOW <= bound:
            return n
        if n + WINDOW < len(losses):
            total += losses[n + WINDOW] - losses[n]
    return None


def _flip(seed: int, pipeline: Pipeline, *, verbose: bool = False) -> dict[str, Any]:
    run = _run("sudden", seed, BEFORE + AFTER, pipeline)
    [change] = run.truth["changes"]
    numbers = [int(example.prediction.event_id[1:]) for example in run.found]
    begin = next(i for i, n in enumerate(numbers) if n >= change["event"])
    found, chances = run.found[begin:], run.chances[begin:]
    losses = [
        _expected(chance, example.prediction.prediction)  # type: ignore[arg-type]
        for example, chance in zip(found, chances, strict=True)
    ]
    by_line = _line_losses(found[-SETTLED:], chances[-SETTLED:])
    best = min(by_line, key=by_line.__getitem__)
    label_times = [example.label_ts for example in run.found]
    # Alerts have the watermark of the examples, which lags: their place among the labels is near.
    since = [
        (alert["kind"], sum(ts <= alert["ts"] for ts in label_times) - begin)
        for alert in run.alerts
        if alert["kind"] in ALERTS and alert.get("state") != "resolved"
    ]
    decided = [
        (d.kind, sum(ts <= d.ts for ts in label_times) - begin, d.reason)
        for d in run.decided
        if d.kind in {"replaced", "rolled_back", "refused"}
    ]
    if verbose:
        for n in range(0, len(losses), WINDOW):
            window, of_window = found[n : n + WINDOW], chances[n : n + WINDOW]
            lines = {k: round(v, 3) for k, v in _line_losses(window, of_window).items()}
            mean = math.fsum(losses[n : n + WINDOW]) / len(window)
            print(f"  {n:6} {window[0].prediction.model:14} {mean:.3f} {lines}")
        for each in decided:
            print("  decided", *each)
        print("  alerts", since)
    return {
        "seed": seed,
        "good_after": _first_good(losses, TOLERANCE * by_line[best]),
        "alert_after": min((n for _, n in since if n >= 0), default=None),
        "false_alerts": sum(n < 0 for _, n in since),
        "replaced_after": min(
            (n for kind, n, _ in decided if n >= 0 and kind != "refused"), default=None
        ),
        "refused": sum(kind == "refused" for kind, *_ in decided),
        "best": best,
        "loss": by_line[best],
    }


def _flips(seeds: range, pipeline: Pipeline, *, verbose: bool) -> None:
    rows = []
    for seed in seeds:
        row = _flip(seed, pipeline, verbose=verbose)
        rows.append(row)
        print(" ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    good = sorted(math.inf if r["good_after"] is None else r["good_after"] for r in rows)
    told = sum(r["alert_after"] is not None and r["alert_after"] <= 500 for r in rows)
    print(
        f"good again: half within {good[(len(good) - 1) // 2]}, all within {good[-1]} labels; "
        f"within 2,500: {sum(n <= 2_500 for n in good)} of {len(seeds)}, within 1,500: "
        f"{sum(n <= 1_500 for n in good)}; alert within 500: {told}; alerts before the flip: "
        f"{sum(r['false_alerts'] for r in rows)}"
    )


def _quiet(seeds: range, pipeline: Pipeline, events: int) -> None:
    total: Counter[str] = Counter()
    for name in ("steady", "cycle"):
        for seed in seeds:
            started = time.process_time()
            run = _run(name, seed, events, pipeline)
            counts = Counter(
                alert["kind"] for alert in run.alerts if alert.get("state") != "resolved"
            )
            decided = Counter(d.kind for d in run.decided)
            seconds = time.process_time() - started
            print(f"{name} seed {seed}: {dict(counts)} {dict(decided)} {seconds:.0f} s", flush=True)
            for alert in run.alerts:
                if alert["kind"] in ALERTS:
                    print("   ", alert["message"])
            total.update({f"alert {kind}": n for kind, n in counts.items()})
            total.update({f"decision {kind}": n for kind, n in decided.items()})
    print(f"over {2 * len(seeds)} runs of {events:,} payments: {dict(total)}")


class Alone(NamedTuple):
    """What the detector said of one line: after how many labels, and what its answers lost."""

    detected: list[int]
    losses: list[float]
    refreshes: int


def _alone(name: str, seed: int, events: int, line: str) -> Alone:
    target, recipe = declared.payments.target, declared.payments.recipes[line]
    learner, served = recipe.fresh(), ServedLoss("binary")
    teach, clock = fast_learner(learner, target), RefreshClock(None, 500)
    predict = fast_predictor(copy.deepcopy(learner), target)
    scenario = generate(name, seed=seed, events=events)
    truths = random.Random(f"{name} {seed} alone")
    waiting: deque[tuple[dict[str, float], Any, bool]] = deque()
    detected, losses, n, refreshes = [], [], 0, 0
    for topic, record in scenario:
        if topic == "labels":
            continue
        logit = scenario.logit(record, int(record["event_id"][1:]) / events)
        chance = 1 / (1 + math.exp(-logit))
        features = _features(record)
        answer = predict(features)
        losses.append(_expected(chance, answer))
        waiting.append((features, answer, truths.random() < chance))
        if len(waiting) <= DELAY:
            continue
        features, answer, label = waiting.popleft()
        n += 1
        if answer is not None and served.add(answer, loss("binary", label, answer)):
            detected.append(n)
            clock.hasten(n)
        teach(features, label)
        if clock.strikes(n, n):
            predict, refreshes = fast_predictor(copy.deepcopy(learner), target), refreshes + 1
    return Alone(detected, losses, refreshes)


def _features(event: dict[str, Any]) -> dict[str, float]:
    channels = {f"channel={name}": float(event["channel"] == name) for name in declared.CHANNELS}
    return {
        "log(amount)": math.log1p(event["amount"]),
        "log(distance)": math.log1p(event["distance"]),
        "age": event["age"],
        **channels,
    }


def _alone_study(seeds: range, events: int) -> None:
    for line in declared.payments.recipes:
        delays, good, early = [], [], 0
        for seed in seeds:
            run = _alone("sudden", seed, BEFORE + AFTER, line)
            delays += [n - BEFORE for n in run.detected if n > BEFORE][:1]
            early += sum(n <= BEFORE for n in run.detected)
            after = run.losses[BEFORE:]
            bound = TOLERANCE * math.fsum(after[-SETTLED:]) / SETTLED
            good.append(_first_good(after, bound) or math.inf)
        delays, good = sorted(delays), sorted(good)
        print(
            f"sudden, {line}: found {len(delays)} of {len(seeds)}, after {delays} labels; "
            f"{early} early"
        )
        print(f"    within 5 % of itself once settled after {good}", flush=True)
        for name in ("steady", "cycle"):
            false = [len(_alone(name, seed, events, line).detected) for seed in seeds]
            runs = f"{len(seeds)} times {events:,} labels"
            print(f"{name}, {line}: {sum(false)} false alarms in {runs}", flush=True)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.changes", description=__doc__)
    parser.add_argument("study", choices=["flips", "quiet", "alone"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--events", type=int, default=QUIET_LABELS)
    parser.add_argument("--verbose", action="store_true", help="flips: each window and decision")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of Promotion")
    options = parser.parse_args()
    settings = {
        name: orjson.loads(value) for name, _, value in (s.partition("=") for s in options.set)
    }
    promotion = dataclasses.replace(declared.promotion, **settings)
    pipeline = dataclasses.replace(declared.payments, promotion=promotion)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.study == "flips":
        _flips(seeds, pipeline, verbose=options.verbose)
    elif options.study == "alone":
        _alone_study(seeds, options.events)
    else:
        _quiet(seeds, pipeline, options.events)


if __name__ == "__main__":
    sys.exit(main())
