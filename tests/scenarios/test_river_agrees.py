"""With a refresh after every example, the loop is river's progressive validation with delays.

River predicts with the live learner at the question and teaches it at the answer; here a frozen
snapshot predicts, and is renewed after each example. What is said must be the same to 1e-9.
"""

from __future__ import annotations

import datetime as dt
import io
import itertools
import random
import sys
from contextlib import redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import orjson
import pytest
from river import (
    datasets,
    evaluate,
    forest,
    linear_model,
    metrics,
    multiclass,
    naive_bayes,
    neighbors,
    preprocessing,
    tree,
)

import stream_ml as sml
from stream_ml.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCALED = preprocessing.StandardScaler
START = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - river adds naive moments and delays
START_MS = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp() * 1000)
ROWS = 300


def _constant(rows: int, _: int) -> list[int]:
    return [7] * rows


def _per_row(rows: int, seed: int) -> list[int]:
    rand = random.Random(seed)
    return [rand.choice([0, 0, 1, 2, 5, 30, 100]) for _ in range(rows)]


def _none(rows: int, _: int) -> list[int]:
    return [0] * rows


MODELS: dict[str, dict[str, Callable[[], Any]]] = {
    "binary": {
        "linear": lambda: SCALED() | linear_model.LogisticRegression(),
        "tree": lambda: tree.HoeffdingTreeClassifier(grace_period=50),
        "adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=50, seed=1),
        "naive Bayes": naive_bayes.GaussianNB,
        "forest": lambda: forest.ARFClassifier(n_models=3, seed=1),
    },
    "multiclass": {
        "softmax": lambda: SCALED() | linear_model.SoftmaxRegression(),
        "tree": lambda: tree.HoeffdingTreeClassifier(grace_period=50),
        "naive Bayes": naive_bayes.GaussianNB,
        "adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=50, seed=1),
        "neighbours": lambda: neighbors.KNNClassifier(engine=neighbors.LazySearch(50)),
        "one against the rest": lambda: (
            SCALED() | multiclass.OneVsRestClassifier(linear_model.LogisticRegression())
        ),
    },
    "regression": {
        "linear": lambda: SCALED() | linear_model.LinearRegression(),
        "tree": lambda: SCALED() | tree.HoeffdingTreeRegressor(grace_period=50),
    },
}
DATASETS = {
    "binary": datasets.Phishing,
    "multiclass": datasets.ImageSegments,
    "regression": datasets.TrumpApproval,
}
# What river is asked for: a metric that takes probabilities shows them; the rest is scored.
SHOWING = {
    "binary": metrics.ROCAUC,
    "multiclass": metrics.CrossEntropy,
    "regression": metrics.MAE,
}
SCORED: dict[str, dict[str, Callable[[], Any]]] = {
    "binary": {"roc_auc": metrics.ROCAUC, "log_loss": metrics.LogLoss},
    "multiclass": {"accuracy": metrics.Accuracy},
    "regression": {"mae": metrics.MAE, "rmse": metrics.RMSE, "r2": metrics.R2},
}


@pytest.mark.parametrize("delays", [_constant, _per_row, _none])
@pytest.mark.parametrize(
    ("kind", "model"), [(kind, name) for kind, models in MODELS.items() for name in models]
)
def test_answers_and_scores_are_those_of_rivers_progressive_validation(
    kind: str, model: str, delays: Callable[[int, int], list[int]], tmp_path: Path
) -> None:
    """Each answer and the scores over all of them are river's, whatever the labels' delay."""
    rows = list(itertools.islice(DATASETS[kind](), ROWS))
    data = [({name: float(value) for name, value in x.items()}, y) for x, y in rows]
    # Some questions share their moment: ties are part of the rule.
    times = [row - row % 3 // 2 for row in range(ROWS)]
    after = delays(ROWS, ROWS)
    make = MODELS[kind][model]

    answers, scores = _ours(kind, data, times, after, make(), tmp_path)

    steps = list(_river(SHOWING[kind](), data, times, after, make()))
    expected = [_answer(kind, step["Prediction"]) for step in steps]
    assert expected == [_close(answer) for answer in answers]
    for name, metric in SCORED[kind].items():
        *_, last = _river(metric(), data, times, after, make())
        assert last[metric.__name__].get() == pytest.approx(scores[name], abs=1e-9), name


def _close(answer: Any) -> Any:
    return None if answer is None else pytest.approx(answer, abs=1e-9)


def _answer(kind: str, said: Any) -> Any:
    if said is None or said == {}:
        return None
    return said.get(True, 0.0) if kind == "binary" else said


def _river(
    metric: Any, data: list[Any], times: list[int], after: list[int], model: Any
) -> Iterator[dict[str, Any]]:
    moments = {id(x): at for (x, _), *at in zip(data, times, after, strict=True)}
    yield from evaluate.iter_progressive_val_score(
        data,
        model,
        metric,
        moment=lambda x: START + dt.timedelta(seconds=moments[id(x)][0]),
        delay=lambda x, _: dt.timedelta(seconds=moments[id(x)][1]),
        yield_predictions=True,
    )


def _ours(
    kind: str, data: list[Any], times: list[int], after: list[int], model: Any, folder: Path
) -> tuple[list[Any], dict[str, float]]:
    """The answers, in the order in which their labels came, and the scores that backtest prints."""
    names = list(data[0][0])
    label: Any = {"binary": bool, "regression": float}.get(kind)
    if label is None:
        label = sml.Enum(*sorted({y for _, y in data}))
    pipeline = sml.Pipeline(
        "river",
        events=sml.Events(key="source", fields=dict.fromkeys(names, float), lateness=0, breadth=1),
        features=[sml.field(name) for name in names],
        label=sml.Label(label, horizon="1d"),
        champion="model",
        models={"model": model},
        promotion=sml.Promotion(refresh=1, first=10**9),
    )
    records: list[dict[str, Any]] = [
        {"event_id": f"{row}", "ts": START_MS + 1000 * time, "source": "all", **x}
        for row, ((x, _), time) in enumerate(zip(data, times, strict=True))
    ]
    due = sorted(range(ROWS), key=lambda row: times[row] + after[row])
    records += [
        {
            "event_id": f"{row}",
            "ts": START_MS + 1000 * (times[row] + after[row]),
            "label": float(data[row][1]) if kind == "regression" else data[row][1],
        }
        for row in due
    ]
    summary, predictions = _backtest(pipeline, records, folder)
    said = {p["event_id"]: None if p["fallback"] else p["prediction"] for p in predictions}
    return [said[f"{row}"] for row in due], summary["models"][0]["scores"]["cumulative"]


def _backtest(
    pipeline: sml.Pipeline, records: list[dict[str, Any]], folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    module = ModuleType("declared_here")
    module.pipeline = pipeline  # type: ignore[attr-defined]  # made on the spot
    file, predictions, shown = folder / "in.jsonl", folder / "out.jsonl", io.StringIO()
    file.write_bytes(b"\n".join(map(orjson.dumps, records)))
    with patch.dict(sys.modules, declared_here=module), redirect_stdout(shown):
        options = ["--format", "json", "--predictions", str(predictions)]
        code = main(["--pipeline", "declared_here:pipeline", "backtest", str(file), *options])
    assert code == 0
    return (
        orjson.loads(shown.getvalue()),
        [orjson.loads(line) for line in predictions.read_bytes().splitlines()],
    )
