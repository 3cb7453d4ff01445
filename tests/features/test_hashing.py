"""Categories without a list: one column of many, the same for good, under one name."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import linear_model, optim

import stream_ml as sml
from stream_ml.codec import check_prediction, encode_prediction
from stream_ml.errors import BadRecord, DeclarationError
from stream_ml.features import (
    FeatureSet,
    bucketed,
    cross,
    field,
    function,
    hashed,
    hour_of_day,
    log,
    one_hot,
    ratio,
    session,
    window,
)
from stream_ml.features.feature_view import FeatureView
from stream_ml.features.parts import fields_in
from stream_ml.features.sparse import column_count, expand, name_set, trial_names
from stream_ml.features.words import feature_words
from stream_ml.models.envelope import decode
from stream_ml.models.retrained import encode_row
from stream_ml.records import Event, Prediction, Record, Source
from stream_ml.schema import Enum, FieldType, Optional
from stream_ml.shell.export.tables import table_of
from stream_ml.testing import Driver

SCHEMA: dict[str, FieldType] = {
    "shop": FieldType("str"),
    "city": Optional[str],
    "kind": Enum("a", "b"),
    "n": FieldType("int"),
    "amount": Optional[float],
}
FIELDS: dict[str, Any] = {"shop": "s", "city": "c", "kind": "a", "n": 3, "amount": 50.0}
TEXTS = st.text(max_size=30) | st.sampled_from(["", "#0", "s#0..7", "\0", "a\x1fb", "😀" * 1000])


def values(*features: Any, **fields: Any) -> dict[str, float]:
    """The features of one event, at half past three."""
    state = FeatureSet(features, SCHEMA, lateness_ms=0).new_state()
    return state.features(Event("1", 3 * 3_600_000 + 1_800_000, "k", FIELDS | fields))


def test_columns_stay_for_good() -> None:
    """The column and the sign of a category are the same in every process and release."""
    texts = ["", "s", "Łódź", "\ud800", "a" * 4096]
    crossed = [("a", "bc"), ("ab", "c"), ("abc", "")]

    assert [
        {"shop#303": 1.0},
        {"shop#654": -1.0},
        {"shop#954": -1.0},
        {"shop#660": -1.0},
        {"shop#374": -1.0},
    ] == [values(hashed("shop", 1024), shop=text) for text in texts]
    assert [{"x#451": -1.0}, {"x#490": 1.0}, {"x#717": 1.0}] == [
        values(cross("shop", "city", width=1024).named("x"), shop=shop, city=city)
        for shop, city in crossed
    ]


@given(shop=TEXTS, city=TEXTS, width=st.integers(2, 1 << 20))
def test_an_event_has_one_column_of_those_declared(shop: str, city: str, width: int) -> None:
    """Whatever the text is, there is one column within the width, with 1 or -1 in it."""
    features = [hashed("shop", width), cross("shop", "city", width=width)]
    made = values(*features, shop=shop, city=city)

    assert {1.0} == {abs(x) for x in made.values()}
    assert ["shop", "cross(shop, city)"] == [name.rpartition("#")[0] for name in made]
    assert FeatureSet(features, SCHEMA, lateness_ms=0).name_set.issuperset(made)


def test_signs_and_columns_are_even() -> None:
    """Of many categories each column has about as many as another, and of each sign alike."""
    n, width = 20_000, 100
    made = [values(hashed("n", width), n=number) for number in range(n)]
    counts = Counter(name for features in made for name in features)
    signs = sum(sum(features.values()) for features in made)

    assert width == len(counts)
    assert abs(signs) < 4 * n**0.5
    # Chi-squared of 99 degrees of freedom: 1 in 100,000 is beyond 170.
    assert sum((count - n / width) ** 2 for count in counts.values()) / (n / width) < 170


def test_null_has_no_column() -> None:
    """Where a category is null there is no column, nor where a part of a cross is."""
    features = [hashed("city", 8), cross("shop", "city", width=8), cross("kind", "n", width=8)]

    assert ["cross(kind, n)"] == [name.rpartition("#")[0] for name in values(*features, city=None)]
    assert {} == values(cross("shop", bucketed("amount", (1, 2)), width=8), amount=None)


def test_numbers_are_crossed_by_bucket() -> None:
    """Numbers in one bucket share their column, the bound lies above, and an hour is a bucket."""
    place = cross("kind", bucketed("amount", (10, 100)), hour_of_day(), width=1 << 20)
    made = [values(place, amount=x) for x in (9.9, 10.0, 99.0, 100.0)]

    assert made[1] == made[2]
    assert 3 == len({str(each) for each in made})
    assert [0.0, 1.0, 1.0, 2.0] == [
        values(bucketed("amount", (10, 100)), amount=x)["bucketed(amount, 10, 100)"]
        for x in (9.9, 10.0, 99.0, 100.0)
    ]
    assert {"bucketed(amount, 10)": 7.0} == values(bucketed("amount", (10,), fill=7), amount=None)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([hashed("amount", 8)], "a field with categories, or `bucketed(...)` of a number"),
        ([hashed("nothing", 8)], "one of the fields shop, city, kind, n, amount"),
        ([hashed("shop", 1)], "a whole number from 2 to 1048576 as `width`"),
        ([hashed("shop", 1 << 21)], "a whole number from 2 to 1048576 as `width`"),
        ([hashed("shop", True)], "a whole number from 2 to 1048576 as `width`"),
        ([hashed(None, 8)], "a field's name, `bucketed(...)`, `hour_of_day()` or `weekday()`"),  # type: ignore[arg-type]
        ([cross("shop", width=8)], "from 2 to 8 fields to cross"),
        ([cross("shop", field("amount"), width=8)], "a field's name, `bucketed(...)`"),
        (
            [cross("shop", bucketed(window("1h").count(), (1,)), width=8)],
            "a number of the event's own fields",
        ),
        ([bucketed("amount", (2, 1))], "finite numbers as bounds, in ascending order"),
        ([bucketed("amount", ())], "finite numbers as bounds, in ascending order"),
        ([hashed("shop", 8), field("amount").named("shop#7")], "a name that is no column of"),
        ([field("amount").named("x#0..7")], "a name that does not end as that of many columns"),
        ([hashed("shop", 8), hashed("shop", 8)], "a name of its own"),
        ([hashed("shop", 8), hashed("shop", 16)], "columns `shop#` are those of features[0]"),
        ([hashed("shop", 8), hashed("city", 4).named("shop")], "a name of its own"),
    ],
)
def test_mistakes_are_told(features: list[Any], expected: str) -> None:
    """Each wrong declaration is refused in words, and no other."""
    with pytest.raises(DeclarationError) as raised:
        FeatureSet(features, SCHEMA, lateness_ms=0)
    assert 1 == len(raised.value.problems)
    assert expected in str(raised.value)


def test_a_column_beside_the_last_is_another_feature() -> None:
    """Eight columns are 0 to 7: a feature of yours may be called as a ninth."""
    features = [hashed("shop", 8), field("amount").named("shop#8")]
    assert {"shop#8"} < set(values(*features))


@given(st.lists(st.sampled_from(["a", "a#1", "b#0..3", "a#0..2", "b#0..3#0..1"]), unique=True))
def test_a_name_stands_for_its_columns_and_no_others(names: list[str]) -> None:
    """What is in a set of names are the columns that they stand for."""
    known, columns = name_set(names), expand(names)
    tried = {*columns, "b#4", "b#03", "b#-1", "b#٣", "b#", "#1", "a#3", "b", "b#0..3", "b#0..4"}

    assert {name for name in tried if name in columns} == {name for name in tried if name in known}
    assert known.issuperset(columns)
    assert column_count(names) == len(columns)
    assert set(columns).issuperset(trial_names(names))


def test_models_of_fewer_features_are_given_their_columns() -> None:
    """A model that knows one hashed feature of two is given its columns, in its order."""
    view = FeatureView(("shop#0..7", "amount"), "")
    given_ = {"amount": 1.0, "city#3": 1.0, "shop#7": -1.0, "shop#8": 2.0}

    assert [("shop#7", -1.0), ("amount", 1.0)] == list(view.select(given_).items())


def test_a_row_has_zeros_where_columns_are_absent() -> None:
    """To what makes rows an absent column is 0, and any other absent feature is missing."""
    names = ("a", "k#0", "k#1", "room#5")
    row = encode_row(0, 1.0, {"k#1": -1.0}, sml.Target("regression"), names)
    assert np.array_equal([0.0, 1.0, np.nan, 0.0, -1.0, np.nan], row, equal_nan=True)


def test_features_are_shown_in_words() -> None:
    """`plan` tells what is hashed, and into how many columns."""
    features = [cross("shop", bucketed("amount", (1, 2)), width=64).named("x")]
    texts = dict(FeatureSet(features, SCHEMA, lateness_ms=0).declaration())

    assert "cross(shop, bucketed(amount, 1, 2)) in 64 columns" == feature_words(texts["features.x"])


def test_the_fields_of_a_feature_are_known() -> None:
    """Whatever a feature is made from, by whatever way, is told of it."""
    made = {
        "amount": field("amount"),
        "kind": one_hot("kind"),
        "amount kind n": window("1h", by="kind").mean(log("amount"), n=3),
        "n": function(abs, "n"),
        "amount shop": cross("shop", bucketed("amount", (1,)), hour_of_day(), width=8),
        "": hour_of_day(),
        "kind shop": window("1h", entity="shop", by="kind").count(),
        "shop": window("1h").distinct_approx("shop"),
        "n shop": window("1h").rate("n", shop=("a", "b")),
        "amount kind": ratio(session("1h").rate("amount"), window("1h").rate(kind="a")),
    }
    for fields, feature in made.items():
        assert fields == " ".join(sorted(set(fields_in(feature, SCHEMA))))


WIDE = sml.Pipeline(
    "wide",
    events=sml.Events(key="shop", fields={"shop": str, "city": sml.Optional[str], "amount": float}),
    features=[
        sml.field("amount"),
        sml.hashed("shop", 1 << 20),
        sml.cross("shop", "city", width=1 << 20).named("both"),
    ],
    label=sml.Label(float, horizon="1h"),
    champion="line",
    models={"line": sml.DenseScaler() | linear_model.LinearRegression(optim.SGD(0.1))},
    monitors=sml.Monitors(block="1m"),
)


def records() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events and labels: each shop has a level of its own, which only its column can tell."""
    events = [
        {"event_id": f"e{n}", "ts": n * 1000, "shop": f"s{n % 7}", "city": None, "amount": n % 5.0}
        for n in range(1_200)
    ]
    labels = [
        {"event_id": each["event_id"], "ts": each["ts"] + 500, "label": float(n % 7)}
        for n, each in enumerate(events)
    ]
    return events, labels


def test_a_pipeline_learns_from_a_million_columns() -> None:
    """It has three names, what it logs is an event's one column, and a crash changes nothing."""
    outcomes = []
    for crashes in (False, True):
        with Driver(WIDE) as driver:
            events, labels = records()
            for start in range(0, len(events), 400):
                driver.publish("events", events[start : start + 400])
                driver.publish("labels", labels[start : start + 400])
                driver.run()
                if crashes:
                    driver.crash()
            outcomes.append((driver.read("predictions"), driver.read("models")[-1]["digest"]))
            assert [] == driver.read("dead-letters")
            # The field is watched, and not a million columns.
            assert {("amount",)} == {(*each["features"],) for each in driver.read("summaries")}

    assert outcomes[0] == outcomes[1]
    predictions, _ = outcomes[0]
    assert ("amount", "shop#0..1048575", "both#0..1048575") == WIDE.feature_set.names
    assert ["amount", "shop"] == [name.partition("#")[0] for name in predictions[0]["features"]]
    assert 1_200 == len(predictions)
    # The mean tells nothing: its error is 1.7.
    errors = [abs(each["prediction"] - n % 7) for n, each in enumerate(predictions)][1_100:]
    assert sum(errors) / len(errors) < 0.9


def test_hashed_features_come_and_go_in_flight() -> None:
    """A line of before is given no column, one of the new features is, and both go on."""
    former = replace(WIDE, features=[sml.field("amount"), sml.hashed("shop", 64)])
    other = replace(
        WIDE,
        features=[sml.field("amount"), sml.hashed("shop", 32).named("s"), sml.hashed("shop", 64)],
    )
    events, labels = records()
    with Driver(former) as driver:
        for start in range(0, len(events), 400):
            driver.publish("events", events[start : start + 400])
            driver.publish("labels", labels[start : start + 400])
            driver.run()
            if start == 0:
                driver.declare(other, apply="another width")
        predictions = driver.read("predictions")
        models = [decode(record.value) for record in driver.records("models") if record.value]
    assert {("amount", "shop"), ("amount", "s", "shop")} == {
        tuple(name.partition("#")[0] for name in each["features"]) for each in predictions
    }
    golden = {model.name: [*model.golden[-1].features] for model in models if model.golden}
    assert {"line": ["amount", "shop"], "line.2": ["amount", "s", "shop"]} == {
        line: [name.partition("#")[0] for name in names] for line, names in golden.items()
    }


def test_a_column_past_the_width_is_none_of_the_pipeline() -> None:
    """A prediction with a column that cannot be made is refused, as any foreign feature is."""
    prediction = Prediction(
        "e", "k", 0, Source(0, 0), "line@1", 0, 0.5, False, {"shop#1048575": 1.0}, {}
    )
    check_prediction(prediction, "regression", WIDE.known_features)
    prediction.features = {"shop#1048576": 1.0}

    with pytest.raises(BadRecord, match="given str 'shop#1048576'"):
        check_prediction(prediction, "regression", WIDE.known_features)


@pytest.mark.parametrize("widths", [*itertools.permutations((2, 30, 9))])
def test_of_a_name_with_several_widths_the_widest_counts(widths: tuple[int, ...]) -> None:
    """Records of a former declaration, which was wider, are read, in whichever order it is told."""
    known = name_set(f"shop#0..{width - 1}" for width in widths)
    assert ["shop#29"] == [name for name in ("shop#29", "shop#30") if name in known]


def test_learners_of_rows_are_bounded() -> None:
    """What is told all columns is refused where there are more than four thousand."""

    class Rows(sml.Learner):
        def prepare(self, target: Any, features: Any) -> None:  # noqa: ARG002 - the protocol's
            self.width = len(features)

        def predict_one(self, features: Any) -> float:  # noqa: ARG002
            return float(self.width)

        def learn_one(self, features: Any, label: Any) -> None: ...

        def dump(self) -> bytes:
            return b"-"

        def load(self, data: bytes) -> None: ...

    def declare(width: int) -> sml.Pipeline:
        features = [sml.hashed("shop", width), sml.field("amount")]
        return sml.Pipeline("rows", WIDE.events, features, WIDE.label, {"line": Rows()}, "line")

    assert 4_096.0 == declare(4_095).recipes["line"].fresh().predict_one({})
    with pytest.raises(DeclarationError, match=r"at most 4,096 columns .*, and 4,097 columns"):
        declare(4_096)


def test_exports_tell_the_column() -> None:
    """A table has one text for them all, which is the number of the one, with its sign."""
    table = table_of("predictions", WIDE, None)
    features = {"amount": 2.0, "shop#17": -1.0}
    prediction = Prediction("e", "k", 0, Source(0, 0), "line@1", 0, 0.5, False, features, {})
    output = encode_prediction(prediction)
    row, _ = table.row(Record("predictions", 0, 0, b"k", output, 0), output)

    cells = {
        column.name: (column.type, value)
        for column, value in zip(table.columns, row, strict=True)
        if column.name.startswith("feature.")
    }
    assert {
        "feature.amount": ("number", 2.0),
        "feature.shop#0..1048575": ("text", "-17"),
        "feature.both#0..1048575": ("text", None),
    } == cells
