"""Which of river's estimators can be lines, and that none of them stops anything.

    python -m benchmarks.families --seed 1 --number 10 --examples 2000

From each of river's families so many estimators are drawn, as river's own tests make them (with a
seed, where they take one). What is refused where it is declared is a row with the reason. The rest
of a family are challengers of one pipeline, for a yes or no or for a number, whose champion is a
plain linear model. Each must be taught every example, or be quarantined alone; the champion must
serve every event, be renewed to the end, and be what it is without any challenger, by digest.

One line an estimator: what became of it, microseconds an example and bytes of its last snapshot.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import math
import pkgutil
import random
import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import river
from river import base, linear_model, metrics, preprocessing

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from stream_ml.shell.views.costs import learn_tasks, read_costs
from stream_ml.shell.views.registry import read_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_ml.records import Output
    from stream_ml.shell.views.costs import LineCost

__all__ = ["main"]

KEY = b"benchmark".ljust(32, b".")
START_MS = 1_700_000_000_000
# Modules that hold no estimators, or only tools for them.
NO_FAMILIES = {"api", "checks", "compat", "datasets", "evaluate", "stream"}
FEATURES = [f"x{i}" for i in range(6)]
REFRESH = 500
# What is given where river's own tests give nothing.
PARTS: dict[str, Any] = {
    "budget": 200,
    "classifier": linear_model.LogisticRegression(),
    "desired_dist": {False: 0.5, True: 0.5},
    "func": math.sqrt,
    "inverse_func": math.exp,
    "metric": metrics.LogLoss(),
    "models": [linear_model.LogisticRegression(l2=l2) for l2 in (0.0, 0.1)],
    "regressor": preprocessing.StandardScaler() | linear_model.LinearRegression(),
}


class Candidate(NamedTuple):
    """An estimator of a family, or why there is none."""

    name: str
    estimator: Any
    flaw: str | None = None


class Outcome(NamedTuple):
    """What became of a line."""

    name: str
    text: str
    cost: LineCost | None = None


def families() -> dict[str, list[type]]:
    """River's classifiers and regressors, by the module that it exports them from."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.iter_modules(river.__path__):
        if module.name in NO_FAMILIES or module.name.startswith(("_", "test", "conftest")):
            continue
        package = importlib.import_module(f"river.{module.name}")
        classes = [getattr(package, name, None) for name in getattr(package, "__all__", [])]
        estimators = [
            cls
            for cls in classes
            if inspect.isclass(cls)
            and issubclass(cls, base.Classifier | base.Regressor)
            and not inspect.isabstract(cls)
        ]
        if estimators:
            found[module.name] = sorted(estimators, key=lambda cls: cls.__name__)
    return found


def candidate(family: str, cls: Any) -> Candidate:
    """One estimator of a class, as river's own tests make it."""
    name = f"{family}.{cls.__name__}"
    try:
        parameters = dict(next(iter(cls._unit_test_params()), {}))
        signature = inspect.signature(cls).parameters
        for name_of, parameter in signature.items():
            if name_of not in parameters and parameter.default is parameter.empty:
                parameters[name_of] = PARTS[name_of]
        if "seed" in signature:
            parameters["seed"] = 1
        return Candidate(name, cls(**parameters))
    except Exception as error:  # noqa: BLE001 - some cannot be made without more
        return Candidate(name, None, f"river's tests do not say how to make it ({error!r})")


def declared(kind: type, models: Mapping[str, Any]) -> sml.Pipeline:
    """A pipeline for a yes or no, or for a number."""
    linear = linear_model.LogisticRegression if kind is bool else linear_model.LinearRegression
    champion = preprocessing.StandardScaler() | linear()
    return sml.Pipeline(
        "families",
        events=sml.Events(key="key", fields=dict.fromkeys(FEATURES, float), lateness=0, breadth=1),
        features=[sml.field(name) for name in FEATURES],
        label=sml.Label(kind, horizon="1h"),
        champion="plain",
        models={"plain": champion, **models},
        promotion=sml.Promotion(
            mode="manual",
            refresh=REFRESH,
            first=REFRESH,
            slots=max(1, len(models)),
            on_harm="alert",
        ),
    )


def refusal(kind: type, each: Candidate) -> str | None:
    """Why it cannot be a line; None if it can."""
    if each.flaw is not None:
        return each.flaw
    try:
        declared(kind, {"candidate": each.estimator})
    except DeclarationError as error:
        return "; ".join(f"expected {p.expected}, given {p.actual}" for p in error.problems)
    return None


def stream(pipeline: sml.Pipeline, kind: type, count: int) -> Iterator[Output]:
    """So many events, a minute apart, each with its label before the next one."""
    rand = random.Random(1)
    for number in range(count):
        ts = START_MS + 60_000 * number
        fields = {name: round(rand.random(), 3) for name in FEATURES}
        value = fields["x0"] + 2 * fields["x1"] * fields["x2"] + 0.2 * rand.gauss(0, 1)
        label: bool | float = value > 1.0 if kind is bool else round(value, 3)
        event_id = f"e{number}"
        yield output_of(pipeline, "events", {"event_id": event_id, "ts": ts, "key": "k", **fields})
        yield output_of(
            pipeline, "labels", {"event_id": event_id, "ts": ts + 30_000, "label": label}
        )


def work(kind: type, lines: Sequence[Candidate], count: int) -> tuple[list[Outcome], list[str]]:
    """Let lines challenge; what became of each, and the champion's digests."""
    by_line = {f"line_{number}": each for number, each in enumerate(lines)}
    pipeline = declared(kind, {line: each.estimator for line, each in by_line.items()})
    with SqliteLog.create(MEMORY) as log:
        log.append(list(stream(pipeline, kind, count)))
        with Runner(log, pipeline, KEY, stopwatch=ProcessStopwatch()) as runner:
            runner.run()
            reasons = runner.learn.quarantine_reasons
        registry = read_registry(log, KEY, None)
        answers = log.end_offset("predictions", 0)
        assert answers == count, f"served {answers} of {count} events"
        digests = [entry.decision.serving.champion.digest for entry in registry.decisions]
        newest = registry.newest
        assert newest is not None
        last = f"plain@{count - count % REFRESH}"
        assert newest.serving.champion.model == last, f"{newest.serving.champion.model} serves"
        costs = read_costs(log, learn_tasks(log, ["plain", *by_line]))
    outcomes = []
    for line, each in by_line.items():
        reason = reasons.get(line)
        text = "a line" if reason is None else reason.partition(" learns no more ")[2]
        outcomes.append(Outcome(each.name, text.partition("; way out")[0], costs.get(line)))
    return outcomes, list(dict.fromkeys(digests))


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, run and tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=10, help="of estimators a family")
    parser.add_argument("--examples", type=int, default=2_000)
    parser.add_argument("--family", help="one of them alone")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    alone = {kind: work(kind, [], options.examples)[1] for kind in (bool, float)}
    rand = random.Random(options.seed)
    counts = {"lines": 0, "quarantined": 0, "refused": 0}
    for family, classes in families().items():
        drawn = rand.sample(classes, min(options.number, len(classes)))
        if options.family not in {None, family}:
            continue
        for kind, base_class in ((bool, base.Classifier), (float, base.Regressor)):
            chosen = [candidate(family, cls) for cls in drawn if issubclass(cls, base_class)]
            refused = {each.name: refusal(kind, each) for each in chosen}
            able = [each for each in chosen if refused[each.name] is None]
            outcomes, digests = work(kind, able, options.examples) if able else ([], alone[kind])
            assert digests == alone[kind], f"{family} has changed the champion"
            outcomes += [
                Outcome(name, f"refused: {flaw}") for name, flaw in refused.items() if flaw
            ]
            for outcome in outcomes:
                kind_of = "lines" if outcome.text == "a line" else "quarantined"
                counts["refused" if outcome.text.startswith("refused") else kind_of] += 1
                _print(outcome)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))


def _print(outcome: Outcome) -> None:
    cost = outcome.cost
    figures = ""
    if cost is not None and cost.example_us is not None:
        size = cost.snapshot_bytes or math.nan
        figures = f" | {cost.example_us:,.0f} | {size:,}"
    print(f"| `{outcome.name}` | {outcome.text}{figures or ' | | '} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
