"""The declaration: every mistake is found at once, and all else follows from a right one."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from river import forest, linear_model, naive_bayes, preprocessing

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.features import Aggregate
from stream_ml.pipeline import Pipeline
from stream_ml.records import Event

if TYPE_CHECKING:
    from collections.abc import Callable

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
        {"slices": sml.Slice("visits", kind="visit")},
        (
            'slices: expected a list such as [Slice("abroad", country="it"), '
            "slice_by(\"country\")], given Slice(name='visits', equals={'kind': ('visit',)})"
        ),
    ),
    (
        {"slices": ["visit"]},
        (
            'slices[0]: expected Slice("abroad", country="it") or slice_by("country"), given '
            "'visit'"
        ),
    ),
    (
        {"slices": [sml.Slice("Visits", kind="visit")]},
        "slices[0].name: expected lower-case letters, digits, - and _, given 'Visits'",
    ),
    (
        {"slices": [sml.Slice("visits", kind="return")]},
        "slices[0].kind: expected one of visit, order, given 'return'",
    ),
    (
        {"slices": [sml.Slice("red", colour="red")]},
        "slices[0].colour: expected a field of shop, amount, kind, given 'colour'",
    ),
    (
        {"slices": [sml.Slice("all")]},
        "slices[0]: expected at least one field with its value, given none",
    ),
    (
        {"slices": [sml.slice_by("kind"), sml.slice_by("kind", top=2)]},
        "slices[1]: expected each slice once, given 'kind=*'",
    ),
    (
        {"slices": [sml.slice_by("amount")]},
        ("slices[0].field: expected a field of type Enum, bool or str: shop, kind, given 'amount'"),
    ),
    (
        {"slices": [sml.slice_by("kind", top=17)]},
        "slices[0].top: expected a whole number from 1 to 16, given 17",
    ),
    (
        {"slices": [sml.Slice(f"visits-{n}", kind="visit") for n in range(33)]},
        "slices: expected at most 32 slices, of a field's values one more than its top, given 33",
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
            "models.logistic: expected an estimator of river, a stream_ml.Learner or a "
            "stream_ml.Retrained, given the class linear_model.LogisticRegression"
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
        promotion(on_harm="panic"),
        "promotion.on_harm: expected one of switch, fall back, ask, alert, given 'panic'",
    ),
    (
        promotion(on_fault="stop"),
        (
            "promotion.on_fault: expected one of pause promotions, pause refreshes, pause, alert, "
            "given 'stop'"
        ),
    ),
    (
        promotion(on_failure=None),
        "promotion.on_failure: expected one of restart, restore, alert, given None",
    ),
    (
        promotion(refusals=0),
        "promotion.refusals: expected at least 1 refresh, given 0",
    ),
    (
        promotion(guard_block=0),
        "promotion.guard_block: expected at least 1 example, given 0",
    ),
    (
        promotion(guard_block=86_400_000),
        (
            'promotion.guard_block: expected up to 1,000,000 labels, or a duration such as "1d", '
            "given 86400000"
        ),
    ),
    (
        promotion(coverage_min=2),
        "promotion.coverage_min: expected from 0 to 1, given 2",
    ),
    (
        promotion(renewal=0),
        "promotion.renewal: expected at least 1 vote, given 0",
    ),
    (
        promotion(first=None),
        "promotion.first: expected at least 1 example, given None",
    ),
    (
        promotion(on_change="restart"),
        "promotion.on_change: expected one of refresh, alert, given 'restart'",
    ),
    (
        promotion(divergence=float("nan")),
        "promotion.divergence: expected 0 or more, given nan",
    ),
    (
        {"features": sml.field("amount")},
        (
            "features: expected a list of features, given "
            "FieldFeature(label=None, fill=None, field='amount')"
        ),
    ),
    (
        events(fields=["amount"]),
        "events.fields: expected names with their types, as in {\"x\": float}, given ['amount']",
    ),
    (
        events(key=None),
        "events.key: expected the name of a member, given None",
    ),
    (
        label(sml.Enum(["a", "b"])),  # type: ignore[arg-type]  # the mistake
        "label.type: expected an Enum of two different strings, given Enum(['a', 'b'],)",
    ),
    (
        {"label": bool},
        "label: expected Label(bool, horizon=\"1d\"), given <class 'bool'>",
    ),
    (
        {"events": None},
        "events: expected Events(key=..., fields={...}), given None",
    ),
    (
        {"promotion": "automatic"},
        "promotion: expected Promotion(refresh=\"1d\", ...), given 'automatic'",
    ),
    (
        {"models": [linear_model.LogisticRegression]},
        (
            "models: expected names with their estimators, given "
            "[<class 'river.linear_model.log_reg.LogisticRegression'>]"
        ),
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
    assert "binary" == pipeline.target.kind
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

    assert some.wants_prediction(event("visit", "b"))
    assert not some.wants_prediction(event("order", "b"))
    assert not some.wants_prediction(event("visit", "c"))
    assert declare().wants_prediction(event("order", "c"))


def test_what_happens_to_a_given_model_later_changes_no_declaration() -> None:
    """A line starts from the model as it was declared, though somebody trains it meanwhile."""
    model = linear_model.LogisticRegression()
    pipeline = declare(models={"logistic": model})
    model.learn_one({"amount": 1.0}, True)

    fresh = pipeline.recipes["logistic"].fresh()
    assert 0.5 == fresh.predict_proba_one({"amount": 1.0})[True]


# --- whatever was given where -------------------------------------------------------------------


class Incomparable:
    """An object of a user's that can be neither compared nor hashed."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]  # as said


SCALARS = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        10**400,
        2**53 + 1,
        0.5,
        math.nan,
        math.inf,
        "",
        "a",
        "amount",
        "kind",
        "shop",
        "ts",
        "other",
        "visit",
        "1h",
        "1d",
        "\ud800",
        b"a",
        1j,
        np.float64(0.5),
        np.float32(0.5),
        np.int64(3),
        np.bool_(True),
        np.str_("amount"),
        np.array([1.0, 2.0]),
        np.array(["a", "b"]),
        float,
        int,
        str,
        bool,
        list,
        len,
        object(),
        Incomparable(),
        Exception,
        sml.Enum("a", "b"),
        sml.Enum(["a", "b"]),  # type: ignore[arg-type]  # a mistake
        sml.Enum("other", "null"),
        sml.Optional[sml.Enum("x", "null")],
        sml.Optional["float"],
        sml.Optional(float, default={}),
        sml.field("amount"),
        sml.window("1h"),
        sml.window("1h").mean("amount"),
        sml.one_hot("kind"),
        sml.when(kind="visit"),
        sml.Promotion(),
        sml.Label(bool, "1d"),
        naive_bayes.GaussianNB(),
        naive_bayes.GaussianNB,
        linear_model.LinearRegression(),
        (n for n in range(3)),
        range(3),
    ]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(st.sampled_from(["a", "amount", "kind", 1, None]), max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "amount", "kind", "shop", "logistic", 1, None, "\ud800"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)
FEATURES: list[Callable[..., Any]] = [
    lambda a, b, *_: sml.field(a, fill=b),
    lambda a, *_: sml.field("amount", fill=a),
    lambda a, b, *_: sml.log(a, fill=b),
    lambda a, b, c, *_: sml.clip(a, b, c),
    lambda a, b, *_: sml.clip("amount", a, b),
    lambda a, b, c, *_: sml.ratio(a, b, fill=c),
    lambda a, b, *_: sml.difference("amount", a, fill=b),
    lambda a, b, c, d: sml.function(a, b, name=c, version=d),
    lambda a, b, c, *_: sml.function(abs, "amount", name=a, version=b, fill=c),
    lambda a, b, *_: sml.one_hot(a, b),
    lambda a, *_: sml.one_hot("shop", a),
    lambda a, *_: sml.one_hot("kind", a),
    lambda a, *_: sml.one_hot("shop", [a]),
    lambda a, b, *_: sml.hour_of_day(a, b),
    lambda a, *_: sml.hour_of_day(encode=a),
    lambda a, *_: sml.weekday(a),
    lambda a, *_: sml.field("amount").named(a),
    lambda a, *_: sml.log(sml.one_hot(a)),
    lambda a, *_: sml.log(sml.field("amount").named(a)),
    lambda a, b, c, *_: sml.window(a, by=b).count(kind=c),
    lambda a, *_: sml.window("1h", by=a).count(),
    lambda a, b, c, *_: sml.window("1h").mean(a, fill=b, amount=c),
    lambda a, *_: sml.window("1h").count(shop=a),
    lambda a, b, *_: sml.window("1h").distinct(a, fill=b),
    lambda a, b, *_: sml.window("1h").decayed_mean(a, half_life=b),
    lambda a, *_: sml.window("1h").decayed_mean("amount", half_life=a),
    lambda a, b, c, d: sml.window("1h").aggregate(a, b, c, fill=d),
    lambda a, b, c, d: sml.window("1h", ago=a).rate(b, per=c, fill=d),
    lambda a, b, c, *_: sml.hopping(a, b, by=c).median("amount"),
    lambda a, b, *_: sml.tumbling("1h", by=a, previous=b).count(),
    lambda a, b, *_: sml.session(a, longest=b).rate(),
    lambda a, b, c, *_: sml.calendar(a, b, previous=c).count(),
    lambda a, b, *_: sml.last_events(a, within=b).first("amount"),
    lambda a, b, c, d: sml.lag(a, b, tolerance=c, fill=d),
    lambda a, b, *_: sml.window("1h").quantile(a, b),
    lambda a, b, c, *_: sml.window("1h").counts(a, b, fill=c),
    lambda a, b, *_: sml.window("1h").top_k(a, b),
    lambda a, b, *_: sml.window("1h").slope("amount", per=a, fill=b),
    lambda a, b, *_: sml.window("1h").distinct_approx(a, fill=b),
    lambda a, b, *_: sml.window("1h").aggregate(Above, "amount", a, b),
    lambda a, *_: sml.window("1h").aggregate(Above, a),
]
WHOLE: list[Callable[..., dict[str, Any]]] = [
    lambda a, *_: {"name": a},
    lambda a, *_: {"events": a},
    lambda a, *_: {"features": a},
    lambda a, *_: {"label": a},
    lambda a, *_: {"models": a},
    lambda a, *_: {"champion": a},
    lambda a, *_: {"predict": a},
    lambda a, *_: {"predict": sml.when(kind=a)},
    lambda a, b, *_: {"predict": sml.when(amount=(a, b))},
    lambda a, *_: {"promotion": a},
    lambda a, *_: {"pending_max": a},
    lambda a, *_: {"window_events_max": a},
    lambda a, *_: {"keep": a},
    lambda a, *_: {"models": {"logistic": a}},
    lambda a, b, *_: label(a, "1d", b),
    lambda a, b, *_: label(bool, a, b),
    lambda a, *_: label(sml.Enum(a, "b"), "1d", a),
    lambda a, b, *_: label(sml.Enum(a), "1d", b),
    lambda a, *_: events(fields=a),
    lambda a, b, c, d: events(key=a, time=b, id=c, lateness=d),
    lambda a, *_: events(skew=a),
    lambda a, *_: field("x", a),
    lambda a, *_: field("x", sml.Enum(a, "b")),
    lambda a, b, *_: field("x", sml.Optional(a, default=b)),
    lambda a, *_: field("x", sml.Optional[a]),
    *(
        lambda a, *_, name=member.name: promotion(**{name: a})  # type: ignore[misc]  # a default
        for member in fields(sml.Promotion)
    ),
    lambda a, *_: {"slices": a},
    lambda a, *_: {"slices": [a]},
    lambda a, b, *_: {"slices": [sml.Slice(a, kind=b)]},
    lambda a, b, *_: {"slices": [sml.slice_by(a, top=b)]},
    *(lambda *given, make=make: {"features": [make(*given)]} for make in FEATURES),
]


class Above(Aggregate):
    """How many values lie above a limit."""

    name = "above"
    any_order = True

    def __init__(self, limit: float = 0.0) -> None:
        self.limit, self.n = limit + 0.0, 0

    def add(self, t: int, x: float) -> None:  # noqa: ARG002, D102 - the protocol's signature
        self.n += x > self.limit

    def evict(self, t: int, x: float) -> None:  # noqa: ARG002, D102 - the protocol's signature
        self.n -= x > self.limit

    def value(self, t: int) -> float:  # noqa: ARG002, D102 - the protocol's signature
        return float(self.n)

    def dump(self) -> Any:  # noqa: D102 - as above
        return self.n

    def load(self, state: Any) -> None:  # noqa: D102 - as above
        self.n = state


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=20)
@pytest.mark.parametrize("make", WHOLE)
@given(given=st.tuples(ANYTHING, ANYTHING, ANYTHING, ANYTHING))
def test_whatever_is_given_is_refused_in_words_or_works(
    make: Callable[..., dict[str, Any]], given: tuple[Any, ...]
) -> None:
    """No value in any place ends in an error of Python's own, nor is accepted and of no use."""
    try:
        pipeline = declare(**make(*given))
    except DeclarationError:
        return
    declared = pipeline.declaration()
    orjson.dumps(declared)
    _ = pipeline.event_codec, pipeline.label_codec, pipeline.fallback, pipeline.rules
    state = pipeline.feature_set.new_state()
    values = {"shop": "a", "amount": 1.0, "kind": "visit", "x": None}
    for number in range(2):
        event = Event(f"e{number}", 1_000 * number, "s", values)
        state.features(event)
        state.insert(event)
    fresh = pipeline.feature_set.new_state()
    fresh.restore([(name, piece) for name, piece in state.dirty() if piece is not None])
