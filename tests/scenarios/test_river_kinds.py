"""Whatever river's learners do, the loop goes on: some of each kind, as mere challengers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from river import (
    dummy,
    ensemble,
    facto,
    forest,
    linear_model,
    naive_bayes,
    neighbors,
    preprocessing,
    rules,
    stats,
    tree,
)

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.testing import Driver

COUNT = 540

# What each is known to do beside learning: nothing, or why its line ends.
CLASSIFIERS: dict[str, tuple[Any, str | None]] = {
    "mondrian": (forest.AMFClassifier(2, seed=1), None),
    "eager tree": (tree.HoeffdingTreeClassifier(grace_period=20), None),
    "exhaustive tree": (
        tree.HoeffdingTreeClassifier(grace_period=20, splitter=tree.splitter.ExhaustiveSplitter()),
        None,
    ),
    "neighbours": (neighbors.KNNClassifier(engine=neighbors.SWINN(maxlen=200, seed=1)), None),
    "multinomial": (naive_bayes.MultinomialNB(), "math domain error"),
    "nothing": (dummy.NoChangeClassifier(), None),
    "stack": (
        ensemble.StackingClassifier(
            [linear_model.LogisticRegression(), naive_bayes.GaussianNB()],
            meta_classifier=linear_model.LogisticRegression(),
        ),
        None,
    ),
}
REGRESSORS: dict[str, tuple[Any, str | None]] = {
    "quantized tree": (tree.HoeffdingTreeRegressor(splitter=tree.splitter.QOSplitter()), None),
    "search tree": (tree.HoeffdingTreeRegressor(), None),
    "mondrian": (forest.AMFRegressor(2, seed=1), None),
    "bayesian": (linear_model.BayesianLinearRegression(), None),
    "statistic": (dummy.StatisticRegressor(stats.Mean()), None),
}


def declare(label: type, model: Any) -> sml.Pipeline:
    """A plain champion, and this challenger."""
    scale = preprocessing.StandardScaler
    plain = {
        bool: scale() | linear_model.LogisticRegression(),
        float: scale() | linear_model.LinearRegression(),
    }
    return sml.Pipeline(
        "kinds",
        events=sml.Events(key="k", fields={"up": float, "wild": float, "c": sml.Optional[float]}),
        features=[sml.field("up"), sml.field("wild"), sml.field("c")],
        label=sml.Label(label, horizon="1d"),
        champion="plain",
        models={"plain": plain[label], "challenger": model},
        promotion=sml.Promotion(refresh=500),
    )


def world(label: type) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A feature that only rises, one that leaps, one that is missing at times."""
    rand = random.Random(3)
    events, labels = [], []
    for n in range(COUNT):
        at = 1_700_000_000_000 + n * 1_000
        c = rand.gauss(0, 1)
        event = {"event_id": f"e{n}", "ts": at, "k": "x", "up": float(n)}
        event["wild"] = rand.choice([1e15, -1e15, 0.0, 1e-300, rand.gauss(0, 1)])
        events.append(event | ({"c": c} if n % 3 else {}))
        truth: Any = c + rand.gauss(0, 0.5)
        labels.append({"event_id": f"e{n}", "ts": at + 1, "label": truth > 0})
        if label is float:
            labels[-1]["label"] = truth
    return events, labels


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("label", "model", "fault"),
    [
        pytest.param(label, *case, id=f"{label.__name__} {name}")
        for label, cases in ((bool, CLASSIFIERS), (float, REGRESSORS))
        for name, case in cases.items()
    ],
)
def test_no_kind_of_learner_stops_the_loop(label: type, model: Any, fault: str | None) -> None:
    """Every event is predicted by the champion; what fails does so in its line, told once."""
    with Driver(declare(label, model)) as driver:
        driver.feed(*world(label))
        driver.declare(declare(label, model))  # and after a start
        driver.run()
        alerts = [
            alert["message"] for alert in driver.read("alerts") if alert["kind"] != "snapshot_dear"
        ]
        newest = driver.read("models")[-1]

        assert COUNT == len(driver.read("predictions"))
        assert COUNT == len(driver.read("examples"))
        assert ("plain" if fault else "challenger", 500) == (newest["model"], newest["version"])
    assert len(alerts) == (0 if fault is None else 1)
    assert fault is None or fault in alerts[0]


@pytest.mark.parametrize(
    ("label", "model", "expected"),
    [
        (bool, facto.FFMClassifier(seed=1), "an estimator that answers alike"),
        (float, rules.AMRules(), "which learns the same in every process"),
        (float, dummy.StatisticRegressor(preprocessing.MinMaxScaler()), "that takes numbers"),
    ],
    ids=["fields", "rules", "wrong parameter"],
)
def test_what_could_only_fail_is_refused_where_it_is_declared(
    label: type, model: Any, expected: str
) -> None:
    """What draws weights when asked, names its parts by memory, or has a part of a wrong kind."""
    with pytest.raises(DeclarationError, match=f"models.challenger: expected .*{expected}"):
        declare(label, model)
