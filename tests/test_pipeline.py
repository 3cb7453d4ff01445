"""The declaration: every mistake is found at once, and all else follows from a right one."""

from __future__ import annotations

from typing import Any

import pytest
from river import forest, linear_model, preprocessing

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.pipeline import Pipeline
from stream_ml.records import Event

FIELDS: dict[str, Any] = {"shop": str, "amount": float, "kind": sml.Enum("visit", "order")}
RESERVED = "first, last, live, mean, predecessor, prior, served"


def logistic() -> Any:
    """A model that is right for a binary label."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def declare(**changes: Any) -> Pipeline:
    """A right declaration, with changes."""
    declared: dict[str, Any] = {
        "name": "shop",
        "events": sml.Events(key="shop", fields=FIELDS, lateness="10s"),
        "features": [sml.field("amount")],
        "label": sml.Label(bool, horizon="1d"),
        "champion": "logistic",
        "models": {"logistic": logistic()},
    }
    return Pipeline(**declared | changes)


def events(**changes: Any) -> dict[str, Any]:
    """The events of the right declaration, with changes."""
    return {"events": sml.Events(**{"key": "shop", "fields": FIELDS, **changes})}


def field(name: Any, kind: Any) -> dict[str, Any]:
    """The events of the right declaration, with one field more."""
    return events(fields={**FIELDS, name: kind})


def label(type_: Any = bool, horizon: Any = "1d", fallback: Any = None) -> dict[str, Any]:
    """A label."""
    return {"label": sml.Label(type_, horizon, fallback)}


def promotion(**changes: Any) -> dict[str, Any]:
    """How models are renewed."""
    return {"promotion": sml.Promotion(**changes)}


def trained() -> Any:
    """A model that has learned."""
    model = linear_model.LogisticRegression()
    model.learn_one({"amount": 1.0}, True)
    return model


DURATION = 'a duration such as "10m", or whole milliseconds'
MISTAKES: list[tuple[dict[str, Any], str]] = [
    (
        {"name": "Shop!"},
        "name: expected lower-case letters, digits, - and _, given 'Shop!'",
    ),
    (
        field("city", "str"),
        "events.fields.city: expected float, int, str, bool, Enum or Optional, given 'str'",
    ),
    (
        field("size", sml.Enum("s", "s")),
        "events.fields.size: expected an Enum of different strings, given Enum('s', 's')",
    ),
    (
        field("size", sml.Enum()),
        "events.fields.size: expected an Enum of different strings, given Enum()",
    ),
    (
        field("size", sml.Optional(float, default="big")),
        "events.fields.size: expected a default that is float or null, given 'big'",
    ),
    (
        field(5, float),
        "events.fields.5: expected a name, given 5",
    ),
    (
        events(key="amount"),
        "events.key: expected a required field of type str or Enum, given amount: float",
    ),
    (
        events(time="amount"),
        "events.time: expected a member that is no declared field, given 'amount'",
    ),
    (
        events(id="ts"),
        "events.id: expected another member than the time, given 'ts'",
    ),
    (
        events(lateness="soon"),
        f"events.lateness: expected {DURATION}, given 'soon'",
    ),
    (
        events(skew=-1),
        f"events.skew: expected {DURATION}, given -1",
    ),
    (
        {"predict": sml.when(colour="red")},
        "predict.colour: expected a field of shop, amount, kind, given 'colour'",
    ),
    (
        {"predict": sml.when(kind=("visit", "return"))},
        "predict.kind: expected one of visit, order, given 'return'",
    ),
    (
        {"predict": sml.when(kind=())},
        "predict.kind: expected at least one value, given none",
    ),
    (
        {"predict": {"kind": "visit"}},
        "predict: expected a condition such as when(kind=\"order\"), given {'kind': 'visit'}",
    ),
    (
        {"features": []},
        "features: expected at least one feature, given none",
    ),
    (
        {"features": [sml.field("price")]},
        "features[0]: expected one of the fields shop, amount, kind, given str 'price'",
    ),
    (
        {"features": ["amount"]},
        "features[0]: expected a feature, such as field('amount'), given str 'amount'",
    ),
    (
        {"features": [sml.field("amount"), sml.field("amount")]},
        (
            "features[1]: expected a name of its own (use `.named`), "
            "given `amount`, the name of features[0]"
        ),
    ),
    (
        label(str),
        "label.type: expected bool, Enum or float, given str",
    ),
    (
        label(sml.Optional[bool]),
        "label.type: expected bool, Enum or float, given bool or null",
    ),
    (
        label(sml.Enum("only")),
        "label.type: expected an Enum of two different strings, given Enum('only',)",
    ),
    (
        label(horizon=0),
        f"label.horizon: expected {DURATION}, given 0",
    ),
    (
        label(fallback=float("nan")),
        "label.fallback: expected a probability, given nan",
    ),
    (
        label(sml.Enum("a", "b"), fallback="c"),
        "label.fallback: expected one of a, b, given 'c'",
    ),
    (
        {"models": {}},
        "models: expected at least one model, given none",
    ),
    (
        {"champion": "tree"},
        "champion: expected one of logistic, given 'tree'",
    ),
    (
        {"models": {"logistic": logistic(), "prior": logistic()}},
        (
            "models.prior: expected lower-case letters, digits, - and _, "
            f"not {RESERVED}, given 'prior'"
        ),
    ),
    (
        {"models": {"logistic": linear_model.LinearRegression()}},
        (
            "models.logistic: expected a classifier, for a binary label, "
            "given linear_model.LinearRegression"
        ),
    ),
    (
        {"models": {"logistic": linear_model.LogisticRegression}},
        (
            "models.logistic: expected an estimator of river, "
            "given the class linear_model.LogisticRegression"
        ),
    ),
    (
        {"models": {"logistic": trained()}},
        "models.logistic: expected an estimator that has learned nothing, given a trained one",
    ),
    (
        {"models": {"logistic": logistic(), "forest": forest.ARFClassifier(n_models=2)}},
        (
            "models.forest: expected a seed, so that a replay gives the same model, "
            "given none for ARFClassifier"
        ),
    ),
    (
        promotion(refresh=0),
        "promotion.refresh: expected at least 1 example, given 0",
    ),
    (
        promotion(refresh=True),
        f"promotion.refresh: expected {DURATION}, given True",
    ),
    (
        promotion(first=None),
        "promotion.first: expected at least 1 example, given None",
    ),
    (
        promotion(divergence=float("nan")),
        "promotion.divergence: expected 0 or more, given nan",
    ),
    (
        {"keep": 0},
        "keep: expected a whole number above 0, given 0",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_a_mistake_says_where_what_was_expected_and_what_was_given(
    changes: dict[str, Any], message: str
) -> None:
    """One mistake gives one problem, in words that say the way out."""
    with pytest.raises(DeclarationError) as raised:
        declare(**changes)

    assert [message] == list(map(str, raised.value.problems))


def test_all_mistakes_are_listed_at_once() -> None:
    """Whoever gets five things wrong is told five things, not one five times over."""
    with pytest.raises(DeclarationError) as raised:
        declare(
            name="Shop",
            events=sml.Events(key="amount", fields=FIELDS, lateness="soon"),
            features=[sml.field("price")],
            champion="tree",
        )

    assert (
        "pipeline 'Shop' has 5 problems:\n"
        "  name: expected lower-case letters, digits, - and _, given 'Shop'\n"
        "  events.key: expected a required field of type str or Enum, given amount: float\n"
        f"  events.lateness: expected {DURATION}, given 'soon'\n"
        "  features[0]: expected one of the fields shop, amount, kind, given str 'price'\n"
        "  champion: expected one of logistic, given 'tree'"
    ) == str(raised.value)


def test_what_follows_from_a_declaration() -> None:
    """Durations are milliseconds, the champion's line comes first, the task is the label's."""
    models = {"other": logistic(), "logistic": logistic()}
    pipeline = declare(models=models, promotion=sml.Promotion(refresh="6h"))

    assert (10_000, 300_000, 86_400_000) == (
        pipeline.lateness_ms,
        pipeline.skew_ms,
        pipeline.horizon_ms,
    )
    assert 21_600_000 == pipeline.refresh_ms
    assert declare(promotion=sml.Promotion(refresh=50)).refresh_ms is None
    assert ["logistic", "other"] == list(pipeline.recipes)
    assert "binary" == pipeline.task.kind
    assert ("amount",) == pipeline.feature_set.names


@pytest.mark.parametrize(
    ("type_", "given", "expected"),
    [
        (bool, None, 0.5),
        (bool, 1, 1.0),
        (float, None, 0.0),
        (float, -3, -3.0),
        (sml.Enum("a", "b"), None, {"a": 0.5, "b": 0.5}),
        (sml.Enum("a", "b"), "b", {"a": 0.0, "b": 1.0}),
    ],
)
def test_the_fallback_is_an_answer_to_the_task(type_: Any, given: Any, expected: Any) -> None:
    """What is served without an answer has the form of one, whatever way it was declared."""
    models = {"logistic": linear_model.LinearRegression() if type_ is float else logistic()}
    pipeline = declare(models=models, **label(type_, fallback=given))

    assert expected == pipeline.fallback


def test_only_events_that_meet_the_condition_ask() -> None:
    """Each named field must have one of its values; without a condition every event asks."""

    def event(kind: str, shop: str) -> Event:
        return Event("e", 1, "s", {"shop": shop, "amount": 1.0, "kind": kind})

    some = declare(predict=sml.when(kind="visit", shop=("a", "b")))

    assert some.asks(event("visit", "b"))
    assert not some.asks(event("order", "b"))
    assert not some.asks(event("visit", "c"))
    assert declare().asks(event("order", "c"))


def test_what_happens_to_a_given_model_later_changes_no_declaration() -> None:
    """A line starts from the model as it was declared, though somebody trains it meanwhile."""
    model = linear_model.LogisticRegression()
    pipeline = declare(models={"logistic": model})
    model.learn_one({"amount": 1.0}, True)

    fresh = pipeline.recipes["logistic"].fresh()
    assert 0.5 == fresh.predict_proba_one({"amount": 1.0})[True]
