"""Features that may be missing, and estimators that do not cope with that."""

from __future__ import annotations

from typing import Any

import pytest
from river import compose, linear_model, naive_bayes, preprocessing, stats, tree

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.testing import Driver

imputed = preprocessing.StatImputer(("amount", stats.Mean())) | linear_model.LogisticRegression()


def declare(model: Any, *features: Any) -> sml.Pipeline:
    """A pipeline of an amount that may be missing, and one that may not."""
    fields = {"amount": sml.Optional[float], "price": float, "shop": sml.Optional[str]}
    return sml.Pipeline(
        "shop",
        events=sml.Events(key="customer", fields=fields),
        features=features or [sml.field("amount"), sml.field("price")],
        label=sml.Label(bool, horizon="1d"),
        champion="m",
        models={"m": model},
        promotion=sml.Promotion(refresh=100),
    )


def test_an_estimator_that_needs_every_feature_is_refused_where_one_may_be_missing() -> None:
    """The refusal names the line, the feature, what was raised, and the way out."""
    with pytest.raises(DeclarationError) as raised:
        declare(imputed)

    (problem,) = raised.value.problems
    assert "models.m" == problem.path
    assert "a feature that is missing, as amount may be; or give each of these a `fill`" in str(
        problem.expected
    )
    assert "KeyError('amount')" in problem.actual


@pytest.mark.parametrize(
    ("feature", "missing"),
    [
        (sml.field("amount"), {"amount"}),
        (sml.field("amount", fill=0.0), set()),
        (sml.window("1h").mean("price"), {"mean(price) 1h"}),
        (sml.window("1h").mean("price", fill=0.0), set()),
        (sml.window("1h").count(), set()),
        (sml.window("1h", by="shop").count(), {"count 1h by shop"}),
        (sml.ratio("price", "amount"), {"ratio(price, amount)"}),
        (sml.one_hot("shop", categories=("a", "b")), set()),
        (sml.hour_of_day(), set()),
    ],
)
def test_what_may_be_missing(feature: Any, missing: set[str]) -> None:
    """What has a `fill`, or a value for every event, is never missing."""
    assert missing == declare(tree.HoeffdingTreeClassifier(), feature).feature_set.missing


@pytest.mark.parametrize(
    "model",
    [
        preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        naive_bayes.GaussianNB(),
        tree.HoeffdingTreeClassifier(),
        compose.Select("price") | preprocessing.MinMaxScaler() | linear_model.Perceptron(),
    ],
    ids=str,
)
def test_who_copes_is_declared_and_learns(model: Any) -> None:
    """With a null among the events nobody is quarantined."""
    at = 1_700_000_000_000
    events = [
        {"event_id": f"e{n}", "ts": at + n, "customer": "c", "price": n % 3, "amount": amount}
        for n, amount in enumerate([1.0, None, 2.0, None, 0.5])
    ]
    labels = [{"event_id": f"e{n}", "ts": at + 10, "label": n % 2 == 0} for n in range(5)]
    with Driver(declare(model)) as driver:
        driver.feed(events, labels)
        assert 5 == len(driver.read("examples"))
        assert [] == driver.read("alerts")


def test_who_fails_in_any_case_is_not_refused_for_what_is_missing() -> None:
    """What our made-up examples raise says nothing of the real ones, which have no gaps either."""
    broken = preprocessing.StatImputer(("nothing", stats.Mean())) | naive_bayes.GaussianNB()

    assert "m" in declare(broken, sml.field("price"), sml.field("amount")).recipes


def test_what_a_learner_writes_into_its_features_is_its_own() -> None:
    """A part of river's that fills gaps in place changes neither the log nor the other lines."""
    filling = preprocessing.PreviousImputer() | naive_bayes.GaussianNB()
    at = 1_700_000_000_000
    events = [
        {"event_id": f"e{n}", "ts": at + n, "customer": "c", "price": 1.0, "amount": amount}
        for n, amount in enumerate([1.0, None])
    ]
    labels = [{"event_id": f"e{n}", "ts": at + 10, "label": n == 0} for n in range(2)]
    with Driver(declare(filling)) as driver:
        driver.feed(events, labels)
        assert {"price": 1.0} == driver.read("predictions")[1]["features"]
        assert {"price": 1.0} == driver.read("examples")[1]["features"]


def test_a_champion_that_failed_is_repaired_in_its_declaration() -> None:
    """With another recipe under its name its line learns from nothing, and serves again."""
    broken = preprocessing.StatImputer(("nothing", stats.Mean())) | naive_bayes.GaussianNB()
    at = 1_700_000_000_000

    def feed(driver: Driver, first: int) -> None:
        numbers = range(first, first + 150)
        driver.feed(
            [{"event_id": f"e{n}", "ts": at + n, "customer": "c", "price": n % 3} for n in numbers],
            [{"event_id": f"e{n}", "ts": at + n, "label": n % 3 == 0} for n in numbers],
        )

    with Driver(declare(broken, sml.field("price"))) as driver:
        feed(driver, 0)
        assert ["m"] == list(driver.runner.learn.quarantine_reasons)
        driver.declare(declare(naive_bayes.GaussianNB(), sml.field("price")))
        assert {} == driver.runner.learn.quarantine_reasons
        feed(driver, 150)

        assert [("open", "line:m"), ("resolved", "line:m")] == [
            (alert["state"], alert["subject"])
            for alert in driver.read("alerts")
            if alert["kind"] == "line_quarantined"
        ]
        assert ["m@0", "m@200"] == sorted({each["model"] for each in driver.read("predictions")})
